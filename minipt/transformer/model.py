"""The transformer: embed, blocks; one forward and one backward for three families.

In: a `Base` and a stream of embeddings, laid out by a `StreamLayout`. Out: the hidden states of the
rows that are read out, and on the way back the gradients of the stream's leading rows and of its
past. GPT-2 (Radford et al. 2019) is the plain case: norms in front of attention and MLP, learned
positions. Llama and BERT differ where `Config` says so: another norm or activation out of a table,
a gated MLP, rotary positions, the norm after the sum, a mask that hides only padding.

In a causal transformer no later token changes what an earlier one computes. So what stands in front
of a text reaches it only through keys and values, in each layer: the text's past. A stream goes
through the layers by itself and reads its past. The gradients of the past are what the stream asks
of the rows in front of it. Those rows take them up in their own backward pass, as
`dkv_from_readers`.

Shapes, here and everywhere: B texts, P prompt vectors, T tokens, C channels, H heads, of which Hkv
have keys and values, D = C / H, V vocabulary, L layers, F channels inside the MLP (4C in GPT-2);
R rows of a text that are queries, in the last layer those that are read out; N any number of rows.
"""

import numpy as np

from minipt.maths import ops
from minipt.maths.blocked_attention import (
    attention_dpast_alone,
    attention_in_blocks,
    attention_in_blocks_dx,
)
from minipt.transformer.base import Base
from minipt.transformer.layer import KeyValue, Layer, Past, StreamLayout
from minipt.transformer.trace import Gradients, add_gradient

# Forward and backward of each. The forward gives y and the factor y / x.
ACTIVATIONS = {
    "gelu_tanh": (ops.gelu, ops.gelu_dx),
    "gelu": (ops.gelu_erf, ops.gelu_erf_dx),
    "silu": (ops.silu, ops.silu_dx),
}


def embed_tokens(base: Base, ids: np.ndarray, start: int) -> np.ndarray:
    """Token embeddings plus what their places add, positions counted from `start`.

    ids (B, T) -> (B, T, C)
    """
    return _add_place(base, ops.embedding(ids, base.params["token.table"]), start)


