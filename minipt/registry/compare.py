"""Two versions side by side: what differs in them, and which one answers better.

In: two versions with their files, and the answers of both to one test split. Out: a `Diff`. Whether
the second is better is a question about the same texts twice, so the difference is paired.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.records import read_tensors
from minipt.learning.evaluate import Evaluation, evaluate
from minipt.prompting.prompt import SoftPrompt
from minipt.registry.mcnemar import mcnemar, paired_difference
from minipt.registry.version import Version
from minipt.results.intervals import Difference
from minipt.results.tables import align
from minipt.tasks.task import Task
from minipt.transformer.base import Base

UNKNOWN = "-"
# The facts of a record that are compared, and the groups of facts in it.
FACTS = ("base", "base_path", "base_revision", "fingerprint", "task", "template", "labels")
FACTS += ("label_words", "seed", "length", "steps", "best_step", "test_accuracy", "interval")
GROUPS = ("settings", "data", "versions", "machine")


@dataclass(frozen=True)
class Answers:
    """How both versions answer the N texts of one test split.

    correct: how many each answers rightly. gained: how many only the second does; lost: how many
    only the first does. difference: of the accuracies, the second's less the first's, with its 95 %
    interval. p_value: McNemar's exact test of "neither is better".
    """

    task: str
    total: int
    correct: tuple[int, int]
    gained: int
    lost: int
    difference: Difference
    p_value: float


@dataclass(frozen=True)
class Diff:
    """Two versions. facts: those that differ, of both; None: not known. equal: how many do not.

    norms: of the vectors, all numbers together. distance, cosine: between the two; None where
    their shapes differ or they are of different bases.
    """

    first: Version
    second: Version
    facts: dict[str, tuple]
    equal: int
    norms: tuple[float, float]
    distance: float | None
    cosine: float | None
    answers: Answers | None = None

    def describe(self) -> dict:
        """All of it, for JSON."""
        names = ("facts", "equal", "norms", "distance", "cosine")
        about = {"first": self.first.reference, "second": self.second.reference}
        about |= {name: getattr(self, name) for name in names}
        return about | {"answers": self.answers and asdict(self.answers)}

    def __str__(self) -> str:
        head = ("", self.first.reference, self.second.reference)
        rows = [head, *((name, *map(_shown, pair)) for name, pair in self.facts.items())]
        rows.append(("norm of the vectors", *(f"{norm:.3f}" for norm in self.norms)))
        text = f"{align(rows, '<<<')}\n\n{self.equal} other facts are equal\n"
        numbers = (_shown(self.distance), _shown(self.cosine))
        text += "between the vectors: distance {}, cosine {}".format(*numbers)
        return text if self.answers is None else f"{text}\n\n{_tell_answers(self)}"


def compare(
    versions: tuple[Version, Version], paths: tuple[Path, Path], answers: Answers | None = None
) -> Diff:
    """Two versions and their prompts' files, side by side."""
    one, two = map(_facts, versions)
    pairs = {name: (one.get(name), two.get(name)) for name in one | two}
    facts = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    a, b = (read_tensors(path, "prompt", "")[0]["prompt"].astype(np.float64) for path in paths)
    norms = (float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    distance = cosine = None
    if a.shape == b.shape and versions[0].fingerprint == versions[1].fingerprint:
        distance = float(np.linalg.norm(a - b))
        cosine = float((a * b).sum() / (norms[0] * norms[1])) if all(norms) else None
    return Diff(*versions, facts, len(pairs) - len(facts), norms, distance, cosine, answers)


def answer_both(
    bases: tuple[Base, Base], prompts: tuple[SoftPrompt, SoftPrompt], task: Task
) -> Answers:
    """The answers of two prompts, each in front of its base, to a task's test split.

    Raises MiniptError for a prompt that was tuned for other labels.
    """
    for prompt in prompts:
        labels = prompt.about.get("labels")
        if labels != list(task.labels):
            raise MiniptError(
                f"the task {task.name!r} has the labels {', '.join(task.labels) or 'none'}, and a "
                f"prompt was tuned for {', '.join(labels or ['none'])}: name the task of both"
            )
    one, two = (evaluate(*pair, task.test) for pair in zip(bases, prompts, strict=True))
    return judge(task.name, one, two)


def judge(task: str, one: Evaluation, two: Evaluation) -> Answers:
    """Two evaluations of one split, text by text."""
    a, b = one.right, two.right  # (N,)
    difference, p_value = paired_difference(a, b), mcnemar(a, b)
    gained, lost = int((b & ~a).sum()), int((a & ~b).sum())
    return Answers(task, one.total, (one.correct, two.correct), gained, lost, difference, p_value)


def _facts(version: Version) -> dict[str, object]:
    """What is known, flat, by the record's names."""
    record = {"fingerprint": version.fingerprint} | version.record
    facts = {name: record[name] for name in FACTS if record.get(name) is not None}
    for group in GROUPS:
        values = record.get(group) if isinstance(record.get(group), dict) else {}
        facts |= {f"{group}.{name}": value for name, value in values.items()}
    return (
        facts
        | {"created": version.created, "message": version.message}
        | ({"parent": version.parent} if version.parent else {})
    )


def _shown(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 36 else f"{text[:33]}..."


def _tell_answers(diff: Diff) -> str:
    answers = diff.answers
    rows = [("on the test split of " + answers.task, "right", "accuracy")]
    for version, correct in zip((diff.first, diff.second), answers.correct, strict=True):
        right = f"{correct:,} of {answers.total:,}"
        rows.append((version.reference, right, f"{correct / answers.total:.3f}"))
    low, high = answers.difference.low, answers.difference.high
    verdict = "cannot be told apart on these texts"
    if low > 0 or high < 0:
        verdict = f"{(diff.second if low > 0 else diff.first).reference} is better"
    return (
        f"{align(rows)}\n"
        f"difference {answers.difference}, 95 % interval, paired: {verdict}\n"
        f"only the second is right {answers.gained:,} times, only the first {answers.lost:,}: "
        f"McNemar's exact test p = {answers.p_value:.3g}"
    )
