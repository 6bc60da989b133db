"""Generation: what is kept from step to step is what a fresh start would compute."""

import sys

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, base_with_tokenizer, random_base, random_prompt

import minipt
from minipt.errors import MiniptError
from minipt.maths.gradcheck import compare
from minipt.prompting.generate import advance, choose, generate, keep_top_k, keep_top_p, soften
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import run_prompt
from minipt.transformer.base import Base
from minipt.transformer.layer import StreamLayout, empty_past
from minipt.transformer.trace import Trace

generating = sys.modules["minipt.prompting.generate"]
TEXT = "the film was good"
TOLERANCES = {np.float32: 1e-5, np.float64: 1e-10}


@pytest.fixture(scope="module")
def base() -> Base:
    return base_with_tokenizer()


def tokens_of(base: Base, text: str) -> list[int]:
    return base.tokenizer.encode(text, add_special_tokens=False).ids


def writes(monkeypatch, ids: list[int]) -> None:
    """From now on the base writes these tokens, whatever it computes."""
    script = iter(ids)
    monkeypatch.setattr(generating, "choose", lambda *_: next(script))


# What is kept.


def from_scratch(base: Base, prompt: SoftPrompt | None, ids: list[int], wiring: str) -> np.ndarray:
    """The logits after the whole sequence, computed anew in a training step's own forward. (V,)"""
    batch = Batch([ids], [len(ids)], [0])
    if prompt is None:
        return minipt.logits(base, batch)[0]
    trace = Trace()
    minipt.loss_and_gradient(base, prompt, batch, trace, wiring)
    return trace["text.logits"][0]


FAMILIES = {
    "gpt2": {},
    "llama, two query heads to a key head": LLAMA | {"key_value_heads": 2, "tied": False},
    "llama, one key head": LLAMA | {"key_value_heads": 1},
}


@pytest.mark.parametrize("wiring", ["shared", "concatenated"])
@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_computes_what_a_fresh_start_would(family, dtype, length, wiring):
    base = random_base(0, channels=16, heads=4, context=32, **FAMILIES[family]).astype(dtype)
    prompt = random_prompt(base, length) if length else None
    past = run_prompt(base, prompt) or empty_past(base.config, base.dtype)
    ids = [3, 1, 4, 1, 5]
    rows = ids
    for step in range(9):
        logits, past = advance(base, np.array(rows), past)
        assert logits.dtype == dtype
        assert (
            compare("logits", logits, from_scratch(base, prompt, ids, wiring)) < TOLERANCES[dtype]
        )
        assert {array.shape[1] for pair in past for array in pair} == {length + len(ids)}
        rows = [(7 * step + 3) % base.config.vocabulary]
        ids = ids + rows


def test_the_prompt_and_the_text_are_computed_once_then_a_row_a_step(base, monkeypatch):
    """The trap: a prompt that is put in again on later steps would be more rows, and other ones."""
    rows = []

    def counted(module):
        forward = module.forward

        def count(step: StreamLayout) -> tuple:
            rows.append(step.stream.x.shape[:2])
            return forward(step)

        monkeypatch.setattr(module, "forward", count)

    counted(generating)
    counted(sys.modules["minipt.prompting.wiring"])
    writes(monkeypatch, [5, 6, 7, 8])
    list(generate(base, random_prompt(base, 3), TEXT, limit=4))
    assert rows == [(1, 3), (1, len(tokens_of(base, TEXT))), (1, 1), (1, 1), (1, 1)]


def test_greedy_takes_the_likeliest_at_every_step(base):
    prompt = random_prompt(base, 4)
    written = "".join(generate(base, prompt, TEXT, limit=8))
    ids = tokens_of(base, TEXT)
    for _ in range(8):
        ids.append(int(from_scratch(base, prompt, ids, "concatenated").argmax()))
    assert written and base.tokenizer.decode(ids).removeprefix(TEXT) == written


def test_the_prompt_changes_what_is_written(base):
    first, other = (random_prompt(base, 4, seed) for seed in (1, 2))
    texts = {"".join(generate(base, prompt, TEXT, limit=8)) for prompt in (None, first, other)}
    assert len(texts) == 3


