"""The exercises of chapter 10: a sheet, a choice, a report, and the same run again."""

import json
from dataclasses import asdict
from functools import cache

import numpy as np

from minipt.course.exercises import Exact, Property
from minipt.course.sentences import statements_and_questions
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.prompting.starts import init_prompt
from minipt.tasks.bag_of_words import confidence_interval

TITLE = "Your own task"
MEASURES = ("accuracy", "balanced accuracy")
BASELINES = ("majority", "bag of words", "untuned", "written")
SHEET = ("question", "labels", "source", "texts", "majority", "measure", "baselines", "target")
SHEET += ("costly error", "give up")
REPORT = ("accuracies", "texts", "interval", "baseline", "baseline accuracy", "beaten")
REPORT += ("chosen on", "conclusion")
IN_WORDS = ("question", "source", "costly error", "give up")
FEW_WORDS, MORE_WORDS = 4, 12


def _words(text):
    return len(text.split()) if isinstance(text, str) else 0


GOOD_SHEET = {
    "question": "Does the word honestly open a sentence or end it?",
    "labels": ["opening", "ending"],
    "source": "Made from sentences that were written for minipt.",
    "texts": 310,
    "majority": 0.5,
    "measure": "accuracy",
    "baselines": ["majority", "bag of words", "untuned"],
    "target": 0.9,
    "costly error": "Neither error costs more than the other one.",
    "give up": "If three lengths do not beat the bag of words.",
}
GOOD_REPORT = {
    "accuracies": [0.75, 0.875, 1.0],
    "texts": 32,
    "interval": confidence_interval(28, 32),
    "baseline": "bag of words",
    "baseline accuracy": 0.59,
    "beaten": True,
    "chosen on": "validation",
    "conclusion": "The prompt beats the bag of words, since the order of the words decides and a "
    "bag has none.",
}


def _complete(keys):
    return lambda answer: (
        isinstance(answer, dict) and all(answer.get(key) is not None for key in keys)
    )


def _majoritys_score(sheet):
    """What the majority gets by the sheet's measure."""
    return sheet["majority"] if sheet["measure"] == "accuracy" else 1 / len(sheet["labels"])


def _right_interval(report):
    mean, texts = float(np.mean(report["accuracies"])), int(report["texts"])
    wilson = confidence_interval(round(mean * texts), texts)
    return np.shape(report["interval"]) == (2,) and np.allclose(
        report["interval"], wilson, atol=0.02
    )


