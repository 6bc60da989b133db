"""The transformer: embed, blocks; one forward and one backward for three families.

In: a `Base` (the frozen numbers and their `Config`) and rows of embeddings. Out: the hidden states
of the rows that are read, and on the way back the gradient of the rows that hold a prompt. GPT-2
(Radford et al. 2019) is the plain case: pre-norm blocks, learned positions. Llama and BERT differ
where `Config` says so: another norm or activation out of the two tables below, a gated MLP, rotary
positions, the norm after the sum, a mask that hides only padding.

The one idea that shapes this file: in a causal transformer no later token changes what an earlier
one computes, so all that stood in front of a text reaches it through the keys and values that it
left in each layer. They are the `past`; what a stream leaves itself is its `present`, the next
one's past. With `past=None` the rows are the whole sequence. The story continues in `readout.py`,
which turns hidden states into an answer, in `prompt.py`, which makes the vectors that stand in
front, and in `wiring.py`, which puts these functions together into a training step.

Shapes, here and everywhere: B texts, P prompt vectors, T tokens, C channels, H heads, of which Hkv
have keys and values, D = C / H, V vocabulary, L layers, F channels inside the MLP (4C in GPT-2);
R rows that are read out, and so ask; N rows whose gradient is wanted.
"""

import numpy as np

from minipt import ops
from minipt.base import Base, Config
from minipt.trace import Gradients, Trace, add_gradient

Past = list[tuple[np.ndarray, np.ndarray]]  # keys and values (Hkv, P, D) of each layer
Turns = tuple[np.ndarray, np.ndarray]  # cosines and sines (T, D/2) of rotary positions

NORMS = {
    "layer": (ops.layernorm, ops.layernorm_dx, ops.layernorm_dw),
    "rms": (ops.rmsnorm, ops.rmsnorm_dx, ops.rmsnorm_dw),
}
ACTIVATIONS = {
    "gelu_tanh": (ops.gelu, ops.gelu_dx),
    "gelu": (ops.gelu_erf, ops.gelu_erf_dx),
    "silu": (ops.silu, ops.silu_dx),
}


def embed_tokens(base: Base, ids: np.ndarray, start: int) -> np.ndarray:
    """Token embeddings and what stands for their places, positions counted from `start`.

    ids (B, T) -> (B, T, C)
    """
    return _place(base, ops.embedding(ids, base.params["token.table"]), start)


def embed_tokens_dw(
    base: Base, dx: np.ndarray, ids: np.ndarray, start: int, gradients: Gradients
) -> None:
    """The gradients of the tables that `embed_tokens` read, of those that are wanted.

    dx (B, T, C), ids (B, T)
    """
    table, T = base.params["token.table"], ids.shape[1]
    if "token.table" in gradients:
        add_gradient(gradients, "token.table", ops.embedding_dw(dx, ids, len(table)))
    places = {"position.table": np.arange(start, start + T), "segment.table": np.zeros(T, int)}
    for name, rows in places.items():
        if name in gradients:
            size = len(base.params[name])
            add_gradient(gradients, name, ops.embedding_dw(dx.sum(0)[None], rows[None], size))


def embed_vectors(base: Base, vectors: np.ndarray) -> np.ndarray:
    """A prompt's vectors stand where token embeddings would, at positions 0 to P-1.

    What is added for their places is constant, so the gradient of a vector is that of its row.

    vectors (..., P, C) -> (..., P, C)
    """
    return _place(base, vectors, 0)


def forward(
    base: Base,
    x: np.ndarray,
    trace: Trace,
    stream: str,
    read: np.ndarray,
    past: Past | None = None,
    lengths: np.ndarray | None = None,
) -> tuple[np.ndarray, Past]:
    """All blocks and the outer norm. The last block computes only the rows that are read.

    x (B, T, C) rows of embeddings; stream the first part of their names in the trace;
    read (B, R) different indices into T for each text, R may be 0; past the keys and values of
    what stood in front; lengths (B,) the real rows of each text, for a base that is not causal
    -> hidden (B, R, C), and the keys and values (Hkv, T, D) that the first text leaves to others:
    only a stream of one text can be another's past.
    """
    config, outer = base.config, _Scope(base, trace, stream)
    past = past or empty_past(config, x.dtype)
    mask = _mask(config, x.shape[1], lengths, x.dtype)  # (T, T) or (B, 1, 1, T)
    turns = _turns(config, past, x.shape[1], x.dtype)  # (T, D/2) twice
    if not config.norm_first:
        x = outer.norm("embedding.norm", x)
    present = []
    for i, scope in _layers(base, trace, stream):
        rows = read if i == config.layers - 1 else None
        x, (key, value) = _attention(scope, x, past[i], mask, turns, rows)  # (B, R, C)
        x = _mlp(scope, x)  # (B, R, C)
        present.append((key[0], value[0]))
    return outer.norm("final", x) if config.norm_first else x, present


