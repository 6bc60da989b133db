"""Adapters of Hugging Face's PEFT, read and written without PEFT.

In, to write: a prompt's arrays and its record. Out, of a directory that was read: the vectors and
what is known about them. `adapter_config.json` says of what kind an adapter is, and
`adapter_model.safetensors` holds the vectors. Of PEFT's many kinds only prompt tuning is read. Only
there the vectors are all that was learnt.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory
from minipt.prompting.prompt_file import Arrays, check_record, check_vectors, refuse_infinite
from minipt.transformer.base import Base

TENSOR = "prompt_embeddings"
FLOATS = ("F16", "F32")  # safetensors' names for what becomes float32 without loss
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
    record, for which PEFT has no place (template, labels, history). `read_adapter` reads it; PEFT
    neither reads it nor writes it again.
    """
    refuse_infinite(directory, arrays)
    if "head" in arrays:
        raise MiniptError(
            "the prompt was tuned with a head of its own, for which PEFT's adapters have no "
            f"place, so {directory} was not written: tune without the head"
        )
    vectors = np.ascontiguousarray(arrays["prompt"], np.float32)  # (P, C)
    tensors = save({TENSOR: vectors}, {"format": "pt"})
    config = ADAPTER | {"base_model_name_or_path": record["base_name"]}
    config |= record["about"].get("adapter", {})
    config |= {"num_virtual_tokens": vectors.shape[0], "token_dim": vectors.shape[1]}
    config |= {"base_model_name_or_path": base_name} if base_name else {}
    record = record | {"adapter_model_sha256": hashlib.sha256(tensors).hexdigest()}
    with complete_directory(directory) as partial:
        (partial / "adapter_model.safetensors").write_bytes(tensors)
        described = json.dumps(config, indent=2, sort_keys=True)
        (partial / "adapter_config.json").write_text(described, encoding="utf-8")
        (partial / "minipt.json").write_text(json.dumps(record), encoding="utf-8")


def read_adapter(directory: str | Path, base: Base) -> tuple[np.ndarray, dict]:
    """The vectors (P, C) of an adapter and its `about`. `from_peft` says what is refused."""
    config_path = Path(directory) / "adapter_config.json"
    tensors_path = Path(directory) / "adapter_model.safetensors"
    config = _read_config(config_path)
    vectors = _read_vectors(tensors_path)
    record = _read_record(tensors_path) or {
        "fingerprint": base.fingerprint,
        "base_name": base.name,
        "about": {"method": "peft", "adapter": config},
    }
    check_vectors(tensors_path, vectors, record, base)
    promised = config.get("num_virtual_tokens")
    if promised != len(vectors):
        raise MiniptError(
            f"{tensors_path} holds {len(vectors)} vectors where {config_path.name} says "
            f"num_virtual_tokens = {promised!r}: the two files are not of one adapter"
        )
    check_record(tensors_path.with_name("minipt.json"), record)
    return vectors, record["about"]


def _read_config(path: Path) -> dict:
    """The config of an adapter of prompt tuning for a model of one stack. Others are refused."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (FileNotFoundError, NotADirectoryError):
        raise MiniptError(
            f"{path.parent} is no PEFT adapter: there is no {path.name} in it"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise MiniptError(
            f"{path} is not what PEFT writes about an adapter ({error!r}): save the adapter again"
        ) from error
    if kind != "PROMPT_TUNING":
        raise MiniptError(
            f"{path.parent} is a PEFT adapter of the kind {kind}; minipt reads PROMPT_TUNING only, "
            "where the vectors in front of the text are all that was learnt"
        )
    if config.get("task_type") == "SEQ_2_SEQ_LM" or config.get("num_transformer_submodules") == 2:
        raise MiniptError(
            f"{path.parent} is an adapter for an encoder and a decoder (task type "
            f"{config.get('task_type')}), each with vectors of its own: minipt's models are one "
            "stack"
        )
    return config


def _read_vectors(path: Path) -> np.ndarray:
    """The one tensor, as float32. (P, C)"""
    try:
        with safe_open(path, framework="numpy") as file:
            others = sorted(set(file.keys()) - {TENSOR})
            if others:
                raise MiniptError(
                    f"{path} holds {others[0]} beside {TENSOR}: minipt would compute without it, "
                    "which is another model than the adapter's"
                )
            kind = file.get_slice(TENSOR).get_dtype()
            if kind not in FLOATS:
                raise MiniptError(
                    f"{path} holds numbers of the type {kind}, minipt reads {' and '.join(FLOATS)}"
                )
            return file.get_tensor(TENSOR).astype(np.float32)
    except FileNotFoundError:
        pickled = path.with_suffix(".bin").exists()
        advice = "save it with safe_serialization=True" if pickled else "save the adapter again"
        raise MiniptError(f"there is no {path}: {advice}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise MiniptError(
            f"{path} is truncated or holds no {TENSOR} ({error}): save the adapter again"
        ) from error


def _read_record(path: Path) -> dict:
    """The record of `write_adapter`, or {} if there is none or it belongs to other vectors.

    PEFT may have saved other vectors over ours. Then the record is that of a prompt that is gone.
    """
    try:
        record = json.loads((path.parent / "minipt.json").read_text(encoding="utf-8"))
        if record["adapter_model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest():
            fingerprint, base_name = str(record["fingerprint"]), str(record["base_name"])
            return {"fingerprint": fingerprint, "base_name": base_name, "about": record["about"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}
