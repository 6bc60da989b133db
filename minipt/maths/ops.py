"""The ops of a transformer: each forward stands directly above its backward.

In: arrays. Out: arrays, and by name what the backward needs. For an output y and a scalar loss,
`dy` is the array of the derivatives d loss / d y, of y's shape. `op_dx` turns dy into the gradient
of the op's input, `op_dw` into that of its weights. The two are apart because a frozen model needs
only the first. Attention has three inputs and a past, hence `_dscores` and `_dpast`.

Shapes: B texts, T tokens, P prompt vectors (the past), R query rows, C channels, H query heads, Hkv
key and value heads, D = C / H channels a head, S columns of scores (P + T in attention), V
vocabulary, K choices, N any number of rows. `(..., C)` stands for any number of leading axes.
"""

import math

import numpy as np

from minipt.maths.attention_products import column_sums, past_sums, products, weighted_sums
from minipt.maths.matrix_products import times, times_transposed
from minipt.maths.normal import NORMAL_PEAK, normal_cdf

Array = np.ndarray


def embedding(ids: Array, table: Array) -> Array:
    """y[b, t] = table[ids[b, t]]. ids (B, T) integers below V, table (V, C) -> y (B, T, C)"""
    return table[ids]


def embedding_dw(dy: Array, ids: Array, vocabulary: int) -> Array:
    """y[b, t] = Σ_v [ids[b, t] = v] table[v], so dtable[v] = Σ_{b, t: ids[b, t] = v} dy[b, t].

    dy (B, T, C), ids (B, T) -> dtable (V, C)
    """
    dtable = np.zeros((vocabulary, dy.shape[-1]), dy.dtype)
    np.add.at(dtable, ids, dy)
    return dtable


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """y_j = Σ_i x_i weight_ij + bias_j. Without a bias the last term is missing.

    x (..., I), weight (I, J), bias (J,) or None -> y (..., J)
    """
    y = times(_rows(x), weight)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1])


def linear_dx(dy: Array, weight: Array) -> Array:
    """d y_j / d x_i = weight_ij, so dx_i = Σ_j dy_j weight_ij. dy (..., J) -> dx (..., I)"""
    return times_transposed(_rows(dy), weight).reshape(*dy.shape[:-1], weight.shape[0])


def linear_dw(dy: Array, x: Array) -> Array:
    """d y_j / d weight_ij = x_i, so dweight_ij = Σ x_i dy_j over all rows. -> dweight (I, J)"""
    return times(_rows(x).T, _rows(dy))


def linear_db(dy: Array) -> Array:
    """d y_j / d bias_j = 1, so dbias_j = Σ dy_j over all rows. dy (..., J) -> dbias (J,)"""
    return _rows(dy).sum(0)


def layernorm(x: Array, gain: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Centre each row, divide it by its deviation, scale and shift (Ba et al. 2016, eq. 4).

    xhat = (x - mean(x)) rstd with rstd = 1 / √(mean((x - mean(x))²) + epsilon)
    y = gain xhat + bias

    x (..., C), gain (C,), bias (C,) -> y (..., C), xhat (..., C), rstd (..., 1)
    """
    xhat = x - _row_sum(x) / x.shape[-1]
    rstd = 1.0 / np.sqrt(np.vecdot(xhat, xhat)[..., None] / x.shape[-1] + epsilon)
    xhat *= rstd
    y = xhat * gain
    y += bias
    return y, xhat, rstd


def layernorm_dx(dy: Array, gain: Array, xhat: Array, rstd: Array) -> Array:
    """Three paths lead from x to y: directly, through the row's mean and through its deviation.

    With dxhat = gain dy, the direct path gives rstd dxhat_i. The mean moves every xhat_j by
    -rstd / C as x_i moves by 1, which gives -rstd mean(dxhat). For the deviation,
    d rstd / d x_i = -rstd² xhat_i / C, and xhat_j = (x_j - mean) rstd gives
    -rstd xhat_i mean(dxhat xhat). The sum is

    dx = rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat))

    dy (..., C), gain (C,), xhat (..., C), rstd (..., 1) -> dx (..., C)
    """
    dx = dy * gain
    along = np.vecdot(dx, xhat)[..., None] / dy.shape[-1]
    dx -= _row_sum(dx) / dy.shape[-1]
    dx -= xhat * along
    dx *= rstd
    return dx


def layernorm_dw(dy: Array, xhat: Array) -> tuple[Array, Array]:
    """y = gain xhat + bias: dgain = Σ dy xhat, dbias = Σ dy over all rows. -> dgain, dbias (C,)"""
    return _rows(dy * xhat).sum(0), _rows(dy).sum(0)


def rmsnorm(x: Array, gain: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Divide each row by its root mean square and scale it (Zhang & Sennrich 2019, eq. 4).

    xhat = x rstd with rstd = 1 / √(mean(x²) + epsilon); y = gain xhat

    x (..., C), gain (C,) -> y (..., C), xhat (..., C), rstd (..., 1)
    """
    rstd = 1.0 / np.sqrt(np.vecdot(x, x)[..., None] / x.shape[-1] + epsilon)
    xhat = x * rstd
    return xhat * gain, xhat, rstd


