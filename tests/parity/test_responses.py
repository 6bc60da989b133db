"""Responses against transformers, whose loss leaves out what is labelled -100."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from helpers.bases import LLAMA, random_base, random_prompt, small_tokenizer
from helpers.recorder import random_gpt2
from helpers.twins import twin
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

import minipt
from minipt.learning.evaluate import evaluate
from minipt.maths.gradcheck import compare
from minipt.prompting.responses import encode_responses, response_format
from minipt.prompting.text import batches
from minipt.prompting.wiring import WIRINGS
from minipt.tasks.task import Pairs
from minipt.transformer.base import Base

TEXTS = ["the film was", "a", "a long night and a long day:", "words, words", "the end " * 20]
RESPONSES = [" very good", " day", "\nbad people and kind people", " and", " s"]
NOT_COUNTED = -100
LENGTH = 5
ROOM = 30  # tokens of a text and its response, but for the last, which nothing reads
FAMILIES = {
    "gpt2": {},
    "llama": LLAMA,
    "llama, two query heads to a key head, untied": LLAMA | {"key_value_heads": 2, "tied": False},
}


def tolerance(family: str, dtype: type) -> float:
    """transformers' Llama norms and rotates in float32, whatever the model's float type."""
    return 1e-5 if dtype == np.float32 else 1e-9 if family == "gpt2" else 2e-6


def both(family: str, directory: Path, dtype: type) -> tuple[Base, PreTrainedModel]:
    """A random base with a tokenizer, and transformers' model with the same numbers."""
    tokenizer = small_tokenizer()
    V = tokenizer.get_vocab_size(with_added_tokens=True)
    if FAMILIES[family]:
        sizes = {"vocabulary": V, "context": 40, "tokenizer": tokenizer}
        base = random_base(2, 2, 16, 4, **sizes, **FAMILIES[family]).astype(dtype)
        return base, twin(base)
    model = random_gpt2(3, layers=2, channels=12, heads=3, vocab_size=V, n_positions=40)
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    base = minipt.load_base(directory).astype(dtype)
    return base, model.to(getattr(torch, base.dtype.name))


def transformers_loss(model: PreTrainedModel, base: Base, vectors: torch.Tensor) -> torch.Tensor:
    """Prompt, text, response and end as one row; all but the last two are labelled -100."""
    end = base.tokenizer.token_to_id("<|endoftext|>")
    P, longest = len(vectors), ROOM + 1
    ids, labels, mask = np.zeros((3, len(TEXTS), P + longest), int)
    labels[:] = NOT_COUNTED
    mask[:, :P] = 1
    for b, (text, response) in enumerate(zip(TEXTS, RESPONSES, strict=True)):
        target = [*base.tokenizer.encode(response).ids, end]
        asked = base.tokenizer.encode(text).ids[-(longest - len(target)) :]
        row = slice(P, P + len(asked) + len(target))
        ids[b, row], mask[b, row] = [*asked, *target], 1
        labels[b, P + len(asked) : row.stop] = target
    text = model.get_input_embeddings()(torch.tensor(ids[:, P:]))
    x = torch.cat([vectors.expand(len(TEXTS), *vectors.shape), text], 1)  # (B, P+T, C)
    labels = torch.tensor(labels)
    found = model(inputs_embeds=x, attention_mask=torch.tensor(mask), labels=labels)
    loss = cross_entropy(found.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    # Its own loss is the same in float32, to which it turns the logits of every model.
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    return loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_the_prompts_gradient_are_the_same(family, wiring, dtype, tmp_path):
    base, model = both(family, tmp_path, dtype)
    prompt = random_prompt(base, LENGTH)
    vectors = torch.tensor(prompt.vectors, requires_grad=True)
    expected = transformers_loss(model, base, vectors)
    expected.backward()
    rows, targets, cut = encode_responses(base, "{text}", TEXTS, RESPONSES, ROOM)
    assert cut.sum() == 2
    ((_, batch),) = batches(rows, targets, response_format(base, "{text}"), len(TEXTS))
    loss, gradient = minipt.loss_and_gradient(base, prompt, batch, wiring=wiring)
    assert loss == pytest.approx(expected.item(), rel=tolerance(family, dtype))
    assert compare("gradient", gradient, vectors.grad.numpy()) < tolerance(family, dtype)


@pytest.mark.parametrize("length", [0, LENGTH])
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_has_the_same_loss(family, length, tmp_path):
    base, model = both(family, tmp_path, np.float64)
    prompt = random_prompt(base, length) if length else None
    vectors = torch.tensor(prompt.vectors) if length else torch.empty(0, base.config.channels)
    expected = transformers_loss(model, base, vectors.to(torch.float64)).item()
    shorter = replace(base, config=replace(base.config, context=ROOM + length))
    found = evaluate(shorter, prompt, Pairs(TEXTS, RESPONSES))
    assert found.loss == pytest.approx(expected, rel=tolerance(family, np.float64))
