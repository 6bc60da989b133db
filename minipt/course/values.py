"""Are two values the same? Numbers, arrays, texts, and tuples, lists and dicts of them."""

from collections.abc import Mapping

import numpy as np


def same(value: object, right: object, tolerance: float) -> bool:
    """Whether a value has the right shape and, to the tolerance, the right numbers.

    The difference is relative to the largest number. Infinities and NaN are the same only
    where both have them.
    """
    if not same_shape(value, right):
        return False
    if isinstance(right, Mapping):
        return all(same(value[key], right[key], tolerance) for key in right)
    if _is_sequence(right):
        return all(same(*pair, tolerance) for pair in zip(value, right, strict=True))
    if not _is_number(right):
        return bool(np.all(np.asarray(value) == np.asarray(right)))
    value, right = np.asarray(value, np.float64), np.asarray(right, np.float64)
    finite = np.isfinite(right)
    largest = np.abs(right[finite]).max(initial=0.0) or 1.0
    if not np.array_equal(value[~finite], right[~finite], equal_nan=True):
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        return bool((np.abs(value[finite] - right[finite]) <= tolerance * largest).all())


def same_shape(value: object, right: object) -> bool:
    """Whether a value is of the right kind and shape; of a dict, whether it has the right keys."""
    if isinstance(right, Mapping):
        return isinstance(value, Mapping) and value.keys() == right.keys()
    if _is_sequence(right):
        return _is_sequence(value) and len(value) == len(right)
    if not _is_number(right):
        return not _is_number(value) and np.shape(value) == np.shape(right)
    return _is_number(value) and np.shape(value) == np.shape(right)


def other_shape(value: object, right: object) -> str | None:
    """What the first value of another shape is and should be; None where all shapes are right."""
    if not same_shape(value, right):
        return f"it is {describe_shape(value)} and should be {describe_shape(right)}."
    if not _is_sequence(right):
        return None
    for number, pair in enumerate(zip(value, right, strict=True), start=1):
        inside = other_shape(*pair)
        if inside:
            return f"value {number} of {len(right)}: {inside}"
    return None


def describe_shape(value: object) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value))}"
    if _is_sequence(value):
        return f"{len(value)} values"
    if not _is_number(value):
        if np.ndim(value):
            return f"an array without numbers {np.shape(value)}"
        return "a text" if isinstance(value, str) else f"no number but a {type(value).__name__}"
    return f"an array of shape {np.shape(value)}" if np.ndim(value) else "one number"


def zeros_like(value: object) -> object:
    """The same with zeros for numbers and nothing for texts; of a function, one that returns it."""
    if callable(value):
        return lambda *arguments: zeros_like(value(*arguments))
    if isinstance(value, Mapping):
        return {key: zeros_like(each) for key, each in value.items()}
    if _is_sequence(value):
        return type(value)(zeros_like(each) for each in value)
    return "" if isinstance(value, str) else np.zeros_like(value)


def _is_sequence(value: object) -> bool:
    """A tuple, or a list that is not simply an array written as a list."""
    return isinstance(value, tuple) or (isinstance(value, list) and not _is_number(value))


def _is_number(value: object) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:  # rows of different lengths
        return False
