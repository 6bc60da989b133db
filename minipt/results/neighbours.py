"""The place of a prompt's vectors among the words of their base.

In: a base and vectors (P, C), which stand where token embeddings would. Out: the tokens nearest to
each, how near real words and random vectors are to theirs, and a plane to draw all of them in. A
vector is no word: only beside these yardsticks does "nearest" mean something.
"""

from dataclasses import dataclass

import numpy as np

from minipt.prompting.starts import frequent_ids, word_ids
from minipt.transformer.base import Base

NEAREST = 5
COMPARED = 500  # words, and as many random vectors: enough for quantiles
MEASURES = ("cosine", "distance")


@dataclass(frozen=True)
class Nearest:
    """The N tokens nearest to each of P vectors, the nearest first.

    ids (P, N); values (P, N): their cosines or distances; tokens: the same as text.
    """

    ids: np.ndarray
    values: np.ndarray
    tokens: list[list[str]]


@dataclass(frozen=True)
class Plane:
    """The plane in which words differ most.

    centre (C,): their mean. axes (2, C): orthogonal, of length 1. share: how much of the words'
    variance lies in the plane; the rest cannot be seen on a map.
    """

    centre: np.ndarray
    axes: np.ndarray
    share: float

    def project(self, x: np.ndarray) -> np.ndarray:
        """(N, C) -> (N, 2)"""
        return (x - self.centre) @ self.axes.T


def nearest(base: Base, vectors: np.ndarray, measure: str, count: int = NEAREST) -> Nearest:
    """The tokens nearest to each vector, among the tokens that texts are made of.

    measure: "cosine", the angle alone, or "distance", Euclid's. vectors (P, C)
    """
    words = word_ids(base)  # (W,)
    table = base.params["token.table"][words]  # (W, C)
    order = np.argsort(_farness(vectors, table, measure), axis=1, kind="stable")[:, :count]
    values = _measure(vectors[:, None], table[order], measure)  # (P, N)
    ids = words[order]  # (P, N)
    return Nearest(ids, values, [[spell(base, token) for token in row] for row in ids])


def closest(base: Base, vectors: np.ndarray, measure: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The cosine or distance to the nearest token, of the vectors and of their yardsticks.

    prompt: the vectors (P,). random: directions drawn at random, of the vectors' norms. words: of
    tokens drawn from the frequent ones, to the nearest other. The same seed gives the same bits.
    """
    rng = np.random.default_rng(seed)
    words = word_ids(base)
    table = base.params["token.table"][words]  # (W, C)
    # Ids ascend, so the frequent words are the table's first rows.
    drawn = rng.choice(len(frequent_ids(base)), COMPARED)  # (N,)
    random = rng.standard_normal((COMPARED, table.shape[1]))  # (N, C)
    norms = np.resize(np.linalg.norm(vectors, axis=1), COMPARED)  # (N,)
    random *= (norms / np.linalg.norm(random, axis=1))[:, None]

    def to_nearest(x: np.ndarray, itself: np.ndarray | None = None) -> np.ndarray:
        farness = _farness(x, table, measure)  # (N, W)
        if itself is not None:
            farness[np.arange(len(x)), itself] = np.inf
        near = farness.argmin(1)  # (N,)
        return _measure(x, table[near], measure)

    return {
        "prompt": to_nearest(vectors),
        "random": to_nearest(random.astype(table.dtype)),
        "words": to_nearest(table[drawn], itself=drawn),
    }


def principal_plane(base: Base) -> Plane:
    """The first two principal components of the frequent tokens' embeddings (Pearson 1901).

    They are the eigenvectors of the covariance XᵀX / W with the largest eigenvalues, which are the
    variances along them. An eigenvector has no sign of its own: its largest entry is made positive.
    """
    table = base.params["token.table"][frequent_ids(base)].astype(np.float64)  # (W, C)
    centre = table.mean(0)
    X = table - centre
    variances, vectors = np.linalg.eigh(X.T @ X / len(X))  # (C,) ascending, (C, C) as columns
    axes = vectors[:, :-3:-1].T  # (2, C)
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[[0, 1], largest])[:, None]
    return Plane(centre, axes, float(variances[-2:].sum() / variances.sum()))


def spell(base: Base, token: int) -> str:
    """A token as text, or its number where a base has no tokenizer."""
    if base.tokenizer is None:
        return f"#{token}"
    return base.tokenizer.decode([int(token)], skip_special_tokens=False)


def _farness(x: np.ndarray, table: np.ndarray, measure: str) -> np.ndarray:
    """Numbers that order the tokens by the measure, the nearest lowest. -> (P, W)"""
    if measure == "cosine":
        return -_unit(x) @ _unit(table).T
    return (table * table).sum(1) - 2 * x @ table.T  # |t - x|² but for |x|², the same for all t


def _measure(x: np.ndarray, y: np.ndarray, measure: str) -> np.ndarray:
    """The cosine or distance of one row and another, each for itself. (..., C) -> (...)"""
    if measure == "cosine":
        return (_unit(x) * _unit(y)).sum(-1)
    return np.linalg.norm(x - y, axis=-1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
