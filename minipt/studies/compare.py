"""The rivals side by side: what each reaches, what it trains, stores and costs.

In: a base, a task, names of learners. Out: a `Line` for each, and for what learns nothing: the
majority, a bag of words, the base as it is, prompts written by hand. All have the same data, splits
and steps; each has the learning rate, of those tried, that does best on validation. The story
continues in `ensemble.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.checkpoint import digest
from minipt.learning.evaluate import encode_split
from minipt.learning.settings import defaults_for
from minipt.results.report import align, baselines
from minipt.rivals import RIVALS, find_learner, rates_for
from minipt.rivals.written import shown, written
from minipt.studies.cost import measure
from minipt.studies.jobs import remember
from minipt.studies.sweep import Row, sweep
from minipt.tasks.bag_of_words import confidence_interval
from minipt.tasks.task import Task
from minipt.transformer.base import Base


@dataclass(frozen=True)
class Line:
    """One rival: how many test texts each seed answers rightly, of `total`; none if it cannot.

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

    tried: how many learning rates to choose from, at most. settings: fields of `Settings`.
    Raises MiniptError as the runs do, and, before any is run, for a learner that is unknown or has
    nothing to train in this base.
    """
    if seeds < 1 or tried < 1:
        raise MiniptError("a comparison needs at least one seed and one learning rate")
    for learner in learners:
        find_learner(learner)(base, task, defaults_for(base, task, **settings))
    lines = _fixed(base, task, seeds)
    for learner in learners:
        axes = {"learner": [learner], "learning_rate": rates_for(learner, base)[:tried]}
        (row,) = sweep(base, task, axes, seeds, **settings)
        lines.append(_line(base, task, row))
    return lines


def able(base: Base, task: Task) -> tuple[list[str], list[str]]:
    """The rivals that can learn this task in this base, and why the others cannot."""
    names, reasons = [], []
    for rival in RIVALS:
        try:
            rival(base, task, defaults_for(base, task))
            names.append(rival.name)
        except MiniptError as error:
            reasons.append(str(error))
    return names, reasons


def _fixed(base: Base, task: Task, seeds: int) -> list[Line]:
    """What learns nothing, or knows no base."""

    def measured() -> dict[str, list[int]]:
        found = {name: [score.correct] for name, score in baselines(base, task).items()}
        found["written by hand"] = [written(base, task, task.test).correct]
        return found | {"examples in front": _shown(base, task, seeds)}

    decides = [base.fingerprint, digest(task), task.instruction, seeds]
    found = remember(f"fixed-{task.name}-{base.name}", decides, measured)
    total = len(task.test.texts)
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
    token_rows, targets, _ = encode_split(base, learner.question, task.train, learner.room)
    tokens = int(np.median([len(ids) for ids in token_rows]))
    answer = 1 if task.labels else int(np.median([len(ids) for ids in targets]))
    measured = measure(learner, settings, tokens, answer)
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
    """Two tables: what each rival reaches, and what it costs."""
    seeds = max(len(line.correct) for line in lines)
    tried = max(line.rates for line in lines)
    rates = "the likeliest" if tried < 2 else f"the best of at most {tried} on validation"
    head = f"{task.name}, base {base.name}, {seeds} seeds; each learning rate is {rates}"
    return f"{head}\n\n{_reached(lines)}\n\n{_costs(lines)}"


def _reached(lines: Sequence[Line]) -> str:
    table = [("on the test split", "mean", "lowest", "highest", "95 % interval", "rate")]
    for line in lines:
        if not line.correct:
            table.append((line.name, "not possible", "", "", "", ""))
            continue
        found, (low, high) = line.accuracies, line.interval
        numbers = (f"{number:.3f}" for number in (found.mean(), found.min(), found.max()))
        rate = "" if line.rate is None else f"{line.rate:g}"
        table.append((line.name, *numbers, f"{low:.3f} to {high:.3f}", rate))
    return align(table, "<>>>>>")


def _costs(lines: Sequence[Line]) -> str:
    table = [("to learn and to keep", "numbers trained", "kB kept", "ms a step", "MB at its peak")]
    for line in lines:
        if line.seconds is not None:
            sizes = (line.stored / 1e3, 1e3 * line.seconds, line.peak / 1e6)
            numbers = (f"{size:,.1f}" for size in sizes)
            table.append((line.name, f"{line.trained:,}", *numbers))
    return align(table, "<>>>>")


def describe_lines(lines: Sequence[Line]) -> list[dict]:
    """The same for JSON."""
    return [asdict(line) for line in lines]
