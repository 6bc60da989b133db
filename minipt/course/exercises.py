"""The kinds of exercises, and how an answer is judged.

In: an answer of a student, which is a value or a function. Out: a `Verdict`. The right value is
computed each time, from a trace, by a count or by finite differences, and is stored nowhere. The
known mistakes are computed too. An answer that equals one of them gets the mistake's own sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from minipt.course.values import describe_shape, other_shape, same, same_shape
from minipt.maths.gradcheck import check_gradient

RIGHT, WRONG, OPEN = "right", "wrong", "open"
NO_INPUTS = ((),)  # an exercise that is answered by one value
Inputs = Sequence[tuple]  # the arguments of some calls


@dataclass(frozen=True)
class Verdict:
    """RIGHT, WRONG or OPEN, and a sentence for the student. value: the number in a band."""

    status: str
    sentence: str = ""
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What all kinds have.

    name: the chapter's number and a letter, such as "2b". level: 1, one line; 2, a few lines; 3, it
    needs thought. minutes: for a student. hint: one sentence. mistakes: by the sentence that
    answers it, a function which makes the mistake, with the arguments of the right function.
    """

    name: str
    title: str
    level: int
    minutes: int
    hint: str = ""
    mistakes: Mapping[str, Callable] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The heading of the exercise in the notebook."""
        return f"### {self.name}. {self.title} (level {self.level}, {self.minutes} min)"

    def judge(self, answer: object) -> Verdict:
        """Right, or wrong with a sentence."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Exact(Exercise):
    """E: the answer equals what `right` returns.

    right: the right value, or with `inputs` the right function. inputs: makes the arguments of the
    calls in which the student's function is compared with it. tolerance: of the difference,
    relative to the largest number.
    """

    right: Callable
    inputs: Callable[[], Inputs] = lambda: NO_INPUTS
    tolerance: float = 1e-6

    def judge(self, answer: object) -> Verdict:
        inputs = self.inputs()
        found, right = call(answer, inputs), call(self.right, inputs)
        if _all_same(found, right, self.tolerance):
            return Verdict(RIGHT)
        return _wrong(self, found, right, inputs, self.tolerance)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of a backward function: its arguments, and the loss whose gradient it is at x."""

    arguments: tuple
    x: np.ndarray
    loss: Callable[[np.ndarray], float]


@dataclass(frozen=True, kw_only=True)
class Slope(Exercise):
    """F: the answer is a function that returns a gradient; finite differences measure the same.

    cases: makes some `Case`s, in float64.
    """

    cases: Callable[[], Sequence[Case]]
    tolerance: float = 1e-6

    def judge(self, answer: object) -> Verdict:
        cases = self.cases()
        inputs = [case.arguments for case in cases]
        found = call(answer, inputs)
        if all(self._fits(case, each) for case, each in zip(cases, found, strict=True)):
            return Verdict(RIGHT)
        return _wrong(self, found, [case.x for case in cases], inputs, self.tolerance)

    def _fits(self, case: Case, gradient: object) -> bool:
        if not same_shape(gradient, case.x):
            return False
        gradient = np.asarray(gradient, np.float64)
        return check_gradient(case.loss, case.x, gradient) < self.tolerance


@dataclass(frozen=True, kw_only=True)
class Property(Exercise):
    """P: laws hold for the answer, whatever it is.

    laws: functions of the answer, each by the sentence for an answer that breaks it; the first that
    is broken is told. right: an answer that keeps all of them; the mistakes are answers which break
    the law of the same sentence. Both are made by functions without arguments.
    """

    laws: Mapping[str, Callable[[object], bool]]
    right: Callable

    def judge(self, answer: object) -> Verdict:
        if answer is None:
            return Verdict(WRONG, "there is no answer, only None.")
        broken = (sentence for sentence, holds in self.laws.items() if not holds(answer))
        sentence = next(broken, None)
        return Verdict(RIGHT) if sentence is None else Verdict(WRONG, sentence)


@dataclass(frozen=True, kw_only=True)
class Band(Exercise):
    """B: a number that comes out of training lies within a band.

    why: what it means that it does not.
    """

    low: float
    high: float
    why: str

    def judge(self, answer: object) -> Verdict:
        (value,) = call(answer, NO_INPUTS)
        if not is_one_number(value):
            return Verdict(WRONG, f"it is {describe_shape(value)} and should be one number.")
        told = f"{value:.3f}, the band is {self.low:g} to {self.high:g}."
        if self.low <= value <= self.high:
            return Verdict(RIGHT, told, value)
        reason = _mistake(self, [value], NO_INPUTS, 1e-6) or self.why
        return Verdict(WRONG, f"{told} {reason}", value)


@dataclass(frozen=True, kw_only=True)
class Guess(Exercise):
    """G: a guess first, then the value. No guess is wrong.

    measure: computes the value when it is revealed. lesson: one sentence to the value.
    """

    measure: Callable[[], object]
    lesson: str


def call(answer: object, inputs: Inputs) -> list:
    """What the answer returns for each of the inputs, which it may write to.

    A value instead of a function stands for itself. NumPy's warnings are off, since what overflows
    is told by a sentence.
    """
    if not callable(answer):
        return [answer for _ in inputs]
    with np.errstate(all="ignore"):
        return [answer(*map(_own, arguments)) for arguments in inputs]


def _own(argument: object) -> object:
    """A copy of what a function might write to. A base stays the same, and read-only."""
    return deepcopy(argument) if isinstance(argument, np.ndarray | list | dict) else argument


def is_one_number(value: object) -> bool:
    """Whether a value is one number, and not an array of them."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _all_same(found: list, right: list, tolerance: float) -> bool:
    return all(same(*pair, tolerance) for pair in zip(found, right, strict=True))


def _wrong(
    exercise: Exercise, found: list, right: list, inputs: Inputs, tolerance: float
) -> Verdict:
    """Shape first, then the sentence of a known mistake, or the hint."""
    pairs = zip(found, right, strict=True)
    other = next(filter(None, (other_shape(*pair) for pair in pairs)), None)
    if any(each is None for each in found):
        first = "it returns None; a function hands over its result with `return`."
    else:
        first = other or "the shape is right and the value is not."
    then = _mistake(exercise, found, inputs, tolerance) or f"Hint: {exercise.hint}"
    return Verdict(WRONG, f"{first} {then}")


def _mistake(exercise: Exercise, found: list, inputs: Inputs, tolerance: float) -> str | None:
    """The sentence of the known mistake that these answers are, if they are one."""
    for sentence, make in exercise.mistakes.items():
        if _all_same(found, call(make, inputs), tolerance):
            return sentence
    return None
