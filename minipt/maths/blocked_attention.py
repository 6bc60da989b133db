"""Attention over long texts, a block of rows at a time: its memory grows with T, not with T².

In: what `ops.attention` takes, with lengths in place of a mask. Out: the same context; and the same
gradients, without scores and weights of all rows between the two.

`ops.attention` keeps the weights (B, H, T, P+T) of every layer until the backward pass. Here only
one number a row is kept, the logarithm of its sum of exponentials:

    log_sum_r = log Σ_s e^score_rs,    so    weight_rs = e^(score_rs - log_sum_r)

The backward pass makes the scores again from queries and keys, and the weights from the scores
(Rabe & Staats 2021; Dao et al. 2022, section 3.1). `softmax_dx` needs Σ_s dweight_rs weight_rs over
the whole row. With dweight_rs = dcontext_r · value_s this sum needs no weights:

    Σ_s weight_rs dcontext_r · value_s = dcontext_r · Σ_s weight_rs value_s = dcontext_r · context_r

So dscore_rs = weight_rs (dcontext_r · value_s - dcontext_r · context_r), for any block of rows.

A row of a causal base reads no key behind itself. So a block reads no key behind its last row, and
half of the products are never made. A block is also small enough to stay in the processor's cache,
so it is faster than `ops.attention` for all but short texts.

The letters of the shapes are those of `ops`; G = H / Hkv query heads share a key head, N rows are
in a block, S columns are read by it.
"""

from collections.abc import Iterator

import numpy as np

from minipt.maths.attention_products import past_sums, products

Array = np.ndarray
# Of 32, 64, 128 and 256 rows the fastest. From so many tokens on it is faster than `ops.attention`:
# forward and backward of B=16, H=8, D=32, P=20 take 9 ms instead of 12 at T=64 and 23 instead of 37
# at T=128 with one thread, those of B=4 48 instead of 113 at T=512. At T=24 they take 5.4 and 4.6.
BLOCK = 64
LONG_TEXT = 64


def attention_in_blocks(
    query: Array, key: Array, value: Array, past: tuple[Array, Array], lengths: Array, causal: bool
) -> tuple[Array, Array]:
    """`ops.attention`, of which only the context and the rows' log sums are kept.

    lengths (B,): the real rows of each text; those of padding get zeros. causal: whether a row
    reads the rows before it and itself; otherwise it reads all real rows.

    query (B, H, T, D), key and value (B, Hkv, T, D), past: two arrays (Hkv, P, D)
    -> context (B, H, T, D), log_sums (B, H, T, 1)
    """
    B, H, T, D = query.shape
    context = np.zeros((B, T, H, D), query.dtype).transpose(0, 2, 1, 3)  # (B, H, T, D)
    log_sums = np.zeros((B, H, T, 1), query.dtype)
    for b, length in enumerate(lengths):
        keys, values = _behind(past[0], key[b, :, :length]), _behind(past[1], value[b, :, :length])
        for rows, columns in _blocks(length, past[0].shape[1], causal):
            scores = _block_scores(query[b, :, rows], keys[:, columns], causal)  # (Hkv, G·N, S)
            peaks = scores.max(-1, keepdims=True)  # (Hkv, G·N, 1)
            scores -= peaks
            exponentials = np.exp(scores, out=scores)
            sums = exponentials.sum(-1, keepdims=True)  # (Hkv, G·N, 1)
            block = exponentials @ values[:, columns] / sums  # (Hkv, G·N, D)
            context[b, :, rows] = block.reshape(H, -1, D)
            log_sums[b, :, rows] = (peaks + np.log(sums)).reshape(H, -1, 1)
    return context, log_sums


