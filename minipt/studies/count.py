"""The cost of a training step, counted from the shapes alone: operations, and numbers in memory.

In: a `Config`, a way to learn and the sizes of a step. Out: a `Cost`. Nothing is computed here; the
tests hold every number to a real step, product by product and array by array. The texts of a step
are of one length T: of shorter texts, padding takes part in attention only.

A product (m, k) @ (k, n) is m n sums of k products: 2 m k n operations. So a linear map of N rows
from I to J channels takes three times the same,

    y  = x W     forward       2 N I J
    dx = dy Wᵀ   to inputs     2 N I J    needed wherever something learns in front of it
    dW = xᵀ dy   to weights    2 N I J    needed only where W itself learns

and full fine-tuning takes all three, a prompt the first two, a linear probe the first. Attention
has no weights: forward it takes two products of all pairs of rows, backward four. Element-wise
work, such as norms, activations and softmax, is not counted: it takes a few operations a number,
where a product takes 2 k, and its cost is passes over memory.
"""

from dataclasses import dataclass, replace
from math import prod

from minipt.rivals.lora import RANK
from minipt.transformer.base import Config, parameter_shapes

# A prompt run once for all texts, or in front of each; all weights; a change of rank r of queries
# and values; a linear map (C, K) of what the frozen base says of a text.
WAYS = ("shared", "concatenated", "full", "lora", "probe")
ADAM = 2  # numbers that it remembers of each that learns


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
    """The cost of one step: operations in three directions, and numbers in memory.

    trained: the numbers that learn. activations: kept from the forward for the backward, at their
    most. gradients: of the numbers that learn, and of whole matrices on the way to them. state: the
    optimizer's.
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


@dataclass(frozen=True)
class _Layer:
    """One layer's step: B sequences of T rows that also read a past of P rows.

    R: the rows that go on from the queries: T, or in the last layer the rows that are read. N: the
    rows whose gradient goes on below attention: T, or in the lowest layer the prompt's rows.
    """

    B: int
    T: int
    P: int
    R: int
    N: int
    last: bool


def count(config: Config, way: str, step: Step) -> Cost:
    """The cost of one step, way being one of `WAYS`.

    Of a prompt P C numbers learn, of a base all, of a probe K (C+1), with LoRA r (I + J) for each
    map from I to J channels: 2 C of a query's, C + Ckv of a value's.
    """
    C, Ckv, L = config.channels, _shared_channels(config), config.layers
    trained = {
        "full": sum(map(prod, parameter_shapes(config).values())),
        "lora": L * RANK * (2 * C + C + Ckv),
        "probe": step.K * (C + 1),
    }.get(way, step.P * C)
    query, value, _ = _map_sizes(config)
    return Cost(
        forward=forward_work(config, way, step),
        to_inputs=to_inputs_work(config, way, step),
        to_weights=to_weights_work(config, way, step),
        trained=trained,
        activations=activations(config, way, step),
        gradients=trained + (L * (query + value) if way == "lora" else 0),
        state=ADAM * trained,
    )


def forward_work(config: Config, way: str, step: Step) -> Work:
    """Each linear map, of the T rows of a sequence, or of R in the last layer from its queries on:

    2 B T I J. Attention, scores and context: 2 · 2 B T (P+T) C a layer. The readout of N answers:
    2 N K C; with a masked-word head 2 N C² more, without a head the means' 2 B R C.
    LoRA makes its matrices first, A B: 2 r I J each.
    """
    work = _forward(config, step, _layers(config, way, step))
    return replace(work, linear=work.linear + _low_rank(config, way))


def answering_work(config: Config, way: str, step: Step) -> Work:
    """Forward alone, after learning: the keys and values of a shared prompt are at hand."""
    return _forward(config, step, _layers(config, way, step)[-config.layers :])


def key_value_numbers(config: Config, P: int) -> int:
    """The keys and values of a prompt that was run once, for texts to read: 2 L P Ckv."""
    return 2 * config.layers * P * _shared_channels(config)


def to_inputs_work(config: Config, way: str, step: Step) -> Work:
    """The way back to the numbers that learn: as forward for linear maps, twice for attention.

    For R rows of queries: dweights and dquery, 2 B R (P+T) C each; dkey and dvalue, 2 B R N C
    each; and dpast twice, 2 B R P C each. N is T but in the lowest layer, where only the prompt's
    rows are wanted: there it is P, or, of texts behind a shared prompt, 0. The last layer needs all
    T rows, even as the only one, since the rows that are read may lie anywhere.
    """
    if way == "probe":
        return Work(0, 0, 0)
    query, value, behind = _map_sizes(config)
    linear = attention = 0
    for layer in _layers(config, way, step):
        B, T, P, R, N = layer.B, layer.T, layer.P, layer.R, layer.N
        linear += 2 * B * (min(R, N) * query + 2 * min(T, N) * value + R * behind)
        pairs = R * (P + T) + min(R, N) * (P + T) + 2 * R * N + 2 * R * P
        attention += 2 * B * pairs * config.channels
    return Work(linear, attention, _compared(config, step) + _head(config, step))


def to_weights_work(config: Config, way: str, step: Step) -> Work:
    """A linear map that learns takes what it took forward. So do the vectors that answers are
    compared with, 2 N K C: a probe's own map, or the rows of a table that learns.

    LoRA has dA = dW Bᵀ and dB = Aᵀ dW, 2 r I J each, beside dW itself.
    """
    linear, readout, layers = 0, 0, _layers(config, way, step)
    if way == "full":
        linear, readout = _forward(config, step, layers).linear, _head(config, step)
    if way == "lora":
        query, value, _ = _map_sizes(config)
        linear = sum(2 * each.B * (each.R * query + each.T * value) for each in layers)
    if way == "probe" or (way == "full" and config.head is not None):
        readout += _compared(config, step)
    return Work(linear + 2 * _low_rank(config, way), 0, readout)


def activations(config: Config, way: str, step: Step) -> int:
    """The numbers that the forward keeps for the backward, at their most, which is between the two.

    A layer keeps its keys and values, 2 B T Ckv of Ckv = Hkv D channels, the queries, B R C, the
    weights, B H R (P+T), both norms' rows and deviations, B T (C+1) and B R (C+1), and of the MLP
    2 B R F, gated 3 B R F; R is T in all but the last. The norm outside the layers keeps B R (C+1),
    or at the bottom B T (C+1). The readout keeps N C, and what its head needs. Where weights learn,
    the inputs of their linear maps are kept too: B T C below attention, of the last layer B R C
    more for the rows that are read, which are a copy; behind attention 2 B R C and B R F. A probe
    keeps N C and no more.
    """
    N, C, F, H = _answers(config, step), config.channels, config.hidden, config.heads
    if way == "probe":
        return N * C
    kept = N * C + {"language": 0, "masked": N * (3 * C + 1), None: N}[config.head]
    if config.head == "masked" and way == "full":
        kept += N * C  # what its linear map multiplies
    for layer in _layers(config, way, step):
        B, T, R = layer.B, layer.T, layer.R
        normed = T if config.norm_first else R
        kept += B * (2 * T * _shared_channels(config) + R * C + H * R * (layer.P + T))
        kept += B * ((normed + R) * (C + 1) + (3 if config.gated else 2) * R * F)
        if layer.last:
            kept += B * (R if config.norm_first else T) * (C + 1)
        if way in ("full", "lora"):
            kept += B * (T + (R if layer.last else 0)) * C
        if way == "full":
            kept += B * R * (2 * C + F)
    return kept


def _layers(config: Config, way: str, step: Step) -> list[_Layer]:
    """Every layer of every run through the layers, of which the texts' is the last."""
    P, B, T, last = step.P, step.B, step.T, config.layers - 1
    R = T if config.head is None else step.R  # without a head, all rows are averaged
    runs = {
        "shared": [(1, P, 0, 0, P), (B, T, P, R, 0)],
        "concatenated": [(B, P + T, 0, R, P)],
    }.get(way, [(B, T, 0, R, T)])
    return [
        _Layer(B, T, P, R if i == last else T, N if i == 0 < last else T, i == last)
        for B, T, P, R, N in runs
        for i in range(config.layers)
    ]


def _map_sizes(config: Config) -> tuple[int, int, int]:
    """I J of a layer's linear maps: of the query's, of the key's or value's, of all behind them."""
    C, mlp = config.channels, (3 if config.gated else 2) * config.channels * config.hidden
    return C * C, C * _shared_channels(config), C * C + mlp


def _forward(config: Config, step: Step, layers: list[_Layer]) -> Work:
    """All T rows offer keys and values; of the last layer, only the R that are read do the rest."""
    query, value, behind = _map_sizes(config)
    linear = sum(2 * x.B * (x.R * (query + behind) + 2 * x.T * value) for x in layers)
    attention = sum(4 * x.B * x.R * (x.P + x.T) * config.channels for x in layers)
    means = 0 if config.head else 2 * step.B * step.T * config.channels
    return Work(linear, attention, _compared(config, step) + _head(config, step) + means)


def _shared_channels(config: Config) -> int:
    """Ckv: the channels of keys and values, which query heads may share."""
    return config.channels // config.heads * (config.key_value_heads or config.heads)


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
    """One product of each of LoRA's pairs with a matrix, of queries and of values: Σ 2 r I J."""
    query, value, _ = _map_sizes(config)
    return config.layers * 2 * RANK * (query + value) if way == "lora" else 0
