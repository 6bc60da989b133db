"""From a model directory in Hugging Face's format to a `Base`, and back.

In: `config.json`, `model.safetensors`, `tokenizer.json`. Out: a `Base` whose parameters bear this
project's names and are checked: every tensor present, of the right shape, finite. A model that is
not computed exactly as `model.py` does is refused by the name of what differs. The story continues
in `tune.py`.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tokenizers import Tokenizer

from minipt.base import Base, Config, parameter_shapes
from minipt.errors import MiniptError
from minipt.files import complete_directory, shipped

NAMES = ("tiny",)

# What `model.py` computes, where a GPT-2's config may ask for something else.
SUPPORTED = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
DEFAULTS = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
}
# safetensors' names for the types that become float32 without loss.
FLOATS = ("F16", "F32")


def load_base(name: str | Path) -> Base:
    """The base that ships under a name, or the one in a directory, its parameters float32.

    Raises MiniptError, naming the thing and what to do, for an unknown name, a directory without a
    config, a model that is not supported, and for weights or a tokenizer that are truncated, not
    finite or do not fit the config.
    """
    directory = shipped(str(name)) if name in NAMES else Path(name)
    if not directory.is_dir():
        raise MiniptError(
            f"there is no base {str(name)!r}: give one of {', '.join(NAMES)}, or a directory with "
            "config.json, model.safetensors and tokenizer.json"
        )
    config = _read_config(directory / "config.json")
    params = _read_params(directory / "model.safetensors", config)
    tokenizer = _read_tokenizer(directory / "tokenizer.json", config)
    return Base(name if name in NAMES else directory.resolve().name, config, params, tokenizer)


def save_base(base: Base, directory: str | Path) -> None:
    """Write a directory that `load_base`, and Hugging Face's GPT2LMHeadModel, read.

    Raises MiniptError when the directory exists or cannot be written.
    """
    config = base.config
    with complete_directory(directory) as partial:
        (partial / "model.safetensors").write_bytes(save(_to_hub_names(base), {"format": "pt"}))
        if base.tokenizer is not None:
            base.tokenizer.save(str(partial / "tokenizer.json"))
        described = DEFAULTS | {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": config.layers,
            "n_embd": config.channels,
            "n_head": config.heads,
            "n_inner": config.hidden,
            "n_positions": config.context,
            "vocab_size": config.vocabulary,
            "layer_norm_epsilon": config.epsilon,
        }
        (partial / "config.json").write_text(json.dumps(described, indent=2) + "\n")


def _read_config(path: Path) -> Config:
    try:
        found = DEFAULTS | json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MiniptError(
            f"{path.parent} has no config.json, so it is not a model's directory"
        ) from None
    except (ValueError, TypeError) as error:
        raise MiniptError(
            f"{path} is not a JSON object ({error}): fetch the model again"
        ) from error
    for key, supported in SUPPORTED.items():
        if found.get(key) not in supported:
            raise MiniptError(
                f"{path} says {key} = {found.get(key)!r}, which minipt does not compute; it knows "
                f"{' and '.join(map(repr, supported))}"
            )
    try:
        C = int(found["n_embd"])
        config = Config(
            layers=int(found["n_layer"]),
            channels=C,
            heads=int(found["n_head"]),
            hidden=int(found["n_inner"] or 4 * C),
            vocabulary=int(found["vocab_size"]),
            context=int(found["n_positions"]),
            epsilon=float(found["layer_norm_epsilon"]),
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise MiniptError(f"{path} lacks a size or has one that is no number ({error})") from error
    sizes = (config.layers, C, config.heads, config.hidden, config.vocabulary, config.context)
    if min(sizes) < 1 or C % config.heads:
        raise MiniptError(
            f"{path}: every size is at least 1 and {C} channels divide into {config.heads} heads"
        )
    if not 0.0 <= config.epsilon < 1.0:
        raise MiniptError(f"{path}: layer_norm_epsilon is {config.epsilon}, not a small number")
    return config


def _read_params(path: Path, config: Config) -> dict[str, np.ndarray]:
    """Every parameter under this project's name, as float32."""
    found = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                kind = file.get_slice(name).get_dtype()
                if kind not in FLOATS and not _is_buffer(name):
                    raise MiniptError(f"{path}: {name} is of type {kind}, minipt reads {FLOATS}")
                found[name.removeprefix("transformer.")] = file.get_tensor(name)
    except FileNotFoundError:
        raise MiniptError(f"{path.parent} has no {path.name}: fetch the model again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise MiniptError(
            f"{path} is truncated or no safetensors file ({error}): fetch the model again"
        ) from error
    params = _from_hub_names(found, config, path)
    for name, shape in parameter_shapes(config).items():
        if params[name].shape != shape:
            raise MiniptError(
                f"{path}: {name} has shape {params[name].shape}, the config asks for {shape}"
            )
        params[name] = np.ascontiguousarray(params[name], np.float32)
        if not np.isfinite(params[name]).all():
            raise MiniptError(
                f"{path}: {name} holds NaN or infinite numbers: fetch the model again"
            )
    return params


