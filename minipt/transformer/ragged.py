"""Whose rows are which: one matrix with the rows of all texts, and the way back to single texts.

In: streams of texts, each (B, T, C). Out: `Rows`, which lays their rows under one another as a
matrix (N, C), takes it apart again and picks some of its rows. All but attention is done row by
row, and a row does not know which text it belongs to; so a prompt that stands once in front of B
texts goes through the same matrix products as they do, P + B·T rows at once, or fewer: what pads a
shorter text is no row. It is made where texts must be of one length, in attention, and left out
again behind it. The story continues in `layer.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class Stream:
    """B texts of at most T rows each, and what is asked of them.

    name: the first part of their names in the trace. x (B, T, C): the embeddings that enter.
    read (B, R): different indices into T of the rows that are read out, R may be 0; one in the
    padding is read as zeros.
    wanted: the number of leading rows of each text whose gradient is needed.
    lengths (B,): the real rows of each text, behind which is padding; None: all T are real.
    """

    name: str
    x: np.ndarray
    read: np.ndarray
    wanted: int = 0
    lengths: np.ndarray | None = None

    @cached_property
    def counts(self) -> np.ndarray:
        """How many rows of each text are real. (B,)"""
        B, T, _ = self.x.shape
        return np.full(B, T) if self.lengths is None else self.lengths

    @cached_property
    def starts(self) -> np.ndarray:
        """How many real rows the texts before each have. (B,)"""
        return self.counts.cumsum() - self.counts

    @cached_property
    def all_rows(self) -> np.ndarray:
        """The indices of each text's rows, padding included. (B, T)"""
        B, T, _ = self.x.shape
        return np.arange(T)[None].repeat(B, axis=0)

    def real(self, places: np.ndarray) -> np.ndarray:
        """Where in these indices (B, n) into T, laid out flat, no padding is meant. (N,)"""
        return (places < self.counts[:, None]).ravel().nonzero()[0]


class Rows:
    """Some rows of each stream as a matrix (N, E), E being what the model makes of the C channels.

    places: of each stream the indices (B, n) into T of its rows; None: all rows of all streams.
    What lies in a text's padding is no row of the matrix.
    """

    def __init__(
        self, streams: Sequence[Stream], places: Sequence[np.ndarray] | None = None
    ) -> None:
        self.names = [stream.name for stream in streams]
        every = places is None
        places = [stream.all_rows for stream in streams] if every else places
        real = [stream.real(place) for stream, place in zip(streams, places, strict=True)]
        self.index = slice(None) if every else _index(streams, places, real)
        self.shapes = [place.shape for place in places]  # (B, n)
        # Which of the B·n places are no padding; None: all.
        pairs = zip(places, real, strict=True)
        self.kept = [None if len(each) == place.size else each for place, each in pairs]
        self.ends = list(accumulate(len(each) for each in real))

    def of(self, matrix: np.ndarray) -> np.ndarray:
        """These out of all rows."""
        return matrix[self.index]

    def add(self, dmatrix: np.ndarray, drows: np.ndarray) -> None:
        """The backward of `of`, added in place: no row is picked twice."""
        dmatrix[self.index] += drows

    def split(self, matrix: np.ndarray) -> list[np.ndarray]:
        """Each stream's part of a matrix (N, E) as (B, n, E): a view, or padded with zeros."""
        starts, E, parts = [0, *self.ends[:-1]], matrix.shape[1], []
        for start, end, (B, n), kept in zip(starts, self.ends, self.shapes, self.kept, strict=True):
            part = matrix[start:end]
            if kept is not None:
                padded = np.zeros((B * n, E), matrix.dtype)
                padded[kept] = part
                part = padded
            parts.append(part.reshape(B, n, E))
        return parts

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The inverse of `split`, without what lies in padding: a view where it can be one.

        (B, n, E) of each stream -> (N, E)
        """
        matrices = []
        for part, kept in zip(parts, self.kept, strict=True):
            rows = part.reshape(-1, part.shape[-1])
            matrices.append(rows if kept is None else rows.take(kept, axis=0))
        return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)

    def named(self, name: str, matrix: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Each stream's part under the name that it has in the trace."""
        for stream, part in zip(self.names, self.split(matrix), strict=True):
            yield f"{stream}.{name}", part


def _index(
    streams: Sequence[Stream], places: Sequence[np.ndarray], real: Sequence[np.ndarray]
) -> np.ndarray:
    """Where the real ones of these places stand in the matrix of all rows. (N,)"""
    parts, start = [], 0
    for stream, place, each in zip(streams, places, real, strict=True):
        index = start + stream.starts[:, None] + place  # (B, n)
        parts.append(index.ravel()[each])
        start += int(stream.counts.sum())
    return np.concatenate(parts)
