"""Products in pieces: the numbers of whole ones, and the same bits with any number of threads."""

import numpy as np
import pytest

from minipt.maths import matrix_products
from minipt.maths.matrix_products import FEW_ROWS, times, times_transposed
from minipt.maths.threads import at_most_threads, in_threads, thread_count


@pytest.mark.parametrize("N", [1, FEW_ROWS, FEW_ROWS + 1])
def test_few_rows_times_transposed_are_many_rows_times_transposed(N: int):
    rng = np.random.default_rng(N)
    rows, matrix = rng.normal(size=(N, 5)), rng.normal(size=(7, 5))
    products = times_transposed(rows, matrix)
    assert products.flags.c_contiguous
    np.testing.assert_allclose(products, np.einsum("nj,ij->ni", rows, matrix), atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 5, 17), (17, 5, 3), (1, 1, 9), (40, 6, 40)])
def test_pieces_make_the_product(shape: tuple[int, int, int], dtype: type, monkeypatch):
    monkeypatch.setattr(matrix_products, "PIECE", 1)
    N, E, J = shape
    rng = np.random.default_rng(0)
    rows, matrix = rng.normal(size=(N, E)).astype(dtype), rng.normal(size=(E, J)).astype(dtype)
    expected = np.einsum("ni,ij->nj", rows.astype(np.float64), matrix.astype(np.float64))
    for product in (times(rows, matrix), times_transposed(rows, matrix.T.copy())):
        assert product.dtype == dtype and product.flags.c_contiguous
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(product, expected, atol=tolerance)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(1)
    rows, matrix = (rng.normal(size=size).astype(np.float32) for size in ((97, 301), (301, 413)))
    monkeypatch.setattr(matrix_products, "PIECE", 1_000_000)
    cuts = []
    monkeypatch.setattr(
        matrix_products,
        "in_threads",
        lambda work, items: cuts.append((len(items), thread_count())) or in_threads(work, items),
    )
    bits = set()
    for threads in (1, 2, 4):
        with at_most_threads(threads):
            bits.add(times(rows, matrix).tobytes())
    assert len(bits) == 1
    assert cuts == [(4, 1), (4, 2), (4, 4)]


def test_where_threads_work_on_shares_a_product_is_one_piece(monkeypatch):
    monkeypatch.setattr(matrix_products, "PIECE", 1)
    rows, matrix = np.ones((2, 3)), np.ones((3, 50))
    monkeypatch.setattr(matrix_products.np, "linspace", None)  # what cuts
    for threads in (1, 2):
        with at_most_threads(threads):
            for product in in_threads(lambda _: times(rows, matrix), range(2)):
                np.testing.assert_array_equal(product, 3.0)