def _hub_names(config: Config) -> dict[str, str]:
    """This project's name for each parameter that stands alone in a GPT-2's file."""
    names = {"token.table": "wte.weight", "position.table": "wpe.weight"}
    names |= {"final.gain": "ln_f.weight", "final.bias": "ln_f.bias"}
    for i in range(config.layers):
        for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
            names[f"h{i}.{ours}.gain"] = f"h.{i}.{theirs}.weight"
            names[f"h{i}.{ours}.bias"] = f"h.{i}.{theirs}.bias"
        for ours, theirs in (
            ("attn.out", "attn.c_proj"),
            ("mlp.up", "mlp.c_fc"),
            ("mlp.down", "mlp.c_proj"),
        ):
            for kind in ("weight", "bias"):
                names[f"h{i}.{ours}.{kind}"] = f"h.{i}.{theirs}.{kind}"
    return names


def _from_hub_names(
    found: dict[str, np.ndarray], config: Config, path: Path
) -> dict[str, np.ndarray]:
    """GPT-2 keeps query, key and value side by side in `c_attn`; here they are three parameters."""
    found = {name: array for name, array in found.items() if not _is_buffer(name)}
    output = found.pop("lm_head.weight", None)
    params = {}
    try:
        for ours, theirs in _hub_names(config).items():
            params[ours] = found.pop(theirs)
        for i in range(config.layers):
            for kind in ("weight", "bias"):
                joined = found.pop(f"h.{i}.attn.c_attn.{kind}")
                if not joined.ndim or joined.shape[-1] % 3:
                    raise MiniptError(f"{path}: h.{i}.attn.c_attn.{kind} has shape {joined.shape}")
                for part, array in zip(
                    ("query", "key", "value"), np.split(joined, 3, -1), strict=True
                ):
                    params[f"h{i}.attn.{part}.{kind}"] = array
    except KeyError as error:
        raise MiniptError(f"{path} lacks the tensor {error}: fetch the model again") from None
    if output is not None and not np.array_equal(output, params["token.table"]):
        raise MiniptError(f"{path}: lm_head.weight differs from wte.weight; minipt ties the two")
    if found:
        raise MiniptError(
            f"{path} holds tensors that a GPT-2 of this config has not: {sorted(found)[:3]}"
        )
    return params


def _to_hub_names(base: Base) -> dict[str, np.ndarray]:
    tensors = {
        f"transformer.{theirs}": base.params[ours]
        for ours, theirs in _hub_names(base.config).items()
    }
    for i in range(base.config.layers):
        for kind in ("weight", "bias"):
            parts = [base.params[f"h{i}.attn.{part}.{kind}"] for part in ("query", "key", "value")]
            tensors[f"transformer.h.{i}.attn.c_attn.{kind}"] = np.concatenate(parts, -1)
    return tensors


def _is_buffer(name: str) -> bool:
    """Old GPT-2 files hold the causal mask as if it were a parameter."""
    return name.endswith((".attn.bias", ".attn.masked_bias"))


def _read_tokenizer(path: Path, config: Config) -> Tokenizer | None:
    """None where there is none: such a base computes with ids and refuses text."""
    if not path.exists():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise MiniptError(f"{path} is not a tokenizer ({error}): fetch the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config.vocabulary:
        raise MiniptError(
            f"{path} has token ids up to {largest}, the model {config.vocabulary} embeddings: the "
            "tokenizer belongs to another model"
        )
    return tokenizer