# By the sentence for an answer that breaks it: a law, and what breaks it in a good answer.
SHEET_RULES = {
    f"A sheet is a dict with the keys {', '.join(SHEET)}.": (_complete(SHEET), {"give up": None}),
    f"Write {', '.join(IN_WORDS)} as whole sentences.": (
        lambda sheet: min(_words(sheet[key]) for key in IN_WORDS) >= FEW_WORDS,
        {"question": "spam?"},
    ),
    '"labels" are at least two different names.': (
        lambda sheet: len(set(sheet["labels"])) == len(sheet["labels"]) >= 2,
        {"labels": ["spam", "spam"]},
    ),
    '"texts" is how many there are: at least 30, so that the splits have a few of each.': (
        lambda sheet: sheet["texts"] >= 30,
        {"texts": 12},
    ),
    '"majority" is the share of the largest class: at least 1 / K, and below 1.': (
        lambda sheet: 1 / len(sheet["labels"]) <= sheet["majority"] < 1,
        {"majority": 0.2},
    ),
    f'"measure" is one of {", ".join(MEASURES)}.': (
        lambda sheet: sheet["measure"] in MEASURES,
        {"measure": "loss"},
    ),
    "With a majority above 0.8 the accuracy hides the small class: balance it.": (
        lambda sheet: sheet["majority"] <= 0.8 or sheet["measure"] == "balanced accuracy",
        {"majority": 0.88},
    ),
    f'"baselines" are at least two of {", ".join(BASELINES)}.': (
        lambda sheet: len(set(sheet["baselines"]) & set(BASELINES)) >= 2,
        {"baselines": ["majority"]},
    ),
    '"target" is at most 1, and above what the majority gets by your measure.': (
        lambda sheet: _majoritys_score(sheet) < sheet["target"] <= 1,
        {"target": 0.5},
    ),
}
REPORT_RULES = {
    f"A report is a dict with the keys {', '.join(REPORT)}.": (
        _complete(REPORT),
        {"interval": None},
    ),
    '"accuracies" are those of at least three seeds, numbers from 0 to 1.': (
        lambda report: (
            np.size(report["accuracies"]) >= 3
            and 0 <= np.min(report["accuracies"]) <= np.max(report["accuracies"]) <= 1
        ),
        {"accuracies": [1.0]},
    ),
    '"chosen on" is "validation": what was chosen on test has no test left.': (
        lambda report: report["chosen on"] == "validation",
        {"chosen on": "test"},
    ),
    '"interval" is Wilson\'s, for the mean accuracy and this many test texts.': (
        lambda report: report["texts"] > 0 and _right_interval(report),
        {"interval": (0.87, 0.88)},
    ),
    f'"baseline" is the best one of {", ".join(BASELINES)}.': (
        lambda report: report["baseline"] in BASELINES,
        {"baseline": "a coin"},
    ),
    '"beaten" says True or False: is the mean above the accuracy of the baseline?': (
        lambda report: (
            bool(report["beaten"]) == (np.mean(report["accuracies"]) > report["baseline accuracy"])
        ),
        {"beaten": False},
    ),
    f'"conclusion" says why it is so, in at least {MORE_WORDS} words.': (
        lambda report: _words(report["conclusion"]) >= MORE_WORDS,
        {"conclusion": "It works."},
    ),
}


def _laws(rules):
    """Laws of a sheet, or of the function that makes it."""
    return {
        sentence: lambda answer, holds=holds: bool(holds(answer() if callable(answer) else answer))
        for sentence, (holds, _) in rules.items()
    }


def _broken(rules, good):
    return {
        sentence: lambda changed=changed: good | changed for sentence, (_, changed) in rules.items()
    }


def _some_results():
    """Validation and test accuracies of three seeds, by length and start."""
    return [
        (
            {
                (5, "vocab"): ([0.80, 0.82, 0.81], [0.70, 0.72, 0.71]),
                (20, "vocab"): ([0.90, 0.88, 0.86], [0.80, 0.78, 0.82]),
                (20, "uniform"): ([0.99, 0.70, 0.71], [0.83, 0.60, 0.62]),
                (50, "vocab"): ([0.84, 0.86, 0.85], [0.91, 0.90, 0.92]),
            },
        ),
        ({(1, "text"): ([0.6, 0.7], [0.9, 0.9]), (2, "text"): ([0.7, 0.8], [0.5, 0.4])},),
    ]


def _best(results, merit):
    return max(results, key=lambda setting: merit(*results[setting]))


def _some_right():
    rng = np.random.default_rng(0)
    return [(rng.random(n) < 0.8, rng.random(n) < 0.5) for n in (20, 50)]


@cache
def _a_run():
    """What is needed to reproduce a short run: its base, its task and its record as JSON."""
    base, task = load_base("nano"), statements_and_questions()
    given = {"length": 5, "method": "uniform", "steps": 12, "seed": 3, "learning_rate": 0.1}
    run = tune(base, task, batch_size=8, **given)
    record = {"task": task.name, "base": base.name, "seed": 3, "length": 5, "steps": 12}
    return base, task, json.dumps(record | {"settings": asdict(run.settings)})


def _again(base, task, text, **changed):
    return tune(base, task, **json.loads(text)["settings"] | changed).prompt.vectors


