"""What a training step costs, counted from the shapes alone: operations, and numbers in memory.

In: a `Config`, a way to learn and the sizes of a step. Out: a `Cost`. Nothing is computed here; the
tests hold every number to a real step, product by product and array by array. (Its texts are of one
length T: of shorter ones, padding takes part in attention only.)

A product (m, k) @ (k, n) is m n sums of k products: 2 m k n operations. So a linear map of N rows
from I to J channels takes, three times the same,

    y  = x W     forward       2 N I J
    dx = dy Wᵀ   to inputs     2 N I J    needed wherever something learns in front of it
    dW = xᵀ dy   to weights    2 N I J    needed only where W itself learns

and full fine-tuning takes all three, a prompt the first two, a linear probe the first. Attention
has no weights: forward it takes two products of all pairs of rows, backward four. Not counted is
element-wise work, such as norms, activations and softmax: it takes a few operations a number, where
a product takes 2 k, and what it costs is passes over memory.
The story continues in `cost.py`, which sets beside this what a clock and a tracer of memory say.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod

from minipt.rivals.lora import ADAPTED, RANK
from minipt.transformer.base import Config, parameter_shapes

# A prompt run once for all texts, or in front of each; all weights; a change of rank r of queries
# and values; a linear map (C, K) of what the frozen base says of a text.
WAYS = ("shared", "concatenated", "full", "lora", "probe")
ADAM = 2  # numbers that it remembers of each that learns
# What each linear map multiplies: maps of the same input keep it once.
INPUTS = {
    "attn.query": "ln1",
    "attn.key": "ln1",
    "attn.value": "ln1",
    "attn.out": "context",
    "mlp.gate": "ln2",
    "mlp.up": "ln2",
    "mlp.down": "product",
}


@dataclass(frozen=True)
class Step:
    """The sizes of a step: P prompt vectors, B texts of T tokens, R answers a text, K choices."""

    P: int
    B: int
    T: int
    R: int = 1
    K: int = 2


@dataclass(frozen=True)
class Work:
    """Operations of matrix products: of linear maps, of attention, of the readout."""

    linear: int
    attention: int
    readout: int

    @property
    def total(self) -> int:
        """The sum of the three."""
        return self.linear + self.attention + self.readout


@dataclass(frozen=True)
class Cost:
    """What one step takes: operations in three directions, and numbers in memory.

    trained: what learns. activations: kept from the forward for the backward, at their most.
    gradients: of what learns, and of whole matrices on the way to it. state: the optimizer's.
    """

    forward: Work
    to_inputs: Work
    to_weights: Work
    trained: int
    activations: int
    gradients: int
    state: int

    @property
    def backward(self) -> int:
        """Operations to inputs and to weights."""
        return self.to_inputs.total + self.to_weights.total

    @property
    def total(self) -> int:
        """All operations."""
        return self.forward.total + self.backward


def count(config: Config, way: str, step: Step) -> Cost:
    """The cost of one step, way being one of `WAYS`."""
    trained = trained_numbers(config, way, step)
    return Cost(
        forward=forward_work(config, way, step),
        to_inputs=to_inputs_work(config, way, step),
        to_weights=to_weights_work(config, way, step),
        trained=trained,
        activations=activations(config, way, step),
        gradients=trained + (_size(config, _learning(config, way)) if way == "lora" else 0),
        state=ADAM * trained,
    )


def trained_numbers(config: Config, way: str, step: Step) -> int:
    """What learns: P C, or all of a base, or r (I + J) a matrix with LoRA, or K (C+1)."""
    shapes, C = parameter_shapes(config), config.channels
    if way == "full":
        return _size(config, shapes)
    if way == "lora":
        return sum(RANK * sum(shapes[name]) for name in _learning(config, way))
    return step.K * (C + 1) if way == "probe" else step.P * C


@dataclass(frozen=True)
class _Stream:
    """One run through the blocks: B sequences of T rows that also read a past of P rows.

    The last layer computes R rows of each; the backward ends at the first N rows of the input.
    """

    B: int
    T: int
    P: int
    R: int
    N: int


def _streams(config: Config, way: str, step: Step) -> list[_Stream]:
    P, B, T = step.P, step.B, step.T
    R = T if config.head is None else step.R  # without a head, all rows are averaged
    if way == "shared":
        return [_Stream(B=1, T=P, P=0, R=0, N=P), _Stream(B, T, P, R, N=0)]
    if way == "concatenated":
        return [_Stream(B, P + T, P=0, R=R, N=P)]
    return [_Stream(B, T, P=0, R=R, N=T)]


def forward_work(config: Config, way: str, step: Step) -> Work:
    """Each linear map, of the T rows of a sequence, or of R in the last layer from its queries on:

    2 B T I J. Attention, scores and context: 2 · 2 B T (P+T) C a layer. The readout of N answers:
    2 N K C; with a masked-word head 2 N C² more, without a head the means' 2 B R C.
    LoRA makes its matrices first, A B: 2 r I J each.
    """
    found = _forward(config, _streams(config, way, step), step)
    return replace(found, linear=found.linear + _low_rank(config, way))


def answering_work(config: Config, way: str, step: Step) -> Work:
    """Forward alone, when what was learnt stands: a shared prompt's keys and values at hand."""
    return _forward(config, _streams(config, way, step)[-1:], step)


