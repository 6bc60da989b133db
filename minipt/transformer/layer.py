"""The tools of a layer: its weights, its rows, and its names in the trace.

In: a `Base`, a stream of texts, a tape. Out: a `StreamLayout`, which knows how the stream goes
through all layers, and a `Layer` for each. A layer multiplies by its weights. It knows which of its
rows are queries and which need a gradient. It writes what is computed to the tape under its full
name. The mask, which says what a row may read, and the angles of rotary positions are made here,
once for all layers.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from minipt.maths import ops
from minipt.maths.blocked_attention import LONG_TEXT
from minipt.transformer.base import Base, Config
from minipt.transformer.ragged import RowSet, Stream
from minipt.transformer.trace import Gradients, Tape, add_gradient

KeyValue = tuple[np.ndarray, np.ndarray]  # keys and values (Hkv, P, D) of one layer
Past = list[KeyValue]  # of every layer
Readers = list[tuple[Past, np.ndarray]]  # several pasts, each with the texts (n,) that read it

NORMS = {
    "layer": (ops.layernorm, ops.layernorm_dx, ops.layernorm_dw),
    "rms": (ops.rmsnorm, ops.rmsnorm_dx, ops.rmsnorm_dw),
}


class StreamLayout:
    """How one stream goes through all layers, forward and backward.

    past: the keys and values that stand in front of every text, of each layer; None: nothing does.
    gradients: what else is trained, to be filled by the backward pass: names of the base's
    parameters, for which all rows need a gradient, or "choices", for which none do. readers: in
    place of one past for all texts several, for a forward pass only; each text reads one of them.
    """

    def __init__(
        self,
        base: Base,
        stream: Stream,
        tape: Tape,
        past: Past | None = None,
        gradients: Gradients | None = None,
        readers: Readers | None = None,
    ) -> None:
        self.base, self.stream, self.tape, self.gradients = base, stream, tape, gradients
        self.past = past or empty_past(base.config, stream.x.dtype)
        self.readers = readers or [(self.past, np.arange(len(stream.x)))]
        self.all_rows = RowSet(stream)
        self.answer_rows = RowSet(stream, stream.answer_rows)
        N = stream.leading_grads
        leading = N < stream.x.shape[1]
        self.grad_rows = RowSet(stream, self.all_rows.rows[:, :N]) if leading else self.all_rows

    def outer_norms(self) -> "Part":
        """The norm in front of the first layer, or the one behind the last."""
        return Part(self.base, self.tape, self.stream.name, "", self.gradients)

    def layers(self) -> list["Layer"]:
        """From first to last, made anew: a reference back to them would keep their arrays alive."""
        layers, last = [], self.base.config.layers - 1
        for i in range(last + 1):
            query_rows = self.answer_rows if i == last else self.all_rows
            # Answer rows lie anywhere in a text, so the last layer goes back to all rows.
            input_grad_rows = self.grad_rows if i == 0 and i != last else self.all_rows
            readers = [(past[i], texts) for past, texts in self.readers]
            layers.append(Layer(self, f"h{i}.", query_rows, input_grad_rows, readers))
        return layers

    @cached_property
    def mask(self) -> np.ndarray:
        """0 where a row may read a column, else -inf. (T, T), or (B, 1, 1, T) of padding only"""
        T, dtype = self.stream.x.shape[1], self.stream.x.dtype
        if self.base.config.causal:
            return causal_mask(T, dtype)
        return padding_mask(self.stream.counts, T, dtype)

    @cached_property
    def rotation(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Cosines and sines (N, H, D) by which all rows' queries and keys are rotated.

        None: the base has learned positions.
        """
        config = self.base.config
        if config.positions == "learned":
            return None
        positions = self.all_rows.rows.copy()  # (B, T)
        for past, texts in self.readers:
            positions[texts] += length_of(past)
        angles = ops.rotary_angles(
            self.all_rows.pack(positions[:, :, None])[:, 0],
            config.channels // config.heads,
            config.rotary_base,
            self.stream.x.dtype,
        )  # (N, D) twice
        # A copy for each head: NumPy is faster on rows of the same shape than when it repeats one.
        return tuple(np.repeat(each[:, None], config.heads, axis=1) for each in angles)


