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
UNDERSTOOD = {*SIZES.values(), *WIDTHS, "llama.rope.freq_base", "llama.vocab_size"}
TOKENIZER = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
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
    except (ValueError, IndexError, OverflowError, KeyError, OSError) as error:
        raise MiniptError(
            f"{path} is truncated or no GGUF file ({error}): fetch it again"
        ) from error
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return GGUF(config, tensors, _tokenizer(path, values))


def _config(path: Path, values: dict) -> dict:
    architecture = values.get("general.architecture")
    if architecture != "llama":
        raise MiniptError(f"{path} holds a model of the architecture {architecture!r}, not 'llama'")
    if missing := [key for key in (*SIZES.values(), *TOKENIZER) if key not in values]:
        raise MiniptError(f"{path} lacks {missing[0]}: fetch it again")
    for key, value in values.items():
        unscaled = (key, value) == ("llama.rope.scaling.type", "none")
        if key.startswith("llama.") and key not in UNDERSTOOD and not unscaled:
            raise MiniptError(f"{path} says {key} = {value!r}, which minipt does not compute")
    config = {key: values[name] for key, name in SIZES.items()}
    for key in WIDTHS:
        if key in values and values[key] * config["num_attention_heads"] != config["hidden_size"]:
            raise MiniptError(
                f"{path} says {key} = {values[key]!r}, which minipt does not compute; it knows "
                "llama.embedding_length / llama.attention.head_count"
            )
    return config | {
        "model_type": "llama",
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "rope_theta": values.get("llama.rope.freq_base", 10000.0),
    }


def _hub_name(path: Path, name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    stem, _, kind = name.rpartition(".")
    layer = ""
    if stem.startswith("blk."):
        _, number, stem = stem.split(".", 2)
        layer = f"model.layers.{number}."
    if stem not in TENSORS:
        raise MiniptError(f"{path} holds a tensor {name}, which a Llama of this kind has not")
    return f"{layer}{TENSORS[stem]}.{kind}"


def _dequantize(path: Path, tensor: object, heads: int, key_value_heads: int) -> np.ndarray:
    """A tensor as float32, its rows in Hugging Face's order."""
    import gguf

    try:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise MiniptError(
            f"{path}: {tensor.name} is quantized as {tensor.tensor_type.name}, which the package "
            f"gguf does not undo ({error})"
        ) from error
    # A copy, because gguf may give a view of the file: a change of the file must not change it.
    array = np.array(array, np.float32).reshape(tensor.shape[::-1])
    if ".attn_q." in tensor.name:
        return _halves(array, heads)
    return _halves(array, key_value_heads) if ".attn_k." in tensor.name else array


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring channels of a head, Hugging Face one channel of each half."""
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
    tokens, kinds, merges = (values[key] for key in TOKENIZER)
    if len(kinds) != len(tokens):
        raise MiniptError(f"{path} has {len(tokens)} tokens of {len(kinds)} kinds: fetch it again")
    merges = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
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
    return tokenizer
