"""The prompt's gradient and the answers against PEFT's PromptTuning: same model, batch, vectors."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from helpers.bases import random_batch, random_prompt
from helpers.comparison import TOLERANCES
from helpers.recorder import answers, random_gpt2, random_llama
from helpers.watching import computing_in_float64

import minipt
from minipt.maths.gradcheck import compare
from minipt.prompting.text import Batch

MODELS = {
    "gpt2, one of each": (random_gpt2, (1, 4, 1), {}),
    "gpt2, two layers": (random_gpt2, (2, 12, 3), {}),
    "gpt2, three layers": (random_gpt2, (3, 32, 4), {"vocab_size": 50, "n_positions": 40}),
    "llama, tied": (random_llama, (2, 12, 3), {"tie_word_embeddings": True}),
    "llama, two key heads": (random_llama, (3, 32, 4), {"num_key_value_heads": 2}),
}


def peft_step(model, batch: Batch, vectors: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """loss, the gradient of the vectors (P, C) and the answers (B, V or K)."""
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(vectors))
    tuned = peft.get_peft_model(model, config).to(model.dtype).eval()
    weight = tuned.prompt_encoder["default"].embedding.weight
    weight.data = torch.tensor(vectors)
    real = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    mask = torch.tensor(real.astype(int))
    whole = tuned(input_ids=torch.tensor(batch.ids), attention_mask=mask).logits
    picked = answers(whole, batch, len(vectors))
    loss = torch.nn.functional.cross_entropy(picked, torch.tensor(batch.targets))
    loss.backward()
    return loss.item(), weight.grad.numpy(), picked.detach().numpy()


@pytest.mark.parametrize("choices", [0, 3])
@pytest.mark.parametrize("wiring", ["shared", "concatenated"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_the_same(name: str, dtype: type, wiring: str, choices: int, tmp_path):
    make, (layers, channels, heads), others = MODELS[name]
    model = make(7, layers, channels, heads, **others)
    model.save_pretrained(tmp_path / "model")
    base = minipt.load_base(tmp_path / "model").astype(dtype)
    batch = random_batch(base, texts=4, tokens=6, seed=3, choices=choices)
    prompt = random_prompt(base, 5)
    if dtype == np.float64:
        with computing_in_float64():
            theirs = peft_step(model.double(), batch, prompt.vectors)
    else:
        theirs = peft_step(model, batch, prompt.vectors)
    their_loss, their_gradient, their_answers = theirs
    loss, gradient = minipt.loss_and_gradient(base, prompt, batch, wiring=wiring)
    tolerance = TOLERANCES[np.dtype(dtype).name]
    assert compare("gradient", gradient, their_gradient) < tolerance
    assert compare("logits", minipt.logits(base, batch, prompt), their_answers) < tolerance
    assert compare("loss", np.array(loss), np.array(their_loss)) < tolerance
