"""One training step under glass: every array by name, and what the step changed.

In: a base, a prompt, one text and its right label. Out: an `XRay`, as a table of all activations
and gradients in the order of computation, and as a page drawn by `plot.py`. The arrays are those of
the trace, which the step itself used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minipt.learning.evaluate import encode_split
from minipt.learning.optimizers import OPTIMIZERS, clip_gradients, schedule
from minipt.learning.settings import defaults_for
from minipt.maths.ops import softmax
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch, batches
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import logits, loss_and_gradient
from minipt.results.plot import draw_step
from minipt.results.tables import align, shorten
from minipt.tasks.task import Split
from minipt.transformer.base import Base
from minipt.transformer.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND = """\
prompt.* are the prompt's rows. text.* are the text's rows, which read the prompt's keys and values.
h0 is the lowest layer. size: the mean absolute value. gradient: the same of d loss / d array, which
has the array's shape. -: no gradient was computed. No row of the array needed one, or only some
did, or the array is an op's helper, which the op's backward differentiates through in one
formula."""


@dataclass(frozen=True)
class XRay:
    """A step of one text of T tokens.

    cut: the text was too long and lost its beginning. target: the index of the right label.
    gradient (P, C), not clipped. probabilities: (K,) each, of the base without a prompt, and before
    and after the step.
    """

    trace: Trace
    tokens: list[str]
    cut: bool
    target: int
    loss: float
    gradient: np.ndarray
    probabilities: dict[str, np.ndarray]


def take_step(
    base: Base,
    prompt: SoftPrompt,
    template: str,
    label_words: Sequence[str],
    text: str,
    target: int | None = None,
) -> XRay:
    """The first step of `minipt tune`, on one text; the given prompt stays as it is.

    target: an index into label_words; None: the answer that the prompt finds least likely, so that
    there is something to learn. Raises MiniptError for a text without tokens.
    """
    settings = defaults_for(base)
    question = question_format(base, template, label_words, prompt.head)
    room = base.config.context - len(prompt.vectors)
    rows, _, (cut,) = encode_split(base, question, Split([text], np.array([0])), room)

    def batch_for(target: int) -> Batch:
        ((_, batch),) = batches(rows, np.array([target]), question, 1)
        return batch

    def probabilities(of: SoftPrompt | None) -> np.ndarray:
        return softmax(logits(base, batch_for(0), of))[0]  # (K,)

    before = probabilities(prompt)
    target = int(before.argmin()) if target is None else target
    trace, batch = Trace(), batch_for(target)
    loss, gradient = loss_and_gradient(base, prompt, batch, trace)

    after = SoftPrompt(prompt.vectors.copy(), prompt.fingerprint, prompt.base_name)
    clipped = {"prompt": gradient.copy()}
    clip_gradients(clipped, settings.clip)
    rate = settings.learning_rate * schedule(settings.schedule, 0, settings.steps, settings.warmup)
    OPTIMIZERS[settings.optimizer]().step({"prompt": after.vectors}, clipped, rate)
    changes = {"no prompt": probabilities(None), "before": before, "after": probabilities(after)}
    tokens = [base.tokenizer.decode([token], skip_special_tokens=False) for token in rows[0]]
    return XRay(trace, tokens, bool(cut), target, loss, gradient, changes)


def tell_step(xray: XRay, labels: Sequence[str]) -> str:
    """The step as text: the answer's probabilities, then the table of the trace with a legend."""
    rows = [("probability of", *labels)]
    for moment, probabilities in xray.probabilities.items():
        rows.append((moment, *(f"{p:.4f}" for p in probabilities)))
    sizes = [("array", "shape", "size", "gradient")]
    for row in xray.trace.table():
        gradient = "-" if row["gradient_size"] is None else f"{row['gradient_size']:.2e}"
        shape = " x ".join(map(str, row["shape"]))
        sizes.append((row["name"], shape, f"{row['size']:.2e}", gradient))
    norm = float(np.linalg.norm(xray.gradient))
    return (
        f"{len(xray.tokens)} tokens, to be answered {labels[xray.target]!r}: loss {xray.loss:.4f} "
        f"nats, the prompt's gradient has norm {norm:.4f}\n\n"
        f"{align(rows, '<' + '>' * len(labels))}\n\n{align(sizes, '<<>>')}\n\n{LEGEND}"
    )


def describe(xray: XRay, labels: Sequence[str], text: str) -> dict:
    """The step in types that JSON knows: the table, the gradient's norms, the probabilities."""
    return {
        "text": text,
        "label": labels[xray.target],
        "tokens": xray.tokens,
        "cut": xray.cut,
        "loss": xray.loss,
        "probabilities": {
            moment: dict(zip(labels, map(float, probabilities), strict=True))
            for moment, probabilities in xray.probabilities.items()
        },
        "gradient_norms": np.linalg.norm(xray.gradient, axis=1).tolist(),
        "table": xray.trace.table(),
    }


def page(xray: XRay, labels: Sequence[str], text: str) -> Figure:
    """The step as a picture: attention to the prompt, the gradient by vector, the answers."""
    P = len(xray.gradient)
    weights = [
        array[0].mean(0)[:, :P]  # (R, P): the mean over the heads
        for name, array in xray.trace.activations.items()
        if name.startswith("text.") and name.endswith(".attn.weights")
    ]
    last_token = np.stack([layer[-1] for layer in weights])  # (L, P)
    # The last layer computes only the row that is read, so of one layer there is only that row.
    whole = weights[:-1] or weights
    all_tokens = np.mean(whole, axis=0)  # (T, P), or (1, P)
    return draw_step(
        f"{shorten(text, 70)!r}, to be answered {labels[xray.target]!r}",
        xray.tokens[-len(all_tokens) :],
        last_token,
        all_tokens,
        np.linalg.norm(xray.gradient, axis=1),
        xray.probabilities,
        labels,
    )