def key_value_numbers(config: Config, P: int) -> int:
    """What a prompt that was run once leaves for texts to read: 2 L P Ckv."""
    return 2 * config.layers * P * _shared_channels(config)


def to_inputs_work(config: Config, way: str, step: Step) -> Work:
    """The way back to what learns: as much as forward for linear maps, twice for attention.

    Of the R rows that asked: dweights and dquery, 2 B R (P+T) C each; dkey and dvalue, 2 B R N C
    each; and dpast twice, 2 B R P C each. N is T but in the lowest layer, where only the prompt's
    rows are wanted: there it is P, or, of texts behind a shared prompt, 0. The last layer needs all
    T rows, even as the only one, since those that are read may lie anywhere.
    """
    if way == "probe":
        return Work(0, 0, 0)
    linear = attention = 0
    for stream in _streams(config, way, step):
        linear += _linear(config, stream, _rows_wanted, _weights(config))
        for layer in range(config.layers):
            r, S = _going_on(config, stream, layer), stream.P + stream.T
            N = _wanted(config, stream, layer)
            pairs = r * S + min(N, r) * S + 2 * r * N + 2 * r * stream.P
            attention += 2 * stream.B * pairs * config.channels
    return Work(linear, attention, _compared(config, step) + _head(config, step))


def to_weights_work(config: Config, way: str, step: Step) -> Work:
    """A linear map that learns takes what it took forward; so does what answers are compared with,
    2 N K C: a probe's own map, or the rows of a table that learns.

    LoRA has dA = dW Bᵀ and dB = Aᵀ dW, 2 r I J each, beside dW itself.
    """
    if way in ("shared", "concatenated"):
        return Work(0, 0, 0)
    (stream,) = _streams(config, way, step)
    linear = _linear(config, stream, _rows, _learning(config, way))
    head = _head(config, step) if way == "full" else 0
    compared_learns = way == "probe" or (way == "full" and config.head is not None)
    readout = head + (_compared(config, step) if compared_learns else 0)
    return Work(linear + 2 * _low_rank(config, way), 0, readout)


def activations(config: Config, way: str, step: Step) -> int:
    """The numbers that the forward keeps for the backward, at their most, which is between the two.

    A layer keeps its keys and values, 2 B T Ckv of Ckv = Hkv D channels, the queries, B R C, the
    weights, B H R (P+T), both norms' rows and deviations, B T (C+1) and B R (C+1), and of the MLP
    2 B R F, gated 3 B R F; R is T in all but the last. The norm outside the layers keeps B R (C+1),
    or at the bottom B T (C+1). The readout keeps N C, and what its head needs. Where weights learn,
    the inputs of their linear maps are kept too. A probe keeps N C and no more.
    """
    N, C = _answers(config, step), config.channels
    if way == "probe":
        return N * C
    streams, learning = _streams(config, way, step), _learning(config, way)
    head = {"language": 0, "masked": N * (3 * C + 1), None: N}[config.head]
    kept = sum(_kept(config, stream) for stream in streams) + N * C + head
    if config.head == "masked" and way == "full":
        kept += N * C  # what its linear map multiplies
    return kept + _kept_inputs(config, streams[-1], learning)


