"""Do two small samples have the same share of an answer? Fisher's exact test.

In: how often each of two answers was given in two samples. Out: a p-value.
"""

import math

import numpy as np


def fisher(first: np.ndarray, second: np.ndarray) -> float:
    """The p-value of Fisher's exact test, two-sided (Fisher 1922, on the 2 x 2 table).

    Of all N answers n are the first sample's, and r of all are of the first kind. If the samples do
    not differ, the first sample has k of that kind with the probability of drawing without putting
    back,

        P(k) = C(r, k) C(N - r, n - k) / C(N, n)

    The p-value sums P over all k that are no likelier than the one that was found.

    first, second (2,): counts.
    """
    (k, _), n = np.asarray(first).tolist(), int(sum(first))
    r, N = int(first[0] + second[0]), n + int(sum(second))
    possible = range(max(0, n - (N - r)), min(n, r) + 1)
    logarithms = [_log_choose(r, i) + _log_choose(N - r, n - i) for i in possible]
    shares = np.exp(np.array(logarithms) - _log_choose(N, n))
    found = shares[k - possible.start]
    return float(min(1.0, shares[shares <= found * (1 + 1e-7)].sum()))  # ties, but for rounding


def _log_choose(n: int, k: int) -> float:
    """The logarithm of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
