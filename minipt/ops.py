"""The mathematics: pure functions on arrays, each forward directly above its backward.

In: arrays. Out: arrays, and by name whatever the backward will need. An op has no state, no
parameters of its own and no opinion about the model it serves. For an output y of a scalar loss,
`dy` stands for the array of derivatives d loss / d y, of the shape of y; `op_dx` turns dy into the
gradient of the op's input and `op_dw` into that of its weights. The two are apart because a frozen
model needs only the first. Attention has three inputs and a past, hence `_dscores` and `_dpast`.
The story continues in `trace.py`, where the arrays get their names, and in `model.py`, where the
ops become a transformer.

Shapes: B texts, T tokens, P prompt vectors (the past), R rows that ask, C channels, H heads,
D = C / H channels a head, V vocabulary, K choices. `(..., C)` is any number of leading axes.
"""

import numpy as np

Array = np.ndarray


def embedding(ids: Array, table: Array) -> Array:
    """One row of the table per id: y[b, t] = table[ids[b, t]].

    ids (B, T) integers below V, table (V, C) -> y (B, T, C)
    """
    return table[ids]


def embedding_dw(dy: Array, ids: Array, vocabulary: int) -> Array:
    """Each row of the table collects the gradients of all the places where it was used.

    y[b, t] = Σ_v [ids[b, t] = v] table[v], so d table[v] = Σ_{b, t: ids[b, t] = v} dy[b, t].

    dy (B, T, C), ids (B, T) -> dtable (V, C)
    """
    dtable = np.zeros((vocabulary, dy.shape[-1]), dy.dtype)
    np.add.at(dtable, ids, dy)
    return dtable


def linear(x: Array, weight: Array, bias: Array) -> Array:
    """y_j = Σ_i x_i weight_ij + bias_j.

    x (..., I), weight (I, J), bias (J,) -> y (..., J)
    """
    y = _rows(x) @ weight
    y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1])


def linear_dx(dy: Array, weight: Array) -> Array:
    """d y_j / d x_i = weight_ij, so dx_i = Σ_j dy_j weight_ij.

    dy (..., J), weight (I, J) -> dx (..., I)
    """
    return (_rows(dy) @ weight.T).reshape(*dy.shape[:-1], weight.shape[0])


def linear_dw(dy: Array, x: Array) -> tuple[Array, Array]:
    """d y_j / d weight_ij = x_i and d y_j / d bias_j = 1, summed over every row that used them.

    dy (..., J), x (..., I) -> dweight (I, J), dbias (J,)
    """
    return _rows(x).T @ _rows(dy), _rows(dy).sum(0)


