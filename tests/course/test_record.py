"""What a student's answer becomes: a line, a verdict, and at the end a summary and its file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from minipt import MiniptError, course
from minipt.course import record
from minipt.course.exercises import Band, Case, Exact, Guess, Property, Slope
from minipt.course.values import other_shape

ABOUT = {"title": "A title", "level": 1, "minutes": 5, "hint": "Look again."}


def double(x):
    return 2 * x


EXERCISES = (
    Exact(
        name="1a",
        **ABOUT,
        right=double,
        inputs=lambda: [(np.arange(3.0),), (np.ones((2, 2)),)],
        mistakes={
            "This is the square.": lambda x: x**2,
            "These are the first ones only.": lambda x: 2 * x[:1],
        },
    ),
    Exact(name="1b", **ABOUT, right=lambda: 7, mistakes={"One too many.": lambda: 8}),
    Slope(
        name="1c",
        **ABOUT,
        cases=lambda: [
            Case(arguments=(x,), x=x, loss=lambda x: (x**3).sum())
            for x in np.random.default_rng(0).standard_normal((2, 3))
        ],
        mistakes={"The exponent comes down as a factor.": lambda x: x**2},
    ),
    Property(
        name="1d",
        **ABOUT,
        right=lambda: [0.5, 0.5],
        laws={"The sum is not 1.": lambda answer: np.isclose(sum(answer), 1)},
        mistakes={"The sum is not 1.": lambda: [0.5]},
    ),
    Band(name="1e", **ABOUT, low=0.4, high=0.6, why="This is no guess."),
    Guess(name="1f", **ABOUT, measure=lambda: 0.5, lesson="It is a half."),
)


@pytest.fixture(autouse=True)
def chapter(monkeypatch, capsys):
    """A chapter of these exercises, and a function that returns what was printed."""
    module = SimpleNamespace(TITLE="A chapter", EXERCISES=EXERCISES)
    monkeypatch.setattr(record, "import_module", lambda name: module)
    course.begin(1)
    capsys.readouterr()
    return lambda: capsys.readouterr().out


RIGHT = {
    "1a": double,
    "1b": 7,
    "1c": lambda x: 3 * x**2,
    "1d": [0.5, 0.5],
    "1e": 0.5,
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_is_right(chapter, name):
    course.check(name, RIGHT[name])
    assert chapter().startswith(f"{name}: right.")
    assert course.results().status(name) == "right"


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("1a", lambda x: x**2, "the shape is right and the value is not. This is the square."),
        ("1a", lambda x: 2 * x[:1], "an array of shape (1,) and should be an array of shape (3,)."),
        ("1a", lambda x: 2 * x[:1], "These are the first ones only."),
        ("1a", lambda x: 3 * x, "the shape is right and the value is not. Hint: Look again."),
        ("1a", lambda x: x * np.nan, "the value is not. Hint"),
        ("1a", lambda x: None, "it returns None"),
        ("1a", lambda x, y: x, "TypeError"),
        ("1b", 8, "One too many."),
        ("1b", "seven", "it is a text and should be one number."),
        ("1c", lambda x: x**2, "The exponent comes down as a factor."),
        ("1c", lambda x: 3 * x[:2] ** 2, "an array of shape (2,)"),
        ("1d", [0.5], "The sum is not 1."),
        ("1d", None, "only None"),
        ("1e", 0.7, "0.700, the band is 0.4 to 0.6. This is no guess."),
        ("1e", np.ones(2), "it is an array of shape (2,) and should be one number."),
    ],
)
def test_a_wrong_answer_is_told_why_and_does_not_stop(chapter, name, answer, said):
    course.check(name, answer)
    printed = chapter()
    assert printed.startswith(f"{name}: not right yet:")
    assert said in printed
    assert course.results().status(name) == "wrong"


def stub(x):
    raise NotImplementedError("yours: twice x")


@pytest.mark.parametrize("answer", [stub, ...])
def test_a_stub_is_open(chapter, answer):
    course.check("1a", answer)
    assert chapter() == "1a: open.\n"
    assert course.results().names("open") == ["1a", "1b", "1c", "1d", "1e", "1f"]


def test_an_error_is_told_with_its_line(chapter):
    def answer(x):
        y = x + 1
        return y / "two"

    course.check("1a", answer)
    assert "TypeError in line 3 of your function" in chapter()


def test_a_function_may_write_to_its_arguments(chapter):
    def answer(x):
        x *= 2
        return x

    course.check("1a", answer)
    assert course.results().status("1a") == "right"


def test_a_figure_that_is_taken_again_takes_the_place_of_the_old_one(chapter):
    course.check("1e", 0.7)
    course.check("1e", 0.5)
    for value in (3.0, 1.0):
        course.band(value, 0.0, 2.0, "a figure")
    assert [figure["value"] for figure in course.results().bands] == [0.5, 1.0]


def test_of_a_tuple_the_value_of_another_shape_is_named():
    right = (np.ones(3), 1.0)
    assert other_shape((np.zeros(3), 2.0), right) is None
    said = "value 2 of 2: it is an array of shape (3,) and should be one number."
    assert other_shape((np.zeros(3), np.zeros(3)), right) == said


def test_an_answer_may_be_mended(chapter):
    course.check("1b", 8)
    course.check("1b", 7)
    assert course.results().names("wrong") == []


def test_nothing_is_revealed_without_a_guess(chapter):
    course.guess("1f", ...)
    course.reveal("1f")
    assert "0.5" not in chapter()
    assert course.results().status("1f") == "open"


def test_guess_and_value_are_printed(chapter):
    course.guess("1f", 0.9)
    course.reveal("1f")
    assert "your guess 0.900, the value 0.500. It is a half." in chapter()
    assert course.results().status("1f") == "right"


def test_the_summary_is_printed_and_written(chapter, tmp_path):
    course.check("1a", double)
    course.check("1b", 8)
    course.check("1e", 0.7)
    course.guess("1f", 0.9)
    course.reveal("1f")
    course.band(0.5, 0.4, 0.6, "a figure")
    chapter()
    path = tmp_path / "answers.json"
    course.summary(save=path)
    assert chapter().splitlines() == [
        "Chapter 1: 2 of 6, open: 1c, 1d; not right yet: 1b, 1e",
        "1 of 2 figures lie within their bands.",
        "Written to answers.json.",
    ]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["right"], written["of"]) == (2, 6)
    assert written["exercises"]["1b"]["status"] == "wrong"
    assert written["exercises"]["1f"]["guess"] == "0.900"
    assert [figure["inside"] for figure in written["bands"]] == [False, True]


def test_a_chapter_can_be_begun_anew(chapter):
    course.check("1b", 7)
    course.begin(1)
    assert course.results().names("right") == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: course.begin(11),
        lambda: course.check("1z", 0),
        lambda: course.check("x", 0),
        lambda: course.check("1f", 0),
        lambda: course.guess("1a", 0),
        lambda: course.reveal("1z"),
        lambda: course.reveal("1a"),
        lambda: course.band("much", 0, 1, "a figure"),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(MiniptError):
        call()
