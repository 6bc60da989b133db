"""What a layer works with, by short names: its parameters, its rows, its arrays in the trace.

In: a `Base`, the streams of texts that pass through it, a trace. Out: a `Pass`, a step's way
through all layers, and a `Layer` for each: it multiplies by its weights, knows which rows ask and
which need a gradient, and writes what is computed into the trace under its full name. How far rows
see (masks) and how far they are turned (rotary positions) is decided here, once for all layers. The
story continues in `model.py`, where the layers compute.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from minipt.maths import ops
from minipt.transformer.base import Base, Config
from minipt.transformer.ragged import Rows, Stream
from minipt.transformer.trace import Gradients, Trace, add_gradient

KeyValue = tuple[np.ndarray, np.ndarray]  # keys and values (Hkv, P, D) of one layer
Past = list[KeyValue]  # of every layer
Turns = tuple[np.ndarray, np.ndarray]  # cosines and sines (N, H, D) of rotary positions

NORMS = {
    "layer": (ops.layernorm, ops.layernorm_dx, ops.layernorm_dw),
    "rms": (ops.rmsnorm, ops.rmsnorm_dx, ops.rmsnorm_dw),
}


class Pass:
    """A step's way through all layers, forth and back: what they share, and which rows are which.

    streams: each, of a name of its own, attends to the keys and values that the one before it left,
    the first to those of `past`; a stream that another attends to has one text. Only the last
    stream is read out: of the others, R = 0.
    gradients: to train some of the parameters, their names are its keys; the way back fills it, and
    of each text all T rows are wanted.

    It hands out its layers and keeps none: held by each other, both would live on after the step,
    with all its arrays, until Python's search for such circles finds them.
    """

    def __init__(
        self,
        base: Base,
        streams: Sequence[Stream],
        trace: Trace,
        past: Past | None = None,
        gradients: Gradients | None = None,
    ) -> None:
        config, dtype = base.config, streams[0].x.dtype
        self.base, self.streams, self.trace, self.gradients = base, streams, trace, gradients or {}
        self.past = past or empty_past(config, dtype)
        self.every = Rows(streams)
        self.read = Rows(streams, [stream.read for stream in streams])
        self.wanted = _wanted(streams, self.every)
        self.turns = _turns(config, self.every, streams, self.past[0][0].shape[1])

    def outside(self) -> "Layer":
        """What stands before the first layer and behind the last."""
        return Layer(self, "", self.every, self.every, self.past[0])

    def layers(self) -> list["Layer"]:
        """From first to last."""
        layers, last = [], self.base.config.layers - 1
        for i, past in enumerate(self.past):
            asking = self.read if i == last else self.every
            # The rows that are read out lie anywhere, so that the last layer goes back to all rows.
            needed = self.wanted if i == 0 and i != last else self.every
            layers.append(Layer(self, f"h{i}.", asking, needed, past))
        return layers

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Of each stream, by its name. (T, T), or (B, 1, 1, T)"""
        return {stream.name: _mask(self.base.config, stream) for stream in self.streams}


