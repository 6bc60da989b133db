"""Observing: the answers of `predict`, and beside them numbers that can be watched."""

import json

import numpy as np
import pytest
from helpers.bases import FAMILIES, base_that_reads, base_with_tokenizer, small_task

import minipt
from minipt.errors import MiniptError
from minipt.learning.observe import (
    directions,
    observe,
    read_validation,
    single_characters,
    validation_record,
)
from minipt.prompting.readout import embeddings
from minipt.prompting.text import Batch, encode
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import hidden_together
from minipt.transformer.trace import ForwardOnly

TEXTS = ["a good day", "cruel words " * 40, "kind people", "zzqx"]


def tuned(base, **given):
    return minipt.tune(base, small_task(), length=3, steps=2, batch_size=4, **given).prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_are_those_of_predict_in_all_families(family):
    base = base_that_reads(family)
    prompt = tuned(base)
    seen, expected = observe(base, prompt, TEXTS), minipt.predict(base, prompt, TEXTS)
    assert seen.predictions() == expected
    assert seen.labels == small_task().labels
    assert [seen.labels[k] for k in seen.answers] == [each.label for each in expected]


@pytest.mark.parametrize("family", ["gpt2", "bert", "encoder"])
def test_the_hidden_state_is_that_of_the_row_that_is_read(family):
    base = base_that_reads(family)
    prompt = tuned(base)
    seen = observe(base, prompt, TEXTS[:1])
    about = prompt.about
    question = question_format(base, about["template"], about["label_words"])
    room = base.config.context - len(prompt.vectors)
    (row,), _ = encode(base, question.template, TEXTS[:1], room, question.lead)
    positions = None if question.mask is None else [row.tolist().index(question.mask)]
    batch = Batch(row[None], [len(row)], [0], question.choices, positions)
    states = hidden_together(base, prompt.vectors, batch)  # (1, R, C)
    state = states[:, 0] if base.config.head else embeddings(states, batch, ForwardOnly())
    expected = state @ directions(base.config.channels)
    np.testing.assert_allclose(seen.hidden, expected, rtol=1e-4, atol=1e-5)
    assert seen.tokens.tolist() == [len(row)]


def test_labels_of_several_tokens_have_the_state_behind_the_text():
    base = base_with_tokenizer()
    prompt = tuned(base)
    one = observe(base, prompt, TEXTS)
    prompt.about |= {"labels": ["a", "b", "c"], "label_words": [" kind a", " kind b", " bad"]}
    several = observe(base, prompt, TEXTS)
    assert several.predictions() == minipt.predict(base, prompt, TEXTS)
    short = ~one.cut  # with room for the labels, a long text loses more of its beginning
    np.testing.assert_allclose(several.hidden[short], one.hidden[short], rtol=1e-4, atol=1e-5)


def test_directions_are_the_same_for_ever():
    d = directions(6)
    assert d.shape == (6, 16) and d.dtype == np.float32
    np.testing.assert_allclose(np.abs(d), 6**-0.5, rtol=1e-6)
    signs = (directions(192) > 0).astype(int)
    assert "".join(map(str, signs[0])) == "1010011001100100"
    assert abs(signs.mean() - 0.5) < 0.02


def test_texts_of_other_letters_have_more_single_bytes():
    base = base_with_tokenizer()
    usual, strange = observe(base, tuned(base), ["the film was good", "ωξψ ωξψ"]).unknown
    assert 0 <= usual < strange <= 1
    vocabulary = base.tokenizer.get_vocab()
    assert vocabulary["a"] in single_characters(base)
    assert vocabulary["Ġgood"] not in single_characters(base)


def test_lengths_and_cuts():
    base = base_with_tokenizer()
    seen = observe(base, tuned(base), TEXTS)
    assert seen.cut.tolist() == [False, True, False, False]
    assert seen.tokens[1] == base.config.context - 3 == seen.tokens.max()


def test_a_validation_record_comes_back_from_json():
    base, split = base_with_tokenizer(), small_task().validation
    prompt = tuned(base)
    record = json.loads(json.dumps(validation_record(base, prompt, split)))
    columns = {"probabilities", "tokens", "cut", "unknown", "hidden"}
    assert record.keys() == {"labels", "right"} | columns
    assert not any(text in json.dumps(record) for text in split.texts)
    seen, right = read_validation(record, "validation.json")
    again = observe(base, prompt, split.texts)
    np.testing.assert_array_equal(right, split.labels)
    for name in columns:
        np.testing.assert_allclose(getattr(seen, name), getattr(again, name), rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"right": [0, 1]},
        {"right": [9] * 8},
        {"hidden": [[0.0] * 15] * 8},
        {"tokens": "many"},
        {"unknown": [float("nan")] * 8},
        {"cut": None},
        {"labels": 3},
        {"tokens": [10**30] * 8},
    ],
)
def test_a_validation_record_of_another_shape_is_refused(change):
    base = base_with_tokenizer()
    record = validation_record(base, tuned(base), small_task().validation) | change
    with pytest.raises(MiniptError, match=r"validation.json is not as minipt writes it"):
        read_validation(record, "validation.json")


def test_what_predict_refuses_is_refused():
    base = base_with_tokenizer()
    prompt = tuned(base)
    with pytest.raises(MiniptError, match="texts are a list of strings"):
        observe(base, prompt, "a text")
    with pytest.raises(MiniptError, match="at least one text"):
        observe(base, prompt, [])
    prompt.vectors[:] = np.nan
    with pytest.raises(MiniptError, match="not finite"):
        observe(base, prompt, TEXTS)
