"""Where an array of the trace stands: its stream, its layer, its part, and what its axes are.

In: the name of an array. Out: a `Place`. All rows are numbered in one way, in both wirings: 0 to
P-1 are the prompt's vectors, P to P+T-1 the tokens of the text.
"""

import re
from dataclasses import dataclass

import numpy as np

from minipt.page.steps import Subject
from minipt.prompting.readout import rows_to_read

# In the last layer these have all rows; the others have those that are read out.
OF_ALL_ROWS = ("attn.key", "attn.value")
HEADS = ("attn.key", "attn.value", "attn.query", "attn.context")
SCORES = ("attn.scores", "attn.weights")
INNER = ("mlp.up", "mlp.gate", "mlp.y_over_x", "mlp.active", "mlp.product")
OF_ANSWERS = ("features", "pooled", "length", "logits", "probabilities", "loss", "scores")


@dataclass(frozen=True)
class Place:
    """stream: "prompt" or "text". layer: None outside the layers. ending: the rest of the name."""

    name: str
    stream: str
    layer: int | None
    ending: str


def place_of(name: str) -> Place:
    """The parts of an array's name, such as `text.h3.attn.weights`."""
    stream, layer, ending = re.fullmatch(r"(prompt|text)\.(?:h(\d+)\.)?(.+)", name).groups()
    return Place(name, stream, None if layer is None else int(layer), ending)


class Map:
    """Rows, columns and axes of every array of a subject's trace."""

    def __init__(self, subject: Subject) -> None:
        self.config, self.batch = subject.base.config, subject.batch
        self.shared = subject.wiring == "shared"
        self.P, (self.B, self.T) = len(subject.prompt.vectors), self.batch.ids.shape
        self.answer_rows = rows_to_read(subject.base, self.batch) + self.P  # (B, R)

    def rows(self, place: Place) -> np.ndarray | None:
        """The numbers of an array's rows (B, n), None where it has answers for rows."""
        if place.ending == "vectors":
            return np.arange(self.P)[None]
        if place.ending in OF_ANSWERS or place.ending.startswith("head."):
            return None
        if place.stream == "prompt":
            return np.arange(0 if self._goes_on(place) else self.P)[None]
        if self._goes_on(place):
            return self.answer_rows
        start = self.P if self.shared else 0
        return np.arange(start, self.P + self.T)[None].repeat(self.B, axis=0)

    def counted_rows(self) -> list[list[int]]:
        """Of each text the numbers of the rows that its answers are made from, in their order."""
        if self.config.head is None:  # one answer, from the mean of all rows
            return self.answer_rows.tolist()
        pairs = zip(self.answer_rows, self.batch.counted, strict=True)
        return [rows[counted].tolist() for rows, counted in pairs]

    def _goes_on(self, place: Place) -> bool:
        """Whether this array has only the rows that are read out: in the last layer and behind it.

        Keys and values, and what they are made from, have all rows in the last layer too.
        """
        part = place.ending.partition(".")[0]
        if place.layer is None:
            return part == "final"
        all_rows = place.ending in OF_ALL_ROWS or (part == "ln1" and self.config.norm_first)
        return place.layer == self.config.layers - 1 and not all_rows

    def columns(self, place: Place) -> np.ndarray | None:
        """The numbers of the rows that attention reads (S,), None for other arrays."""
        if place.ending not in SCORES:
            return None
        return np.arange(self.P if place.stream == "prompt" else self.P + self.T)

    def axes(self, place: Place) -> list[str]:
        """What each axis of an array is."""
        if place.ending == "vectors":
            return ["vector", "channel"]
        if place.ending in ("logits", "probabilities", "scores"):
            return ["answer", "choice"]
        if place.ending == "loss":
            return ["answer"]
        if place.ending in SCORES:
            return ["text", "head", "row", "column"]
        if place.ending in HEADS:
            own = place.ending in OF_ALL_ROWS
            return ["text", "key_head" if own else "head", "row", "head_channel"]
        last = "one" if place.ending.endswith((".rstd", "length")) else "channel"
        last = "inner" if place.ending in INNER else last
        return [*(["answer"] if self.rows(place) is None else ["text", "row"]), last]

    def letters(self, place: Place, axes: list[str]) -> list[str]:
        """The letter of each axis, as the source has it."""
        letters = {"answer": "N", "choice": "K", "head": "H", "key_head": "Hkv", "text": "B"}
        letters |= {"channel": "C", "head_channel": "D", "inner": "F", "one": "1", "vector": "P"}
        rows = "P" if place.stream == "prompt" else "T" if self.shared else "P+T"
        if self.rows(place) is not None and self._goes_on(place):
            rows = "R"
        columns = "P" if place.stream == "prompt" else "P+T"
        return [(letters | {"row": rows, "column": columns})[axis] for axis in axes]
