"""Matrix products, the large ones in pieces that threads compute at the same time.

In: rows, and a matrix of weights. Out: their product, for `ops`.

BLAS has threads of its own. But their number decides where they cut a product, and the cut decides
its last bits. Here a product is cut along its longer side, and its size alone says into how many
pieces. So any number of threads gives the same bits. A product is not cut where it is small, and
where threads work on shares of a batch already.

Shapes: N rows, E the length of the sums, J columns.
"""

import numpy as np

from minipt.maths.threads import in_threads, is_shared_out

Array = np.ndarray
FEW_ROWS = 32  # up to this many, `times_transposed` multiplies in the other order
# The fewest multiplications in a piece. They take 0.2 ms, and to wake a thread takes 0.1 ms.
PIECE = 8_000_000
PIECES = 4  # at most: every piece reads the other factor once more


def times(rows: Array, matrix: Array) -> Array:
    """rows matrix. (N, E), (E, J) -> (N, J)"""
    (N, E), J = rows.shape, matrix.shape[1]
    count = min(N * E * J // PIECE, PIECES)
    if count < 2 or is_shared_out():
        return rows @ matrix
    product = np.empty((N, J), np.result_type(rows, matrix))
    cuts = np.linspace(0, max(N, J), count + 1, dtype=int)

    def compute(k: int) -> None:
        part = slice(cuts[k], cuts[k + 1])
        if N > J:
            np.matmul(rows[part], matrix, out=product[part])
        else:
            np.matmul(rows, matrix[:, part], out=product[:, part])

    in_threads(compute, range(count))
    return product


def times_transposed(rows: Array, matrix: Array) -> Array:
    """rows matrixᵀ. Of few rows (matrix rowsᵀ)ᵀ takes half the time. (N, E), (J, E) -> (N, J)"""
    if len(rows) <= FEW_ROWS:
        return times(matrix, rows.T).T.copy()
    return times(rows, matrix.T)
