"""The exercises of chapter 3: the backward of each op, and the gradient of a prompt and a token."""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from minipt import plain
from minipt.course.exercises import Case, Exact, Slope
from minipt.loading.load import load_base
from minipt.maths import ops
from minipt.prompting.text import Batch

TITLE = "The way back"
TOKEN, LABEL = 40, 50  # a token that is no label word, and one that is
P = 4  # prompt vectors


def _mean_loss(logits, targets):
    return float(ops.cross_entropy(logits, targets)[0].mean())


def _dlogits(logits, targets):
    return ops.softmax(logits) - np.eye(logits.shape[1])[targets]  # of the sum over the texts


def _logits_cases():
    rng = np.random.default_rng(0)
    for shape, targets in (((1, 2), np.array([1])), ((5, 3), np.array([0, 2, 1, 1, 2]))):
        logits = rng.standard_normal(shape)
        loss = partial(_mean_loss, targets=targets)
        yield Case(arguments=(logits, targets), x=logits, loss=loss)


def _norm_cases():
    dy, x = np.random.default_rng(1).standard_normal((2, 2, 3, 8))
    gain, bias = np.random.default_rng(2).standard_normal((2, 8)) + 1
    _, xhat, rstd = ops.layernorm(3 * x, gain, bias, 1e-5)

    def loss(x):
        return float((dy * ops.layernorm(x, gain, bias, 1e-5)[0]).sum())

    return [Case(arguments=(dy, gain, xhat, rstd), x=3 * x, loss=loss)]


def _norm_dx(dy, gain, xhat, rstd, mean=1, deviation=1):
    """The gradient of the norm, with the paths through mean and deviation taken so many times."""
    d = gain * dy
    dx = d - mean * d.mean(-1, keepdims=True)
    return rstd * (dx - deviation * xhat * (d * xhat).mean(-1, keepdims=True))


def _gelu_cases():
    dy, x = np.random.default_rng(3).standard_normal((2, 4, 5))

    def loss(x):
        return float((dy * ops.gelu(x)[0]).sum())

    return [Case(arguments=(dy, 2 * x), x=2 * x, loss=loss)]


def _gelu_dx(dy, x, cubic=0.044715, direct=1, through=1, inner=None):
    """The gradient of GELU, with the two terms of the product rule taken so many times."""
    tanh = np.tanh((2 / np.pi) ** 0.5 * (x + cubic * x**3))
    inner = (2 / np.pi) ** 0.5 * (1 + 3 * cubic * x**2) if inner is None else inner
    return dy * (direct * 0.5 * (1 + tanh) + through * 0.5 * x * (1 - tanh**2) * inner)


def _softmax_cases():
    dweights, scores = np.random.default_rng(4).standard_normal((2, 2, 3, 5))

    def loss(scores):
        return float((dweights * ops.softmax(scores)).sum())

    return [Case(arguments=(dweights, ops.softmax(scores)), x=scores, loss=loss)]


def _some_attention():
    """dcontext, query (divided by √D), key, value (B, H, S, D) and weights (B, H, S, S)."""
    rng = np.random.default_rng(5)
    for shape in ((1, 2, 5, 4), (2, 3, 6, 8)):
        dcontext, query, key, value = rng.standard_normal((4, *shape))
        mask = np.triu(np.full(shape[-2:-1] * 2, -np.inf), k=1)
        yield dcontext, query, key, value, ops.softmax(query @ key.swapaxes(-1, -2) + mask)


def _dscores(dcontext, value, weights):
    return ops.softmax_dx(dcontext @ value.swapaxes(-1, -2), weights)


def _attend_dx(dcontext, query, key, value, weights):
    dscores = _dscores(dcontext, value, weights)
    return dscores @ key, dscores.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ dcontext


def _without_softmax(dcontext, query, key, value, weights):
    dweights = dcontext @ value.swapaxes(-1, -2)
    return dweights @ key, dweights.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ dcontext


def _not_transposed(dcontext, query, key, value, weights):
    dscores = _dscores(dcontext, value, weights)
    return dscores @ key, dscores @ query, weights @ dcontext


