"""A prompt's file: its arrays and a record, complete or absent, and for its own base only.

In, to write: arrays and a record. Out, of a file that was read: the same, checked. A record is a
dict for JSON: `fingerprint` and `base_name` of the base, and `about`, which `SoftPrompt` explains.
"""

import os
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.formats import as_float32
from minipt.files.records import read_tensors, write_tensors
from minipt.transformer.base import Base

Arrays = dict[str, np.ndarray]


def write_prompt(path: str | Path, arrays: Arrays, record: dict) -> None:
    """Write one safetensors file: the tensors `prompt` (P, C) and `head` (K, C), if there is one.

    The numbers are written as float32. Raises MiniptError when a number is not finite in float32 or
    the file cannot be written.
    """
    write_tensors(path, to_write(path, arrays), record)


def read_prompt(path: str | Path, base: Base) -> tuple[Arrays, dict]:
    """Read the arrays and the record that `write_prompt` wrote. Raises as `load_prompt` does."""
    path = Path(path)
    path = path / "prompt.safetensors" if os.path.isdir(path) else path
    arrays, record = read_tensors(path, "prompt", "give a run's directory or its file")
    try:
        vectors = arrays["prompt"]
        record = {name: record[name] for name in ("about", "fingerprint", "base_name")}
    except KeyError as error:
        raise MiniptError(f"{path} is no prompt that minipt saved: it lacks {error}") from None
    check_record(path, record)
    check_vectors(path, vectors, record, base)
    if "head" in arrays:
        head, labels, C = arrays["head"], record["about"].get("labels"), base.config.channels
        K = head.size // C if labels is None else len(labels)
        if head.shape != (K, C):
            raise MiniptError(f"{path} holds a head of shape {head.shape}: make the prompt again")
        _check_numbers(path, head)
    return arrays, record


def to_write(path: str | Path, arrays: Arrays) -> Arrays:
    """The arrays as a file holds them: float32 in the machine's byte order, and contiguous.

    Raises MiniptError for NaN, infinity and numbers beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = {name: np.ascontiguousarray(x, np.float32) for name, x in arrays.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise MiniptError(
            f"the prompt holds NaN or infinite numbers in float32, so {path} was not written"
        )
    return arrays


def check_record(path: Path, record: dict) -> None:
    """Raise MiniptError if a record is not as its readers expect it.

    A prompt that was tuned for labels knows a word for each of them and a template.
    """
    about, kinds = record["about"], {"task": str, "template": str, "labels": list, "adapter": dict}
    sound = all(isinstance(record[name], str) for name in ("fingerprint", "base_name"))
    sound = sound and isinstance(about, dict)
    sound = sound and all(isinstance(about.get(key, kind()), kind) for key, kind in kinds.items())
    if sound and "labels" in about:
        labels, words = about["labels"], about.get("label_words")
        sound = "template" in about and isinstance(words, list) and len(words) == len(labels)
        sound = sound and all(isinstance(word, str) for word in labels + words)
    if not sound:
        raise MiniptError(f"{path} is no prompt that minipt saved: make the prompt again")


def check_vectors(path: str | Path, vectors: np.ndarray, record: dict, base: Base) -> None:
    """Raise MiniptError if the vectors of a file are no prompt (P, C) for this base."""
    fingerprint, base_name, C = record["fingerprint"], record["base_name"], base.config.channels
    if fingerprint != base.fingerprint:
        raise MiniptError(
            f"{path} was made for base {base_name!r} ({fingerprint[:12]}), not for base "
            f"{base.name!r} ({base.fingerprint[:12]}): a prompt works only on its own base"
        )
    if vectors.ndim != 2 or vectors.shape[1] != C or not len(vectors):
        shapes = f"shape {vectors.shape}, not (P, {C})"
        raise MiniptError(f"{path} holds an array of {shapes} as base {base.name!r} needs")
    if len(vectors) >= base.config.context:
        raise MiniptError(f"{path} holds {len(vectors)} vectors and leaves no room for a text")
    _check_numbers(path, vectors)


def _check_numbers(path: Path, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise MiniptError(f"{path} holds numbers of the type {array.dtype}: make the prompt again")
    as_float32(array, str(path))
