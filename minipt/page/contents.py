"""All that a page shows, as JSON and a buffer of numbers.

In: `Steps`. Out: what the scripts of the page read; `README.md` describes it.
"""

import json
from dataclasses import asdict

import numpy as np

from minipt.page.fitting import MOST_WHOLE_LAYERS, most_characters, whole_layers
from minipt.page.numbers import Numbers, packed
from minipt.page.operations import operations
from minipt.page.places import Map, place_of
from minipt.page.snapshot import Snapshot
from minipt.page.steps import Step, Steps
from minipt.results.neighbours import nearest, spell
from minipt.results.tables import shorten

NEAREST = 3
START = 0.85  # the share of a page's data that heat maps may take at first
CAVEAT = (
    "A vector is no word. The words nearest to it mislead: they often stay the same while the "
    "prompt learns, and a prompt whose words look sensible need not work."
)
UPDATES = {
    "adam": (
        "vector -= rate · mean / (√square + ε)",
        "mean and square are running means of the gradient and of its square. So Adam moves a "
        "number by about the rate, whether its gradient is large or small.",
    ),
}


def contents(of: Steps) -> dict[str, str]:
    """The page's data: `step`, JSON, and `numbers`, the buffer, both as `packed` has them.

    Fewer arrays are whole until the page is small enough.
    """
    most = most_characters(of.subject.base.config.layers)
    snapshots = [Snapshot(of, n) for n in sorted({0, len(of.steps) - 1})]
    room = most * START
    while True:
        numbers = Numbers()
        record = json.dumps(_record(of, snapshots, room, numbers), allow_nan=False)
        data = {"step": packed(record.encode()), "numbers": numbers.packed()}
        excess = sum(map(len, data.values())) - most
        if excess <= 0 or room <= 0:
            return data
        room -= excess + most // 100


def _record(of: Steps, snapshots: list[Snapshot], room: float, numbers: Numbers) -> dict:
    subject, config = of.subject, of.subject.base.config
    rows = operations(config, subject.prompt.head is not None)
    chosen = [snapshot.number for snapshot in snapshots]
    share = room / len(snapshots)
    described = [snapshot.describe(rows, share, numbers) for snapshot in snapshots]
    first, last = of.steps[0], of.steps[-1]
    return {
        "title": shorten(subject.text, 70),
        "text": subject.text,
        "base": _base(of),
        "wiring": subject.wiring,
        "labels": subject.labels,
        "target": subject.target,
        "vectors": len(first.before),
        "vector_names": [f"vector {p}" for p in range(len(first.before))],
        "tokens": _tokens(of),
        "text_names": subject.labels if len(subject.batch.ids) > 1 else [""],
        "answer_rows": Map(subject).counted_rows(),
        "ops": [asdict(row) for row in rows.values()],
        "snapshots": described,
        "steps": [_step(of, n, step, chosen) for n, step in enumerate(of.steps)],
        "optimizer": _optimizer(of),
        "change": {"all": numbers.heat_map(last.after - first.before)},
        "answers": {
            name.replace(" ", "_"): each.tolist() for name, each in of.probabilities.items()
        },
        "nearest": _nearest(of),
        "said": _said(of, snapshots),
    }


def _base(of: Steps) -> dict:
    base = of.subject.base
    fields = ("layers", "channels", "heads", "hidden", "context", "head", "norm")
    sizes = {name: getattr(base.config, name) for name in fields}
    return {"name": base.name, "parameters": base.size} | sizes


def _tokens(of: Steps) -> list[list[str]]:
    """The tokens of each of the B texts; behind a shorter one stands padding, which is empty."""
    subject = of.subject
    rows = zip(subject.batch.ids, subject.batch.lengths, strict=True)
    return [
        [spell(subject.base, token) if t < length else "" for t, token in enumerate(ids)]
        for ids, length in rows
    ]


def _step(of: Steps, n: int, step: Step, chosen: list[int]) -> dict:
    def lengths(array: np.ndarray) -> list[float]:
        # In float64, where no square overflows.
        return np.linalg.norm(array.astype(np.float64), axis=1).tolist()

    return {
        "loss": step.loss,
        "loss_after": step.loss_after,
        "rate": step.rate,
        "gradient_norm": step.norm,
        "clipped": step.norm > of.subject.settings.clip,
        "probabilities": step.probabilities[0].tolist(),
        "after": step.probabilities[1].tolist(),
        "gradient_norms": lengths(step.gradient),
        "moved": lengths(step.after - step.before),
        "distance": lengths(step.after - of.steps[0].before),
        "snapshot": chosen.index(n) if n in chosen else None,
    }


def _optimizer(of: Steps) -> dict:
    settings = of.subject.settings
    formula, sentence = UPDATES[settings.optimizer]
    return {
        "name": settings.optimizer,
        "clip": settings.clip,
        "formula": formula,
        "sentence": sentence,
    }


def _nearest(of: Steps) -> dict:
    vectors = [{} for _ in of.gradient]
    for moment, array in (("before", of.steps[0].before), ("after", of.steps[-1].after)):
        with np.errstate(all="ignore"):  # a vector of zeros has no angle
            found = nearest(of.subject.base, array, "cosine", NEAREST)
        cosines = np.nan_to_num(found.values, posinf=0.0, neginf=0.0).tolist()
        for vector, tokens, cosine in zip(vectors, found.tokens, cosines, strict=True):
            vector |= {moment: tokens, f"{moment}_cosine": cosine}
    return {"caveat": CAVEAT, "vectors": vectors}


def _said(of: Steps, snapshots: list[Snapshot]) -> list[str]:
    """What the page must say about itself."""
    subject, layers = of.subject, of.subject.base.config.layers
    said = []
    if subject.cut:
        said.append("The text is too long for the model and lost its beginning.")
    if subject.chosen:
        said.append(
            "No label was given. The answer that the prompt finds least likely is taken for the "
            "right one, so that there is something to learn."
        )
    if len(subject.batch.ids) > 1:
        said.append("A label has several tokens, so the text runs once with each label behind it.")
    if layers > MOST_WHOLE_LAYERS:
        which = ", ".join(map(str, whole_layers(layers)))
        said.append(
            f"The model has {layers} layers. Whole arrays are here of layers {which}, and the "
            "attention of all. Of the other arrays the page has one size a row."
        )
    summed = {
        place_of(name).ending
        for each in snapshots
        for name in each.names
        if name not in each.whole and _is_near(name, layers)
    }
    if summed:
        said.append(
            "These arrays are too large for the page, which has one size a row of them: "
            f"{', '.join(sorted(summed))}."
        )
    return said


def _is_near(name: str, layers: int) -> bool:
    layer = place_of(name).layer
    return layer is None or layer in whole_layers(layers)
