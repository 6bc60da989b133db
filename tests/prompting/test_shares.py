"""A batch in shares: the same step, to rounding; any number of threads, the same bits."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import FAMILIES, random_base, random_batch, random_prompt

from minipt.maths.gradcheck import compare
from minipt.maths.threads import at_most_threads
from minipt.prompting import shares
from minipt.prompting.shares import cut, share
from minipt.prompting.text import Batch
from minipt.prompting.wiring import loss_and_gradient
from minipt.transformer.base import Base
from minipt.transformer.trace import Trace


@pytest.fixture
def small_shares(monkeypatch):
    monkeypatch.setattr(shares, "SHARE", 40)


def case(family: str, texts: int = 9) -> tuple[Base, Batch]:
    base = random_base(4, context=100, **FAMILIES[family])
    return base, random_batch(base, texts, tokens=80, seed=1, choices=3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wiring", ["shared", "concatenated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shares_make_the_step_that_one_share_makes(family, wiring, dtype, monkeypatch):
    base, batch = case(family)
    if wiring == "shared" and not base.config.causal:
        return
    base, prompt = base.astype(dtype), random_prompt(base, 5)
    vectors = np.random.default_rng(0).normal(size=(3, base.config.channels)).astype(dtype)
    batch = replace(batch, choices=vectors)

    def step(trace: Trace | None = None) -> list[np.ndarray]:
        gradients = {"choices": None}
        loss, gradient = loss_and_gradient(base, prompt, batch, trace, wiring, gradients)
        return [np.array(loss), gradient, gradients["choices"]]

    whole = step()
    monkeypatch.setattr(shares, "SHARE", 40)
    assert len(cut(base, batch)) == 8
    for ours, expected, watched in zip(step(), whole, step(Trace()), strict=True):
        assert compare("step", ours, expected) < (1e-5 if dtype == np.float32 else 1e-12)
        assert compare("watched", watched, expected) < (1e-5 if dtype == np.float32 else 1e-12)
        assert ours.dtype == dtype or not ours.ndim


@pytest.mark.usefixtures("small_shares")
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_any_number_of_threads_gives_the_same_bits(family: str):
    base, batch = case(family)
    prompt, bits = random_prompt(base, 5), set()
    for threads in (1, 2, 4):
        with at_most_threads(threads):
            loss, gradient = loss_and_gradient(base, prompt, batch)
        bits.add((loss, gradient.tobytes()))
    assert len(bits) == 1


def test_the_size_of_a_step_alone_says_into_how_many_shares_it_is_cut(monkeypatch):
    base, batch = case("gpt2")
    size = int(batch.lengths.sum()) * base.config.channels
    for least, expected in ((size, 1), (size // 2, 2), (size // 3, 2), (size // 4, 4), (1, 8)):
        monkeypatch.setattr(shares, "SHARE", least)
        assert len(cut(base, batch)) == expected
    monkeypatch.setattr(shares, "SHARE", size)
    assert len(cut(base, batch, P=80)) == 2  # the prompt's rows in front of each text count too
    monkeypatch.setattr(shares, "SHARE", 100 * size)
    for least, expected in ((size + 1, 1), (size, 2)):
        monkeypatch.setattr(shares, "TWO_SHARES", least)
        assert len(cut(base, batch)) == expected


@pytest.mark.usefixtures("small_shares")
def test_the_shares_are_the_batch():
    base, batch = case("gpt2")
    parts = cut(base, batch)
    ids = np.concatenate([part.ids for part in parts])
    assert sorted(map(tuple, ids)) == sorted(map(tuple, batch.ids))
    assert {len(part.ids) for part in parts} == {1, 2}
    np.testing.assert_array_equal(share(batch, 1, 8).targets, batch.targets[1::8])


@pytest.mark.usefixtures("small_shares")
def test_a_share_without_an_answer_is_left_out():
    base = random_base(4, context=100)
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 17, (4, 3))
    targets[1::2] = -1
    batch = Batch(rng.integers(0, 17, (4, 60)), np.array([60, 50, 40, 30]), targets)
    prompt = random_prompt(base, 5)
    assert len(cut(base, batch)) == 2
    shared_out = loss_and_gradient(base, prompt, batch)
    whole = loss_and_gradient(base, prompt, batch, Trace())
    assert shared_out[0] == pytest.approx(whole[0], rel=1e-6)
    assert compare("gradient", shared_out[1], whole[1]) < 1e-5
