"""The numbers that open: the arithmetic of a chosen set of cells, in float32.

In: a step's trace. Out: for each cell, or row of cells, its kind and the numbers in it. These cells
are chosen: in attention and norms the rows of the answer, of the text's middle token and of the
last vector; of linear maps the largest numbers of these rows; the loss; and the gradient of the
vectors.
"""

import numpy as np

from minipt.page.numbers import Numbers
from minipt.page.places import Map, place_of
from minipt.page.sources import Sources
from minipt.page.steps import Subject
from minipt.transformer.model import embed_vectors
from minipt.transformer.trace import Trace

TERMS = 8  # of a linear map's sum; the rest is one number
CELLS = 4  # of each row of a linear map's output
MOST_WAYS = 64_000  # numbers; beyond, only some coordinates of each vector open
COORDINATES = 6
LINEAR = ("attn.value", "attn.out", "mlp.up", "mlp.gate", "mlp.down", "head.dense")
BEFORE_ROTATION = ("attn.key", "attn.query")
NORMS = ("ln1", "ln2", "final", "embedding.norm", "head.norm")


class Openings:
    """Collects what opens of one trace. whole: the arrays whose cells can be clicked."""

    def __init__(
        self, subject: Subject, trace: Trace, sources: Sources, whole: set[str], numbers: Numbers
    ) -> None:
        self.subject, self.trace, self.sources = subject, trace, sources
        self.map: Map = sources.map
        self.params, self.config = subject.base.params, subject.base.config
        self.whole, self.numbers, self.found = whole, numbers, []

    def collect(self, ways: np.ndarray) -> list[dict]:
        """All of them. ways (2, L, P, C): the parts of the vectors' gradient."""
        linear = LINEAR if self.config.positions == "rotary" else LINEAR + BEFORE_ROTATION
        for name, array in self.trace.activations.items():
            if name not in self.whole or not array.size:
                continue
            ending = place_of(name).ending
            if ending == "attn.weights":
                self._softmax(name)
            elif ending == "attn.scores":
                self._softmax_dx(name)
            elif ending in NORMS:
                self._norm(name)
            elif ending in linear:
                self._linear(name)
        self._loss()
        self._ways(ways)
        return self.found

    def _add(self, kind: str, name: str, index: list[int], numbers: np.ndarray, **more) -> None:
        gradient = kind in ("softmax_dx", "ways")
        where = {"kind": kind, "array": name, "gradient": gradient, "index": index}
        self.found.append(where | {"numbers": self.numbers.floats(numbers)} | more)

    def _rows(self, name: str) -> list[int]:
        """Where the chosen rows stand: the last vector's, the middle token's and the last one's."""
        rows = self.map.rows(place_of(name))
        if rows is None:  # answers
            return [self.trace[name].shape[0] - 1]
        P, length = self.map.P, int(self.map.batch.lengths[0])
        places = {int(row): place for place, row in enumerate(rows[0]) if row < P + length}
        wanted = sorted({P - 1, P + length // 2, max(places)})
        return [places[row] for row in wanted if row in places]

    def _softmax(self, name: str) -> None:
        scores = self.trace[name.replace("weights", "scores")]
        for row in self._rows(name):
            for head in range(scores.shape[1]):
                self._add("softmax", name, [0, head, row], scores[0, head, row])

    def _softmax_dx(self, name: str) -> None:
        weights_name = name.replace("scores", "weights")
        if weights_name not in self.trace.gradients:
            return
        weights, dweights = self.trace[weights_name], self.trace.grad(weights_name)
        for row in self._rows(name):
            for head in range(weights.shape[1]):
                both = np.concatenate([weights[0, head, row], dweights[0, head, row]])
                self._add("softmax_dx", name, [0, head, row], both)

    def _norm(self, name: str) -> None:
        xhat, rstd = self.trace[f"{name}.xhat"], self.trace[f"{name}.rstd"]
        at = name.partition(".")[2]
        gain, rms = self.params[f"{at}.gain"], self.config.norm == "rms"
        bias = np.zeros_like(gain) if rms else self.params[f"{at}.bias"]
        (before,) = self.sources.made_from(f"{name}.xhat")
        for row in self._rows(name):
            at_row = (0, row) if xhat.ndim == 3 else (row,)
            x = self._input_row(name, before, row)
            mean = np.zeros(1, x.dtype) if rms else x.mean(keepdims=True)
            parts = [x, gain, bias, mean, rstd[at_row]]
            self._add("norm", name, [*at_row], np.concatenate(parts), rms=rms)

    def _input_row(self, name: str, before: str, row: int) -> np.ndarray:
        """The row (C,) of the array `before` that became this row of the array `name`."""
        mine, theirs = (self.map.rows(place_of(each)) for each in (name, before))
        if theirs is None:
            return self.trace[before][row]
        if mine is None:  # an answer, from a row that is read out
            at = int(self.map.batch.counted[0].nonzero()[0][row])
        else:
            at = int((theirs[0] == mine[0][row]).nonzero()[0][0])
        if before == "prompt.vectors":
            return embed_vectors(self.subject.base, self.trace[before])[at]
        return self.trace[before][0, at]

    def _linear(self, name: str) -> None:
        (before,) = self.sources.made_from(name)
        at, y = name.partition(".")[2], self.trace[name]
        about = {"from": before, "weight": f"{at}.weight"}
        weight, bias = self.params[f"{at}.weight"], self.params.get(f"{at}.bias")
        D = self.config.channels // self.config.heads
        factor = D**-0.5 if name.endswith("attn.query") else 1.0
        for row in self._rows(name):
            # Of heads (H, D) side by side, channel j is head j // D.
            flat = y[0, :, row].ravel() if y.ndim == 4 else y[0, row] if y.ndim == 3 else y[row]
            x = self._linear_input(name, before, row)
            for j in _largest(flat, CELLS):
                terms = x * weight[:, j]
                top = _largest(terms, TERMS)
                rest = np.delete(terms, top).sum(dtype=np.float64)
                last = [rest, 0.0 if bias is None else bias[j], factor]
                numbers = np.concatenate([x[top], weight[top, j], last])
                index = {2: [row, j], 3: [0, row, j], 4: [0, j // D, row, j % D]}[y.ndim]
                self._add("linear", name, index, numbers, terms=top, **about)

    def _linear_input(self, name: str, before: str, row: int) -> np.ndarray:
        """The row (I,) that the map reads."""
        x = self.trace[before]
        return x[0, :, row].ravel() if x.ndim == 4 else self._input_row(name, before, row)

    def _loss(self) -> None:
        subject = self.subject
        several = "text.scores" in self.trace
        logits = self.trace["text.scores" if several else "text.logits"][0]  # (K,)
        names = {"names": subject.labels, "target": subject.target}
        self._add("loss", "text.scores" if several else "text.loss", [0], logits, **names)

    def _ways(self, ways: np.ndarray) -> None:
        """The whole vectors, or the coordinates with the largest gradients."""
        gradient, P = self.trace.grad("prompt.vectors"), ways.shape[2]
        for p in range(P):
            if ways.size <= MOST_WAYS:
                self._add("ways", "prompt.vectors", [p], ways[:, :, p])
                continue
            for c in _largest(gradient[p], COORDINATES):
                self._add("ways", "prompt.vectors", [p, c], ways[:, :, p, c])


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Where the numbers of the largest absolute values stand, the largest first."""
    return np.argsort(-np.abs(values), kind="stable")[:count].tolist()
