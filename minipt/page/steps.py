"""Some training steps on one text, with every array of them.

In: a base, a prompt, one text and its right label. Out: `Steps`. The arrays are those of the trace,
which the step itself used.
"""

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import encode_split
from minipt.learning.optimizers import OPTIMIZERS, clip_gradients, schedule
from minipt.learning.settings import Settings, defaults_for
from minipt.maths.ops import softmax
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch, batches
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import logits, loss_and_gradient
from minipt.results.neighbours import spell
from minipt.tasks.task import Split
from minipt.transformer.base import Base
from minipt.transformer.trace import Trace

MOST_STEPS = 20


@dataclass(frozen=True)
class Subject:
    """What the steps are taken on: a text of T tokens, with K labels to choose from.

    batch: the text as the base reads it; B is 1, or K where labels have several tokens. cut: the
    text was too long and lost its beginning. target: the index of the right label. chosen: nobody
    gave it. wiring: as in `loss_and_gradient`.
    """

    base: Base
    prompt: SoftPrompt
    text: str
    labels: list[str]
    batch: Batch
    tokens: list[str]
    cut: bool
    target: int
    chosen: bool
    wiring: str
    settings: Settings


@dataclass(frozen=True)
class Step:
    """One step of the prompt's vectors (P, C).

    loss: before it. gradient (P, C), not clipped. norm: the gradient's. rate: the learning rate.
    before, after: the vectors (P, C). probabilities: (K,) each, before and after.
    """

    loss: float
    loss_after: float
    gradient: np.ndarray
    norm: float
    rate: float
    before: np.ndarray
    after: np.ndarray
    probabilities: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Steps:
    """N steps on one text.

    without_prompt: (K,) probabilities. steps: N of them. traces: by the number of the step; those
    of the first and the last step, and of the pass behind each, which shows what the step changed.
    """

    subject: Subject
    without_prompt: np.ndarray
    steps: list[Step]
    traces: dict[int, Trace]

    @property
    def trace(self) -> Trace:
        """Every array of the first step."""
        return self.traces[0]

    @property
    def tokens(self) -> list[str]:
        """The T tokens as text."""
        return self.subject.tokens

    @property
    def loss(self) -> float:
        """The cross-entropy before the first step, in nats."""
        return self.steps[0].loss

    @property
    def gradient(self) -> np.ndarray:
        """The first step's gradient of the vectors (P, C), not clipped."""
        return self.steps[0].gradient

    @property
    def probabilities(self) -> dict[str, np.ndarray]:
        """(K,) each: without a prompt, before the first step and after the last."""
        first, last = self.steps[0], self.steps[-1]
        before, after = first.probabilities[0], last.probabilities[1]
        return {"no prompt": self.without_prompt, "before": before, "after": after}


def take_steps(
    base: Base,
    prompt: SoftPrompt,
    text: str,
    label: str | None = None,
    count: int = 1,
    wiring: str | None = None,
) -> Steps:
    """The first steps of `minipt tune`, on one text; the given prompt stays as it is.

    prompt: its `about` has the labels, label_words and template. label: one of the labels; None:
    the answer that the prompt finds least likely, so that there is something to learn.
    Raises MiniptError for an unknown label, a text without tokens, a count outside 1 to
    `MOST_STEPS`, and answers that are not finite.
    """
    if not (isinstance(count, Integral) and 1 <= count <= MOST_STEPS):
        raise MiniptError(f"an x-ray is of 1 to {MOST_STEPS} steps, not {count!r}")
    subject, without_prompt, before = _read(base, prompt, text, label, wiring)
    settings, now = subject.settings, _with_vectors(prompt, prompt.vectors.copy())
    optimizer, steps, traces = OPTIMIZERS[settings.optimizer](), [], {}
    loss, gradient = _run(subject, now, 0, count, traces)
    for n in range(count):
        clipped = {"prompt": gradient.copy()}
        norm = clip_gradients(clipped, settings.clip)
        warmup = min(settings.warmup, settings.steps // 2)
        rate = settings.learning_rate * schedule(settings.schedule, n, settings.steps, warmup)
        then = _with_vectors(prompt, now.vectors.copy())
        optimizer.step({"prompt": then.vectors}, clipped, rate)
        after = _probabilities(subject.base, subject.batch, then)
        loss_after, gradient_after = _run(subject, then, n + 1, count, traces)
        if not all(np.isfinite(x).all() for x in (loss, norm, then.vectors, loss_after, after)):
            raise MiniptError(
                f"step {n + 1} on this text leads to numbers that are not finite: tune again"
            )
        moments = (before, after)
        step = Step(loss, loss_after, gradient, norm, rate, now.vectors, then.vectors, moments)
        steps.append(step)
        now, before, loss, gradient = then, after, loss_after, gradient_after
    return Steps(subject, without_prompt, steps, traces)


def _read(
    base: Base, prompt: SoftPrompt, text: str, label: str | None, wiring: str | None
) -> tuple[Subject, np.ndarray, np.ndarray]:
    """The text as the base reads it, and the answers (K,) without a prompt and with it."""
    about = prompt.about
    labels = list(about["labels"])
    if label is not None and label not in labels:
        raise MiniptError(f"there is no label {label!r}: choose one of {', '.join(labels)}")
    question = question_format(base, about["template"], about["label_words"], prompt.head)
    room = base.config.context - len(prompt.vectors)
    rows, _, (cut,) = encode_split(base, question, Split([text], np.array([0])), room)

    def batch_for(target: int) -> Batch:
        ((_, batch),) = batches(rows, np.array([target]), question, 1)
        return batch

    without, before = (_probabilities(base, batch_for(0), each) for each in (None, prompt))
    if not np.isfinite(before).all():
        raise MiniptError("with this prompt the answer is not a finite number: tune it again")
    target = int(before.argmin()) if label is None else labels.index(label)
    batch, tokens = batch_for(target), [spell(base, token) for token in rows[0]]
    wiring = wiring or ("shared" if base.config.causal else "concatenated")
    chosen, settings = label is None, defaults_for(base)
    subject = Subject(
        base, prompt, text, labels, batch, tokens, bool(cut), target, chosen, wiring, settings
    )
    return subject, without, before


def _run(
    subject: Subject, prompt: SoftPrompt, number: int, count: int, traces: dict[int, Trace]
) -> tuple[float, np.ndarray]:
    """The loss and gradient of step `number` of `count`; its trace if it is to be kept."""
    trace = traces[number] = Trace()
    found = loss_and_gradient(subject.base, prompt, subject.batch, trace, subject.wiring)
    trace.inputs.clear()  # only the gradients of weights would need them
    if number not in (0, 1, count - 1, count):
        del traces[number]
    return found


def _with_vectors(prompt: SoftPrompt, vectors: np.ndarray) -> SoftPrompt:
    return replace(prompt, vectors=vectors)


def _probabilities(base: Base, batch: Batch, prompt: SoftPrompt | None) -> np.ndarray:
    return softmax(logits(base, batch, prompt))[0]  # (K,)
