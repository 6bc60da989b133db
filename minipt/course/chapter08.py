"""The exercises of chapter 8: RMS norm, rotary positions, groups of heads, BERT's mask, pooling.

`llama` and `encoder` are the chapter's real models, or stand-ins where they are not in the cache.
"""

from dataclasses import replace

import numpy as np

from minipt.course.exercises import Case, Exact, Guess, Slope
from minipt.course.twins import pool_all
from minipt.loading.load import load_base
from minipt.loading.named_bases import base_is_here
from minipt.maths import ops
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch, encode
from minipt.prompting.wiring import loss_and_gradient
from minipt.transformer.base import Base, Config, parameter_shapes
from minipt.transformer.trace import Trace

TITLE = "A real model, and another family"
UNRELATED = (
    "The soup was lukewarm, 1 of 5 stars.",
    "How far away is the moon?",
    "He sold the old car to a farmer.",
    "All windows on this side can be opened.",
)
SMALL = {"layers": 2, "channels": 48, "heads": 6, "hidden": 96, "epsilon": 1e-5, "context": 256}
GROUPED = {"key_value_heads": 2, "norm": "rms", "positions": "rotary", "activation": "silu"}
GROUPED |= {"gated": True, "attention_bias": False, "mlp_bias": False}
TWO_WAYS = {"norm_first": False, "activation": "gelu", "causal": False, "segments": 2, "head": None}


def llama() -> Base:
    """SmolLM2 from the cache, or a small Llama of random numbers with tiny's tokenizer."""
    if base_is_here("smollm2-135m"):
        return load_base("smollm2-135m")
    return _small("random, for smollm2-135m", "tiny", GROUPED)


def encoder() -> Base:
    """MiniLM from the cache, or a small BERT of random numbers with micro-masked's tokenizer."""
    if base_is_here("minilm"):
        return load_base("minilm")
    return _small("random, for minilm", "micro-masked", TWO_WAYS)


def _small(name: str, tokenizer_of: str, family: dict) -> Base:
    other = load_base(tokenizer_of)
    config = Config(**SMALL, **family, vocabulary=other.config.vocabulary)
    return replace(_random_base(config), name=name, tokenizer=other.tokenizer)


def _random_base(config: Config) -> Base:
    rng, params = np.random.default_rng(0), {}
    for name, shape in parameter_shapes(config).items():
        centre = 1.0 if name.endswith("gain") else 0.0
        spread = shape[0] ** -0.5 if name.endswith("weight") else 0.3
        params[name] = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
    return Base("random", config, params, None)


def _random(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) + 0.3 for shape in shapes)


def _rms_norm(x, gain):
    return ops.rmsnorm(x, gain, 1e-5)


def _rms_norm_dx(dy, gain, xhat, rstd):
    return ops.rmsnorm_dx(dy, gain, xhat, rstd)


def _rows_to_norm():
    cases = []
    for shape in ((2, 3, 8), (1, 4, 5)):
        x, dy, gain = _random(shape, shape, shape[-1], seed=shape[-1])
        _, xhat, rstd = _rms_norm(x, gain)

        def loss(x, dy=dy, gain=gain):
            return (dy * _rms_norm(x, gain)[0]).sum()

        cases.append(Case(arguments=(dy, gain, xhat, rstd), x=x, loss=loss))
    return cases


def _turn(x, angles, sign=1):
    """Rotate the pairs (i, i + D / 2). x (..., S, D), angles (S, D/2). sign: -1 is a mistake."""
    cos, sin = np.cos(angles), np.sin(angles)
    one, two = np.split(x, 2, axis=-1)
    return np.concatenate([one * cos - two * sin, two * cos + sign * one * sin], axis=-1)


def _turn_neighbours(x, angles):
    cos, sin = np.cos(angles), np.sin(angles)
    one, two = x[..., ::2], x[..., 1::2]
    turned = np.stack([one * cos - two * sin, two * cos + one * sin], axis=-1)
    return turned.reshape(x.shape)


