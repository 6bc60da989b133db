"""The wrong twins are wrong in what they say, and in nothing else; and the course's own task."""

from dataclasses import replace

import numpy as np
import pytest

import minipt
from minipt import course
from minipt.prompting.readout import TEMPERATURE

LENGTHS = np.array([3, 5])
P = 4


@pytest.fixture
def nano():
    return minipt.load_base("nano")


@pytest.fixture
def prompt(nano):
    return minipt.init_prompt(nano, length=P)


@pytest.fixture
def batch():
    return minipt.Batch([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]], LENGTHS, [0, 1], [20, 21])


def test_read_at_the_right_rows_gives_the_right_logits(nano, prompt, batch):
    found = course.read_at(nano, prompt, batch, P + LENGTHS - 1)
    np.testing.assert_allclose(found, minipt.logits(nano, batch, prompt), rtol=1e-4, atol=1e-5)


def test_read_at_other_rows_gives_others_and_no_error(nano, prompt, batch):
    right = minipt.logits(nano, batch, prompt)
    last = course.read_at(nano, prompt, batch, np.full(2, -1))
    np.testing.assert_allclose(last[1], right[1], rtol=1e-4, atol=1e-5)  # this one has no padding
    assert np.abs(last[0] - right[0]).max() > 0.01


def test_pad_left_moves_the_shorter_text_only(batch):
    padded = course.pad_left(batch)
    assert padded.ids.tolist() == [[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]]
    assert padded.lengths.tolist() == [5, 5]


def test_pool_all_is_the_mean_of_the_prompts_rows_and_the_texts():
    """A prompt of words in front of a text is pooled as one longer text would be."""
    masked = minipt.load_base("micro-masked")
    encoder = replace(masked, config=replace(masked.config, head=None))
    axes = np.eye(encoder.config.channels)
    prompt = minipt.init_prompt(encoder, length=P)
    prompt.vectors[:] = encoder.params["token.table"][[1, 2, 3, 4]]
    batch = minipt.Batch([[5, 6, 7, 0], [8, 9, 10, 11]], [3, 4], [0, 1], axes)
    words = [[1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 8, 9, 10, 11]]
    longer = minipt.Batch(words, [7, 8], [0, 1], axes)
    pooled = course.pool_all(encoder, prompt, batch)  # (B, C)
    units = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    right = minipt.logits(encoder, longer) * TEMPERATURE
    np.testing.assert_allclose(units, right, rtol=1e-3, atol=1e-5)
    assert np.abs(units - minipt.logits(encoder, batch, prompt) * TEMPERATURE).max() > 0.001


def test_a_prompt_twice_is_as_long_twice(prompt):
    twice = course.prompt_twice(prompt)
    assert twice.vectors.shape == (2 * P, prompt.vectors.shape[1])
    np.testing.assert_array_equal(twice.vectors[:P], twice.vectors[P:])


@pytest.mark.parametrize("one_in", [2, 12])
def test_each_split_of_the_courses_task_has_the_same_share(one_in):
    task = course.statements_and_questions(one_in)
    for split, count in ((task.train, 149), (task.validation, 40), (task.test, 120)):
        assert len(split.texts) == len(set(split.texts)) == count
        assert sum(split.answers) == count // one_in
        assert [text.endswith("?") for text in split.texts] == [bool(k) for k in split.answers]
