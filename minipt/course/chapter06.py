"""The exercises of chapter 6: what an accuracy is worth, and what makes it look better."""

from dataclasses import replace
from functools import cache

import numpy as np

from minipt.course.exercises import Band, Exact, Guess, Property
from minipt.course.sentences import statements_and_questions
from minipt.learning.loop import learn
from minipt.learning.settings import defaults_for
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.rivals.weights import FullLearner
from minipt.studies.ensemble import JOINED, ensemble
from minipt.tasks.bag_of_words import Z_95, confidence_interval
from minipt.tasks.task import Split, normalised

TITLE = "Is it better?"


@cache
def _accuracies_of_averages():
    """Five prompts of short runs, joined in three ways."""
    base, task = load_base("nano"), statements_and_questions()
    short = {"steps": 60, "learning_rate": 0.1, "evaluate_every": 60}
    prompts = [tune(base, task, seed=seed, **short).prompt for seed in range(5)]
    return ensemble(base, prompts, task).accuracies()


def _average_that_fails():
    accuracies = _accuracies_of_averages()
    return min(JOINED, key=accuracies.get)


def _accuracy_with_a_leak():
    """All weights learn sixty test texts whose labels are coins, and are tested on the same."""
    base, task = load_base("nano"), statements_and_questions()
    new = Split(task.test.texts[:60], np.random.default_rng(0).integers(0, 2, 60))
    leaky = replace(task, train=new, validation=new, test=new)
    settings = defaults_for(base, leaky, steps=80, learning_rate=1e-3, evaluate_every=80)
    return learn(FullLearner(base, leaky, settings), leaky, settings).test.accuracy


def _interval(share, total, z=Z_95, squared=1.0):
    """Wilson's interval, or with squared = 0 the one without his terms of z²."""
    z2 = squared * z**2 / total
    half = z * np.sqrt(share * (1 - share) / total + squared * z2 / (4 * total))
    return (share + z2 / 2 - half) / (1 + z2), (share + z2 / 2 + half) / (1 + z2)


def _winner(here, there):
    best = here.mean(1).argmax()
    return float(here[best].mean()), float(there[best].mean())


def _some_answers():
    rng = np.random.default_rng(1)
    here, there = rng.random((2, 8, 30)) < 0.6
    return [(here, there), (there[:5], here[:5, :20])]


def _count_leaked(train, test):
    seen = set(map(normalised, train))
    return sum(normalised(text) in seen for text in test)


def _some_texts():
    train = ["The bus was late.", "It rained.", "We left early.", "the tea was cold."]
    test = ["It  rained.", "THE BUS was late.", "THE BUS was LATE.", "Nobody came.", "It rained."]
    return [(train, test), (test, train)]


def _is_new(template):
    return template.strip() != statements_and_questions().template.strip()


EXERCISES = (
    Property(
        name="6a",
        title="A prompt of your own",
        level=1,
        minutes=10,
        right=lambda: "Is this a question? {text}\nKind:",
        laws={
            "The text is missing: write {text} once, where it belongs.": (
                lambda template: isinstance(template, str) and template.count("{text}") == 1
            ),
            "It ends with a space or a new line; the label words begin with a space already.": (
                lambda template: template == template.rstrip()
            ),
            "This is the task's own template: add words, in front or behind.": _is_new,
        },
        mistakes={
            "The text is missing: write {text} once, where it belongs.": lambda: "Kind:",
            "It ends with a space or a new line; the label words begin with a space already.": (
                lambda: "Is this a question? {text}\nKind: "
            ),
            "This is the task's own template: add words, in front or behind.": (
                lambda: "{text}\nKind:"
            ),
        },
    ),
    Exact(
        name="6b",
        title="The interval of an accuracy",
        level=2,
        minutes=15,
        inputs=lambda: [(108, 120), (60, 120), (32, 32), (0, 5)],
        right=confidence_interval,
        mistakes={
            "This is p ± z √(p(1-p)/n), which is empty at p = 1: take Wilson's terms of z² too.": (
                lambda correct, total: _interval(correct / total, total, squared=0.0)
            ),
            "This is one standard deviation: multiply by z = 1.96, for 95 %.": (
                lambda correct, total: _interval(correct / total, total, z=1.0)
            ),
            "The division by 1 + z²/n is missing.": (
                lambda correct, total: tuple(
                    each * (1 + Z_95**2 / total) for each in _interval(correct / total, total)
                )
            ),
            "Upper and lower end are exchanged.": (
                lambda correct, total: confidence_interval(correct, total)[::-1]
            ),
        },
        tolerance=1e-4,
        hint="p = correct / n; then the middle, the half width, and both divided by 1 + z²/n.",
    ),
    Guess(
        name="6c",
        title="Which average fails",
        level=1,
        minutes=5,
        measure=_average_that_fails,
        lesson="Answers can be averaged; vectors that began at different words cannot.",
    ),
    Exact(
        name="6d",
        title="The winner, here and there",
        level=2,
        minutes=10,
        inputs=_some_answers,
        right=_winner,
        mistakes={
            "There it is another one that wins: keep the one that won here.": (
                lambda here, there: (here.mean(1).max(), there.mean(1).max())
            ),
            "This is the mean of all of them there: look only at the winner.": (
                lambda here, there: (here.mean(1).max(), there.mean())
            ),
            "This is the one with the fewest right: take argmax.": (
                lambda here, there: (
                    here.mean(1).min(),
                    there[here.mean(1).argmin()].mean(),
                )
            ),
            "These are the easiest texts, not the best prompt: take the mean over the texts.": (
                lambda here, there: (here.mean(0).max(), there.mean(0).max())
            ),
        },
        hint="best = here.mean(1).argmax(), and then two means of row `best`.",
    ),
    Band(
        name="6e",
        title="What winning adds",
        level=2,
        minutes=10,
        low=0.02,
        high=0.2,
        why="Take the mean over many draws of the accuracy here minus the accuracy there.",
        mistakes={"Zero: do both halves have the same texts?": lambda: 0.0},
    ),
    Guess(
        name="6f",
        title="Labels drawn by a coin",
        level=1,
        minutes=5,
        measure=_accuracy_with_a_leak,
        lesson="There is nothing to learn in a coin: what looks like skill is the leak.",
    ),
    Exact(
        name="6g",
        title="How many texts leak",
        level=2,
        minutes=10,
        inputs=_some_texts,
        right=_count_leaked,
        mistakes={
            "Case and white space differ and the text is the same: lower() and split() first.": (
                lambda train, test: sum(text in set(train) for text in test)
            ),
            "Case is looked through and white space is not: ' '.join(text.split()).": (
                lambda train, test: sum(
                    text.lower() in {each.lower() for each in train} for text in test
                )
            ),
            "A text that occurs twice in the test split counts twice there: count, no set.": (
                lambda train, test: len(set(map(normalised, train)) & set(map(normalised, test)))
            ),
            "This is a share; how many texts are they?": (
                lambda train, test: _count_leaked(train, test) / len(test)
            ),
        },
        hint="Make a set of the training texts as ' '.join(text.lower().split()), then count.",
    ),
)