def rmsnorm_dx(dy: Array, gain: Array, xhat: Array, rstd: Array) -> Array:
    """`layernorm_dx` without the path through the mean: dx = rstd (dxhat - xhat mean(dxhat xhat))

    dy (..., C), gain (C,), xhat (..., C), rstd (..., 1) -> dx (..., C)
    """
    dx = dy * gain
    along = np.vecdot(dx, xhat)[..., None] / dy.shape[-1]
    dx -= xhat * along
    dx *= rstd
    return dx


def rmsnorm_dw(dy: Array, xhat: Array) -> tuple[Array]:
    """y = gain xhat, so dgain = Σ dy xhat over all rows. dy, xhat (..., C) -> dgain (C,)"""
    return (_rows(dy * xhat).sum(0),)


# The activations return y and the factor y / x, which their backwards need.
# GELU's tanh form: ½ (1 + tanh u) = σ(2u), with 2u = GELU_LINEAR x + GELU_CUBIC x³.
GELU_LINEAR = 2.0 * (2.0 / math.pi) ** 0.5
GELU_CUBIC = 0.044715 * GELU_LINEAR


def gelu(x: Array) -> tuple[Array, Array]:
    """x times (nearly) the probability that a normal variable is below x (Hendrycks & Gimpel 2016).

    GPT-2's tanh form is ½ x (1 + tanh u) with u = √(2/π) (x + 0.044715 x³). It is y = x σ(2u),
    since ½ (1 + tanh u) = 1 / (1 + e^-2u) = σ(2u), and an exponential is cheaper than a tanh.
    Where e^-2u overflows, σ(2u) is 1 / infinity, which is 0, as it should be.

    x (..., C) -> y (..., C), y_over_x (..., C) = σ(2u)
    """
    with np.errstate(over="ignore"):
        y_over_x = x * x
        y_over_x *= -GELU_CUBIC
        y_over_x -= GELU_LINEAR
        y_over_x *= x
        np.exp(y_over_x, out=y_over_x)
    y_over_x += 1.0
    np.divide(1.0, y_over_x, out=y_over_x)
    return x * y_over_x, y_over_x


def gelu_dx(dy: Array, x: Array, y_over_x: Array) -> Array:
    """y = x σ(z) with z = GELU_LINEAR x + GELU_CUBIC x³ and σ' = σ (1 - σ), so

    dx = dy (σ + x σ (1 - σ) (GELU_LINEAR + 3 GELU_CUBIC x²))

    dy (..., C), x (..., C), y_over_x (..., C) = σ(z) -> dx (..., C)
    """
    dx = x * x
    dx *= 3.0 * GELU_CUBIC
    dx += GELU_LINEAR
    dx *= y_over_x
    dx *= 1.0 - y_over_x
    dx *= x
    dx += y_over_x
    dx *= dy
    return dx


def gelu_erf(x: Array) -> tuple[Array, Array]:
    """GELU as it was defined, y = x Φ(x). x (..., C) -> y (..., C), y_over_x (..., C) = Φ(x)"""
    y_over_x = normal_cdf(x)
    return x * y_over_x, y_over_x


def gelu_erf_dx(dy: Array, x: Array, y_over_x: Array) -> Array:
    """y = x Φ(x) and dΦ/dx = e^(-x²/2) / √(2π), so dx = dy (Φ + x e^(-x²/2) / √(2π))

    dy (..., C), x (..., C), y_over_x (..., C) = Φ(x) -> dx (..., C)
    """
    dx = x * x
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= x
    dx *= NORMAL_PEAK
    dx += y_over_x
    dx *= dy
    return dx


