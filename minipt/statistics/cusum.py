"""Since when are the answers' shares others? A cumulative sum over time, its alarms counted.

In: the answers in the order of time, and how often each was given on validation. Out: a sum for
each answer that grows when its share does, and how high such sums get when nothing changes.
"""

from functools import lru_cache

import numpy as np

SLACK = 0.1  # in standard deviations; a smaller shift of a share is not followed
RAREST = 0.05  # a rarer answer counts as if it were as frequent, else a single one would be a jump
MOST_GROUPS = 250
SIMULATIONS = 9_999


def group(answers: np.ndarray, K: int) -> np.ndarray:
    """How often each answer was given in each of at most 250 groups, in order. (G, K)

    answers (N,): indices below K. All groups but the last have the same size.
    """
    size = -(-len(answers) // MOST_GROUPS)
    G = -(-len(answers) // size)
    cells = np.arange(len(answers)) // size * K + answers
    return np.bincount(cells, minlength=G * K).reshape(G, K)


def cusum(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The sums of K answers after each of G groups (Page 1954). counts (..., G, K), shares (K,)

    With σ = √(share (1 - share)), each sum goes on by

        S <- max(0, S + (count - size · share) / σ - size · slack)

    While the share stays, the slack takes it back to 0. Once the share has grown by more than the
    slack, it climbs with every group. W being the running total of what is added, this recursion
    has the solution S = W - min(0, lowest W so far).
    """
    floor = np.clip(shares, RAREST, 1 - RAREST)
    sizes = counts.sum(-1, keepdims=True)  # (..., G, 1)
    steps = (counts - sizes * shares) / np.sqrt(floor * (1 - floor)) - SLACK * sizes
    total = np.cumsum(steps, axis=-2)  # (..., G, K)
    return total - np.minimum(0.0, np.minimum.accumulate(total, axis=-2))


def smoothed(validation: np.ndarray) -> np.ndarray:
    """The shares of K answers from their counts, with half an answer more for each. (K,)"""
    return (validation + 0.5) / (validation + 0.5).sum()


def highest(
    validation: np.ndarray, sizes: np.ndarray, count: int = SIMULATIONS, seed: int = 0
) -> np.ndarray:
    """The highest sum of each of `count` simulated logs in which nothing changes, sorted. (count,)

    validation (K,): how often each answer was given on validation. sizes (G,): of the groups. The
    true shares are not known exactly. So each log has shares of its own, drawn from what validation
    leaves open (Dirichlet, with Jeffreys' half an answer more for each), and its answers are
    drawn from those.
    """
    return _highest(tuple(map(int, validation)), tuple(map(int, sizes)), count, seed)


@lru_cache(maxsize=32)  # logs of one length are compared with the same simulations
def _highest(validation: tuple, sizes: tuple, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shares = smoothed(np.array(validation))  # (K,)
    highs = []
    for start in range(0, count, 100):
        drawn = rng.dirichlet(np.array(validation) + 0.5, min(100, count - start))  # (S, K)
        counts = rng.multinomial(np.array(sizes), drawn[:, None])  # (S, G, K)
        highs.append(cusum(counts, shares).max((1, 2)))
    return np.sort(np.concatenate(highs))


def p_value(high: float, highs: np.ndarray) -> float:
    """The share of simulated logs that got as high, the log itself among them. highs: sorted"""
    as_high = len(highs) - int(np.searchsorted(highs, high))
    return (1 + as_high) / (1 + len(highs))
