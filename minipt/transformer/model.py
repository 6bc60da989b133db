"""The transformer: embed, blocks; one forward and one backward for three families.

In: a `Base` (the frozen numbers and their `Config`) and rows of embeddings. Out: the hidden states
of the rows that are read, and on the way back the gradient of the rows that hold a prompt. GPT-2
(Radford et al. 2019) is the plain case: pre-norm blocks, learned positions. Llama and BERT differ
where `Config` says so: another norm or activation out of a table, a gated MLP, rotary positions,
the norm after the sum, a mask that hides only padding.

Two ideas shape this file. In a causal transformer no later token changes what an earlier one
computes, so all that stood in front of a text reaches it through the keys and values that it left
in each layer. They are its `past`; what it leaves itself is its `present`. And all but attention
is done row by row: a row does not know which text it belongs to. So the rows of all texts, and
those of a prompt that stands in front of them, go through norms, linear maps and MLPs as one matrix
(N, C), one under the other, without padding; only attention takes it apart into `Stream`s of texts,
each of which reads what the one before it left. The story continues in `text.py`, where texts
become rows; `wiring.py` will put these functions together into a training step.

Shapes, here and everywhere: B texts, P prompt vectors, T tokens, C channels, H heads, of which Hkv
have keys and values, D = C / H, V vocabulary, L layers, F channels inside the MLP (4C in GPT-2);
R rows of a text that ask, in the last layer those that are read out; N any number of rows.
"""

from collections.abc import Sequence

import numpy as np

from minipt.maths import ops
from minipt.transformer.base import Base
from minipt.transformer.layer import KeyValue, Layer, Pass, Past
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import Gradients, add_gradient

# Forward and backward of each; the forward returns y and the factor y / x, called sigma.
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


def forward(way: Pass) -> tuple[np.ndarray, Past]:
    """All blocks and the outer norm. Of the last one's rows only those that are read out ask.

    -> hidden (B, R, C) of the last stream, and the keys and values (Hkv, T, D) that its first text
    leaves in each layer
    """
    norm_first = way.base.config.norm_first
    x = way.every.join([stream.x for stream in way.streams])  # (N, C)
    if not norm_first:
        x = way.outside().norm("embedding.norm", x, way.every)
    present = []
    for layer in way.layers():
        x, left = _attention(layer, x)  # (N, C), in the last layer of the rows that are read
        x = _mlp(layer, x)
        present.append(left)
    if norm_first:
        x = way.outside().norm("final", x, way.read)
    return way.read.split(x)[-1], present


def backward(way: Pass, dhidden: np.ndarray) -> tuple[list[np.ndarray], Past]:
    """The way back through what `forward` left in the trace.

    A frozen base's parameters need no gradient, and none is computed but of those that the way's
    `gradients` name.

    dhidden (B, R, C) of the last stream
    -> dx (B, N, C) of the wanted rows of each stream, and the gradients of past's arrays
    """
    config = way.base.config
    nothing = [dhidden[:1, :0]] * (len(way.streams) - 1)  # of other streams no rows are read out
    dx = way.read.join([*nothing, dhidden])  # (N, C)
    if config.norm_first:
        dx = way.outside().norm_dx("final", dx, way.read)
    dpast = []
    for layer in reversed(way.layers()):
        dx = _mlp_dx(layer, dx)
        dx, dleft = _attention_dx(layer, dx)  # (N, C), in layer 0 of the rows that are wanted
        dpast.append(dleft)
    if config.layers == 1:  # the last layer goes back to all rows
        dx = way.wanted.of(dx)
    if not config.norm_first:
        dx = way.outside().norm_dx("embedding.norm", dx, way.wanted)
    return way.wanted.split(dx), dpast[::-1]


