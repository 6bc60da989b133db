"""Which arrays a page holds whole; of the others it holds one size a row.

In: a step's trace. Out: the names of the arrays that fit. Small and telling arrays come first, the
wide ones inside the MLP later, an op's helpers last. Arrays of one kind are taken together, of all
layers or of none.
"""

import numpy as np

from minipt.page.numbers import bytes_of
from minipt.page.places import Map, place_of
from minipt.transformer.trace import Trace

MOST_WHOLE_LAYERS = 12  # of a deeper model, three layers are whole, and the attention of all
MOST_CHARACTERS = {"shallow": 2_800_000, "deep": 5_800_000}  # of a page's data
ALWAYS = ("vectors", "features", "logits", "probabilities", "loss", "scores", "pooled", "length")
FIRST = ("attn.weights", "attn.scores", "embedding", "out", "attn.key", "attn.value", "attn.query")
THEN = ("middle", "attn.context", "attn.out", "ln1", "ln2", "final", "mlp.down", "head.dense")
THEN += ("head.active", "head.norm", "embedding.norm", "mlp.active", "mlp.gate", "mlp.up")
ORDER = (*ALWAYS, *FIRST, *THEN, "mlp.product")


def whole_layers(layers: int) -> list[int]:
    """The layers whose arrays may be whole: all, or of a deep model the first, middle and last."""
    return [*range(layers)] if layers <= MOST_WHOLE_LAYERS else [0, layers // 2, layers - 1]


def most_characters(layers: int) -> int:
    """How long the data of a page may be; its styles and scripts come to less than 0.2 MB."""
    return MOST_CHARACTERS["shallow" if layers <= MOST_WHOLE_LAYERS else "deep"]


def fitting(layout: Map, trace: Trace, room: float) -> set[str]:
    """The names of the arrays that are whole. room: for their heat maps, in characters."""
    layers = layout.config.layers
    kinds: dict[str, list[str]] = {}
    for name, array in trace.activations.items():
        place = place_of(name)
        near = place.layer is None or place.layer in whole_layers(layers)
        if array.size and (near or place.ending == "attn.weights"):
            kinds.setdefault(place.ending, []).append(name)
    found = set()
    for ending in sorted(kinds, key=_rank):
        arrays = [trace[name] for name in kinds[ending]]
        arrays += [trace.gradients[name] for name in kinds[ending] if name in trace.gradients]
        needed = sum(map(_characters, arrays))
        if needed <= room:
            room -= needed
            found |= {*kinds[ending]}
    return found


def _rank(ending: str) -> int:
    return ORDER.index(ending) if ending in ORDER else len(ORDER)


def _characters(array: np.ndarray) -> int:
    return bytes_of(array) if array.size < 4_000_000 else array.size * 4 // 3
