"""The exercises of chapter 2: the mask, the softmax, attention, the loss, the row that is read."""

from functools import cache

import numpy as np

from minipt.course.exercises import Exact, Guess
from minipt.course.sentences import statements_and_questions
from minipt.course.twins import read_at
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.maths import ops
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import question_format
from minipt.transformer.layer import causal_mask

TITLE = "From text to answer"


def softmax(scores):
    """The right softmax, of the last axis."""
    return ops.softmax(np.array(scores, np.float64))


def attend(query, key, value, scale=None, mask=None):
    """The context (B, H, S, D) of queries that are not divided by √D yet."""
    S, D = query.shape[-2:]
    mask = causal_mask(S, np.float64) if mask is None else mask
    scores = query @ key.swapaxes(-1, -2) * (D**-0.5 if scale is None else scale) + mask
    return softmax(scores) @ value


def loss(logits, targets):
    """The mean cross-entropy in nats, of logits (B, K)."""
    return float(ops.cross_entropy(logits, targets)[0].mean())


def _some_scores():
    rng = np.random.default_rng(0)
    small = rng.standard_normal((2, 3, 4))
    return [(small + np.where(small > 1, -np.inf, 0.0),), (1000 * small,), (small[0, 0],)]


def _some_heads():
    rng = np.random.default_rng(1)
    shapes = (1, 2, 5, 4), (2, 3, 7, 16)
    return [tuple(rng.standard_normal((3, *shape))) for shape in shapes]


def _some_logits():
    rng = np.random.default_rng(2)
    return [
        (rng.standard_normal((1, 2)), np.array([1])),
        (rng.standard_normal((5, 3)), np.array([0, 2, 1, 1, 2])),
    ]


def _rows_without_mask(S):
    """The rows of the context that are the same with and without the mask."""
    query, key, value = np.random.default_rng(3).standard_normal((3, 1, 1, S, 4))
    both = attend(query, key, value), attend(query, key, value, mask=np.zeros((S, S)))
    return [r for r in range(S) if np.allclose(both[0][0, 0, r], both[1][0, 0, r])]


def _rows(lengths, P):
    return P + np.asarray(lengths) - 1


@cache
def _read_too_early():
    """The accuracy of a tuned prompt whose answers are read P rows too early."""
    base, task = load_base("nano"), statements_and_questions()
    prompt = tune(base, task, steps=200, learning_rate=0.03, seed=0).prompt
    question = question_format(base, task.template, task.label_words)
    rows, _ = encode(base, question.template, task.test.texts, base.config.context)
    _, batch = next(batches(rows, task.test.labels, question, size=len(rows)))
    answers = read_at(base, prompt, batch, batch.lengths - 1).argmax(1)
    return float((answers == batch.targets).mean())