def backward(
    base: Base,
    dhidden: np.ndarray,
    trace: Trace,
    stream: str,
    read: np.ndarray,
    wanted: int,
    past: Past | None = None,
    dpresent: Past | None = None,
    gradients: Gradients | None = None,
) -> tuple[np.ndarray, Past]:
    """The way back through what `forward` left in the trace.

    A frozen base's parameters need no gradient, and none is computed; to train some of them, their
    names are the keys of `gradients`, which is filled.

    dhidden (B, R, C); read and past as in `forward`; wanted the number N of leading rows of x whose
    gradient is needed, all T with `gradients`; dpresent the gradients of the keys and values that
    others read here
    -> dx (B, N, C), and the gradients of past's arrays
    """
    config, outer = base.config, _Scope(base, trace, stream, gradients=gradients)
    past = past or empty_past(config, dhidden.dtype)
    T = trace[f"{stream}.h0.attn.key"].shape[2]
    turns = _turns(config, past, T, dhidden.dtype)
    dx = outer.norm_dx("final", dhidden) if config.norm_first else dhidden  # (B, R, C)
    dpast = []
    for i, scope in reversed(_layers(base, trace, stream, gradients)):
        dx = _mlp_dx(scope, dx)  # (B, R, C)
        dx, dpast_i = _attention_dx(
            scope,
            dx,
            past[i],
            turns,
            read if i == config.layers - 1 else None,
            wanted if i == 0 else None,
            dpresent[i] if dpresent else None,
        )
        dpast.append(dpast_i)
    if not config.norm_first:
        dx = outer.norm_dx("embedding.norm", dx)  # (B, N, C)
    return dx, dpast[::-1]


def causal_mask(T: int, dtype: np.dtype) -> np.ndarray:
    """0 where row t may read column s, s <= t, else -inf. (T, T)

    It hides the padding of a right-padded text too: no real row stands behind it.
    """
    return np.triu(np.full((T, T), -np.inf, dtype), k=1)


def padding_mask(lengths: np.ndarray, T: int, dtype: np.dtype) -> np.ndarray:
    """Where all rows read all that is real: 0 for a text's columns, -inf for its padding.

    lengths (B,) -> (B, 1, 1, T)
    """
    return np.where(np.arange(T) < lengths[:, None, None, None], 0.0, -np.inf).astype(dtype)


