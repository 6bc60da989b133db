"""Greedy generation against transformers', which is given the same prompt as embeddings."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from helpers.bases import LLAMA, random_base, random_prompt, small_tokenizer
from helpers.recorder import random_gpt2
from helpers.twins import twin

import minipt
from minipt.prompting.generate import generate
from minipt.prompting.prompt import SoftPrompt

TEXTS = ("the film was good", "a", "bad words, long night")
SIZES = [
    {"layers": 1, "channels": 8, "heads": 2},
    {"layers": 3, "channels": 24, "heads": 3},
]


def transformers_writes(model, tokenizer, prompt: SoftPrompt | None, text: str, limit: int) -> str:
    """The likeliest tokens, from embeddings: transformers then returns the new tokens only."""
    ids = torch.tensor([tokenizer.encode(text).ids])
    x = model.get_input_embeddings()(ids)  # (1, T, C)
    if prompt is not None:
        x = torch.cat([torch.tensor(prompt.vectors)[None], x], 1)  # (1, P+T, C)
    written = model.generate(
        inputs_embeds=x,
        attention_mask=torch.ones(x.shape[:2], dtype=torch.long),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=0,
    )
    return tokenizer.decode(written[0].tolist(), skip_special_tokens=True)


@pytest.mark.parametrize("length", [0, 1, 6])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("text", TEXTS)
def test_the_likeliest_tokens_are_the_same(sizes: dict, text: str, length: int, tmp_path):
    tokenizer = small_tokenizer()
    V = tokenizer.get_vocab_size(with_added_tokens=True)
    # In float64 no near tie of two tokens can be decided by rounding.
    model = random_gpt2(seed=5, vocab_size=V, n_positions=64, **sizes).double()
    model.float().save_pretrained(tmp_path / "model")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    base = minipt.load_base(tmp_path / "model").astype(np.float64)
    prompt = random_prompt(base, length, seed=length) if length else None
    expected = transformers_writes(model.double(), tokenizer, prompt, text, limit=24)
    assert expected
    assert "".join(generate(base, prompt, text, limit=24)) == expected


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("shape", [{}, {"key_value_heads": 2, "tied": False}, {"mlp_bias": True}])
def test_a_llama_writes_the_same(shape: dict, length: int):
    tokenizer = small_tokenizer()
    sizes = {"vocabulary": tokenizer.get_vocab_size(with_added_tokens=True), "context": 64}
    base = random_base(4, 2, 16, 4, **sizes, tokenizer=tokenizer, **LLAMA | shape)
    base = base.astype(np.float64)
    prompt = random_prompt(base, length, seed=length) if length else None
    expected = transformers_writes(twin(base), tokenizer, prompt, TEXTS[0], limit=24)
    assert expected
    assert "".join(generate(base, prompt, TEXTS[0], limit=24)) == expected
