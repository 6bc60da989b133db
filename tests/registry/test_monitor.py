"""What `watch` compares: a log that is as validation was, and logs that are not."""

from dataclasses import replace

import numpy as np
import pytest

from minipt.learning.observe import ARRAYS, Observation
from minipt.registry.log import Logged
from minipt.registry.monitor import LEVEL, OVER_TIME, Report, watch

LABELS = ("ham", "other", "spam")
SHARES = np.array([0.6, 0.25, 0.15])


def observed(N: int, seed: int, shares: np.ndarray = SHARES) -> tuple[Observation, np.ndarray]:
    """N answers with these shares, of which some nine in ten are right. Returns the truth too."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(3, N, p=shares)
    sure = rng.uniform(0.7, 0.99, N)
    probabilities = np.repeat((1 - sure)[:, None] / 2, 3, 1)
    probabilities[np.arange(N), answers] = sure
    right = np.where(rng.random(N) < 0.1, rng.choice(3, N), answers)
    return Observation(
        LABELS,
        probabilities.astype(np.float32),
        rng.poisson(20, N),
        np.zeros(N, bool),
        rng.beta(2, 8, N).astype(np.float32),
        rng.normal(size=(N, 16)).astype(np.float32),
    ), right


def logged(seen: Observation, right: np.ndarray | None = None) -> Logged:
    N = len(seen.tokens)
    right = np.full(N, -1) if right is None else right
    return Logged(np.arange(N) + 1, 1.7e9 + np.arange(N) * 60.0, seen, right)


def watched(seen: Observation, right: np.ndarray | None = None) -> Report:
    return watch("spam@1", *observed(500, 0), logged(seen, right))


def alarms(report: Report) -> set[str]:
    return {finding.name for finding in report.alarms}


def test_the_same_kind_of_texts_is_no_alarm():
    report = watched(observed(600, 1)[0])
    assert (alarms(report), report.growing) == (set(), None)
    assert len(report.findings) == 6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokens", lambda seen: {"tokens": seen.tokens + 4}),
        ("unknown tokens", lambda seen: {"unknown": np.sqrt(seen.unknown)}),
        ("hidden states", lambda seen: {"hidden": seen.hidden + np.float32(0.3)}),
        ("confidence", lambda seen: {"probabilities": seen.probabilities * 0.5 + 1 / 6}),
    ],
)
def test_each_change_is_seen_by_its_test_and_no_other(name, change):
    seen, _ = observed(600, 1)
    assert alarms(watched(replace(seen, **change(seen)))) == {name}


def test_other_shares_of_the_answers_are_seen_and_since_when():
    before, after = observed(300, 1)[0], observed(300, 2, np.array([0.3, 0.2, 0.5]))[0]
    both = {name: np.concatenate([getattr(before, name), getattr(after, name)]) for name in ARRAYS}
    report = watched(replace(before, **both))
    assert alarms(report) == {"answers", OVER_TIME}
    label, first = report.growing
    assert label == "spam"
    assert 270 <= first <= 330
    assert report.sums.max() > report.threshold


def test_wrong_answers_are_seen_where_the_truth_is_known():
    seen, right = observed(600, 1)
    flipped = np.where(np.random.default_rng(5).random(600) < 0.4, (right + 1) % 3, right)
    report = watched(seen, flipped)
    assert alarms(report) == {"accuracy"}
    validation, log = report.truths
    assert log.accuracy == pytest.approx((seen.answers == flipped).mean())
    assert log.interval[0] < log.accuracy < log.interval[1] < validation.accuracy


def test_only_the_answers_whose_truth_is_known_count():
    seen, right = observed(600, 1)
    known = np.where(np.arange(600) % 3 == 0, right, -1)
    assert watched(seen, known).truths[1].total == 200


def test_the_temperature_is_validations():
    seen, right = observed(600, 1)
    report = watched(seen, right)
    wild = watched(seen, (right + 1) % 3)
    assert report.temperature == wild.temperature
    assert report.truths[0].after.error <= report.truths[0].before.error + 0.02


def test_holm_holds_all_tests_to_one_level():
    report = watched(observed(600, 1)[0])
    p = [finding.p for finding in report.findings]
    assert min(finding.adjusted for finding in report.findings) == min(1, len(p) * min(p))


def test_quiet_logs_are_seldom_an_alarm():
    """Fresh texts each time: at most the level of them, and one more by chance."""
    validation, right = observed(300, 0)
    found = [
        bool(watch("x@1", validation, right, logged(observed(200, s)[0])).alarms)
        for s in range(1, 101)
    ]
    assert sum(found) <= 100 * LEVEL + 2


@pytest.mark.parametrize("N", [1, 2, 7])
def test_a_few_answers_are_no_alarm_and_no_error(N):
    seen, right = observed(N, 3)
    assert alarms(watched(seen, right)) == set()


def test_the_same_log_gives_the_same_report():
    seen, _ = observed(2500, 1)  # more than the sample
    assert watched(seen).findings == watched(seen).findings
