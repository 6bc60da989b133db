"""Texts as one matrix of rows: laid under one another, taken apart, picked, and the way back."""

import numpy as np
import pytest

from minipt.transformer.ragged import RowSet, Stream

C = 3
SOME = np.array([[3, 0], [1, 2], [0, 3]])  # two rows of each of three texts
LENGTHS = np.array([2, 4, 1])  # of the texts, where some are padded
REAL = np.arange(4) < LENGTHS[:, None]
ALL_REAL = np.ones((3, 4), bool)


def texts(lengths: np.ndarray | None = None) -> Stream:
    """Three texts of up to four rows."""
    x = np.random.default_rng(0).normal(size=(3, 4, C))
    return Stream("text", x, SOME, lengths=lengths)


def test_without_padding_nothing_is_copied():
    stream = texts()
    rows = RowSet(stream)
    matrix = rows.pack(stream.x)
    assert matrix.shape == (3 * 4, C)
    np.testing.assert_array_equal(rows.pad(matrix), stream.x)
    assert np.shares_memory(rows.pad(matrix), matrix)
    assert np.shares_memory(matrix, stream.x)
    assert rows.pick(matrix) is matrix


def test_padding_is_no_row_of_the_matrix():
    stream = texts(LENGTHS)
    rows = RowSet(stream)
    matrix = rows.pack(stream.x)
    np.testing.assert_array_equal(matrix, stream.x[REAL])
    np.testing.assert_array_equal(rows.pad(matrix), np.where(REAL[:, :, None], stream.x, 0.0))


@pytest.mark.parametrize(("lengths", "real"), [(None, ALL_REAL), (LENGTHS, REAL)])
def test_some_rows_are_those_of_each_text(lengths, real):
    stream = texts(lengths)
    rows = RowSet(stream, SOME)
    picked = rows.pick(RowSet(stream).pack(stream.x))
    each = np.arange(3)[:, None], SOME
    expected = np.where(real[each][..., None], stream.x[each], 0.0)  # (B, n, C)
    np.testing.assert_array_equal(rows.pad(picked), expected)
    np.testing.assert_array_equal(rows.pack(rows.pad(picked)), picked)


def test_no_rows_are_a_matrix_without_rows():
    stream = texts(LENGTHS)
    rows = RowSet(stream, np.empty((3, 0), int))
    assert rows.pick(RowSet(stream).pack(stream.x)).shape == (0, C)
    assert rows.pad(np.empty((0, C))).shape == (3, 0, C)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("some", [None, SOME])
def test_add_is_the_backward_of_pick(lengths, some):
    stream = texts(lengths)
    rows, matrix = RowSet(stream, some), RowSet(stream).pack(stream.x)
    drows = np.random.default_rng(1).normal(size=rows.pick(matrix).shape)
    dmatrix = np.zeros_like(matrix)
    rows.add(dmatrix, drows)
    rows.add(dmatrix, drows)
    np.testing.assert_allclose((dmatrix * matrix).sum(), 2 * (drows * rows.pick(matrix)).sum())
    assert np.count_nonzero(dmatrix.any(1)) == len(drows)
