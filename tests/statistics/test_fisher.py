"""Fisher's exact test against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from minipt.statistics.fisher import fisher


def test_the_p_value_is_scipys():
    rng = np.random.default_rng(0)
    for limit in (3, 20, 300, 5000):
        for _ in range(30):
            table = rng.integers(0, limit, (2, 2))
            expected = stats.fisher_exact(table).pvalue
            assert fisher(*table) == pytest.approx(expected, rel=1e-8, abs=1e-13)


def test_an_empty_sample_says_nothing():
    assert fisher(np.array([0, 0]), np.array([3, 4])) == 1
    assert fisher(np.array([5, 0]), np.array([9, 0])) == 1


def test_an_answer_that_vanishes_is_seen_beside_a_small_validation_split():
    assert fisher(np.array([20, 20]), np.array([0, 200])) < 1e-9
