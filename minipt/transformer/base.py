"""A frozen language model: what it is made of, and the numbers themselves.

In: sizes and arrays, which the folder `loading` reads from files. Out: a `Base`. `model.py`
computes with it, and nobody changes it. Three families differ by the fields of `Config` and by
nothing else: GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023) and BERT (Devlin et al.
2019).
"""

import hashlib
import json
from dataclasses import dataclass, fields

import numpy as np
from tokenizers import Tokenizer


@dataclass(frozen=True)
class Config:
    """What tells one transformer from another; the defaults are GPT-2's.

    hidden: F, the width of the MLP. context: the number of positions. epsilon: the norms'.
    key_value_heads: fewer than heads where several query heads share one key and value head
        (Ainslie et al. 2023), None: as many.
    norm: "layer" or "rms" (Zhang & Sennrich 2019). norm_first: before attention and MLP, with one
        more at the end; False: after each residual sum, with one more on the embeddings.
    positions: "learned", a table, or "rotary" (Su et al. 2021) with wavelengths up to
        2π rotary_base.
    activation: "gelu_tanh", "gelu" or "silu". gated: the MLP multiplies two projections, one of
        them through the activation (Shazeer 2020).
    attention_bias, mlp_bias: whether those linear maps have biases.
    causal: a row reads only itself and what stands before; False: all rows read all.
    segments: rows of the table that tells the parts of a text apart, 0: there is none.
    tied: the output matrix is the token table.
    head: "language", which predicts the next token; "masked", which predicts the token under a
        mask; None, which only embeds.
    """

    layers: int
    channels: int
    heads: int
    hidden: int
    vocabulary: int
    context: int
    epsilon: float
    key_value_heads: int | None = None
    norm: str = "layer"
    norm_first: bool = True
    positions: str = "learned"
    rotary_base: float = 10000.0
    activation: str = "gelu_tanh"
    gated: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    causal: bool = True
    segments: int = 0
    tied: bool = True
    head: str | None = "language"


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every parameter's name and shape, in the order in which a forward pass meets them."""
    C, V = config.channels, config.vocabulary
    shapes = {"token.table": (V, C)}
    if config.positions == "learned":
        shapes["position.table"] = (config.context, C)
    if config.segments:
        shapes["segment.table"] = (config.segments, C)
    if not config.norm_first:
        shapes |= _norm("embedding.norm", config)
    for i in range(config.layers):
        parts = [_norm(f"h{i}.ln1", config), _attention(f"h{i}.attn", config)]
        parts += [_norm(f"h{i}.ln2", config), _mlp(f"h{i}.mlp", config)]
        order = (0, 1, 2, 3) if config.norm_first else (1, 0, 3, 2)
        for part in order:
            shapes |= parts[part]
    if config.norm_first:
        shapes |= _norm("final", config)
    if config.head == "masked":
        shapes |= _linear("head.dense", C, C, True) | _norm("head.norm", config)
        shapes["head.bias"] = (V,)
    if not config.tied:
        shapes["output.table"] = (V, C)
    return shapes


def _attention(at: str, config: Config) -> dict[str, tuple[int, ...]]:
    C, bias = config.channels, config.attention_bias
    shared = C // config.heads * (config.key_value_heads or config.heads)  # channels of the keys
    widths = {"query": C, "key": shared, "value": shared}
    shapes = {}
    for part, width in widths.items():
        shapes |= _linear(f"{at}.{part}", C, width, bias)
    return shapes | _linear(f"{at}.out", C, C, bias)


def _mlp(at: str, config: Config) -> dict[str, tuple[int, ...]]:
    C, F, bias = config.channels, config.hidden, config.mlp_bias
    gate = _linear(f"{at}.gate", C, F, bias) if config.gated else {}
    return gate | _linear(f"{at}.up", C, F, bias) | _linear(f"{at}.down", F, C, bias)


def _linear(at: str, inputs: int, outputs: int, bias: bool) -> dict[str, tuple[int, ...]]:
    weight = {f"{at}.weight": (inputs, outputs)}
    return weight | {f"{at}.bias": (outputs,)} if bias else weight


def _norm(at: str, config: Config) -> dict[str, tuple[int, ...]]:
    gain = {f"{at}.gain": (config.channels,)}
    return gain | {f"{at}.bias": (config.channels,)} if config.norm == "layer" else gain


@dataclass(frozen=True)
class Base:
    """A frozen language model: its sizes, its numbers, its tokenizer.

    params: dict from the names of `parameter_shapes` to arrays, float32, made read-only here, so
    that a write to any raises ValueError. tokenizer: None for a base that computes with ids only.
    """

    name: str
    config: Config
    params: dict[str, np.ndarray]
    tokenizer: Tokenizer | None

    def __post_init__(self) -> None:
        for array in self.params.values():
            array.flags.writeable = False

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of the config and every parameter's name, type and bytes, read now."""
        digest = hashlib.sha256(json.dumps(_described(self.config), sort_keys=True).encode())
        for name in sorted(self.params):
            array = self.params[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def dtype(self) -> np.dtype:
        """The parameters' float type, in which everything is computed."""
        return self.params["token.table"].dtype

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(array.size for array in self.params.values())

    def astype(self, dtype: type) -> "Base":
        """A copy in another float type: np.float64 is what a gradient check needs."""
        params = {name: array.astype(dtype) for name, array in self.params.items()}
        return Base(self.name, self.config, params, self.tokenizer)


def _described(config: Config) -> dict:
    """What differs from GPT-2, so that a field that is added later leaves fingerprints alone."""
    values = {field: getattr(config, field.name) for field in fields(config)}
    return {field.name: value for field, value in values.items() if value != field.default}