class Part:
    """A part of the model: its parameters, and its arrays on the tape, by their short names.

    stream: its name. at: what the part's names begin with, such as "h3."; "" for the outer norms.
    `linear("mlp.up", x)` multiplies by the parameter `h3.mlp.up.weight`. `show("mlp.up", y, rows)`
    writes `text.h3.mlp.up`. What is kept or shown is returned too, so that a line can do both.
    """

    def __init__(
        self, base: Base, tape: Tape, stream: str, at: str, gradients: Gradients | None = None
    ) -> None:
        self.config, self.params, self.tape = base.config, base.params, tape
        self.at, self.on_tape, self.gradients = at, f"{stream}.{at}", gradients or {}

    def keep_for_backward(
        self, name: str, array: np.ndarray, rows: RowSet | None = None
    ) -> np.ndarray:
        """Keep what the backward pass will read, and show it."""
        self.tape.keep_for_backward(self.on_tape + name, array, rows)
        return array

    def take(self, name: str) -> np.ndarray:
        """What was kept under this name; the backward pass reads it once."""
        return self.tape.take(self.on_tape + name)

    def show(self, name: str, array: np.ndarray, rows: RowSet | None = None) -> np.ndarray:
        """Write what only a reader of the trace will read."""
        self.tape.show(self.on_tape + name, array, rows)
        return array

    def show_grad(self, name: str, gradient: np.ndarray, rows: RowSet | None = None) -> np.ndarray:
        """Write the gradient of what was shown under this name, of all its rows."""
        self.tape.show_grad(self.on_tape + name, gradient, rows)
        return gradient

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """Times the weight of this name, plus its bias if it has one. (N, I) -> (N, J)"""
        name = self.at + name
        self.tape.keep_input(name, x)
        return ops.linear(x, self.params[f"{name}.weight"], self.params.get(f"{name}.bias"))

    def linear_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """The backward of `linear`; where they learn, also of weight and bias. (N, J) -> (N, I)"""
        weight, bias = f"{self.at}{name}.weight", f"{self.at}{name}.bias"
        if weight in self.gradients:
            x = self.tape.take_input(self.at + name)
            add_gradient(self.gradients, weight, ops.linear_dw(dy, x))
        if bias in self.gradients:
            add_gradient(self.gradients, bias, ops.linear_db(dy))
        return ops.linear_dx(dy, self.params[weight])

    def norm(self, name: str, x: np.ndarray, rows: RowSet | None = None) -> np.ndarray:
        """x (N, C) of these rows -> same"""
        weights = [self.params[f"{self.at}{name}.gain"]]
        if self.config.norm == "layer":
            weights.append(self.params[f"{self.at}{name}.bias"])
        y, xhat, rstd = NORMS[self.config.norm][0](x, *weights, self.config.epsilon)
        self.keep_for_backward(f"{name}.xhat", xhat, rows)
        self.keep_for_backward(f"{name}.rstd", rstd, rows)
        return self.show(name, y, rows)

    def norm_dx(
        self, name: str, dy: np.ndarray, rows: RowSet | None = None, saw_all_rows: bool = False
    ) -> np.ndarray:
        """The backward of `norm`. dy (N, C) of these rows -> same

        saw_all_rows: the norm saw all rows; dy may be of some of them.
        """
        xhat, rstd = self.take(f"{name}.xhat"), self.take(f"{name}.rstd")
        if saw_all_rows:
            xhat, rstd = rows.pick(xhat), rows.pick(rstd)
        if not saw_all_rows or rows.is_all:
            self.show_grad(name, dy, rows)
        _, norm_dx, norm_dw = NORMS[self.config.norm]
        gain, bias = f"{self.at}{name}.gain", f"{self.at}{name}.bias"
        if gain in self.gradients or bias in self.gradients:  # RMS norm has only the gain
            for weight, gradient in zip((gain, bias), norm_dw(dy, xhat), strict=False):
                add_gradient(self.gradients, weight, gradient)
        return norm_dx(dy, self.params[gain], xhat, rstd)


