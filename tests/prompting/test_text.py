"""From text to batches: what is cut, what is read, and that every text comes exactly once."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from minipt.errors import MiniptError
from minipt.prompting.text import Batch, QuestionFormat, batches, encode
from minipt.prompting.verbalizer import label_tokens

LINES = "{text}\nKind:"
QUESTION = QuestionFormat("{text}", np.arange(99), None, "")


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


def ids_of(base, text: str) -> list[int]:
    return base.tokenizer.encode(text, add_special_tokens=False).ids


def test_a_long_text_loses_its_beginning_and_is_named(base):
    texts = ["the film was good", "good " * 40]
    (short, long), cut = encode(base, LINES, texts, room=30)
    assert short.tolist() == ids_of(base, "the film was good\nKind:")
    assert long.tolist() == ids_of(base, "good " * 40 + "\nKind:")[-30:]
    assert cut.tolist() == [False, True]


def test_a_tokenizer_without_its_own_unknown_token_is_a_sentence():
    tokenizer = Tokenizer(models.WordLevel({"the": 0}, unk_token="[UNK]"))
    base = replace(base_with_tokenizer(), tokenizer=tokenizer)
    with pytest.raises(MiniptError, match="the tokenizer of base 'random-0' cannot read the text"):
        encode(base, LINES, ["film"], room=30)


def test_braces_in_a_text_are_only_braces(base):
    ((row,), _) = encode(base, LINES, ["a {good} {text} {0}"], room=90)
    assert row.tolist() == ids_of(base, "a {good} {text} {0}\nKind:")


@pytest.mark.parametrize("room", [0, -2])
def test_no_room_is_a_sentence(base, room):
    with pytest.raises(MiniptError, match="leaves no room for a text"):
        encode(base, LINES, ["good"], room)


def test_a_text_without_tokens_and_a_template_without_a_place(base):
    with pytest.raises(MiniptError, match="has no tokens"):
        encode(base, "{text}", [""], 9)
    with pytest.raises(MiniptError, match="a template says where the text goes"):
        encode(base, "Kind:", ["good"], 9)


@pytest.mark.parametrize("word", [" good", "да", "是的", "👍", "naïve"])
def test_a_label_is_read_at_its_words_first_token(base, word):
    assert label_tokens(base, [word]).tolist() == ids_of(base, word)[:1]


def test_label_words_that_cannot_be_told_apart(base):
    with pytest.raises(MiniptError, match="they begin with the same token"):
        label_tokens(base, [" good", " good"])


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    size=st.integers(1, 8),
    seed=st.none() | st.integers(0, 99),
)
def test_every_text_comes_once_beside_texts_of_its_length(lengths, size, seed):
    token_rows = [np.arange(length) + i for i, length in enumerate(lengths)]
    targets = np.arange(len(lengths))
    rng = None if seed is None else np.random.default_rng(seed)
    found = list(batches(token_rows, targets, QUESTION, size, rng))
    assert sorted(i for indices, _ in found for i in indices) == list(range(len(lengths)))
    for indices, batch in found:
        assert batch.ids.shape[1] == max(lengths[i] for i in indices)
        for i, ids, length, target in zip(
            indices, batch.ids, batch.lengths, batch.targets, strict=True
        ):
            assert ids[:length].tolist() == token_rows[i].tolist()
            assert target == i
    ranges = sorted((batch.lengths.min(), batch.lengths.max()) for _, batch in found)
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))


def test_lengths_without_a_sign_are_lengths():
    signed = Batch([[1, 2, 3], [4, 5, 6]], [3, 2], [1, 0], [5, 6], [1, 1])
    arrays = {name: x.astype(np.uint64) for name, x in vars(signed).items() if x is not None}
    batch = Batch(**arrays)
    np.testing.assert_array_equal(batch.answer_rows, signed.answer_rows)
    several = Batch(arrays["ids"], arrays["lengths"], [[1, 2], [-1, 3]])
    assert several.answer_rows.tolist() == [[1, 2], [0, 1]]
    with pytest.raises(MiniptError, match=r"whole numbers below 2\*\*63"):
        Batch(np.full((1, 1), 2**63, np.uint64), [1], [0])


@pytest.mark.parametrize("choices", [5, [], np.zeros((2, 2, 2), int)])
def test_choices_that_are_no_list(choices):
    with pytest.raises(MiniptError, match=r"choices have shape \(K,\) or \(K, C\), K at least 1"):
        Batch([[1, 2]], [2], [0], choices)