def test_the_text_goes_into_the_template_that_the_prompt_was_tuned_with(base):
    plain, asked = random_prompt(base, 3), random_prompt(base, 3)
    asked.about |= {"template": "{text} it was"}
    expected = list(generate(base, plain, f"{TEXT} it was", limit=6))
    assert list(generate(base, asked, TEXT, limit=6)) == expected
    assert list(generate(base, plain, TEXT, limit=6)) != expected


# Where it ends.


def test_it_ends_at_a_special_token_which_is_not_shown(base, monkeypatch):
    good = tokens_of(base, " good")
    end = base.tokenizer.token_to_id("<|endoftext|>")
    writes(monkeypatch, [*good, end, *good])
    assert "".join(generate(base, None, TEXT, limit=9)) == " good"


def test_it_ends_at_the_limit(base, monkeypatch):
    for limit in (1, 3):
        writes(monkeypatch, tokens_of(base, "a" * 9))
        assert "".join(generate(base, None, TEXT, limit=limit)) == "a" * limit


@pytest.mark.parametrize("length", [0, 4])
def test_it_ends_where_the_base_has_no_more_positions(base, monkeypatch, length):
    """The last token is written from the last position and needs none of its own."""
    writes(monkeypatch, tokens_of(base, "a" * 99))
    prompt = random_prompt(base, length) if length else None
    room = base.config.context - length - len(tokens_of(base, TEXT))
    assert "".join(generate(base, prompt, TEXT, limit=99)) == "a" * (room + 1)


def test_a_text_that_fills_the_context_is_answered_by_one_token(base, monkeypatch):
    writes(monkeypatch, tokens_of(base, "aa"))
    assert list(generate(base, None, "b" * base.config.context)) == ["a"]


# Pieces of text.


def test_pieces_come_one_by_one(base, monkeypatch):
    ids = tokens_of(base, "ab")
    taken = []

    def take(*_: object) -> int:
        taken.append(len(taken))
        return ids[len(taken) - 1]

    monkeypatch.setattr(generating, "choose", take)
    pieces = generate(base, None, TEXT, limit=2)
    assert taken == []
    assert next(pieces) == "a"
    assert taken == [0]


@pytest.mark.parametrize("written", ["é", "日本語 ok", "a😀b", "naïve — “yes”", "👩‍🚀!"])
def test_no_character_is_broken_whatever_bytes_its_tokens_hold(base, monkeypatch, written):
    ids = tokens_of(base, written)
    assert len(ids) > len(written)
    writes(monkeypatch, ids)
    pieces = list(generate(base, None, "a", limit=len(ids)))
    assert "".join(pieces) == written
    assert all("\ufffd" not in piece and piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_such(base, monkeypatch):
    writes(monkeypatch, tokens_of(base, "a😀")[:-1])
    assert list(generate(base, None, TEXT, limit=4)) == ["a", "\ufffd"]


# How a token is chosen.

KNOWN = np.array([0.1, 0.4, 0.2, 0.3])


def test_softening_divides_the_logits_by_the_temperature():
    logits = np.log(KNOWN).astype(np.float32)
    np.testing.assert_allclose(soften(logits, 1.0), KNOWN, rtol=1e-6)
    squared, root = KNOWN**2, KNOWN**0.5
    np.testing.assert_allclose(soften(logits, 0.5), squared / squared.sum(), rtol=1e-6)
    np.testing.assert_allclose(soften(logits, 2.0), root / root.sum(), rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-310, 1e-3, 1.0, 1e300])
def test_softening_bears_every_temperature(temperature):
    softened = soften(np.array([1e4, -1e4, 1e4 - 1.0], np.float32), temperature)
    assert softened.sum() == pytest.approx(1.0, abs=1e-12)
    assert softened.argmax() == 0