EXERCISES = (
    Exact(
        name="2a",
        title="The mask",
        level=1,
        minutes=5,
        inputs=lambda: [(4,), (7,)],
        right=lambda S: causal_mask(S, np.float64),
        mistakes={
            "Rows read what comes later here, not what came before: exchange row and column.": (
                lambda S: causal_mask(S, np.float64).T
            ),
            "A row reads itself too, so the diagonal is 0.": (
                lambda S: np.triu(np.full((S, S), -np.inf))
            ),
            "These are ones and zeros, which would be added to the scores: use 0 and -inf.": (
                lambda S: np.tri(S)
            ),
            "Nothing is masked.": lambda S: np.zeros((S, S)),
            "0 times -inf is nan: choose between 0 and -inf with np.where.": (
                lambda S: np.where(np.tri(S) == 1, np.nan, -np.inf)
            ),
            "A large number hides nearly as well, but -np.inf is asked for.": (
                lambda S: np.where(np.tri(S) == 1, 0.0, -1e9)
            ),
        },
        hint="np.where(columns <= rows, 0.0, -np.inf), with columns (S,) and rows (S, 1).",
    ),
    Exact(
        name="2b",
        title="The softmax",
        level=2,
        minutes=10,
        inputs=_some_scores,
        right=softmax,
        mistakes={
            "For large scores the exponential overflows: subtract each row's maximum first.": (
                lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
            ),
            "All weights together sum to 1; each row should: sum over the last axis.": (
                lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()
            ),
            "These are the exponentials; divide them by their sum.": (
                lambda x: np.exp(x - x.max(-1, keepdims=True))
            ),
        },
        hint="exponentials / exponentials.sum(-1, keepdims=True), of scores less their maximum.",
    ),
    Exact(
        name="2c",
        title="Attention",
        level=2,
        minutes=15,
        inputs=_some_heads,
        right=attend,
        mistakes={
            "The scores are not divided: divide the query by the root of D.": (
                lambda q, k, v: attend(q, k, v, scale=1.0)
            ),
            "The scores are divided by D; divide them by its root.": (
                lambda q, k, v: attend(q, k, v, scale=1 / q.shape[-1])
            ),
            "Rows read later rows here: add the mask before the softmax.": (
                lambda q, k, v: attend(q, k, v, mask=np.zeros(2 * q.shape[-2:-1]))
            ),
            "Query and key are exchanged: row r compares its own query with every key.": (
                lambda q, k, v: attend(k, q, v)
            ),
            "The scores are divided by a root, but not of their D: take D from query.shape.": (
                lambda q, k, v: attend(q, k, v, scale=192**-0.5)  # C of `tiny`
            ),
        },
        hint="scores = query @ key.swapaxes(-1, -2), then divide, mask, softmax, times value.",
    ),
    Exact(
        name="2d",
        title="Without the mask",
        level=2,
        minutes=5,
        inputs=lambda: [(3,), (6,)],
        right=_rows_without_mask,
        mistakes={
            "Row 0 reads only itself with the mask, and all rows without it.": lambda S: [0],
            "Every row but one reads something later when the mask is gone.": (
                lambda S: list(range(S))
            ),
            "Some row stays right: which one reads no later row anyway?": lambda S: [],
        },
        hint="The mask takes away later rows, and one row has none.",
    ),
    Exact(
        name="2e",
        title="The loss",
        level=1,
        minutes=10,
        inputs=_some_logits,
        right=loss,
        mistakes={
            "This is the sum over the texts; the loss is their mean.": (
                lambda logits, targets: loss(logits, targets) * len(logits)
            ),
            "This is in bits; nats have the natural logarithm.": (
                lambda logits, targets: loss(logits, targets) / np.log(2)
            ),
            "The sign is wrong: a probability's logarithm is negative, the loss is not.": (
                lambda logits, targets: -loss(logits, targets)
            ),
            "These are the logits themselves: a softmax comes before the logarithm.": (
                lambda logits, targets: -logits[np.arange(len(logits)), targets].mean()
            ),
            "All is read from the first text: B is len(logits) here, not the notebook's 1.": (
                lambda logits, targets: -np.log(softmax(logits)[[0], targets]).mean()
            ),
            "Each text reads the targets of all texts: p[:, targets] has B columns.": (
                lambda logits, targets: -np.log(softmax(logits)[:, targets]).mean()
            ),
            "Take the logarithm of each text first, and then the mean.": (
                lambda logits, targets: (
                    -np.log(softmax(logits)[np.arange(len(logits)), targets].mean())
                )
            ),
        },
        hint="-np.log(softmax(logits)[np.arange(len(logits)), targets]).mean().",
    ),
    Exact(
        name="2f",
        title="The row that is read",
        level=2,
        minutes=10,
        inputs=lambda: [(np.array([3, 5, 5, 2]), 4), (np.array([9]), 20)],
        right=_rows,
        mistakes={
            "This is the last column, which is padding behind every shorter text.": (
                lambda lengths, P: np.full(len(lengths), P + lengths.max() - 1)
            ),
            "P rows too early: the prompt stands in front of the text.": (
                lambda lengths, P: lengths - 1
            ),
            "One row too late: rows are counted from 0.": lambda lengths, P: P + lengths,
        },
        hint="Write down the rows of one text: P of the prompt, then its tokens, then padding.",
    ),
    Guess(
        name="2g",
        title="Read too early",
        level=1,
        minutes=5,
        measure=_read_too_early,
        lesson="No error, no warning: a coin would do as well.",
    ),
)
