"""A sweep: the same learning with other settings, over seeds, as one table and one figure.

In: a base, a task, and for some fields of `Settings` the values to try. Out: a `Row` for each
combination, with one result a seed. Where several learning rates are given, each combination gets
the one that does best on validation, on the mean of the seeds. The test accuracies of the other
rates are kept with their runs, but neither read nor shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

from minipt.errors import MiniptError
from minipt.learning.settings import defaults_for
from minipt.results.kept import named, write_study
from minipt.results.plot import draw_lines
from minipt.results.tables import align, spread, tabulate
from minipt.rivals import rates_for
from minipt.studies.jobs import Job, Result, accuracies, jobs_of_seeds, run_all
from minipt.tasks.task import Task
from minipt.transformer.base import Base

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE = "learning_rate"
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
    tried: list[dict[float, list[Job]]] = []  # of each cell: by the learning rate, one job a seed
    for cell in cells:
        rates = axes.get(RATE) or [settings.get(RATE) or _usual_rate(base, task, cell)]
        shared = settings | cell
        tried.append({r: jobs_of_seeds(base, task, seeds, **shared | {RATE: r}) for r in rates})
    groups = [jobs for by_rate in tried for jobs in by_rate.values()]
    for jobs in groups:
        jobs[0].make()  # refuse what cannot be run before anything is
    run_all(chain(*groups))
    rows = []
    for cell, by_rate in zip(cells, tried, strict=True):
        results = {rate: run_all(jobs) for rate, jobs in by_rate.items()}
        best = max(results, key=lambda rate: accuracies(results[rate], "validation").mean())
        rows.append(Row(cell, best, len(results), results[best]))
    return rows


def _usual_rate(base: Base, task: Task, cell: dict) -> float:
    """The rate of `minipt tune`; where learners are compared, the likeliest of each."""
    if "learner" in cell:
        return rates_for(cell["learner"], base)[0]
    return defaults_for(base, task).learning_rate


def tell(task: Task, rows: Sequence[Row]) -> str:
    """The rows as a table: validation and test accuracy, mean (lowest, highest) over the seeds."""
    axes, first = _varying(rows), rows[0]
    head = [NAMES.get(name, name) for name in axes]
    entries = []
    for row in rows:
        cells = (*(str(row.values[name]) for name in axes), f"{row.rate:g}")
        mean = accuracies(row.results, "validation").mean()
        entries.append((cells, (mean, *spread(accuracies(row.results)))))
    rates = f"; each rate the best of {first.rates} on validation" if first.rates > 1 else ""
    notes = (
        f"{task.name}, base {first.results[0].job.base.name}, {len(first.results)} seeds{rates}\n"
        f"always {task.majority_name!r:.24} is right for {task.majority_accuracy:.3f} of test\n"
    )
    table = tabulate((*head, "rate", "validation", "test: mean", "lowest", "highest"), entries)
    return notes + align(table, "<" * len(axes) + ">" * 5)


def _varying(rows: Sequence[Row]) -> list[str]:
    """The axes on which the rows differ."""
    return [name for name in rows[0].values if len({str(row.values[name]) for row in rows}) > 1]


def write(
    base: Base, task: Task, axes: Mapping[str, Sequence[object]], seeds: int, rows: Sequence[Row]
) -> Path:
    """Write a sweep's table, record and figure. Returns their directory, below `runs/`."""
    name = named(f"sweep-{task.name}-{base.name}", [axes, seeds, base.fingerprint])
    return write_study(name, tell(task, rows), describe(rows), draw(task, rows))


def describe(rows: Sequence[Row]) -> dict:
    """The same for JSON, one dict a row."""
    described = [
        row.values
        | {
            "learning_rate": row.rate,
            "learning_rates_tried": row.rates,
            "validation_accuracies": accuracies(row.results, "validation").tolist(),
            "test_accuracies": accuracies(row.results).tolist(),
            "runs": [str(result.job.directory) for result in row.results],
        }
        for row in rows
    ]
    return {"rows": described}


def draw(task: Task, rows: Sequence[Row]) -> Figure:
    """Test accuracy over the first axis that varies, a line for each combination of the others."""
    first, *others = [*_varying(rows), *rows[0].values] or [""]
    others = [axis for axis in dict.fromkeys(others) if axis != first]
    lines: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        name = ", ".join(f"{NAMES.get(axis, axis)} {row.values[axis]}" for axis in others)
        points = lines.setdefault(name or "mean of the seeds", {})
        points[str(row.values.get(first, ""))] = spread(accuracies(row.results))
    title = f"{task.name}, base {rows[0].results[0].job.base.name}"
    across = {f"always {task.majority_name!r:.24}": task.majority_accuracy}
    return draw_lines(title, NAMES.get(first, first), "accuracy on test", lines, across)
