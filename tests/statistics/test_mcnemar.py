"""McNemar's exact test against SciPy's binomial test; the interval by what it must cover."""

import numpy as np
import pytest
from scipy import stats

from minipt.statistics.mcnemar import mcnemar, paired_difference


def answers(both: int, only_first: int, only_second: int, neither: int):
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize("only_first", [0, 1, 5, 17, 60, 1500])
@pytest.mark.parametrize("only_second", [0, 1, 6, 17, 41, 1600])
def test_the_p_value_is_scipys_exact_binomial(only_first, only_second):
    p = mcnemar(*answers(10, only_first, only_second, 3))
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert p == pytest.approx(expected, rel=1e-9)


def test_the_difference_is_the_second_less_the_first():
    found = paired_difference(*answers(50, 10, 30, 10))
    assert found.mean == pytest.approx(0.2)
    assert 0 < found.low < found.mean < found.high < 1


def test_the_interval_is_that_of_the_four_cells_with_half_a_text_more():
    """The mean of ±1 and 0 with weights, and 1.96 standard deviations of that mean."""
    found = paired_difference(*answers(50, 10, 30, 10))
    values, weights = np.array([0, -1, 1, 0]), np.array([50.5, 10.5, 30.5, 10.5])
    mean = np.average(values, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights) / weights.sum())
    low, high = stats.norm.interval(0.95, mean, deviation)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("shares", [(0.8, 0.05, 0.05, 0.1), (0.6, 0.02, 0.1, 0.28)])
def test_the_interval_covers_the_true_difference(shares):
    rng = np.random.default_rng(0)
    true, hits = shares[2] - shares[1], 0
    for cells in rng.multinomial(100, shares, 1000):
        found = paired_difference(*answers(*cells))
        hits += found.low <= true <= found.high
    assert hits >= 930


def test_equal_prompts_have_an_interval_that_is_not_empty():
    found = paired_difference(*answers(90, 0, 0, 10))
    assert (found.mean, found.low < 0 < found.high) == (0, True)


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="same texts"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="at least one"):
        paired_difference(np.ones(0, bool), np.ones(0, bool))
