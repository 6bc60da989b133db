"""Every exercise of the course rejects zeros and answers each known mistake with its sentence."""

import numpy as np
import pytest

from minipt.course import record
from minipt.course.exercises import RIGHT, WRONG, Band, Exact, Guess, Property, Slope
from minipt.course.values import zeros_like

record.begin(1)
EXERCISES = []
for chapter in record.CHAPTERS:
    record.begin(chapter)
    EXERCISES += record.results().exercises.values()
CHECKED = [exercise for exercise in EXERCISES if not isinstance(exercise, Guess)]
MISTAKES = [(exercise, sentence) for exercise in CHECKED for sentence in exercise.mistakes]


def name(exercise) -> str:
    return exercise.name


def zeros(exercise):
    """An answer of the right shape with nothing in it."""
    if isinstance(exercise, Slope):
        points = iter([case.x for case in exercise.cases()])
        return lambda *arguments: np.zeros_like(next(points))
    if isinstance(exercise, Exact) and exercise.inputs() != ((),):
        return zeros_like(exercise.right)
    return 0.0 if isinstance(exercise, Band) else zeros_like(exercise.right())


def wrong(exercise, sentence: str):
    """The answer of somebody who makes the mistake."""
    mistake = exercise.mistakes[sentence]
    return mistake() if isinstance(exercise, Property | Band) else mistake


def test_names_are_the_chapters_and_letters_in_order():
    for chapter in record.CHAPTERS:
        record.begin(chapter)
        names = list(record.results().exercises)
        assert names == [f"{chapter}{letter}" for letter in "abcdefghijklmn"[: len(names)]]


@pytest.mark.parametrize("exercise", CHECKED, ids=name)
def test_zeros_are_wrong(exercise):
    assert exercise.judge(zeros(exercise)).status == WRONG


@pytest.mark.parametrize(
    ("exercise", "sentence"), MISTAKES, ids=[f"{e.name}-{s[:30]}" for e, s in MISTAKES]
)
def test_a_known_mistake_gets_its_own_sentence(exercise, sentence):
    verdict = exercise.judge(wrong(exercise, sentence))
    assert verdict.status == WRONG
    assert verdict.sentence.endswith(sentence)


@pytest.mark.parametrize("exercise", [e for e in CHECKED if isinstance(e, Exact)], ids=name)
def test_the_right_answer_is_right(exercise):
    assert exercise.judge(exercise.right).status == RIGHT


@pytest.mark.parametrize("exercise", [e for e in CHECKED if isinstance(e, Property)], ids=name)
def test_what_keeps_all_laws_is_right(exercise):
    assert exercise.judge(exercise.right()).status == RIGHT


@pytest.mark.parametrize("exercise", EXERCISES, ids=name)
def test_an_exercise_has_a_level_and_minutes(exercise):
    assert exercise.level in (1, 2, 3)
    assert exercise.minutes > 0
    assert exercise.hint.endswith(".") or not isinstance(exercise, Exact | Slope)
    assert all(sentence.endswith((".", "?")) for sentence in exercise.mistakes)
