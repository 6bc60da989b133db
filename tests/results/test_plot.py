"""Pictures: they say what they should, nothing overlaps, and matplotlib stays out of the way."""

import io
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from minipt.errors import MiniptError
from minipt.results.plot import draw_curves, draw_reading, draw_step, render


def history(steps: int) -> list[dict]:
    rng = np.random.default_rng(0)
    records = [{"step": 0, "validation_accuracy": 0.5, "validation_loss": 0.8}]
    for step in range(1, steps + 1):
        record = {"step": step, "loss": 1 / step + rng.random(), "gradient_norm": 1.0}
        record |= {"prompt_norm": 3.0 + step, "distance": float(step), "rate": 0.1}
        if step == steps or step % 10 == 0:
            record |= {"validation_accuracy": 0.6, "validation_loss": 0.5}
        records.append(record)
    return records


def step_of(layers: int, vectors: int, tokens: list[str], labels: list[str]):
    rng = np.random.default_rng(0)
    return draw_step(
        "'a text', to be answered 'spam'",
        tokens,
        rng.random((layers, vectors)),
        rng.random((len(tokens), vectors)),
        rng.random(vectors),
        {moment: rng.random(len(labels)) for moment in ("no prompt", "before", "after")},
        labels,
    )


def heat_of_tokens(figure):
    return figure.axes[2]  # 0 is that of the layers; each is followed by its scale of colours


def texts_that_overlap(figure) -> list[tuple[str, str]]:
    """Pairs of visible texts whose boxes on the page share more than a hair."""
    figure.savefig(io.BytesIO(), format="png")
    renderer = figure._get_renderer()
    found = []
    for axes in figure.axes:
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
        if axes.get_legend():
            texts += axes.get_legend().get_texts()
        found += [text for text in texts if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found]
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, f"{name} leaves the page"
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]


@pytest.mark.parametrize("steps", [1, 47, 600])
def test_curves(steps):
    lines = {"majority": 0.87, "bag of words": 0.97}
    figure = draw_curves("sms-spam-tiny-0", history(steps), steps, lines)
    assert texts_that_overlap(figure) == []
    loss, accuracy, norm = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (nats)",
        "accuracy",
        "length of the vectors",
    ]
    shown = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert "majority on test, 0.870" in shown
    assert "bag of words on test, 0.970" in shown
    assert len(loss.lines[0].get_xdata()) == steps
    assert norm.get_xlabel() == "step"


@pytest.mark.parametrize(
    ("layers", "vectors", "tokens", "labels"),
    [
        (6, 20, 29, ["ham", "spam"]),
        (1, 1, 1, ["bad", "good"]),
        (12, 100, 200, ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]),
        (2, 13, 5, [f"a class of number {i}" for i in range(12)]),
    ],
)
def test_a_step_on_one_page(layers, vectors, tokens, labels):
    figure = step_of(layers, vectors, [f" token{i}" for i in range(tokens)], labels)
    assert texts_that_overlap(figure) == []
    rows = [label.get_text() for label in heat_of_tokens(figure).get_yticklabels()]
    assert rows[-1] == f"·token{tokens - 1}"  # the newest tokens are the ones that are kept


@pytest.mark.parametrize(("layers", "vectors"), [(6, 20), (1, 1), (30, 100)])
def test_a_reading_on_one_page(layers, vectors):
    rng = np.random.default_rng(0)
    places = {"words": rng.random((300, 2)), "prompt": 9 * rng.random((vectors, 2))}
    groups = {"prompt": vectors, "random": 50, "words": 50}
    closest = {
        measure: {who: rng.random(count) for who, count in groups.items()}
        for measure in ("cosine", "distance")
    }
    for known in ({}, {"start": rng.random((vectors, 2))}):
        weights, changes = rng.random((layers, vectors)), rng.standard_normal(vectors)
        figure = draw_reading("a prompt", places | known, 0.27, closest, weights, changes)
        assert texts_that_overlap(figure) == []
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert ("the vectors' start" in shown) == bool(known)


def test_letters_that_the_font_lacks_and_formulas_do_no_harm():
    figure = step_of(2, 3, ["$x", "中", "\n", "�", " £"], ["$a$", "б"])
    figure.savefig(io.BytesIO(), format="png")  # a missing glyph would be a warning, so an error
    rows = [label.get_text() for label in heat_of_tokens(figure).get_yticklabels()]
    assert rows == [r"\$x", "□", "⏎", "□", "·£"]


def test_matplotlib_is_imported_only_to_draw():
    program = (
        "import sys, minipt, minipt.commands.cli\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from minipt.results.plot import draw_curves\n"
        "record = {'step': 1, 'loss': 1, 'prompt_norm': 1, 'distance': 1}\n"
        "draw_curves('', [{'step': 0}, record], 0, {})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_matplotlib_cannot_draw_is_a_sentence(monkeypatch):
    figure = Figure(figsize=(1, 1))
    assert render(figure, ".PNG").startswith(b"\x89PNG")
    assert render(figure, ".pdf").startswith(b"%PDF")

    def fail(*_, **__):
        raise RuntimeError("no font\nfound")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(MiniptError, match=r"matplotlib cannot draw here \(no font found\)"):
        render(figure, ".png")
