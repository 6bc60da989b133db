"""A base as llama.cpp keeps it in a GGUF file, for the tests of reading one."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

from helpers.bases import LLAMA, random_base, small_tokenizer
from minipt.loading.families import all_places
from minipt.loading.gguf_file import TENSORS
from minipt.transformer.base import Base

Type = gguf.GGMLQuantizationType


def small_llama() -> Base:
    """Rows of 32 numbers, as the quantized types have them."""
    tokenizer = small_tokenizer()
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    fields = LLAMA | {"key_value_heads": 2, "rotary_base": 500.0}
    made = random_base(1, 2, 64, 4, size, 32, tokenizer=tokenizer, **fields)
    epsilon = float(np.float32(made.config.epsilon))  # as the file has it
    return replace(made, config=replace(made.config, epsilon=epsilon))


def write(path: Path, base: Base, kind: Type = Type.F32, **changed: object) -> Path:
    """A base as llama.cpp writes it. changed: other values, None: left out."""
    config, tokenizer = base.config, base.tokenizer
    values = {
        "general.architecture": "llama",
        "llama.block_count": config.layers,
        "llama.embedding_length": config.channels,
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.key_value_heads,
        "llama.feed_forward_length": config.hidden,
        "llama.context_length": config.context,
        "llama.attention.layer_norm_rms_epsilon": config.epsilon,
        "llama.rope.freq_base": config.rotary_base,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [tokenizer.id_to_token(i) for i in range(config.vocabulary)],
        "tokenizer.ggml.token_type": [3] + [1] * (config.vocabulary - 1),
        "tokenizer.ggml.merges": merges(base),
    }
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (values | changed).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
        add |= {list: writer.add_array, bool: writer.add_bool}
        if value is not None and name != "general.architecture":
            add[type(value)](name, value)
    for name, array in tensors(base).items():
        of_norm = array.ndim == 1
        data = array if of_norm or kind is Type.F32 else gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=None if of_norm or kind is Type.F32 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merges(base: Base) -> list[str]:
    found = json.loads(base.tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in found]


def tensors(base: Base) -> dict[str, np.ndarray]:
    """By llama.cpp's names, (out, in), with neighbouring channels of a head turned together."""
    short = {theirs: ours for ours, theirs in TENSORS.items()}
    found = {}
    for ours, place in all_places(base.config, with_trunk=True).items():
        array = base.params[ours].T if place.transposed else base.params[ours]
        stem, _, kind = place.name.rpartition(".")
        at = ""
        if stem.startswith("model.layers."):
            number, stem = stem.removeprefix("model.layers.").split(".", 1)
            at = f"blk.{number}."
        name = f"{at}{short[stem]}"
        if name.endswith(("attn_q", "attn_k")):
            heads = base.config.heads if name.endswith("q") else base.config.key_value_heads
            halves = array.reshape(heads, 2, -1, array.shape[-1])  # (H, 2, D/2, C)
            array = halves.swapaxes(1, 2).reshape(array.shape)
        found[f"{name}.{kind}"] = np.ascontiguousarray(array)
    return found