def silu(x: Array) -> tuple[Array, Array]:
    """y = x σ(x) with σ(x) = 1 / (1 + e^-x) (Hendrycks & Gimpel 2016, Elfwing et al. 2018).

    x (..., C) -> y (..., C), y_over_x (..., C) = σ(x)
    """
    with np.errstate(over="ignore"):  # 1 / infinity is 0, as it should be
        y_over_x = np.exp(-x)
    y_over_x += 1.0
    np.divide(1.0, y_over_x, out=y_over_x)
    return x * y_over_x, y_over_x


def silu_dx(dy: Array, x: Array, y_over_x: Array) -> Array:
    """dσ/dx = σ (1 - σ), so dx = dy σ (1 + x (1 - σ)). dy, x, y_over_x = σ(x) -> dx (..., C)"""
    dx = 1.0 - y_over_x
    dx *= x
    dx += 1.0
    dx *= y_over_x
    dx *= dy
    return dx


def rotary_angles(positions: Array, channels: int, base: float, dtype: type) -> tuple[Array, Array]:
    """The cosines and sines of the angles that `rotary` rotates by (Su et al. 2021, section 3.2.2).

    Pair i of a head's D channels rotates by the angle position / base^(2i / D), the first pair fast
    and the last slowly. A query's product with a key depends only on the distance between the two.
    Both halves of the channels hold the cosines; the first half holds the sines with a minus.

    positions (..., T), channels = D -> cos, sin (..., T, D)
    """
    angles = positions[..., None] / base ** (np.arange(0, channels, 2) / channels)  # (..., T, D/2)
    cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    return np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)