def _attention(layer: Layer, x: np.ndarray) -> tuple[np.ndarray, KeyValue]:
    """x + out(attention(norm(x))): all rows offer keys and values, the rows that go on ask.

    Without norm_first it is norm(x + out(attention(x))).

    x (N, C) -> (N, C) of the rows that go on, and what the last stream leaves
    """
    every, asking, norm_first = layer.every, layer.asking, layer.config.norm_first
    normed = layer.norm("ln1", x, every) if norm_first else x  # (N, C)
    keys = layer.turn(layer.linear("attn.key", normed), every)  # (N, Hkv·D)
    values = layer.linear("attn.value", normed)  # (N, Hkv·D)
    queries = layer.linear("attn.query", asking.of(normed))  # (N, C)
    queries *= layer.channels_a_head**-0.5
    queries = layer.turn(queries, asking)
    contexts, past = [], layer.past
    parts = (layer.heads(queries, asking), layer.heads(keys, every), layer.heads(values, every))
    for stream, query, key, value in zip(layer.streams, *parts, strict=True):
        contexts.append(_attend(layer, stream, query, key, value, past))
        past = (key[0], value[0])  # (Hkv, T, D)
    out = layer.note("attn.out", layer.linear("attn.out", asking.join(contexts)))  # (N, C)
    middle = layer.note("middle", asking.of(x) + out)
    return middle if norm_first else layer.norm("ln1", middle, asking), past


def _attend(
    layer: Layer,
    stream: Stream,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    past: KeyValue,
) -> np.ndarray:
    """What the asking rows of one stream read: of the past all, of their own text by the mask.

    The query is already divided by √D, and rotary positions have turned query and key.

    query (B, H, R, D), key and value (B, Hkv, T, D), past (Hkv, P, D) twice -> context (B, R, C)
    """
    context, weights, scores = ops.attention(query, key, value, past, layer.mask(stream))
    trace, at = layer.trace, f"{stream.name}.{layer.at}attn"
    trace.save(f"{at}.key", key)
    trace.save(f"{at}.value", value)
    trace.save(f"{at}.query", query)
    trace.note(f"{at}.scores", scores)  # (B, H, R, P+T)
    trace.save(f"{at}.weights", weights)  # (B, H, R, P+T)
    trace.note(f"{at}.context", context)
    return ops.merge_heads(context)


def _attention_dx(layer: Layer, dmiddle: np.ndarray) -> tuple[np.ndarray, KeyValue]:
    """`_attention` from its last line to its first.

    A stream's gradients of what it read in the past are what the stream before it has to add to
    those of its keys and values; so the last stream is the first to go back.

    dmiddle (N, C): the gradient of what `_attention` returned -> dx (N, C) of the rows that are
    needed, and the gradients (Hkv, P, D) of the first stream's past
    """
    norm_first, needed = layer.config.norm_first, layer.needed
    if not norm_first:
        dmiddle = layer.norm_dx("ln1", dmiddle, layer.asking)
    layer.note_grad("middle", dmiddle)
    layer.note_grad("attn.out", dmiddle)
    dcontexts = layer.heads(layer.linear_dx("attn.out", dmiddle), layer.asking)  # (B, H, R, D) each
    pasts = [layer.past, *(layer.left_by(stream) for stream in layer.streams[:-1])]
    dpast, of_streams = None, []
    for stream, past, dcontext in reversed([*zip(layer.streams, pasts, dcontexts, strict=True)]):
        dparts, dpast = _attend_dx(layer, stream, dcontext, past, dpast)
        of_streams.insert(0, dparts)
    dx = _projections_dx(layer, *zip(*of_streams, strict=True))  # (N, C)
    if norm_first:
        dx = layer.norm_dx("ln1", dx, needed)
    # Past attention too the gradient goes on, row by row. In the last layer dmiddle has only the
    # rows that asked, and dx has all; in layer 0 dmiddle has all, and dx only those needed.
    layer.asking.add(dx, needed.of(dmiddle))
    return dx, dpast


def _attend_dx(
    layer: Layer,
    stream: Stream,
    dcontext: np.ndarray,
    past: KeyValue,
    dpresent: KeyValue | None,
) -> tuple[list[np.ndarray], KeyValue]:
    """`_attend` from its last line to its first, for the rows of the stream that are needed.

    dcontext (B, H, R, D), past (Hkv, P, D) twice, dpresent (Hkv, T, D) twice: what the next stream,
    which read these keys and values as its past, adds
    -> dquery (B, min(N, R), C), dkey and dvalue (B, N, Hkv·D), and dpast (Hkv, P, D) twice
    """
    trace, at = layer.trace, f"{stream.name}.{layer.at}attn"
    parts = (trace.take(f"{at}.{part}") for part in ("query", "key", "value", "weights"))
    query, key, value, weights = parts
    N = key.shape[2] if layer.needed is layer.every else stream.wanted
    dweights, dscores = ops.attention_dscores(dcontext, value, past[1], weights)
    dpast = ops.attention_dpast(dcontext, dscores, query, weights, past[0])
    dquery, dkey, dvalue = ops.attention_dx(dcontext, dscores, query, key, past[0], weights, N)
    if dpresent is not None:
        dkey += dpresent[0][:, :N]
        dvalue += dpresent[1][:, :N]
    trace.note_grad(f"{at}.context", dcontext)
    trace.note_grad(f"{at}.weights", dweights)
    trace.note_grad(f"{at}.scores", dscores)
    trace.note_grad(f"{at}.query", dquery)
    trace.note_grad(f"{at}.key", dkey)
    trace.note_grad(f"{at}.value", dvalue)
    return [ops.merge_heads(dpart) for dpart in (dquery, dkey, dvalue)], dpast


