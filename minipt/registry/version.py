"""A version: a prompt that is kept under a name and a number, and what is known about it.

In: a run, a prompt or a run's directory. Out: the bytes to keep and the facts beside them. What is
not known is None.
"""

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from minipt.errors import MiniptError
from minipt.files.formats import parse_json, read_json
from minipt.files.records import USUAL_NAME, is_number, read_record, read_tensors
from minipt.learning.observe import read_validation, validation_record
from minipt.learning.tune import Run
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.prompt_file import check_record
from minipt.results.report import make_record
from minipt.results.store import VALIDATION

PROMPT = "give a run's directory, its prompt.safetensors, a run or a prompt"
# What a prompt alone says of itself, under the names that run.json has for it.
OWN_FACTS = ("task", "seed", "length", "steps", "labels", "label_words", "template", "method")
NO_RUN = "keep its prompt.safetensors alone"


@dataclass(frozen=True)
class Version:
    """One version. Neither its number nor anything else of it ever changes.

    sha256: of the prompt's file. created: in UTC. parent: the version that it was tuned on from,
    such as "spam@1". fingerprint: the base's. record: run.json, or what the prompt alone knows.
    tags: those that were on it when it was read.
    """

    name: str
    number: int
    sha256: str
    created: str
    message: str
    parent: str | None
    fingerprint: str
    record: dict = field(repr=False)
    tags: tuple[str, ...] = ()
    row: int = field(default=0, repr=False)  # its id in the tables

    @property
    def reference(self) -> str:
        """Such as spam@2."""
        return f"{self.name}@{self.number}"

    @property
    def base_place(self) -> str | None:
        """The directory or hub id of the base, where it is not one with a name."""
        return self._text("base_path")

    @property
    def base(self) -> str | None:
        """The base's name."""
        return self._text("base")

    @property
    def task(self) -> str | None:
        """The task's name."""
        return self._text("task")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the prompt chooses from; none for one that writes."""
        return tuple(self.record.get("labels") or ())

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the test split."""
        accuracy = self.record.get("test_accuracy")
        return accuracy if is_number(accuracy) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The accuracy's 95 % interval."""
        interval = self.record.get("interval")
        sound = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
        return tuple(interval) if sound else None

    def describe(self) -> dict:
        """All of it, for JSON."""
        names = ("name", "number", "sha256", "created", "message", "parent", "fingerprint")
        about = {name: getattr(self, name) for name in names}
        return about | {"tags": list(self.tags), "record": self.record}

    def _text(self, key: str) -> str | None:
        value = self.record.get(key)
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Kept:
    """What becomes a version: the bytes of the prompt's file, and the facts."""

    content: bytes
    fingerprint: str
    record: dict
    validation: dict | None = None

    def as_row(self) -> dict[str, str | None]:
        """The facts as the tables have them."""
        validation = None if self.validation is None else json.dumps(self.validation)
        record = json.dumps(self.record)
        return {"fingerprint": self.fingerprint, "record": record, "validation": validation}


def gather(run: Run | SoftPrompt | str | Path) -> Kept:
    """What is to be kept of a run, of a prompt, or of a run's directory or its prompt's file.

    Raises MiniptError for anything else, and for files that are missing or damaged.
    """
    if isinstance(run, Run):
        base, task = run.learner.base, run.task
        record = make_record(base, task, run, {})
        validation = validation_record(base, run.prompt, task.validation) if task.labels else None
        return Kept(_bytes_of(run.prompt), run.prompt.fingerprint, record, validation)
    if isinstance(run, SoftPrompt):
        return Kept(_bytes_of(run), run.fingerprint, _own_facts(run.base_name, run.about))
    if isinstance(run, str | Path):
        return _gather_files(Path(run))
    raise MiniptError(f"a {type(run).__name__} cannot be kept: {PROMPT}")


def now() -> str:
    """The time in UTC, such as 2026-11-28T12:20:18.123Z."""
    return in_words(datetime.now(UTC))


def in_words(time: datetime) -> str:
    """A time of UTC as the tables have it; their order is that of the times."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(date: str) -> float:
    """A date or time in ISO's form, of UTC where it names no other zone, in seconds since 1970.

    Raises MiniptError for text that is none.
    """
    try:
        time = datetime.fromisoformat(date)
    except ValueError:
        raise MiniptError(
            f"{date!r:.60} is no date: write it such as 2026-11-28 or 2026-11-28T12:00:00Z"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _gather_files(path: Path) -> Kept:
    directory = path if os.path.isdir(path) else None
    path = path / USUAL_NAME if directory else path
    _, own = read_tensors(path, "prompt", PROMPT)
    if not {"fingerprint", "base_name", "about"} <= own.keys():
        raise MiniptError(f"{path} is no prompt that minipt saved: {PROMPT}")
    check_record(path, own)
    content, fingerprint = path.read_bytes(), own["fingerprint"]
    record = directory and read_json(directory / "run.json", "is no JSON object", NO_RUN, {})
    if not record:
        return Kept(content, fingerprint, _own_facts(own["base_name"], own["about"]))
    if record.get("fingerprint") != fingerprint:
        raise MiniptError(
            f"{directory / 'run.json'} is of another base than {path.name} beside it: {NO_RUN}"
        )
    validation = None
    if (directory / VALIDATION).exists():
        validation = read_record(directory / VALIDATION, "remove it, and the run is kept without")
        read_validation(validation, str(directory / VALIDATION))
    return Kept(content, fingerprint, record, validation)


def _own_facts(base_name: str, about: dict) -> dict:
    facts = {name: about[name] for name in OWN_FACTS if name in about}
    return facts | {"base": base_name, "versions": about.get("versions")}


def _bytes_of(prompt: SoftPrompt) -> bytes:
    with TemporaryDirectory(prefix="minipt-") as directory:
        path = Path(directory) / USUAL_NAME
        prompt.save(path)
        return path.read_bytes()


def parse_record(text: str) -> dict:
    """The JSON of a table's cell."""
    return dict(parse_json(text))
