"""Residual prompt tuning: the vectors learn through a small network that they share.

Razdaibiedina et al. 2023, "Residual Prompt Tuning: Improving Prompt Tuning with Residual
Reparameterization", section 3. The base reads

    prompt' = prompt + norm(relu(prompt down + b) up + c),    down (C, M), up (M, C)

with a layer norm as in `ops.layernorm`. Prompt and network learn together, and one step of the
network moves all P vectors at once. After learning only prompt' (P, C) is stored, a plain soft
prompt. At the start the norm's output has a root mean square of 1, several times that of word
embeddings (0.15 in the tiny base), so that the base first reads mostly the untrained network.
"""

import numpy as np

from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner
from minipt.maths import ops
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer
from minipt.tasks.task import Task
from minipt.transformer.base import Base

BOTTLENECK = 64  # M


class ResidualLearner(PromptLearner):
    """arrays: "prompt" (P, C) and the network's, by the names of `start_network`.

    prompt: prompt' as the base read it last; once learnt, nothing else needs to be stored.
    """

    name = "prompt-residual"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        super().__init__(base, task, settings)
        rng = np.random.default_rng(settings.seed)
        network = start_network(base.config.channels, rng)
        self.arrays |= {name: array.astype(base.dtype) for name, array in network.items()}
        self.epsilon = base.config.epsilon

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        saved = self._read()
        loss, gradients = super().loss_and_gradients(batch, rng)
        return loss, gradients | residual_back(gradients["prompt"], self.arrays, saved)

    def answerer(self) -> Answerer:
        self._read()
        return super().answerer()

    def to_store(self) -> Arrays:
        self._read()
        return {"prompt": self.prompt.vectors}

    def measurements(self) -> dict[str, float]:
        self._read()
        return super().measurements()

    def _read(self) -> Arrays:
        vectors, saved = residual(self.arrays, self.epsilon)
        self.prompt = self.prompt.with_arrays(self.arrays | {"prompt": vectors})
        return saved


def start_network(channels: int, rng: np.random.Generator) -> Arrays:
    """A network at its start: maps drawn as PyTorch does, uniform up to 1 / √inputs, and a norm.

    "down.weight" (C, M), "down.bias" (M,), "up.weight" (M, C), "up.bias", "norm.gain", "norm.bias"
    (C,)
    """
    arrays = {}
    for name, inputs, outputs in (("down", channels, BOTTLENECK), ("up", BOTTLENECK, channels)):
        bound = inputs**-0.5
        arrays[f"{name}.weight"] = rng.uniform(-bound, bound, (inputs, outputs))
        arrays[f"{name}.bias"] = rng.uniform(-bound, bound, outputs)
    return arrays | {"norm.gain": np.ones(channels), "norm.bias": np.zeros(channels)}


def residual(arrays: Arrays, epsilon: float) -> tuple[np.ndarray, Arrays]:
    """prompt' (P, C), and what the backward needs."""
    inner = ops.linear(arrays["prompt"], arrays["down.weight"], arrays["down.bias"])  # (P, M)
    active = np.maximum(inner, 0.0)
    out = ops.linear(active, arrays["up.weight"], arrays["up.bias"])  # (P, C)
    normed, xhat, rstd = ops.layernorm(out, arrays["norm.gain"], arrays["norm.bias"], epsilon)
    return arrays["prompt"] + normed, {"active": active, "xhat": xhat, "rstd": rstd}


def residual_back(dread: np.ndarray, arrays: Arrays, saved: Arrays) -> Arrays:
    """`residual` from its last line to its first: the gradient of every array. dread (P, C)"""
    active, xhat = saved["active"], saved["xhat"]
    dgain, dbias = ops.layernorm_dw(dread, xhat)
    dout = ops.layernorm_dx(dread, arrays["norm.gain"], xhat, saved["rstd"])  # (P, C)
    dinner = ops.linear_dx(dout, arrays["up.weight"]) * (active > 0.0)  # (P, M)
    return {
        "prompt": dread + ops.linear_dx(dinner, arrays["down.weight"]),
        "down.weight": ops.linear_dw(dinner, arrays["prompt"]),
        "down.bias": ops.linear_db(dinner),
        "up.weight": ops.linear_dw(dout, active),
        "up.bias": ops.linear_db(dout),
        "norm.gain": dgain,
        "norm.bias": dbias,
    }
