"""The exercises of chapter 1: what is trained, what stays frozen, and what an accuracy says."""

from dataclasses import replace
from functools import cache

import numpy as np

from minipt.course.exercises import Exact, Guess
from minipt.course.sentences import statements_and_questions
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.prompting.starts import init_prompt

TITLE = "Twenty vectors, one frozen model"


@cache
def _nano():
    return load_base("nano")


def _bases_with_prompts():
    micro = load_base("micro")
    return [
        (_nano(), init_prompt(_nano(), length=20)),
        (_nano(), init_prompt(_nano(), length=5)),
        (micro, init_prompt(micro, length=20)),
    ]


def _error_of_writing(base):
    try:
        base.params["token.table"][0, 0] = 1.0
    except Exception as error:
        return type(error).__name__
    return "no error"


def _accuracy_at_a_small_rate():
    task = statements_and_questions()
    return tune(_nano(), task, steps=200, learning_rate=1e-4, seed=0).test_accuracy


def _some_counts():
    """Confusion matrices, the right class by rows and the answer by columns."""
    return [
        (np.array([[105, 0], [15, 0]]),),
        (np.array([[20, 10], [30, 40]]),),
        (np.array([[8, 1, 1], [2, 20, 4], [6, 3, 5]]),),
    ]


def _balanced(counts):
    return float((counts.diagonal() / counts.sum(1)).mean())


def _belongs(prompt, base):
    return prompt.fingerprint == base.fingerprint


def _prompts_and_bases():
    """The base of a prompt, another one, and two that share its name or its numbers."""
    nano, prompt = _nano(), init_prompt(_nano(), length=5)
    table = nano.params["token.table"] * np.float32(1.01)
    changed = replace(nano, params=nano.params | {"token.table": table})
    return [
        (prompt, nano),
        (prompt, load_base("micro")),
        (prompt, changed),
        (prompt, replace(nano, name="a copy")),
    ]


EXERCISES = (
    Exact(
        name="1a",
        title="What is trained",
        level=1,
        minutes=5,
        inputs=_bases_with_prompts,
        right=lambda base, prompt: (prompt.vectors.size, base.size),
        mistakes={
            "This counts the vectors; each has C numbers.": (
                lambda base, prompt: (len(prompt.vectors), base.size)
            ),
            "These are bytes; a float32 number has four of them.": (
                lambda base, prompt: (prompt.vectors.nbytes, 4 * base.size)
            ),
            "The two are in the other order: trained first, then frozen.": (
                lambda base, prompt: (base.size, prompt.vectors.size)
            ),
            "The prompt is no part of the base, so nothing is subtracted.": (
                lambda base, prompt: (prompt.vectors.size, base.size - prompt.vectors.size)
            ),
            "The prompt is no part of the base, so nothing is added.": (
                lambda base, prompt: (prompt.vectors.size, base.size + prompt.vectors.size)
            ),
        },
        hint="prompt.vectors is an array, and an array knows its size; so does the base.",
    ),
    Exact(
        name="1b",
        title="Write to the base",
        level=1,
        minutes=5,
        inputs=lambda: [(_nano(),)],
        right=_error_of_writing,
        mistakes={
            "There is an error: put the assignment between `try:` and `except`.": (
                lambda base: "no error"
            ),
            "The error's name is asked, not its sentence: type(error).__name__.": (
                lambda base: "assignment destination is read-only"
            ),
        },
        hint="The assignment stands after try:, and after except the return of the error's name.",
    ),
    Guess(
        name="1c",
        title="A small learning rate",
        level=1,
        minutes=5,
        measure=_accuracy_at_a_small_rate,
        lesson="The prompt hardly moved, and all texts got the same answer.",
    ),
    Exact(
        name="1d",
        title="The majority",
        level=1,
        minutes=5,
        inputs=_some_counts,
        right=lambda counts: counts.sum(1).max() / counts.sum(),
        mistakes={
            "This is the accuracy of the answers that were given: the diagonal.": (
                lambda counts: counts.trace() / counts.sum()
            ),
            "This is the answer that was given most; take the class that occurs most, by rows.": (
                lambda counts: counts.sum(0).max() / counts.sum()
            ),
            "This is a number of texts; divide it by all of them.": (
                lambda counts: counts.sum(1).max()
            ),
            "This is the smallest class; the majority is the largest.": (
                lambda counts: counts.sum(1).min() / counts.sum()
            ),
        },
        hint="counts.sum(1) has the number of texts of each class.",
    ),
    Exact(
        name="1e",
        title="Balanced accuracy",
        level=2,
        minutes=10,
        inputs=_some_counts,
        right=_balanced,
        mistakes={
            "This is the plain accuracy: divide each class by its own number of texts first.": (
                lambda counts: counts.trace() / counts.sum()
            ),
            "Each answer is divided by how often it was given: divide by the sums of the rows.": (
                lambda counts: (counts.diagonal() / counts.sum(0)).mean()
            ),
            "This is the sum over the classes; take the mean.": (
                lambda counts: (counts.diagonal() / counts.sum(1)).sum()
            ),
            "These are the shares of each class; take their mean.": (
                lambda counts: counts.diagonal() / counts.sum(1)
            ),
        },
        hint="counts.diagonal() has the right answers of each class; divide them by counts.sum(1).",
    ),
    Exact(
        name="1f",
        title="A foreign prompt",
        level=2,
        minutes=10,
        inputs=_prompts_and_bases,
        right=_belongs,
        mistakes={
            "Another base may have the same width: compare the fingerprints.": (
                lambda prompt, base: prompt.vectors.shape[1] == base.config.channels
            ),
            "A name says nothing about the numbers: compare the fingerprints.": (
                lambda prompt, base: prompt.base_name == base.name
            ),
            "Not every prompt fits every base.": lambda prompt, base: True,
        },
        hint="A prompt remembers prompt.fingerprint, and a base computes base.fingerprint.",
    ),
)
