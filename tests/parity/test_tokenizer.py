"""The tokenizer that is built out of a GGUF file gives the ids that transformers gives."""

import json

import numpy as np
import pytest

pytest.importorskip("transformers")

from helpers.gguf_writer import small_llama, write
from tokenizers import Tokenizer, pre_tokenizers
from transformers import GPT2Tokenizer

import minipt
from minipt.loading.named_bases import base_is_here

STRINGS = 3000
# From these a string is drawn: words, digits, white space, other scripts, emoji of several code
# points, marks that combine, control characters, and what looks like a special token.
PIECES = ["the", " film", "ing", "'s", "'LL", "don't", "A", "É", "naïve", "ﬁ", "…", "—", "“", "#@!"]
PIECES += ["0", "7", "42", "1984", "3.14", " 100%", "½", "٣", "五", " ", "  ", "\n", "\r\n", "\t"]
PIECES += ["\u00a0", "\u3000", "\u200b", "\u0301", "電影", "фильм", "सिनेमा", "영화", "ไทย", "سينما"]
PIECES += ["🙂", "👩‍👩‍👧", "🏳️‍🌈", "🇫🇷", "\x00", "\x7f", "\ufeff", "\ue000", "𝔘", "<|endoftext|>"]
PIECES += ["<|im_start|>", "<|im_end|>", "<|im", "<repo_name>", "_", "`", "http://a.b/c?d=1", "\\n"]


def strings() -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(PIECES, rng.integers(1, 12))) for _ in range(STRINGS)]


def theirs(ours: Tokenizer, splits_digits: bool) -> GPT2Tokenizer:
    """GPT-2's tokenizer of the same vocabulary, merges and special tokens."""
    found = json.loads(ours.to_str())
    merges = [tuple(pair) for pair in found["model"]["merges"]]
    special = [token["content"] for token in found["added_tokens"]]
    tokenizer = GPT2Tokenizer(
        vocab=found["model"]["vocab"], merges=merges, extra_special_tokens=special
    )
    if splits_digits:
        gpt2 = tokenizer.backend_tokenizer.pre_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    return tokenizer


def assert_same(ours: Tokenizer, reference: GPT2Tokenizer) -> None:
    for text in strings():
        assert ours.encode(text).ids == reference(text)["input_ids"], repr(text)


@pytest.mark.parametrize("words", ["gpt-2", "smollm"])
def test_a_small_one(words: str, tmp_path):
    path = write(tmp_path / "small.gguf", small_llama(), **{"tokenizer.ggml.pre": words})
    ours = minipt.load_base(path).tokenizer
    assert_same(ours, theirs(ours, splits_digits=words == "smollm"))


def test_smollm2s():
    if not base_is_here("smollm2-135m"):
        pytest.skip("smollm2-135m is not in the cache")
    ours = minipt.load_base("smollm2-135m").tokenizer
    assert_same(ours, theirs(ours, splits_digits=True))