def attention_in_blocks_dx(
    dcontext: Array,
    context: Array,
    log_sums: Array,
    query: Array,
    key: Array,
    value: Array,
    past: tuple[Array, Array],
    lengths: Array,
    causal: bool,
) -> tuple[Array, Array, Array, Array, Array]:
    """The gradients of all that attention multiplies; the sums are those of `ops.attention_dx`.

    dcontext, context and query (B, H, T, D), log_sums (B, H, T, 1), key and value (B, Hkv, T, D),
    past: two arrays (Hkv, P, D), lengths (B,)
    -> dquery (B, H, T, D), dkey and dvalue (B, Hkv, T, D), dpast_key and dpast_value (Hkv, P, D)
    """
    P = past[0].shape[1]
    dquery, dkey, dvalue = _zeros_like(query), _zeros_like(key), _zeros_like(value)
    dpast_key, dpast_value = np.zeros_like(past[0]), np.zeros_like(past[1])
    for b, length in enumerate(lengths):
        keys, values = _behind(past[0], key[b, :, :length]), _behind(past[1], value[b, :, :length])
        dkeys, dvalues = np.zeros_like(keys), np.zeros_like(values)  # (Hkv, P+T, D)
        for rows, columns in _blocks(length, P, causal):
            block_query, dblock = (_grouped(x[b, :, rows], len(keys)) for x in (query, dcontext))
            weights = _block_scores(query[b, :, rows], keys[:, columns], causal)
            weights -= _grouped(log_sums[b, :, rows], len(keys))
            np.exp(weights, out=weights)  # (Hkv, G·N, S)
            along = np.vecdot(dcontext[b, :, rows], context[b, :, rows])[..., None]  # (H, N, 1)
            dscores = dblock @ values[:, columns].transpose(0, 2, 1)  # (Hkv, G·N, S)
            dscores -= _grouped(along, len(keys))
            dscores *= weights
            dquery[b, :, rows] = (dscores @ keys[:, columns]).reshape(dquery[b, :, rows].shape)
            dkeys[:, columns] += dscores.transpose(0, 2, 1) @ block_query
            dvalues[:, columns] += weights.transpose(0, 2, 1) @ dblock
        dpast_key += dkeys[:, :P]
        dpast_value += dvalues[:, :P]
        dkey[b, :, :length], dvalue[b, :, :length] = dkeys[:, P:], dvalues[:, P:]
    return dquery, dkey, dvalue, dpast_key, dpast_value


def attention_dpast_alone(
    dcontext: Array, context: Array, log_sums: Array, query: Array, past: tuple[Array, Array]
) -> tuple[Array, Array]:
    """The past's gradients where nothing else needs one, from the P columns of the past only.

    dcontext, context and query (B, H, T, D), log_sums (B, H, T, 1), past: two arrays (Hkv, P, D)
    -> dpast_key, dpast_value (Hkv, P, D)
    """
    B, Hkv, (_, P, D) = len(query), len(past[0]), past[0].shape
    nothing = np.empty((B, Hkv, 0, D), query.dtype)
    weights = np.exp(products(query, nothing, past[0]) - log_sums)  # (B, H, T, P)
    dscores = products(dcontext, nothing, past[1])  # (B, H, T, P)
    dscores -= np.vecdot(dcontext, context)[..., None]
    dscores *= weights
    return past_sums(dscores, query, Hkv, P), past_sums(weights, dcontext, Hkv, P)


def _blocks(length: int, P: int, causal: bool) -> Iterator[tuple[slice, slice]]:
    """The rows of each block, and the columns of [past; text] that it reads."""
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        yield slice(start, stop), slice(0, P + (stop if causal else length))


def _block_scores(query: Array, keys: Array, causal: bool) -> Array:
    """query · keys, and -inf behind a row. (H, N, D), (Hkv, S, D) -> (Hkv, G·N, S)"""
    Hkv, N = len(keys), query.shape[1]
    scores = _grouped(query, Hkv) @ keys.transpose(0, 2, 1)  # (Hkv, G·N, S)
    if causal:  # the block's own columns come last
        mask = np.triu(np.full((N, N), -np.inf, query.dtype), k=1)
        scores.reshape(Hkv, -1, N, scores.shape[-1])[..., -N:] += mask
    return scores


def _behind(past: Array, own: Array) -> Array:
    """(Hkv, P, D), (Hkv, T, D) -> (Hkv, P+T, D)"""
    return np.concatenate([past, own], axis=1)


def _grouped(x: Array, Hkv: int) -> Array:
    """The rows of the query heads that share a key head, as one: (H, N, E) -> (Hkv, G·N, E)"""
    H, N, E = x.shape
    return x.reshape(Hkv, H // Hkv * N, E)


def _zeros_like(heads: Array) -> Array:
    """Zeros (B, H, T, D) that lie in memory row by row, so that merging heads is a view."""
    B, H, T, D = heads.shape
    return np.zeros((B, T, H, D), heads.dtype).transpose(0, 2, 1, 3)
