"""SGD, Adam and AdamW against torch's, over some steps in float64."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from minipt.learning.optimizers import SGD, Adam

PAIRS = {
    "sgd": (SGD, lambda x: torch.optim.SGD(x, 0.05, momentum=0.9)),
    "plain sgd": (lambda: SGD(momentum=0.0), lambda x: torch.optim.SGD(x, 0.05)),
    "adam": (Adam, lambda x: torch.optim.Adam(x, 0.05)),
    "adamw": (
        lambda: Adam(weight_decay=0.1),
        lambda x: torch.optim.AdamW(x, 0.05, weight_decay=0.1),
    ),
    "other betas": (
        lambda: Adam(0.8, 0.99, 1e-3),
        lambda x: torch.optim.Adam(x, 0.05, betas=(0.8, 0.99), eps=1e-3),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_twenty_steps_are_the_same(kind: str):
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((3, 4))
    theirs = torch.tensor(ours, requires_grad=True)
    make_ours, make_theirs = PAIRS[kind]
    optimizer, other = make_ours(), make_theirs([theirs])
    for _ in range(20):
        gradient = rng.standard_normal((3, 4))
        theirs.grad = torch.tensor(gradient)
        optimizer.step({"x": ours}, {"x": gradient}, 0.05)
        other.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)
