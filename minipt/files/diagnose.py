"""What lies at a path that could not be read, and what to do about it.

In: a path. Out: the end of a sentence. Only names and first bytes are looked at. "Fetch it again"
is the advice for a file that is truncated, and for no other.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minipt.errors import MiniptError

TORCH = "convert it with transformers, AutoModelForCausalLM.from_pretrained(DIRECTORY)"
TORCH += ".save_pretrained(NEW), or AutoModelForMaskedLM for a BERT"
# The first bytes of files that are found under another file's name.
BEGINNINGS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: run `git lfs pull` "
    "in the directory that was cloned",
    b"GGUF": "is a GGUF file: give its own path as the base",
    b"PK\x03\x04": f"is a zip archive, such as torch.save writes: {TORCH}",
    b"\x80\x02": f"is a pickle of Python, such as torch.save writes: {TORCH}",
    b"\x89HDF": "is an HDF5 file of Keras: load it with transformers 4 (from_tf=True) and save it",
    b"<": "is a web page or XML: download the file itself, not the page that shows it",
}
# What a directory may hold in the place of a prompt, and of a model, the most telling first.
PROMPTS = {
    "adapter_config.json": "is an adapter of PEFT: load the base that it was made for, and the "
    "adapter with minipt.from_peft(DIRECTORY, base), whose .save(FILE) makes a prompt's file",
    "checkpoint.safetensors": "is an interrupted run: go on with it by `minipt tune` and --resume",
}
MODELS = PROMPTS | {
    "prompt.safetensors": "is a run of minipt: give it to `minipt predict`, and its base to --base",
    "model-*-of-*.safetensors": "holds {} without model.safetensors.index.json: fetch that too",
    "*.gguf": "holds {}: give the path of that file",
    "*.safetensors": "holds {}: name it model.safetensors if it is the whole model",
    "*.bin": f"holds {{}}, a pickle, which minipt does not open: {TORCH}",
    "*.pt": f"holds {{}}, a pickle, which minipt does not open: {TORCH}",
    "*.pth": f"holds {{}}, a pickle, which minipt does not open: {TORCH}",
    "*.h5": "holds {}, weights of Keras: load it with transformers 4 (from_tf=True) and save it",
    "*.msgpack": "holds {}, weights of Flax: load it with transformers 4 (from_flax=True) and save "
    "it",
    "*.ckpt*": "holds {}, a checkpoint of TensorFlow or Lightning: load it with the program that "
    "wrote it, and save it from transformers with save_pretrained",
    "*.onnx": "holds {}, a program for ONNX Runtime: fetch the model.safetensors of the same model",
    "*/config.json": "holds the model in {}: give that directory",
    "snapshots/*/config.json": "holds the model in {}: give that directory",
}


def is_irregular(path: Path) -> bool:
    """Whether a path is a directory, a device or a FIFO; False too where it cannot be looked at."""
    return os.path.exists(path) and not os.path.isfile(path)


def starts_with(path: Path, beginning: bytes) -> bool:
    """Whether a regular file begins with these bytes. A device or a FIFO is not opened."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(beginning)).lstrip() == beginning
    except OSError:
        return False


def unreadable(path: Path, complaint: str, reason: object, advice: str) -> MiniptError:
    """The error for a file of the wrong kind, or for one that is damaged.

    complaint: such as "is not a JSON object"; reason: what the reader of the format said.
    """
    if is_irregular(path):
        return MiniptError(f"{path} {complaint}: it is a directory or a device, not a regular file")
    for beginning, kind in BEGINNINGS.items():
        if starts_with(path, beginning) and beginning.decode("latin-1") not in complaint:
            return MiniptError(f"{path} {kind}")
    return MiniptError(f"{path} {complaint} ({reason}): {advice}")


def instead(directory: Path, otherwise: str, kinds: dict[str, str] = MODELS) -> str:
    """What a directory holds in the place of what was looked for, or `otherwise`.

    kinds: what is told apart, `MODELS` or `PROMPTS`.
    """
    for pattern, kind in kinds.items():
        try:
            found = sorted(directory.glob(pattern))
        except OSError:
            found = []
        if found:
            inside = found[0].parent if pattern.endswith("/config.json") else found[0].name
            return f"it {kind.format(inside)}"
    return otherwise


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Make a panic of a library in Rust, which is no `Exception`, a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error
