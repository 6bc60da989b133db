"""Adapters that PEFT saves and minipt reads, and the other way: same bytes, same answers."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt
from helpers.recorder import answers, attention_mask, random_gpt2
from helpers.twins import twin

import minipt
from minipt.maths.gradcheck import compare
from minipt.prompting.peft_adapter import ADAPTER
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch
from minipt.transformer.base import Base

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROMPT = 5


@pytest.fixture
def model():
    return random_gpt2(seed=3, layers=2, channels=12, heads=3)


@pytest.fixture
def base(model, tmp_path) -> Base:
    model.save_pretrained(tmp_path / "model")
    return minipt.load_base(tmp_path / "model")


def peft_prompt(model, **how: object) -> peft.PeftModel:
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=PROMPT,
        **how,
    )
    model.name_or_path = "some/model"
    return peft.get_peft_model(model, config).eval()


def answers_of(tuned: peft.PeftModel, batch: Batch) -> np.ndarray:
    """What PEFT's model answers, its texts padded on the right. (B, V)"""
    mask = attention_mask(batch, 0)
    with torch.no_grad():
        whole = tuned(input_ids=torch.tensor(batch.ids), attention_mask=mask).logits
    return answers(whole, batch, PROMPT).numpy()


def assert_same_files(ours: Path, theirs: Path, *names: str) -> None:
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize("middle", [False, True])
def test_from_peft_to_minipt_and_back(model, base, middle, tmp_path):
    tuned = peft_prompt(model)
    tuned.save_pretrained(tmp_path / "theirs")
    batch = random_batch(base, texts=4, tokens=6, seed=1, middle=middle)
    prompt = minipt.from_peft(tmp_path / "theirs", base)
    expected = answers_of(tuned, batch)
    assert compare("logits", minipt.logits(base, batch, prompt), expected) < 1e-5
    prompt.to_peft(tmp_path / "ours")
    assert_same_files(tmp_path / "ours", tmp_path / "theirs", TENSORS, CONFIG)
    again = peft.PeftModel.from_pretrained(model, tmp_path / "ours").eval()
    np.testing.assert_array_equal(answers_of(again, batch), expected)


@pytest.mark.parametrize("middle", [False, True])
def test_from_minipt_to_peft_and_back(model, base, middle, tmp_path):
    prompt = random_prompt(base, PROMPT)
    prompt.about |= {"template": "{text}: "}
    prompt.to_peft(tmp_path / "ours")
    tuned = peft.PeftModel.from_pretrained(model, tmp_path / "ours").eval()
    batch = random_batch(base, texts=4, tokens=6, seed=2, middle=middle)
    assert compare("logits", minipt.logits(base, batch, prompt), answers_of(tuned, batch)) < 1e-5
    tuned.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "ours" / TENSORS).read_bytes() == (
        tmp_path / "theirs" / TENSORS
    ).read_bytes()
    again = minipt.from_peft(tmp_path / "theirs", base)
    assert again.vectors.tobytes() == prompt.vectors.tobytes()
    assert "template" not in again.about  # PEFT does not write what it does not know


@pytest.mark.parametrize("fields", [LLAMA, LLAMA | {"key_value_heads": 2, "tied": False}, BERT])
def test_other_families_go_there_and_back(fields, tmp_path):
    base = random_base(1, channels=16, heads=4, **fields)
    prompt = init_prompt(base, PROMPT, "uniform")
    prompt.to_peft(tmp_path / "ours")
    tuned = peft.PeftModel.from_pretrained(twin(base), tmp_path / "ours").eval()
    batch = random_batch(base, texts=4, tokens=6, seed=2, middle=True)
    assert compare("logits", minipt.logits(base, batch, prompt), answers_of(tuned, batch)) < 1e-5
    tuned.save_pretrained(tmp_path / "theirs")
    assert_same_files(tmp_path / "ours", tmp_path / "theirs", TENSORS)
    again = minipt.from_peft(tmp_path / "theirs", base)
    assert again.vectors.tobytes() == prompt.vectors.tobytes()


def test_peft_fills_in_what_a_prompt_does_not_know(model, base, tmp_path):
    """Saved again by PEFT, our config is the one that PEFT writes for a prompt of its own."""
    peft_prompt(model).save_pretrained(tmp_path / "theirs")
    random_prompt(base, PROMPT).to_peft(tmp_path / "ours", base_name="some/model")
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "ours")
    loaded.save_pretrained(tmp_path / "again")
    configs = [json.loads((tmp_path / name / CONFIG).read_text()) for name in ("again", "theirs")]
    assert configs[0] == configs[1]
    assert ADAPTER.keys() == configs[1].keys()


def test_a_prompt_that_peft_begins_with_words_is_read(model, base, tmp_path):
    tuned = peft_prompt(model, prompt_tuning_init="SAMPLE_VOCAB")
    tuned.save_pretrained(tmp_path / "theirs")
    vectors = minipt.from_peft(tmp_path / "theirs", base).vectors
    table = base.params["token.table"]
    assert (vectors[:, None] == table).all(-1).any(1).all()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (lambda: peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"]), "LORA"),
        (
            lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT),
            "PREFIX_TUNING",
        ),
        (
            lambda: peft.PromptEncoderConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=PROMPT, encoder_hidden_size=8
            ),
            "P_TUNING",
        ),
    ],
)
def test_other_adapters_of_peft_are_refused_by_name(model, base, config, kind, tmp_path):
    peft.get_peft_model(model, config()).save_pretrained(tmp_path / "theirs")
    with pytest.raises(minipt.MiniptError, match=f"of the kind {kind}"):
        minipt.from_peft(tmp_path / "theirs", base)
