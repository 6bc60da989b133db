"""Results that are computed once and kept below `runs/`: of runs, of studies, and their tables.

In: a name, all that decides a result, and how to compute it. Out: the result, which is read from
its file the next time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minipt.files.records import read_record, write_record
from minipt.results.store import LONGEST_NAME, RUNS, save_page, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY = RUNS / "study"


def named(name: str, decides: object) -> str:
    """A name for a file: the words of a name, and twelve hex digits of all that decides a result.

    decides: of types that JSON knows; wherever it differs, so does the name.
    """
    words = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    return f"{words}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]}"


def remember(name: str, decides: object, make: Callable[[], object]) -> object:
    """The result of `make`, in JSON; computed once for a name and all that decides it.

    Raises MiniptError for a result that has changed since it was written.
    """
    path = STUDY / f"{named(name, decides)}.json"
    if not path.exists():
        write_record(path, {"result": make()})
    record = read_record(path, f"remove {path}")
    is_sealed = isinstance(record, dict) and list(record) == ["result"]
    return record["result"] if is_sealed else record  # one from before is the result itself


def write_study(name: str, table: str, record: object, figure: Figure) -> Path:
    """Write `runs/<name>/`: table.txt, result.json and figure.png. Returns the directory.

    A file that is there already is replaced. Raises MiniptError when one cannot be written.
    """
    place = RUNS / name
    write_text(place / "table.txt", f"{table}\n")
    write_json(place / "result.json", record)
    save_page(figure, place / "figure.png")
    return place
