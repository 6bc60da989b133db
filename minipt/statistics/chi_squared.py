"""Do two samples have the same shares? Pearson's chi-squared test.

In: how often each of K answers was given in two samples. Out: a p-value.
"""

import math

import numpy as np

FEWEST_EXPECTED = 5.0


def chi_squared(first: np.ndarray, second: np.ndarray) -> float:
    """The p-value of Pearson's test that two samples come from the same shares (Pearson 1900).

    first, second (K,): counts. Under the hypothesis both samples have the shares of their sum. So
    the expected count of an answer is its total times the sample's part of everything, and

        X² = Σ (count - expected)² / expected

    over the 2·K counts follows the chi-squared distribution with K - 1 degrees of freedom, if no
    expected count is small. Answers that nobody gave do not count. With one answer left, or with an
    empty sample, there is nothing to compare, and p is 1.
    """
    counts = np.array([first, second], np.float64)  # (2, K)
    counts = counts[:, counts.sum(0) > 0]
    if counts.shape[1] < 2 or not counts.sum(1).all():
        return 1.0
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()  # (2, K)
    return survival(float(((counts - expected) ** 2 / expected).sum()), counts.shape[1] - 1)


def merge_rare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same counts with the rare answers as one, since the test is no good for small counts.

    An answer is rare if it is expected less than 5 times in either sample (Cochran 1954).
    first, second (K,). If the rare ones together are still rare, the rarest of the others joins.
    Two answers stay two, also where one is rare: `fisher` is good for any counts.
    """
    expected = _expected_in_smaller(first, second)  # (K,)
    order = np.argsort(expected, kind="stable")  # the rarest first
    rare = int((expected < FEWEST_EXPECTED).sum())
    while 0 < rare < len(order) - 1 and expected[order[:rare]].sum() < FEWEST_EXPECTED:
        rare += 1
    rare = min(rare, len(order) - 1)
    kept, merged = order[rare:], order[:rare]
    if not rare:
        return first, second
    return tuple(np.append(counts[kept], counts[merged].sum()) for counts in (first, second))


def has_rare(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether an answer is expected less than 5 times in either sample. first, second (K,)"""
    return bool((_expected_in_smaller(first, second) < FEWEST_EXPECTED).any())


def _expected_in_smaller(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How often each answer is expected in the smaller sample. (K,)"""
    total = first + second
    return total / max(1, total.sum()) * min(first.sum(), second.sum())


def survival(x: float, freedom: int) -> float:
    """The probability that a chi-squared variable exceeds x. freedom: degrees, at least 1.

    It is the incomplete gamma function Q(a, y) with a = freedom / 2 and y = x / 2. Integrating by
    parts raises a by one (Abramowitz and Stegun 1964, 6.5.21):

        Q(a + 1, y) = Q(a, y) + yᵃ e⁻ʸ / Γ(a + 1)

    So every degree is reached from Q(1, y) = e⁻ʸ or from Q(1/2, y) = erfc(√y). All terms are
    positive, and nothing cancels.
    """
    y = x / 2
    if y <= 0:
        return 1.0
    a = 1.0 if freedom % 2 == 0 else 0.5
    total = math.exp(-y) if a == 1.0 else math.erfc(math.sqrt(y))
    while a < freedom / 2:
        total += math.exp(a * math.log(y) - y - math.lgamma(a + 1))
        a += 1
    return min(1.0, total)
