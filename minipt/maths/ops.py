"""The mathematics: pure functions on arrays, each forward directly above its backward.

In: arrays. Out: arrays, and by name whatever the backward will need. An op has no state, no
parameters of its own and no opinion about the model it serves. For an output y of a scalar loss,
`dy` stands for the array of derivatives d loss / d y, of the shape of y; `op_dx` turns dy into the
gradient of the op's input and `op_dw` into that of its weights. The two are apart because a frozen
model needs only the first. Attention has three inputs and a past, hence `_dscores` and `_dpast`.
The story continues in `trace.py`, where the arrays get their names, and in `model.py`, where the
ops become a transformer.

Shapes: B texts, T tokens, P prompt vectors (the past), R rows that ask, C channels, H heads, of
which Hkv have keys and values, D = C / H channels a head, S columns of scores, P + T of them in
attention, V vocabulary, K choices, N any number of rows. `(..., C)` is any number of leading axes.
"""

import math
from functools import cache

import numpy as np

Array = np.ndarray

FEW_ROWS = 32  # up to so many, see `times_transposed`


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


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """y_j = Σ_i x_i weight_ij + bias_j, or without the bias.

    x (..., I), weight (I, J), bias (J,) or None -> y (..., J)
    """
    y = _rows(x) @ weight
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1])


def linear_dx(dy: Array, weight: Array) -> Array:
    """d y_j / d x_i = weight_ij, so dx_i = Σ_j dy_j weight_ij.

    dy (..., J), weight (I, J) -> dx (..., I)
    """
    return times_transposed(_rows(dy), weight).reshape(*dy.shape[:-1], weight.shape[0])


def linear_dw(dy: Array, x: Array) -> Array:
    """d y_j / d weight_ij = x_i, summed over every row that used it: dweight_ij = Σ x_i dy_j.

    dy (..., J), x (..., I) -> dweight (I, J)
    """
    return _rows(x).T @ _rows(dy)


def linear_db(dy: Array) -> Array:
    """d y_j / d bias_j = 1, summed over every row that used it. No input is needed.

    dy (..., J) -> dbias (J,)
    """
    return _rows(dy).sum(0)


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


