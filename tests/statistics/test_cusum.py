"""The cumulative sum against its recursion, and its false alarms counted."""

import numpy as np
import pytest

from minipt.statistics import cusum as module
from minipt.statistics.cusum import SLACK, cusum, group, highest, p_value, smoothed


def test_the_sums_are_those_of_the_recursion():
    rng = np.random.default_rng(0)
    shares = np.array([0.7, 0.2, 0.1])
    counts = rng.multinomial(3, [0.5, 0.3, 0.2], 40)
    sums, expected = np.zeros(3), []
    for row in counts:
        gain = (row - 3 * shares) / np.sqrt(shares * (1 - shares)) - 3 * SLACK
        sums = np.maximum(0, sums + gain)
        expected.append(sums)
    assert cusum(counts, shares) == pytest.approx(np.array(expected), abs=1e-9)


def test_groups_hold_every_answer_in_order():
    answers = np.arange(1003) % 3
    counts = group(answers, 3)
    assert counts.shape == (201, 3)
    assert counts.sum(0).tolist() == np.bincount(answers).tolist()
    assert (counts.sum(1) == [5] * 200 + [3]).all()
    assert group(np.array([2]), 3).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("shares", [(0.88, 0.12), (0.02, 0.2, 0.18, 0.2, 0.2, 0.2)])
def test_false_alarms_are_as_many_as_counted(shares, monkeypatch):
    """Both validation and log drawn from the same shares, again and again."""
    monkeypatch.setattr(module, "MOST_GROUPS", 50)
    rng = np.random.default_rng(0)
    alarms, K = 0, len(shares)
    for _ in range(200):
        validation = rng.multinomial(300, shares)
        counts = group(rng.choice(K, 200, p=shares), K)
        high = cusum(counts, smoothed(validation)).max()
        alarms += p_value(high, highest(validation, counts.sum(1), count=199)) <= 0.1
    assert 8 <= alarms <= 34  # of 200 at 0.1: 20, with four standard deviations


def test_a_shift_of_the_shares_is_seen_soon():
    rng = np.random.default_rng(1)
    before, after = rng.choice(2, 250, p=[0.88, 0.12]), rng.choice(2, 250, p=[0.5, 0.5])
    counts = group(np.concatenate([before, after]), 2)
    validation = np.array([454, 62])
    highs = highest(validation, counts.sum(1))
    path = cusum(counts, smoothed(validation)).max(1)
    assert p_value(path.max(), highs) == 1 / 10_000
    first = np.argmax(path > highs[-11])
    assert 125 <= first < 190


def test_no_log_is_higher_than_itself():
    assert p_value(5.0, np.array([1.0, 5.0, 7.0])) == 3 / 4
    assert p_value(0.0, np.array([1.0, 5.0, 7.0])) == 1
