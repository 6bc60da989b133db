"""What minipt writes for itself: arrays and facts with a sha256, believed whole or refused.

In: arrays, and a record of types that JSON knows. Out: a file. When it is read, its content must
have the sha256 that was written with it. A file from before has none and is read without the check.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from minipt.errors import MiniptError
from minipt.files.complete import complete_file, refuse_special
from minipt.files.diagnose import PROMPTS, instead, unreadable
from minipt.files.formats import open_tensors, parse_json, types_in

Arrays = dict[str, np.ndarray]
USUAL_NAME = "prompt.safetensors"  # of a prompt in a directory
LARGEST = sys.float_info.max
TYPES = {"F32", "I64"}  # safetensors' names for those that minipt writes
CHANGED = "has changed since minipt wrote it"


def write_tensors(path: str | os.PathLike, tensors: Arrays, record: dict) -> None:
    """Write a safetensors file of arrays and a record that JSON knows, complete or not at all.

    The same arrays and the same record give the same bytes.
    """
    # safetensors writes memory as it lies, and would read a transposed array as another.
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    record = record | {"sha256": _sha256(record, tensors)}
    with complete_file(path) as partial:
        # One entry, since safetensors writes several in any order.
        partial.write_bytes(save(tensors, {"minipt": json.dumps(record)}))


def read_tensors(path: str | os.PathLike, what: str, advice: str) -> tuple[Arrays, dict]:
    """The arrays and the record that `write_tensors` wrote as `what`, such as "prompt".

    Raises MiniptError, with the advice, if the file is missing, truncated, of another kind or not
    as it was written.
    """
    path = Path(path)
    try:
        tensors, metadata = open_tensors(path, f"is no {what}, or is truncated", advice)
    except FileNotFoundError:
        found = instead(path.parent, advice, PROMPTS) if path.name == USUAL_NAME else advice
        raise MiniptError(f"there is no {what} at {path}: {found}") from None
    try:
        record = dict(parse_json(metadata["minipt"]))
    except (KeyError, ValueError, TypeError):
        raise MiniptError(f"{path} is no {what} that minipt saved: {advice}") from None
    arrays = {name: read() for name, read in tensors.items()}
    written = record.pop("sha256", None)
    # Numbers of other types were converted by somebody else, and are others.
    if types_in(path) <= TYPES and written not in (None, _sha256(record, arrays)):
        raise unreadable(path, CHANGED, "its sha256 differs", advice)
    return arrays, record


def write_record(path: str | os.PathLike, record: dict) -> None:
    """Write a record that JSON knows, complete or not at all."""
    record = record | {"sha256": _sha256(record)}
    with complete_file(path) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_record(path: str | os.PathLike, advice: str) -> object:
    """Read what `write_record` wrote. A file from before may hold something other than a dict.

    Raises MiniptError, with the advice, if the file is missing, no JSON or not as it was written.
    """
    path = Path(path)
    refuse_special(path)
    try:
        record = parse_json(path.read_bytes())
        _refuse_nan(record)
    except (OSError, ValueError) as error:
        raise unreadable(path, "cannot be read", error, advice) from error
    if isinstance(record, dict) and record.pop("sha256", None) not in (None, _sha256(record)):
        raise unreadable(path, CHANGED, "its sha256 differs", advice)
    return record


def is_number(value: object) -> bool:
    """Whether a value that was read is a finite number. JSON in Python also knows NaN."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _refuse_nan(record: object) -> None:
    """Python's JSON knows NaN and infinity, and a record of minipt's never has them."""
    try:
        json.dumps(record, allow_nan=False)
    except ValueError:
        raise ValueError("it holds NaN or an infinite number") from None


def _sha256(record: dict, arrays: Arrays | None = None) -> str:
    """The sha256 of a record in JSON and of the names, types, shapes and numbers of arrays."""
    digest = hashlib.sha256(json.dumps(record).encode())
    for name, array in sorted((arrays or {}).items()):
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array)
    return digest.hexdigest()