def embed_tokens_dw(
    base: Base, dx: np.ndarray, ids: np.ndarray, start: int, gradients: Gradients
) -> None:
    """The gradients of the tables that `embed_tokens` read, of those that are asked for.

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
    """A prompt's vectors in place of token embeddings, at positions 0 to P-1.

    What their places add is constant, so the gradient of a vector is that of its row.

    vectors (..., P, C) -> (..., P, C)
    """
    return _add_place(base, vectors, 0)


def forward(layout: StreamLayout) -> tuple[np.ndarray, Past]:
    """All blocks and the outer norm. The last block computes only the rows that are read out.

    -> hidden (B, R, C), and the keys and values (Hkv, T, D) that a stream which leaves them has in
    each layer; of other streams none
    """
    outer_norms, norm_first = layout.outer_norms(), layout.base.config.norm_first
    x = layout.all_rows.pack(layout.stream.x)  # (N, C)
    if not norm_first:
        x = outer_norms.norm("embedding.norm", x, layout.all_rows)
    own_kv = []
    for layer in layout.layers():
        x, (key, value) = _attention(layer, x)  # (N, C), in the last layer of the answer rows
        x = _mlp(layer, x)
        if layout.stream.leaves_kv:
            own_kv.append((key[0], value[0]))
    if norm_first:
        x = outer_norms.norm("final", x, layout.answer_rows)
    return layout.answer_rows.pad(x), own_kv


def backward(
    layout: StreamLayout, dhidden: np.ndarray, dkv_from_readers: Past | None = None
) -> tuple[np.ndarray, Past]:
    """`forward` from its last line to its first, with what it left on the tape.

    A frozen base's parameters need no gradient. Only those are computed that the layout's
    `gradients` name.

    dhidden (B, R, C). dkv_from_readers: for each layer the gradients (Hkv, T, D) of the keys and
    values that other streams read from this one; None: no stream read them.
    -> dx (B, n, C) of the n leading rows, and for each layer the gradients (Hkv, P, D) of the past
    """
    assert len(layout.readers) == 1  # several pasts are read forward only
    outer_norms, config = layout.outer_norms(), layout.base.config
    dx = layout.answer_rows.pack(dhidden)  # (N, C)
    if config.norm_first:
        dx = outer_norms.norm_dx("final", dx, layout.answer_rows)
    dpast = [None] * config.layers
    for i, layer in reversed([*enumerate(layout.layers())]):
        dx = _mlp_dx(layer, dx)
        dx, dpast[i] = _attention_dx(layer, dx, dkv_from_readers[i] if dkv_from_readers else None)
    if config.layers == 1:  # a last layer goes back to all rows, since answer rows lie anywhere
        dx = layout.grad_rows.pick(dx)
    if not config.norm_first:
        dx = outer_norms.norm_dx("embedding.norm", dx, layout.grad_rows, saw_all_rows=True)
    return layout.grad_rows.pad(dx), dpast


def _attention(layer: Layer, x: np.ndarray) -> tuple[np.ndarray, KeyValue]:
    """x + out(attention(norm(x))): all rows have keys and values, the query rows go on.

    Without norm_first it is norm(x + out(attention(x))).

    x (N, C) -> (N, C) of the query rows, and key and value (B, Hkv, T, D)
    """
    all_rows, query_rows, norm_first = layer.all_rows, layer.query_rows, layer.config.norm_first
    normed = layer.norm("ln1", x, all_rows) if norm_first else x  # (N, C)
    keys = layer.rotate(layer.linear("attn.key", normed), all_rows)  # (N, Hkv·D)
    values = layer.linear("attn.value", normed)  # (N, Hkv·D)
    queries = layer.linear("attn.query", query_rows.pick(normed))  # (N, C)
    queries *= layer.channels_a_head**-0.5
    query = layer.heads(layer.rotate(queries, query_rows), query_rows)  # (B, H, R, D)
    key, value = layer.heads(keys, all_rows), layer.heads(values, all_rows)  # (B, Hkv, T, D)
    attend = _attend_in_blocks if layer.in_blocks else _attend
    if len(layer.readers) > 1:
        attend = _attend_by_past
    context = attend(layer, query, key, value)  # (B, H, R, D)
    out = layer.linear("attn.out", layer.merged(context, query_rows))  # (N, C)
    layer.show("attn.out", out, query_rows)
    middle = layer.show("middle", query_rows.pick(x) + out, query_rows)
    return middle if norm_first else layer.norm("ln1", middle, query_rows), (key, value)


def _attention_dx(
    layer: Layer, dmiddle: np.ndarray, dkv_from_readers: KeyValue | None
) -> tuple[np.ndarray, KeyValue]:
    """`_attention` from its last line to its first.

    dmiddle (N, C): the gradient of what `_attention` returned. dkv_from_readers (Hkv, T, D) twice:
    the gradients of these keys and values that come from the streams that read them as their past
    -> dx (N, C) of the input-grad rows, and the gradients (Hkv, P, D) of the past's
    """
    norm_first, rows = layer.config.norm_first, layer.input_grad_rows
    if not norm_first:
        dmiddle = layer.norm_dx("ln1", dmiddle, layer.query_rows)
    layer.show_grad("middle", dmiddle, layer.query_rows)
    layer.show_grad("attn.out", dmiddle, layer.query_rows)
    dcontext = layer.heads(layer.linear_dx("attn.out", dmiddle), layer.query_rows)  # (B, H, R, D)
    attend_dx = _attend_in_blocks_dx if layer.in_blocks else _attend_dx
    dquery, dkey, dvalue, dpast_kv = attend_dx(layer, dcontext)
    if dkv_from_readers is not None:  # the gradients of the texts enter those of the prompt here
        dkey += dkv_from_readers[0]
        dvalue += dkv_from_readers[1]
    if rows.is_all:
        for name, gradient in (("query", dquery), ("key", dkey), ("value", dvalue)):
            layer.show_grad(f"attn.{name}", gradient)
    dx = layer.linear_dx("attn.key", layer.rotate_dx(layer.merged(dkey, rows), rows))  # (N, C)
    dx += layer.linear_dx("attn.value", layer.merged(dvalue, rows))
    query_rows = layer.query_grad_rows
    dqueries = layer.merged(dquery, query_rows) * layer.channels_a_head**-0.5  # (N, C)
    dqueries = layer.linear_dx("attn.query", layer.rotate_dx(dqueries, query_rows))
    layer.add_to_input_grad(dx, dqueries)
    if norm_first:
        dx = layer.norm_dx("ln1", dx, rows, saw_all_rows=True)
    # The gradient also goes past attention, row by row.
    layer.add_to_input_grad(dx, dmiddle if rows.is_all else rows.pick(dmiddle))
    return dx, dpast_kv


def _attend(layer: Layer, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """query (B, H, R, D), key and value (B, Hkv, T, D) -> context (B, H, R, D)"""
    context, weights, scores = ops.attention(query, key, value, layer.past_kv, layer.mask)
    layer.keep_for_backward("attn.key", key)
    layer.keep_for_backward("attn.value", value)
    layer.keep_for_backward("attn.query", query)
    layer.show("attn.scores", scores)  # (B, H, R, P+T)
    layer.keep_for_backward("attn.weights", weights)  # (B, H, R, P+T)
    return layer.show("attn.context", context)


def _attend_dx(
    layer: Layer, dcontext: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, KeyValue]:
    """Back through softmax and the products, to all that attention multiplied.

    dcontext (B, H, R, D) -> dquery (B, H, min(N, R), D), dkey and dvalue (B, Hkv, N, D) of the N
    input-grad rows, dpast (Hkv, P, D) twice
    """
    parts = (layer.take(f"attn.{part}") for part in ("query", "key", "value", "weights"))
    query, key, value, weights = parts
    past_key, past_value = layer.past_kv
    N = layer.input_grad_rows.rows.shape[1]
    dweights, dscores = ops.attention_dscores(dcontext, value, past_value, weights)
    dpast_kv = ops.attention_dpast(dcontext, dscores, query, weights, past_key)
    dparts = ops.attention_dx(dcontext, dscores, query, key, past_key, weights, N)
    layer.show_grad("attn.context", dcontext)
    layer.show_grad("attn.weights", dweights)
    layer.show_grad("attn.scores", dscores)
    return *dparts, dpast_kv


def _attend_by_past(
    layer: Layer, query: np.ndarray, key: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """As `_attend`, forward only, where texts read different pasts, one product a past.

    query (B, H, R, D), key and value (B, Hkv, T, D) -> context (B, H, R, D)
    """
    context = np.empty_like(query)
    for past_kv, texts in layer.readers:
        mask = layer.mask if layer.mask.ndim == 2 else layer.mask[texts]
        context[texts] = ops.attention(query[texts], key[texts], value[texts], past_kv, mask)[0]
    return context


def _attend_in_blocks(
    layer: Layer, query: np.ndarray, key: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """As `_attend` for all rows of long texts; no one looks at scores and weights.

    query (B, H, T, D), key and value (B, Hkv, T, D) -> context (B, H, T, D)
    """
    lengths, causal = layer.layout.stream.counts, layer.config.causal
    context, log_sums = attention_in_blocks(query, key, value, layer.past_kv, lengths, causal)
    kept = {"key": key, "value": value, "query": query, "context": context, "log_sums": log_sums}
    for name, array in kept.items():
        layer.keep_for_backward(f"attn.{name}", array)
    return context


def _attend_in_blocks_dx(
    layer: Layer, dcontext: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, KeyValue]:
    """As `_attend_dx`, behind `_attend_in_blocks`."""
    names = ("context", "log_sums", "query", "key", "value")
    context, log_sums, query, key, value = (layer.take(f"attn.{name}") for name in names)
    N = layer.input_grad_rows.rows.shape[1]
    if not N:  # only the past needs a gradient: of queries, keys and values no row does
        dpast_kv = attention_dpast_alone(dcontext, context, log_sums, query, layer.past_kv)
        return query[:, :, :0], key[:, :, :0], value[:, :, :0], dpast_kv
    kept = (context, log_sums, query, key, value, layer.past_kv)
    stream, causal = layer.layout.stream, layer.config.causal
    *dparts, dpast_key, dpast_value = attention_in_blocks_dx(dcontext, *kept, stream.counts, causal)
    return *(each[:, :, :N] for each in dparts), (dpast_key, dpast_value)


def _mlp(layer: Layer, x: np.ndarray) -> np.ndarray:
    """x + down(activation(up(norm(x)))), row by row. (N, C) -> (N, C)

    Gated, it is x + down(activation(gate(norm(x))) · up(norm(x))). Without norm_first the norm
    comes after the sum.
    """
    config, rows, into = layer.config, layer.query_rows, layer.into_activation
    normed = layer.norm("ln2", x, rows) if config.norm_first else x
    inner = layer.keep_for_backward(into, layer.linear(into, normed), rows)  # (N, F)
    active, y_over_x = ACTIVATIONS[config.activation][0](inner)
    layer.keep_for_backward("mlp.y_over_x", y_over_x, rows)
    if config.gated:
        up = layer.keep_for_backward("mlp.up", layer.linear("mlp.up", normed), rows)
    product = layer.show("mlp.active", active, rows)
    if config.gated:
        product = layer.show("mlp.product", active * up, rows)
    down = layer.show("mlp.down", layer.linear("mlp.down", product), rows)  # (N, C)
    out = layer.show("out", x + down, rows)
    return out if config.norm_first else layer.norm("ln2", out, rows)


def _mlp_dx(layer: Layer, dout: np.ndarray) -> np.ndarray:
    """`_mlp` from its last line to its first; what skips the MLP is added. (N, C) -> same"""
    config, rows, into = layer.config, layer.query_rows, layer.into_activation
    if not config.norm_first:
        dout = layer.norm_dx("ln2", dout, rows)
    layer.show_grad("out", dout, rows)
    layer.show_grad("mlp.down", dout, rows)
    dactive = layer.linear_dx("mlp.down", dout)  # (N, F)
    inner, y_over_x = layer.take(into), layer.take("mlp.y_over_x")
    if config.gated:
        dproduct = layer.show_grad("mlp.product", dactive, rows)
        # The active gate is x · y / x, as each of `ACTIVATIONS` makes it: no need to keep it.
        dup = layer.show_grad("mlp.up", dproduct * (inner * y_over_x), rows)
        dactive = dproduct * layer.take("mlp.up")
    layer.show_grad("mlp.active", dactive, rows)
    dinner = ACTIVATIONS[config.activation][1](dactive, inner, y_over_x)
    dx = layer.linear_dx(into, layer.show_grad(into, dinner, rows))  # (N, C)
    if config.gated:
        dx += layer.linear_dx("mlp.up", dup)
    if config.norm_first:
        dx = layer.norm_dx("ln2", dx, rows)
    dx += dout
    return dx


def _add_place(base: Base, x: np.ndarray, start: int) -> np.ndarray:
    """Add the embedding of a row's position and of the first segment. x (..., T, C) -> same

    Rotary positions add nothing here: they rotate queries and keys.
    """
    positions = base.params.get("position.table")
    if positions is not None:
        x = x + positions[start : start + x.shape[-2]]
    segments = base.params.get("segment.table")
    return x if segments is None else x + segments[0]
