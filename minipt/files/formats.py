"""The one reader of JSON, and the one reader of tensors.

In: a path. Out: a dict, or arrays. A byte-order mark is no part of JSON. NumPy has no bfloat16,
whose numbers become float32 exactly. Numbers of 8 bits and fewer are refused.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from minipt.errors import MiniptError
from minipt.files.diagnose import is_irregular, panics_as_errors, unreadable

Tensors = dict[str, Callable[[], np.ndarray]]  # each is read when its function is called
LARGEST_JSON = 16_000_000  # bytes
# safetensors' names for the types that NumPy has.
NUMPY = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}


def parse_json(text: str | bytes) -> object:
    """The value that a JSON text holds.

    Raises ValueError for any text that is none, that is nested too deeply, or that holds half of a
    surrogate pair, which could never be written again.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def read_json(path: Path, complaint: str, advice: str, otherwise: object = None) -> object:
    """The object in a JSON file, or a value of the kind of `otherwise`.

    complaint: such as "is not a JSON object". otherwise: the value where there is no file; None:
    FileNotFoundError is raised. Raises MiniptError for a file that is damaged or something else.
    """
    kind = dict if otherwise is None else type(otherwise)
    try:
        if is_irregular(path):
            raise ValueError("no regular file")
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON:,} bytes")
        value = parse_json(path.read_bytes())
        if not isinstance(value, kind):
            raise ValueError(f"it holds a {type(value).__name__}")
    except (FileNotFoundError, NotADirectoryError):
        if otherwise is None:
            raise FileNotFoundError(path) from None
        return otherwise
    except (ValueError, OSError) as error:
        raise unreadable(path, complaint, error, advice) from error
    return value


def open_tensors(path: Path, complaint: str, advice: str) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    A tensor has the type that it has in the file; bfloat16 becomes float32.
    Raises FileNotFoundError, and MiniptError for a file that is damaged or something else, also
    when a tensor is read later.
    """
    with _opened(path, complaint, advice) as file:
        tensors = {name: partial(_read, path, name, complaint, advice) for name in file.keys()}
        return tensors, file.metadata() or {}


def types_in(path: Path) -> set[str]:
    """The types of a file's tensors, by safetensors' names."""
    with safe_open(path, framework="numpy") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}


def as_float32(array: np.ndarray, where: str) -> np.ndarray:
    """Floating-point numbers as float32, all finite. where: the file and the tensor.

    Raises MiniptError for other types, and for NaN, infinity and numbers beyond float32.
    """
    if array.dtype.kind != "f":
        raise MiniptError(f"{where} is of type {array.dtype}, minipt reads F16, BF16, F32 and F64")
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise MiniptError(f"{where} holds NaN or infinite numbers in float32: take another file")
    return array


@contextmanager
def _opened(path: Path, complaint: str, advice: str) -> Iterator[safe_open]:
    try:
        if is_irregular(path):
            raise ValueError("no regular file")
        with panics_as_errors(), safe_open(path, framework="numpy") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(path, complaint, error, advice) from error


def _read(path: Path, name: str, complaint: str, advice: str) -> np.ndarray:
    with _opened(path, complaint, advice) as file:
        kind = file.get_slice(name).get_dtype()
        if kind in NUMPY:
            return file.get_tensor(name)
    if kind != "BF16":
        raise MiniptError(
            f"{path}: {name} is of type {kind}, minipt reads F16, BF16, F32 and F64: save it as one"
        )
    return _read_bfloat16(path, name)


def _read_bfloat16(path: Path, name: str) -> np.ndarray:
    """The bits of a bfloat16 are the upper half of a float32.

    A safetensors file begins with the length of its header, 8 bytes, and the header, in JSON.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))[name]
        begin, end = about["data_offsets"]
        file.seek(8 + length + begin)
        upper = np.frombuffer(file.read(end - begin), "<u2")
    return (upper.astype(np.uint32) << 16).view(np.float32).reshape(about["shape"])
