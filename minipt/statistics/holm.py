"""Several tests at once: Holm's correction.

In: the p-values of M tests. Out: p-values that may be held to one level together.
"""

import numpy as np


def holm(p: np.ndarray) -> np.ndarray:
    """The adjusted p-values of M tests (Holm 1979). p (M,) -> (M,)

    With a level of α, the chance of one or more false alarms among all tests is at most α, however
    the tests depend on each other. The smallest p is multiplied by M, as Bonferroni does with all.
    The next is multiplied by M - 1, since one hypothesis fewer is left, and so on. No adjusted p
    may be smaller than that of a smaller p, and none exceeds 1.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    times = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(times))
    return adjusted
