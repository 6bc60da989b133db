"""The transformer: embed, blocks, readout; one forward and one backward.

In: a `Base` (the frozen numbers and their `Config`) and rows of embeddings. Out: the hidden states
of the rows that are read, and on the way back the gradient of the rows that hold a prompt. GPT-2's
architecture (Radford et al. 2019): pre-norm blocks, learned positions, tied output matrix.

The one idea that shapes this file: in a causal transformer no later token changes what an earlier
one computes, so all that stood in front of a text reaches it through the keys and values that it
left in each layer. They are the `past`; what a stream leaves itself is its `present`, the next
one's past. With `past=None` the rows are the whole sequence. The story
continues in `prompt.py`, which makes the vectors that stand in front, and in `wiring.py`, which
puts these functions together into a training step.

Shapes, here and everywhere: B texts, P prompt vectors, T tokens, C channels, H heads, D = C / H,
V vocabulary, L layers, F channels inside the MLP (4C in GPT-2); R rows that are read out, and so
ask; N rows whose gradient is wanted.
"""

import numpy as np

from minipt import ops
from minipt.base import Base, Config
from minipt.trace import Trace

Past = list[tuple[np.ndarray, np.ndarray]]  # keys and values (H, P, D) of each layer


def embed_tokens(base: Base, ids: np.ndarray, start: int) -> np.ndarray:
    """Token embeddings plus position embeddings, positions counted from `start`.

    ids (B, T) -> (B, T, C)
    """
    return ops.embedding(ids, base.params["token.table"]) + _positions(base, start, ids.shape[1])


def embed_vectors(base: Base, vectors: np.ndarray) -> np.ndarray:
    """A prompt's vectors stand where token embeddings would, at positions 0 to P-1.

    The position embeddings are added, constant, so the gradient of a vector is that of its row.

    vectors (P, C) -> (P, C)
    """
    return vectors + _positions(base, 0, len(vectors))


def forward(
    base: Base, x: np.ndarray, trace: Trace, stream: str, read: np.ndarray, past: Past | None = None
) -> tuple[np.ndarray, Past]:
    """All blocks and the final norm. The last block computes only the rows that are read.

    x (B, T, C) rows of embeddings; stream the first part of their names in the trace;
    read (B, R) different indices into T for each text, R may be 0; past the keys and values of
    what stood in front
    -> hidden (B, R, C), and the keys and values (H, T, D) that the first text leaves to others:
    only a stream of one text can be another's past.
    """
    past = past or empty_past(base.config, x.dtype)
    mask = causal_mask(x.shape[1], x.dtype)  # (T, T)
    present = []
    for i, scope in _layers(base, trace, stream):
        rows = read if i == base.config.layers - 1 else None
        x, (key, value) = _attention(scope, x, past[i], mask, rows)  # (B, R, C)
        x = _mlp(scope, x)  # (B, R, C)
        present.append((key[0], value[0]))
    return _Scope(base, trace, stream).norm("final", x), present


def backward(
    base: Base,
    dhidden: np.ndarray,
    trace: Trace,
    stream: str,
    read: np.ndarray,
    wanted: int,
    past: Past | None = None,
    dpresent: Past | None = None,
) -> tuple[np.ndarray, Past]:
    """The way back through what `forward` left in the trace; no parameter's gradient is computed.

    dhidden (B, R, C); read and past as in `forward`; wanted the number N of leading rows of x whose
    gradient is needed; dpresent the gradients of the keys and values that others read here
    -> dx (B, N, C), and the gradients of past's arrays
    """
    past = past or empty_past(base.config, dhidden.dtype)
    dx = _Scope(base, trace, stream).norm_dx("final", dhidden)  # (B, R, C)
    dpast = []
    for i, scope in reversed(_layers(base, trace, stream)):
        dx = _mlp_dx(scope, dx)  # (B, R, C)
        dx, dpast_i = _attention_dx(
            scope,
            dx,
            past[i],
            read if i == base.config.layers - 1 else None,
            wanted if i == 0 else None,
            dpresent[i] if dpresent else None,
        )
        dpast.append(dpast_i)
    return dx, dpast[::-1]


def readout(base: Base, hidden: np.ndarray, choices: np.ndarray | None) -> np.ndarray:
    """The output matrix, tied to the token table, applied to the rows that are read and no others.

    hidden (N, C), choices (K,) token ids or None for the whole vocabulary -> logits (N, K or V)
    """
    return hidden @ _output_table(base, choices).T


