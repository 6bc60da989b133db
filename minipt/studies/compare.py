"""The rivals side by side: what each reaches, what it trains, stores and costs.

In: a base, a task, names of learners. Out: a `Line` for each, and for what learns nothing: the
majority, a bag of words, the base as it is, prompts written by hand. All have the same data, splits
and steps; each has the learning rate, of those tried, that does best on validation. The story
continues in `ensemble.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from minipt.base import Base
from minipt.baseline import confidence_interval
from minipt.errors import MiniptError
from minipt.evaluate import encode_split, evaluate
from minipt.report import align, compare_with_rivals
from minipt.rivals import RIVALS, rates_for
from minipt.rivals.written import shown, written
from minipt.studies.cost import measure
from minipt.studies.jobs import remember
from minipt.studies.sweep import Row, sweep
from minipt.tasks import Task
from minipt.tune import suited


@dataclass(frozen=True)
class Line:
    """One rival: how many test texts each seed answers rightly, of `total`; none: it cannot.

    trained: numbers; stored: bytes of what is kept. seconds and peak: of a step, measured here, the
    peak in bytes beside the base. rates: out of how many the learning rate was chosen. What learns
    nothing has one result where no seed changes it, and no cost.
    """

    name: str
    correct: list[int]
    total: int
    trained: int = 0
    stored: int = 0
    seconds: float | None = None
    peak: int | None = None
    rate: float | None = None
    rates: int = 0

    @property
    def accuracies(self) -> np.ndarray:
        """One a seed. (N,)"""
        return np.array(self.correct) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the seeds' mean: what the test split's size leaves open."""
        return confidence_interval(round(float(np.mean(self.correct))), self.total)


def compare(
    base: Base, task: Task, learners: Sequence[str], seeds: int, tried: int, **settings: object
) -> list[Line]:
    """A line for each learner, below those of what learns nothing.

    tried: how many learning rates to choose from. settings: fields of `Settings`.
    Raises MiniptError as the runs do, and for a learner that has nothing to train in this base.
    """
    lines = _fixed(base, task, seeds)
    for learner in learners:
        rates = rates_for(learner, base)[:tried]
        axes = {"learner": [learner], "learning_rate": rates}
        (row,) = sweep(base, task, axes, seeds, **settings)
        lines.append(_line(base, task, row))
    return lines


def able(base: Base, task: Task) -> tuple[list[str], list[str]]:
    """The rivals that can learn this task in this base, and why the others cannot."""
    names, reasons = [], []
    for rival in RIVALS:
        try:
            rival(base, task, suited(base, task))
            names.append(rival.name)
        except MiniptError as error:
            reasons.append(str(error))
    return names, reasons


def _fixed(base: Base, task: Task, seeds: int) -> list[Line]:
    """What learns nothing, or knows no base."""
    total = len(task.test.texts)

    def measured() -> dict[str, list[int]]:
        untuned = evaluate(base, None, task.test, task)
        scores = compare_with_rivals(base, task, untuned)
        names = [name for name in ("majority", "bag_of_words", "untuned") if name in scores]
        found = {name: [scores[name].correct] for name in names}
        found["written by hand"] = [written(base, task, task.test).correct]
        return found | {"examples in front": _shown(base, task, seeds)}

    found = remember(f"fixed-{task.name}-{base.name}", [base.fingerprint, seeds], measured)
    return [Line(name.replace("_", " "), correct, total) for name, correct in found.items()]


def _shown(base: Base, task: Task, seeds: int) -> list[int]:
    """None where the base does not go on from a text, or has no room for examples."""
    try:
        return [shown(base, task, task.test, seed).correct for seed in range(seeds)]
    except MiniptError:
        return []


def _line(base: Base, task: Task, row: Row) -> Line:
    first = row.results[0]
    record, settings = first.record, first.job.settings
    learner = first.job.make()
    token_rows, _, _ = encode_split(base, learner.reading, task.train, learner.room)
    tokens = int(np.median([len(ids) for ids in token_rows]))
    measured = measure(learner, settings, tokens)
    return Line(
        name=record["learner"],
        correct=[result.record["correct"] for result in row.results],
        total=record["total"],
        trained=record["trained_numbers"],
        stored=record["stored_bytes"],
        seconds=measured.seconds,
        peak=measured.peak,
        rate=row.rate,
        rates=row.rates,
    )


def tell_lines(base: Base, task: Task, lines: Sequence[Line]) -> str:
    """The lines as a table; a rival's name, its accuracy, and what it costs."""
    head = ("on the test split", "mean", "lowest", "highest", "95 % interval", "numbers")
    table = [(*head, "stored kB", "ms/step", "MB")]
    for line in lines:
        if not line.correct:
            table.append((line.name, "not possible", *[""] * 7))
            continue
        found, (low, high) = line.accuracies, line.interval
        numbers = [f"{number:.3f}" for number in (found.mean(), found.min(), found.max())]
        costs = ["", "", "", ""]
        if line.seconds is not None:
            sizes = (line.stored / 1e3, 1e3 * line.seconds, line.peak / 1e6)
            costs = [f"{line.trained:,}", *(f"{size:,.1f}" for size in sizes)]
        table.append((line.name, *numbers, f"{low:.3f} to {high:.3f}", *costs))
    seeds = max(len(line.correct) for line in lines)
    tried = max(line.rates for line in lines)
    return (
        f"{task.name}, base {base.name}, {seeds} seeds; each rate the best of {tried} on "
        f"validation\n{align(table, '<' + '>' * 8)}"
    )


def describe_lines(lines: Sequence[Line]) -> list[dict]:
    """The same for JSON."""
    return [asdict(line) for line in lines]
