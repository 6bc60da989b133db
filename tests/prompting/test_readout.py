"""From hidden states to an answer: three heads, and choices that are tokens or vectors."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt

from minipt.maths import ops
from minipt.maths.gradcheck import check_gradient, compare
from minipt.maths.matrix_products import FEW_ROWS
from minipt.prompting.readout import choice_vectors, readout, readout_dx, rows_to_read
from minipt.prompting.text import Batch
from minipt.prompting.wiring import loss_and_gradient
from minipt.transformer.trace import Trace

HEADS = {"language": {}, "untied": LLAMA | {"tied": False}, "masked": BERT}
HEADS |= {"none": BERT | {"head": None}}


def case(head: str, vectors: bool):
    base = random_base(2, **HEADS[head]).astype(np.float64)
    batch = random_batch(base, 3, 5, choices=4, middle=True)
    if vectors:
        rng = np.random.default_rng(1)
        choices = rng.standard_normal((4, base.config.channels))
        batch = Batch(batch.ids, batch.lengths, batch.targets, choices, batch.positions)
    rows = rows_to_read(base, batch)
    hidden = np.random.default_rng(0).standard_normal((*rows.shape, base.config.channels))
    return base, batch, hidden


cases = pytest.mark.parametrize(
    ("head", "vectors"),
    [
        ("language", False),
        ("language", True),
        ("untied", False),
        ("masked", False),
        ("masked", True),
        ("none", True),
    ],
)


@cases
def test_the_backward_agrees_with_finite_differences(head, vectors):
    base, batch, hidden = case(head, vectors)
    dlogits = np.random.default_rng(3).standard_normal((3, 4))
    trace = Trace()
    readout(base, hidden, batch, trace)
    dhidden = readout_dx(base, dlogits, batch, trace)

    def loss(hidden: np.ndarray) -> float:
        return (dlogits * readout(base, hidden, batch, Trace())).sum()

    assert check_gradient(loss, hidden, dhidden) < 1e-7


@pytest.mark.parametrize("head", ["language", "masked", "none"])
def test_the_gradient_of_vectors_agrees_with_finite_differences(head):
    """The whole step, as a trained head takes it."""
    base, batch, _ = case(head, vectors=True)
    prompt, gradients = random_prompt(base, 2), {"choices": None}
    loss_and_gradient(base, prompt, batch, gradients=gradients)

    def loss(choices: np.ndarray) -> float:
        moved = Batch(batch.ids, batch.lengths, batch.targets, choices, batch.positions)
        return loss_and_gradient(base, prompt, moved)[0]

    assert gradients["choices"].shape == batch.choices.shape
    assert check_gradient(loss, batch.choices, gradients["choices"]) < 1e-7


@pytest.mark.parametrize("texts", [1, FEW_ROWS, FEW_ROWS + 1])
def test_a_language_head_compares_with_rows_of_the_output_matrix(texts):
    for head, table in (("language", "token.table"), ("untied", "output.table")):
        base, _, _ = case(head, vectors=False)
        batch = random_batch(base, texts, 5, choices=4)
        hidden = np.random.default_rng(0).standard_normal((texts, 1, base.config.channels))
        expected = hidden[:, 0] @ base.params[table][batch.choices].T
        assert compare("logits", readout(base, hidden, batch, Trace()), expected) < 1e-14
        np.testing.assert_array_equal(choice_vectors(base, None), base.params[table])


def test_a_masked_head_maps_the_row_first_and_has_a_bias_for_each_word():
    base, batch, hidden = case("masked", vectors=False)
    base = replace(base, config=replace(base.config, epsilon=0.1))
    p = base.params
    dense = hidden[:, 0] @ p["head.dense.weight"] + p["head.dense.bias"]
    active, _ = ops.gelu_erf(dense)
    normed, _, _ = ops.layernorm(active, p["head.norm.gain"], p["head.norm.bias"], 0.1)
    expected = normed @ p["token.table"][batch.choices].T + p["head.bias"][batch.choices]
    assert compare("logits", readout(base, hidden, batch, Trace()), expected) < 1e-13
    whole = Batch(batch.ids, batch.lengths, batch.targets, None, batch.positions)
    logits = readout(base, hidden, whole, Trace())  # (B, V)
    assert compare("logits", logits[:, batch.choices], expected) < 1e-13


def test_without_a_head_it_is_the_cosine_to_the_mean_of_the_real_rows():
    base, batch, hidden = case("none", vectors=True)
    for b, length in enumerate(batch.lengths):
        mean = hidden[b, :length].mean(0)
        expected = 20.0 * batch.choices @ mean / np.linalg.norm(mean)
        assert compare("logits", readout(base, hidden, batch, Trace())[b], expected) < 1e-13


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", HEADS)
def test_vectors_of_another_float_type_are_taken_in_the_bases(head, dtype):
    base, batch, hidden = case(head, vectors=True)
    logits = readout(base.astype(dtype), hidden.astype(dtype), batch, Trace())
    assert logits.dtype == dtype
    assert compare("logits", logits, readout(base, hidden, batch, Trace())) < 1e-5


def test_of_several_answers_a_text_only_those_that_count_are_read():
    base, _, hidden = case("language", vectors=False)
    batch = Batch(np.ones((3, 5), int), [5, 2, 5], [[-1, 3], [1, 2], [-1, -1]])
    hidden = np.concatenate([hidden, hidden + 1.0], 1)  # (B, R = 2, C)
    trace = Trace()
    logits = readout(base, hidden, batch, trace)  # (N = 3, V)
    counted = hidden[[0, 1, 1], [1, 0, 1]]
    assert compare("logits", logits, counted @ base.params["token.table"].T) < 1e-14
    dlogits = np.random.default_rng(3).standard_normal(logits.shape)
    dhidden = readout_dx(base, dlogits, batch, trace)
    expected = np.zeros_like(hidden)
    expected[[0, 1, 1], [1, 0, 1]] = dlogits @ base.params["token.table"]
    assert compare("dhidden", dhidden, expected) < 1e-14


def test_which_rows_are_read():
    batch = Batch([[1, 2, 3], [4, 5, 0]], [3, 2], [0, 1])
    language, masked, none = (random_base(0, **HEADS[h]) for h in ("language", "masked", "none"))
    assert rows_to_read(language, batch).tolist() == [[2], [1]]
    somewhere = Batch(batch.ids, batch.lengths, batch.targets, None, [0, 1])
    assert rows_to_read(masked, somewhere).tolist() == [[0], [1]]
    assert rows_to_read(none, batch).tolist() == [[0, 1, 2]] * 2
