"""The named record of every activation, and of its gradient under the same name.

In: arrays under dotted names, written by the model as it computes, such as
`text.h3.attn.weights`: the stream, the layer, the part. Out: the same arrays, for the backward
pass and for whoever wants to look. The trace *is* the backward's memory: what one sees in it are
views of what the machine uses. Only texts of different lengths are shown padded where the machine
has padding in attention alone: with zeros, and in attention with what a query of zeros reads, which
means nothing. `layer.py` writes and reads it; the story continues in `base.py`.
"""

from collections.abc import Callable, Collection, Iterable

import numpy as np

WITHOUT_GRADIENT = (
    "it was needed for none of its rows, or only for some, or it is an op's helper, such as rstd, "
    "which the op's backward differentiates through in one formula"
)

# Gradients by name. As a wish its keys name what is wanted, each with None until it is filled.
Gradients = dict[str, np.ndarray | None]

# From a name and an array to the parts that a reader knows, each under its full name.
Split = Callable[[str, np.ndarray], Iterable[tuple[str, np.ndarray]]]


def whole(name: str, array: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """The `Split` of an array that has one part, itself."""
    yield name, array


class Trace:
    """Keeps every activation and every gradient of a step, in the order of computation.

    >>> trace = Trace()
    >>> loss, gradient = minipt.loss_and_gradient(base, prompt, batch, trace)
    >>> trace["text.h0.attn.weights"].shape         # (B, H, T, P+T)
    >>> trace.grad("text.h0.attn.weights").shape    # the same
    """

    def __init__(self) -> None:
        self.activations: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.kept: dict[str, np.ndarray] = {}  # what the backward has still to read
        self.inputs: dict[str, np.ndarray] = {}  # of linear maps, for the gradients of weights

    def __getitem__(self, name: str) -> np.ndarray:
        return self.activations[name]

    def __contains__(self, name: str) -> bool:
        return name in self.activations

    def grad(self, name: str) -> np.ndarray:
        """The gradient of the loss with respect to an activation, of the activation's shape.

        KeyError, with the reason, where none was computed.
        """
        if name in self.activations and name not in self.gradients:
            raise KeyError(f"{name} has no gradient: {WITHOUT_GRADIENT}")
        return self.gradients[name]

    def table(self) -> list[dict]:
        """One row an activation, in order: name, shape, mean size, mean size of the gradient.

        The mean size is the mean of the absolute values (masked scores, -inf, left out; rows of
        padding count); the gradient's is None where none was computed.
        """
        return [
            {
                "name": name,
                "shape": activation.shape,
                "size": _mean_size(activation),
                "gradient_size": _mean_size(self.gradients[name])
                if name in self.gradients
                else None,
            }
            for name, activation in self.activations.items()
        ]

    def clear(self) -> None:
        """Forget everything: a trace holds one step."""
        for record in (self.activations, self.gradients, self.kept, self.inputs):
            record.clear()

    def save(self, name: str, activation: np.ndarray, split: Split = whole) -> None:
        """Keep an activation for the backward pass, and note it."""
        self.kept[name] = activation
        self.note(name, activation, split)

    def note(self, name: str, activation: np.ndarray, split: Split = whole) -> None:
        """Write an activation for a reader of the trace: its parts under their names."""
        self.activations.update(split(name, activation))

    def take(self, name: str) -> np.ndarray:
        """What `save` kept under this name, read by the backward pass for the last time."""
        return self.kept.pop(name)

    def note_grad(self, name: str, gradient: np.ndarray, split: Split = whole) -> None:
        """Write a gradient under its activation's name; one of only some rows is left out."""
        for part, array in split(name, gradient):
            if array.shape == self.activations[part].shape:
                self.gradients[part] = array

    def save_input(self, name: str, x: np.ndarray) -> None:
        """Keep what went into the linear map of this name: its weights' gradient needs it."""
        self.inputs[name] = x

    def take_input(self, name: str) -> np.ndarray:
        """What `save_input` kept under this name, read for the last time."""
        return self.inputs.pop(name)


class Cache(Trace):
    """Keeps only what the backward pass needs, and only until it has read it: for training."""

    def note(self, name: str, activation: np.ndarray, split: Split = whole) -> None:
        pass

    def note_grad(self, name: str, gradient: np.ndarray, split: Split = whole) -> None:
        pass

    def save_input(self, name: str, x: np.ndarray) -> None:
        pass


class InputCache(Cache):
    """A `Cache` that keeps the inputs of some linear maps too: for training their weights.

    trained: names of parameters, such as "h3.mlp.up.weight".
    """

    def __init__(self, trained: Collection[str]) -> None:
        super().__init__()
        self.trained = trained

    def save_input(self, name: str, x: np.ndarray) -> None:
        if f"{name}.weight" in self.trained:
            self.inputs[name] = x


class Untraced(Cache):
    """Keeps nothing: for a forward pass that no backward follows."""

    def save(self, name: str, activation: np.ndarray, split: Split = whole) -> None:
        pass


def add_gradient(gradients: Gradients, name: str, gradient: np.ndarray) -> None:
    """Add to what is wanted under this name; what is not wanted is left alone."""
    if name in gradients:
        before = gradients[name]
        gradients[name] = gradient if before is None else before + gradient


def _mean_size(array: np.ndarray) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).mean()) if finite.size else 0.0