def rotary(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate each pair of channels (x_i, x_(i + D/2)) by the angle φ_i of its row.

    y_i = x_i cos φ_i - x_(i + D/2) sin φ_i and y_(i + D/2) = x_(i + D/2) cos φ_i + x_i sin φ_i:
    the row times the cosines, plus the row with its halves swapped times the sines.

    x (..., T, D), cos and sin (..., T, D) of `rotary_angles` -> y (..., T, D)
    """
    half = x.shape[-1] // 2
    swapped = np.concatenate([x[..., half:], x[..., :half]], axis=-1)
    y = x * cos
    y += swapped * sin
    return y


def rotary_dx(dy: Array, cos: Array, sin: Array) -> Array:
    """The transpose of a rotation rotates back. dy (..., T, D) -> dx (..., T, D)"""
    return rotary(dy, cos, -sin)


def softmax(scores: Array) -> Array:
    """weights_j = e^scores_j / Σ_i e^scores_i. A masked score is -inf and its weight exactly 0.

    The row's maximum is subtracted first. It cancels in the quotient and keeps e^scores finite.

    scores (..., S), at least one finite score a row -> weights (..., S)
    """
    weights = scores - scores.max(-1, keepdims=True)
    np.exp(weights, out=weights)
    weights *= 1.0 / _row_sum(weights)
    return weights


def softmax_dx(dweights: Array, weights: Array) -> Array:
    """d weights_j / d scores_i = weights_j ([i = j] - weights_i), so

    dscores_i = weights_i (dweights_i - Σ_j dweights_j weights_j), which is 0 for a masked score.

    dweights (..., S), weights (..., S) -> dscores (..., S)
    """
    dscores = dweights - np.vecdot(dweights, weights)[..., None]
    dscores *= weights
    return dscores


def attention(
    query: Array, key: Array, value: Array, past: tuple[Array, Array], mask: Array
) -> tuple[Array, Array, Array]:
    """Each query row takes a mean of the values, weighted by how well their keys fit the query.

    scores = query · [past_key; key] + [0; mask]; weights = softmax(scores)
    context = Σ_s weights_s [past_value; value]_s

    Vaswani et al. 2017, eq. 1. The query comes in already divided by √D. The past stands in front
    of every text and is visible to all rows. All texts share it, so its products are one large
    matrix product a head. Where Hkv < H, each key head serves H / Hkv neighbouring query heads
    (Ainslie et al. 2023).

    query (B, H, R, D), key and value (B, Hkv, T, D), past: two arrays (Hkv, P, D), P may be 0,
    mask broadcasting to (B, H, R, T), 0 or -inf
    -> context (B, H, R, D), weights (B, H, R, P+T), scores (B, H, R, P+T)
    """
    past_key, past_value = past
    scores = products(query, key, past_key)  # (B, H, R, P+T)
    scores[..., past_key.shape[1] :] += mask
    weights = softmax(scores)  # (B, H, R, P+T)
    context = weighted_sums(weights, value, past_value)  # (B, H, R, D)
    return context, weights, scores


def attention_dscores(
    dcontext: Array, value: Array, past_value: Array, weights: Array
) -> tuple[Array, Array]:
    """context = Σ_s weights_s value_s, so dweights_s = dcontext · value_s; dscores by `softmax_dx`.

    dcontext (B, H, R, D), value (B, Hkv, T, D), past_value (Hkv, P, D), weights (B, H, R, P+T)
    -> dweights (B, H, R, P+T), dscores (B, H, R, P+T)
    """
    dweights = products(dcontext, value, past_value)  # (B, H, R, P+T)
    return dweights, softmax_dx(dweights, weights)


def attention_dx(
    dcontext: Array,
    dscores: Array,
    query: Array,
    key: Array,
    past_key: Array,
    weights: Array,
    leading: int,
) -> tuple[Array, Array, Array]:
    """scores_rs = query_r · key_s and context_r = Σ_s weights_rs value_s are linear in each factor:

    dquery_r = Σ_s dscores_rs key_s, dkey_s = Σ_r dscores_rs query_r,
    dvalue_s = Σ_r weights_rs dcontext_r

    The sums over r run over all query heads that share a key head. Only the leading N = `leading`
    rows, r of the queries and s of the keys, get a gradient. No one needs the others.

    dcontext (B, H, R, D), dscores (B, H, R, P+T), query (B, H, R, D), key (B, Hkv, T, D),
    past_key (Hkv, P, D), weights (B, H, R, P+T)
    -> dquery (B, H, min(N, R), D), dkey and dvalue (B, Hkv, min(N, T), D)
    """
    Hkv, P, _ = past_key.shape
    columns = slice(P, P + leading)
    dquery = weighted_sums(dscores[:, :, :leading], key, past_key)  # (B, H, N, D)
    dkey = column_sums(dscores[..., columns], query, Hkv)  # (B, Hkv, N, D)
    dvalue = column_sums(weights[..., columns], dcontext, Hkv)  # (B, Hkv, N, D)
    return dquery, dkey, dvalue


def attention_dpast(
    dcontext: Array, dscores: Array, query: Array, weights: Array, past_key: Array
) -> tuple[Array, Array]:
    """All texts share the past's keys and values, so their gradients are sums over the texts too:

    dpast_key_p = Σ_b Σ_r dscores_brp query_br, dpast_value_p = Σ_b Σ_r weights_brp dcontext_br

    dcontext and query (B, H, R, D), dscores and weights (B, H, R, P+T), past_key (Hkv, P, D)
    -> dpast_key, dpast_value (Hkv, P, D)
    """
    Hkv, P, _ = past_key.shape
    return past_sums(dscores, query, Hkv, P), past_sums(weights, dcontext, Hkv, P)


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """loss = -log p_target with p = softmax(logits), in nats, one for each row.

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
    """Divide each row by its length. The product of two such rows is their cosine.

    x (N, C), no row all zeros -> y (N, C), length (N, 1)
    """
    length = np.sqrt(np.vecdot(x, x))[..., None]
    return x / length, length


def normalize_dx(dy: Array, y: Array, length: Array) -> Array:
    """d length / d x = y, so dx = (dy - y (dy · y)) / length. The part of dy along x is lost.

    dy (N, C), y (N, C), length (N, 1) -> dx (N, C)
    """
    return (dy - y * np.vecdot(dy, y)[..., None]) / length


def split_heads(x: Array, heads: int) -> Array:
    """The C channels as H heads of D channels, a view. (B, T, C) -> (B, H, T, D)"""
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """The inverse of `split_heads`, and so its backward. (B, H, T, D) -> (B, T, C)"""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def _rows(x: Array) -> Array:
    """All leading axes as one: a product is then one large call, not one a text."""
    return x.reshape(-1, x.shape[-1])


def _row_sum(x: Array) -> Array:
    """Σ over the last axis, as a product with ones: on short rows much faster than `sum`."""
    return np.vecdot(x, np.ones(x.shape[-1], x.dtype))[..., None]
