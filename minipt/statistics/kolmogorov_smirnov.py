"""Do two samples of a number have the same distribution? The test of Kolmogorov and Smirnov.

In: two samples. Out: the largest distance of their distribution functions, and a p-value.
"""

import math

import numpy as np

SMALL = 140  # up to so many numbers the distribution is computed exactly


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The distance D of two samples and its p-value (Smirnov 1939). first (N,), second (M,)

    D is the largest distance between the two shares of numbers up to x, over all x. It is reached
    at a number of the smaller sample or just before one, since the other share only grows in
    between. Under the hypothesis D behaves as the distance of one sample of N·M / (N + M) numbers
    from its true distribution. Ties, such as equal lengths, only make p larger.
    """
    few, many = sorted((np.sort(first), np.sort(second)), key=len)
    distance = 0.0
    for side in ("left", "right"):
        shares = (np.searchsorted(each, few, side) / len(each) for each in (few, many))
        distance = max(distance, float(np.abs(np.subtract(*shares)).max()))
    return distance, survival(distance, round(len(few) * len(many) / (len(few) + len(many))))


def survival(d: float, n: int) -> float:
    """The probability that n numbers lie further than d from their distribution, on either side.

    Four formulas, each where it is exact or near enough, as in Simard and L'Ecuyer, "Computing the
    two-sided Kolmogorov-Smirnov distribution", Journal of Statistical Software 2011.
    """
    if d >= 1 or n < 1:
        return 0.0 if d >= 1 else 1.0
    if 2 * n * d <= 1:  # the distance is never smaller
        return 1.0
    # So far out both sides are hardly ever left together.
    if n * d * d >= (4.0 if n <= SMALL else 2.2):
        return min(1.0, 2 * _one_side(d, n))
    exact = n <= SMALL or (n <= 100_000 and n * d**1.5 <= 1.4)
    return min(1.0, max(0.0, 1 - (_durbin(d, n) if exact else _pelz_good(d, n))))


def _one_side(d: float, n: int) -> float:
    """The probability of more than d on one side (Birnbaum and Tingey 1951):

    d Σ C(n, j) (d + j/n)ʲ⁻¹ (1 - d - j/n)ⁿ⁻ʲ, over j from 0 to n (1 - d)
    """
    j = np.arange(math.ceil(n * (1 - d)))  # the next term would be zero
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    choose = log_factorials[n] - log_factorials[j] - log_factorials[n - j]
    below, above = d + j / n, 1 - d - j / n
    inside = above > 0  # rounding may reach 0 at the last j
    powers = (j - 1) * np.log(below) + (n - j) * np.log(np.where(inside, above, 1.0))
    return float(d * np.exp(choose + powers)[inside].sum())


def _durbin(d: float, n: int) -> float:
    """The probability of at most d, exactly: n! / nⁿ times an element of a matrix's nth power.

    The matrix is that of Marsaglia, Tsang and Wang, Journal of Statistical Software 2003, after
    Durbin 1973. With n d = k - h, k whole and 0 <= h < 1, it has 2k - 1 rows and columns.
    """
    k = math.ceil(n * d)
    h = k - n * d
    size = 2 * k - 1
    step = np.arange(size)[:, None] - np.arange(size) + 1  # (size, size)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, size + 1)]))
    matrix = np.where(step >= 0, 1.0, 0.0)
    corner = h ** np.arange(1, size + 1)
    matrix[:, 0] -= corner
    matrix[-1] -= corner[::-1]
    if 2 * h > 1:
        matrix[-1, 0] += (2 * h - 1) ** size
    matrix /= factorials[np.maximum(step, 0)]
    log_scale, power = 0.0, np.eye(size)
    for bit in f"{n:b}":  # the nth power by squares, its size kept apart
        power = power @ power
        power = power @ matrix if bit == "1" else power
        largest = power.max()
        power, log_scale = power / largest, 2 * log_scale + math.log(largest)
    return power[k - 1, k - 1] * math.exp(log_scale + math.lgamma(n + 1) - n * math.log(n))


def _pelz_good(d: float, n: int) -> float:
    """The probability of at most d for large n (Pelz and Good 1976): K0 + K1/√n + K2/n + K3/n√n.

    z is d √n. K0 is Kolmogorov's limit. The other terms hold what is lost to it at a finite n.
    """
    z = math.sqrt(n) * d
    k = np.arange(-20, 21)
    odd, even = (math.pi * (k + 0.5)) ** 2, (math.pi * k) ** 2  # π² (k + ½)² and π² k²
    q, r = np.exp(-odd / (2 * z * z)), np.exp(-even / (2 * z * z))
    root = math.sqrt(math.pi / 2)
    k0 = root / z * q.sum()
    k1 = root / (6 * z**4) * ((odd - z**2) * q).sum()
    k2 = 6 * z**6 + 2 * z**4 + (2 * z**4 - 5 * z**2) * odd + (1 - 2 * z**2) * odd**2
    k2 = root / (72 * z**7) * (k2 * q).sum() - root / (36 * z**3) * (even * r).sum()
    k3 = (5 - 30 * z**2) * odd**3 + (212 * z**4 - 60 * z**2) * odd**2
    k3 += (135 * z**4 - 96 * z**6) * odd - 30 * z**6 - 90 * z**8
    k3 = root / (6480 * z**10) * (k3 * q).sum()
    k3 += root / (216 * z**6) * ((3 * z**2 * even - even**2) * r).sum()
    return k0 + k1 / n**0.5 + k2 / n + k3 / n**1.5
