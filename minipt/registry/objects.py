"""Prompts by their content: `objects/<sha256>.safetensors`, each file named by its own sha256.

In: the bytes of a prompt's file. Out: a path whose file has been read and found as it was written.
A file is complete before a version names it. A process that is killed between the two leaves a file
that no version names, which is no fault.
"""

import hashlib
import os
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.complete import complete_file

OBJECTS = "objects"


def sha256_of(content: bytes) -> str:
    """The name of a content, in hex."""
    return hashlib.sha256(content).hexdigest()


def object_path(directory: Path, sha256: str) -> Path:
    """The file of a content in a registry's directory."""
    return directory / OBJECTS / f"{sha256}.safetensors"


def put_object(directory: Path, content: bytes) -> str:
    """Write a content, unless it is there and sound, as far as the disk. Returns its sha256.

    Raises MiniptError when it cannot be written.
    """
    sha256 = sha256_of(content)
    if fault(directory, sha256):
        with complete_file(object_path(directory, sha256)) as partial, open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return sha256


def fault(directory: Path, sha256: str) -> str:
    """What is wrong with the file of a content, in words; "": nothing."""
    path = object_path(directory, sha256)
    try:
        found = sha256_of(path.read_bytes())
    except FileNotFoundError:
        return f"its file {path} is missing"
    except OSError as error:
        return f"its file {path} cannot be read ({error.strerror})"
    return "" if found == sha256 else f"its file {path} is damaged, since its sha256 differs"


def sound_object(directory: Path, sha256: str, whose: str) -> Path:
    """The path of a content that is there and sound. whose: the version, for the sentence.

    Raises MiniptError where it is missing or damaged.
    """
    if wrong := fault(directory, sha256):
        raise MiniptError(f"{whose} cannot be used, since {wrong}: restore the file from a copy")
    return object_path(directory, sha256)


def unnamed_objects(directory: Path, named: set[str]) -> list[Path]:
    """The files in `objects` that no version names, half-written ones too."""
    paths = (directory / OBJECTS).glob("*")
    return sorted(path for path in paths if path not in {object_path(directory, s) for s in named})
