"""The exercises of chapter 7: near words and their null model, attention, ablation, the pull."""

from functools import cache

import numpy as np

from minipt.course.exercises import Band, Case, Exact, Guess, Slope
from minipt.course.sentences import statements_and_questions
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.prompting.text import tokens
from minipt.results.influence import ablate

TITLE = "What did it learn?"
TALE = " Once upon a time there was a little house by the sea."


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _random(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) + 0.2 for shape in shapes)


def _nearest_cosines(vectors, table):
    return (_unit(vectors) @ _unit(table).T).max(1)


def _noise(vectors, noise):
    return _unit(noise) * np.linalg.norm(vectors, axis=1, keepdims=True)


def _vectors_and_noise():
    vectors, noise = _random((5, 8), (5, 8))
    return [(vectors * np.arange(1, 6)[:, None], noise), _random((1, 3), (1, 3), seed=1)]


def _attention(weights, P):
    return weights[..., :P].mean((0, 1, 2))


def _some_weights():
    """Weights (B, H, R, P + T) whose rows sum to 1."""
    pairs = ((2, 3, 4, 9), 5), ((1, 4, 1, 5), 2)
    weights = [(np.exp(_random(shape)[0]), P) for shape, P in pairs]
    return [(one / one.sum(-1, keepdims=True), P) for one, P in weights]


@cache
def _needed_most():
    """The three vectors whose loss alone without them is the largest, of the notebook's prompt."""
    base, task = load_base("micro"), statements_and_questions(one_in=8)
    length = len(tokens(base, TALE))
    start = {"length": length, "method": "text", "text": TALE}
    prompt = tune(base, task, **start, steps=120, learning_rate=0.1, seed=0).prompt
    return np.argsort(-ablate(base, prompt, task).losses)[:3].tolist()


def _replaced(vectors, rows, nothing):
    copy = vectors.copy()
    copy[rows] = nothing
    return copy


def _keep_only(vectors, kept, nothing):
    return _replaced(vectors, [p for p in range(len(vectors)) if p not in kept], nothing)


def _vectors_to_keep():
    vectors, nothing, others, zero = _random((6, 3), 3, (4, 5), 5, seed=2)
    return [(vectors, [4, 1], nothing), (others, [2], zero)]


def _vectors_to_take():
    return [(vectors, kept[0], nothing) for vectors, kept, nothing in _vectors_to_keep()]


def _pull(vectors, words, gamma):
    return 2 * gamma / len(vectors) * (vectors - words)


def _pulled_vectors():
    """The loss of the case is the second term of the objective, for each of some prompts."""
    cases = []
    for P, gamma in ((3, 0.5), (7, 20.0)):
        vectors, words = _random((P, 4), (P, 4), seed=P)

        def term(x, words=words, gamma=gamma, P=P):
            return gamma / P * ((x - words) ** 2).sum()

        cases.append(Case(arguments=(vectors, words, gamma), x=vectors, loss=term))
    return cases


