"""The rivals side by side: the accuracy, the size and the cost of each.

In: a base, a task, names of learners. Out: a `Line` for each, and for each way to answer that
learns nothing: the majority, a bag of words, the base as it is, prompts written by hand. All have
the same data, splits and steps; each has the learning rate, of those tried, that does best on
validation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import encode_split
from minipt.learning.settings import defaults_for
from minipt.results.kept import remember
from minipt.results.report import baselines
from minipt.results.tables import align, decimals, spread
from minipt.rivals import RIVALS, find_learner, rates_for
from minipt.rivals.written import shown, written
from minipt.studies.cost import measure
from minipt.studies.sweep import Row, sweep
from minipt.tasks.bag_of_words import confidence_interval
from minipt.tasks.task import Task
from minipt.transformer.base import Base


@dataclass(frozen=True)
class Line:
    """One rival: how many test texts each seed answers rightly, of `total`; none if it cannot.

    trained: numbers; stored: bytes of what is kept. seconds and peak: of a step, measured here, the
    peak in bytes beside the base. rates: out of how many the learning rate was chosen. A line that
    learns nothing has one result where no seed changes it, and no cost.
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


def compare(
    base: Base, task: Task, learners: Sequence[str], seeds: int, tried: int, **settings: object
) -> list[Line]:
    """A line for each learner, below the lines that learn nothing.

    tried: how many learning rates to choose from, at most. settings: fields of `Settings`.
    Raises MiniptError as the runs do, and, before any is run, for a learner that is unknown or has
    nothing to train in this base.
    """
    if seeds < 1 or tried < 1:
        raise MiniptError("a comparison needs at least one seed and one learning rate")
    for learner in learners:
        find_learner(learner)(base, task, defaults_for(base, task, **settings))
    lines = _untrained(base, task, seeds)
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


def _untrained(base: Base, task: Task, seeds: int) -> list[Line]:
    """The lines that learn nothing, or know no base; measured once."""

    def measured() -> dict[str, list[int]]:
        right = {name: [score.correct] for name, score in baselines(base, task).items()}
        right["written by hand"] = [written(base, task, task.test).correct]
        try:
            examples = [shown(base, task, task.test, seed).correct for seed in range(seeds)]
        except MiniptError:  # the base does not go on from a text, or has no room for examples
            examples = []
        return right | {"examples in front": examples}

    decides = [base.fingerprint, task.digest, task.instruction, seeds]
    right = remember(f"fixed-{task.name}-{base.name}", decides, measured)
    total = len(task.test.texts)
    return [Line(name.replace("_", " "), correct, total) for name, correct in right.items()]


def _line(base: Base, task: Task, row: Row) -> Line:
    first = row.results[0]
    record, learner = first.record, first.job.make()
    token_rows, targets, _ = encode_split(base, learner.question, task.train, learner.room)
    tokens = int(np.median([len(ids) for ids in token_rows]))
    answer = 1 if task.labels else int(np.median([len(ids) for ids in targets]))
    step = measure(learner, first.job.settings, tokens, answer)
    return Line(
        name=record["learner"],
        correct=[result.record["correct"] for result in row.results],
        total=record["total"],
        trained=record["trained_numbers"],
        stored=record["stored_bytes"],
        seconds=step.seconds,
        peak=step.peak,
        rate=row.rate,
        rates=row.rates,
    )


def tell(base: Base, task: Task, lines: Sequence[Line]) -> str:
    """Two tables: the accuracies and the costs of the rivals."""
    seeds = max(len(line.correct) for line in lines)
    tried = max(line.rates for line in lines)
    rates = "the likeliest" if tried < 2 else f"the best of at most {tried} on validation"
    head = f"{task.name}, base {base.name}, {seeds} seeds; each learning rate is {rates}"
    reached = [("on the test split", "mean", "lowest", "highest", "95 % interval", "rate")]
    costs = [("to learn and to keep", "numbers trained", "kB kept", "ms a step", "MB at its peak")]
    for line in lines:
        reached.append((line.name, *_reached(line)))
        if line.seconds is not None:
            sizes = (line.stored / 1e3, 1e3 * line.seconds, line.peak / 1e6)
            costs.append((line.name, f"{line.trained:,}", *(f"{size:,.1f}" for size in sizes)))
    return "\n\n".join([head, align(reached), align(costs)])


def _reached(line: Line) -> tuple[str, ...]:
    """Accuracies over the seeds, and Wilson's interval of their mean, for the split's size."""
    if not line.correct:
        return "not possible", "", "", "", ""
    low, high = confidence_interval(round(float(np.mean(line.correct))), line.total)
    accuracies = decimals(spread(np.array(line.correct) / line.total))
    rate = "" if line.rate is None else f"{line.rate:g}"
    return (*accuracies, f"{low:.3f} to {high:.3f}", rate)