def _key_not_transposed(dcontext, query, key, value, weights):
    dscores = _dscores(dcontext, value, weights)
    return dscores @ key, dscores @ query, weights.swapaxes(-1, -2) @ dcontext


def _value_not_transposed(dcontext, query, key, value, weights):
    dscores = _dscores(dcontext, value, weights)
    return dscores @ key, dscores.swapaxes(-1, -2) @ query, weights @ dcontext


def _value_first(*given):
    dquery, dkey, dvalue = _attend_dx(*given)
    return dvalue, dquery, dkey


def _divided_again(dcontext, query, key, value, weights):
    dquery, dkey, dvalue = _attend_dx(dcontext, query, key, value, weights)
    return dquery / query.shape[-1] ** 0.5, dkey, dvalue


def _keys_and_queries(dcontext, query, key, value, weights):
    dquery, dkey, dvalue = _attend_dx(dcontext, query, key, value, weights)
    return dkey, dquery, dvalue


@cache
def _nano():
    return load_base("nano").astype(np.float64)


def _batch():
    """Three texts; one token stands in two of them, and a label word stands in one."""
    ids = np.random.default_rng(6).integers(100, 400, (3, 6))
    ids[0, 1] = ids[2, 4] = TOKEN
    ids[1, 3] = LABEL
    return Batch(ids, [6, 6, 6], [1, 0, 1], choices=[60, LABEL])


def _vectors():
    return np.random.default_rng(7).standard_normal((P, _nano().config.channels)) / 10


def _step(base, vectors, batch):
    """-> the loss, dx (B, S, C) of all rows, the last features (B, C) and dlogits (B, K)"""
    prompts = np.broadcast_to(vectors, (len(batch.ids), *vectors.shape))
    rows = np.concatenate([prompts, base.params["token.table"][batch.ids]], axis=1)
    hidden, _, saved = plain.forward(base, plain.embed(base, rows, 0))
    loss, dhidden = plain.read_out(base, hidden, batch, batch.answer_rows + len(vectors))
    dx, _ = plain.backward(base, dhidden, saved, [plain.NOBODY] * base.config.layers)
    read = hidden[:, -1]  # all texts have T tokens
    features, *_ = plain.norm(base, "final", read)
    logits = features @ base.params["token.table"][batch.choices].T
    return loss, dx, features, _dlogits(logits, batch.counted_targets) / len(batch.ids)


def _prompt_cases():
    base, batch, vectors = _nano(), _batch(), _vectors()
    _, dx, _, _ = _step(base, vectors, batch)

    def loss(x):
        return plain.concatenated(base, x, batch)[0]

    return [Case(arguments=(dx, P), x=vectors, loss=loss)]


def _token_cases():
    """A token that only texts use, and a label word, which the output uses too."""
    base, batch, vectors = _nano(), _batch(), _vectors()
    table = base.params["token.table"]
    _, dx, features, dlogits = _step(base, vectors, batch)

    def loss(row, token):
        changed = table.copy()
        changed[token] = row
        other = replace(base, params=base.params | {"token.table": changed})
        return plain.concatenated(other, vectors, batch)[0]

    for token in (TOKEN, LABEL):
        arguments = (dx, P, batch.ids, token, features, dlogits, batch.choices)
        yield Case(arguments=arguments, x=table[token].copy(), loss=partial(loss, token=token))


def _in_texts(dx, P, ids, token, features, dlogits, choices):
    return dx[:, P:][ids == token].sum(0)


def _in_output(dx, P, ids, token, features, dlogits, choices):
    return (dlogits.T @ features)[choices == token].sum(0)


def _some_readers():
    """dcontext, dscores, query, weights of two texts behind a prompt, and P."""
    rng = np.random.default_rng(8)
    for B, H, T, D in ((2, 3, 4, 5), (3, 2, 6, 4)):
        dcontext, query = rng.standard_normal((2, B, H, T, D))
        weights = ops.softmax(rng.standard_normal((B, H, T, P + T)))
        yield dcontext, rng.standard_normal(weights.shape), query, weights, P


def _of_past(dcontext, dscores, query, weights, P):
    """As `_each_past`, summed over the texts."""
    return tuple(each.sum(0) for each in _each_past(dcontext, dscores, query, weights, P))