def test_top_k_keeps_the_k_likeliest_and_of_equals_the_first():
    np.testing.assert_allclose(keep_top_k(KNOWN, 1), [0, 1, 0, 0])
    np.testing.assert_allclose(keep_top_k(KNOWN, 2), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(keep_top_k(KNOWN, 9), KNOWN)
    np.testing.assert_allclose(keep_top_k(np.full(64, 1 / 64), 2), [0.5, 0.5] + 62 * [0])


def test_top_p_keeps_the_fewest_that_have_p_together():
    np.testing.assert_allclose(keep_top_p(KNOWN, 1e-9), [0, 1, 0, 0])
    np.testing.assert_allclose(keep_top_p(KNOWN, 0.39), [0, 1, 0, 0])
    np.testing.assert_allclose(keep_top_p(KNOWN, 0.41), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(keep_top_p(KNOWN, 0.71), [0, 4 / 9, 2 / 9, 3 / 9])
    np.testing.assert_allclose(keep_top_p(KNOWN, 1.0), KNOWN)
    halves = np.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(keep_top_p(halves, 0.5), [0, 1, 0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ((1.0, None, None), KNOWN),
        ((0.5, None, None), KNOWN**2 / (KNOWN**2).sum()),
        ((1.0, 2, None), [0, 4 / 7, 0, 3 / 7]),
        ((1.0, None, 0.71), [0, 4 / 9, 2 / 9, 3 / 9]),
        ((1.0, 3, 0.7), [0, 4 / 7, 0, 3 / 7]),  # of the three, 0.4 and 0.3 have 7/9 together
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(how, expected):
    rng = np.random.default_rng(0)
    drawn = [choose(np.log(KNOWN), *how, rng) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, expected, atol=0.03)
    assert (shares[np.array(expected) == 0] == 0).all()


def test_temperature_0_draws_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert choose(np.array([1.0, 3.0, 3.0]), 0.0, 3, 0.9, rng) == 1
    assert rng.bit_generator.state == before


def test_the_same_seed_gives_the_same_text_and_another_one_another(base):
    prompt = random_prompt(base, 3)
    texts = ["".join(generate(base, prompt, TEXT, 12, 1.0, seed=seed)) for seed in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("only_one", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-9}])
def test_a_choice_of_one_is_the_greedy_one(base, only_one):
    how = {"temperature": 3.0, "seed": 1} | only_one
    greedy = list(generate(base, random_prompt(base, 3), TEXT, limit=9))
    assert list(generate(base, random_prompt(base, 3), TEXT, limit=9, **how)) == greedy


# What is refused, before anything is computed.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit is at least 1, not 0"),
        ({"temperature": -0.1}, "temperature is 0 or a positive number, not -0.1"),
        ({"temperature": float("nan")}, "temperature is 0 or a positive number, not nan"),
        ({"temperature": float("inf")}, "temperature is 0 or a positive number, not inf"),
        ({"top_k": 0}, "top_k is at least 1, not 0"),
        ({"top_p": 0.0}, "top_p lies above 0 and is at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p lies above 0 and is at most 1, not 1.1"),
        ({"top_p": float("nan")}, "top_p lies above 0 and is at most 1, not nan"),
        ({"seed": -1}, "seed is 0 or a positive number, not -1"),
    ],
)
def test_a_setting_out_of_range_is_refused(base, wrong, message):
    with pytest.raises(MiniptError, match=message):
        generate(base, None, TEXT, **wrong)


@pytest.mark.parametrize("length", [0, 5])
def test_a_text_longer_than_the_context_is_refused(base, length):
    prompt = random_prompt(base, length) if length else None
    room = base.config.context - length
    with pytest.raises(MiniptError, match=f"longer than the {room} tokens"):
        generate(base, prompt, "b" * (room + 1))
    generate(base, prompt, "b" * room)


@pytest.mark.parametrize("fields", [BERT, BERT | {"head": None}, {"causal": False}, {"head": None}])
def test_a_base_that_does_not_predict_the_next_token_is_refused(base, fields):
    other = random_base(0, tokenizer=base.tokenizer, **fields)
    with pytest.raises(MiniptError, match="base 'random-0' is not made to predict the next token"):
        generate(other, None, TEXT)


def test_a_prompt_of_another_width_is_refused(base):
    with pytest.raises(MiniptError, match="needs vectors of 8 channels"):
        generate(base, random_prompt(random_base(0, channels=12), 3), TEXT)


def test_a_base_without_a_tokenizer_and_an_empty_text_are_refused(base):
    with pytest.raises(MiniptError, match=r"without a tokenizer\.json"):
        generate(random_base(0), None, TEXT)
    with pytest.raises(MiniptError, match="has no tokens"):
        generate(base, None, "")
