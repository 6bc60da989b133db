"""Calibration: bins by hand, and the temperature against SciPy's minimum."""

import numpy as np
import pytest
from scipy import optimize, special

from minipt.statistics.calibration import fit_temperature, reliability, rescale


def answers(sharpness: float, K: int = 4, N: int = 400):
    """Labels drawn from softmax(x), and the probabilities softmax(sharpness · x)."""
    rng = np.random.default_rng(K)
    logits = 2 * rng.normal(size=(N, K))
    right = np.array([rng.choice(K, p=row) for row in special.softmax(logits, 1)])
    return special.softmax(sharpness * logits, 1).astype(np.float32), right


def test_the_bins_hold_what_they_should():
    confidence = np.array([0.55, 0.6, 0.61, 0.95, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    found = reliability(probabilities, np.array([0, 1, 0, 0, 0]))
    assert found.counts.tolist() == [2, 1, 2]
    assert found.confidence == pytest.approx([0.575, 0.61, 0.975])
    assert found.accuracy == pytest.approx([0.5, 1.0, 1.0])
    assert found.error == pytest.approx((2 * 0.075 + 0.39 + 2 * 0.025) / 5)


def test_a_sure_prompt_that_is_always_right_has_no_error():
    assert reliability(np.eye(3), np.arange(3)).error == 0


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_scipys_minimum(sharpness):
    probabilities, right = answers(sharpness)
    logits = np.log(probabilities.astype(np.float64))

    def slope(s: float) -> float:
        wanted = logits[np.arange(len(right)), right]
        return float(((special.softmax(s * logits, 1) * logits).sum(1) - wanted).mean())

    best = 1 / optimize.brentq(slope, 0.01, 100, xtol=1e-14, rtol=1e-14)
    assert fit_temperature(probabilities, right) == pytest.approx(best, rel=1e-9)
    assert best == pytest.approx(sharpness, rel=0.25)


def test_a_fitted_temperature_lowers_the_error_and_changes_no_answer():
    probabilities, right = answers(3.0)
    cooled = rescale(probabilities, fit_temperature(probabilities, right))
    assert (cooled.argmax(1) == probabilities.argmax(1)).all()
    assert reliability(cooled, right).error < reliability(probabilities, right).error / 2


def test_temperature_1_changes_nothing():
    probabilities, _ = answers(1.0)
    assert rescale(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-7)


def test_probabilities_of_0_and_1_have_a_temperature():
    sure = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    assert np.isfinite(rescale(sure, 0.01)).all()
    assert fit_temperature(sure, np.array([0, 1, 0, 1])) < 1
    assert fit_temperature(sure, np.array([1, 0, 1, 0])) == pytest.approx(100.0)
