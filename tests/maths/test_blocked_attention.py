"""Attention in blocks: equal to the textbook's, and its gradients to finite differences."""

from itertools import product

import numpy as np
import pytest

from minipt.maths import blocked_attention, ops
from minipt.maths.blocked_attention import (
    attention_dpast_alone,
    attention_in_blocks,
    attention_in_blocks_dx,
)
from minipt.maths.gradcheck import check_gradient
from minipt.transformer.layer import causal_mask, padding_mask

B, T, Hkv, D = 3, 11, 2, 4
LENGTHS = np.array([11, 4, 1])
CASES = list(product([True, False], [1, 3], [0, 5]))  # causal, G, P
cases = pytest.mark.parametrize(("causal", "G", "P"), CASES)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Eleven rows are three blocks, the last of them not full."""
    monkeypatch.setattr(blocked_attention, "BLOCK", 4)


def draw(G: int, P: int, texts: int = B) -> dict:
    """The arguments, and a dcontext; the padding is zeros, as `RowSet.pad` has it."""
    rng = np.random.default_rng([G, P])
    real = (np.arange(T) < LENGTHS[:texts, None])[:, None, :, None]  # (B, 1, T, 1)
    heads = {"query": G * Hkv, "key": Hkv, "value": Hkv, "dcontext": G * Hkv}
    drawn = {name: rng.normal(size=(texts, H, T, D)) * real for name, H in heads.items()}
    past = (rng.normal(size=(Hkv, P, D)), rng.normal(size=(Hkv, P, D)))
    return drawn | {"past": past, "lengths": LENGTHS[:texts]}


def textbook(drawn: dict, causal: bool) -> list[np.ndarray]:
    """context, dquery, dkey, dvalue, dpast_key, dpast_value of `ops`."""
    query, key, value, dcontext, past, lengths = drawn.values()
    mask = causal_mask(T, np.float64)
    if not causal:
        mask = padding_mask(lengths, T, np.float64)
    context, weights, _ = ops.attention(query, key, value, past, mask)
    _, dscores = ops.attention_dscores(dcontext, value, past[1], weights)
    dparts = ops.attention_dx(dcontext, dscores, query, key, past[0], weights, T)
    return [context, *dparts, *ops.attention_dpast(dcontext, dscores, query, weights, past[0])]


def in_blocks(drawn: dict, causal: bool) -> list[np.ndarray]:
    query, key, value, dcontext, past, lengths = drawn.values()
    kept = attention_in_blocks(query, key, value, past, lengths, causal)
    given = (query, key, value, past, lengths, causal)
    return [kept[0], *attention_in_blocks_dx(dcontext, *kept, *given)]


@cases
def test_it_equals_the_textbooks(causal: bool, G: int, P: int):
    drawn = draw(G, P)
    real = (np.arange(T) < LENGTHS[:, None])[:, None, :, None]
    expected, found = textbook(drawn, causal), in_blocks(drawn, causal)
    np.testing.assert_allclose(found[0], expected[0] * real, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@cases
def test_its_gradients_are_those_of_finite_differences(causal: bool, G: int, P: int):
    drawn = draw(G, P, texts=2)
    dcontext, lengths = drawn.pop("dcontext"), drawn.pop("lengths")
    inputs = [drawn["query"], drawn["key"], drawn["value"], *drawn["past"]]

    def loss(query, key, value, past_key, past_value) -> float:
        past = (past_key, past_value)
        context, _ = attention_in_blocks(query, key, value, past, lengths, causal)
        return float((context * dcontext).sum())

    kept = attention_in_blocks(*inputs[:3], tuple(inputs[3:]), lengths, causal)
    given = (*inputs[:3], tuple(inputs[3:]), lengths, causal)
    for i, gradient in enumerate(attention_in_blocks_dx(dcontext, *kept, *given)):
        if inputs[i].size:

            def of_one(x: np.ndarray, i: int = i) -> float:
                return loss(*inputs[:i], x, *inputs[i + 1 :])

            assert check_gradient(of_one, inputs[i], gradient) < 1e-7


@cases
def test_the_pasts_gradients_alone_are_the_same(causal: bool, G: int, P: int):
    drawn = draw(G, P)
    query, key, value, dcontext, past, lengths = drawn.values()
    kept = attention_in_blocks(query, key, value, past, lengths, causal)
    alone = attention_dpast_alone(dcontext, *kept, query, past)
    for ours, theirs in zip(alone, in_blocks(drawn, causal)[4:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", range(5))
def test_one_percent_does_not_go_unseen(index: int, monkeypatch):
    """The comparison above is one that can fail."""
    right = blocked_attention.attention_in_blocks_dx
    wrong = lambda *given: [1.01 * x if i == index else x for i, x in enumerate(right(*given))]  # noqa: E731
    monkeypatch.setitem(globals(), "attention_in_blocks_dx", wrong)
    with pytest.raises(AssertionError):
        test_it_equals_the_textbooks(True, 3, 5)


def test_single_precision_stays_single_precision():
    drawn = draw(1, 5)
    single = {name: x.astype("f4") for name, x in drawn.items() if name not in ("past", "lengths")}
    past = tuple(x.astype("f4") for x in drawn["past"])
    found = in_blocks(single | {"past": past, "lengths": LENGTHS}, True)
    assert {x.dtype for x in found} == {np.dtype("f4")}