def readout_dx(base: Base, dlogits: np.ndarray, choices: np.ndarray | None) -> np.ndarray:
    """logits = hidden tableᵀ, so dhidden = dlogits table. (N, K or V) -> (N, C)"""
    return dlogits @ _output_table(base, choices)


def causal_mask(T: int, dtype: np.dtype) -> np.ndarray:
    """0 where row t may read column s, s <= t, else -inf. (T, T)

    It hides the padding of a right-padded text too: no real row stands behind it.
    """
    return np.triu(np.full((T, T), -np.inf, dtype), k=1)


def empty_past(config: Config, dtype: np.dtype) -> Past:
    """The keys and values of nothing: (H, 0, D), twice, for each layer."""
    nothing = np.empty((config.heads, 0, config.channels // config.heads), dtype)
    return [(nothing, nothing)] * config.layers


def _attention(
    scope: "_Scope",
    x: np.ndarray,
    past: tuple[np.ndarray, np.ndarray],
    mask: np.ndarray,
    read: np.ndarray | None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """x + out(attention(norm(x))): all rows offer keys and values, the rows that go on ask.

    x (B, T, C), mask (T, T), read (B, R), or None where all rows go on and R = T
    -> middle (B, R, C), and key and value (B, H, T, D)
    """
    normed = scope.norm("ln1", x)  # (B, T, C)
    key = scope.save("attn.key", scope.heads("attn.key", normed))  # (B, H, T, D)
    value = scope.save("attn.value", scope.heads("attn.value", normed))  # (B, H, T, D)
    query = scope.heads("attn.query", _take_rows(normed, read))  # (B, H, R, D)
    query *= query.shape[-1] ** -0.5
    scope.save("attn.query", query)
    if read is not None:
        mask = mask[read][:, None]  # (B, 1, R, T)
    context, weights, scores = ops.attention(query, key, value, past, mask)  # (B, H, R, D)
    scope.note("attn.scores", scores)  # (B, H, R, P+T)
    scope.save("attn.weights", weights)  # (B, H, R, P+T)
    scope.note("attn.context", context)
    out = scope.note("attn.out", scope.linear("attn.out", ops.merge_heads(context)))  # (B, R, C)
    return scope.note("middle", _take_rows(x, read) + out), (key, value)


def _attention_dx(
    scope: "_Scope",
    dmiddle: np.ndarray,
    past: tuple[np.ndarray, np.ndarray],
    read: np.ndarray | None,
    wanted: int | None,
    dpresent: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """`_attention` from its last line to its first.

    dmiddle (B, R, C), wanted the number N of leading rows whose gradient is needed, None for all T,
    dpresent (H, T, D) twice: what others, who read these keys and values as their past, add
    -> dx (B, N, C), dpast (H, P, D) twice
    """
    query, key, value = (scope.take(f"attn.{part}") for part in ("query", "key", "value"))
    weights = scope.take("attn.weights")  # (B, H, R, P+T)
    past_key, past_value = past
    T = key.shape[2]
    # The rows that are read lie anywhere in T, so the last layer needs all T, even as the only one.
    N = T if wanted is None or read is not None else wanted
    scope.note_grad("attn.out", dmiddle)
    dcontext = ops.split_heads(scope.linear_dx("attn.out", dmiddle), query.shape[1])  # (B, H, R, D)
    dweights, dscores = ops.attention_dscores(dcontext, value, past_value, weights)
    dpast = ops.attention_dpast(dcontext, dscores, query, weights, past_key.shape[1])
    dquery, dkey, dvalue = ops.attention_dx(
        dcontext, dscores, query, key, past_key, weights, N
    )  # (B, H, N, D), the query's (B, H, R, D) where rows are read
    if dpresent is not None:
        dkey += dpresent[0][:, :N]
        dvalue += dpresent[1][:, :N]
    dnormed = scope.heads_dx("attn.key", dkey)  # (B, N, C)
    dnormed += scope.heads_dx("attn.value", dvalue)
    _add_rows(dnormed, scope.heads_dx("attn.query", dquery * query.shape[-1] ** -0.5), read)
    dx = scope.norm_dx("ln1", dnormed)  # (B, N, C)
    _add_rows(dx, dmiddle, read)
    scope.note_grad("attn.context", dcontext)
    scope.note_grad("attn.weights", dweights)
    scope.note_grad("attn.scores", dscores)
    if N == T:
        scope.note_grad("attn.query", dquery)
        scope.note_grad("attn.key", dkey)
        scope.note_grad("attn.value", dvalue)
    return dx[:, :wanted], dpast


def _mlp(scope: "_Scope", middle: np.ndarray) -> np.ndarray:
    """middle + down(gelu(up(norm(middle)))), row by row. (B, R, C) -> (B, R, C)"""
    normed = scope.norm("ln2", middle)
    up = scope.save("mlp.up", scope.linear("mlp.up", normed))  # (B, R, F)
    active, sigma = ops.gelu(up)
    scope.save("mlp.sigma", sigma)
    scope.note("mlp.gelu", active)
    down = scope.note("mlp.down", scope.linear("mlp.down", active))  # (B, R, C)
    return scope.note("out", middle + down)


def _mlp_dx(scope: "_Scope", dout: np.ndarray) -> np.ndarray:
    """`_mlp` from its last line to its first; what skips the MLP is added. (B, R, C) -> same"""
    scope.note_grad("out", dout)
    scope.note_grad("mlp.down", dout)
    dactive = scope.note_grad("mlp.gelu", scope.linear_dx("mlp.down", dout))  # (B, R, F)
    dup = ops.gelu_dx(dactive, scope.take("mlp.up"), scope.take("mlp.sigma"))
    scope.note_grad("mlp.up", dup)
    dmiddle = scope.norm_dx("ln2", scope.linear_dx("mlp.up", dup))  # (B, R, C)
    dmiddle += dout
    return scope.note_grad("middle", dmiddle)


class _Scope:
    """One layer of one stream: the layer's parameters and the stream's trace by their short names.

    `linear("mlp.up", x)` multiplies by `h3.mlp.up.weight`; `save("mlp.up", y)` writes
    `text.h3.mlp.up`. What is saved or noted is also returned, to be written where it is made.
    """

    def __init__(self, base: Base, trace: Trace, stream: str, layer: str = "") -> None:
        self.base, self.trace = base, trace
        self.of_params, self.of_trace = layer, f"{stream}.{layer}"

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
        return ops.linear(x, self.param(f"{name}.weight"), self.param(f"{name}.bias"))

    def linear_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        return ops.linear_dx(dy, self.param(f"{name}.weight"))

    def heads(self, name: str, x: np.ndarray) -> np.ndarray:
        """(B, T, C) -> (B, H, T, D)"""
        return ops.split_heads(self.linear(name, x), self.base.config.heads)

    def heads_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """(B, H, T, D) -> (B, T, C)"""
        return self.linear_dx(name, ops.merge_heads(dy))

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        y, xhat, rstd = ops.layernorm(
            x, self.param(f"{name}.gain"), self.param(f"{name}.bias"), self.base.config.epsilon
        )
        self.save(f"{name}.xhat", xhat)
        self.save(f"{name}.rstd", rstd)
        return self.note(name, y)

    def norm_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        """The first N rows' gradient: dy (B, N, C), where the norm saw T >= N rows."""
        xhat, rstd = self.take(f"{name}.xhat"), self.take(f"{name}.rstd")
        N = dy.shape[1]
        if N == xhat.shape[1]:
            self.note_grad(name, dy)
        return ops.layernorm_dx(dy, self.param(f"{name}.gain"), xhat[:, :N], rstd[:, :N])


def _layers(base: Base, trace: Trace, stream: str) -> list[tuple[int, _Scope]]:
    return [(i, _Scope(base, trace, stream, f"h{i}.")) for i in range(base.config.layers)]


def _take_rows(x: np.ndarray, read: np.ndarray | None) -> np.ndarray:
    """The rows that are read out of each text: x (B, T, C), read (B, R) -> (B, R, C)"""
    return x if read is None else x[np.arange(len(x))[:, None], read]


def _add_rows(dx: np.ndarray, drows: np.ndarray, read: np.ndarray | None) -> None:
    """The backward of `_take_rows`, added to dx (B, N, C) in place."""
    if read is None:
        dx += drows[:, : dx.shape[1]]
    else:
        dx[np.arange(len(dx))[:, None], read] += drows


def _positions(base: Base, start: int, count: int) -> np.ndarray:
    return base.params["position.table"][start : start + count]  # (T, C)


def _output_table(base: Base, choices: np.ndarray | None) -> np.ndarray:
    table = base.params["token.table"]
    return table if choices is None else table[choices]
