"""The table of ops: every array has a row, and can be made again from what its row says."""

import numpy as np
import pytest
from helpers.bases import FAMILIES, base_that_reads, random_prompt
from helpers.remake import Remaker

from minipt.page.operations import operations
from minipt.page.places import Map, place_of
from minipt.page.sources import Sources
from minipt.page.steps import take_steps

CASES = [
    (family, wiring, layers)
    for family, fields in FAMILIES.items()
    for wiring in ("shared", "concatenated")
    for layers in (1, 2, 3)
    if wiring == "concatenated" or fields.get("causal", True)
]


def steps_of(family, wiring, layers=2, words=(" good", " bad"), text="the film was kind", P=3):
    base = base_that_reads(family, layers=layers).astype(np.float64)
    prompt = random_prompt(base, P)
    prompt.about |= {"labels": ["a", "b"], "label_words": list(words), "template": "{text}\n:"}
    return take_steps(base, prompt, text, "a", 1, wiring)


def real(of, name, array):
    """The array without rows of padding."""
    layout, place = Map(of.subject), place_of(name)
    rows = layout.rows(place)
    if rows is None or place.ending == "vectors":
        return array
    keep = rows < layout.P + (of.subject.batch.lengths[:, None] if len(rows) > 1 else layout.T)
    by_row = array.swapaxes(1, 2) if array.ndim == 4 else array
    return by_row[keep]


def all_made_again(of):
    trace = of.trace
    names = [name for name, array in trace.activations.items() if array.size]
    gradients = {name for name in trace.gradients if trace[name].size}
    layout = Map(of.subject)
    sources, remaker = Sources(layout, set(names), gradients), Remaker(of.subject)
    for name in names:
        inputs = {each: trace[each] for each in sources.made_from(name)}
        if name == "prompt.vectors":
            assert not inputs
            continue
        again = remaker.array(name, inputs)
        assert again.shape == trace[name].shape, name
        np.testing.assert_allclose(
            real(of, name, again), real(of, name, trace[name]), 1e-10, 1e-12, err_msg=name
        )
    for name in gradients:
        inputs = {
            (each, gradient): trace.grad(each) if gradient else trace[each]
            for each, gradient in sources.gradient_made_from(name)
        }
        again = remaker.gradient(name, inputs)
        np.testing.assert_allclose(
            real(of, name, again), real(of, name, trace.grad(name)), 1e-9, 1e-13, err_msg=name
        )


@pytest.mark.parametrize(("family", "wiring", "layers"), CASES)
def test_every_array_and_gradient_is_made_again_from_its_sources(family, wiring, layers):
    all_made_again(steps_of(family, wiring, layers))


@pytest.mark.parametrize("wiring", ["shared", "concatenated"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_with_labels_of_several_tokens_too(family, wiring):
    of = steps_of(family, wiring, words=(" a film", " a long night"))
    assert len(of.subject.batch.ids) == 2
    assert "text.scores" in of.trace
    all_made_again(of)


@pytest.mark.parametrize("family", ["gpt2", "bert", "encoder"])
def test_with_a_trained_head_too(family):
    base = base_that_reads(family).astype(np.float64)
    prompt = random_prompt(base, 3)
    prompt.head = random_prompt(base, 2, seed=1).vectors
    prompt.about |= {"labels": ["a", "b"], "label_words": [" good", " bad"], "template": "{text}"}
    all_made_again(take_steps(base, prompt, "the film was kind", "a"))
    formula = operations(base.config, trained_head=True)["logits"].formula
    assert "bias" not in formula


@pytest.mark.parametrize(("family", "wiring", "layers"), CASES)
def test_every_array_has_a_row_in_the_table(family, wiring, layers):
    of = steps_of(family, wiring, layers)
    rows = operations(of.subject.base.config)
    for name in of.trace.activations:
        row = rows[place_of(name).ending]
        assert row.title
        assert row.formula
        assert row.sentence.endswith(".")
        at = name.partition(".")[2].removesuffix(row.ending)
        for parameter in row.parameters:
            assert f"{at}{parameter}" in of.subject.base.params
        if name in of.trace.gradients:
            assert row.backward, name
            assert row.backward_sentence
    assert set(rows) == {place_of(name).ending for name in of.trace.activations} | {"scores"}


@pytest.mark.parametrize(("family", "wiring", "layers"), CASES)
def test_the_axes_of_every_array_are_known(family, wiring, layers):
    of = steps_of(family, wiring, layers)
    layout, config = Map(of.subject), of.subject.base.config
    sizes = {"N": 1, "B": 1, "K": 2, "1": 1, "P": layout.P, "T": layout.T, "H": config.heads}
    sizes |= {"P+T": layout.P + layout.T, "C": config.channels, "F": config.hidden}
    sizes |= {"D": config.channels // config.heads, "R": layout.answer_rows.shape[1]}
    sizes |= {"Hkv": config.key_value_heads or config.heads}
    for name, array in of.trace.activations.items():
        place = place_of(name)
        axes = layout.axes(place)
        assert len(axes) == array.ndim
        if array.size:
            letters = layout.letters(place, axes)
            assert tuple(sizes[letter] for letter in letters) == array.shape, name
        rows, columns = layout.rows(place), layout.columns(place)
        if rows is not None:
            assert rows.shape[1] == array.shape[[a in ("row", "vector") for a in axes].index(True)]
        if columns is not None:
            assert len(columns) == array.shape[-1]
