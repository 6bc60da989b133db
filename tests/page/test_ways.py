"""The parts of the gradient, layer by layer, by keys and by values, sum to the gradient."""

import numpy as np
import pytest
from helpers.bases import FAMILIES, base_that_reads, random_prompt

from minipt.page.steps import take_steps
from minipt.page.ways import from_text, gradient_by_way

CASES = [
    (family, wiring, layers)
    for family, fields in FAMILIES.items()
    for wiring in ("shared", "concatenated")
    for layers in (1, 3)
    if wiring == "concatenated" or fields.get("causal", True)
]


def steps_of(family, wiring, layers, dtype, words=(" good", " bad"), P=3):
    base = base_that_reads(family, layers=layers, context=120).astype(dtype)
    prompt = random_prompt(base, P)
    prompt.about |= {"labels": ["a", "b"], "label_words": list(words), "template": "{text}\n:"}
    return take_steps(base, prompt, "the film was kind", "a", 1, wiring)


@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize(("family", "wiring", "layers"), CASES)
def test_the_parts_sum_to_the_gradient(family, wiring, layers, dtype, largest):
    of = steps_of(family, wiring, layers, dtype)
    parts = gradient_by_way(of.subject, of.trace)
    P, C = of.gradient.shape
    assert parts.shape == (2, layers, P, C)
    assert parts.dtype == dtype
    error = np.abs(parts.sum((0, 1)) - of.gradient).max()
    assert error <= largest * np.abs(of.gradient).max()
    assert (np.abs(parts).max((2, 3)) > 0).all()


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_of_as_many_vectors_as_a_long_text_has_tokens(family):
    of = steps_of(family, None, 2, np.float64, P=80)
    parts = gradient_by_way(of.subject, of.trace)
    np.testing.assert_allclose(parts.sum((0, 1)), of.gradient, 1e-9, 1e-13)


def test_the_parts_of_both_wirings_are_equal():
    shared, joined = (
        steps_of("gpt2", wiring, 3, np.float64) for wiring in ("shared", "concatenated")
    )
    parts = [gradient_by_way(of.subject, of.trace) for of in (shared, joined)]
    np.testing.assert_allclose(*parts, 1e-9, 1e-14)


@pytest.mark.parametrize("wiring", ["shared", "concatenated"])
def test_labels_of_several_tokens(wiring):
    of = steps_of("llama", wiring, 2, np.float64, (" a film", " a long night"))
    assert len(of.subject.batch.ids) == 2
    parts = gradient_by_way(of.subject, of.trace)
    np.testing.assert_allclose(parts.sum((0, 1)), of.gradient, 1e-9, 1e-13)


def test_what_the_text_asks_is_the_sum_over_its_rows():
    of = steps_of("gpt2", "shared", 1, np.float64)
    keys, values = from_text(of.subject, of.trace)[0]
    assert keys.shape == values.shape == (2, 3, 4)
    scores, query = of.trace.grad("text.h0.attn.scores"), of.trace["text.h0.attn.query"]
    np.testing.assert_allclose(keys, (scores[0, :, :, :3].swapaxes(1, 2) @ query[0]), 1e-12)
    weights, context = of.trace["text.h0.attn.weights"], of.trace.grad("text.h0.attn.context")
    np.testing.assert_allclose(values, (weights[0, :, :, :3].swapaxes(1, 2) @ context[0]), 1e-12)
