"""Adapters of Hugging Face's PEFT, read without PEFT.

In: a directory that PEFT's prompt tuning saved, or `SoftPrompt.to_peft`: `adapter_config.json` says
what kind of adapter it is, `adapter_model.safetensors` holds the vectors. Out: a `SoftPrompt`. Of
PEFT's many kinds only prompt tuning is read, because only there the vectors are all that was
learnt. The story continues in `wiring.py`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from minipt.errors import MiniptError
from minipt.prompting.prompt import SoftPrompt, check_about, check_fits
from minipt.transformer.base import Base

TENSOR = "prompt_embeddings"
FLOATS = ("F16", "F32")  # safetensors' names for what becomes float32 without loss


def from_peft(directory: str | Path, base: Base) -> SoftPrompt:
    """Read a prompt-tuning adapter of PEFT (Lester et al. 2021) as a prompt for `base`.

    PEFT keeps no fingerprint of the model, so the width and the length of its adapters are all that
    can be checked; what `SoftPrompt.to_peft` wrote carries the base's fingerprint and is refused
    for another. `about` is what that prompt knew (template, labels, history), and for PEFT's own
    adapters {"method": "peft", "adapter": what its config says}, which `to_peft` writes again.

    Raises MiniptError for a directory that is no adapter, for adapters of other kinds and those of
    encoder-decoder models, for tensors beside the vectors, another width than the base's, a length
    that the config does not name or that leaves no room for text, numbers that are not finite, and
    files that are missing or truncated.
    """
    config_path = Path(directory) / "adapter_config.json"
    tensors_path = Path(directory) / "adapter_model.safetensors"
    config = _read_config(config_path)
    vectors = _read_vectors(tensors_path)
    record = _read_record(tensors_path)
    check_fits(
        tensors_path,
        vectors,
        record.get("fingerprint", base.fingerprint),
        record.get("base_name", base.name),
        base,
    )
    promised = config.get("num_virtual_tokens")
    if promised != len(vectors):
        raise MiniptError(
            f"{tensors_path} holds {len(vectors)} vectors where {config_path.name} says "
            f"num_virtual_tokens = {promised!r}: the two files are not of one adapter"
        )
    about = record.get("about", {"method": "peft", "adapter": config})
    check_about(tensors_path.with_name("minipt.json"), about)
    return SoftPrompt(vectors, base.fingerprint, base.name, about)


def _read_config(path: Path) -> dict:
    """What an adapter says of itself, if it is one of prompt tuning for a model of one stack."""
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
    """What `SoftPrompt.to_peft` wrote beside the tensors; {} if it is not there or not of them.

    PEFT may have saved other vectors over ours: then the record speaks of a prompt that is gone.
    """
    try:
        record = json.loads((path.parent / "minipt.json").read_text(encoding="utf-8"))
        if record["adapter_model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest():
            fingerprint, base_name = str(record["fingerprint"]), str(record["base_name"])
            return {"fingerprint": fingerprint, "base_name": base_name, "about": record["about"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}