class Layer(Part):
    """One layer of a stream. Which rows are which:

                      first layer    between    last layer
    all_rows          all            all        all          enter, and have keys and values
    query_rows        all            all        answer rows  have a query too, and leave
    input_grad_rows   leading rows   all        all          get a gradient where they enter
    query_grad_rows   leading rows   all        answer rows  get one of their queries too

    readers: the layer's keys and values (Hkv, P, D) that stand in front of texts, and of which
    texts (n,) they do. past_kv: those in front of all texts, where there are no others.
    """

    def __init__(
        self,
        layout: StreamLayout,
        at: str,
        query_rows: RowSet,
        input_grad_rows: RowSet,
        readers: list[tuple[KeyValue, np.ndarray]],
    ) -> None:
        assert query_rows.is_all or input_grad_rows.is_all
        super().__init__(layout.base, layout.tape, layout.stream.name, at, layout.gradients)
        self.layout, self.all_rows, self.query_rows = layout, layout.all_rows, query_rows
        self.input_grad_rows, self.readers = input_grad_rows, readers
        self.past_kv = readers[0][0]
        self.channels_a_head = self.config.channels // self.config.heads
        # The linear map whose output goes through the activation.
        self.into_activation = "mlp.gate" if self.config.gated else "mlp.up"

    @property
    def query_grad_rows(self) -> RowSet:
        """Those of the query rows of which the input's gradient is asked too."""
        return self.query_rows if self.input_grad_rows.is_all else self.input_grad_rows

    def add_to_input_grad(self, dx: np.ndarray, drows: np.ndarray) -> None:
        """Add the gradient of the `query_grad_rows` to dx, that of the `input_grad_rows`."""
        if self.input_grad_rows.is_all:
            self.query_rows.add(dx, drows)
        else:
            dx += drows

    def heads(self, matrix: np.ndarray, rows: RowSet) -> np.ndarray:
        """(N, H·D) of these rows -> (B, H, n, D), of keys and values (B, Hkv, n, D)"""
        return ops.split_heads(rows.pad(matrix), matrix.shape[1] // self.channels_a_head)

    def merged(self, heads: np.ndarray, rows: RowSet) -> np.ndarray:
        """The inverse of `heads`: (B, H, n, D) -> (N, H·D)"""
        return rows.pack(ops.merge_heads(heads))

    def rotate(self, matrix: np.ndarray, rows: RowSet) -> np.ndarray:
        """Queries or keys (N, H·D) of these rows, by their positions -> same"""
        return self._rotated(ops.rotary, matrix, rows)

    def rotate_dx(self, dmatrix: np.ndarray, rows: RowSet) -> np.ndarray:
        """The backward of `rotate`. (N, H·D) -> same"""
        return self._rotated(ops.rotary_dx, dmatrix, rows)

    def _rotated(self, op: Callable, matrix: np.ndarray, rows: RowSet) -> np.ndarray:
        if self.layout.rotation is None:
            return matrix
        (N, E), D = matrix.shape, self.channels_a_head
        # The first heads' share of the angles: all heads have the same. (N, H or Hkv, D)
        cos, sin = (rows.pick(each)[:, : E // D] for each in self.layout.rotation)
        return op(matrix.reshape(N, E // D, D), cos, sin).reshape(N, E)

    @property
    def in_blocks(self) -> bool:
        """Whether attention goes through the rows in blocks: for long texts that no one watches."""
        is_long = self.layout.stream.x.shape[1] >= LONG_TEXT
        return is_long and self.query_rows.is_all and not self.tape.is_watched

    @property
    def mask(self) -> np.ndarray:
        """(T, T), in a causal base's last layer (B, 1, R, T); of one not causal (B, 1, 1, T)"""
        if self.query_rows.is_all or not self.config.causal:
            return self.layout.mask
        x = self.layout.stream.x
        return causal_mask_of(self.query_rows.rows, x.shape[1], x.dtype)[:, None]


def empty_past(config: Config, dtype: np.dtype) -> Past:
    """The keys and values of nothing: (Hkv, 0, D), twice, for each layer."""
    shape = (config.key_value_heads or config.heads, 0, config.channels // config.heads)
    return [(np.empty(shape, dtype), np.empty(shape, dtype))] * config.layers


def length_of(past: Past | None) -> int:
    """How many rows stand in front: P."""
    return past[0][0].shape[1] if past else 0


def causal_mask(T: int, dtype: np.dtype) -> np.ndarray:
    """0 where row t may read column s, s <= t, else -inf. (T, T)

    It hides the padding behind a shorter text too, since no real row stands behind that.
    """
    return causal_mask_of(np.arange(T), T, dtype)


def causal_mask_of(rows: np.ndarray, T: int, dtype: np.dtype) -> np.ndarray:
    """Some rows of `causal_mask`. rows (..., R), indices into T -> (..., R, T)"""
    return np.where(np.arange(T) <= rows[..., None], 0.0, -np.inf).astype(dtype)


def padding_mask(lengths: np.ndarray, T: int, dtype: np.dtype) -> np.ndarray:
    """For a base whose rows read all real rows: 0 for a text's columns, -inf for its padding.

    lengths (B,) -> (B, 1, 1, T)
    """
    return np.where(np.arange(T) < lengths[:, None, None, None], 0.0, -np.inf).astype(dtype)
