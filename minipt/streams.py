"""Whose rows are which: one matrix with the rows of all texts, and the way back to single texts.

In: streams of texts, each (B, T, C). Out: `join`, which lays their rows under one another as a
matrix (N, C), and `Rows`, which takes it apart again and picks some of its rows. All but attention
is done row by row, and a row does not know which text it belongs to; so a prompt that stands once
in front of B texts goes through the same matrix products as they do, P + B·T rows at once. The
story continues in `layer.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class Stream:
    """B texts of T rows each, and what is asked of them.

    name: the first part of their names in the trace. x (B, T, C): the embeddings that enter.
    read (B, R): different indices into T of the rows that are read out, R may be 0.
    wanted: the number of leading rows of each text whose gradient is needed.
    lengths (B,): the real rows of each text, for a base that is not causal.
    """

    name: str
    x: np.ndarray
    read: np.ndarray
    wanted: int = 0
    lengths: np.ndarray | None = None


class Rows:
    """Some rows of each stream as a matrix (N, E), E being what the model makes of the C channels.

    places: of each stream the indices (B, n) into T of its rows; None: all rows of all streams.
    """

    def __init__(
        self, streams: Sequence[Stream], places: Sequence[np.ndarray] | None = None
    ) -> None:
        self.names = [stream.name for stream in streams]
        self.shapes = [stream.x.shape[:2] for stream in streams]  # (B, T)
        self.index = slice(None)  # into all rows, or (N,)
        if places:
            starts = accumulate((B * T for B, T in self.shapes), initial=0)
            of_streams = zip(starts, self.shapes, places, strict=False)
            self.index = np.concatenate(
                [(start + T * np.arange(B)[:, None] + n).ravel() for start, (B, T), n in of_streams]
            )
            self.shapes = [place.shape for place in places]  # (B, n)
        self.ends = list(accumulate(B * n for B, n in self.shapes))

    def of(self, matrix: np.ndarray) -> np.ndarray:
        """These out of all rows."""
        return matrix[self.index]

    def add(self, dmatrix: np.ndarray, drows: np.ndarray) -> None:
        """The backward of `of`, added in place."""
        dmatrix[self.index] += drows

    def split(self, matrix: np.ndarray) -> list[np.ndarray]:
        """Each stream's part of a matrix (N, E) as a view (B, n, E)."""
        starts = [0, *self.ends[:-1]]
        parts = zip(starts, self.ends, self.shapes, strict=True)
        E = matrix.shape[1]
        return [matrix[start:end].reshape(*shape, E) for start, end, shape in parts]

    def named(self, name: str, matrix: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Each stream's part under the name that it has in the trace."""
        for stream, part in zip(self.names, self.split(matrix), strict=True):
            yield f"{stream}.{name}", part


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The inverse of `Rows.split`: (B, n, E) of each stream -> (N, E), a view where there is one"""
    matrices = [part.reshape(-1, part.shape[-1]) for part in parts]
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
