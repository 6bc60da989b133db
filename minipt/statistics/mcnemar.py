"""Is one prompt better than another on the same texts? McNemar's test, and the difference.

In: which of N texts each prompt answered rightly. Out: a p-value; the difference of the two
accuracies with its 95 % interval.
"""

import math

import numpy as np

from minipt.results.intervals import Difference
from minipt.tasks.bag_of_words import Z_95


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """The exact two-sided p-value that two prompts are equally good (McNemar 1947).

    first_right, second_right (N,): which texts each answered rightly. Texts that both answer
    rightly, or both wrongly, say nothing. If the prompts are equally good, each of the n others is
    the first one's or the second one's by the toss of a coin. So the smaller part is binomial:

        p = 2 Σ C(n, j) / 2ⁿ, over j from 0 to the smaller part, and at most 1
    """
    only_first, only_second = _discordant(first_right, second_right)
    n = only_first + only_second
    tail = sum(math.comb(n, j) for j in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)  # whole numbers, so nothing is rounded before the division


def paired_difference(first_right: np.ndarray, second_right: np.ndarray) -> Difference:
    """The second accuracy minus the first, and its 95 % interval (Agresti and Min 2005).

    first_right, second_right: as for `mcnemar`. With b texts that only the first answered rightly
    and c that only the second did, the difference is (c - b) / N, and its variance

        (b + c - (c - b)² / N) / N²

    The interval adds half a text to each of the four cells, so that N grows by 2. Without that it
    is too narrow for few texts, and empty when b and c are 0.
    """
    only_first, only_second = _discordant(first_right, second_right)
    N = len(first_right) + 2
    change, discordant = only_second - only_first, only_first + only_second + 1
    half = Z_95 * math.sqrt(discordant - change**2 / N) / N
    middle = change / N
    return Difference(change / len(first_right), max(-1.0, middle - half), min(1.0, middle + half))


def _discordant(first_right: np.ndarray, second_right: np.ndarray) -> tuple[int, int]:
    """How many texts only the first answered rightly, and how many only the second."""
    first_right, second_right = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first_right.shape != second_right.shape or first_right.ndim != 1 or not len(first_right):
        raise ValueError("two prompts are compared on the same texts, at least one")
    return int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
