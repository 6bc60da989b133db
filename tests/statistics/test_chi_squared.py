"""The chi-squared test against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from minipt.statistics.chi_squared import chi_squared, has_rare, merge_rare, survival
from minipt.statistics.fisher import fisher


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 31, 100, 400])
def test_the_survival_function_is_scipys(freedom):
    for x in (0.0, 1e-6, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0):
        assert survival(x, freedom) == pytest.approx(
            stats.chi2.sf(x, freedom), rel=1e-9, abs=1e-290
        )


@pytest.mark.parametrize("K", [2, 3, 6, 40])
def test_the_p_value_is_scipys(K):
    rng = np.random.default_rng(K)
    for size in (60, 500, 5000):
        first, second = rng.multinomial(516, np.ones(K) / K), rng.integers(1, size, K)
        expected = stats.chi2_contingency([first, second], correction=False).pvalue
        assert chi_squared(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_an_answer_that_nobody_gave_does_not_count():
    with_it = chi_squared(np.array([30, 0, 70]), np.array([50, 0, 60]))
    assert with_it == chi_squared(np.array([30, 70]), np.array([50, 60])) < 0.05


def test_there_is_nothing_to_compare_with_one_answer_or_no_text():
    assert chi_squared(np.array([5, 0]), np.array([9, 0])) == 1
    assert chi_squared(np.array([5, 5]), np.array([0, 0])) == 1


def test_rare_answers_are_counted_together():
    first, second = merge_rare(np.array([300, 6, 200, 9]), np.array([100, 3, 90, 6]))
    assert (first.tolist(), second.tolist()) == ([200, 300, 15], [90, 100, 9])


def test_if_the_rare_ones_are_rare_together_the_rarest_other_joins():
    first, second = merge_rare(np.array([300, 2, 200, 7]), np.array([100, 1, 90, 3]))
    assert (first.tolist(), second.tolist()) == ([300, 209], [100, 94])


def test_counts_without_rare_answers_stay_as_they_are():
    first, second = merge_rare(np.array([30, 40]), np.array([20, 60]))
    assert (first.tolist(), second.tolist()) == ([30, 40], [20, 60])


def test_two_answers_stay_two_and_the_exact_test_is_no_alarm_for_a_few_texts():
    first, second = merge_rare(np.array([450, 60, 6]), np.array([0, 3, 0]))
    assert (first.tolist(), second.tolist()) == ([450, 66], [0, 3])
    assert has_rare(first, second)
    assert not has_rare(np.array([300, 40]), np.array([200, 60]))
    assert fisher(first, second) > 0.001
