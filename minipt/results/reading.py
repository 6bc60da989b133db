"""Reading a prompt: the words near its vectors, who reads them, and what is lost without each.

In: a tuned prompt, its base and its task. Out: a `PromptReading`, as text, as JSON and as a page
drawn by `plot.py`. Three questions are asked, since none of them alone is an answer: near words say
what a vector resembles (`neighbours.py`), attention says who looks at it, and only taking it away
says what it does (`influence.py`). Nothing is looked up on the test split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minipt.errors import MiniptError
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import STARTS, frequent_ids, init_prompt
from minipt.results.influence import LOOKED_AT, TEXTS, Ablation, ablate, attention
from minipt.results.neighbours import MEASURES, Nearest, Plane, closest, nearest, principal_plane
from minipt.results.plot import draw_reading
from minipt.results.tables import align, decimals, shorten, tabulate
from minipt.tasks.task import Task
from minipt.transformer.base import Base

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = {"lowest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "highest": 1.0}
WHO = {
    "prompt": "the prompt's vectors",
    "random": "random vectors of the same norms",
    "words": "real words, to another word",
}
WHOSE_NORM = {"prompt": WHO["prompt"], "start": "their start", "words": "real words"}
CAVEAT = """\
Near words are no explanation: a prompt can be tuned to lie nearest to the words of any sentence
and still solve its task (Khashabi et al. 2022; minipt/rivals/wayward.py). Attention says which
vectors are read, not what for. What is lost without a vector is what it does, the others being
there."""


@dataclass(frozen=True)
class PromptReading:
    """The near words, readers and effects of P vectors.

    nearest, closest: by the measure, "cosine" or "distance"; closest: for "prompt", "random" and
    "words" how near the nearest token is. norms: of the "prompt" (P,), the "words" (W,) and, where
    it is known, the "start". places: the same on the map, (N, 2). attention (L, P): by layer, the
    mean over heads, the rows of a text, and texts.
    """

    title: str
    nearest: dict[str, Nearest]
    closest: dict[str, dict[str, np.ndarray]]
    norms: dict[str, np.ndarray]
    plane: Plane
    places: dict[str, np.ndarray]
    attention: np.ndarray
    ablation: Ablation


def read(
    base: Base,
    prompt: SoftPrompt,
    task: Task,
    texts: int = TEXTS,
    start: np.ndarray | None = None,
    seed: int = 0,
) -> PromptReading:
    """Read a prompt of P vectors, which takes P + 1 evaluations of `texts` validation texts.

    start (P, C): the vectors before the first step, None: unknown. seed: of the random vectors and
    words to compare with.
    Raises MiniptError for fewer than one text, a prompt of another base's width and texts that
    cannot be read.
    """
    if texts < 1:
        raise MiniptError(f"a prompt is read with at least 1 validation text, not {texts}")
    seen = attention(base, prompt, task, min(texts, LOOKED_AT))
    groups = {"prompt": prompt.vectors} | ({} if start is None else {"start": start})
    groups["words"] = base.params["token.table"][frequent_ids(base)]  # (W, C)
    plane = principal_plane(base)
    return PromptReading(
        title=f"{len(prompt.vectors)} vectors in front of base {base.name}, task {task.name}",
        nearest={measure: nearest(base, prompt.vectors, measure) for measure in MEASURES},
        closest={measure: closest(base, prompt.vectors, measure, seed) for measure in MEASURES},
        norms={name: np.linalg.norm(x, axis=1) for name, x in groups.items()},
        plane=plane,
        places={name: plane.project(x) for name, x in groups.items()},
        attention=seen,
        ablation=ablate(base, prompt, task, texts),
    )


def find_start(base: Base, prompt: SoftPrompt) -> np.ndarray | None:
    """The vectors (P, C) that a prompt began as, drawn again; None where it does not say."""
    about = prompt.about
    method, seed, text = (about.get(name) for name in ("method", "seed", "text"))
    if method not in STARTS or (method == "text" and text is None):
        return None
    words = about.get("label_words")
    return init_prompt(base, len(prompt.vectors), method, seed, text, words).vectors


def tell(reading: PromptReading) -> str:
    """The reading as text: near words, the yardsticks, attention, what is lost without a vector."""
    yardsticks = [
        (f"{measure} to the nearest word", WHO, groups)
        for measure, groups in reading.closest.items()
    ]
    tables = [_nearest_table(reading)]
    for title, names, groups in (*yardsticks, ("norm", WHOSE_NORM, reading.norms)):
        entries = [(names[who], _quantiles(values).values()) for who, values in groups.items()]
        tables.append(align(tabulate((title, *QUANTILES), entries)))
    rows = [("the text's attention", "to the prompt", "to its most read vector", "which")]
    for i, layer in enumerate(reading.attention):
        rows.append((f"layer {i}", *decimals([layer.sum(), layer.max()]), str(layer.argmax())))
    tables += [align(rows), _ablation_table(reading)]
    return "\n\n".join([reading.title, *tables, CAVEAT])


def _nearest_table(reading: PromptReading) -> str:
    rows = [("vector", "norm", "cosine", "nearest by cosine", "distance", "nearest by distance")]
    for p, norm in enumerate(reading.norms["prompt"]):
        cells = [str(p), f"{norm:.2f}"]
        for near in reading.nearest.values():
            cells += decimals([near.values[p, 0]])
            cells.append(shorten(" ".join(map(repr, near.tokens[p])), 29))
        rows.append(tuple(cells))
    return align(rows, ">>><><")


def _ablation_table(reading: PromptReading) -> str:
    whole, by_vector = reading.ablation, reading.attention.mean(0)  # (P,): the mean of the layers
    rows = [("without vector", "accuracy", "change", "loss", "change", "attention")]
    rows.append(("(none)", f"{whole.accuracy:.3f}", "", f"{whole.loss:.3f}", "", ""))
    for p in np.argsort(-whole.losses, kind="stable"):
        accuracy, loss = whole.accuracies[p], whole.losses[p]
        changes = f"{accuracy - whole.accuracy:+.3f}", f"{loss - whole.loss:+.3f}"
        cells = (f"{accuracy:.3f}", changes[0], f"{loss:.3f}", changes[1], f"{by_vector[p]:.3f}")
        rows.append((str(p), *cells))
    head = f"on {whole.texts} validation texts, each of which is {1 / whole.texts:.3f} of accuracy"
    return f"{head}\n{align(rows, '>>>>>>')}"


def describe(reading: PromptReading) -> dict:
    """The reading in what JSON knows; of the map the prompt's places and not the words'."""
    whole, vectors = reading.ablation, []
    for p, norm in enumerate(reading.norms["prompt"]):
        vector = {"vector": p, "norm": float(norm)}
        for measure, near in reading.nearest.items():
            words = zip(near.ids[p].tolist(), near.tokens[p], near.values[p].tolist(), strict=True)
            vector[f"nearest_by_{measure}"] = [
                {"id": token, "token": text, measure: value} for token, text, value in words
            ]
        vector["attention_by_layer"] = reading.attention[:, p].tolist()
        vector["accuracy_without"] = float(whole.accuracies[p])
        vector["loss_without"] = float(whole.losses[p])
        for who, places in reading.places.items():
            if who != "words":
                vector[f"place_of_{who}"] = places[p].tolist()
        vectors.append(vector)
    compared = {f"{measure}_to_nearest": groups for measure, groups in reading.closest.items()}
    return {
        "title": reading.title,
        "texts": whole.texts,
        "accuracy": whole.accuracy,
        "loss": whole.loss,
        "quantiles": {
            name: {who: _quantiles(values) for who, values in groups.items()}
            for name, groups in (compared | {"norm": reading.norms}).items()
        },
        "share_of_variance_on_map": reading.plane.share,
        "vectors": vectors,
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))


def page(reading: PromptReading) -> Figure:
    """The reading as a picture: the map, the yardsticks, attention by layer, the ablation."""
    return draw_reading(
        reading.title,
        reading.places,
        reading.plane.share,
        reading.closest,
        reading.attention,
        reading.ablation.losses - reading.ablation.loss,
    )
