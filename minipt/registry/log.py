"""The log: what was answered, when, by which version, and the truth that came later.

In: observations. Out: rows of the table, and these rows as arrays again. The texts are not in it
unless they are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.observe import DIRECTIONS, Observation
from minipt.registry.tables import Tables
from minipt.registry.version import Version

AT_ONCE = 20_000  # rows that are in memory as Python's objects
FLOATS = "<f4"
NUMBERS = {"id": np.int64, "time": np.float64, "tokens": np.int64, "cut": np.bool_}
NUMBERS |= {"unknown": np.float32, "ifnull(truth, -1)": np.int64}


@dataclass(frozen=True)
class Logged:
    """N logged answers of one version, in the order of their times."""

    ids: np.ndarray  # (N,) int64
    times: np.ndarray  # (N,) float64, seconds since 1970
    observation: Observation
    right: np.ndarray  # (N,) int64: the right class; -1: not known


def write_log(
    tables: Tables,
    version: Version,
    seen: Observation,
    texts: Sequence[str] | None,
    times: Sequence[float],
) -> list[int]:
    """Log N answers of a version. texts: None, they are not kept. Returns the rows' ids."""
    if seen.labels != version.labels:
        raise MiniptError(f"these answers are not of {version.reference}, whose labels are others")
    N = len(seen.tokens)
    columns = {
        "version": [version.row] * N,
        "time": map(float, times),
        "label": seen.answers.tolist(),
        "probabilities": map(bytes, seen.probabilities.astype(FLOATS)),
        "tokens": seen.tokens.tolist(),
        "cut": seen.cut.tolist(),
        "unknown": seen.unknown.tolist(),
        "hidden": map(bytes, seen.hidden.astype(FLOATS)),
        "text": [None] * N if texts is None else texts,
    }
    marks = ", ".join("?" * len(columns))
    query = f"INSERT INTO log ({', '.join(columns)}) VALUES ({marks})"
    tables.database.executemany(query, zip(*columns.values(), strict=True))
    last = tables.value("SELECT last_insert_rowid()")
    return list(range(last - N + 1, last + 1))  # no other writer was between


def read_log(tables: Tables, version: Version, since: float = 0.0) -> Logged:
    """The answers of a version from a time on, in seconds since 1970."""
    rows = "FROM log WHERE version = ? AND time >= ?"
    N, K = tables.value(f"SELECT count(*) {rows}", version.row, since), len(version.labels)
    columns = {name: np.empty(N, kind) for name, kind in NUMBERS.items()}
    columns |= {"probabilities": np.empty((N, K), np.float32)}
    columns |= {"hidden": np.empty((N, DIRECTIONS), np.float32)}
    found = tables.database.cursor()
    found.row_factory = None  # tuples
    found.execute(f"SELECT {', '.join(columns)} {rows} ORDER BY time, id", (version.row, since))
    n = 0
    while some := found.fetchmany(AT_ONCE):
        for array, values in zip(columns.values(), zip(*some, strict=True), strict=True):
            part = array[n : n + len(some)]
            if part.ndim > 1:
                values = np.frombuffer(b"".join(values), FLOATS).reshape(part.shape)
            part[:] = values
        n += len(some)
    ids, times, right = (columns.pop(name) for name in ("id", "time", "ifnull(truth, -1)"))
    return Logged(ids, times, Observation(version.labels, **columns), right)


def write_truth(tables: Tables, truth: dict[int, str]) -> None:
    """The right labels of logged answers, by the ids of these. A known truth is replaced.

    Raises MiniptError for an id that is not in the log, and for a label that the version does not
    know; then no truth is changed.
    """
    labels = {each.row: each.labels for each in tables.versions()}
    for row, label in truth.items():
        version = tables.value("SELECT version FROM log WHERE id = ?", row)
        if version is None:
            raise MiniptError(f"the log has no answer {row}: `predict --log` prints the ids")
        if label not in labels[version]:
            raise MiniptError(
                f"the answer {row} has no label {label!r:.60}: choose one of "
                f"{', '.join(labels[version])}"
            )
        change = "UPDATE log SET truth = ? WHERE id = ?"
        tables.database.execute(change, (labels[version].index(label), row))
