"""The matrix products that attention is made of, and how scores lie in memory.

In: rows of queries or gradients, columns of keys or values, and the past, which all B texts share.
Out: the products. `products` and `weighted_sums` serve the forward and the backward, `column_sums`
and `past_sums` the backward only. The letters of the shapes are those of `ops`.

Scores lie in memory head by head, (H, B, R, S). So the rows of all texts, and of all query heads
that share a key head, meet the past in one matrix product. Context lies row by row, (B, R, H, D),
so merging heads is a view.
"""

import numpy as np

Array = np.ndarray


def products(rows: Array, columns: Array, past: Array) -> Array:
    """rows · [past; columns], a product of each row with each column.

    rows (B, H, R, D), columns (B, Hkv, T, D), past (Hkv, P, D) -> products (B, H, R, P+T)
    """
    B, H, R, _ = rows.shape
    Hkv, P, _ = past.shape
    T = columns.shape[2]
    scores = np.empty((H, B, R, P + T), rows.dtype)
    with_past = scores.reshape(Hkv, H // Hkv * B * R, P + T)[..., :P]
    np.matmul(_heads_first(rows, Hkv), past.transpose(0, 2, 1), out=with_past)
    scores = scores.transpose(1, 0, 2, 3)  # (B, H, R, P+T)
    columns = columns.transpose(0, 1, 3, 2)[:, :, None]  # (B, Hkv, 1, D, T)
    np.matmul(_grouped(rows, Hkv), columns, out=_grouped(scores, Hkv)[..., P:])
    return scores


def weighted_sums(weights: Array, columns: Array, past: Array) -> Array:
    """Σ_s weights_s [past; columns]_s for each row.

    weights (B, H, R, P+T), columns (B, Hkv, T, D), past (Hkv, P, D) -> sums (B, H, R, D)
    """
    B, H, R, _ = weights.shape
    Hkv, P, D = past.shape
    sums = np.empty((B, R, H, D), weights.dtype).transpose(0, 2, 1, 3)  # (B, H, R, D)
    np.matmul(_grouped(weights, Hkv)[..., P:], columns[:, :, None], out=_grouped(sums, Hkv))
    if P:
        from_past = _heads_first(weights, Hkv)[..., :P] @ past  # (Hkv, H/Hkv·B·R, D)
        sums += from_past.reshape(H, B, R, D).transpose(1, 0, 2, 3)
    return sums


def column_sums(weights: Array, rows: Array, Hkv: int) -> Array:
    """Σ_r weights_rs rows_r for each column s. (B, H, R, T), (B, H, R, D) -> (B, Hkv, T, D)"""
    B, H, _, T = weights.shape
    sums = np.empty((B, T, Hkv, rows.shape[-1]), rows.dtype).transpose(0, 2, 1, 3)
    weights, rows = _grouped(weights.transpose(0, 1, 3, 2), Hkv), _grouped(rows, Hkv)
    np.matmul(weights[:, :, 0], rows[:, :, 0], out=sums)
    for g in range(1, H // Hkv):
        sums += weights[:, :, g] @ rows[:, :, g]
    return sums


def past_sums(weights: Array, rows: Array, Hkv: int, P: int) -> Array:
    """Σ_b Σ_r weights_brp rows_br for each column p of the past, which comes first.

    weights (B, H, R, P+T), rows (B, H, R, D) -> sums (Hkv, P, D)
    """
    weights = _heads_first(weights, Hkv)[..., :P]  # (Hkv, H/Hkv·B·R, P)
    return weights.transpose(0, 2, 1) @ _heads_first(rows, Hkv)


def _grouped(x: Array, Hkv: int) -> Array:
    """Query heads grouped by the key head they share, a view: -> (B, Hkv, H/Hkv, R, E)"""
    B, H, R, E = x.shape
    return x.reshape(B, Hkv, H // Hkv, R, E)


def _heads_first(x: Array, Hkv: int) -> Array:
    """The rows of all texts one below the other, of scores a view: -> (Hkv, H/Hkv·B·R, E)"""
    B, H, R, E = x.shape
    return x.transpose(1, 0, 2, 3).reshape(Hkv, H // Hkv * B * R, E)
