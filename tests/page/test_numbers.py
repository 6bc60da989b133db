"""Heat maps in 8 bits: what is rounded, and by how much."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minipt.page.numbers import NO_NUMBER, Numbers, decode, encode


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_no_number_is_off_by_more_than_half_a_step_of_its_code(array):
    codes, scale = encode(array)
    assert codes.dtype == np.int8
    assert scale == np.abs(array).max()
    step = scale * (2 * np.abs(codes.astype(int)) + 1.001) / (2 * 127**2)
    assert (np.abs(decode(codes, scale) - array) <= step + 1e-300).all()
    assert (np.sign(codes) * np.sign(array) >= 0).all()


def test_the_largest_number_is_exact_and_masks_are_no_numbers():
    codes, scale = encode(np.array([1.5, -3.0, 0.0, -np.inf, np.nan, np.inf], np.float32))
    assert codes.tolist() == [90, -127, 0, NO_NUMBER, NO_NUMBER, NO_NUMBER]
    np.testing.assert_equal(decode(codes, scale)[1:], [-3.0, 0.0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.empty((1, 0)), np.full(3, 1e-45, "<f4")])
def test_zeros_nothing_and_the_smallest_numbers(array):
    codes, scale = encode(array)
    assert codes.shape == array.shape
    np.testing.assert_allclose(decode(codes, scale), array)


def test_floats_stand_at_multiples_of_four():
    numbers = Numbers()
    numbers.heat_map(np.ones(3))
    reference = numbers.floats(np.arange(5.0))
    assert reference == [4, 5]
    numbers.heat_map(np.ones((2, 2)))
    assert numbers.floats(np.ones(2)) == [28, 2]
