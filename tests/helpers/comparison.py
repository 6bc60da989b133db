"""A step of a reference, every intermediate by name, and minipt's own step held to it.

A `State` is what a reference model leaves when it runs [prompt; text] as one sequence: for each
name of the trace, without its stream, the activation and its gradient over B texts and S = P+T
rows. The same state tells what either wiring must have in its trace: the concatenated one all of
it, the shared one the rows of one prompt, its gradients summed over the texts, and the rows of the
texts. The parity tests make a state on the spot, `reference/make.py` stores some of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from minipt.maths.gradcheck import compare
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import WIRINGS, logits, loss_and_gradient
from minipt.transformer.base import Base, Config
from minipt.transformer.trace import Trace

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
PER_PAIR = ("attn.scores", "attn.weights")
# What the last layer computes for all rows; where the norm comes first, `ln1` too.
ALL_ROWS = ("attn.key", "attn.value")
# What is made of the rows that are read, an array a text, and has no rows itself.
ONCE = ("features", "pooled", "length", "loss", "logits", "probabilities")


@dataclass
class State:
    """One step of a reference: what went in, and by name what was computed, with gradients."""

    batch: Batch
    vectors: np.ndarray  # (P, C)
    gradient: np.ndarray  # (P, C)
    activations: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    def save(self, path: Path) -> None:
        batch = {f"batch.{name}": x for name, x in vars(self.batch).items() if x is not None}
        tensors = batch | {"vectors": self.vectors, "gradient": self.gradient}
        tensors |= {f"activation.{name}": x for name, x in self.activations.items()}
        tensors |= {f"gradient.{name}": x for name, x in self.gradients.items()}
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "State":
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        vectors, gradient = tensors.pop("vectors"), tensors.pop("gradient")
        parts = {"batch": {}, "activation": {}, "gradient": {}}
        for name, tensor in tensors.items():
            part, short = name.split(".", 1)
            parts[part][short] = tensor
        batch = Batch(**parts["batch"])
        return cls(batch, vectors, gradient, parts["activation"], parts["gradient"])


def worst_difference(base: Base, state: State, wiring: str) -> tuple[float, str]:
    """The largest relative difference of minipt's step from the state, and where it is.

    Every name in the trace is compared, activation and gradient; padding rows, which nobody reads,
    are left out. Raises KeyError for a name that the reference does not have.
    """
    dtype = base.params["token.table"].dtype
    prompt = SoftPrompt(state.vectors.astype(dtype), base.fingerprint, base.name)
    trace = Trace()
    loss, gradient = loss_and_gradient(base, prompt, state.batch, trace, wiring)
    answers = logits(base, state.batch, prompt)
    found = {
        "the loss": compare("loss", np.array(loss), state.activations["loss"].mean()),
        "the gradient": compare("gradient", gradient, state.gradient),
        "the logits": compare("logits", answers, state.activations["logits"]),
    }
    seen = {name.split(".", 1)[1] for name in trace.activations} - {"vectors"}
    assert seen == set(state.activations)
    for kind, ours, theirs in (
        ("activation", trace.activations, state.activations),
        ("gradient", trace.gradients, state.gradients),
    ):
        for name, array in ours.items():
            if name == "prompt.vectors":
                continue
            view = View(state, base.config, wiring, name)
            expected = view.cut(theirs[view.short], summed=kind == "gradient")
            found[f"{kind} {name}"] = compare(name, view.real(array), view.real(expected))
    # `max` alone would pass over NaN, which no number is compared with.
    worst = max(found, key=lambda where: np.nan_to_num(found[where], nan=np.inf))
    return found[worst], worst


def wirings(base: Base) -> list[str]:
    """What the base allows: only a causal one can share its prompt."""
    return [wiring for wiring in WIRINGS if wiring == "concatenated" or base.config.causal]


def assert_matches(base: Base, state: State) -> None:
    """Every wiring, every name that the reference has."""
    tolerance = TOLERANCES[str(base.params["token.table"].dtype)]
    for wiring in wirings(base):
        error, where = worst_difference(base, state, wiring)
        assert error < tolerance, f"{wiring}: {where} differs by {error:.1e}"


class View:
    """What one name of a wiring's trace is, cut out of the reference's arrays over S = P+T rows.

    All of them but those made `ONCE` have their rows on the last axis but one.
    """

    def __init__(self, state: State, config: Config, wiring: str, name: str) -> None:
        stream, self.short = name.split(".", 1)
        layer, _, part = self.short.partition(".")
        self.P, self.batch, self.config = len(state.vectors), state.batch, config
        self.once, self.pairs = self.short in ONCE or layer == "head", part in PER_PAIR
        self.shared, self.of_prompt = wiring == "shared", stream == "prompt"
        of_all = part in ALL_ROWS or (config.norm_first and part.startswith("ln1"))
        last = layer == f"h{config.layers - 1}" and not of_all
        self.read_only = last or layer == "final"

    def cut(self, x: np.ndarray, summed: bool) -> np.ndarray:
        """The rows and columns of x that this name holds; gradients of the one prompt's add up."""
        if self.once:
            return x
        if self.shared and self.of_prompt:
            x = x.sum(0, keepdims=True) if summed else x[:1]
            x = x[..., : 0 if self.read_only else self.P, :]
            return x[..., : self.P] if self.pairs else x
        if self.read_only and self.config.head is not None:
            read = (self.batch.answer_rows + self.P).reshape(-1, *[1] * (x.ndim - 1))
            return np.take_along_axis(x, read, -2)
        # Without a head all rows of the text are read.
        return x[..., self.P :, :] if self.shared or self.read_only else x

    def real(self, x: np.ndarray) -> np.ndarray:
        """x with 0 in the rows, and where it has them the columns, of padding."""
        if self.once or self.of_prompt:
            return x
        S = self.P + self.batch.ids.shape[1]
        padding = np.arange(S) >= (self.batch.lengths + self.P)[:, None]  # (B, S)
        x = x.copy()
        if self.pairs:
            x.transpose(0, 3, 1, 2)[padding] = 0.0
        if not self.read_only or self.config.head is None:
            x.swapaxes(1, -2)[padding[:, S - x.shape[-2] :]] = 0.0
        return x
