"""All that a page shows, as JSON and a buffer of numbers.

In: `Steps`. Out: what `page.js` reads; `README.md` describes it.
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

VERSION = 1
NEAREST = 3
START = 0.85  # the share of a page's data that heat maps may take at first
CAVEAT = (
    "A vector is no word. The words nearest to it mislead: they often stay the same while the "
    "prompt learns, and a prompt whose words look sensible need not work."
)
ACTS = {
    "shared": (
        "the prompt goes forward",
        "the text goes forward",
        "the loss",
        "the text goes back",
        "the prompt goes back",
        "the optimizer's step",
    ),
    "concatenated": (
        "the prompt's vectors",
        "prompt and text go forward",
        "the loss",
        "prompt and text go back",
        "the gradient arrives",
        "the optimizer's step",
    ),
}
OPTIMIZERS = {
    "adam": (
        "vector -= rate · mean / (√square + ε)",
        "Adam moves every number by about the rate, against the sign of its gradient.",
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
        "version": VERSION,
        "title": shorten(subject.text, 70),
        "text": subject.text,
        "base": _base(of),
        "wiring": subject.wiring,
        "labels": subject.labels,
        "target": subject.target,
        "chosen": subject.chosen,
        "vectors": len(first.before),
        "vector_names": [f"vector {p}" for p in range(len(first.before))],
        "tokens": _tokens(of),
        "text_names": subject.labels if len(subject.batch.ids) > 1 else [""],
        "cut": subject.cut,
        "answer_rows": Map(subject).answer_rows.tolist(),
        "letters": _letters(of),
        "acts": ACTS[subject.wiring],
        "ops": [asdict(row) for row in rows.values()],
        "snapshots": described,
        "steps": [_step(of, n, step, chosen) for n, step in enumerate(of.steps)],
        "optimizer": _optimizer(of),
        "change": {
            "first": numbers.heat_map(first.after - first.before),
            "all": numbers.heat_map(last.after - first.before),
        },
        "answers": {
            name.replace(" ", "_"): each.tolist() for name, each in of.probabilities.items()
        },
        "nearest": _nearest(of),
        "said": _said(of, snapshots),
    }


def _base(of: Steps) -> dict:
    base, config = of.subject.base, of.subject.base.config
    family = "bert" if not config.norm_first else "llama" if config.norm == "rms" else "gpt2"
    fields = ("layers", "channels", "heads", "hidden", "vocabulary", "context", "head", "norm")
    sizes = {name: getattr(config, name) for name in fields}
    shared = {"key_value_heads": config.key_value_heads or config.heads}
    return {"name": base.name, "family": family, "parameters": base.size} | sizes | shared


def _letters(of: Steps) -> dict[str, int]:
    subject, config = of.subject, of.subject.base.config
    layout = Map(subject)
    return {
        "B": layout.B,
        "P": layout.P,
        "T": layout.T,
        "P+T": layout.P + layout.T,
        "R": layout.answer_rows.shape[1],
        "C": config.channels,
        "H": config.heads,
        "Hkv": config.key_value_heads or config.heads,
        "D": config.channels // config.heads,
        "F": config.hidden,
        "L": config.layers,
        "K": len(subject.labels),
        "V": config.vocabulary,
    }


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
    formula, sentence = OPTIMIZERS[settings.optimizer]
    return {
        "name": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "warmup": settings.warmup,
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
        name.rpartition(".h")[2].partition(".")[2]
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
