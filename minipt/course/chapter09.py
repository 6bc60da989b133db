"""The exercises of chapter 9: decoding with the past, responses, tags, and an alarm."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from minipt.course.exercises import Band, Exact, Guess
from minipt.course.sentences import instructions, statements_and_questions
from minipt.course.twins import prompt_twice
from minipt.learning.evaluate import evaluate
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.maths import ops
from minipt.tasks.task import Pairs, load_pairs

TITLE = "Writing, and keeping it running"
NEVER = 400.0  # answers after the change, in which a rule that never alarms is silent
STREAMS = 20


def decode(query, key, value, past_key, past_value, scale=None):
    """The context (H, 1, D) of one new row, and the past with its key and value."""
    key = np.concatenate([past_key, key], axis=1)  # (H, S + 1, D)
    value = np.concatenate([past_value, value], axis=1)
    return _attend(query, key, value, scale), key, value


def _attend(query, key, value, scale=None):
    scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return ops.softmax(scores) @ value


def _with_context(context):
    """The mistake that computes another context and hands on the right past."""
    return lambda *arguments: (context(*arguments), *decode(*arguments)[1:])


def _some_pasts():
    rng = np.random.default_rng(0)
    shapes = (2, 5, 4), (3, 9, 8)
    return [
        (*rng.standard_normal((3, H, 1, D)), *rng.standard_normal((2, H, S, D)))
        for H, S, D in shapes
    ]


def _written_twice():
    """With the prompt twice: the accuracy of classes, and the share of right responses."""
    nano, micro, task = load_base("nano"), load_base("micro"), statements_and_questions()
    run = tune(nano, task, steps=200, learning_rate=0.03, seed=0)
    classes = evaluate(nano, prompt_twice(run.prompt), task.test).accuracy
    with TemporaryDirectory() as folder:
        path = Path(folder) / "instructions.jsonl"
        known = instructions(task.train.texts + task.validation.texts)
        path.write_text("\n".join(map(json.dumps, known)), encoding="utf-8")
        run = tune(micro, load_pairs(path), steps=200, learning_rate=0.1, seed=0)
    asked = instructions(task.test.texts)
    test = Pairs([each["prompt"] for each in asked], [f" {each['response']}" for each in asked])
    texts = evaluate(micro, prompt_twice(run.prompt), test).accuracy
    return round(classes, 3), round(texts, 3)


def _some_moves():
    return [
        ([("production", 1), ("test", 2), ("production", 2), ("production", 1)],),
        ([("production", 3), ("test", 4), ("test", None), ("best", 2)],),
    ]


def _tags(moves):
    return {tag: number for tag, number in dict(moves).items() if number is not None}


def _largest(moves):
    placed = [move for move in moves if move[1] is not None]
    return {tag: max(n for name, n in placed if name == tag) for tag, _ in placed}


def _some_answers():
    rng = np.random.default_rng(1)
    return [((rng.random(n) < p).astype(int), q) for n, p, q in [(50, 0.2, 0.5), (80, 0.4, 0.1)]]


def _deviations(answers, share):
    return (np.mean(answers) - share) / np.sqrt(share * (1 - share) / len(answers))


EXERCISES = (
    Exact(
        name="9a",
        title="The rows of a step",
        level=1,
        minutes=5,
        inputs=lambda: [(20, 12, 1), (5, 30, 7)],
        right=lambda P, T, n: (P + T + n - 1, 1, P + T + n),
        mistakes={
            "Positions are counted from 0, so the last of P + T + n rows has one less.": (
                lambda P, T, n: (P + T + n, 1, P + T + n)
            ),
            "The prompt has the first P positions, so the token stands P further.": (
                lambda P, T, n: (T + n - 1, 1, P + T + n)
            ),
            "Without a past the prompt's rows run again too.": (
                lambda P, T, n: (P + T + n - 1, 1, T + n)
            ),
            "With a past only the newest token's row runs.": (
                lambda P, T, n: (P + T + n - 1, n, P + T + n)
            ),
        },
        hint="Count the rows: P of the prompt, T of the text, n that were written.",
    ),
    Exact(
        name="9b",
        title="One decoding step",
        level=2,
        minutes=10,
        inputs=_some_pasts,
        right=decode,
        mistakes={
            "The row reads itself too: append its own key and value before the scores.": (
                _with_context(lambda q, k, v, pk, pv: _attend(q, pk, pv))
            ),
            "The row reads only itself here: compare its query with the past's keys too.": (
                _with_context(lambda q, k, v, pk, pv: v)
            ),
            "The scores are not divided: divide the query by the root of D.": (
                lambda *arguments: decode(*arguments, scale=1.0)
            ),
            "The newest row stands behind the past: exchange the two in np.concatenate.": (
                lambda q, k, v, pk, pv: decode(q, pk, pv, k, v)
            ),
            "The keys are multiplied by the weights here: take the values.": (
                _with_context(
                    lambda q, k, v, pk, pv: _attend(q, *2 * [np.concatenate([pk, k], axis=1)])
                )
            ),
        },
        hint="key = np.concatenate([past_key, key], axis=1), the same for value, then attention.",
    ),
    Exact(
        name="9c",
        title="A row and its target",
        level=2,
        minutes=5,
        inputs=lambda: [([7, 3, 9], [5, 6], 0), ([4, 4], [8, 2, 2, 1], 99)],
        right=lambda text, response, end: (text + response, [*response, end]),
        mistakes={
            "The end is a target only: no row reads it.": (
                lambda text, response, end: ([*text, *response, end], [*response, end])
            ),
            "Without the end in the target the prompt never learns to stop.": (
                lambda text, response, end: (text + response, response)
            ),
            "The text is no target: only the response is learnt.": (
                lambda text, response, end: (text + response, [*text[1:], *response, end])
            ),
            "The row needs the response too: each of its tokens is read to predict the next.": (
                lambda text, response, end: (text, [*response, end])
            ),
        },
        hint="Text, then response, are read; response, then end, should follow.",
    ),
    Guess(
        name="9d",
        title="The prompt twice",
        level=1,
        minutes=5,
        measure=_written_twice,
        lesson="No error, no warning; how much is lost differs from prompt to prompt.",
    ),
    Exact(
        name="9e",
        title="Where a tag stands",
        level=1,
        minutes=5,
        inputs=_some_moves,
        right=_tags,
        mistakes={
            "A tag that was taken away stands nowhere: leave it out.": lambda moves: dict(moves),
            "A tag can move back to an older version: the last move counts, not the largest.": (
                _largest
            ),
            "These are the first moves; the last one of each tag counts.": (
                lambda moves: dict(reversed(moves))
            ),
        },
        hint="A dict keeps the last value that a key was given; then leave out those with None.",
    ),
    Exact(
        name="9f",
        title="How far is far",
        level=2,
        minutes=5,
        inputs=_some_answers,
        right=_deviations,
        mistakes={
            "This is the difference of the shares; divide it by its standard deviation.": (
                lambda answers, share: np.mean(answers) - share
            ),
            "This is one answer's standard deviation; that of a mean of n is √n times smaller.": (
                lambda answers, share: (np.mean(answers) - share) / np.sqrt(share * (1 - share))
            ),
            "This divides by the variance; take its root.": (
                lambda answers, share: (
                    (np.mean(answers) - share) / (share * (1 - share) / len(answers))
                )
            ),
            "The sign is wrong: the share of these answers comes first.": (
                lambda answers, share: -_deviations(answers, share)
            ),
        },
        hint="(mean - share) / √(share (1 - share) / n).",
    ),
    Band(
        name="9g",
        title="An alarm",
        level=3,
        minutes=10,
        low=1.0,
        high=200.0,
        why="Below 0 it counts streams with a false alarm; you look often, so demand more "
        "standard deviations. A large value is late: look at the last answers only.",
        mistakes={
            "It alarms before anything has changed, in every stream.": lambda: -float(STREAMS),
            "It never alarms: is the share's fall below your limit?": lambda: NEVER,
        },
    ),
)
