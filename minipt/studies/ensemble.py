"""Ensembles: several prompts, one base, one batch, and their answers together.

Lester et al. 2021, section 6: k prompts that differ in their seed are k models for the price of one
base. Each text stands in the batch k times, each time behind another prompt. The answers are put to
a vote, as there, or their probabilities are averaged. In: prompts for one task. Out: `Ensemble`,
with each member's answers beside the joined ones.

The mean of the *vectors* is another thing, and fails: two prompts that learnt the same task from
different starts lie far apart, and half way between them the loss is high (`losses_between`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import encode_split, evaluate, task_question
from minipt.maths.ops import softmax
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch, batches
from minipt.prompting.wiring import logits_together
from minipt.results.tables import align, spread
from minipt.tasks.task import Split, Task
from minipt.transformer.base import Base

TEXTS = 8  # a batch, before it is repeated
JOINED = ("vote", "mean probability", "mean of the vectors")


@dataclass(frozen=True)
class Ensemble:
    """The answers of k prompts on N texts of K classes.

    probabilities (k, N, K); labels (N,) the right answers; averaged (N,): the answers of one prompt
    whose vectors are the mean of theirs; best: the member that does best on validation.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    averaged: np.ndarray
    best: int

    @property
    def votes(self) -> np.ndarray:
        """The answers that most members give; where two are equal, the surer one. (N,)"""
        K = self.probabilities.shape[-1]
        counts = np.eye(K)[self.probabilities.argmax(-1)].sum(0)  # (N, K)
        return (counts + self.probabilities.mean(0)).argmax(-1)  # a mean is below one vote

    @property
    def mean(self) -> np.ndarray:
        """The answers of the mean probability. (N,)"""
        return self.probabilities.mean(0).argmax(-1)

    def accuracies(self) -> dict[str, float]:
        """Members' mean, lowest and highest, the best on validation, and the ways to join them."""
        members = (self.probabilities.argmax(-1) == self.labels).mean(-1)  # (k,)
        names = ("members, mean", "members, lowest", "members, highest")
        accuracies = dict(zip(names, spread(members), strict=True))
        accuracies["best on validation"] = float(members[self.best])
        joined = (self.votes, self.mean, self.averaged)
        for name, answers in zip(JOINED, joined, strict=True):
            accuracies[name] = float((answers == self.labels).mean())
        return accuracies


def ensemble(base: Base, prompts: Sequence[SoftPrompt], task: Task) -> Ensemble:
    """Let all prompts answer the test split.

    Raises MiniptError for prompts of different lengths, fewer than two, one with a head of its own,
    and a task whose answers are texts.
    """
    lengths = {len(prompt.vectors) for prompt in prompts}
    if len(prompts) < 2 or len(lengths) > 1 or any(p.head is not None for p in prompts):
        raise MiniptError("an ensemble needs two prompts or more, of one length, without heads")
    if not task.labels:
        raise MiniptError("an ensemble votes on labels: responses cannot be put to a vote")
    on_validation = [evaluate(base, each, task.validation, task).accuracy for each in prompts]
    averaged = evaluate(base, average(prompts), task.test, task)
    return Ensemble(
        probabilities=_answers(base, prompts, task.test, task),
        labels=task.test.labels,
        averaged=averaged.probabilities.argmax(-1),
        best=int(np.argmax(on_validation)),
    )


def average(prompts: Sequence[SoftPrompt], shares: Sequence[float] | None = None) -> SoftPrompt:
    """A prompt whose vectors are the (weighted) mean of others'."""
    vectors = np.average([prompt.vectors for prompt in prompts], axis=0, weights=shares)
    return replace(prompts[0], vectors=vectors.astype(prompts[0].vectors.dtype))


def losses_between(
    base: Base, first: SoftPrompt, second: SoftPrompt, task: Task, points: int = 5
) -> list[float]:
    """The validation loss, in nats, at evenly spaced points from one prompt to another."""
    shares = np.linspace(0, 1, points)
    between = [average([first, second], [1 - share, share]) for share in shares]
    return [evaluate(base, prompt, task.validation, task).loss for prompt in between]


def _answers(base: Base, prompts: Sequence[SoftPrompt], split: Split, task: Task) -> np.ndarray:
    """(k, N, K)"""
    vectors = np.stack([prompt.vectors for prompt in prompts])  # (k, P, C)
    question = task_question(base, None, split, task)
    room = base.config.context - vectors.shape[1]
    token_rows, targets, _ = encode_split(base, question, split, room)
    answers = np.empty((len(vectors), len(token_rows), question.label_count), base.dtype)
    for indices, batch in batches(token_rows, targets, question, TEXTS):
        answers[:, indices] = softmax(_logits_of_all(base, vectors, batch))
    return answers


def _logits_of_all(base: Base, vectors: np.ndarray, batch: Batch) -> np.ndarray:
    """Every text behind every prompt, in one forward pass. vectors (k, P, C) -> (k, B, K)"""
    k, B = len(vectors), len(batch.ids)
    arrays = {name: x for name, x in vars(batch).items() if x is not None and name != "choices"}
    repeated = replace(batch, **{name: np.concatenate([x] * k) for name, x in arrays.items()})
    in_front = np.repeat(vectors, B, axis=0)  # (kB, P, C)
    return logits_together(base, in_front, repeated).reshape(k, len(batch.right_choices), -1)


def tell(task: Task, answers: Ensemble) -> str:
    """A line for each way to answer: how many right, and the accuracy."""
    total = len(answers.labels)
    rows = [(f"{task.name}, {len(answers.probabilities)} prompts", "right", "accuracy")]
    for name, accuracy in answers.accuracies().items():
        rows.append((name, f"{accuracy * total:,.1f} of {total:,}", f"{accuracy:.3f}"))
    return align(rows)
