"""The permutation test against SciPy's, and against what it must hold by itself."""

import numpy as np
import pytest
from scipy import stats

from minipt.statistics.permutation import distance_of_means, relabellings, whiten


def samples(seed: int, shift: float, n: int = 60, m: int = 45, D: int = 4):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(D, D))
    return rng.normal(size=(n, D)) @ mixing, (rng.normal(size=(m, D)) + shift) @ mixing


@pytest.mark.parametrize("shift", [0.2, 0.35])
def test_the_p_value_is_scipys_within_monte_carlo_error(shift):
    first, second = samples(1, shift)
    white = whiten(np.concatenate([first, second])).astype(np.float64)

    def between(a, b, axis=-1):
        gap = white[a.astype(int)].mean(-2) - white[b.astype(int)].mean(-2)
        return np.linalg.norm(gap, axis=-1)

    rows = np.arange(len(white), dtype=float)
    rng = np.random.default_rng(3)
    expected = stats.permutation_test(
        (rows[:60], rows[60:]),
        between,
        n_resamples=20_000,
        alternative="greater",
        rng=rng,
        batch=200,
    )
    distance, p = distance_of_means(first, second, count=20_000)
    assert distance == pytest.approx(expected.statistic, rel=1e-5)
    # Either has its own error; with an early end this one's is that of 50 relabellings.
    assert abs(p - expected.pvalue) < 4 * p / np.sqrt(50) + 4 * np.sqrt(p / 20_000)


def test_a_large_shift_gives_the_least_p_value():
    assert distance_of_means(*samples(0, 3.0), count=999)[1] == 1 / 1000


def test_the_test_ends_early_where_nothing_differs():
    """So more relabellings are not tried, and p is that of the first block."""
    long, short = (distance_of_means(*samples(5, 0.0), count=count) for count in (100_000, 500))
    assert long == short
    assert long[1] > 0.1


def test_equal_samples_give_p_1():
    rows = np.random.default_rng(0).normal(size=(30, 3))
    distance, p = distance_of_means(rows, rows.copy())
    assert distance == pytest.approx(0, abs=1e-6)
    assert p == 1


def test_p_values_are_uniform_where_nothing_differs():
    found = [distance_of_means(*samples(seed, 0.0), count=199)[1] for seed in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_the_same_seed_gives_the_same_p_value():
    first, second = samples(2, 0.3)
    assert distance_of_means(first, second, seed=7) == distance_of_means(first, second, seed=7)


def test_the_distance_does_not_depend_on_how_directions_are_mixed():
    first, second = samples(4, 0.4)
    mixing = (
        np.diag([1.0, 100.0, 0.01, 3.0])
        @ np.linalg.qr(np.arange(16.0).reshape(4, 4) ** 2 + np.eye(4))[0]
    )
    changed = distance_of_means(first @ mixing, second @ mixing)
    assert changed[0] == pytest.approx(distance_of_means(first, second)[0], rel=1e-3)


def test_directions_without_variance_are_left_out():
    rows = np.random.default_rng(0).normal(size=(50, 3))
    assert whiten(np.column_stack([rows, np.ones(50), rows[:, 0]])).shape == (50, 3)
    assert whiten(np.ones((50, 3))).shape == (50, 0)
    assert distance_of_means(np.ones((5, 3)), np.ones((4, 3))) == (0.0, 1.0)


def test_each_relabelling_has_the_same_sizes():
    blocks = relabellings(7, 20, 1200, 0)
    assert [len(block) for block in blocks] == [500, 500, 200]
    assert (np.concatenate(blocks).sum(1) == 7).all()
