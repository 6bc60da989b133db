"""The log: what was answered, when, by which version, and the truth that came later.

In: observations. Out: rows of the table, and these rows as arrays again. The texts are not in it
unless they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.observe import DIRECTIONS, Observation
from minipt.registry.version import Version

if TYPE_CHECKING:
    import sqlite3

AT_ONCE = 20_000  # rows that are in memory as Python's objects
FLOATS = "<f4"
COLUMNS = "version, time, label, probabilities, tokens, cut, unknown, hidden, text"


@dataclass(frozen=True)
class Logged:
    """N logged answers of one version, in the order of their times."""

    ids: np.ndarray  # (N,) int64
    times: np.ndarray  # (N,) float64, seconds since 1970
    observation: Observation
    right: np.ndarray  # (N,) int64: the right class; -1: not known


def write_log(
    database: sqlite3.Connection,
    version: Version,
    seen: Observation,
    texts: Sequence[str] | None,
    times: Sequence[float],
) -> list[int]:
    """Log N answers of a version. texts: None, they are not kept. Returns the rows' ids."""
    if seen.labels != version.labels:
        raise MiniptError(f"these answers are not of {version.reference}, whose labels are others")
    rows = zip(
        [version.row] * len(seen.tokens),
        map(float, times),
        seen.answers.tolist(),
        map(bytes, seen.probabilities.astype(FLOATS)),
        seen.tokens.tolist(),
        seen.cut.tolist(),
        seen.unknown.tolist(),
        map(bytes, seen.hidden.astype(FLOATS)),
        texts or [None] * len(seen.tokens),
        strict=True,
    )
    marks = ", ".join("?" * len(COLUMNS.split(",")))
    database.executemany(f"INSERT INTO log ({COLUMNS}) VALUES ({marks})", rows)
    last = database.execute("SELECT last_insert_rowid()").fetchone()[0]
    return list(range(last - len(seen.tokens) + 1, last + 1))  # no other writer was between


def read_log(database: sqlite3.Connection, version: Version, since: float = 0.0) -> Logged:
    """The answers of a version from a time on, in seconds since 1970."""
    query = (
        "SELECT id, time, tokens, cut, unknown, truth, probabilities, hidden FROM log "
        "WHERE version = ? AND time >= ? ORDER BY time, id"
    )
    rows = database.cursor()
    rows.row_factory = None  # tuples
    rows.execute(query, (version.row, since))
    parts = []
    while some := rows.fetchmany(AT_ONCE):
        *numbers, probabilities, hidden = zip(*some, strict=True)
        floats = [np.frombuffer(b"".join(each), FLOATS) for each in (probabilities, hidden)]
        parts.append([*(np.array(each, np.float64) for each in numbers), *floats])
    parts = parts or [[np.empty(0)] * 8]
    ids, times, tokens, cut, unknown, truth, probabilities, hidden = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )
    seen = Observation(
        version.labels,
        probabilities.reshape(len(ids), len(version.labels)).astype(np.float32),
        tokens.astype(np.int64),
        cut.astype(bool),
        unknown.astype(np.float32),
        hidden.reshape(len(ids), DIRECTIONS).astype(np.float32),
    )
    right = np.where(np.isnan(truth), -1, truth).astype(np.int64)
    return Logged(ids.astype(np.int64), times, seen, right)


def write_truth(
    database: sqlite3.Connection, truth: dict[int, str], labels: dict[int, tuple[str, ...]]
) -> None:
    """The right labels of logged answers, by the ids of these. labels: of each version, by its row.

    A truth that is known already is replaced. Raises MiniptError for an id that is not in the log,
    and for a label that the version does not know; then no truth is changed.
    """
    for row, label in truth.items():
        found = database.execute("SELECT version FROM log WHERE id = ?", (row,)).fetchone()
        if found is None:
            raise MiniptError(f"the log has no answer {row}: `predict --log` prints the ids")
        known = labels[found["version"]]
        if label not in known:
            raise MiniptError(
                f"the answer {row} has no label {label!r:.60}: choose one of {', '.join(known)}"
            )
        change = "UPDATE log SET truth = ? WHERE id = ?"
        database.execute(change, (known.index(label), row))
