"""The registry: a directory of prompts that are kept under names, with numbers and tags.

In: runs and names. Out: versions. The prompts themselves lie in files by their content, everything
else in one SQLite file. What is read never makes or changes anything.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.clock import now
from minipt.learning.observe import Observation, read_validation
from minipt.learning.tune import Run
from minipt.prompting.prompt import SoftPrompt, load_prompt
from minipt.registry.compare import Diff, answer_both, compare
from minipt.registry.database import FILE, is_there, reading, writing
from minipt.registry.log import Logged, read_log, write_log, write_truth
from minipt.registry.names import check_name
from minipt.registry.objects import fault, object_path, put_object, sound_object, unnamed_objects
from minipt.registry.tables import Move, Tables
from minipt.registry.version import Version
from minipt.results.facts import gather
from minipt.tasks.task import Task
from minipt.transformer.base import Base

USUAL_PLACE = "prompts"
PLACE_VARIABLE = "MINIPT_REGISTRY"


class Registry:
    """A directory of versions. directory: None for MINIPT_REGISTRY, or else ./prompts.

    It is made when something is kept for the first time. A version is named by "spam@2", by a tag
    as in "spam@production", or as "spam", the newest. Every method raises MiniptError for names
    that are unknown or could not be kept, where there is no registry to read, and where the disk
    refuses.
    """

    def __init__(self, directory: str | os.PathLike | None = None) -> None:
        place = directory or os.environ.get(PLACE_VARIABLE) or USUAL_PLACE
        self.directory = Path(os.path.abspath(place))

    def save(
        self,
        run: Run | SoftPrompt | str | Path,
        name: str,
        message: str = "",
        parent: str | None = None,
    ) -> Version:
        """Keep a run, a prompt, or a run's directory as the next version of a name.

        parent: the version that it was tuned on from; None: what the run's record says of it. A run
        with labels answers its validation split once more, for what can be watched later.
        """
        name, kept = check_name(name), gather(run)
        if not isinstance(message, str) or not _is_text(message):
            raise MiniptError(f"a message is a text in Unicode, not {message!r:.60}")
        with self.writing(new=True) as tables:
            if parent is not None:
                parent = tables.find(parent).reference
            else:
                parent = tables.parent_in(kept.record)
            number = tables.give_number(name)
            row = {"name": name, "number": number, "created": now(), "message": message}
            row |= {"parent": parent, "sha256": put_object(self.directory, kept.content)}
            row |= {"fingerprint": kept.fingerprint, "record": json.dumps(kept.record)}
            row |= {"validation": kept.validation and json.dumps(kept.validation)}
            tables.insert("versions", row)
            return tables.find(f"{name}@{number}")

    def names(self) -> list[str]:
        """The names that have a version, in alphabetical order."""
        with self.reading() as tables:
            return tables.names()

    def versions(self, name: str | None = None) -> list[Version]:
        """The versions of a name, the oldest first; None: of all names."""
        with self.reading() as tables:
            if name is None:
                return tables.versions()
            return tables.versions("WHERE name = ?", tables.known(check_name(name)))

    def find(self, reference: str) -> Version:
        """The version that a reference names."""
        with self.reading() as tables:
            return tables.find(reference)

    def has(self, name: str) -> bool:
        """Whether there is a registry and a version of this name in it."""
        return is_there(self.directory) and check_name(name) in self.names()

    def load(self, reference: str, base: Base) -> SoftPrompt:
        """The prompt of a version, for the base that it was made for.

        Raises MiniptError for another base, and for a file that is missing or damaged.
        """
        version = self.find(reference)
        path = self.path_of(version)
        if version.fingerprint != base.fingerprint:
            raise MiniptError(
                f"{version.reference} was made for base {version.text('base')!r} "
                f"({version.fingerprint[:12]}), not for base {base.name!r} "
                f"({base.fingerprint[:12]}): a prompt works only on its own base"
            )
        return load_prompt(path, base)

    def path_of(self, version: Version) -> Path:
        """The file of a version, which is there and sound."""
        return sound_object(self.directory, version.sha256, version.reference)

    def validation(self, reference: str) -> tuple[Observation, np.ndarray]:
        """What a version left on its validation split, and the right classes (N,).

        Raises MiniptError for a version that was kept without it.
        """
        with self.reading() as tables:
            version = tables.find(reference)
            text = tables.value("SELECT validation FROM versions WHERE id = ?", version.row)
        if text is None:
            raise MiniptError(
                f"{version.reference} was kept without its validation split, so there is nothing "
                "to compare with: tune it again and keep the run's directory"
            )
        return read_validation(json.loads(text), f"the validation split of {version.reference}")

    def remove(self, reference: str) -> Version:
        """Remove a version that no tag and no logged answer names. Its number is not given again.

        The prompt's file goes too, unless another version has the same content.
        """
        with self.writing() as tables:
            version = tables.find(reference)
            if version.tags:
                tagged = f"{version.name}@{version.tags[0]}"
                raise MiniptError(
                    f"{version.reference} has the tag {version.tags[0]!r}: move it, or take it "
                    f"away with `minipt prompts untag {tagged}`, and then remove the version"
                )
            answers = tables.value("SELECT count(*) FROM log WHERE version = ?", version.row)
            if answers:
                raise MiniptError(
                    f"the log has {answers:,} answers of {version.reference}: forget them first "
                    "(`minipt prompts forget --before DATE`), or nothing says who gave them"
                )
            tables.database.execute("DELETE FROM versions WHERE id = ?", (version.row,))
        # Only now, since a transaction that is undone would bring the version back without it.
        with self.writing() as tables:
            if not tables.value("SELECT 1 FROM versions WHERE sha256 = ?", version.sha256):
                object_path(self.directory, version.sha256).unlink(missing_ok=True)
        return version

    def tag(self, name: str, number: int, tag: str) -> Version:
        """Put a tag on a version of a name. It leaves the version of the name that it was on."""
        tag = check_name(tag, "tag")
        with self.writing() as tables:
            version = tables.find(f"{name}@{number}")
            tables.move(version.name, tag, version.number)
            return tables.find(version.reference)

    def untag(self, name: str, tag: str) -> Version:
        """Take a tag away from a name. Returns the version that it was on."""
        with self.writing() as tables:
            version = tables.find(f"{name}@{check_name(tag, 'tag')}")
            tables.move(version.name, check_name(tag, "tag"), None)
            return tables.find(version.reference)

    def tags(self, name: str) -> dict[str, int]:
        """The number that each tag of a name is on."""
        return {tag: each.number for each in self.versions(name) for tag in each.tags}

    def moves(self, name: str) -> list[Move]:
        """Who moved which tag of a name, the oldest first."""
        with self.reading() as tables:
            return tables.moves(tables.known(check_name(name)))

    def verify(self) -> list[str]:
        """Read every file again: a sentence for each version that cannot be used; [] if all can.

        Files that no version names are no fault; `unnamed` lists them.
        """
        with self.reading() as tables:
            found = [row[0] for row in tables.database.execute("PRAGMA integrity_check")]
            faults = [f"{self.directory / FILE} is damaged: {x}" for x in found if x != "ok"]
            versions = tables.versions()
        wrong = {sha256: fault(self.directory, sha256) for sha256 in {v.sha256 for v in versions}}
        return faults + [f"{v.reference}: {wrong[v.sha256]}" for v in versions if wrong[v.sha256]]

    def unnamed(self) -> list[Path]:
        """The files of prompts that no version names, as a process leaves them that was killed."""
        return unnamed_objects(self.directory, {each.sha256 for each in self.versions()})

    def diff(
        self,
        first: str,
        second: str,
        task: Task | None = None,
        base: Base | tuple[Base, Base] | None = None,
    ) -> Diff:
        """Two versions side by side.

        task: whose test split both shall answer, in front of their base, or each of its own.
        Raises MiniptError for a task without a base or with other labels than the prompts'.
        """
        versions = (self.find(first), self.find(second))
        paths = tuple(map(self.path_of, versions))
        if task is None:
            return compare(versions, paths)
        if base is None:
            raise MiniptError("to answer a task, a diff needs the base: give it with base=")
        bases = base if isinstance(base, tuple) else (base, base)
        both = zip(versions, bases, strict=True)
        prompts = tuple(self.load(version.reference, base) for version, base in both)
        return compare(versions, paths, answer_both(bases, prompts, task))

    def log(
        self,
        reference: str,
        seen: Observation,
        texts: Sequence[str] | None = None,
        times: Sequence[float] | None = None,
    ) -> list[int]:
        """Log N answers of a version. Returns their ids, which are never given again.

        texts: to be kept beside them. times: in seconds since 1970 (default: now).
        """
        times = [time.time()] * len(seen.tokens) if times is None else times
        with self.writing() as tables:
            return write_log(tables, tables.find(reference), seen, texts, times)

    def logged(self, reference: str, since: float = 0.0) -> Logged:
        """The answers of a version from a time on, in seconds since 1970."""
        with self.reading() as tables:
            return read_log(tables, tables.find(reference), since)

    def add_truth(self, truth: dict[int, str]) -> None:
        """The right labels of logged answers, by the ids of these; all of them or none."""
        with self.writing() as tables:
            write_truth(tables, truth)

    def forget(self, before: float) -> int:
        """Remove what was logged before a time, in seconds since 1970. Returns how many answers.

        SQLite writes zeros over them, so that no text is left in the file.
        """
        with self.writing() as tables:
            tables.database.execute("PRAGMA secure_delete = ON")
            return tables.database.execute("DELETE FROM log WHERE time < ?", (before,)).rowcount

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """The tables as they are now, for a `with` block."""
        with reading(self.directory) as database:
            yield Tables(self.directory, database)

    @contextmanager
    def writing(self, new: bool = False) -> Iterator[Tables]:
        """The tables in a transaction; new: of a registry that may have to be made."""
        with writing(self.directory, new) as database:
            yield Tables(self.directory, database)


def _is_text(message: str) -> bool:
    """Whether a string can be written: half a character cannot."""
    try:
        message.encode()
    except UnicodeEncodeError:
        return False
    return True