def empty_past(config: Config, dtype: np.dtype) -> Past:
    """The keys and values of nothing: (Hkv, 0, D), twice, for each layer."""
    shape = (config.key_value_heads or config.heads, 0, config.channels // config.heads)
    return [(np.empty(shape, dtype), np.empty(shape, dtype))] * config.layers


def _attention(
    scope: "_Scope",
    x: np.ndarray,
    past: tuple[np.ndarray, np.ndarray],
    mask: np.ndarray,
    turns: Turns | None,
    read: np.ndarray | None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """x + out(attention(norm(x))): all rows offer keys and values, the rows that go on ask.

    Without norm_first it is norm(x + out(attention(x))).

    x (B, T, C), mask (T, T) or (B, 1, 1, T), read (B, R), or None where all rows go on and R = T
    -> middle (B, R, C), and key and value (B, Hkv, T, D)
    """
    norm_first, causal = scope.config.norm_first, scope.config.causal
    normed = scope.norm("ln1", x) if norm_first else x  # (B, T, C)
    key = scope.save("attn.key", _turn(scope.heads("attn.key", normed), turns))  # (B, Hkv, T, D)
    value = scope.save("attn.value", scope.heads("attn.value", normed))  # (B, Hkv, T, D)
    query = scope.heads("attn.query", _take_rows(normed, read))  # (B, H, R, D)
    query *= query.shape[-1] ** -0.5
    query = scope.save("attn.query", _turn(query, turns, read))
    if causal and read is not None:
        mask = mask[read][:, None]  # (B, 1, R, T)
    context, weights, scores = ops.attention(query, key, value, past, mask)  # (B, H, R, D)
    scope.note("attn.scores", scores)  # (B, H, R, P+T)
    scope.save("attn.weights", weights)  # (B, H, R, P+T)
    scope.note("attn.context", context)
    out = scope.note("attn.out", scope.linear("attn.out", ops.merge_heads(context)))  # (B, R, C)
    middle = scope.note("middle", _take_rows(x, read) + out)
    return middle if norm_first else scope.norm("ln1", middle), (key, value)


def _attention_dx(
    scope: "_Scope",
    dmiddle: np.ndarray,
    past: tuple[np.ndarray, np.ndarray],
    turns: Turns | None,
    read: np.ndarray | None,
    wanted: int | None,
    dpresent: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """`_attention` from its last line to its first.

    dmiddle (B, R, C), wanted the number N of leading rows whose gradient is needed, None for all T,
    dpresent (Hkv, T, D) twice: what others, who read these keys and values as their past, add
    -> dx (B, N, C), dpast (Hkv, P, D) twice
    """
    norm_first = scope.config.norm_first
    query, key, value = (scope.take(f"attn.{part}") for part in ("query", "key", "value"))
    weights = scope.take("attn.weights")  # (B, H, R, P+T)
    past_key, past_value = past
    T = key.shape[2]
    # The rows that are read lie anywhere in T, so the last layer needs all T, even as the only one.
    N = T if wanted is None or read is not None else wanted
    if not norm_first:
        dmiddle = scope.norm_dx("ln1", dmiddle)
    scope.note_grad("middle", dmiddle)
    scope.note_grad("attn.out", dmiddle)
    dcontext = ops.split_heads(scope.linear_dx("attn.out", dmiddle), query.shape[1])  # (B, H, R, D)
    dweights, dscores = ops.attention_dscores(dcontext, value, past_value, weights)
    dpast = ops.attention_dpast(dcontext, dscores, query, weights, past_key)
    dquery, dkey, dvalue = ops.attention_dx(dcontext, dscores, query, key, past_key, weights, N)
    if dpresent is not None:
        dkey += dpresent[0][:, :N]
        dvalue += dpresent[1][:, :N]
    scope.note_grad("attn.context", dcontext)
    scope.note_grad("attn.weights", dweights)
    scope.note_grad("attn.scores", dscores)
    if N == T:
        scope.note_grad("attn.query", dquery)
        scope.note_grad("attn.key", dkey)
        scope.note_grad("attn.value", dvalue)
    dx = _projections_dx(scope, dquery, dkey, dvalue, turns, read)  # (B, N, C)
    if norm_first:
        dx = scope.norm_dx("ln1", dx)
    _add_rows(dx, dmiddle, read)
    return dx[:, :wanted], dpast


def _projections_dx(
    scope: "_Scope",
    dquery: np.ndarray,
    dkey: np.ndarray,
    dvalue: np.ndarray,
    turns: Turns | None,
    read: np.ndarray | None,
) -> np.ndarray:
    """Back to the rows that query, key and value were made from.

    dquery (B, H, N, D), of the rows that are read (B, H, R, D); dkey and dvalue (B, Hkv, N, D)
    -> dx (B, N, C)
    """
    dx = scope.heads_dx("attn.key", _turn_back(dkey, turns))
    dx += scope.heads_dx("attn.value", dvalue)
    dquery = _turn_back(dquery * dquery.shape[-1] ** -0.5, turns, read)
    _add_rows(dx, scope.heads_dx("attn.query", dquery), read)
    return dx


def _mlp(scope: "_Scope", x: np.ndarray) -> np.ndarray:
    """x + down(activation(up(norm(x)))), row by row. (B, R, C) -> (B, R, C)

    Gated, it is x + down(activation(gate(norm(x))) · up(norm(x))). Without norm_first the norm
    comes after the sum.
    """
    config, bent = scope.config, scope.bent
    normed = scope.norm("ln2", x) if config.norm_first else x
    inner = scope.save(bent, scope.linear(bent, normed))  # (B, R, F)
    active, sigma = ACTIVATIONS[config.activation][0](inner)
    scope.save("mlp.sigma", sigma)
    if config.gated:
        up = scope.save("mlp.up", scope.linear("mlp.up", normed))
        product = scope.note("mlp.product", scope.save("mlp.active", active) * up)
    else:
        product = scope.note("mlp.active", active)
    down = scope.note("mlp.down", scope.linear("mlp.down", product))  # (B, R, C)
    out = scope.note("out", x + down)
    return out if config.norm_first else scope.norm("ln2", out)


def _mlp_dx(scope: "_Scope", dout: np.ndarray) -> np.ndarray:
    """`_mlp` from its last line to its first; what skips the MLP is added. (B, R, C) -> same"""
    config, bent = scope.config, scope.bent
    if not config.norm_first:
        dout = scope.norm_dx("ln2", dout)
    scope.note_grad("out", dout)
    scope.note_grad("mlp.down", dout)
    dactive = scope.linear_dx("mlp.down", dout)  # (B, R, F)
    if config.gated:
        dproduct = scope.note_grad("mlp.product", dactive)
        dup = scope.note_grad("mlp.up", dproduct * scope.take("mlp.active"))
        dactive = dproduct * scope.take("mlp.up")
    scope.note_grad("mlp.active", dactive)
    sigma = scope.take("mlp.sigma")
    dinner = ACTIVATIONS[config.activation][1](dactive, scope.take(bent), sigma)
    dx = scope.linear_dx(bent, scope.note_grad(bent, dinner))  # (B, R, C)
    if config.gated:
        dx += scope.linear_dx("mlp.up", dup)
    if config.norm_first:
        dx = scope.norm_dx("ln2", dx)
    dx += dout
    return dx


class _Scope:
    """One layer of one stream: the layer's parameters and the stream's trace by their short names.

    `linear("mlp.up", x)` multiplies by `h3.mlp.up.weight`; `save("mlp.up", y)` writes
    `text.h3.mlp.up`. What is saved or noted is also returned, to be written where it is made.
    """

    def __init__(
        self,
        base: Base,
        trace: Trace,
        stream: str,
        layer: str = "",
        gradients: Gradients | None = None,
    ) -> None:
        self.base, self.trace, self.gradients = base, trace, gradients or {}
        self.of_params, self.of_trace = layer, f"{stream}.{layer}"
        self.config = base.config
        # What goes through the activation.
        self.bent = "mlp.gate" if base.config.gated else "mlp.up"

    def param(self, name: str) -> np.ndarray:
        return self.base.params[self.of_params + name]

    def save(self, name: str, activation: np.ndarray) -> np.ndarray:
        self.trace.save(self.of_trace + name, activation)
        return activation

    def note(self, name: str, activation: np.ndarray) -> np.ndarray:
        self.trace.note(self.of_trace + name, activation)
        return activation

    def take(self, name: str) -> np.ndarray:
        return self.trace.take(self.of_trace + name)

    def note_grad(self, name: str, gradient: np.ndarray) -> np.ndarray:
        self.trace.note_grad(self.of_trace + name, gradient)
        return gradient

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        self.trace.save_input(self.of_trace + name, x)
        bias = self.base.params.get(f"{self.of_params}{name}.bias")
        return ops.linear(x, self.param(f"{name}.weight"), bias)

    def linear_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        weight, bias = (f"{self.of_params}{name}.{part}" for part in ("weight", "bias"))
        if weight in self.gradients:
            x = self.trace.take_input(self.of_trace + name)
            add_gradient(self.gradients, weight, ops.linear_dw(dy, x))
        if bias in self.gradients:
            add_gradient(self.gradients, bias, ops.linear_db(dy))
        return ops.linear_dx(dy, self.param(f"{name}.weight"))

    def heads(self, name: str, x: np.ndarray) -> np.ndarray:
        """(B, T, C) -> (B, H, T, D), of keys and values (B, Hkv, T, D)"""
        y = self.linear(name, x)
        D = self.config.channels // self.config.heads
        return ops.split_heads(y, y.shape[-1] // D)

    def heads_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """(B, H, T, D) -> (B, T, C)"""
        return self.linear_dx(name, ops.merge_heads(dy))

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        weights = [self.param(f"{name}.gain")]
        if self.config.norm == "layer":
            weights.append(self.param(f"{name}.bias"))
        y, xhat, rstd = NORMS[self.config.norm][0](x, *weights, self.config.epsilon)
        self.save(f"{name}.xhat", xhat)
        self.save(f"{name}.rstd", rstd)
        return self.note(name, y)

    def norm_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """The first N rows' gradient: dy (B, N, C), where the norm saw T >= N rows."""
        xhat, rstd = self.take(f"{name}.xhat"), self.take(f"{name}.rstd")
        N = dy.shape[1]
        if N == xhat.shape[1]:
            self.note_grad(name, dy)
        _, norm_dx, norm_dw = NORMS[self.config.norm]
        gain, bias = (f"{self.of_params}{name}.{part}" for part in ("gain", "bias"))
        if gain in self.gradients or bias in self.gradients:  # RMS norm has only the gain
            for weight, gradient in zip((gain, bias), norm_dw(dy, xhat[:, :N]), strict=False):
                add_gradient(self.gradients, weight, gradient)
        return norm_dx(dy, self.base.params[gain], xhat[:, :N], rstd[:, :N])


def _layers(
    base: Base, trace: Trace, stream: str, gradients: Gradients | None = None
) -> list[tuple[int, _Scope]]:
    layers = range(base.config.layers)
    return [(i, _Scope(base, trace, stream, f"h{i}.", gradients)) for i in layers]


def _take_rows(x: np.ndarray, read: np.ndarray | None) -> np.ndarray:
    """The rows that are read out of each text: x (B, T, C), read (B, R) -> (B, R, C)"""
    return x if read is None else x[np.arange(len(x))[:, None], read]


def _add_rows(dx: np.ndarray, drows: np.ndarray, read: np.ndarray | None) -> None:
    """The backward of `_take_rows`, added to dx (B, N, C) in place."""
    if read is None:
        dx += drows[:, : dx.shape[1]]
    else:
        dx[np.arange(len(dx))[:, None], read] += drows


def _place(base: Base, x: np.ndarray, start: int) -> np.ndarray:
    """What is added for a row's place: its position's embedding and the first segment's.

    Rotary positions add nothing here: they turn queries and keys. x (..., T, C) -> (..., T, C)
    """
    for_place = base.params.get("position.table")
    if for_place is not None:
        x = x + for_place[start : start + x.shape[-2]]
    segments = base.params.get("segment.table")
    return x if segments is None else x + segments[0]


def _mask(config: Config, T: int, lengths: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    return causal_mask(T, dtype) if config.causal else padding_mask(lengths, T, dtype)


def _turns(config: Config, past: Past, T: int, dtype: np.dtype) -> Turns | None:
    """How far T rows behind a past of P turn queries and keys; None: positions are learned."""
    if config.positions == "learned":
        return None
    positions = past[0][0].shape[1] + np.arange(T)
    D = config.channels // config.heads
    return ops.rotary_turns(positions, D, config.rotary_base, dtype)


def _turn(x: np.ndarray, turns: Turns | None, read: np.ndarray | None = None) -> np.ndarray:
    """(B, H, T, D) -> same, or, of the rows that are read, (B, H, R, D) -> same"""
    return x if turns is None else ops.rotary(x, *_of_rows(turns, x.shape[2], read))


def _turn_back(dy: np.ndarray, turns: Turns | None, read: np.ndarray | None = None) -> np.ndarray:
    """The backward of `_turn`, of the first N rows or of those that are read."""
    return dy if turns is None else ops.rotary_dx(dy, *_of_rows(turns, dy.shape[2], read))


def _of_rows(turns: Turns, N: int, read: np.ndarray | None) -> Turns:
    """(N, D/2) twice, or, of the rows that are read, (B, 1, R, D/2) twice"""
    cos, sin = turns
    return (cos[:N], sin[:N]) if read is None else (cos[read][:, None], sin[read][:, None])