def _each_past(dcontext, dscores, query, weights, P):
    """The gradients of past keys and values (B, H, P, D) by text."""
    return (
        dscores[..., :P].swapaxes(-1, -2) @ query,
        weights[..., :P].swapaxes(-1, -2) @ dcontext,
    )


EXERCISES = (
    Slope(
        name="3a",
        title="The logits",
        level=1,
        minutes=5,
        cases=lambda: list(_logits_cases()),
        mistakes={
            "This is the gradient of the sum over texts; the loss is their mean: divide by B.": (
                _dlogits
            ),
            "These are the probabilities alone: subtract 1 at each text's target.": (
                lambda logits, targets: ops.softmax(logits) / len(logits)
            ),
            "The sign is wrong: the right logit has to grow, so its gradient is below 0.": (
                lambda logits, targets: -_dlogits(logits, targets) / len(logits)
            ),
            "You subtract 1 everywhere; subtract it at the target only.": (
                lambda logits, targets: (ops.softmax(logits) - 1) / len(logits)
            ),
        },
        hint="The probabilities, minus 1 at [np.arange(len(targets)), targets], over their number.",
    ),
    Slope(
        name="3b",
        title="The norm",
        level=2,
        minutes=15,
        cases=_norm_cases,
        mistakes={
            "This is the direct path alone: the mean and the deviation move with x too.": (
                lambda *given: _norm_dx(*given, mean=0, deviation=0)
            ),
            "The path through the deviation is missing: subtract xhat times mean(d xhat).": (
                lambda *given: _norm_dx(*given, deviation=0)
            ),
            "The path through the mean is missing: subtract mean(d).": (
                lambda *given: _norm_dx(*given, mean=0)
            ),
            "The gain is missing: go on with d = gain * dy.": (
                lambda dy, gain, xhat, rstd: _norm_dx(dy, 1.0, xhat, rstd)
            ),
            "The factor rstd is missing.": (
                lambda dy, gain, xhat, rstd: _norm_dx(dy, gain, xhat, 1.0)
            ),
            "You divide by rstd; it is 1 / deviation already, so multiply.": (
                lambda dy, gain, xhat, rstd: _norm_dx(dy, gain, xhat, 1 / rstd)
            ),
        },
        hint="d = gain * dy; means are over the last axis, with keepdims=True.",
    ),
    Slope(
        name="3c",
        title="GELU",
        level=2,
        minutes=10,
        cases=_gelu_cases,
        mistakes={
            "Here stands 0.05; the number in GPT-2's GELU is 0.044715.": (
                lambda dy, x: _gelu_dx(dy, x, cubic=0.05)
            ),
            "The second term of the product rule is missing: the tanh moves with x too.": (
                lambda dy, x: _gelu_dx(dy, x, through=0)
            ),
            "The first term of the product rule is missing: 0.5 * (1 + tanh).": (
                lambda dy, x: _gelu_dx(dy, x, direct=0)
            ),
            "The inner derivative is missing: multiply the second term by u'.": (
                lambda dy, x: _gelu_dx(dy, x, inner=1.0)
            ),
            "The inner derivative lacks the factor 3 of the cubic term.": (
                lambda dy, x: _gelu_dx(dy, x, inner=(2 / np.pi) ** 0.5 * (1 + 0.044715 * x**2))
            ),
            "This is the slope alone: multiply it by dy.": lambda dy, x: _gelu_dx(1.0, x),
        },
        hint="0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner, all of it times dy.",
    ),
    Slope(
        name="3d",
        title="The softmax, backward",
        level=2,
        minutes=10,
        cases=_softmax_cases,
        mistakes={
            "The weights are taken as independent: subtract the row's weighted mean first.": (
                lambda dweights, weights: dweights * weights
            ),
            "This mean is not weighted: sum dweights times weights over the row.": (
                lambda dweights, weights: weights * (dweights - dweights.mean(-1, keepdims=True))
            ),
            "Only the weight's own score is here: w (1 - w) dw leaves out all other weights.": (
                lambda dweights, weights: weights * (1 - weights) * dweights
            ),
            "The sum runs over all rows; each row has its own: sum over the last axis.": (
                lambda dweights, weights: weights * (dweights - (dweights * weights).sum())
            ),
            "The factor in front is missing: multiply by the weights.": (
                lambda dweights, weights: dweights - (dweights * weights).sum(-1, keepdims=True)
            ),
        },
        hint="weights * (dweights - (dweights * weights).sum(-1, keepdims=True)).",
    ),
    Exact(
        name="3e",
        title="Attention, backward",
        level=3,
        minutes=10,
        inputs=lambda: list(_some_attention()),
        right=_attend_dx,
        mistakes={
            "The softmax is skipped: dweights is not yet dscores.": _without_softmax,
            "Keys and values sum over the rows that read them: transpose dscores and weights.": (
                _not_transposed
            ),
            "The query comes in divided already, so its gradient here is not divided.": (
                _divided_again
            ),
            "The gradients of query and key are exchanged.": _keys_and_queries,
            "A key sums over the rows that read it: transpose dscores.": _key_not_transposed,
            "A value sums over the rows that read it: transpose weights.": _value_not_transposed,
            "The order is dquery, dkey, dvalue.": _value_first,
        },
        hint="dscores @ key, dscores transposed @ query, weights transposed @ dcontext.",
    ),
    Slope(
        name="3f",
        title="The prompt's gradient",
        level=1,
        minutes=5,
        cases=_prompt_cases,
        mistakes={
            "This is the mean over the texts; the loss was a mean already: sum.": (
                lambda dx, P: dx[:, :P].mean(0)
            ),
            "This is the first text alone; the prompt stands in front of every text.": (
                lambda dx, P: dx[0, :P]
            ),
            "These are each text's last P rows; the prompt stands in front.": (
                lambda dx, P: dx[:, -P:].sum(0)
            ),
            "Each text has its own gradient here, and one prompt serves all: sum over the texts.": (
                lambda dx, P: dx[:, :P]
            ),
        },
        hint="The first P rows of every text, summed over axis 0.",
    ),
    Slope(
        name="3g",
        title="A token's gradient",
        level=3,
        minutes=10,
        cases=lambda: list(_token_cases()),
        mistakes={
            "The output table uses the row too: add what it gets there if it is a label word.": (
                _in_texts
            ),
            "This is the output's part alone: the token stands in the texts too.": _in_output,
            "This is only one of the two places where the token stands: sum over both.": (
                lambda dx, P, ids, token, *rest: (
                    dx[:, P:][ids == token][0] + _in_output(dx, P, ids, token, *rest)
                )
            ),
            "The prompt stands in front, so token t of a text is row P + t of dx.": (
                lambda dx, P, ids, *rest: (
                    _in_texts(dx[:, : ids.shape[1]], 0, ids, *rest) + _in_output(dx, P, ids, *rest)
                )
            ),
            "This is the mean over the places where the token stands: sum over them.": (
                lambda dx, P, ids, token, *rest: (
                    dx[:, P:][ids == token].mean(0) + _in_output(dx, P, ids, token, *rest)
                )
            ),
        },
        hint="dx[:, P:][ids == token].sum(0), plus a row of dlogits.T @ features for a label word.",
    ),
    Exact(
        name="3h",
        title="What texts ask of the prompt",
        level=2,
        minutes=10,
        inputs=lambda: list(_some_readers()),
        right=_of_past,
        mistakes={
            "Each text has its own gradient here; the texts share one past: sum over them.": (
                _each_past
            ),
            "This is the mean over the texts; the loss was a mean already: sum.": (
                lambda *given: tuple(each.mean(0) for each in _each_past(*given))
            ),
            "These are the last P columns; the prompt's stand in front.": (
                lambda dcontext, dscores, query, weights, P: _of_past(
                    dcontext, dscores[..., -P:], query, weights[..., -P:], P
                )
            ),
            "Keys and values are exchanged: the key's comes first, of dscores and the query.": (
                lambda *given: _of_past(*given)[::-1]
            ),
            "This is the first text alone; the past serves every text.": (
                lambda *given: tuple(each[0] for each in _each_past(*given))
            ),
        },
        hint="dscores[..., :P].swapaxes(-1, -2) @ query has shape (B, H, P, D): sum over axis 0.",
    ),
)
