"""Texts of different lengths as one matrix of rows, without padding.

In: B texts, each of at most T rows. Out: a `RowSet`, which picks rows, lays them under one another
as a matrix (N, E), and takes the matrix apart again. Norms, linear maps and MLPs work row by row,
and a row does not know which text it belongs to. So they compute one matrix, and what pads a
shorter text is no row of it. Only attention needs texts of one length: there padding is put in, and
taken out again afterwards.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Stream:
    """B texts of at most T rows each, which go through the layers together.

    name: the first part of their names in the trace. x (B, T, C): the embeddings that enter.
    answer_rows (B, R): the indices into T of the rows that are read out, all different; R may be 0.
    An answer row in the padding is read as zeros.
    leading_grads: of each text, how many rows from the first on need a gradient.
    lengths (B,): the real rows of each text, with padding behind them; None: all T are real.
    leaves_kv: whether others will read the keys and values of these rows. Only one text can leave
    them, so B is 1.
    """

    name: str
    x: np.ndarray
    answer_rows: np.ndarray
    leading_grads: int = 0
    lengths: np.ndarray | None = None
    leaves_kv: bool = False

    @cached_property
    def counts(self) -> np.ndarray:
        """How many rows of each text are real. (B,)"""
        B, T, _ = self.x.shape
        return np.full(B, T) if self.lengths is None else self.lengths


class RowSet:
    """Some rows of each text of a stream, as a matrix (N, E): E is what the model makes of C.

    rows (B, n): indices into T; None: all rows, n = T. Rows of padding are left out of the matrix.
    """

    def __init__(self, stream: Stream, rows: np.ndarray | None = None) -> None:
        B, T, _ = stream.x.shape
        self.is_all = rows is None
        self.rows = np.arange(T)[None].repeat(B, axis=0) if self.is_all else rows  # (B, n)
        real = (self.rows < stream.counts[:, None]).ravel().nonzero()[0]  # (N,)
        self.not_padding = None if len(real) == self.rows.size else real  # None: there is none
        starts = stream.counts.cumsum() - stream.counts  # (B,) the real rows of the texts before
        self.index = None if self.is_all else (starts[:, None] + self.rows).ravel()[real]  # (N,)

    def pick(self, matrix: np.ndarray) -> np.ndarray:
        """These rows out of the matrix of all rows."""
        return matrix if self.is_all else matrix[self.index]

    def add(self, dmatrix: np.ndarray, drows: np.ndarray) -> None:
        """The backward of `pick`, added to the gradient of all rows in place."""
        if self.is_all:
            dmatrix += drows
        else:  # no row is picked twice
            dmatrix[self.index] += drows

    def pad(self, matrix: np.ndarray) -> np.ndarray:
        """(N, E) -> (B, n, E), a view where there is no padding, else with zeros for it"""
        B, n = self.rows.shape
        E = matrix.shape[1]
        if self.not_padding is None:
            return matrix.reshape(B, n, E)
        padded = np.zeros((B * n, E), matrix.dtype)
        padded[self.not_padding] = matrix
        return padded.reshape(B, n, E)

    def pack(self, padded: np.ndarray) -> np.ndarray:
        """The inverse of `pad`: (B, n, E) -> (N, E), a view where it can be one"""
        matrix = padded.reshape(-1, padded.shape[-1])
        return matrix if self.not_padding is None else matrix.take(self.not_padding, axis=0)