EXERCISES = (
    Exact(
        name="7a",
        title="The nearest word",
        level=2,
        minutes=10,
        inputs=lambda: [_random((4, 6), (9, 6)), _random((2, 3), (5, 3), seed=1)],
        right=_nearest_cosines,
        mistakes={
            "These are inner products; divide by the lengths of both vectors.": (
                lambda vectors, table: (vectors @ table.T).max(1)
            ),
            "Only the prompt's vectors were divided by their length: divide the words too.": (
                lambda vectors, table: (_unit(vectors) @ table.T).max(1)
            ),
            "Only the words were divided by their length: divide the prompt's vectors too.": (
                lambda vectors, table: (vectors @ _unit(table).T).max(1)
            ),
            "This is the farthest word; the nearest has the largest cosine.": (
                lambda vectors, table: (_unit(vectors) @ _unit(table).T).min(1)
            ),
            "This is the row of the nearest word; its cosine is asked: max, not argmax.": (
                lambda vectors, table: (_unit(vectors) @ _unit(table).T).argmax(1)
            ),
            "This is the nearest vector of each word: take the maximum over the words, axis 1.": (
                lambda vectors, table: (_unit(vectors) @ _unit(table).T).max(0)
            ),
        },
        hint="Divide the rows of both by their length, multiply one by the other transposed, max.",
    ),
    Exact(
        name="7b",
        title="The null model",
        level=2,
        minutes=10,
        inputs=_vectors_and_noise,
        right=_noise,
        mistakes={
            "The noise has its own length still: divide each row of it by its norm first.": (
                lambda vectors, noise: noise * np.linalg.norm(vectors, axis=1, keepdims=True)
            ),
            "The noise has length 1: multiply each row by the norm of the vector.": (
                lambda vectors, noise: _unit(noise)
            ),
            "Here the prompt keeps its directions; the noise should keep its own.": (
                lambda vectors, noise: _noise(noise, vectors)
            ),
            "All rows have one norm together: take the norm of each row, axis 1.": (
                lambda vectors, noise: noise * np.linalg.norm(vectors) / np.linalg.norm(noise)
            ),
        },
        hint="noise / (its norms) * (the vectors' norms), with axis=1 and keepdims=True.",
    ),
    Exact(
        name="7c",
        title="Who reads them",
        level=2,
        minutes=10,
        inputs=_some_weights,
        right=_attention,
        mistakes={
            "These are the last P columns; the prompt stands in front.": (
                lambda weights, P: weights[..., -P:].mean((0, 1, 2))
            ),
            "These are the text's columns; the prompt's are the first P.": (
                lambda weights, P: weights[..., P:].mean((0, 1, 2))
            ),
            "The rows are added up; take their mean.": (
                lambda weights, P: weights[..., :P].mean((0, 1)).sum(0)
            ),
            "The heads are added up; take their mean.": (
                lambda weights, P: weights[..., :P].sum(1).mean((0, 1))
            ),
            "These shares sum to 1: do not divide by their sum, since the text is read too.": (
                lambda weights, P: _attention(weights, P) / _attention(weights, P).sum()
            ),
            "This is the share of all vectors together; keep the last axis.": (
                lambda weights, P: _attention(weights, P).sum()
            ),
        },
        hint="weights[..., :P].mean((0, 1, 2)).",
    ),
    Guess(
        name="7d",
        title="Which vectors matter?",
        level=1,
        minutes=5,
        measure=_needed_most,
        lesson="A sensible word is no sign of it, and much attention only a weak one.",
    ),
    Exact(
        name="7e",
        title="Take one away",
        level=1,
        minutes=5,
        inputs=_vectors_to_take,
        right=_replaced,
        mistakes={
            "The vector is gone, and all rows behind it move by one position: replace it.": (
                lambda vectors, p, nothing: np.delete(vectors, p, axis=0)
            ),
            "A zero stands in its place; `nothing` should.": (
                lambda vectors, p, nothing: _replaced(vectors, p, 0.0)
            ),
            "This keeps vector p alone: replace that one, and keep the others.": (
                lambda vectors, p, nothing: _keep_only(vectors, [p], nothing)
            ),
            "Nothing was replaced.": lambda vectors, p, nothing: vectors,
        },
        hint="copy = vectors.copy(), then copy[p] = nothing, then return it.",
    ),
    Exact(
        name="7f",
        title="Keep a few only",
        level=2,
        minutes=10,
        inputs=_vectors_to_keep,
        right=_keep_only,
        mistakes={
            "These are taken away, and the others kept: the other way round is asked.": _replaced,
            "Only the kept vectors are left: put `nothing` in the other places.": (
                lambda vectors, kept, nothing: vectors[kept]
            ),
            "The kept vectors stand in front; each should stay in its own row.": (
                lambda vectors, kept, nothing: np.concatenate(
                    [vectors[kept], np.tile(nothing, (len(vectors) - len(kept), 1))]
                )
            ),
            "Zeros stand in the other places; `nothing` should.": (
                lambda vectors, kept, nothing: _keep_only(vectors, kept, 0.0)
            ),
        },
        hint="copy = np.tile(nothing, (P, 1)), then copy[kept] = vectors[kept].",
    ),
    Slope(
        name="7g",
        title="The pull",
        level=2,
        minutes=10,
        cases=_pulled_vectors,
        mistakes={
            "The exponent comes down: a factor of 2 is missing.": (
                lambda vectors, words, gamma: _pull(vectors, words, gamma) / 2
            ),
            "The factor 1 / P is missing: P vectors share the pull.": (
                lambda vectors, words, gamma: 2 * gamma * (vectors - words)
            ),
            "The sign is wrong: a gradient points to where the term grows, away from the word.": (
                lambda vectors, words, gamma: -_pull(vectors, words, gamma)
            ),
            "This is divided by all P·C numbers; the sum is divided by P alone.": (
                lambda vectors, words, gamma: _pull(vectors, words, gamma) / vectors.shape[1]
            ),
            "This pulls to zero, not to the words: subtract them.": (
                lambda vectors, words, gamma: _pull(vectors, 0.0, gamma)
            ),
        },
        hint="2 * gamma / P * (vectors - words), and P is len(vectors).",
    ),
    Band(
        name="7h",
        title="Too strong a pull",
        level=2,
        minutes=15,
        low=0.1,
        high=0.875,
        why="The prompt still learns: take a larger gamma.",
        mistakes={"Every text is answered rightly: the pull is far too weak.": lambda: 1.0},
    ),
)
