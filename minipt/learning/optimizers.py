"""Optimizers and schedules over a dict of arrays; they know no model.

In: parameters and their gradients under the same names. Out: the parameters, changed in place. Each
optimizer keeps its memory in `state`, a flat dict of arrays, for checkpoints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minipt.errors import MiniptError

Arrays = dict[str, np.ndarray]


@dataclass
class Optimizer:
    """What all share: a step counter t and a dict of arrays, made at the first step."""

    t: int = field(default=0, init=False)
    state: Arrays = field(default_factory=dict, init=False)

    def step(self, params: Arrays, gradients: Arrays, rate: float) -> None:
        """Change every parameter that has a gradient, in place, by a step of the given rate."""
        self.t += 1
        for name, gradient in gradients.items():
            self.update(name, params[name], gradient, rate)

    def update(self, name: str, param: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        raise NotImplementedError

    def memory(self, name: str, like: np.ndarray) -> np.ndarray:
        """The array of this name from `state`, zeros before the first step.

        Raises MiniptError where a checkpoint did not have it.
        """
        if name not in self.state:
            if self.t > 1:
                raise MiniptError(
                    f"the checkpoint lacks the optimizer's {name}: remove it and start without "
                    "resuming"
                )
            self.state[name] = np.zeros_like(like)
        return self.state[name]


@dataclass
class SGD(Optimizer):
    """velocity = momentum velocity + gradient; param -= rate velocity (Polyak 1964)."""

    momentum: float = 0.9

    def update(self, name: str, param: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        velocity = self.memory(f"{name}.velocity", param)
        velocity *= self.momentum
        velocity += gradient
        param -= rate * velocity


@dataclass
class Adam(Optimizer):
    """A step of about the rate in every coordinate (Kingma & Ba 2015, algorithm 1).

    mean = β₁ mean + (1 - β₁) g; square = β₂ square + (1 - β₂) g²; both begin at 0, which the
    divisors 1 - βᵗ correct; param -= rate · mean / (√square + ε). With a weight decay, param also
    shrinks by rate · decay · param, apart from the gradient: AdamW (Loshchilov & Hutter 2019,
    algorithm 2, with the decay multiplied by the whole rate, as PyTorch has it).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def update(self, name: str, param: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        mean = self.memory(f"{name}.mean", param)
        square = self.memory(f"{name}.square", param)
        mean += (1.0 - self.beta1) * (gradient - mean)
        square += (1.0 - self.beta2) * (gradient * gradient - square)
        corrected = mean / (1.0 - self.beta1**self.t)
        root = np.sqrt(square / (1.0 - self.beta2**self.t))
        param *= 1.0 - rate * self.weight_decay
        param -= rate * corrected / (root + self.epsilon)


@dataclass
class Adafactor(Optimizer):
    """Adam's square, kept as one number a row and one a column (Shazeer & Stern 2018, algorithm 4).

    For a matrix, square ≈ rows · columns / mean(rows): P + C numbers instead of P · C. β₂ grows as
    1 - t^-0.8, and an update whose root mean square exceeds `clip` is scaled down to it. Vectors
    keep the whole square (algorithm 5). The rate is not multiplied by the parameter's size: so did
    Lester et al. 2021, who trained their prompts at a constant 0.3.
    """

    decay: float = 0.8
    epsilon: float = 1e-30
    clip: float = 1.0

    def update(self, name: str, param: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        beta2 = 1.0 - self.t**-self.decay
        squared = gradient * gradient + self.epsilon
        if param.ndim == 2:
            rows = self.memory(f"{name}.rows", param[:, :1])  # (P, 1)
            columns = self.memory(f"{name}.columns", param[:1])  # (1, C)
            rows += (1.0 - beta2) * (squared.mean(1, keepdims=True) - rows)
            columns += (1.0 - beta2) * (squared.mean(0, keepdims=True) - columns)
            # In this order: rows times columns is too small for float32 where a gradient is.
            square = rows * (columns / rows.mean())  # (P, C)
        else:
            square = self.memory(f"{name}.square", param)
            square += (1.0 - beta2) * (squared - square)
        update = gradient / np.sqrt(square)
        update /= max(1.0, root_mean_square(update) / self.clip)
        param -= rate * update


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "adam": Adam,
    "adamw": lambda: Adam(weight_decay=0.01),
    "adafactor": Adafactor,
    "sgd": SGD,
}


def schedule(kind: str, step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate at a step, counted from 0.

    It rises in a line over `warmup` steps; then "constant" stays at 1, "linear" falls in a line
    and "cosine" along half a cosine, both to 0 at `steps`.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return SCHEDULES[kind](progress)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def clip_gradients(gradients: Arrays, largest: float) -> float:
    """Scale all gradients by one factor, in place, so that their joint norm is at most `largest`.

    Returns the norm before (Pascanu et al. 2013, algorithm 1).
    """
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
    if norm > largest:
        for gradient in gradients.values():
            gradient *= largest / norm
    return norm


def root_mean_square(x: np.ndarray) -> float:
    """√mean(x²)"""
    return math.sqrt(float(np.vdot(x, x)) / x.size)
