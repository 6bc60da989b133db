"""Directories that transformers and minipt write for each other: the same logits either way."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from helpers.bases import BERT, LLAMA, random_base
from helpers.gguf_writer import Type, small_llama, write
from helpers.recorder import random_bert, random_gpt2, random_llama
from transformers import BertForMaskedLM, BertModel, GPT2LMHeadModel, LlamaForCausalLM

import minipt
from minipt.loading.load import save_base
from minipt.maths.gradcheck import compare
from minipt.prompting.text import Batch
from minipt.transformer.base import Base

OURS = {
    "gpt2": ({}, GPT2LMHeadModel),
    "llama": (LLAMA, LlamaForCausalLM),
    "llama, two key heads, another base": (
        LLAMA | {"key_value_heads": 2, "rotary_base": 500.0},
        LlamaForCausalLM,
    ),
    "llama, untied, with biases": (
        LLAMA | {"tied": False, "attention_bias": True, "mlp_bias": True},
        LlamaForCausalLM,
    ),
    "bert": (BERT, BertForMaskedLM),
    "encoder": (BERT | {"head": None}, BertModel),
}
THEIRS = {
    "gpt2": (random_gpt2, {}),
    "llama": (random_llama, {"num_key_value_heads": 2, "rope_theta": 500.0}),
    "llama, tied": (random_llama, {"tie_word_embeddings": True}),
    "bert": (random_bert, {}),
    "encoder": (random_bert, {"head": False}),
}
TOKENS = 9
TOLERANCE = 3e-6  # relative, in float32; 4e-7 is what is found


def assert_same_answers(base: Base, model: torch.nn.Module) -> None:
    """At every position of a text, or of its embedding where there is no head."""
    ids = np.random.default_rng(1).integers(0, base.config.vocabulary, (1, TOKENS))
    with torch.no_grad():
        found = model(torch.tensor(ids))
    if base.config.head is None:
        pooled = torch.nn.functional.normalize(found.last_hidden_state.mean(1), dim=-1).numpy()
        table = np.eye(base.config.channels, dtype=np.float32)  # its products are the features
        batch = Batch(ids, np.array([TOKENS]), np.zeros(1, int), table)
        ours = minipt.logits(base, batch)
        scale = np.linalg.norm(ours)
        assert compare("embedding", ours / scale, pooled) < TOLERANCE
        return
    rows, every = np.repeat(ids, TOKENS, 0), np.arange(TOKENS)
    batch = Batch(rows, np.full(TOKENS, TOKENS), np.zeros(TOKENS, int), None, every)
    assert compare("logits", minipt.logits(base, batch), found.logits[0].numpy()) < TOLERANCE


@pytest.mark.parametrize("name", OURS)
def test_transformers_loads_what_minipt_saves(name: str, tmp_path):
    fields, kind = OURS[name]
    base = random_base(5, 2, 16, 4, **fields)
    save_base(base, tmp_path / "model")
    model, found = kind.from_pretrained(tmp_path / "model", output_loading_info=True)
    # BertModel has a pooler, of which minipt knows nothing.
    assert {key for key in found["missing_keys"] if not key.startswith("pooler.")} == set()
    assert not found["unexpected_keys"] and not found["mismatched_keys"]
    assert model.config.architectures == [kind.__name__]
    assert_same_answers(base, model.eval())


@pytest.fixture(params=THEIRS)
def model(request: pytest.FixtureRequest):
    make, others = THEIRS[request.param]
    return make(6, 3, 16, 4, **others)


@pytest.mark.parametrize("size", ["10GB", "8KB", "1KB"])
def test_minipt_loads_what_transformers_saves(model, size: str, tmp_path):
    model.save_pretrained(tmp_path / "model", max_shard_size=size)
    shards = len(list((tmp_path / "model").glob("*.safetensors")))
    assert shards == 1 if size == "10GB" else shards > 3
    assert_same_answers(minipt.load_base(tmp_path / "model"), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_without_loss(model, dtype: torch.dtype, tmp_path):
    model.to(dtype).save_pretrained(tmp_path / "model")
    base = minipt.load_base(tmp_path / "model")
    assert {array.dtype for array in base.params.values()} == {np.dtype(np.float32)}
    # Read again, since the way to half precision and back rounds Llama's wavelengths too.
    again = type(model).from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert_same_answers(base, again.eval())


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_1])
def test_a_gguf_file_is_what_transformers_takes_it_for(kind: Type, tmp_path):
    path = write(tmp_path / "small.gguf", small_llama(), kind)
    model = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert_same_answers(minipt.load_base(path), model.eval())


def inner(model: torch.nn.Module, directory: Path) -> Path:
    """Saved without its head."""
    model.base_model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", ["gpt2", "llama, tied", "bert"])
def test_minipt_loads_a_model_without_its_head(name: str, tmp_path):
    """A language model's head is the token table; a BERT without its own only embeds."""
    make, others = THEIRS[name]
    model = make(7, 2, 16, 4, **others)
    base = minipt.load_base(inner(model, tmp_path / "model"))
    assert base.config.head == ("language" if base.config.causal else None)
    assert_same_answers(base, model if base.config.causal else model.base_model)


def test_an_untied_llama_without_its_head_is_refused(tmp_path):
    directory = inner(random_llama(7, 2, 16, 4), tmp_path / "model")
    with pytest.raises(minipt.MiniptError, match=r"no lm_head\.weight: it was saved without"):
        minipt.load_base(directory)
