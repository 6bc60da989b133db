"""The instrument itself: it must see a wrong gradient and pass a right one."""

import numpy as np
import pytest

from minipt.maths.gradcheck import check_gradient, compare

X = np.random.default_rng(1).standard_normal((3, 4))


def cubes(x: np.ndarray) -> float:
    return (x**3).sum()


def test_a_right_gradient_passes():
    assert check_gradient(cubes, X, 3 * X**2) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_one_percent_is_seen_along_any_directions(seed: int):
    assert check_gradient(cubes, X, 1.01 * 3 * X**2, seed=seed) > 1e-4


def test_a_single_wrong_entry_is_seen():
    wrong = 3 * X**2
    wrong[2, 1] *= 1.01
    assert check_gradient(cubes, X, wrong) > 1e-6


def test_a_gradient_of_zeros_is_seen():
    assert check_gradient(cubes, X, np.zeros_like(X)) > 0.1


def test_a_scalars_gradient_passes():
    assert check_gradient(lambda x: np.exp(x).sum(), np.array(0.3), np.exp(np.array(0.3))) < 1e-9


def test_x_is_left_as_it_was():
    x = X.copy()
    check_gradient(cubes, x, 3 * x**2)
    np.testing.assert_array_equal(x, X)


def test_float32_is_refused():
    with pytest.raises(ValueError, match="float64, not float32"):
        check_gradient(cubes, X.astype(np.float32), 3 * X**2)


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), x has \(3, 4\)"):
        check_gradient(cubes, X, (3 * X**2).T)


def test_compare_is_relative_to_the_references_largest_value():
    assert compare("a", np.array([1.0, 98.0]), np.array([0.0, 100.0])) == 0.02


def test_compare_takes_equal_infinities_for_equal():
    assert compare("a", np.array([-np.inf, 1.0]), np.array([-np.inf, 1.0])) == 0.0
    assert compare("a", np.array([0.0, 1.0]), np.array([-np.inf, 1.0])) == np.inf


def test_compare_does_not_overlook_nan():
    assert not compare("a", np.array([np.nan, 1.0]), np.array([2.0, 1.0])) < 1.0


def test_compare_of_nothing_is_nothing():
    assert compare("a", np.empty((0, 2)), np.empty((0, 2))) == 0.0


def test_compare_names_the_array_of_another_shape():
    with pytest.raises(ValueError, match=r"text\.h0\.out: shape \(2,\)"):
        compare("text.h0.out", np.ones(2), np.ones(3))


def test_nan_is_never_a_right_gradient():
    x = np.ones(3)
    wrong = np.full(3, np.nan)
    assert np.isnan(check_gradient(lambda x: (x**2).sum(), x, wrong))
    assert np.isnan(check_gradient(lambda x: np.nan, x, 2 * x))
