"""A GGUF file, llama.cpp's format for models, in the words of Hugging Face's files.

In: a path. Out: a config as in `config.json`, the tensors by Hugging Face's names, and the
tokenizer. The tensors are read one at a time, as float32. The package `gguf` knows the format and
undoes the quantization.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from minipt.errors import MiniptError
from minipt.files.diagnose import is_irregular, panics_as_errors, unreadable
from minipt.files.formats import as_float32
from minipt.loading.families import not_computed
from minipt.loading.tokenizer_file import begin_with

SIZES = {
    "num_hidden_layers": "llama.block_count",
    "hidden_size": "llama.embedding_length",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "intermediate_size": "llama.feed_forward_length",
    "max_position_embeddings": "llama.context_length",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
}
# The channels of a head, and how many of them are rotated: the file may name them.
WIDTHS = (
    "llama.rope.dimension_count",
    "llama.attention.key_length",
    "llama.attention.value_length",
)
BASE = "llama.rope.freq_base"
UNDERSTOOD = {*SIZES.values(), *WIDTHS, BASE, "llama.vocab_size"}
# Settings that say nothing where they have this value.
NEUTRAL = {
    "llama.rope.scaling.type": "none",
    "llama.rope.scale_linear": 1.0,
    "llama.attention.causal": True,
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
}
TOKENIZER = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
# The kind of each value that is read. A list holds values of one kind.
KINDS: dict[str, object] = {
    **dict.fromkeys((*SIZES.values(), *WIDTHS), int),
    **dict.fromkeys((SIZES["rms_norm_eps"], BASE), float),
    **dict.fromkeys(("split.count", "split.no", "tokenizer.ggml.bos_token_id"), int),
    **dict.fromkeys(("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"), bool),
    **dict.fromkeys(("tokenizer.ggml.model", "tokenizer.ggml.pre"), str),
    **dict(zip(TOKENIZER, ([str], [int], [str]), strict=True)),
}
TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# How a text is cut into words before the merges, by llama.cpp's name for it. SmolLM's way first
# makes each digit a word of its own.
WORDS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}
CONTROL, USER_DEFINED = 3, 4  # llama.cpp's kinds of token that stand for themselves


@dataclass(frozen=True)
class GGUF:
    """A file's config, its tensors and its tokenizer. A tensor is read when it is called."""

    config: dict
    tensors: dict[str, Callable[[], np.ndarray]]
    tokenizer: Tokenizer


def read_gguf(path: Path) -> GGUF:
    """Open a GGUF file of the Llama architecture.

    Raises MiniptError for a file that is missing, truncated or no GGUF, and by its name for an
    architecture, a kind of rotary positions, a quantization or a tokenizer that is not covered.
    """
    import gguf

    try:
        if is_irregular(path):
            raise ValueError("no regular file")
        reader = gguf.GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
        config = _config(path, values)
        heads = (config["num_attention_heads"], config["num_key_value_heads"])
        tensors = {
            _hub_name(path, tensor.name): partial(_dequantize, path, tensor, *heads)
            for tensor in reader.tensors
        }
    except FileNotFoundError:
        raise MiniptError(f"there is no file {path}: give the path of a GGUF file") from None
    except MiniptError:
        raise
    except Exception as error:  # the package gguf checks nothing before it reads
        raise unreadable(path, "is truncated or no GGUF file", error, "fetch it again") from error
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return GGUF(config, tensors, _tokenizer(path, values))


def _config(path: Path, values: dict) -> dict:
    _check_kinds(path, values)
    if values.get("split.count", 1) > 1:
        raise MiniptError(
            f"{path} is part {values.get('split.no', 0) + 1} of {values['split.count']} of a "
            "model: join them with llama.cpp's `llama-gguf-split --merge`, and give the whole"
        )
    architecture = values.get("general.architecture")
    if architecture != "llama":
        raise MiniptError(f"{path} holds a model of the architecture {architecture!r}, not 'llama'")
    if missing := [key for key in (*SIZES.values(), *TOKENIZER) if key not in values]:
        raise MiniptError(f"{path} lacks {missing[0]}: fetch it again")
    for key, value in values.items():
        if key.startswith("llama.") and key not in UNDERSTOOD and NEUTRAL.get(key) != value:
            raise MiniptError(f"{path} says {key} = {value!r:.200}, which minipt does not compute")
    config = {key: values[name] for key, name in SIZES.items()}
    known = "llama.embedding_length / llama.attention.head_count"
    for key in WIDTHS:
        if key in values and values[key] * config["num_attention_heads"] != config["hidden_size"]:
            raise not_computed(path, key, values[key], known)
    return config | {
        "model_type": "llama",
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "rope_theta": values.get(BASE, 10000.0),
    }


