"""A sweep: the same learning with other settings, over seeds, as one table and one figure.

In: a base, a task, and for some fields of `Settings` the values to try. Out: a `Row` for each
combination, with one result a seed. Where several learning rates are given, each combination gets
the one that does best on validation, on the mean of the seeds; the test accuracy of the others is
kept with their runs, but neither read nor shown. Runs that were done are read, not run (`jobs.py`).
The story continues in `count.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from minipt.errors import MiniptError
from minipt.learning.settings import defaults_for
from minipt.results.plot import draw_lines
from minipt.results.report import align
from minipt.rivals import rates_for
from minipt.studies.jobs import Job, Result, accuracies, run_all
from minipt.tasks.task import Task
from minipt.transformer.base import Base

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE, VALIDATION = "learning_rate", "validation_accuracy"
LEARNER, PROMPT = "learner", "prompt"
# As the command line has them.
NAMES = {"method": "init", "learning_rate": "rate"}


@dataclass(frozen=True)
class Row:
    """One combination: its values by the names of the axes, one result a seed.

    rate: the learning rate; rates: out of how many it was chosen, on validation.
    """

    values: dict[str, object]
    rate: float
    rates: int
    results: list[Result]


def sweep(
    base: Base,
    task: Task,
    axes: Mapping[str, Sequence[object]],
    seeds: int,
    **settings: object,
) -> list[Row]:
    """Run every combination of the axes' values, with seeds 0 to seeds - 1.

    axes: fields of `Settings`, or "learner", the name of a rival; without it a soft prompt learns.
    settings: the fields that all share.

    Raises MiniptError for an axis without values, no seed, and as the runs do. All combinations are
    checked before the first is run.
    """
    if seeds < 1 or not all(axes.values()):
        raise MiniptError("a sweep needs at least one seed, and one value on each axis")
    others = {name: values for name, values in axes.items() if name != RATE}
    cells = [dict(zip(others, values, strict=True)) for values in product(*others.values())]
    jobs: dict[tuple[int, float], list[Job]] = {}
    for i, cell in enumerate(cells):
        for rate in axes.get(RATE) or [settings.get(RATE) or _usual_rate(base, task, cell)]:
            runs = [settings | {RATE: rate, "seed": seed} for seed in range(seeds)]
            jobs[i, rate] = [_job(base, task, cell, each) for each in runs]
    for group in jobs.values():
        group[0].make()  # refuse what cannot be run before anything is
    run_all(job for group in jobs.values() for job in group)
    rows = []
    for i, cell in enumerate(cells):
        tried = {rate: run_all(group) for (n, rate), group in jobs.items() if n == i}
        rows.append(_best(cell, tried))
    return rows


def _best(cell: dict, by_rate: dict[float, list[Result]]) -> Row:
    rate = max(by_rate, key=lambda rate: accuracies(by_rate[rate], VALIDATION).mean())
    return Row(cell, rate, len(by_rate), by_rate[rate])


def _usual_rate(base: Base, task: Task, cell: dict) -> float:
    """That of `minipt tune`; where learners are compared, the likeliest of each."""
    if LEARNER in cell:
        return rates_for(cell[LEARNER], base)[0]
    return defaults_for(base, task).learning_rate


def _job(base: Base, task: Task, cell: dict, settings: dict) -> Job:
    fields = {name: value for name, value in cell.items() if name != LEARNER}
    return Job(cell.get(LEARNER, PROMPT), base, task, defaults_for(base, task, **settings | fields))


def tell_sweep(task: Task, rows: Sequence[Row]) -> str:
    """The rows as a table: validation and test accuracy, mean (lowest, highest) over the seeds."""
    axes = _varying(rows)
    head = [NAMES.get(name, name) for name in axes]
    table = [(*head, "rate", "validation", "test: mean", "lowest", "highest")]
    for row in rows:
        test = accuracies(row.results)
        numbers = (accuracies(row.results, VALIDATION).mean(), test.mean(), test.min(), test.max())
        cells = [str(row.values[name]) for name in axes]
        table.append((*cells, f"{row.rate:g}", *(f"{number:.3f}" for number in numbers)))
    first = rows[0]
    chosen = f"; each rate the best of {first.rates} on validation" if first.rates > 1 else ""
    notes = (
        f"{task.name}, base {first.results[0].job.base.name}, {len(first.results)} seeds{chosen}\n"
        f"always {task.majority_name!r:.24} is right for {task.majority_accuracy:.3f} of test\n"
    )
    return notes + align(table, "<" * len(axes) + ">" * 5)


def _varying(rows: Sequence[Row]) -> list[str]:
    """The axes on which the rows differ."""
    return [name for name in rows[0].values if len({str(row.values[name]) for row in rows}) > 1]


def describe_sweep(rows: Sequence[Row]) -> list[dict]:
    """The same for JSON, one dict a row."""
    return [
        {
            **row.values,
            "learning_rate": row.rate,
            "learning_rates_tried": row.rates,
            "validation_accuracies": accuracies(row.results, VALIDATION).tolist(),
            "test_accuracies": accuracies(row.results).tolist(),
            "runs": [str(result.job.directory) for result in row.results],
        }
        for row in rows
    ]


def draw_sweep(task: Task, rows: Sequence[Row]) -> Figure:
    """Test accuracy over the first axis that varies, a line for each combination of the others."""
    first, *others = [*_varying(rows), *rows[0].values] or [""]
    others = [axis for axis in dict.fromkeys(others) if axis != first]
    lines: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        name = ", ".join(f"{NAMES.get(axis, axis)} {row.values[axis]}" for axis in others)
        test = accuracies(row.results)
        points = lines.setdefault(name or "mean of the seeds", {})
        points[str(row.values.get(first, ""))] = (test.mean(), test.min(), test.max())
    title = f"{task.name}, base {rows[0].results[0].job.base.name}"
    across = {f"always {task.majority_name!r:.24}": task.majority_accuracy}
    return draw_lines(title, NAMES.get(first, first), "accuracy on test", lines, across)