def _some_angles(S, D):
    return np.arange(1, S + 1)[:, None] * 100.0 ** (-2 * np.arange(D // 2) / D)


def _rows_to_turn():
    shapes = (1, 2, 5, 8), (2, 3, 4, 4)
    return [(*_random(shape), _some_angles(*shape[-2:])) for shape in shapes]


def _turned_rows():
    cases = []
    for dy, angles in _rows_to_turn():

        def loss(x, dy=dy, angles=angles):
            return (dy * _turn(x, angles)).sum()

        cases.append(Case(arguments=(dy, angles), x=0.5 * dy + 1, loss=loss))
    return cases


def _gather(x, groups):
    return x.reshape(len(x), groups, -1, *x.shape[2:]).sum(2)


def _gather_wrongly(x, groups):
    return x.reshape(len(x), -1, groups, *x.shape[2:]).sum(1)


def _heads_to_gather():
    cases = []
    for shape, groups in (((1, 6, 3, 4), 2), ((2, 8, 2, 3), 4)):
        (dy,) = _random(shape)
        x = dy[:, :groups] + 1

        def loss(x, dy=dy, size=shape[1] // groups):
            return (dy * x.repeat(size, axis=1)).sum()

        cases.append(Case(arguments=(dy, groups), x=x, loss=loss))
    return cases


def _padding_mask(lengths, P, T):
    return np.where(np.arange(P + T) < P + np.asarray(lengths)[:, None], 0.0, -np.inf)


def _pool(hidden, lengths, P):
    real = np.arange(hidden.shape[1] - P) < np.asarray(lengths)[:, None]  # (B, T)
    return ops.mean_pool(hidden[:, P:], real.astype(float))


def _hidden_to_pool():
    first, second = _random((3, 9, 4), (1, 6, 5), seed=3)
    return [(first, np.array([4, 6, 2]), 3), (second, np.array([3]), 2)]


def _mean_of(hidden, counts, start=0):
    """The mean of rows start to start + count of each text."""
    return np.stack([x[start : start + n].mean(0) for x, n in zip(hidden, counts, strict=True)])


def unrelated_batch(base: Base) -> Batch:
    """Four sentences that have nothing to do with each other, with nothing to choose from."""
    rows, _ = encode(base, "{text}", UNRELATED, base.config.context)
    lengths = np.array([len(row) for row in rows])
    ids = np.array([np.pad(row, (0, lengths.max() - len(row))) for row in rows])  # (B, T)
    return Batch(ids, lengths, np.zeros(len(ids), int), np.eye(base.config.channels)[:2])


def mean_distance(pooled: np.ndarray) -> float:
    """The mean distance of all pairs of different rows. pooled (B, C)"""
    differences = pooled[:, None] - pooled  # (B, B, C)
    return float(np.linalg.norm(differences, axis=-1)[np.triu_indices(len(pooled), 1)].mean())


def _distances_with_the_prompt_pooled():
    """The mean distance of unrelated sentences, by that without the prompt's rows in the mean."""
    base, trace = encoder(), Trace()
    prompt, batch = init_prompt(base, length=20, method="vocab", seed=0), unrelated_batch(base)
    loss_and_gradient(base, prompt, batch, trace)
    right = mean_distance(trace["text.pooled"])
    return mean_distance(pool_all(base, prompt, batch)) / right


def _traced_berts():
    """Small BERTs of random numbers, in float64, with the trace of a step."""
    cases = []
    for layers, P in ((1, 2), (2, 3)):
        config = Config(**SMALL | {"layers": layers, "channels": 12}, **TWO_WAYS, vocabulary=20)
        base = _random_base(config).astype(np.float64)
        prompt, trace = init_prompt(base, length=P, method="normal"), Trace()
        ids = np.array([[3, 1, 4, 1], [5, 9, 2, 6]])
        loss_and_gradient(base, prompt, Batch(ids, [4, 4], [0, 1], np.eye(12)[:2]), trace)
        cases.append((base, trace, trace.grad(f"text.h{layers - 1}.ln2"), P))
    return cases


def _bert_dx(base, trace, drows, P, past=True, scale=True, first=True, sums=True):
    """The prompt's gradient (P, C). past, scale, first, sums: without each it is a mistake."""
    D, heads = base.config.channels // base.config.heads, base.config.heads

    def take(name):
        return trace[f"text.{name}"]

    def norm_dx(name, dy):
        gain = base.params[f"{name}.gain"]
        return ops.layernorm_dx(dy, gain, take(f"{name}.xhat"), take(f"{name}.rstd"))

    def back(name, dy):
        return dy @ base.params[f"{name}.weight"].T

    dx = drows  # (B, R, C)
    for h in (f"h{i}" for i in reversed(range(base.config.layers))):
        R, dout = dx.shape[1], norm_dx(f"{h}.ln2", dx)
        dactive, up = back(f"{h}.mlp.down", dout), take(f"{h}.mlp.up")
        dup = ops.gelu_erf_dx(dactive, up, take(f"{h}.mlp.y_over_x"))
        dmiddle = norm_dx(f"{h}.ln1", back(f"{h}.mlp.up", dup) + (dout if past else 0.0))
        dcontext = ops.split_heads(back(f"{h}.attn.out", dmiddle), heads)  # (B, H, R, D)
        weights, query, key, value = (
            take(f"{h}.attn.{part}") for part in ("weights", "query", "key", "value")
        )
        dscores = ops.softmax_dx(dcontext @ value.swapaxes(-1, -2), weights)
        dkey, dvalue = dscores.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ dcontext
        dquery = dscores @ key * (D**-0.5 if scale else 1.0)
        dx = back(f"{h}.attn.key", ops.merge_heads(dkey))  # (B, S, C)
        dx += back(f"{h}.attn.value", ops.merge_heads(dvalue))
        dx[:, -R:] += back(f"{h}.attn.query", ops.merge_heads(dquery)) + dmiddle
    dx = (norm_dx("embedding.norm", dx) if first else dx)[:, :P]
    return dx.sum(0) if sums else dx.mean(0)


EXERCISES = (
    Slope(
        name="8a",
        title="RMS norm, backward",
        level=2,
        minutes=10,
        cases=_rows_to_norm,
        mistakes={
            "This is layer norm's backward: RMS norm subtracts no mean, so drop that term.": (
                lambda dy, gain, xhat, rstd: ops.layernorm_dx(dy, gain, xhat, rstd)
            ),
            "Only the direct way is here; x reaches the output through r too.": (
                lambda dy, gain, xhat, rstd: rstd * gain * dy
            ),
            "The gain is missing: d = gain * dy comes first.": (
                lambda dy, gain, xhat, rstd: _rms_norm_dx(dy, np.ones_like(gain), xhat, rstd)
            ),
            "The factor r is missing: multiply by rstd at the end.": (
                lambda dy, gain, xhat, rstd: _rms_norm_dx(dy, gain, xhat, 1.0)
            ),
            "The sum of d times xhat stands where its mean should.": (
                lambda dy, gain, xhat, rstd: (
                    rstd * (gain * dy - xhat * (gain * dy * xhat).sum(-1, keepdims=True))
                )
            ),
            "The second term has the wrong sign: subtract it.": (
                lambda dy, gain, xhat, rstd: (
                    2 * rstd * gain * dy - _rms_norm_dx(dy, gain, xhat, rstd)
                )
            ),
        },
        hint="d = gain * dy, then rstd * (d - xhat * the mean of d * xhat over the last axis).",
    ),
    Exact(
        name="8b",
        title="The lost direction",
        level=1,
        minutes=5,
        inputs=lambda: [_random(6, 6), _random(4, 4, seed=1)],
        right=lambda x, gain: x / np.linalg.norm(x),
        mistakes={
            "This is what layer norm loses, the mean; RMS norm keeps it.": (
                lambda x, gain: np.full(len(x), len(x) ** -0.5)
            ),
            "The direction is right; divide it by its length.": lambda x, gain: x,
            "The gain comes after the division, and turns what is lost no more.": (
                lambda x, gain: gain * x / np.linalg.norm(gain * x)
            ),
            "This makes the row shorter; the step should make it longer.": (
                lambda x, gain: -x / np.linalg.norm(x)
            ),
        },
        hint="Find the change of x that leaves x divided by its own root mean square as it is.",
    ),
    Exact(
        name="8c",
        title="Rotary positions",
        level=2,
        minutes=10,
        inputs=_rows_to_turn,
        right=_turn,
        mistakes={
            "These pairs are neighbours; channel i belongs to channel i + D / 2.": _turn_neighbours,
            "This rotates the other way: exchange the signs of the sines.": (
                lambda x, angles: _turn(x, -angles)
            ),
            "Both halves subtract the sine's term; the second half adds it.": (
                lambda x, angles: _turn(x, angles, sign=-1)
            ),
            "Cosine and sine are exchanged.": lambda x, angles: _turn(x, np.pi / 2 - angles),
            "Nothing was rotated.": lambda x, angles: x,
        },
        hint="one, two = np.split(x, 2, axis=-1), two lines of the formula, np.concatenate.",
    ),
    Slope(
        name="8d",
        title="Turning back",
        level=1,
        minutes=5,
        cases=_turned_rows,
        mistakes={
            "This rotates once more the same way; the backward rotates back.": _turn,
            "Nothing is rotated: the gradient is that of the rotated row.": lambda dy, angles: dy,
            "This is the gradient of neighbouring pairs; channel i belongs to i + D / 2.": (
                lambda dy, angles: _turn_neighbours(dy, -angles)
            ),
        },
        hint="Write the two lines of the rotation with -angles.",
    ),
    Slope(
        name="8e",
        title="A group's gradient",
        level=2,
        minutes=5,
        cases=_heads_to_gather,
        mistakes={
            "Other heads were added: a group is made of neighbouring heads.": _gather_wrongly,
            "This is the mean over a group; a gradient is the sum over all uses.": (
                lambda x, groups: _gather(x, groups) * groups / x.shape[1]
            ),
            "This is the first head of each group; add all of its heads.": (
                lambda x, groups: x[:, :: x.shape[1] // groups]
            ),
            "These are the first heads alone, one for each group: add the heads of a group.": (
                lambda x, groups: x[:, :groups]
            ),
        },
        hint="x.reshape(B, groups, H // groups, S, D).sum(2).",
    ),
    Exact(
        name="8f",
        title="BERT's mask",
        level=2,
        minutes=5,
        inputs=lambda: [(np.array([3, 5, 1]), 2, 5), (np.array([4]), 3, 6)],
        right=_padding_mask,
        mistakes={
            "The prompt stands in front, its columns are real: compare with P + lengths.": (
                lambda lengths, P, T: _padding_mask(lengths - P, P, T)
            ),
            "The prompt's columns are missing: there are P + T.": (
                lambda lengths, P, T: _padding_mask(lengths, 0, T)
            ),
            "The real columns are hidden and the padding is seen: exchange the two.": (
                lambda lengths, P, T: np.where(_padding_mask(lengths, P, T) == 0, -np.inf, 0.0)
            ),
            "One column too many is seen: columns are counted from 0.": (
                lambda lengths, P, T: _padding_mask(lengths + 1, P, T)
            ),
            "These are ones and zeros, which would be added to the scores: use 0 and -inf.": (
                lambda lengths, P, T: np.isfinite(_padding_mask(lengths, P, T)).astype(float)
            ),
            "Nothing is masked.": lambda lengths, P, T: np.zeros((len(lengths), P + T)),
        },
        hint="np.where(np.arange(P + T) < P + lengths[:, None], 0.0, -np.inf).",
    ),
    Exact(
        name="8g",
        title="Pool without the prompt",
        level=2,
        minutes=10,
        inputs=_hidden_to_pool,
        right=_pool,
        mistakes={
            "The prompt's rows are in the mean: leave out the first P.": (
                lambda hidden, lengths, P: _mean_of(hidden, P + lengths)
            ),
            "The first rows are the prompt's: a text's rows begin at P.": (
                lambda hidden, lengths, P: _mean_of(hidden, lengths)
            ),
            "Padding is in the mean: each text has its own number of rows.": (
                lambda hidden, lengths, P: hidden[:, P:].mean(1)
            ),
            "Prompt and padding are in the mean: take the text's rows alone.": (
                lambda hidden, lengths, P: hidden.mean(1)
            ),
            "The sum is divided by T, and padding is no row: divide by the text's length.": (
                lambda hidden, lengths, P: (
                    _pool(hidden, lengths, P) * (lengths / (hidden.shape[1] - P))[:, None]
                )
            ),
            "This is the sum; divide by the text's length.": (
                lambda hidden, lengths, P: _pool(hidden, lengths, P) * lengths[:, None]
            ),
        },
        hint="For each text: hidden[b, P : P + lengths[b]].mean(0).",
    ),
    Guess(
        name="8h",
        title="The prompt pooled too",
        level=1,
        minutes=3,
        measure=_distances_with_the_prompt_pooled,
        lesson="The same prompt stands in every mean and draws all texts together.",
    ),
    Exact(
        name="8i",
        title="The BERT's whole step",
        level=3,
        minutes=30,
        inputs=_traced_berts,
        right=lambda base, trace, drows, P: trace.grad("prompt.vectors"),
        mistakes={
            "The norm in front of block 0 is missing: go back through embedding.norm last.": (
                lambda base, trace, drows, P: _bert_dx(base, trace, drows, P, first=False)
            ),
            "The way past the MLP is missing: add dout before you go through ln1.": (
                lambda base, trace, drows, P: _bert_dx(base, trace, drows, P, past=False)
            ),
            "The query's gradient is not divided by the root of D.": (
                lambda base, trace, drows, P: _bert_dx(base, trace, drows, P, scale=False)
            ),
            "This is the mean over the texts; the prompt's gradient is their sum.": (
                lambda base, trace, drows, P: _bert_dx(base, trace, drows, P, sums=False)
            ),
        },
        hint="Per block: ln2, MLP and the way past it, ln1, attention and the way past it.",
    ),
)