class Layer:
    """One layer: its parameters, and its arrays in the trace, by their short names.

    `linear("mlp.up", x)` multiplies by `h3.mlp.up.weight`; `save("mlp.up", y)` keeps y for the way
    back, and a reader of the trace finds each stream's part of it, as `text.h3.mlp.up`. What is
    saved or noted is also returned, to be written where it is made.

    asking: the rows that ask and so go on. needed: those of which this layer has to give a
    gradient, in layer 0 those that the streams want. every: all rows.
    past: the layer's keys and values that the first stream reads.
    """

    def __init__(self, way: Pass, at: str, asking: Rows, needed: Rows, past: KeyValue) -> None:
        self.way, self.at, self.asking, self.needed, self.past = way, at, asking, needed, past
        self.config, self.params, self.trace = way.base.config, way.base.params, way.trace
        self.streams, self.every, self.gradients = way.streams, way.every, way.gradients
        self.channels_a_head = self.config.channels // self.config.heads
        # What goes through the activation.
        self.bent = "mlp.gate" if self.config.gated else "mlp.up"

    def save(self, name: str, activation: np.ndarray) -> np.ndarray:
        """Keep what the way back will read, of the rows that go on, and note it."""
        self.trace.save(self.at + name, activation, self.asking.named)
        return activation

    def note(self, name: str, activation: np.ndarray) -> np.ndarray:
        """Write what only a reader of the trace will read, of the rows that go on."""
        self.trace.note(self.at + name, activation, self.asking.named)
        return activation

    def take(self, name: str) -> np.ndarray:
        """What `save` kept, read for the last time."""
        return self.trace.take(self.at + name)

    def note_grad(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """Write the gradient of what was saved or noted under this name."""
        self.trace.note_grad(self.at + name, gradient, self.asking.named)
        return gradient

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """Times the weight of this name, plus its bias if it has one. (N, I) -> (N, J)"""
        name = self.at + name
        self.trace.save_input(name, x)
        return ops.linear(x, self.params[f"{name}.weight"], self.params.get(f"{name}.bias"))

    def linear_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """The backward of `linear`; where they learn, also of weight and bias. (N, J) -> (N, I)"""
        name = self.at + name
        weight, bias = f"{name}.weight", f"{name}.bias"
        if weight in self.gradients:
            add_gradient(self.gradients, weight, ops.linear_dw(dy, self.trace.take_input(name)))
        if bias in self.gradients:
            add_gradient(self.gradients, bias, ops.linear_db(dy))
        return ops.linear_dx(dy, self.params[weight])

    def norm(self, name: str, x: np.ndarray, rows: Rows) -> np.ndarray:
        """x (N, C), which are these rows -> same"""
        name = self.at + name
        weights = [self.params[f"{name}.gain"]]
        if self.config.norm == "layer":
            weights.append(self.params[f"{name}.bias"])
        y, xhat, rstd = NORMS[self.config.norm][0](x, *weights, self.config.epsilon)
        self.trace.save(f"{name}.xhat", xhat, rows.named)
        self.trace.save(f"{name}.rstd", rstd, rows.named)
        self.trace.note(name, y, rows.named)
        return y

    def norm_dx(self, name: str, dy: np.ndarray, rows: Rows) -> np.ndarray:
        """dy (N, C) of these rows -> same; the norm saw just them, or all of which they are some"""
        name = self.at + name
        xhat, rstd = (self.trace.take(f"{name}.{part}") for part in ("xhat", "rstd"))
        if len(dy) < len(xhat):
            xhat, rstd = rows.of(xhat), rows.of(rstd)
        self.trace.note_grad(name, dy, rows.named)
        _, norm_dx, norm_dw = NORMS[self.config.norm]
        gain, bias = f"{name}.gain", f"{name}.bias"
        if gain in self.gradients or bias in self.gradients:  # RMS norm has only the gain
            for weight, gradient in zip((gain, bias), norm_dw(dy, xhat), strict=False):
                add_gradient(self.gradients, weight, gradient)
        return norm_dx(dy, self.params[gain], xhat, rstd)

    def heads(self, matrix: np.ndarray, rows: Rows) -> list[np.ndarray]:
        """(N, H·D) -> (B, H, n, D) of each stream, of keys and values (B, Hkv, n, D)"""
        H = matrix.shape[1] // self.channels_a_head
        return [ops.split_heads(part, H) for part in rows.split(matrix)]

    def turn(self, matrix: np.ndarray, rows: Rows) -> np.ndarray:
        """Queries or keys (N, H·D), by how many rows stand before theirs -> same"""
        return self._turned(ops.rotary, matrix, rows)

    def turn_back(self, dmatrix: np.ndarray, rows: Rows) -> np.ndarray:
        """The backward of `turn`. (N, H·D) -> same"""
        return self._turned(ops.rotary_dx, dmatrix, rows)

    def _turned(self, how: Callable, matrix: np.ndarray, rows: Rows) -> np.ndarray:
        if self.way.turns is None:
            return matrix
        (N, E), D = matrix.shape, self.channels_a_head
        cos, sin = (rows.of(turns)[:, : E // D] for turns in self.way.turns)  # (N, H or Hkv, D)
        return how(matrix.reshape(N, E // D, D), cos, sin).reshape(N, E)

    def mask(self, stream: Stream) -> np.ndarray:
        """(T, T), in a causal base's last layer (B, 1, R, T); of one not causal (B, 1, 1, T)"""
        mask = self.way.masks[stream.name]
        all_ask = self.asking is self.every or not self.config.causal
        return mask if all_ask else mask[stream.read][:, None]

    def left_by(self, stream: Stream) -> KeyValue:
        """What a stream of one text left to the next, while its own backward has not taken it."""
        names = (f"{stream.name}.{self.at}attn.{part}" for part in ("key", "value"))
        return tuple(self.trace.kept[name][0] for name in names)


def empty_past(config: Config, dtype: np.dtype) -> Past:
    """The keys and values of nothing: (Hkv, 0, D), twice, for each layer."""
    shape = (config.key_value_heads or config.heads, 0, config.channels // config.heads)
    return [(np.empty(shape, dtype), np.empty(shape, dtype))] * config.layers


def causal_mask(T: int, dtype: np.dtype) -> np.ndarray:
    """0 where row t may read column s, s <= t, else -inf. (T, T)

    It hides the padding behind a shorter text too: no real row stands behind that.
    """
    return np.triu(np.full((T, T), -np.inf, dtype), k=1)


def padding_mask(lengths: np.ndarray, T: int, dtype: np.dtype) -> np.ndarray:
    """Where all rows read all that is real: 0 for a text's columns, -inf for its padding.

    lengths (B,) -> (B, 1, 1, T)
    """
    return np.where(np.arange(T) < lengths[:, None, None, None], 0.0, -np.inf).astype(dtype)


def _mask(config: Config, stream: Stream) -> np.ndarray:
    """(T, T), or (B, 1, 1, T)"""
    T, dtype = stream.x.shape[1], stream.x.dtype
    return causal_mask(T, dtype) if config.causal else padding_mask(stream.counts, T, dtype)


def _wanted(streams: Sequence[Stream], every: Rows) -> Rows:
    if all(stream.wanted == stream.x.shape[1] for stream in streams):
        return every
    return Rows(streams, [stream.all_rows[:, : stream.wanted] for stream in streams])


def _turns(config: Config, every: Rows, streams: Sequence[Stream], start: int) -> Turns | None:
    """By what rotary positions turn each row's queries and keys; None: positions are learned.

    start: how many rows stand before the first stream.
    """
    if config.positions == "learned":
        return None
    positions = []
    for stream in streams:
        positions.append(start + stream.all_rows[:, :, None])  # (B, T, 1)
        start += stream.x.shape[1]
    turns = ops.rotary_turns(
        every.join(positions)[:, 0],
        config.channels // config.heads,
        config.rotary_base,
        streams[0].x.dtype,
    )  # (N, D) twice
    # A copy for each head: NumPy is faster on rows of the same shape than when it repeats one.
    return tuple(np.repeat(turn[:, None], config.heads, axis=1) for turn in turns)
