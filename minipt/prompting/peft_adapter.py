"""Adapters of Hugging Face's PEFT, read and written without PEFT.

In, to write: a prompt's arrays and its record. Out, of a directory that was read: the vectors and
what is known about them. `adapter_config.json` says of what kind an adapter is, and
`adapter_model.safetensors` holds the vectors. Of PEFT's many kinds only prompt tuning is read. Only
there the vectors are all that was learnt.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory
from minipt.files.formats import as_float32, open_tensors, read_json
from minipt.prompting.prompt_file import Arrays, check_record, check_vectors, to_write
from minipt.transformer.base import Base

TENSOR = "prompt_embeddings"
# The vectors' name in an adapter, and their name in the state of PEFT's model while it trains.
VECTORS = re.compile(r"prompt_embeddings|(module\.)?prompt_encoder\.[^.]+\.embedding\.weight")
RECORD = "minipt.json"
PIECES = 16  # of the vectors, each with a sha256 of its own
SAVE_AGAIN = "save the adapter again"
# What PEFT 0.21 writes about a prompt. None: it has nothing to say, or takes it from the model.
ADAPTER = {
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
    "modules_to_save": None,
    "num_attention_heads": None,
    "num_layers": None,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": None,
    "peft_type": "PROMPT_TUNING",
    "peft_version": "0.21.2",
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "revision": None,
    "task_type": "CAUSAL_LM",
    "token_dim": None,
    "tokenizer_kwargs": None,
    "tokenizer_name_or_path": None,
}


def write_adapter(
    directory: str | Path, arrays: Arrays, record: dict, base_name: str | None
) -> None:
    """Write the adapter of a prompt. The arguments and errors are those of `SoftPrompt.to_peft`.

    `adapter_config.json` and `adapter_model.safetensors`, one tensor `prompt_embeddings` (P, C)
    float32, are as PEFT writes them, with one exception: the numbers of layers and heads are null,
    because a prompt does not know them. PEFT takes them from the model. `minipt.json` holds the
    record, for which PEFT has no place (template, labels, history), and says of which vectors.
    `read_adapter` reads it; PEFT neither reads it nor writes it again.
    """
    arrays = to_write(directory, arrays)
    if "head" in arrays:
        raise MiniptError(
            "the prompt was tuned with a head of its own, for which PEFT's adapters have no "
            f"place, so {directory} was not written: tune without the head"
        )
    vectors = arrays["prompt"]  # (P, C)
    tensors = save({TENSOR: vectors}, {"format": "pt"})
    config = ADAPTER | {"base_model_name_or_path": record["base_name"]}
    config |= record["about"].get("adapter", {})
    config |= {"num_virtual_tokens": vectors.shape[0], "token_dim": vectors.shape[1]}
    config |= {"base_model_name_or_path": base_name} if base_name else {}
    record = record | {"vectors_sha256": _pieces(vectors)}
    record |= {"sha256": _sha256(record)}
    with complete_directory(directory, or_empty=True) as partial:
        (partial / "adapter_model.safetensors").write_bytes(tensors)
        described = json.dumps(config, indent=2, sort_keys=True)
        (partial / "adapter_config.json").write_text(described, encoding="utf-8")
        (partial / RECORD).write_text(json.dumps(record), encoding="utf-8")


def read_adapter(directory: str | Path, base: Base) -> tuple[np.ndarray, dict]:
    """The vectors (P, C) of an adapter and its `about`. `from_peft` says what is refused."""
    config_path = Path(directory) / "adapter_config.json"
    tensors_path = Path(directory) / "adapter_model.safetensors"
    config = _read_config(config_path)
    vectors = _read_vectors(tensors_path)
    record = _read_record(tensors_path.with_name(RECORD), vectors, tensors_path)
    known = record or {
        "fingerprint": base.fingerprint,
        "base_name": base.name,
        "about": {"method": "peft", "adapter": config},
    }
    check_vectors(tensors_path, vectors, known, base)
    promised = config.get("num_virtual_tokens")
    if promised != len(vectors) or promised is True:
        raise MiniptError(
            f"{tensors_path} holds {len(vectors)} vectors where {config_path.name} says "
            f"num_virtual_tokens = {promised!r:.200}: the two files are not of one adapter"
        )
    if record is None:
        _check_model(config_path, config, base)
    check_record(tensors_path.with_name(RECORD), known)
    return vectors, known["about"]


def _read_config(path: Path) -> dict:
    """The config of an adapter of prompt tuning for a model of one stack. Others are refused."""
    complaint = "is not what PEFT writes about an adapter"
    try:
        config = read_json(path, complaint, SAVE_AGAIN)
    except FileNotFoundError:
        raise MiniptError(
            f"{path.parent} is no PEFT adapter: there is no {path.name} in it"
        ) from None
    if "peft_type" not in config:
        raise MiniptError(f"{path} {complaint} (it has no peft_type): {SAVE_AGAIN}")
    if (kind := config["peft_type"]) != "PROMPT_TUNING":
        raise MiniptError(
            f"{path.parent} is a PEFT adapter of the kind {kind!s:.200}; minipt reads "
            "PROMPT_TUNING only, where the vectors in front of the text are all that was learnt"
        )
    if config.get("task_type") == "SEQ_2_SEQ_LM" or config.get("num_transformer_submodules") == 2:
        raise MiniptError(
            f"{path.parent} is an adapter for an encoder and a decoder (task type "
            f"{config.get('task_type')!s:.200}), each with vectors of its own: minipt's "
            "models are one stack"
        )
    return config


def _check_model(path: Path, config: dict, base: Base) -> None:
    """Raise MiniptError where the config speaks of another model or use; say another name.

    A prompt for a classifier of its own is of no use without that. A model's name is no proof,
    since the same model lies under many names.
    """
    sizes = base.config
    tasks = ("CAUSAL_LM", "FEATURE_EXTRACTION") if sizes.causal else ("FEATURE_EXTRACTION",)
    name = config.get("base_model_name_or_path")
    for key, known in {
        "num_layers": (sizes.layers,),
        "num_attention_heads": tuple({sizes.heads, sizes.key_value_heads or sizes.heads}),
        "token_dim": (sizes.channels,),
        "task_type": tasks,
        "modules_to_save": ([],),
        "num_transformer_submodules": (1,),
    }.items():
        if config.get(key) is not None and config[key] not in known:
            raise MiniptError(
                f"{path} says {key} = {config[key]!r:.200}, where base {base.name!r} has "
                f"{' or '.join(map(str, known))}: the adapter was made for another use or model, "
                f"{name!r:.200}"
            )
    if isinstance(name, str) and Path(name).name != Path(base.name).name:
        made_for = f"{path.parent} was made for {name!r:.200}"
        print(f"{made_for} and is read for {base.name!r}", file=sys.stderr)


def _read_vectors(path: Path) -> np.ndarray:
    """The one tensor, as float32. (P, C)"""
    complaint = f"is truncated or holds no {TENSOR}"
    try:
        tensors, _ = open_tensors(path, complaint, SAVE_AGAIN)
    except FileNotFoundError:
        pickled = path.with_suffix(".bin").exists()
        advice = "save it with safe_serialization=True" if pickled else SAVE_AGAIN
        raise MiniptError(f"there is no {path}: {advice}") from None
    vectors = [name for name in sorted(tensors) if VECTORS.fullmatch(name)]
    if not vectors:
        raise MiniptError(f"{path} {complaint} (it holds {sorted(tensors)[:3]}): {SAVE_AGAIN}")
    if others := sorted(tensors.keys() - vectors[:1]):
        raise MiniptError(
            f"{path} holds {others[0]} beside {vectors[0]}: minipt would compute without it, "
            "which is another model than the adapter's"
        )
    return as_float32(tensors[vectors[0]](), f"{path}: {vectors[0]}")


def _read_record(path: Path, vectors: np.ndarray, tensors_path: Path) -> dict | None:
    """The record of `write_adapter`, or None if there is none or it belongs to other vectors.

    PEFT may have saved other vectors over ours. Then no piece of them is as it was, and the record
    is that of a prompt that is gone. If some pieces are as they were, the file is damaged. Raises
    MiniptError for that, and for a record that is damaged itself.
    """
    advice = f"save the prompt again, or remove {RECORD} to read the vectors without its record"
    complaint = "is no record that minipt wrote"
    try:
        record = read_json(path, complaint, advice)
    except FileNotFoundError:
        return None
    sha256 = record.pop("sha256", None)
    written = "adapter_model_sha256" if sha256 is None else "vectors_sha256"  # without: from before
    if record.keys() != {"fingerprint", "base_name", "about", written} or (
        sha256 not in (None, _sha256(record))
    ):
        raise MiniptError(f"{path} {complaint}, or is damaged: {advice}")
    if sha256 is None:
        same = [record.pop(written) == _digest(tensors_path.read_bytes())]
    else:
        same = [a == b for a, b in zip(record.pop(written), _pieces(vectors), strict=False)]
    if not any(same):
        print(f"{path} is about other vectors than {tensors_path}: unused", file=sys.stderr)
        return None
    if not all(same):
        raise MiniptError(f"{tensors_path} is not as minipt wrote it, but damaged: {SAVE_AGAIN}")
    return record | {name: str(record[name]) for name in ("fingerprint", "base_name")}


def _pieces(vectors: np.ndarray) -> list[str]:
    """The sha256 of each of the pieces of the vectors."""
    pieces = np.array_split(vectors.ravel(), min(PIECES, max(vectors.size, 1)))
    return [_digest(piece.tobytes()) for piece in pieces]


def _sha256(record: dict) -> str:
    return _digest(json.dumps(record).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
