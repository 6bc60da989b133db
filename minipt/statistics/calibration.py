"""Is a prompt as often right as it says? Calibration, before and after a temperature.

In: probabilities of K labels for N texts, and the right labels. Out: a reliability diagram in
numbers, the expected calibration error, and a temperature.
"""

from dataclasses import dataclass

import numpy as np

BINS = 10
LEAST = 1e-30  # a probability of 0 in float32 has no logarithm
COLDEST, HOTTEST = 0.01, 100.0


@dataclass(frozen=True)
class Reliability:
    """How sure and how often right, in bins of equal width of the confidence; empty ones left out.

    counts (B,): texts. confidence (B,): their mean. accuracy (B,): the share of right answers.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over the texts of |accuracy - confidence|.

        Naeini, Cooper and Hauskrecht 2015; Guo et al., "On calibration of modern neural networks",
        ICML 2017, equation 3.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability diagram of N answers. probabilities (N, K), right (N,) the right labels

    Bin b holds the confidences above b / bins, up to (b + 1) / bins.
    """
    confidence = probabilities.max(1).astype(np.float64)  # (N,)
    is_right = probabilities.argmax(1) == right  # (N,)
    place = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)  # (N,)
    counts = np.bincount(place, minlength=bins)  # (bins,)
    used = counts > 0
    sums = [np.bincount(place, each, minlength=bins)[used] for each in (confidence, is_right)]
    return Reliability(counts[used], *(each / counts[used] for each in sums))


def rescale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities with all logits divided by a temperature: softmax(log p / T). (N, K)

    The logits are log p up to a number that softmax does not see. No answer changes.
    """
    shares = _logarithms(probabilities)  # (N, K), and changed in place: N may be a million
    shares /= temperature
    shares -= shares.max(1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(1, keepdims=True)
    return shares


def fit_temperature(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, section 4.2).

    probabilities (N, K), right (N,). With s = 1 / T the cross-entropy is convex in s, and its slope
    is the mean of Σ softmax(s log p) log p over the labels, minus log p of the right one. The slope
    grows with s, so its zero is found by halving an interval. The temperature stays within 0.01
    and 100: with no wrong answer it would be 0.
    """
    logits = _logarithms(probabilities)  # (N, K)
    wanted = logits[np.arange(len(right)), right].mean()
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(60):  # each halves the interval: 60 leave less than rounding
        middle = (low + high) / 2
        shares = rescale(probabilities, float(np.exp(-middle)))
        if (shares * logits).sum(1).mean() < wanted:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    positive = np.maximum(probabilities, LEAST, dtype=np.float64)
    return np.log(positive, out=positive)
