"""Every backward op against central differences: one plain function an op, of one `Case`.

`test_ops.py` calls them with cases drawn by hypothesis, `test_mutations.py` with a fixed case and
an op made 1 % wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minipt.maths import ops
from minipt.maths.gradcheck import check_gradient

TOLERANCE = 1e-7


@dataclass(frozen=True)
class Case:
    """Sizes and a seed: B texts, T tokens, P past, R query rows, H heads of D channels.

    G: how many query heads share each of the H key and value heads.
    """

    B: int = 2
    T: int = 3
    P: int = 2
    R: int = 2
    H: int = 2
    G: int = 2
    D: int = 4
    rows: int = 2
    masked: bool = True
    seed: int = 0

    def draw(self) -> "Draw":
        return Draw(np.random.default_rng(self.seed))

    @property
    def C(self) -> int:
        return self.H * self.D

    @property
    def leading(self) -> int:
        """The leading rows that get a gradient, never more than there are tokens."""
        return min(self.rows, self.T)


class Draw:
    """Random arrays that an op must not write to."""

    def __init__(self, rng: np.random.Generator, dtype: type = np.float64) -> None:
        self.rng, self.dtype = rng, dtype

    def normal(self, *shape: int) -> np.ndarray:
        return frozen(self.rng.standard_normal(shape).astype(self.dtype))

    def below(self, limit: int, *shape: int) -> np.ndarray:
        return frozen(self.rng.integers(0, limit, shape))

    def real(self, *shape: int) -> np.ndarray:
        """1 or 0, at least one 1 a row."""
        return frozen(np.isfinite(self.mask(*shape)).astype(self.dtype))

    def mask(self, *shape: int) -> np.ndarray:
        """0 or -inf, at least one 0 a row."""
        hidden = self.rng.random(shape) < 0.4
        keep = self.rng.integers(0, shape[-1], shape[:-1])
        np.put_along_axis(hidden, keep[..., None], False, -1)
        return frozen(np.where(hidden, -np.inf, 0.0).astype(self.dtype))


@dataclass(frozen=True)
class Attention:
    """The inputs of one attention, its outputs and the gradient that comes back."""

    query: np.ndarray  # (B, G·H, R, D)
    key: np.ndarray  # (B, H, T, D)
    value: np.ndarray  # (B, H, T, D)
    past_key: np.ndarray  # (H, P, D)
    past_value: np.ndarray  # (H, P, D)
    mask: np.ndarray  # (B, 1, R, T)
    dcontext: np.ndarray  # (B, G·H, R, D)

    @classmethod
    def of(cls, case: Case, draw: Draw) -> "Attention":
        B, H, G, T, P, R, D = (getattr(case, size) for size in "BHGTPRD")
        hide = draw.mask(B, 1, R, T)
        return cls(
            draw.normal(B, G * H, R, D),
            draw.normal(B, H, T, D),
            draw.normal(B, H, T, D),
            draw.normal(H, P, D),
            draw.normal(H, P, D),
            hide if case.masked else np.zeros_like(hide),
            draw.normal(B, G * H, R, D),
        )

    def forward(self, **changed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        of = self.__dict__ | changed
        past = (of["past_key"], of["past_value"])
        return ops.attention(of["query"], of["key"], of["value"], past, of["mask"])

    def loss(self, **changed: np.ndarray) -> float:
        return (self.dcontext * self.forward(**changed)[0]).sum()

    def backward(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """weights, dweights, dscores"""
        _, weights, _ = self.forward()
        arguments = (self.dcontext, self.value, self.past_value, frozen(weights))
        return weights, *map(frozen, ops.attention_dscores(*arguments))


def frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def embedding_dw(case: Case) -> float:
    draw, V = case.draw(), 5
    ids, table = draw.below(V, case.B, case.T), draw.normal(V, case.C)
    dy = draw.normal(case.B, case.T, case.C)
    dtable = ops.embedding_dw(dy, ids, V)
    return check_gradient(lambda table: (dy * ops.embedding(ids, table)).sum(), table, dtable)


def linear_dx(case: Case) -> float:
    draw = case.draw()
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.T, 3)
    weight, bias = draw.normal(case.C, 3), draw.normal(3)
    dx = ops.linear_dx(dy, weight)
    return check_gradient(lambda x: (dy * ops.linear(x, weight, bias)).sum(), x, dx)


def linear_dw(case: Case) -> float:
    draw = case.draw()
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.T, 3)
    weight, bias = draw.normal(case.C, 3), draw.normal(3)
    dweight = ops.linear_dw(dy, x)
    return check_gradient(lambda w: (dy * ops.linear(x, w, bias)).sum(), weight, dweight)


def linear_db(case: Case) -> float:
    draw = case.draw()
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.T, 3)
    weight, bias = draw.normal(case.C, 3), draw.normal(3)
    dbias = ops.linear_db(dy)
    return check_gradient(lambda b: (dy * ops.linear(x, weight, b)).sum(), bias, dbias)


def _layernorm(case: Case) -> tuple[np.ndarray, ...]:
    """Rows of at least three channels: of two, the deviation takes all there is."""
    draw, C = case.draw(), max(3, case.C)
    x, dy = draw.normal(case.B, case.T, C), draw.normal(case.B, case.T, C)
    return x, draw.normal(C), draw.normal(C), dy


def layernorm_dx(case: Case) -> float:
    x, gain, bias, dy = _layernorm(case)
    _, xhat, rstd = map(frozen, ops.layernorm(x, gain, bias, 0.1))
    dx = ops.layernorm_dx(dy, gain, xhat, rstd)
    return check_gradient(lambda x: (dy * ops.layernorm(x, gain, bias, 0.1)[0]).sum(), x, dx)


def layernorm_dw(case: Case) -> float:
    x, gain, bias, dy = _layernorm(case)
    _, xhat, _ = map(frozen, ops.layernorm(x, gain, bias, 0.1))
    dgain, dbias = ops.layernorm_dw(dy, xhat)
    return max(
        check_gradient(lambda g: (dy * ops.layernorm(x, g, bias, 0.1)[0]).sum(), gain, dgain),
        check_gradient(lambda b: (dy * ops.layernorm(x, gain, b, 0.1)[0]).sum(), bias, dbias),
    )


def rmsnorm_dx(case: Case) -> float:
    x, gain, _, dy = _layernorm(case)
    _, xhat, rstd = map(frozen, ops.rmsnorm(x, gain, 0.1))
    dx = ops.rmsnorm_dx(dy, gain, xhat, rstd)
    return check_gradient(lambda x: (dy * ops.rmsnorm(x, gain, 0.1)[0]).sum(), x, dx)


def rmsnorm_dw(case: Case) -> float:
    x, gain, _, dy = _layernorm(case)
    _, xhat, _ = map(frozen, ops.rmsnorm(x, gain, 0.1))
    (dgain,) = ops.rmsnorm_dw(dy, xhat)
    return check_gradient(lambda g: (dy * ops.rmsnorm(x, g, 0.1)[0]).sum(), gain, dgain)


def _activation_dx(forward: Callable, backward: Callable, case: Case) -> float:
    draw = case.draw()
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.T, case.C)
    x = frozen(3.0 * x)
    _, y_over_x = map(frozen, forward(x))
    return check_gradient(lambda x: (dy * forward(x)[0]).sum(), x, backward(dy, x, y_over_x))


def gelu_dx(case: Case) -> float:
    return _activation_dx(ops.gelu, ops.gelu_dx, case)


def gelu_erf_dx(case: Case) -> float:
    return _activation_dx(ops.gelu_erf, ops.gelu_erf_dx, case)


def silu_dx(case: Case) -> float:
    return _activation_dx(ops.silu, ops.silu_dx, case)


def rotary_dx(case: Case) -> float:
    draw, shape = case.draw(), (case.B, case.H, case.T, 2 * case.D)
    x, dy, positions = draw.normal(*shape), draw.normal(*shape), draw.normal(case.T)
    angles = tuple(map(frozen, ops.rotary_angles(positions, 2 * case.D, 10.0, np.float64)))
    dx = ops.rotary_dx(dy, *angles)
    return check_gradient(lambda x: (dy * ops.rotary(x, *angles)).sum(), x, dx)


def softmax_dx(case: Case) -> float:
    draw = case.draw()
    shape = (case.B, case.H, case.T, case.P + case.T)
    scores, dweights = draw.normal(*shape), draw.normal(*shape)
    if case.masked:
        scores = frozen(scores + draw.mask(*shape))
    dscores = ops.softmax_dx(dweights, frozen(ops.softmax(scores)))
    return check_gradient(lambda s: (dweights * ops.softmax(s)).sum(), scores, dscores)


def attention_dscores(case: Case) -> float:
    """The context as a function of the weights alone, then of the scores."""
    at = Attention.of(case, case.draw())
    weights, dweights, dscores = at.backward()
    _, _, scores = at.forward()
    past = np.broadcast_to(at.past_value, (case.B, *at.past_value.shape))
    values = np.concatenate([past, at.value], 2).repeat(case.G, 1)  # (B, G·H, P+T, D)

    def loss(weights: np.ndarray) -> float:
        return (at.dcontext * (weights @ values)).sum()

    return max(
        check_gradient(loss, weights, dweights),
        check_gradient(lambda scores: loss(ops.softmax(scores)), scores, dscores),
    )


def attention_dx(case: Case) -> float:
    """The leading rows only; the rows below them stay as they are."""
    at = Attention.of(case, case.draw())
    weights, _, dscores = at.backward()
    factors = (at.dcontext, dscores, at.query, at.key, at.past_key, weights)
    gradients = ops.attention_dx(*factors, case.leading)
    worst = 0.0
    for name, gradient in zip(("query", "key", "value"), gradients, strict=True):
        whole = getattr(at, name)

        def loss(leading: np.ndarray, name: str = name, whole: np.ndarray = whole) -> float:
            rest = whole[:, :, leading.shape[2] :]
            return at.loss(**{name: np.concatenate([leading, rest], 2)})

        worst = max(worst, check_gradient(loss, whole[:, :, : case.leading], gradient))
    return worst


def attention_dpast(case: Case) -> float:
    at = Attention.of(case, case.draw())
    weights, _, dscores = at.backward()
    dkey, dvalue = ops.attention_dpast(at.dcontext, dscores, at.query, weights, at.past_key)
    return max(
        check_gradient(lambda key: at.loss(past_key=key), at.past_key, dkey),
        check_gradient(lambda value: at.loss(past_value=value), at.past_value, dvalue),
    )


def cross_entropy_dx(case: Case) -> float:
    draw, N, K = case.draw(), case.B * case.T, case.C
    logits, targets, dlosses = draw.normal(N, K), draw.below(K, N), draw.normal(N)
    _, probabilities = map(frozen, ops.cross_entropy(logits, targets))
    dlogits = ops.cross_entropy_dx(dlosses, probabilities, targets)
    return check_gradient(
        lambda logits: (dlosses * ops.cross_entropy(logits, targets)[0]).sum(), logits, dlogits
    )


def mean_pool_dx(case: Case) -> float:
    draw = case.draw()
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.C)
    real = draw.real(case.B, case.T)
    dx = ops.mean_pool_dx(dy, real)
    return check_gradient(lambda x: (dy * ops.mean_pool(x, real)).sum(), x, dx)


def normalize_dx(case: Case) -> float:
    """Rows of at least two channels: of one, only the sign is left."""
    draw, C = case.draw(), max(2, case.C)
    x, dy = draw.normal(case.B, C), draw.normal(case.B, C)
    y, length = map(frozen, ops.normalize(x))
    dx = ops.normalize_dx(dy, y, length)
    return check_gradient(lambda x: (dy * ops.normalize(x)[0]).sum(), x, dx)


CHECKS: dict[str, Callable[[Case], float]] = {
    check.__name__: check
    for check in (
        embedding_dw,
        linear_dx,
        linear_dw,
        linear_db,
        layernorm_dx,
        layernorm_dw,
        rmsnorm_dx,
        rmsnorm_dw,
        gelu_dx,
        gelu_erf_dx,
        silu_dx,
        rotary_dx,
        softmax_dx,
        attention_dscores,
        attention_dx,
        attention_dpast,
        cross_entropy_dx,
        mean_pool_dx,
        normalize_dx,
    )
}


def assert_right(name: str, case: Case) -> None:
    """What the unit tests assert of a backward op."""
    error = CHECKS[name](case)
    assert error < TOLERANCE, f"{name} errs by {error:.1e} for {case}"


def public_functions() -> dict[str, Callable]:
    """What ops.py defines, private helpers left out."""
    return {
        name: thing
        for name, thing in vars(ops).items()
        if callable(thing) and not name.startswith("_") and thing.__module__ == ops.__name__
    }


def backward_names() -> list[str]:
    endings = ("_dx", "_dw", "_db", "_dscores", "_dpast")
    return [name for name in public_functions() if name.endswith(endings)]


def outputs(case: Case, dtype: type) -> dict[str, tuple[np.ndarray, ...]]:
    """Every public op called once, with every input of one float type."""
    draw = Draw(np.random.default_rng(case.seed), dtype)
    x, dy = draw.normal(case.B, case.T, case.C), draw.normal(case.B, case.T, case.C)
    weight, bias = draw.normal(case.C, case.C), draw.normal(case.C)
    ids, at = draw.below(case.C, case.B, case.T), Attention.of(case, draw)
    rows, drows, targets = x[:, 0], dy[:, 0], ids[:, 0]
    y, xhat, rstd = ops.layernorm(x, bias, bias, 1e-5)
    angles = ops.rotary_angles(np.arange(case.T), 2 * case.D, 10.0, dtype)
    heads, dheads = (draw.normal(case.B, case.H, case.T, 2 * case.D) for _ in range(2))
    real, unit = draw.real(case.B, case.T), ops.normalize(rows)
    weights, dweights, dscores = at.backward()
    losses, probabilities = ops.cross_entropy(rows, targets)
    factors = (at.dcontext, dscores, at.query)
    found = {
        "embedding": ops.embedding(ids, weight),
        "embedding_dw": ops.embedding_dw(dy, ids, case.C),
        "linear": ops.linear(x, weight, bias),
        "linear_dx": ops.linear_dx(dy, weight),
        "linear_dw": ops.linear_dw(dy, x),
        "linear_db": ops.linear_db(dy),
        "layernorm": (y, xhat, rstd),
        "layernorm_dx": ops.layernorm_dx(dy, bias, xhat, rstd),
        "layernorm_dw": ops.layernorm_dw(dy, xhat),
        "rmsnorm": ops.rmsnorm(x, bias, 1e-5),
        "rmsnorm_dx": ops.rmsnorm_dx(dy, bias, xhat, rstd),
        "rmsnorm_dw": ops.rmsnorm_dw(dy, xhat),
        "gelu": ops.gelu(x),
        "gelu_dx": ops.gelu_dx(dy, x, ops.gelu(x)[1]),
        "gelu_erf": ops.gelu_erf(x),
        "gelu_erf_dx": ops.gelu_erf_dx(dy, x, ops.gelu_erf(x)[1]),
        "silu": ops.silu(x),
        "silu_dx": ops.silu_dx(dy, x, ops.silu(x)[1]),
        "rotary_angles": angles,
        "rotary": ops.rotary(heads, *angles),
        "rotary_dx": ops.rotary_dx(dheads, *angles),
        "softmax": ops.softmax(x),
        "softmax_dx": ops.softmax_dx(dy, x),
        "attention": at.forward(),
        "attention_dscores": (dweights, dscores),
        "attention_dx": ops.attention_dx(*factors, at.key, at.past_key, weights, case.leading),
        "attention_dpast": ops.attention_dpast(*factors, weights, at.past_key),
        "cross_entropy": (losses, probabilities),
        "cross_entropy_dx": ops.cross_entropy_dx(drows[:, 0], probabilities, targets),
        "mean_pool": ops.mean_pool(x, real),
        "mean_pool_dx": ops.mean_pool_dx(drows, real),
        "normalize": unit,
        "normalize_dx": ops.normalize_dx(drows, *unit),
        "split_heads": ops.split_heads(x, case.H),
        "merge_heads": ops.merge_heads(at.key),
    }
    return {name: y if isinstance(y, tuple) else (y,) for name, y in found.items()}
