"""Whose rows are which: laid under one another, taken apart, picked, and the way back."""

import numpy as np
import pytest

from minipt.streams import Rows, Stream, join

C = 3
EVERY, READ = [(1, 2), (3, 4)], [np.empty((1, 0), int), np.array([[3, 0], [1, 2], [0, 3]])]


@pytest.fixture
def streams() -> list[Stream]:
    """A prompt of two rows, and three texts of four, of which two rows are read."""
    rng = np.random.default_rng(0)
    names = ("prompt", "text")
    arrays = [rng.normal(size=(*shape, C)) for shape in EVERY]
    return [Stream(*each) for each in zip(names, arrays, READ, strict=True)]


def test_what_is_joined_is_split_into_views_of_the_same(streams):
    matrix = join([stream.x for stream in streams])
    assert matrix.shape == (1 * 2 + 3 * 4, C)
    for stream, part in zip(streams, Rows(streams).split(matrix), strict=True):
        np.testing.assert_array_equal(part, stream.x)
        assert np.shares_memory(part, matrix)
    assert np.shares_memory(join([streams[1].x]), streams[1].x)  # one stream is not copied


def test_some_rows_are_those_of_each_text(streams):
    rows = Rows(streams, READ)
    prompt, text = rows.split(rows.of(join([stream.x for stream in streams])))
    assert prompt.shape == (1, 0, C)
    np.testing.assert_array_equal(text, streams[1].x[np.arange(3)[:, None], READ[1]])


@pytest.mark.parametrize("places", [None, READ])
def test_add_is_the_backward_of_of(streams, places):
    rows, matrix = Rows(streams, places), join([stream.x for stream in streams])
    drows = np.random.default_rng(1).normal(size=rows.of(matrix).shape)
    dmatrix = np.zeros_like(matrix)
    rows.add(dmatrix, drows)
    rows.add(dmatrix, drows)
    np.testing.assert_allclose((dmatrix * matrix).sum(), 2 * (drows * rows.of(matrix)).sum())
    assert np.count_nonzero(dmatrix.any(1)) == len(drows)


def test_each_part_has_its_streams_name(streams):
    matrix = join([stream.x for stream in streams])
    named = dict(Rows(streams).named("h0.out", matrix))
    assert list(named) == ["prompt.h0.out", "text.h0.out"]
    np.testing.assert_array_equal(named["text.h0.out"], streams[1].x)