def _check_kinds(path: Path, values: dict) -> None:
    """Raise MiniptError for a value that is read and is of another kind than llama.cpp writes."""
    for key in KINDS.keys() & values.keys():
        kind, value = KINDS[key], values[key]
        sound, what = type(value) is kind, "of the type"
        if isinstance(kind, list):
            (kind,), what = kind, "a list of the type"
            sound = isinstance(value, list) and {type(each) for each in value} <= {kind}
        if not sound:
            raise MiniptError(f"{path} says {key} = {value!r:.200}, not {what} {kind.__name__}")


def _hub_name(path: Path, name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    stem, _, kind = name.rpartition(".")
    layer = ""
    if stem.startswith("blk.") and stem.count(".") > 1:
        _, number, stem = stem.split(".", 2)
        layer = f"model.layers.{number}."
    if stem not in TENSORS:
        raise MiniptError(f"{path} holds a tensor {name}, which a Llama of this kind has not")
    return f"{layer}{TENSORS[stem]}.{kind}"


def _dequantize(path: Path, tensor: object, heads: int, key_value_heads: int) -> np.ndarray:
    """A tensor as float32, its rows in Hugging Face's order."""
    import gguf

    kind = gguf.GGMLQuantizationType
    try:
        array = tensor.data
        if tensor.tensor_type not in (kind.F32, kind.F64):
            array = gguf.quants.dequantize(array, tensor.tensor_type)
    except NotImplementedError as error:
        raise MiniptError(
            f"{path}: {tensor.name} is quantized as {tensor.tensor_type.name}, which the package "
            f"gguf does not undo ({error})"
        ) from error
    # A copy, because gguf may give a view of the file: a change of the file must not change it.
    array = np.array(as_float32(array, f"{path}: {tensor.name}")).reshape(tensor.shape[::-1])
    if ".attn_q." in tensor.name:
        return _halves(array, heads)
    return _halves(array, key_value_heads) if ".attn_k." in tensor.name else array


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring channels of a head, Hugging Face one channel of each half.

    Rows that are no whole heads stay as they are, since their shape is refused later.
    """
    if len(x) % (2 * heads):
        return x
    pairs = x.reshape(heads, -1, 2, *x.shape[1:])  # (H, D/2, 2, ...)
    return pairs.swapaxes(1, 2).reshape(x.shape)


def _tokenizer(path: Path, values: dict) -> Tokenizer:
    """Byte-level BPE from the vocabulary and the merges in the file."""
    kind, words = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != "gpt2" or words not in WORDS:
        raise MiniptError(
            f"{path} has a tokenizer of the kind {kind!r} with words of {words!r}, which is not "
            f"covered; minipt knows 'gpt2' with {' and '.join(map(repr, WORDS))}"
        )
    if values.get("tokenizer.ggml.add_eos_token"):
        raise not_computed(path, "tokenizer.ggml.add_eos_token", True, "False")
    tokens, kinds, merges = (values[key] for key in TOKENIZER)
    if len(kinds) != len(tokens):
        raise MiniptError(f"{path} has {len(tokens)} tokens of {len(kinds)} kinds: fetch it again")
    merges = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        with panics_as_errors():
            tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise MiniptError(f"{path} has a damaged tokenizer ({error}): fetch it again") from error
    tokenizer.pre_tokenizer = WORDS[words]()
    tokenizer.decoder = decoders.ByteLevel()
    for token, token_type in zip(tokens, kinds, strict=True):
        if token_type == CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
        elif token_type == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    if values.get("tokenizer.ggml.add_bos_token"):
        first = values.get("tokenizer.ggml.bos_token_id")
        if first is None or not 0 <= first < len(tokens):
            raise MiniptError(
                f"{path} says tokenizer.ggml.add_bos_token = True, but bos_token_id = {first} is "
                "no token's: fetch it again"
            )
        begin_with(tokenizer, tokens[first])
    return tokenizer
