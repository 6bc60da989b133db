"""Whose rows are which: one matrix with the rows of all texts, and the way back to single texts.

In: streams of texts, each (B, T, C). Out: `Rows`, which lays their rows under one another as a
matrix (N, C), takes it apart again and picks some of its rows. All but attention is done row by
row, and a row does not know which text it belongs to; so a prompt that stands once in front of B
texts goes through the same matrix products as they do, P + B·T rows at once. And a shorter text is
not padded there: its padding is made where texts must be of one length, in attention, and left out
of the matrix again. The story continues in `layer.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class Stream:
    """B texts of at most T rows each, and what is asked of them.

    name: the first part of their names in the trace. x (B, T, C): the embeddings that enter.
    read (B, R): different indices into T of the rows that are read out, R may be 0.
    wanted: the number of leading rows of each text whose gradient is needed.
    lengths (B,): the real rows of each text, behind which is padding; None: all T are real.
    """

    name: str
    x: np.ndarray
    read: np.ndarray
    wanted: int = 0
    lengths: np.ndarray | None = None

    @property
    def real(self) -> np.ndarray:
        """How many rows of each text are real. (B,)"""
        B, T, _ = self.x.shape
        return np.full(B, T) if self.lengths is None else self.lengths

    @property
    def all_rows(self) -> np.ndarray:
        """The indices of each text's rows, padding included. (B, T)"""
        B, T, _ = self.x.shape
        return np.broadcast_to(np.arange(T), (B, T))


class Rows:
    """Some rows of each stream as a matrix (N, E), E being what the model makes of the C channels.

    places: of each stream the indices (B, n) into T of its rows; None: all rows of all streams.
    What lies in a text's padding is no row of the matrix.
    """

    def __init__(
        self, streams: Sequence[Stream], places: Sequence[np.ndarray] | None = None
    ) -> None:
        self.names = [stream.name for stream in streams]
        self.index = slice(None)  # into the matrix of all rows, or (N,)
        if places:
            self.index = _index(streams, places)
        else:
            places = [stream.all_rows for stream in streams]
        self.shapes = [place.shape for place in places]  # (B, n)
        self.real = [_real(*each) for each in zip(streams, places, strict=True)]
        counts = zip(self.shapes, self.real, strict=True)
        self.ends = list(
            accumulate(B * n if real is None else len(real) for (B, n), real in counts)
        )

    def of(self, matrix: np.ndarray) -> np.ndarray:
        """These out of all rows."""
        return matrix[self.index]

    def add(self, dmatrix: np.ndarray, drows: np.ndarray) -> None:
        """The backward of `of`, added in place."""
        dmatrix[self.index] += drows

    def split(self, matrix: np.ndarray) -> list[np.ndarray]:
        """Each stream's part of a matrix (N, E) as (B, n, E): a view, or padded with zeros."""
        starts, E, parts = [0, *self.ends[:-1]], matrix.shape[1], []
        for start, end, (B, n), real in zip(starts, self.ends, self.shapes, self.real, strict=True):
            part = matrix[start:end]
            if real is not None:
                padded = np.zeros((B * n, E), matrix.dtype)
                padded[real] = part
                part = padded
            parts.append(part.reshape(B, n, E))
        return parts

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The inverse of `split`: (B, n, E) of each stream -> (N, E), a view where it can be one"""
        matrices = []
        for part, real in zip(parts, self.real, strict=True):
            rows = part.reshape(-1, part.shape[-1])
            matrices.append(rows if real is None else rows.take(real, axis=0))
        return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)

    def named(self, name: str, matrix: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Each stream's part under the name that it has in the trace."""
        for stream, part in zip(self.names, self.split(matrix), strict=True):
            yield f"{stream}.{name}", part


def _index(streams: Sequence[Stream], places: Sequence[np.ndarray]) -> np.ndarray:
    """Where rows at these places stand in the matrix of all rows. (N,)"""
    parts, start = [], 0
    for stream, place in zip(streams, places, strict=True):
        ends = start + np.cumsum(stream.real)  # (B,)
        index = (ends - stream.real)[:, None] + place  # (B, n)
        parts.append(index[place < stream.real[:, None]])
        start = ends[-1]
    return np.concatenate(parts)


def _real(stream: Stream, place: np.ndarray) -> np.ndarray | None:
    """Which of these places (B, n) are no padding, as indices into B·n; None: all of them."""
    real = place < stream.real[:, None]
    return None if real.all() else real.ravel().nonzero()[0]
