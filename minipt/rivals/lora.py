"""LoRA: a low-rank change of each layer's query and value matrices.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. The matrix W
(I, J) of a frozen linear map is used as

    W' = W + scale A B,    A (I, r), B (r, J)

with B = 0 at the start, so that the first step sees the base as it is. By the chain rule
dA = scale dW' Bᵀ and dB = scale Aᵀ dW'. So LoRA is full fine-tuning of these matrices through a
bottleneck, and this file writes it so: A B is added to a copy of W before each step, and the same
backward gives dW'. (To compute x A and then (x A) B never forms dW', which is cheaper for wide
layers; the numbers are the same.)
"""

import numpy as np

from minipt.learning.evaluate import task_question
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer, logits_after
from minipt.rivals.weights import weights_step, with_params
from minipt.tasks.task import Task
from minipt.transformer.base import Base

RANK, SCALE = 8, 2.0  # alpha / r = 16 / 8
ADAPTED = ("attn.query.weight", "attn.value.weight")


class LoraLearner(Learner):
    """arrays: "h0.attn.query.weight.A" (C, r), "h0.attn.query.weight.B" (r, C) and so on."""

    name = "lora"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        self.base = base
        self.question = task_question(base, None, task.train, task)
        self.room = base.config.context
        self.adapted = [name for name in base.params if name.endswith(ADAPTED)]
        rng, self.arrays = np.random.default_rng(settings.seed), {}
        for name in self.adapted:
            inputs, outputs = base.params[name].shape
            # PEFT draws it so: uniform, with the deviation 1 / √(3 I).
            drawn = rng.uniform(-(inputs**-0.5), inputs**-0.5, (inputs, RANK))
            self.arrays[f"{name}.A"] = drawn.astype(base.dtype)
            self.arrays[f"{name}.B"] = np.zeros((RANK, outputs), base.dtype)
        self.merged = {name: base.params[name].copy() for name in self.adapted}
        self.tuned = with_params(base, self.merged)

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        self._merge()
        loss, dweights = weights_step(self.tuned, batch, self.adapted)
        gradients = {}
        for name, dweight in dweights.items():
            A, B = self.arrays[f"{name}.A"], self.arrays[f"{name}.B"]
            gradients[f"{name}.A"] = SCALE * (dweight @ B.T)
            gradients[f"{name}.B"] = SCALE * (A.T @ dweight)
        return loss, gradients

    def answerer(self) -> Answerer:
        self._merge()
        return lambda batch: logits_after(self.tuned, batch, None)

    def _merge(self) -> None:
        for name, weight in self.merged.items():
            np.matmul(self.arrays[f"{name}.A"], self.arrays[f"{name}.B"], out=weight)
            weight *= SCALE
            weight += self.base.params[name]
