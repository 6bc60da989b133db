"""Rows of the tables as versions and moves, inside a transaction."""

from __future__ import annotations

import getpass
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minipt.errors import MiniptError
from minipt.files.clock import now
from minipt.registry.names import known_names, parse_reference
from minipt.registry.version import Version

if TYPE_CHECKING:
    import sqlite3

COLUMNS = "name, number, sha256, created, message, parent, fingerprint, record"


@dataclass(frozen=True)
class Move:
    """A tag that was moved: when (UTC), from which number to which, by whom and on which host.

    before, after: None where it was nowhere.
    """

    time: str
    tag: str
    before: int | None
    after: int | None
    user: str
    host: str


class Tables:
    """A registry's tables in one transaction. directory: the registry's, for sentences."""

    def __init__(self, directory: Path, database: sqlite3.Connection) -> None:
        self.directory, self.database = directory, database

    def rows(self, query: str, *values: object) -> list[dict]:
        """What a query finds, by the columns' names."""
        return [dict(row) for row in self.database.execute(query, values)]

    def value(self, query: str, *values: object) -> object:
        """The first cell of what a query finds; None: nothing."""
        row = self.database.execute(query, values).fetchone()
        return None if row is None else row[0]

    def insert(self, table: str, row: dict[str, object]) -> None:
        """Add one row."""
        marks = ", ".join("?" * len(row))
        query = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
        self.database.execute(query, tuple(row.values()))

    def give_number(self, name: str, number: int | None = None) -> int:
        """The next number of a name, None; or one that is given: none up to it comes again."""
        newest = self.value("SELECT newest FROM names WHERE name = ?", name) or 0
        newest = newest + 1 if number is None else max(newest, number)
        self.database.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (name, newest))
        return newest

    def names(self) -> list[str]:
        """The names that have a version."""
        return [row["name"] for row in self.rows("SELECT DISTINCT name FROM versions ORDER BY 1")]

    def versions(self, which: str = "", *values: object) -> list[Version]:
        """The versions that a condition of SQL leaves, by name and number."""
        tags: dict[tuple[str, int], tuple[str, ...]] = {}
        for row in self.rows("SELECT name, number, tag FROM tags ORDER BY tag"):
            key = row["name"], row["number"]
            tags[key] = (*tags.get(key, ()), row["tag"])
        query = f"SELECT id AS row, {COLUMNS} FROM versions {which} ORDER BY name, number"
        return [
            Version(
                **row | {"record": json.loads(row["record"])},
                tags=tags.get((row["name"], row["number"]), ()),
            )
            for row in self.rows(query, *values)
        ]

    def find(self, reference: str) -> Version:
        """The version that a reference names. Raises MiniptError where there is none."""
        wanted = parse_reference(reference)
        self.known(wanted.name)
        number = wanted.number
        if wanted.tag is not None:
            query = "SELECT number FROM tags WHERE name = ? AND tag = ?"
            number = self.value(query, wanted.name, wanted.tag)
        elif number is None:
            number = self.value("SELECT max(number) FROM versions WHERE name = ?", wanted.name)
        found = self.versions("WHERE name = ? AND number = ?", wanted.name, number)
        return found[0] if found else self._refuse(wanted.name, reference)

    def known(self, name: str) -> str:
        """The name itself, where it has a version. Raises MiniptError where it has none."""
        if self.value("SELECT 1 FROM versions WHERE name = ?", name) is None:
            raise MiniptError(
                f"the registry {self.directory} has no prompt {name!r}: "
                f"{known_names(name, self.names())}"
            )
        return name

    def move(self, name: str, tag: str, number: int | None) -> None:
        """Put a tag on a version, None: on none; and write down who did."""
        before = self.value("SELECT number FROM tags WHERE name = ? AND tag = ?", name, tag)
        self.database.execute("DELETE FROM tags WHERE name = ? AND tag = ?", (name, tag))
        if number is not None:
            self.insert("tags", {"name": name, "tag": tag, "number": number})
        user, host = who()
        row = {"time": now(), "name": name, "tag": tag, "before": before, "after": number}
        self.insert("moves", row | {"user": user, "host": host})

    def moves(self, name: str) -> list[Move]:
        """The moves of a name's tags, the oldest first."""
        query = "SELECT time, tag, before, after, user, host FROM moves WHERE name = ? ORDER BY id"
        return [Move(**row) for row in self.rows(query, name)]

    def parent_in(self, record: dict) -> str | None:
        """The version that a run's record says it was tuned on from, if it is in this registry.

        Of several versions with that content, the one that the record names, or the newest.
        """
        sha256, named = record.get("parent_sha256"), record.get("parent")
        same = self.versions("WHERE sha256 = ?", sha256) if isinstance(sha256, str) else []
        same.sort(key=lambda each: (each.reference == named, each.row))
        return same[-1].reference if same else None

    def _refuse(self, name: str, reference: str) -> None:
        versions = self.versions("WHERE name = ?", name)
        numbers = [str(each.number) for each in versions]
        numbers = numbers if len(numbers) < 5 else [*numbers[:3], "...", numbers[-1]]
        tags = ", ".join(tag for each in versions for tag in each.tags) or "none"
        raise MiniptError(
            f"the registry {self.directory} has no {reference!r:.60}: of {name!r} there are the "
            f"versions {', '.join(numbers)} and the tags {tags:.60}; {name!r} alone is the newest"
        )


def who() -> tuple[str, str]:
    """The user's name and the host's, as the system says."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a number without an entry
        user = str(os.getuid()) if hasattr(os, "getuid") else "-"
    return tuple(name.encode(errors="replace").decode() for name in (user, platform.node() or "-"))