def _forward(config: Config, streams: list[_Stream], step: Step) -> Work:
    linear = attention = 0
    for stream in streams:
        linear += _linear(config, stream, _rows, _weights(config))
        for layer in range(config.layers):
            r, S = _going_on(config, stream, layer), stream.P + stream.T
            attention += 2 * 2 * stream.B * r * S * config.channels
    mean = 0 if config.head else 2 * step.B * streams[-1].R * config.channels
    return Work(linear, attention, _compared(config, step) + _head(config, step) + mean)


def _linear(
    config: Config,
    stream: _Stream,
    rows: Callable[[Config, _Stream, str], int],
    names: list[str],
) -> int:
    """Σ 2 B N I J over the linear maps of these names, N being what `rows` says of each."""
    shapes = parameter_shapes(config)
    return sum(2 * stream.B * rows(config, stream, name) * prod(shapes[name]) for name in names)


def _rows(config: Config, stream: _Stream, name: str) -> int:
    """All rows offer keys and values; of the last layer, only those that are read do the rest."""
    if name.endswith(("key.weight", "value.weight")):
        return stream.T
    return _going_on(config, stream, _layer(name))


def _rows_wanted(config: Config, stream: _Stream, name: str) -> int:
    """As `_rows`; below attention, in the lowest layer, only those whose gradient is wanted."""
    rows = _rows(config, stream, name)
    projects = name.endswith(("query.weight", "key.weight", "value.weight"))
    return min(rows, _wanted(config, stream, _layer(name))) if projects else rows


def _going_on(config: Config, stream: _Stream, layer: int) -> int:
    return stream.R if layer == config.layers - 1 else stream.T


def _wanted(config: Config, stream: _Stream, layer: int) -> int:
    return stream.N if layer == 0 and config.layers > 1 else stream.T


def _kept(config: Config, stream: _Stream) -> int:
    """The numbers that one run through the blocks keeps: see `activations`."""
    C, F, H = config.channels, config.hidden, config.heads
    shared = _shared_channels(config)
    kept = (stream.R if config.norm_first else stream.T) * (C + 1)
    for layer in range(config.layers):
        R = _going_on(config, stream, layer)
        normed = stream.T if config.norm_first else R
        kept += 2 * stream.T * shared + R * C + H * R * (stream.P + stream.T)
        kept += (normed + R) * (C + 1) + (3 if config.gated else 2) * R * F
    return stream.B * kept


def _shared_channels(config: Config) -> int:
    """Ckv: the channels of keys and values, which query heads may share."""
    return config.channels // config.heads * (config.key_value_heads or config.heads)


def _kept_inputs(config: Config, stream: _Stream, names: list[str]) -> int:
    """N I for each array that maps of these names multiply; the rows that are read are a copy."""
    shapes, kept = parameter_shapes(config), {}
    for name in names:
        layer, part = _layer(name), name.split(".", 1)[1].removesuffix(".weight")
        copied = part == "attn.query" and layer == config.layers - 1
        source = "rows read" if copied else INPUTS[part]
        kept[layer, source] = stream.B * _rows(config, stream, name) * shapes[name][0]
    return sum(kept.values())


def _answers(config: Config, step: Step) -> int:
    """N, the rows of the readout: R of each text, or one where all are averaged."""
    return step.B * (1 if config.head is None else step.R)


def _compared(config: Config, step: Step) -> int:
    """N answers with K choices: 2 N K C."""
    return 2 * _answers(config, step) * step.K * config.channels


def _head(config: Config, step: Step) -> int:
    """The linear map of a masked-word head: 2 N C²."""
    return 2 * _answers(config, step) * config.channels**2 if config.head == "masked" else 0


def _low_rank(config: Config, way: str) -> int:
    """One product of each of LoRA's pairs with a matrix: Σ 2 r I J."""
    return 2 * RANK * _size(config, _learning(config, way)) if way == "lora" else 0


def _weights(config: Config) -> list[str]:
    """The linear maps of the layers."""
    return [name for name in parameter_shapes(config) if re.match(r"h\d+\..*weight$", name)]


def _learning(config: Config, way: str) -> list[str]:
    """Those of them whose weights need gradients."""
    endings = {"full": ".weight", "lora": ADAPTED}.get(way, ())
    return [name for name in _weights(config) if name.endswith(endings)]


def _layer(name: str) -> int:
    """3 of h3.mlp.up.weight"""
    return int(name[1 : name.index(".")])


def _size(config: Config, names: Iterable[str]) -> int:
    shapes = parameter_shapes(config)
    return sum(prod(shapes[name]) for name in names)
