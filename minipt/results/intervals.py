"""The interval of a mean difference: whether one thing did better than another over the seeds.

In: paired differences. Out: their mean with its 95 % interval.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Student's t at 97.5 %, for 1 to 12 degrees of freedom; for more, the last, which is a little wide.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18)


@dataclass(frozen=True)
class Difference:
    """The mean of n paired differences and its 95 % interval, by Student's t (Student 1908)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: Iterable[np.ndarray]) -> "Difference":
        """All differences of all arrays together."""
        pairs = np.concatenate(list(differences))
        n, mean = len(pairs), float(pairs.mean())
        half = STUDENT[min(n - 1, len(STUDENT)) - 1] * float(pairs.std(ddof=1)) / math.sqrt(n)
        return cls(mean, mean - half, mean + half)

    @property
    def positive(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0

    @property
    def negative(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def minus(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The differences of arrays in two lists, pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]
