"""The test of Kolmogorov and Smirnov against SciPy's, with the method of the same name."""

import numpy as np
import pytest
from scipy import stats

from minipt.statistics.kolmogorov_smirnov import kolmogorov_smirnov, survival


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 50, 139, 140, 141, 258, 515, 1000, 20_000])
def test_the_distribution_is_scipys(n):
    """Each of the formulas, and both sides of each border between them."""
    places = [0.4, 0.5, 0.6, 1 - 1e-9, 1.0, 1.1, np.sqrt(2.2 * n), np.sqrt(2.2 * n) * 0.999999]
    places = np.array([*places, 2 * np.sqrt(n), 2 * np.sqrt(n) * 0.999999]) / n
    for d in [*np.linspace(0.01, 1, 60), *np.linspace(0.1, 4, 60) / np.sqrt(n), *places]:
        assert survival(float(d), n) == pytest.approx(stats.kstwo.sf(d, n), abs=1e-9)


def test_a_small_p_value_has_right_digits():
    assert survival(0.25, 515) == pytest.approx(stats.kstwo.sf(0.25, 515), rel=1e-9)


@pytest.mark.parametrize("ties", [True, False])
def test_two_samples_are_compared_as_scipy_does(ties):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, m = rng.integers(3, 800, 2)
        first, second = rng.normal(size=n), rng.normal(size=m) * rng.choice([1.0, 1.3])
        if ties:
            first, second = np.round(3 * first), np.round(3 * second)
        expected = stats.ks_2samp(first, second, method="asymp")
        distance, p = kolmogorov_smirnov(first, second)
        assert distance == pytest.approx(expected.statistic, abs=1e-12)
        assert p == pytest.approx(expected.pvalue, abs=1e-9)


def test_one_number_is_enough_and_proves_nothing():
    expected = stats.ks_2samp(np.zeros(1), np.linspace(1, 2, 9), method="asymp")
    assert kolmogorov_smirnov(np.zeros(1), np.linspace(1, 2, 9))[1] == expected.pvalue
