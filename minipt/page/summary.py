"""A training step as text, as JSON and as a picture.

In: `Steps` on one text. Out: a table of all activations and gradients in the order of computation,
the same in types that JSON knows, and a page drawn by `plot.py`. All are of the first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minipt.page.steps import Steps
from minipt.results.plot import draw_step
from minipt.results.tables import align, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND = """\
prompt.* are the prompt's rows. text.* are the text's rows, which read the prompt's keys and values.
h0 is the lowest layer. size: the mean absolute value. gradient: the same of d loss / d array, which
has the array's shape. -: no gradient was computed. No row of the array needed one, or only some
did, or the array is an op's helper, which the op's backward differentiates through in one
formula."""


def tell(of: Steps) -> str:
    """The answer's probabilities, of several steps the losses, and the table with a legend."""
    labels, target = of.subject.labels, of.subject.target
    rows = [("probability of", *labels)]
    for moment, probabilities in of.probabilities.items():
        rows.append((moment, *(f"{p:.4f}" for p in probabilities)))
    sizes = [("array", "shape", "size", "gradient")]
    for row in of.trace.table():
        gradient = "-" if row["gradient_size"] is None else f"{row['gradient_size']:.2e}"
        shape = " x ".join(map(str, row["shape"]))
        sizes.append((row["name"], shape, f"{row['size']:.2e}", gradient))
    norm = float(np.linalg.norm(of.gradient))
    return (
        f"{len(of.tokens)} tokens, to be answered {labels[target]!r}: loss {of.loss:.4f} "
        f"nats, the prompt's gradient has norm {norm:.4f}\n\n"
        f"{align(rows, '<' + '>' * len(labels))}\n\n{_losses(of)}{align(sizes, '<<>>')}\n\n{LEGEND}"
    )


def _losses(of: Steps) -> str:
    """One line a step, where there are several."""
    if len(of.steps) == 1:
        return ""
    target = of.subject.target
    rows = [("after step", "loss", f"probability of {of.subject.labels[target]}")]
    for n, step in enumerate(of.steps):
        probability = step.probabilities[1][target]
        rows.append((str(n + 1), f"{step.loss_after:.4f}", f"{probability:.4f}"))
    return align(rows, ">>>") + "\n\n"


def describe(of: Steps) -> dict:
    """In types that JSON knows: the table, the gradient's norms, the probabilities.

    Of several steps also the losses, the first one before all of them.
    """
    labels = of.subject.labels
    losses = [of.loss, *(step.loss_after for step in of.steps)]
    return ({"losses": losses} if len(of.steps) > 1 else {}) | {
        "text": of.subject.text,
        "label": labels[of.subject.target],
        "tokens": of.tokens,
        "cut": of.subject.cut,
        "loss": of.loss,
        "probabilities": {
            moment: dict(zip(labels, map(float, probabilities), strict=True))
            for moment, probabilities in of.probabilities.items()
        },
        "gradient_norms": np.linalg.norm(of.gradient, axis=1).tolist(),
        "table": of.trace.table(),
    }


def draw(of: Steps) -> Figure:
    """A picture: attention to the prompt, the gradient by vector, the answers."""
    subject, P = of.subject, len(of.gradient)
    weights = [
        array[0].mean(0)[:, :P]  # (R, P): the mean over the heads
        for name, array in of.trace.activations.items()
        if name.startswith("text.") and name.endswith(".attn.weights")
    ]
    last_token = np.stack([layer[-1] for layer in weights])  # (L, P)
    # The last layer computes only the row that is read, so of one layer there is only that row.
    all_tokens = np.mean(weights[:-1] or weights, axis=0)  # (T, P), or (1, P)
    if len(weights) > 1:  # in the concatenated wiring the prompt's rows stand in front
        front = P if subject.wiring == "concatenated" else 0
        all_tokens = all_tokens[front : front + len(of.tokens)]
    return draw_step(
        f"{shorten(subject.text, 70)!r}, to be answered {subject.labels[subject.target]!r}",
        of.tokens[-len(all_tokens) :],
        last_token,
        all_tokens,
        np.linalg.norm(of.gradient, axis=1),
        of.probabilities,
        subject.labels,
    )
