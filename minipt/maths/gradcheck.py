"""Is a gradient right? Finite differences, and the comparison of two arrays by one number.

In: a function, a point, and a gradient to be checked. Out: how far the gradient is from the truth.
The tests check every op and the whole step with it. Use it on an op of your own:

>>> x = np.random.default_rng(0).standard_normal((3, 4))
>>> check_gradient(lambda x: (x**3).sum(), x, 3 * x**2)    # below 1e-10
"""

from collections.abc import Callable

import numpy as np

# Central differences err by h² f‴/6 from the step and by about ulp |f| / h from rounding; in
# float64 a step of 1e-5 to 1e-4 balances the two, and four evaluations cancel the h² term.
STEP = 1e-4


def check_gradient(
    function: Callable[[np.ndarray], float],
    x: np.ndarray,
    gradient: np.ndarray,
    directions: int = 5,
    seed: int = 0,
) -> float:
    """The largest relative error of a gradient along random directions.

    For a direction v the slope d function(x + h v) / d h at h = 0 is the inner product of the
    gradient and v. Richardson's extrapolation of two central differences measures the slope:
    (4 D(h/2) - D(h)) / 3 with D(h) = (f(x + h v) - f(x - h v)) / 2h. Its error falls as h⁴.
    A wrong gradient agrees along a random direction with probability 0.

    function: array of x's shape -> scalar; x float64; gradient of x's shape. The error is relative
    to |gradient| |v|. It is NaN where the function or the gradient is. Raises ValueError where x
    is not float64 or the shapes differ.
    """
    if x.dtype != np.float64:
        raise ValueError(f"finite differences need float64, not {x.dtype}")
    if gradient.shape != x.shape:
        raise ValueError(f"the gradient has shape {gradient.shape}, x has {x.shape}")
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(directions):
        v = rng.standard_normal(x.shape)
        v /= np.linalg.norm(v) or 1.0
        wide = (function(x + STEP * v) - function(x - STEP * v)) / (2 * STEP)
        narrow = (function(x + STEP / 2 * v) - function(x - STEP / 2 * v)) / STEP
        slope = (4 * narrow - wide) / 3
        scale = np.linalg.norm(gradient) or 1.0
        errors.append(abs(slope - (gradient * v).sum()) / scale)
    return float(np.max(errors))


def compare(name: str, ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two arrays, relative to the reference's largest value.

    Equal infinities (masked scores) count as equal. Raises ValueError, which names the array, where
    the shapes differ.
    """
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape:
        raise ValueError(f"{name}: shape {ours.shape}, the reference has {reference.shape}")
    different = ours != reference
    if not different.any():
        return 0.0
    largest = np.abs(reference[np.isfinite(reference)]).max(initial=0.0)
    return float(np.abs(ours[different] - reference[different]).max() / (largest or 1.0))
