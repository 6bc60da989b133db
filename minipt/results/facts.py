"""All that is to be kept of a prompt: its bytes, and the facts about it.

In: a run, a prompt, or a run's directory. Out: `Facts`. What is not known is left out.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from minipt.errors import MiniptError
from minipt.files.formats import read_json
from minipt.files.records import USUAL_NAME, read_record, read_tensors
from minipt.learning.observe import read_validation, validation_record
from minipt.learning.tune import Run
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.prompt_file import check_record
from minipt.results.report import make_record
from minipt.results.store import VALIDATION

ADVICE = "give a run's directory, its prompt.safetensors, a run or a prompt"
ALONE = "keep its prompt.safetensors alone"
# What a prompt alone says of itself, under the names that run.json has for it.
OWN = ("task", "seed", "length", "steps", "labels", "label_words", "template", "method", "versions")


@dataclass(frozen=True)
class Facts:
    """A prompt's file and the facts beside it.

    content: the file's bytes. fingerprint: the base's. record: run.json, or what the prompt alone
    knows. validation: what `observe` saw on the validation split; None: not known.
    """

    content: bytes
    fingerprint: str
    record: dict
    validation: dict | None = None


def gather(run: Run | SoftPrompt | str | Path) -> Facts:
    """The facts of a run, of a prompt, or of a run's directory or its prompt's file.

    Raises MiniptError for anything else, and for files that are missing or damaged.
    """
    if isinstance(run, Run):
        base, task = run.learner.base, run.task
        record = make_record(base, task, run, {})
        validation = validation_record(base, run.prompt, task.validation) if task.labels else None
        return Facts(_bytes_of(run.prompt), run.prompt.fingerprint, record, validation)
    if isinstance(run, SoftPrompt):
        return Facts(_bytes_of(run), run.fingerprint, _own_record(run.base_name, run.about))
    if isinstance(run, str | Path):
        return _gather_files(Path(run))
    raise MiniptError(f"a {type(run).__name__} cannot be kept: {ADVICE}")


def _gather_files(path: Path) -> Facts:
    directory = path if os.path.isdir(path) else None
    path = path / USUAL_NAME if directory else path
    _, own = read_tensors(path, "prompt", ADVICE)
    if not {"fingerprint", "base_name", "about"} <= own.keys():
        raise MiniptError(f"{path} is no prompt that minipt saved: {ADVICE}")
    check_record(path, own)
    content, fingerprint = path.read_bytes(), own["fingerprint"]
    record = directory and read_json(directory / "run.json", "is no JSON object", ALONE, {})
    if not record:
        return Facts(content, fingerprint, _own_record(own["base_name"], own["about"]))
    if record.get("fingerprint") != fingerprint:
        raise MiniptError(
            f"{directory / 'run.json'} is of another base than {path.name} beside it: {ALONE}"
        )
    validation, place = None, directory / VALIDATION
    if place.exists():
        validation = read_record(place, "remove it, and the run is kept without")
        read_validation(validation, str(place))
    return Facts(content, fingerprint, record, validation)


def _own_record(base_name: str, about: dict) -> dict:
    return {name: about[name] for name in OWN if name in about} | {"base": base_name}


def _bytes_of(prompt: SoftPrompt) -> bytes:
    with TemporaryDirectory(prefix="minipt-") as directory:
        path = Path(directory) / USUAL_NAME
        prompt.save(path)
        return path.read_bytes()
