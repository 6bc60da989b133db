"""What a student has answered: a failure is recorded and told, and never stops the notebook.

In: answers, by the names of exercises such as "2b". Out: a line for each, and at the end a summary
and its file. A name says which chapter it belongs to, so that a notebook needs no more than these
functions.
"""

import json
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from minipt.course.exercises import (
    OPEN,
    RIGHT,
    WRONG,
    Band,
    Exercise,
    Guess,
    Verdict,
    is_one_number,
)
from minipt.errors import MiniptError
from minipt.files.complete import complete_file
from minipt.files.versions import versions

CHAPTERS = range(1, 11)


@dataclass
class Record:
    """The answers to one chapter, and the figures that were held to a band."""

    chapter: int
    title: str
    exercises: dict[str, Exercise]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    guesses: dict[str, object] = field(default_factory=dict)
    bands: list[dict] = field(default_factory=list)

    def status(self, name: str) -> str:
        """RIGHT, WRONG or OPEN."""
        return self.verdicts.get(name, Verdict(OPEN)).status

    def names(self, status: str) -> list[str]:
        """The exercises that have this status."""
        return [name for name in self.exercises if self.status(name) == status]


_record: Record | None = None  # of the chapter that is being worked at


def begin(chapter: int) -> None:
    """Begin a chapter, or begin it anew: what was answered before is forgotten.

    Raises MiniptError where there is no such chapter.
    """
    global _record
    if chapter not in CHAPTERS:
        raise MiniptError(f"there is no chapter {chapter!r}: the course has chapters 1 to 10")
    module = import_module(f"minipt.course.chapter{chapter:02d}")
    exercises = {exercise.name: exercise for exercise in module.EXERCISES}
    _record = Record(chapter, module.TITLE, exercises)
    print(f"Chapter {chapter}: {module.TITLE}. {len(exercises)} exercises.")


def results() -> Record:
    """The record of the chapter that was begun. Raises MiniptError where none was."""
    if _record is None:
        raise MiniptError("no chapter was begun: call course.begin(1), with the chapter's number")
    return _record


def check(name: str, answer: object) -> None:
    """Judge an answer, a value or a function, record the verdict and print it.

    `...` and a function that raises NotImplementedError are open. Any other error of the function
    is told and recorded as wrong.
    Raises MiniptError for a name that the chapter does not have, and for a guess.
    """
    exercise = _find(name)
    if isinstance(exercise, Guess):
        raise MiniptError(f"{name} is a guess: call course.guess and then course.reveal")
    verdict = _judge(exercise, answer)
    if isinstance(exercise, Band) and verdict.value is not None:
        _record_band(exercise.title, verdict.value, exercise.low, exercise.high)
    _tell(name, verdict)


def guess(name: str, value: object) -> None:
    """Record a guess; `...` is none. `reveal` then tells the value.

    Raises MiniptError for a name that the chapter does not have, and for no guess.
    """
    _find_guess(name)
    record = results()
    if value is ...:
        record.guesses.pop(name, None)
        _tell(name, Verdict(OPEN, "guess first."))
    else:
        record.guesses[name] = value
        print(f"{name}: your guess is {_short(value)}.")


def reveal(name: str) -> None:
    """Print the guess and the value, and record the exercise as done. Without a guess it is open.

    Raises MiniptError for a name that the chapter does not have, and for no guess.
    """
    exercise, record = _find_guess(name), results()
    if name not in record.guesses:
        _tell(name, Verdict(OPEN, "nothing is revealed without a guess."))
        return
    value, mine = _short(exercise.measure()), _short(record.guesses[name])
    record.verdicts[name] = Verdict(RIGHT, f"your guess {mine}, the value {value}.")
    print(f"{name}: {record.verdicts[name].sentence} {exercise.lesson}")


