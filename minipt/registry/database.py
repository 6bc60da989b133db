"""The SQLite file of a registry: opened to read, or to write in one transaction.

In: a registry's directory. Out: a connection, for a `with` block. Each block opens and closes its
own, so that a registry is safe between threads and processes. The journal is SQLite's usual one,
which is rolled back: a database with a write-ahead log cannot be read from a read-only disk.

A writer begins with BEGIN IMMEDIATE, so that what it reads cannot change before it writes. Others
wait for it. A block that raises, or a process that is killed, leaves everything as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from minipt.errors import MiniptError

try:
    import sqlite3
except ImportError:  # a Python may have been built without it
    sqlite3 = None

FILE = "registry.db"
PATIENCE = 120  # seconds to wait for other writers
KIND = 0x6D697074  # the file's kind in SQLite's header: "mipt"
LAYOUT = 1  # of the tables below
SCHEMA = (
    # newest: the last number that was given. It is never given again.
    "CREATE TABLE names (name TEXT PRIMARY KEY, newest INTEGER NOT NULL)",
    # sha256: of the prompt's file; fingerprint: of the base; record, validation: JSON, or NULL
    """CREATE TABLE versions (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL,
        number INTEGER NOT NULL CHECK (typeof(number) = 'integer' AND number > 0),
        sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, created TEXT NOT NULL,
        message TEXT NOT NULL, parent TEXT, record TEXT NOT NULL, validation TEXT,
        UNIQUE (name, number))""",
    """CREATE TABLE tags (
        name TEXT NOT NULL, tag TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (name, tag), FOREIGN KEY (name, number) REFERENCES versions (name, number))""",
    # before, after: numbers; NULL: the tag was nowhere
    """CREATE TABLE moves (
        id INTEGER PRIMARY KEY, time TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL,
        before INTEGER, after INTEGER, user TEXT NOT NULL, host TEXT NOT NULL)""",
    # time: seconds since 1970; label, truth: indices into the version's labels; probabilities,
    # hidden: float32, little-endian. The text stands last, so that reading the rest skips it.
    """CREATE TABLE log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL REFERENCES versions (id),
        time REAL NOT NULL, label INTEGER NOT NULL, probabilities BLOB NOT NULL,
        tokens INTEGER NOT NULL, cut INTEGER NOT NULL, unknown REAL NOT NULL,
        hidden BLOB NOT NULL, truth INTEGER, text TEXT)""",
    "CREATE INDEX log_by_version ON log (version, time)",
)
# Beginnings of SQLite's names of errors, and what they mean here.
ERRORS = {
    "SQLITE_BUSY": "is in use by another process and stays so: try again later",
    "SQLITE_READONLY_ROLLBACK": "was left in the middle of a change, which a read-only disk keeps "
    "from being undone: read it once where it can be written",
    "SQLITE_READONLY": "can be read but not written: take another with --registry DIR",
    "SQLITE_CANTOPEN": "cannot be opened: check the path and its permissions",
    "SQLITE_FULL": "has no room on its disk, and nothing was changed: make some and try again",
    "SQLITE_IOERR": "cannot be read or written, as when its disk is full, and nothing was changed: "
    "look at the disk and try again",
    "SQLITE_NOTADB": "is no SQLite file: name the directory of a registry",
}
DAMAGED = "is damaged or no registry of minipt"


@contextmanager
def reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of all tables. Nothing is made.

    Raises MiniptError where there is no registry, and for one that cannot be read.
    """
    if not is_there(directory):
        raise _missing(directory)
    with _opened(directory, "rw") as database:  # SQLite itself falls back to reading only
        database.execute("BEGIN")
        if _layout(directory, database) == 0:
            raise _missing(directory)
        yield database


@contextmanager
def writing(directory: Path, new: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection in a transaction, which is kept when the block ends, and undone if it raises.

    new: make a registry where there is none. Raises MiniptError where it cannot be written.
    """
    if not (new or is_there(directory)):
        raise _missing(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise MiniptError(
            f"the registry {str(directory)!r:.200} cannot be made ({why}): choose a place that you "
            "may write to"
        ) from error
    with _opened(directory, "rwc") as database:
        database.execute("BEGIN IMMEDIATE")
        if _layout(directory, database) == 0:
            for statement in SCHEMA:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {KIND}")
            database.execute(f"PRAGMA user_version = {LAYOUT}")
        yield database
        database.execute("COMMIT")


def is_there(directory: Path) -> bool:
    """Whether there is a registry. The first to write to it makes its file, empty for a moment."""
    path = directory / FILE
    return os.path.isfile(path) and path.stat().st_size > 0


def _missing(directory: Path) -> MiniptError:
    return MiniptError(
        f"there is no registry at {directory!s:.200}: keep a prompt there first (`minipt "
        "prompts keep RUN NAME`), or name another with --registry or MINIPT_REGISTRY"
    )


@contextmanager
def _opened(directory: Path, mode: str) -> Iterator[sqlite3.Connection]:
    if sqlite3 is None:
        raise MiniptError("this Python was built without sqlite3, which a registry needs")
    try:
        uri = f"{(directory / FILE).as_uri()}?mode={mode}"
        options = {"uri": True, "timeout": PATIENCE, "isolation_level": None}
        with closing(sqlite3.connect(uri, **options)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA foreign_keys = ON")
            yield database
    except json.JSONDecodeError as error:
        raise MiniptError(f"the registry {directory} {DAMAGED} ({error}): take a copy") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        meaning = next((each for start, each in ERRORS.items() if name.startswith(start)), None)
        meaning = meaning or f"{DAMAGED} ({error}): take a copy"
        raise MiniptError(f"the registry {directory} {meaning}") from error


def _layout(directory: Path, database: sqlite3.Connection) -> int:
    """The number of the tables' layout; 0: there are none yet. Raises MiniptError for others."""
    kind, layout, tables = (
        database.execute(query).fetchone()[0]
        for query in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if (kind, layout) == (KIND, LAYOUT) or (kind, layout, tables) == (0, 0, 0):
        return layout
    if kind == KIND and layout > LAYOUT:
        raise MiniptError(f"the registry {directory} was written by a newer minipt: install that")
    raise MiniptError(f"the registry {directory} {DAMAGED}: name the directory of a registry")