def rmsnorm(x: Array, gain: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Divide each row by its root mean square and scale it (Zhang & Sennrich 2019, eq. 4).

    xhat = x rstd with rstd = 1 / √(mean(x²) + epsilon); y = gain xhat: `layernorm` without its mean
    and bias.

    x (..., C), gain (C,) -> y (..., C), xhat (..., C), rstd (..., 1)
    """
    rstd = 1.0 / np.sqrt(np.vecdot(x, x)[..., None] / x.shape[-1] + epsilon)
    xhat = x * rstd
    return xhat * gain, xhat, rstd


def rmsnorm_dx(dy: Array, gain: Array, xhat: Array, rstd: Array) -> Array:
    """`layernorm_dx` without the way through the mean: dx = rstd (dxhat - xhat mean(dxhat xhat))

    dy (..., C), gain (C,), xhat (..., C), rstd (..., 1) -> dx (..., C)
    """
    dx = dy * gain
    along = np.vecdot(dx, xhat)[..., None] / dy.shape[-1]
    dx -= xhat * along
    dx *= rstd
    return dx


def rmsnorm_dw(dy: Array, xhat: Array) -> tuple[Array]:
    """y = gain xhat, so dgain = Σ dy xhat over all rows.

    dy (..., C), xhat (..., C) -> dgain (C,), the only weights, as a tuple like `layernorm_dw`'s
    """
    return (_rows(dy * xhat).sum(0),)


# GELU's tanh form: ½ (1 + tanh u) = σ(2u), with 2u = GELU_LINEAR x + GELU_CUBIC x³.
GELU_LINEAR = 2.0 * (2.0 / math.pi) ** 0.5
GELU_CUBIC = 0.044715 * GELU_LINEAR

# The normal distribution's density at 0, and the table that Φ is read from.
NORMAL_PEAK = (2.0 * math.pi) ** -0.5
NORMAL_END = 8.5
NODES_PER_UNIT = 4096.0


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
    np.divide(1.0, sigma, out=sigma)
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


def gelu_erf(x: Array) -> tuple[Array, Array]:
    """GELU as it was defined, y = x Φ(x), Φ being the normal distribution function.

    x (..., C) -> y (..., C), phi (..., C), which is Φ(x)
    """
    phi = _normal_distribution(x)
    return x * phi, phi


def gelu_erf_dx(dy: Array, x: Array, phi: Array) -> Array:
    """y = x Φ(x) and dΦ/dx = e^(-x²/2) / √(2π), so dx = dy (Φ + x e^(-x²/2) / √(2π))

    dy (..., C), x (..., C), phi (..., C) -> dx (..., C)
    """
    dx = x * x
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= x
    dx *= NORMAL_PEAK
    dx += phi
    dx *= dy
    return dx


def silu(x: Array) -> tuple[Array, Array]:
    """y = x σ(x) with σ(x) = 1 / (1 + e^-x) (Hendrycks & Gimpel 2016, Elfwing et al. 2018).

    x (..., C) -> y (..., C), sigma (..., C)
    """
    with np.errstate(over="ignore"):  # 1 / infinity is 0, as it should be
        sigma = np.exp(-x)
    sigma += 1.0
    np.divide(1.0, sigma, out=sigma)
    return x * sigma, sigma


def silu_dx(dy: Array, x: Array, sigma: Array) -> Array:
    """dσ/dx = σ (1 - σ), so dx = dy σ (1 + x (1 - σ))

    dy (..., C), x (..., C), sigma (..., C) -> dx (..., C)
    """
    dx = 1.0 - sigma
    dx *= x
    dx += 1.0
    dx *= sigma
    dx *= dy
    return dx


def rotary_turns(positions: Array, channels: int, base: float, dtype: type) -> tuple[Array, Array]:
    """The cosines and sines that `rotary` turns by (Su et al. 2021, section 3.2.2).

    Pair i of a head's D channels turns by the angle position / base^(2i / D), the first pair fast
    and the last slowly, so that a query's product with a key depends on how far apart they stand.
    Both halves of the channels have the pairs' cosines; the first half has the sines with a minus.

    positions (..., T), channels = D -> cos, sin (..., T, D)
    """
    angles = positions[..., None] / base ** (np.arange(0, channels, 2) / channels)  # (..., T, D/2)
    cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    return np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)


def rotary(x: Array, cos: Array, sin: Array) -> Array:
    """Turn each pair of channels (x_i, x_(i + D/2)) by its row's angle φ_i.

    y_i = x_i cos φ_i - x_(i + D/2) sin φ_i and y_(i + D/2) = x_(i + D/2) cos φ_i + x_i sin φ_i:
    the row times the cosines, and with its halves swapped times the sines.

    x (..., T, D), cos and sin (..., T, D) of `rotary_turns` -> y (..., T, D)
    """
    y = _swap_halves(x) * sin
    y += x * cos
    return y


def rotary_dx(dy: Array, cos: Array, sin: Array) -> Array:
    """A rotation's transpose is the rotation back. dy (..., T, D) -> dx (..., T, D)"""
    return rotary(dy, cos, -sin)


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
    Where Hkv < H, each key and value head serves H / Hkv neighbouring query heads (Ainslie et al.
    2023).

    query (B, H, R, D), key and value (B, Hkv, T, D), past: two arrays (Hkv, P, D), P may be 0,
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

    dcontext (B, H, R, D), value (B, Hkv, T, D), past_value (Hkv, P, D), weights (B, H, R, P+T)
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

    the sums over r running over all the query heads that share a key head. Only for the first
    N = `wanted` rows r of the queries and s of the keys: what no one needs is not computed.

    dcontext (B, H, R, D), dscores (B, H, R, P+T), query (B, H, R, D), key (B, Hkv, T, D),
    past_key (Hkv, P, D), weights (B, H, R, P+T)
    -> dquery (B, H, min(N, R), D), dkey and dvalue (B, Hkv, min(N, T), D)
    """
    Hkv, P, _ = past_key.shape
    first = slice(P, P + wanted)
    dquery = _weighted_sums(dscores[:, :, :wanted], key, past_key)  # (B, H, N, D)
    dkey = _column_sums(dscores[..., first], query, Hkv)  # (B, Hkv, N, D)
    dvalue = _column_sums(weights[..., first], dcontext, Hkv)  # (B, Hkv, N, D)
    return dquery, dkey, dvalue


def attention_dpast(
    dcontext: Array, dscores: Array, query: Array, weights: Array, past_key: Array
) -> tuple[Array, Array]:
    """As `attention_dx`, for the keys and values that all texts share: also summed over the texts.

    dpast_key_p = Σ_b Σ_r dscores_brp query_br, dpast_value_p = Σ_b Σ_r weights_brp dcontext_br

    dcontext and query (B, H, R, D), dscores and weights (B, H, R, P+T), past_key (Hkv, P, D)
    -> dpast_key, dpast_value (Hkv, P, D)
    """
    Hkv, P, _ = past_key.shape

    def sums(weights: Array, rows: Array) -> Array:
        """(Hkv, P, H/Hkv·B·R) @ (Hkv, H/Hkv·B·R, D)"""
        return _heads_first(weights, Hkv)[..., :P].transpose(0, 2, 1) @ _heads_first(rows, Hkv)

    return sums(dscores, query), sums(weights, dcontext)


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


def mean_pool(x: Array, real: Array) -> Array:
    """The mean of each text's real rows (Reimers & Gurevych 2019, section 3).

    x (B, T, C), real (B, T) 1 or 0, at least one 1 a text -> y (B, C)
    """
    weights = real / _row_sum(real)  # (B, T)
    return (weights[:, None] @ x)[:, 0]


def mean_pool_dx(dy: Array, real: Array) -> Array:
    """y = Σ_t real_t x_t / Σ real, so dx_t = real_t dy / Σ real. dy (B, C) -> dx (B, T, C)"""
    return (real / _row_sum(real))[..., None] * dy[:, None]


def normalize(x: Array) -> tuple[Array, Array]:
    """Each row divided by its length, so that a product of two rows is their cosine.

    x (N, C), no row all zeros -> y (N, C), length (N, 1)
    """
    length = np.sqrt(np.vecdot(x, x))[..., None]
    return x / length, length


def normalize_dx(dy: Array, y: Array, length: Array) -> Array:
    """d length / d x = y, so dx = (dy - y (dy · y)) / length: what would only lengthen x is lost.

    dy (N, C), y (N, C), length (N, 1) -> dx (N, C)
    """
    return (dy - y * np.vecdot(dy, y)[..., None]) / length


def split_heads(x: Array, heads: int) -> Array:
    """The C channels as H heads of D, a view. (B, T, C) -> (B, H, T, D)"""
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """The inverse of `split_heads`, and so its backward too. (B, H, T, D) -> (B, T, C)"""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def times_transposed(rows: Array, matrix: Array) -> Array:
    """rows matrixᵀ, of few rows as (matrix rowsᵀ)ᵀ, which takes about half of the time.

    rows (N, J), matrix (I, J) -> (N, I)
    """
    return (matrix @ rows.T).T.copy() if len(rows) <= FEW_ROWS else rows @ matrix.T


# Of attention's products, `_products` and `_weighted_sums` serve the forward and the backward,
# `_column_sums` and those in `attention_dpast` the backward alone. In memory, scores lie head by
# head, (H, B, R, S), so that the rows of all texts, and of all query heads that share a key head,
# can meet the shared past in one matrix product; context lies row by row, (B, R, H, D), so that
# merging heads is a view.


def _products(rows: Array, columns: Array, past: Array) -> Array:
    """rows · [past; columns]: rows (B, H, R, D), columns (B, Hkv, T, D), past (Hkv, P, D)."""
    B, H, R, _ = rows.shape
    Hkv, P, _ = past.shape
    T = columns.shape[2]
    products = np.empty((H, B, R, P + T), rows.dtype)
    np.matmul(
        _heads_first(rows, Hkv),
        past.transpose(0, 2, 1),
        out=products.reshape(Hkv, H // Hkv * B * R, P + T)[..., :P],
    )
    products = products.transpose(1, 0, 2, 3)  # (B, H, R, P+T)
    columns = columns.transpose(0, 1, 3, 2)[:, :, None]  # (B, Hkv, 1, D, T)
    np.matmul(_grouped(rows, Hkv), columns, out=_grouped(products, Hkv)[..., P:])
    return products


def _weighted_sums(weights: Array, columns: Array, past: Array) -> Array:
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


def _column_sums(weights: Array, rows: Array, Hkv: int) -> Array:
    """Σ_r weights_rs rows_r for each column s: (B, H, R, T), (B, H, R, D) -> (B, Hkv, T, D)."""
    B, H, _, T = weights.shape
    sums = np.empty((B, T, Hkv, rows.shape[-1]), rows.dtype).transpose(0, 2, 1, 3)
    weights, rows = _grouped(weights.transpose(0, 1, 3, 2), Hkv), _grouped(rows, Hkv)
    np.matmul(weights[:, :, 0], rows[:, :, 0], out=sums)
    for g in range(1, H // Hkv):
        sums += weights[:, :, g] @ rows[:, :, g]
    return sums


def _grouped(x: Array, Hkv: int) -> Array:
    """The query heads that share a key head apart, a view: (B, H, R, E) -> (B, Hkv, H/Hkv, R, E)"""
    B, H, R, E = x.shape
    return x.reshape(B, Hkv, H // Hkv, R, E)


def _heads_first(x: Array, Hkv: int) -> Array:
    """(B, H, R, E) -> (Hkv, H/Hkv·B·R, E), a view for scores as they lie in memory."""
    B, H, R, E = x.shape
    return x.transpose(1, 0, 2, 3).reshape(Hkv, H // Hkv * B * R, E)


@cache
def _normal_table(dtype: type) -> tuple[Array, Array]:
    """Φ and its derivative at nodes 1 / NODES_PER_UNIT apart, from -NORMAL_END to NORMAL_END."""
    count = round(NORMAL_END * NODES_PER_UNIT)
    nodes = np.arange(-count, count + 1) / NODES_PER_UNIT
    phi = np.array([0.5 * math.erfc(-node / 2.0**0.5) for node in nodes])
    slope = NORMAL_PEAK * np.exp(-0.5 * nodes**2)
    phi[0] = slope[0] = slope[-1] = 0.0  # below and above, all is 0 or 1
    return phi.astype(dtype), slope.astype(dtype)


def _normal_distribution(x: Array) -> Array:
    """Φ(x), continued from the nearest node n by Taylor: with d = x - n, Φ + slope d (1 - n d / 2).

    NumPy has no error function. The third derivative is at most 0.4, so that what is left out is
    below 0.4 d³ / 6 = 1.22e-13; beyond the last node it is below 1e-16.
    """
    phi, slope = _normal_table(x.dtype.type)
    x = np.clip(x, -NORMAL_END, NORMAL_END)
    n = np.rint((x + NORMAL_END) * NODES_PER_UNIT)
    with np.errstate(invalid="ignore"):  # NaN has no node; it stays NaN by its d
        nearest = n.astype(np.intp)
    n /= NODES_PER_UNIT
    n -= NORMAL_END
    d = x - n
    n *= d
    n *= -0.5
    n += 1.0
    n *= d
    n *= slope.take(nearest, mode="clip")
    n += phi.take(nearest, mode="clip")
    return n


def _swap_halves(x: Array) -> Array:
    """Of the channels of each row the second half, then the first. (..., D) -> same"""
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return halves[..., ::-1, :].reshape(x.shape)


def _rows(x: Array) -> Array:
    """All leading axes as one, so that a product is one large call, not one a text."""
    return x.reshape(-1, x.shape[-1])


def _row_sum(x: Array) -> Array:
    """Σ over the last axis as a product with ones: several times as fast as `sum` on short rows."""
    return np.vecdot(x, _ones(x.shape[-1], x.dtype))[..., None]


@cache
def _ones(count: int, dtype: np.dtype) -> Array:
    return np.ones(count, dtype)


def _row_mean(x: Array) -> Array:
    return _row_sum(x) / x.shape[-1]