def _from_the_top(base, task, text):
    record = json.loads(text)
    return tune(
        base, task, **{name: record[name] for name in ("seed", "length", "steps")}
    ).prompt.vectors


def _start(base, task, text):
    settings = json.loads(text)["settings"]
    return init_prompt(base, settings["length"], settings["method"], settings["seed"]).vectors


EXERCISES = (
    Property(
        name="10a",
        title="The task analysis sheet",
        level=3,
        minutes=20,
        right=lambda: GOOD_SHEET,
        laws=_laws(SHEET_RULES),
        mistakes=_broken(SHEET_RULES, GOOD_SHEET),
    ),
    Exact(
        name="10b",
        title="Choose a setting",
        level=2,
        minutes=10,
        inputs=_some_results,
        right=lambda results: _best(results, lambda validation, test: np.mean(validation)),
        mistakes={
            "This is the best on test: then test is no test any more. Choose on validation.": (
                lambda results: _best(results, lambda validation, test: np.mean(test))
            ),
            "This is the setting with the luckiest seed: take the mean of the seeds.": (
                lambda results: _best(results, lambda validation, test: max(validation))
            ),
            "This is the worst one: take the largest mean.": (
                lambda results: _best(results, lambda validation, test: -np.mean(validation))
            ),
        },
        hint="max(results, key=...) with the mean of results[setting][0].",
    ),
    Exact(
        name="10c",
        title="Mean and spread",
        level=1,
        minutes=5,
        inputs=lambda: [([0.75, 0.875, 1.0],), ([0.5, 0.6, 0.9, 0.7],)],
        right=lambda values: (np.mean(values), np.std(values, ddof=1)),
        mistakes={
            "The mean was taken of the same few values, so divide by n - 1: ddof=1.": (
                lambda values: (np.mean(values), np.std(values))
            ),
            "This is the mean's own error; the spread of the seeds has no √n.": (
                lambda values: (np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values)))
            ),
            "This is the range; take the standard deviation.": (
                lambda values: (np.mean(values), np.ptp(values))
            ),
            "This is the median; take the mean.": (
                lambda values: (np.median(values), np.std(values, ddof=1))
            ),
            "This is the best seed; take the mean.": (
                lambda values: (max(values), np.std(values, ddof=1))
            ),
        },
        hint="np.mean and np.std, the second with ddof=1.",
    ),
    Exact(
        name="10d",
        title="The same texts twice",
        level=2,
        minutes=10,
        inputs=_some_right,
        right=lambda first, second: (int((~first & second).sum()), int((first & ~second).sum())),
        mistakes={
            "The two are in the other order: gained is what only the second has right.": (
                lambda first, second: (int((first & ~second).sum()), int((~first & second).sum()))
            ),
            "These are all right answers of each; leave out those that both have right.": (
                lambda first, second: (int(second.sum()), int(first.sum()))
            ),
            "These are the texts on which both agree; take those on which they do not.": (
                lambda first, second: (
                    int((first & second).sum()),
                    int((~first & ~second).sum()),
                )
            ),
        },
        hint="~ is not, & is and; (~first & second).sum() counts.",
    ),
    Exact(
        name="10e",
        title="The same run again",
        level=2,
        minutes=15,
        tolerance=0.0,
        inputs=lambda: [_a_run()],
        right=_again,
        mistakes={
            "The learning rate and others are missing: hand over all of record['settings'].": (
                _from_the_top
            ),
            "Another seed gives another prompt: take the record's.": (
                lambda base, task, text: _again(base, task, text, seed=0)
            ),
            "These are the vectors of the start, before the first step.": _start,
        },
        hint="settings = json.loads(text)['settings'], then minipt.tune with **settings.",
    ),
    Property(
        name="10f",
        title="The report",
        level=3,
        minutes=20,
        right=lambda: GOOD_REPORT,
        laws=_laws(REPORT_RULES),
        mistakes=_broken(REPORT_RULES, GOOD_REPORT),
    ),
)
