"""Each backward op made 1 % wrong in turn, and each array it returns: the unit checks must fail."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers.op_checks import Case, assert_right, backward_names, outputs, public_functions

from minipt.maths import ops

CASE = Case()
MUTATIONS = [
    (name, index)
    for name, arrays in outputs(CASE, np.float64).items()
    if name in backward_names()
    for index in range(len(arrays))
]


def one_percent_wrong(function: Callable, index: int) -> Callable:
    def wrong(*arguments):
        result = function(*arguments)
        if not isinstance(result, tuple):
            return 1.01 * result
        return tuple(1.01 * array if i == index else array for i, array in enumerate(result))

    return wrong


def test_every_backward_op_is_mutated():
    assert {name for name, _ in MUTATIONS} == set(backward_names())


@pytest.mark.parametrize(("name", "index"), MUTATIONS)
def test_one_percent_does_not_go_unseen(name: str, index: int, monkeypatch: pytest.MonkeyPatch):
    assert_right(name, CASE)
    monkeypatch.setattr(ops, name, one_percent_wrong(public_functions()[name], index))
    with pytest.raises(AssertionError, match=name):
        assert_right(name, CASE)