def band(value: float, low: float, high: float, why: str) -> None:
    """Print and record whether a figure that comes out of training lies within a band.

    why: what the figure is, in a few words. Raises MiniptError for what is no number.
    """
    if not is_one_number(value):
        raise MiniptError(f"a band holds one number, not {value!r:.60}")
    inside = _record_band(why, value, low, high)
    place = "within" if inside else "NOT within"
    print(f"{value:.3f}, {place} {low:g} to {high:g}: {why}")


def summary(save: str | Path | None = "answers.json") -> None:
    """Print how many exercises are right and which are not, and write all of it to a file.

    save: the JSON file; None: none is written. Raises MiniptError where it cannot be written.
    """
    record = results()
    right, wrong, still_open = (record.names(status) for status in (RIGHT, WRONG, OPEN))
    parts = [f"Chapter {record.chapter}: {len(right)} of {len(record.exercises)}"]
    parts += [f"open: {', '.join(still_open)}"] if still_open else []
    parts += [f"not right yet: {', '.join(wrong)}"] if wrong else []
    print(", ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:]))
    if record.bands:
        inside = sum(figure["inside"] for figure in record.bands)
        print(f"{inside} of {len(record.bands)} figures lie within their bands.")
    if save is not None:
        with complete_file(save) as partial:
            text = json.dumps(_as_dict(record), indent=1, ensure_ascii=False)
            partial.write_text(text, encoding="utf-8")
        print(f"Written to {Path(save).name}.")


def _record_band(what: str, value: float, low: float, high: float) -> bool:
    """Whether the value lies within. It takes the place of an earlier value of the same figure."""
    inside = bool(low <= value <= high)
    record = results()
    new = {"what": what, "value": float(value), "low": low, "high": high, "inside": inside}
    record.bands = [figure for figure in record.bands if figure["what"] != what] + [new]
    return inside


def _as_dict(record: Record) -> dict:
    exercises = {
        name: {"status": record.status(name)}
        | ({"said": record.verdicts[name].sentence} if name in record.verdicts else {})
        | ({"guess": _short(record.guesses[name])} if name in record.guesses else {})
        for name in record.exercises
    }
    return {
        "chapter": record.chapter,
        "title": record.title,
        "right": len(record.names(RIGHT)),
        "of": len(record.exercises),
        "exercises": exercises,
        "bands": record.bands,
        "versions": versions(),
    }


def _find(name: str) -> Exercise:
    """The exercise; its chapter is begun if it was not."""
    number = str(name).rstrip("abcdefghijklmnopqrstuvwxyz")
    if number.isdigit() and int(number) in CHAPTERS:
        if _record is None or _record.chapter != int(number):
            begin(int(number))
        if name in results().exercises:
            return results().exercises[name]
    known = ", ".join(results().exercises) if _record else "such as '2b'"
    raise MiniptError(f"there is no exercise {name!r}: names are {known}")


def _find_guess(name: str) -> Guess:
    exercise = _find(name)
    if not isinstance(exercise, Guess):
        raise MiniptError(f"{name} is no guess: call course.check")
    return exercise


def _judge(exercise: Exercise, answer: object) -> Verdict:
    if answer is ...:
        return Verdict(OPEN)
    try:
        return exercise.judge(answer)
    except NotImplementedError:
        return Verdict(OPEN)
    except Exception as error:  # a student's function may raise anything
        lines = [
            frame.lineno - answer.__code__.co_firstlineno + 1
            for frame in traceback.extract_tb(error.__traceback__)
            if hasattr(answer, "__code__") and frame.name == answer.__name__
        ]
        where = f" in line {lines[-1]} of your function" if lines else ""
        return Verdict(WRONG, f"{type(error).__name__}{where}: {_short(error)}")


def _tell(name: str, verdict: Verdict) -> None:
    results().verdicts[name] = verdict
    said = {RIGHT: "right.", WRONG: "not right yet:", OPEN: "open."}[verdict.status]
    print(f"{name}: {said} {verdict.sentence}".rstrip())


def _short(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
