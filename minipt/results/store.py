"""A run's directory: the numbers, the prompt, the history and the picture, all or nothing.

In: a finished run. Out: `runs/<name>/` with `run.json`, `history.csv`, `prompt.safetensors`,
`curves.png` and, for a task with labels, `validation.json`. The picture only shows what the history
says, so where matplotlib cannot draw a run is complete without it. While a run is under way,
`runs/<name>.unfinished/` holds the checkpoint from which `--resume` continues, and after Ctrl-C the
best prompt so far.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory, complete_file
from minipt.files.formats import read_json
from minipt.files.records import read_tensors, write_record
from minipt.loading.load import NAMES
from minipt.prompting.prompt import SoftPrompt
from minipt.results.plot import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = Path("runs")
VALIDATION = "validation.json"
LONGEST_NAME = 60  # in bytes
PAGES = (".png", ".pdf", ".svg")
HISTORY = (
    "step",
    "loss",
    "gradient_norm",
    "prompt_norm",
    "distance",
    "rate",
    "validation_accuracy",
    "validation_loss",
)


def choose_directory(name: str | None, task: str, base: str, seed: int, resume: bool) -> Path:
    """The directory of a run, `runs/<name>/`; to claim it, its `unfinished` directory is made.

    name: the user's own; None: made of task, base and seed, and numbered where that is taken, so
    that a second run never meets the first. resume: of the runs under that name, choose the one
    that was interrupted last. Raises MiniptError for a name that is no plain file name or is taken,
    and where there is nothing to resume.
    """
    if name is not None and name != (_shortened(name) or None):
        raise MiniptError(f"a run's name is one plain word such as spam-2, not {name!r:.40}")
    stem = name or f"{_shortened(task)}-{_shortened(base)}-{seed}"
    places = [RUNS / stem] if name else takewhile(_is_taken, _numbered(stem))
    if resume:
        begun = [each for each in places if checkpoint_path(each).exists() and not each.exists()]
        if not begun:
            left = unfinished(RUNS / stem)
            advice = f"remove {left} and start" if left.exists() else "start it"
            raise MiniptError(
                f"no interrupted run under {RUNS / stem} to go on with: {advice} without --resume"
            )
        return max(begun, key=lambda each: checkpoint_path(each).stat().st_mtime)
    if name and not _claim(RUNS / name):
        left = RUNS / name
        exists = os.path.lexists(left)
        left, advice = (left, "") if exists else (unfinished(left), ", or try --resume")
        raise MiniptError(f"{left} exists already: remove it, choose another --name{advice}")
    return RUNS / name if name else next(place for place in _numbered(stem) if _claim(place))


def unfinished(directory: Path) -> Path:
    """The directory that stands beside a run's place until the run is complete."""
    return directory.with_name(f"{directory.name}.unfinished")


def checkpoint_path(directory: Path) -> Path:
    """The file from which the run of this directory resumes."""
    return unfinished(directory) / "checkpoint.safetensors"


def write_run(
    directory: Path,
    record: dict,
    history: list[dict],
    prompt: SoftPrompt,
    curves: bytes | None,
    validation: dict | None = None,
) -> None:
    """Write a finished run's files, then remove its `unfinished` directory.

    record: of types that JSON knows. curves: a PNG, None: there is no picture. validation: what
    `observe` saw on the validation split, None: the task has no labels. Raises MiniptError, leaving
    nothing half-written, when the directory exists or cannot be written or the disk is full.
    """
    with complete_directory(directory) as partial:
        write_json(partial / "run.json", record)
        with open(partial / "history.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, HISTORY)
            rows.writeheader()
            rows.writerows(history)
        prompt.save(partial / "prompt.safetensors")
        if curves is not None:
            (partial / "curves.png").write_bytes(curves)
        if validation is not None:
            write_record(partial / VALIDATION, validation)
    shutil.rmtree(unfinished(directory), ignore_errors=True)


def write_interrupted(directory: Path, record: dict, prompt: SoftPrompt) -> None:
    """Put the best prompt so far beside the checkpoint, where `minipt predict` can use it.

    Raises MiniptError when it cannot be written.
    """
    place = unfinished(directory)
    prompt.save(place / "prompt.safetensors")
    write_json(place / "run.json", record)


def write_json(path: Path, record: object) -> None:
    """Write what JSON knows, complete or not at all."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text, complete or not at all."""
    with complete_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_page(path: Path | None) -> None:
    """Raise MiniptError for a page's path with an ending that cannot be drawn."""
    if path and path.suffix.lower() not in PAGES:
        raise MiniptError(f"a page is saved as {' or '.join(PAGES)}, which {path} is not")


def save_page(figure: Figure, path: Path) -> None:
    """Write a figure, complete or not at all. Raises MiniptError when that is not possible."""
    picture = render(figure, path.suffix)
    with complete_file(path) as unsaved:
        unsaved.write_bytes(picture)


def remove_empty(directory: Path) -> None:
    """Remove the unfinished run's directory if a failure came before its first checkpoint."""
    for place in (unfinished(directory), directory.parent):
        try:
            place.rmdir()
        except OSError:
            return


def find_base(path: str | Path) -> str:
    """The base to load for a run's directory or a prompt's file: a name, or a directory's path.

    A base of `minipt bases` is known by its name. The `run.json` beside the prompt says where any
    other base was. Raises MiniptError when the file is missing, is no prompt, or says only the name
    of another base.
    """
    path = Path(path)
    path = path / "prompt.safetensors" if os.path.isdir(path) else path
    _, record = read_tensors(path, "prompt", "give a run's directory or its file")
    name = record.get("base_name")
    try:
        place = read_json(path.parent / "run.json", "is not a JSON object", "").get("base_path")
    except (MiniptError, FileNotFoundError):
        place = None
    place = place if isinstance(place, str) else None
    if place is None and name not in NAMES:
        raise MiniptError(
            f"{path} was made for base {name!r}, which `minipt bases` does not know: say where "
            "it is with --base"
        )
    return place or name


def _shortened(name: str) -> str:
    """A name as it may stand in a path: letters, digits, dots and dashes, not too many bytes."""
    plain = re.sub(r"[^\w.-]+", "-", name).lstrip(".-")
    return plain.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")


def _numbered(stem: str) -> Iterator[Path]:
    """runs/stem, runs/stem-2, runs/stem-3 and so on."""
    yield RUNS / stem
    yield from (RUNS / f"{stem}-{n}" for n in count(2))


def _claim(directory: Path) -> bool:
    """Make the unfinished directory, which only one of two runs at the same time can do."""
    if os.path.lexists(directory):
        return False
    try:
        # Apart from the next, since it finds a file, or a link that leads nowhere, in its place.
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(directory.parent, error) from error
    try:
        unfinished(directory).mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_be_made(unfinished(directory), error) from error
    return True


def _cannot_be_made(directory: Path, error: OSError) -> MiniptError:
    return MiniptError(
        f"{directory} cannot be made ({error.strerror}): remove what stands in its place, or go "
        "where you may write"
    )


def _is_taken(directory: Path) -> bool:
    return os.path.lexists(directory) or os.path.lexists(unfinished(directory))