def _projections_dx(
    layer: Layer,
    dquery: Sequence[np.ndarray],
    dkey: Sequence[np.ndarray],
    dvalue: Sequence[np.ndarray],
) -> np.ndarray:
    """Back to the rows that query, key and value were made from.

    Of each stream dquery (B, n, C), in the last layer of the rows that are read, and dkey and
    dvalue (B, N, Hkv·D) of the rows that are needed -> dx (N, C) of these
    """
    needed = layer.needed
    asked = layer.asking if needed is layer.every else needed  # the rows that the queries are of
    dx = layer.linear_dx("attn.key", layer.turn_back(needed.join(dkey), needed))
    dx += layer.linear_dx("attn.value", needed.join(dvalue))
    dqueries = asked.join(dquery) * layer.channels_a_head**-0.5  # (N, C)
    layer.asking.add(dx, layer.linear_dx("attn.query", layer.turn_back(dqueries, asked)))
    return dx


def _mlp(layer: Layer, x: np.ndarray) -> np.ndarray:
    """x + down(activation(up(norm(x)))), row by row. (N, C) -> (N, C)

    Gated, it is x + down(activation(gate(norm(x))) · up(norm(x))). Without norm_first the norm
    comes after the sum.
    """
    config, bent = layer.config, layer.bent
    normed = layer.norm("ln2", x, layer.asking) if config.norm_first else x
    inner = layer.save(bent, layer.linear(bent, normed))  # (N, F)
    active, sigma = ACTIVATIONS[config.activation][0](inner)
    layer.save("mlp.sigma", sigma)
    if config.gated:
        up = layer.save("mlp.up", layer.linear("mlp.up", normed))
        product = layer.note("mlp.product", layer.note("mlp.active", active) * up)
    else:
        product = layer.note("mlp.active", active)
    down = layer.note("mlp.down", layer.linear("mlp.down", product))  # (N, C)
    out = layer.note("out", x + down)
    return out if config.norm_first else layer.norm("ln2", out, layer.asking)


def _mlp_dx(layer: Layer, dout: np.ndarray) -> np.ndarray:
    """`_mlp` from its last line to its first; what skips the MLP is added. (N, C) -> same"""
    config, bent = layer.config, layer.bent
    if not config.norm_first:
        dout = layer.norm_dx("ln2", dout, layer.asking)
    layer.note_grad("out", dout)
    layer.note_grad("mlp.down", dout)
    dactive = layer.linear_dx("mlp.down", dout)  # (N, F)
    inner, sigma = layer.take(bent), layer.take("mlp.sigma")
    if config.gated:
        dproduct = layer.note_grad("mlp.product", dactive)
        active = inner * sigma  # (N, F), as each of `ACTIVATIONS` makes it: no need to keep it
        dup = layer.note_grad("mlp.up", dproduct * active)
        dactive = dproduct * layer.take("mlp.up")
    layer.note_grad("mlp.active", dactive)
    dinner = ACTIVATIONS[config.activation][1](dactive, inner, sigma)
    dx = layer.linear_dx(bent, layer.note_grad(bent, dinner))  # (N, C)
    if config.gated:
        dx += layer.linear_dx("mlp.up", dup)
    if config.norm_first:
        dx = layer.norm_dx("ln2", dx, layer.asking)
    dx += dout
    return dx


def _place(base: Base, x: np.ndarray, start: int) -> np.ndarray:
    """What is added for a row's place: its position's embedding and the first segment's.

    Rotary positions add nothing here: they turn queries and keys. x (..., T, C) -> (..., T, C)
    """
    for_place = base.params.get("position.table")
    if for_place is not None:
        x = x + for_place[start : start + x.shape[-2]]
    segments = base.params.get("segment.table")
    return x if segments is None else x + segments[0]
