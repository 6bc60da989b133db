"""Holm's correction against its definition: the closed test of Bonferroni's."""

from itertools import combinations

import numpy as np
import pytest

from minipt.statistics.holm import holm


def closed(p: np.ndarray) -> list[float]:
    """A hypothesis is rejected if every set with it is, and a set if |S| times its least p is."""
    sets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size)]
    return [
        max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))
    ]


@pytest.mark.parametrize("M", [1, 2, 5, 8])
def test_it_is_the_closed_test(M):
    rng = np.random.default_rng(M)
    for scale in (1.0, 0.1, 0.001):
        p = rng.random(M) * scale
        assert holm(p) == pytest.approx(closed(p), abs=1e-12)


def test_equal_p_values_stay_equal():
    assert holm(np.array([0.02, 0.02, 0.5])).tolist() == pytest.approx([0.06, 0.06, 0.5])


def test_no_test_is_no_error():
    assert holm(np.array([])).size == 0
