"""Two versions side by side: what differs in them, and which one answers better.

In: two versions with their files, and the answers of both to one test split. Out: a `Diff`. Whether
the second is better is a question about the same texts twice, so the difference is paired.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.records import read_tensors
from minipt.learning.evaluate import evaluate
from minipt.prompting.prompt import SoftPrompt
from minipt.registry.version import Version
from minipt.results.intervals import Difference
from minipt.statistics.mcnemar import mcnemar, paired_difference
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# The facts of a record that are compared, and the groups of facts in it.
FACTS = ("base", "base_path", "base_revision", "task", "template", "labels", "label_words", "seed")
FACTS += ("length", "steps", "best_step", "test_accuracy", "interval")
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

    first: str
    second: str
    facts: dict[str, tuple]
    equal: int
    norms: tuple[float, float]
    distance: float | None
    cosine: float | None
    answers: Answers | None = None

    def describe(self) -> dict:
        """All of it, for JSON."""
        return asdict(self)


def compare(
    versions: tuple[Version, Version], paths: tuple[Path, Path], answers: Answers | None = None
) -> Diff:
    """Two versions and their prompts' files, side by side."""
    first, second = versions
    one, two = map(_facts, versions)
    pairs = {name: (one.get(name), two.get(name)) for name in one | two}
    facts = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    a, b = (read_tensors(path, "prompt", "")[0]["prompt"].astype(np.float64) for path in paths)
    norms = (float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    distance = cosine = None
    if a.shape == b.shape and first.fingerprint == second.fingerprint:
        distance = float(np.linalg.norm(a - b))
        cosine = float((a * b).sum() / (norms[0] * norms[1])) if all(norms) else None
    equal = len(pairs) - len(facts)
    return Diff(first.reference, second.reference, facts, equal, norms, distance, cosine, answers)


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
    return Answers(
        task=task.name,
        total=one.total,
        correct=(one.correct, two.correct),
        gained=int((two.right & ~one.right).sum()),
        lost=int((one.right & ~two.right).sum()),
        difference=paired_difference(one.right, two.right),
        p_value=mcnemar(one.right, two.right),
    )


def _facts(version: Version) -> dict[str, object]:
    """What is known, flat, by the record's names."""
    facts = {name: getattr(version, name) for name in ("fingerprint", "parent", "message")}
    facts |= {name: version.record.get(name) for name in FACTS}
    for group in GROUPS:
        facts |= {f"{group}.{name}": value for name, value in version.part(group).items()}
    return facts
