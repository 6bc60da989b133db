"""One step of the page: its arrays, its timeline, and what passes between text and prompt.

In: the trace of a step. Out: a dict for JSON, which refers to numbers in the buffer.
"""

import numpy as np

from minipt.page.fitting import fitting
from minipt.page.numbers import Numbers
from minipt.page.openings import Openings
from minipt.page.operations import Operation
from minipt.page.places import Map, Place, place_of
from minipt.page.sources import Reference, Sources
from minipt.page.steps import Steps
from minipt.page.ways import from_text, gradient_by_way


class Snapshot:
    """A step's trace on its way into the page."""

    def __init__(self, of: Steps, number: int) -> None:
        self.subject, self.number = of.subject, number
        self.trace, self.then = of.traces[number], of.traces[number + 1]
        self.loss, self.map = of.steps[number].loss, Map(of.subject)
        self.names = [name for name, array in self.trace.activations.items() if array.size]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.gradients = [name for name in self.trace.gradients if name in self.index]
        self.sources = Sources(self.map, self.index, set(self.gradients))
        self.ways = gradient_by_way(self.subject, self.trace)  # (2, L, P, C)
        self.asked = from_text(self.subject, self.trace)

    def describe(self, table: dict[str, Operation], room: float, numbers: Numbers) -> dict:
        """All of it for JSON. table: as `operations` gives it. room: as in `fitting`."""
        self.numbers, self.whole = numbers, fitting(self.map, self.trace, room)
        goes_into = self._goes_into()
        return {
            "step": self.number,
            "loss": self.loss,
            "arrays": [self._array(name, table, goes_into[name]) for name in self.names],
            "ticks": self._ticks(),
            "openings": self._openings(),
            "crossings": self._crossings(),
            "ways": numbers.floats(np.linalg.norm(self.ways, axis=3)),
        }

    def _openings(self) -> list[dict]:
        """With the indices of their arrays in place of the names."""
        opened = Openings(self.subject, self.trace, self.sources, self.whole, self.numbers)
        openings = opened.collect(self.ways)
        for each in openings:
            each["array"] = self.index[each["array"]]
            if "from" in each:
                each["from"] = self.index[each["from"]]
        return openings

    def _array(self, name: str, table: dict[str, Operation], goes_into: list[str]) -> dict:
        place, array = place_of(name), self.trace[name]
        axes, gradient = self.map.axes(place), self.trace.gradients.get(name)
        rows, columns = self.map.rows(place), self.map.columns(place)
        whole = name in self.whole
        return {
            "name": name,
            "stream": place.stream,
            "layer": place.layer,
            "ending": place.ending,
            "op": [*table].index(place.ending),
            "shape": array.shape,
            "letters": self.map.letters(place, axes),
            "axes": axes,
            "rows": None if rows is None else rows.tolist(),
            "columns": None if columns is None else columns.tolist(),
            "sizes": self._sizes(array, axes),
            "gradient_sizes": None if gradient is None else self._sizes(gradient, axes),
            "change_sizes": self._sizes(_change(array, self.then[name]), axes),
            "prompt_share": self._prompt_share(place, array),
            "value": self.numbers.heat_map(array) if whole else None,
            "gradient": self.numbers.heat_map(gradient) if whole and gradient is not None else None,
            "made_from": [self.index[each] for each in self.sources.made_from(name)],
            "goes_into": [self.index[each] for each in goes_into],
            "parameters": self._parameters(place, table),
        }

    def _sizes(self, array: np.ndarray, axes: list[str]) -> list[int]:
        return self.numbers.floats(_by_row(array, axes))

    def _prompt_share(self, place: Place, weights: np.ndarray) -> list[int] | None:
        """Of each row's attention, the share that goes to the prompt: (B, rows)."""
        if place.ending != "attn.weights":
            return None
        return self.numbers.floats(weights[..., : self.map.P].sum(-1).mean(1))

    def _parameters(self, place: Place, table: dict[str, Operation]) -> list[str]:
        names = table[place.ending].parameters
        return [f"h{place.layer}.{each}" if place.layer is not None else each for each in names]

    def _goes_into(self) -> dict[str, list[str]]:
        readers = {name: [] for name in self.names}
        for name in self.names:
            for each in self.sources.made_from(name):
                readers[each].append(name)
        return readers

    def _ticks(self) -> list[dict]:
        """The timeline: each op in the order of the trace, then each gradient in its order.

        The last tick is the optimizer's step, which changes the vectors.
        """
        forward = [
            self._tick(name, False, [(each, False) for each in self.sources.made_from(name)])
            for name in self.names
        ]
        backward = [
            self._tick(name, True, self.sources.gradient_made_from(name)) for name in self.gradients
        ]
        step = self._tick("prompt.vectors", False, [("prompt.vectors", True)])
        return [*forward, *backward, step | {"step": True}]

    def _tick(self, name: str, backward: bool, reads: list[Reference]) -> dict:
        places = [[self.index[each], gradient] for each, gradient in reads]
        return {"array": self.index[name], "backward": backward, "reads": places}

    def _crossings(self) -> list[dict]:
        """Of each layer: who reads the prompt, and what its keys and values get back."""
        found, P = [], self.map.P
        for layer, asked in enumerate(self.asked):
            name = f"text.h{layer}.attn.weights"
            rows = self.map.rows(place_of(name))[0]
            text = rows >= P  # in the concatenated wiring the prompt's rows stand in front
            weights = self.trace[name][0][:, text, :P].mean(0)  # (R, P)
            dscores = self.trace.grad(f"text.h{layer}.attn.scores")[0][:, text, :P]
            sizes = (np.abs(each).mean((0, 2)) for each in asked)  # (P,) twice
            keys, values = map(self.numbers.floats, sizes)
            found.append(
                {
                    "layer": layer,
                    "rows": rows[text].tolist(),
                    "weights": self.numbers.heat_map(weights),
                    "gradient": self.numbers.heat_map(np.abs(dscores).mean(0)),
                    "key_sizes": keys,
                    "value_sizes": values,
                }
            )
        return found


def _by_row(array: np.ndarray, axes: list[str]) -> np.ndarray:
    """The mean absolute value of each row, (B, rows), (N,) or (P,); what is masked is left out."""
    kept = tuple(i for i, axis in enumerate(axes) if axis in ("text", "row", "answer", "vector"))
    over = tuple(i for i in range(array.ndim) if i not in kept)
    finite = np.isfinite(array)
    sums = np.abs(np.where(finite, array, 0.0)).sum(over, dtype=np.float64)
    return sums / np.maximum(finite.sum(over), 1)


def _change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    masked = ~np.isfinite(before) | ~np.isfinite(after)
    with np.errstate(invalid="ignore"):
        return np.where(masked, 0.0, after - before)
