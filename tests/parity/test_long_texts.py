"""Long texts against transformers: attention in blocks, and shares in threads."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from helpers.bases import FAMILIES, random_base, random_batch, random_prompt
from helpers.twins import twin
from torch.nn.functional import cross_entropy

import minipt
from minipt.maths.gradcheck import compare
from minipt.prompting import shares
from minipt.prompting.text import Batch
from minipt.transformer.base import Base

P = 20


def transformers_step(base: Base, vectors: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
    """The loss, and the gradient of the vectors (P, C)."""
    model = twin(base)
    trained = torch.tensor(vectors, requires_grad=True)
    texts = model.get_input_embeddings()(torch.tensor(batch.ids))
    x = torch.cat([trained.expand(len(texts), *trained.shape), texts], 1)  # (B, P+T, C)
    real = np.arange(x.shape[1]) < P + batch.lengths[:, None]
    logits = model(inputs_embeds=x, attention_mask=torch.tensor(real.astype(int))).logits
    read = logits[np.arange(len(texts)), P + batch.lengths - 1]  # (B, V)
    loss = cross_entropy(read, torch.tensor(batch.targets))
    loss.backward()
    return loss.item(), trained.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("T", [65, 300, 1024])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_step_is_the_same(family: str, T: int, dtype: type, monkeypatch):
    monkeypatch.setattr(shares, "SHARE", 1000)
    sizes = {"channels": 16, "heads": 4, "context": P + T}
    base = random_base(5, **sizes, **FAMILIES[family]).astype(dtype)
    batch, prompt = random_batch(base, texts=3, tokens=T, seed=2), random_prompt(base, P)
    their_loss, their_gradient = transformers_step(base, prompt.vectors, batch)
    loss, gradient = minipt.loss_and_gradient(base, prompt, batch)
    # transformers' Llama norms and rotates in float32, whatever the model's float type.
    exact = 2e-6 if family == "llama" else 1e-10
    tolerance = 1e-5 if dtype == np.float32 else exact
    assert loss == pytest.approx(their_loss, rel=tolerance)
    assert compare("gradient", gradient, their_gradient) < tolerance
