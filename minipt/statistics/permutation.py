"""Do two samples of vectors have the same mean? A permutation test.

In: two samples of vectors. Out: the distance of their means, and a p-value.
"""

from functools import lru_cache

import numpy as np

COUNT = 9_999  # the least p-value is one in 10,000
BLOCK = 500  # relabellings at a time
ENOUGH = 50


def distance_of_means(
    first: np.ndarray, second: np.ndarray, count: int = COUNT, seed: int = 0
) -> tuple[float, float]:
    """The distance of two samples' means and its p-value. first (N, D), second (M, D)

    The distance is counted in standard deviations of the whole: the rows of both samples together
    are made white first, so that no direction outweighs the others (Mahalanobis 1936). Under the
    hypothesis it does not matter which rows are called the first sample. So the labels change
    places `count` times by a generator with this seed, and p is the share of the distances that are
    as large as the true one, which counts itself (Phipson and Smyth 2010). When 50 are as large, p
    is not small. Then the test ends early, with the share so far (Besag and Clifford 1991).
    """
    rows = whiten(np.concatenate([first, second]))  # (N+M, D)
    n, m = len(first), len(second)
    # White rows sum to zero, so one sample's sum s says all: the means lie s/n + s/m apart.
    true = float(np.linalg.norm(rows[:n].sum(0)))
    distance = true * (1 / n + 1 / m)
    as_large, done = 0, 0
    for labels in relabellings(n, n + m, count, seed):
        sums = labels.astype(rows.dtype) @ rows  # (BLOCK, D)
        # Rounding must not tell the same choice of rows from itself.
        as_large += int((np.linalg.norm(sums, axis=1) >= true * (1 - 1e-6)).sum())
        done += len(labels)
        if as_large >= ENOUGH:
            break
    return distance, (1 + as_large) / (1 + done)


def whiten(rows: np.ndarray) -> np.ndarray:
    """Rows with mean 0, variance 1 and no correlation, in float32. rows (N, D) -> (N, R)

    R is the number of directions in which they differ at all.
    """
    centred = rows - rows.mean(0, dtype=np.float64)  # (N, D)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(rows))  # (D,), (D, D)
    kept = variances > 1e-9 * variances.max(initial=0.0)
    return (centred @ directions[:, kept] / np.sqrt(variances[kept])).astype(np.float32)


@lru_cache(maxsize=4)  # samples of the same sizes share them
def relabellings(n: int, total: int, count: int, seed: int) -> list[np.ndarray]:
    """Which n of `total` rows are the first sample, `count` times, in blocks (BLOCK, total)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(total) < n  # (total,)
    sizes = [min(BLOCK, count - start) for start in range(0, count, BLOCK)]
    return [rng.permuted(np.tile(labels, (size, 1)), axis=1) for size in sizes]
