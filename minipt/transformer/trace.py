"""The record of a step: every array under a dotted name, and its gradient under the same name.

In: arrays, which the model writes as it computes, such as `text.h3.attn.weights`: the stream, the
layer, the part. Out: the same arrays. A `Tape` keeps what the backward pass has still to read. A
`Trace` is a tape that shows everything, for whoever wants to look. What one sees in a trace is what
the backward pass reads, so a trace cannot differ from the computation.

Texts of different lengths are computed without padding (`ragged.py`). A trace shows them with
padding: rows of zeros, and in attention what a query of zeros reads, which means nothing.
"""

from collections.abc import Collection

import numpy as np

from minipt.transformer.ragged import RowSet

WITHOUT_GRADIENT = (
    "none of its rows, or only some of them, needed one, or the array is an op's helper such as "
    "rstd, which the op's backward differentiates through in one formula"
)

# Gradients by name. A caller asks for some by their names, each with None until it is filled.
Gradients = dict[str, np.ndarray | None]


class Tape:
    """Keeps what the backward pass needs until it has read it, and nothing else: for training.

    trained: the names of the base's parameters that learn, such as "h3.mlp.up.weight"; a prompt
    needs none. is_watched: whether someone looks at what is only shown.
    """

    is_watched = False

    def __init__(self, trained: Collection[str] = ()) -> None:
        self.trained = trained
        self.saved: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}  # of linear maps, for the gradients of weights

    def keep_for_backward(self, name: str, array: np.ndarray, rows: RowSet | None = None) -> None:
        """Keep an activation for the backward pass, and show it."""
        self.saved[name] = array
        self.show(name, array, rows)

    def take(self, name: str) -> np.ndarray:
        """What was kept under this name; the backward pass reads it once."""
        return self.saved.pop(name)

    def show(self, name: str, array: np.ndarray, rows: RowSet | None = None) -> None:
        """An activation for whoever looks. rows: what a matrix (N, E) holds, to show it padded."""

    def show_grad(self, name: str, gradient: np.ndarray, rows: RowSet | None = None) -> None:
        """The gradient of what was shown under this name, of all its rows."""

    def clear(self) -> None:
        """Forget everything: a tape holds one step."""
        self.saved.clear()
        self.inputs.clear()

    def keep_input(self, name: str, x: np.ndarray) -> None:
        """What goes into the linear map of this name, kept if its weight learns."""
        if f"{name}.weight" in self.trained:
            self.inputs[name] = x

    def take_input(self, name: str) -> np.ndarray:
        """What `keep_input` kept under this name; the backward pass reads it once."""
        return self.inputs.pop(name)


class ForwardOnly(Tape):
    """Keeps nothing: for a forward pass that no backward pass follows."""

    def keep_for_backward(self, name: str, array: np.ndarray, rows: RowSet | None = None) -> None:
        pass


class Trace(Tape):
    """Keeps every activation and every gradient of a step, in the order of computation.

    >>> trace = Trace()
    >>> loss, gradient = minipt.loss_and_gradient(base, prompt, batch, trace)
    >>> trace["text.h0.attn.weights"].shape         # (B, H, T, P+T)
    >>> trace.grad("text.h0.attn.weights").shape    # the same
    """

    is_watched = True

    def __init__(self) -> None:
        super().__init__()
        self.activations: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.activations[name]

    def __contains__(self, name: str) -> bool:
        return name in self.activations

    def grad(self, name: str) -> np.ndarray:
        """The gradient of the loss with respect to an activation, of the activation's shape.

        Raises KeyError, with the reason, where none was computed.
        """
        if name in self.activations and name not in self.gradients:
            raise KeyError(f"{name} has no gradient: {WITHOUT_GRADIENT}")
        return self.gradients[name]

    def table(self) -> list[dict]:
        """One row an activation, in order: name, shape, mean size, mean size of the gradient.

        The mean size is the mean of the absolute values. It leaves out masked scores (-inf) and
        counts the rows of padding. A gradient that was not computed has the size None.
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
        super().clear()
        self.activations.clear()
        self.gradients.clear()

    def show(self, name: str, array: np.ndarray, rows: RowSet | None = None) -> None:
        self.activations[name] = array if rows is None else rows.pad(array)

    def show_grad(self, name: str, gradient: np.ndarray, rows: RowSet | None = None) -> None:
        """Raises ValueError for a gradient of another shape than its activation's."""
        gradient = gradient if rows is None else rows.pad(gradient)
        if gradient.shape != self.activations[name].shape:
            raise ValueError(
                f"{name} has shape {self.activations[name].shape}, its gradient {gradient.shape}"
            )
        self.gradients[name] = gradient

    def keep_input(self, name: str, x: np.ndarray) -> None:
        self.inputs[name] = x


def add_gradient(gradients: Gradients, name: str, gradient: np.ndarray) -> None:
    """Add to the gradient of this name if the caller asked for it."""
    if name in gradients:
        before = gradients[name]
        gradients[name] = gradient if before is None else before + gradient


def _mean_size(array: np.ndarray) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).mean()) if finite.size else 0.0