def layernorm(x: Array, gain: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Centre each row, divide it by its deviation, scale and shift (Ba et al. 2016, eq. 4).

    xhat = (x - mean(x)) rstd with rstd = 1 / √(mean((x - mean(x))²) + epsilon)
    y = gain xhat + bias

    x (..., C), gain (C,), bias (C,) -> y (..., C), xhat (..., C), rstd (..., 1)
    """
    xhat = x - _row_mean(x)
    rstd = 1.0 / np.sqrt(np.vecdot(xhat, xhat)[..., None] / x.shape[-1] + epsilon)
    xhat *= rstd
    y = xhat * gain
    y += bias
    return y, xhat, rstd


def layernorm_dx(dy: Array, gain: Array, xhat: Array, rstd: Array) -> Array:
    """Three ways lead from x to y: directly, through the row's mean and through its deviation.

    With dxhat = gain dy, the direct way gives rstd dxhat_i. The mean moves every xhat_j by
    -rstd / C as x_i moves by 1, which gives -rstd mean(dxhat). For the deviation,
    d rstd / d x_i = -rstd² xhat_i / C, and xhat_j = (x_j - mean) rstd gives
    -rstd xhat_i mean(dxhat xhat). Together:

    dx = rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat))

    dy (..., C), gain (C,), xhat (..., C), rstd (..., 1) -> dx (..., C)
    """
    dx = dy * gain
    along = np.vecdot(dx, xhat)[..., None] / dy.shape[-1]
    dx -= _row_mean(dx)
    dx -= xhat * along
    dx *= rstd
    return dx


def layernorm_dw(dy: Array, xhat: Array) -> tuple[Array, Array]:
    """y = gain xhat + bias, so dgain = Σ dy xhat and dbias = Σ dy, over all rows.

    dy (..., C), xhat (..., C) -> dgain (C,), dbias (C,)
    """
    return _rows(dy * xhat).sum(0), _rows(dy).sum(0)


# GELU's tanh form: ½ (1 + tanh u) = σ(2u), with 2u = GELU_LINEAR x + GELU_CUBIC x³.
GELU_LINEAR = 2.0 * (2.0 / np.pi) ** 0.5
GELU_CUBIC = 0.044715 * GELU_LINEAR


def gelu(x: Array) -> tuple[Array, Array]:
    """x times (nearly) the probability that a normal variable is below x (Hendrycks & Gimpel 2016).

    GPT-2's tanh form is ½ x (1 + tanh u) with u = √(2/π) (x + 0.044715 x³). Since
    ½ (1 + tanh u) = 1 / (1 + e^-2u) = σ(2u), it is y = x σ(2u), and an exponential is cheaper
    than a tanh. Where e^-2u overflows, σ(2u) is 1 / infinity: 0, as it should be.

    x (..., C) -> y (..., C), sigma (..., C)
    """
    with np.errstate(over="ignore"):
        sigma = x * x
        sigma *= -GELU_CUBIC
        sigma -= GELU_LINEAR
        sigma *= x
        np.exp(sigma, out=sigma)
    sigma += 1.0
    np.reciprocal(sigma, out=sigma)
    return x * sigma, sigma


def gelu_dx(dy: Array, x: Array, sigma: Array) -> Array:
    """y = x σ(z) with z = GELU_LINEAR x + GELU_CUBIC x³ and σ' = σ (1 - σ), so

    dx = dy (σ + x σ (1 - σ) (GELU_LINEAR + 3 GELU_CUBIC x²))

    dy (..., C), x (..., C), sigma (..., C) -> dx (..., C)
    """
    dx = x * x
    dx *= 3.0 * GELU_CUBIC
    dx += GELU_LINEAR
    dx *= sigma
    dx *= 1.0 - sigma
    dx *= x
    dx += sigma
    dx *= dy
    return dx


def softmax(scores: Array) -> Array:
    """weights_j = e^scores_j / Σ_i e^scores_i; a score of -inf, a masked one, gets exactly 0.

    The row's maximum is taken off first: it cancels in the quotient and keeps e^scores finite.

    scores (..., S), at least one finite score a row -> weights (..., S)
    """
    weights = scores - scores.max(-1, keepdims=True)
    np.exp(weights, out=weights)
    weights *= 1.0 / _row_sum(weights)
    return weights


def softmax_dx(dweights: Array, weights: Array) -> Array:
    """d weights_j / d scores_i = weights_j ([i = j] - weights_i), so

    dscores_i = weights_i (dweights_i - Σ_j dweights_j weights_j)

    A masked score has weight 0, hence gradient 0.

    dweights (..., S), weights (..., S) -> dscores (..., S)
    """
    dscores = dweights - np.vecdot(dweights, weights)[..., None]
    dscores *= weights
    return dscores


def attention(
    query: Array, key: Array, value: Array, past: tuple[Array, Array], mask: Array
) -> tuple[Array, Array, Array]:
    """Each row that asks reads the values whose keys fit its query (Vaswani et al. 2017, eq. 1).

    scores = query · [past_key; key] + [0; mask]; weights = softmax(scores)
    context = Σ_s weights_s [past_value; value]_s

    The query comes in already divided by √D. The past stands before every text, is visible to all
    rows and is the same for all B texts, so its products are one large matrix product a head.

    query (B, H, R, D), key and value (B, H, T, D), past: two arrays (H, P, D), P may be 0,
    mask broadcasting to (B, H, R, T), 0 or -inf
    -> context (B, H, R, D), weights (B, H, R, P+T), scores (B, H, R, P+T)
    """
    past_key, past_value = past
    scores = _products(query, key, past_key)  # (B, H, R, P+T)
    scores[..., past_key.shape[1] :] += mask
    weights = softmax(scores)  # (B, H, R, P+T)
    context = _weighted_sums(weights, value, past_value)  # (B, H, R, D)
    return context, weights, scores


def attention_dscores(
    dcontext: Array, value: Array, past_value: Array, weights: Array
) -> tuple[Array, Array]:
    """context = Σ_s weights_s value_s, so dweights_s = dcontext · value_s; then back by softmax.

    dcontext (B, H, R, D), value (B, H, T, D), past_value (H, P, D), weights (B, H, R, P+T)
    -> dweights (B, H, R, P+T), dscores (B, H, R, P+T)
    """
    dweights = _products(dcontext, value, past_value)  # (B, H, R, P+T)
    return dweights, softmax_dx(dweights, weights)


def attention_dx(
    dcontext: Array,
    dscores: Array,
    query: Array,
    key: Array,
    past_key: Array,
    weights: Array,
    wanted: int,
) -> tuple[Array, Array, Array]:
    """scores_rs = query_r · key_s and context_r = Σ_s weights_rs value_s are linear in each factor:

    dquery_r = Σ_s dscores_rs key_s, dkey_s = Σ_r dscores_rs query_r,
    dvalue_s = Σ_r weights_rs dcontext_r

    Only for the first N = `wanted` rows r of the queries and s of the keys: what no one needs is
    not computed.

    dcontext (B, H, R, D), dscores (B, H, R, P+T), query (B, H, R, D), key (B, H, T, D),
    past_key (H, P, D), weights (B, H, R, P+T)
    -> dquery (B, H, min(N, R), D), dkey and dvalue (B, H, min(N, T), D)
    """
    first = slice(past_key.shape[1], past_key.shape[1] + wanted)
    dquery = _weighted_sums(dscores[:, :, :wanted], key, past_key)  # (B, H, N, D)
    dkey = _column_sums(dscores[..., first], query)  # (B, H, N, D)
    dvalue = _column_sums(weights[..., first], dcontext)  # (B, H, N, D)
    return dquery, dkey, dvalue


def attention_dpast(
    dcontext: Array, dscores: Array, query: Array, weights: Array, past: int
) -> tuple[Array, Array]:
    """As `attention_dx`, for the keys and values that all texts share: also summed over the texts.

    dpast_key_p = Σ_b Σ_r dscores_brp query_br, dpast_value_p = Σ_b Σ_r weights_brp dcontext_br

    dcontext and query (B, H, R, D), dscores and weights (B, H, R, P+T), past = P
    -> dpast_key, dpast_value (H, P, D)
    """
    dpast_key = _heads_first(dscores)[..., :past].transpose(0, 2, 1) @ _heads_first(query)
    dpast_value = _heads_first(weights)[..., :past].transpose(0, 2, 1) @ _heads_first(dcontext)
    return dpast_key, dpast_value  # (H, P, B·R) @ (H, B·R, D) each


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """loss = -log p_target with p = softmax(logits), in nats, one a row.

    logits (N, K), targets (N,) integers below K -> losses (N,), probabilities (N, K)
    """
    shifted = logits - logits.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = _row_sum(exponentials)  # (N, 1)
    losses = np.log(sums[:, 0]) - shifted[np.arange(len(targets)), targets]
    return losses, exponentials / sums


def cross_entropy_dx(dlosses: Array, probabilities: Array, targets: Array) -> Array:
    """loss = log Σ_j e^logits_j - logits_target, so dlogits_j = (p_j - [j = target]) dloss.

    dlosses (N,), probabilities (N, K), targets (N,) -> dlogits (N, K)
    """
    dlogits = probabilities.copy()
    dlogits[np.arange(len(targets)), targets] -= 1.0
    dlogits *= dlosses[:, None]
    return dlogits


def split_heads(x: Array, heads: int) -> Array:
    """The C channels as H heads of D, a view. (B, T, C) -> (B, H, T, D)"""
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """The inverse of `split_heads`, and so its backward too. (B, H, T, D) -> (B, T, C)"""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


# Attention is three products and no more; each serves the forward and the backward. In memory,
# scores lie head by head, (H, B, R, S), so that the rows of all texts can meet the shared past in
# one matrix product a head; context lies row by row, (B, R, H, D), so that merging heads is a view.


def _products(rows: Array, columns: Array, past: Array) -> Array:
    """rows · [past; columns]: rows (B, H, R, D), columns (B, H, T, D), past (H, P, D)."""
    B, H, R, _ = rows.shape
    P, T = past.shape[1], columns.shape[2]
    products = np.empty((H, B, R, P + T), rows.dtype)
    np.matmul(
        _heads_first(rows),
        past.transpose(0, 2, 1),
        out=products.reshape(H, B * R, P + T)[..., :P],
    )
    products = products.transpose(1, 0, 2, 3)  # (B, H, R, P+T)
    np.matmul(rows, columns.transpose(0, 1, 3, 2), out=products[..., P:])
    return products


def _weighted_sums(weights: Array, columns: Array, past: Array) -> Array:
    """Σ_s weights_s [past; columns]_s: (B, H, R, P+T), (B, H, T, D), (H, P, D) -> (B, H, R, D)."""
    B, H, R, _ = weights.shape
    P, D = past.shape[1:]
    sums = np.empty((B, R, H, D), weights.dtype).transpose(0, 2, 1, 3)  # (B, H, R, D)
    np.matmul(weights[..., P:], columns, out=sums)
    if P:
        from_past = _heads_first(weights)[..., :P] @ past  # (H, B·R, D)
        sums += from_past.reshape(H, B, R, D).transpose(1, 0, 2, 3)
    return sums


def _column_sums(weights: Array, rows: Array) -> Array:
    """Σ_r weights_rs rows_r for each column s: (B, H, R, T), (B, H, R, D) -> (B, H, T, D)."""
    B, H, _, T = weights.shape
    sums = np.empty((B, T, H, rows.shape[-1]), rows.dtype).transpose(0, 2, 1, 3)
    return np.matmul(weights.transpose(0, 1, 3, 2), rows, out=sums)


def _heads_first(x: Array) -> Array:
    """(B, H, R, E) -> (H, B·R, E), a view for the two memory layouts above."""
    B, H, R, E = x.shape
    return x.transpose(1, 0, 2, 3).reshape(H, B * R, E)


def _rows(x: Array) -> Array:
    """All leading axes as one, so that a product is one large call, not one a text."""
    return x.reshape(-1, x.shape[-1])


def _row_sum(x: Array) -> Array:
    """Σ over the last axis as a product with ones: several times as fast as `sum` on short rows."""
    return np.vecdot(x, np.ones(x.shape[-1], x.dtype))[..., None]


def _row_mean(x: Array) -> Array:
    return _row_sum(x) / x.shape[-1]
