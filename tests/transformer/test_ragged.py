"""Whose rows are which: laid under one another, taken apart, picked, and the way back."""

import numpy as np
import pytest

from minipt.transformer.ragged import Rows, Stream

C = 3
SHAPES, READ = [(1, 2), (3, 4)], [np.empty((1, 0), int), np.array([[3, 0], [1, 2], [0, 3]])]
LENGTHS = np.array([2, 4, 1])  # of the texts, where some are padded
REAL = np.arange(4) < LENGTHS[:, None]
ALL_REAL = np.ones((3, 4), bool)


def prompt_and_texts(lengths: np.ndarray | None = None) -> list[Stream]:
    """A prompt of two rows, and three texts of up to four, of which two rows are read."""
    rng = np.random.default_rng(0)
    prompt, texts = (rng.normal(size=(*shape, C)) for shape in SHAPES)
    return [Stream("prompt", prompt, READ[0]), Stream("text", texts, READ[1], lengths=lengths)]


def joined(streams: list[Stream]) -> np.ndarray:
    return Rows(streams).join([stream.x for stream in streams])


def test_without_padding_nothing_is_copied():
    streams = prompt_and_texts()
    matrix = joined(streams)
    assert matrix.shape == (1 * 2 + 3 * 4, C)
    for stream, part in zip(streams, Rows(streams).split(matrix), strict=True):
        np.testing.assert_array_equal(part, stream.x)
        assert np.shares_memory(part, matrix)
    assert np.shares_memory(joined(streams[1:]), streams[1].x)


def test_padding_is_no_row_of_the_matrix():
    streams = prompt_and_texts(LENGTHS)
    matrix, x = joined(streams), streams[1].x
    np.testing.assert_array_equal(matrix, np.concatenate([streams[0].x[0], x[REAL]]))
    prompt, text = Rows(streams).split(matrix)
    np.testing.assert_array_equal(prompt, streams[0].x)
    np.testing.assert_array_equal(text, np.where(REAL[:, :, None], x, 0.0))


@pytest.mark.parametrize(("lengths", "real"), [(None, ALL_REAL), (LENGTHS, REAL)])
def test_some_rows_are_those_of_each_text(lengths, real):
    streams = prompt_and_texts(lengths)
    rows = Rows(streams, READ)
    picked = rows.of(joined(streams))
    prompt, text = rows.split(picked)
    assert prompt.shape == (1, 0, C)
    each = np.arange(3)[:, None], READ[1]
    np.testing.assert_array_equal(text, np.where(real[each][..., None], streams[1].x[each], 0.0))
    np.testing.assert_array_equal(rows.join([prompt, text]), picked)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("places", [None, READ])
def test_add_is_the_backward_of_of(lengths, places):
    streams = prompt_and_texts(lengths)
    rows, matrix = Rows(streams, places), joined(streams)
    drows = np.random.default_rng(1).normal(size=rows.of(matrix).shape)
    dmatrix = np.zeros_like(matrix)
    rows.add(dmatrix, drows)
    rows.add(dmatrix, drows)
    np.testing.assert_allclose((dmatrix * matrix).sum(), 2 * (drows * rows.of(matrix)).sum())
    assert np.count_nonzero(dmatrix.any(1)) == len(drows)


def test_each_part_has_its_streams_name():
    streams = prompt_and_texts()
    named = dict(Rows(streams).named("h0.out", joined(streams)))
    assert list(named) == ["prompt.h0.out", "text.h0.out"]
    np.testing.assert_array_equal(named["text.h0.out"], streams[1].x)
