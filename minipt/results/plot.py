"""Pictures: a run's curves, one training step as a page, and what a prompt reads as.

In: plain numbers and arrays. Out: a matplotlib `Figure`, to be saved or shown in a notebook.
matplotlib is imported only when something is drawn, and nothing here touches its global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minipt.errors import MiniptError
from minipt.results.tables import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#1f6fb2", "#d9822b", "#2e8b57", "#8a8a8a"
HEAT = "Blues"
PIXELS_PER_INCH = 150
# More rows than these would print their labels over one another.
MOST_TOKENS = 28
MOST_VECTOR_LABELS = 12
# DejaVu Sans, which comes with matplotlib, has no letters of the alphabets after Cyrillic.
LAST_OF_FONT = "\u0530"


def render(figure: Figure, ending: str) -> bytes:
    """A figure as a file of the type that an ending such as ".png" names.

    Raises MiniptError where matplotlib cannot draw, whatever the reason.
    """
    file = io.BytesIO()
    try:
        figure.savefig(file, format=ending.lower().removeprefix("."), dpi=PIXELS_PER_INCH)
    except Exception as error:  # its fonts and settings are the user's, and may be of any kind
        raise _cannot_draw(error) from error
    return file.getvalue()


def new_figure(**options: object) -> Figure:
    """An empty figure. Raises MiniptError where matplotlib cannot be used."""
    try:
        from matplotlib.figure import Figure
    except Exception as error:  # it reads the user's settings when it is imported
        raise _cannot_draw(error) from error
    return Figure(**options)


def _cannot_draw(error: Exception) -> MiniptError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return MiniptError(
        f"matplotlib cannot draw here ({shorten(reason, 90)}): see to its settings, such as the "
        "variables MPLBACKEND and MPLCONFIGDIR"
    )


def draw_curves(
    title: str, history: Sequence[Mapping[str, float]], best_step: int, lines: Mapping[str, float]
) -> Figure:
    """Loss, validation accuracy beside its rivals, and how far the prompt went, over the steps.

    history: as in `Run`. lines: accuracies to draw across, such as the majority's, by their names.
    """
    figure = new_figure(figsize=(9, 8), layout="constrained")
    figure.suptitle(in_font(title), fontsize=11)
    loss, accuracy, norm = figure.subplots(3, 1, sharex=True)
    steps = history[1:]
    at, losses = [r["step"] for r in steps], [r["loss"] for r in steps]
    loss.plot(at, losses, color=BLUE, alpha=0.25, linewidth=0.8, label="each batch")
    width = max(1, len(losses) // 30)
    loss.plot(at, _running_mean(losses, width), color=BLUE, label=f"mean of {width}")
    looks = [record for record in history if "validation_loss" in record]
    seen = [record["step"] for record in looks]
    loss.plot(
        seen, [r["validation_loss"] for r in looks], "o-", color=ORANGE, ms=4, label="validation"
    )
    loss.set_ylabel("loss (nats)")

    accuracies = [record["validation_accuracy"] for record in looks]
    accuracy.plot(seen, accuracies, "o-", color=ORANGE, ms=4, label="validation")
    accuracy.axvline(best_step, color=GREY, linewidth=0.8, label="kept: best on validation")
    for (name, value), style in zip(lines.items(), ("--", ":", "-."), strict=False):
        accuracy.axhline(value, color=GREEN, linestyle=style, label=f"{name} on test, {value:.3f}")
    accuracy.set_ylabel("accuracy")

    norm.plot(at, [r["prompt_norm"] for r in steps], color=BLUE, label="norm of the prompt")
    # Dashed, as from a small start the two curves soon lie on each other.
    norm.plot(at, [r["distance"] for r in steps], "--", color=ORANGE, label="distance from start")
    norm.set_ylabel("length of the vectors")
    norm.set_xlabel("step")
    for axes in (loss, accuracy, norm):
        tidy(axes)
        # Beside the axes, where no curve can run through it.
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    return figure


def draw_step(
    title: str,
    tokens: Sequence[str],
    last_token: np.ndarray,
    all_tokens: np.ndarray,
    gradient: np.ndarray,
    answers: Mapping[str, Sequence[float]],
    labels: Sequence[str],
) -> Figure:
    """One training step as a page: attention to the prompt's vectors, their gradient, the answers.

    tokens: T of them, as strings. last_token (L, P) and all_tokens (T, P): attention, the mean over
    the heads. gradient (P,): its norm at each vector. answers: probabilities of the K labels, by
    the name of the moment.
    """
    tokens, all_tokens = tokens[-MOST_TOKENS:], all_tokens[-MOST_TOKENS:]
    height = 4.2 + 0.18 * (len(last_token) + len(tokens))
    figure = new_figure(figsize=(9, max(7.0, height)), layout="constrained")
    figure.suptitle(in_font(title), fontsize=11)
    rows = [len(last_token) + 2, len(tokens) + 2, 9]
    grid = figure.add_gridspec(3, 2, height_ratios=rows)
    layers = [f"layer {i}" for i in range(len(last_token))]
    _heat(
        figure.add_subplot(grid[0, :]),
        last_token,
        layers,
        "attention of the text's last token to each prompt vector, by layer",
    )
    _heat(
        figure.add_subplot(grid[1, :]),
        all_tokens,
        [_shown(token) for token in tokens],
        "attention of each token of the text, mean of the layers below the last",
    )

    _gradient_bars(figure.add_subplot(grid[2, 0]), gradient)
    _answer_bars(figure.add_subplot(grid[2, 1]), answers, labels)
    return figure


def draw_lines(
    title: str,
    of: str,
    measure: str,
    lines: Mapping[str, Mapping[str, tuple[float, float, float]]],
    across: Mapping[str, float],
) -> Figure:
    """A measure over named settings, with bars from the lowest to the highest seed.

    of: the name of the setting. lines: by name, the mean, lowest and highest at each setting.
    across: values to draw across, by name.
    """
    figure = new_figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(in_font(title), fontsize=11)
    places = {at: i for i, at in enumerate(dict.fromkeys(at for x in lines.values() for at in x))}
    for i, (name, points) in enumerate(lines.items()):
        shift = (i - (len(lines) - 1) / 2) * 0.5 / len(lines)  # so that no bar hides another
        mean, low, high = np.array(list(points.values())).T
        x = np.array([places[at] for at in points]) + shift
        bars = np.maximum(np.stack([mean - low, high - mean]), 0.0)  # rounding may go below
        axes.errorbar(x, mean, bars, fmt="o-", ms=4, capsize=3, label=in_font(name))
    for (name, value), style in zip(across.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color=GREY, linestyle=style, label=in_font(f"{name}, {value:.3f}"))
    axes.set_xticks(range(len(places)), [in_font(at) for at in places])
    axes.set_xlabel(in_font(of))
    axes.set_ylabel(measure)
    tidy(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    return figure


def draw_reading(
    title: str,
    places: Mapping[str, np.ndarray],
    share: float,
    closest: Mapping[str, Mapping[str, np.ndarray]],
    attention: np.ndarray,
    changes: np.ndarray,
) -> Figure:
    """A prompt of P vectors as a page: where they lie, who reads them, the loss without each.

    places: (N, 2) on a map, of "words", "prompt" and perhaps "start"; share: the share of the
    words' variance that the map shows. closest: numbers to compare, by the measure and by the
    group. attention (L, P): by layer. changes (P,): of the loss, without each vector.
    """
    layers = [f"layer {i}" for i in range(len(attention))]
    figure = new_figure(figsize=(10, 9.5 + 0.2 * len(layers)), layout="constrained")
    figure.suptitle(in_font(title), fontsize=11)
    rows = [9, 9, len(layers) + 3, 8]
    grid = figure.add_gridspec(4, 2, height_ratios=rows, width_ratios=[3, 2])
    _map(figure.add_subplot(grid[:2, 0]), places, share)
    for row, (measure, groups) in enumerate(closest.items()):
        _strips(figure.add_subplot(grid[row, 1]), groups, f"{measure} to the nearest word")
    heat = figure.add_subplot(grid[2, :])
    _heat(heat, attention, layers, "the text's attention by layer")
    losses = figure.add_subplot(grid[3, :])
    losses.bar(np.arange(len(changes)), changes, color=BLUE)
    losses.axhline(0, color=GREY, linewidth=0.8)
    losses.set_title("the loss without each vector, more than with all (nats)", fontsize=10)
    losses.set_xlabel("prompt vector", fontsize=9)
    _number_vectors(losses, len(changes))
    tidy(losses)
    return figure


def _map(axes: Axes, places: Mapping[str, np.ndarray], share: float) -> None:
    """The words as a cloud, and the path of each vector from its start, if that is known."""
    prompt = places["prompt"]
    axes.scatter(*places["words"].T, s=3, color=GREY, alpha=0.3, label="words")
    if "start" in places:
        start = places["start"]
        axes.plot(*np.stack([start, prompt]).transpose(2, 0, 1), color=ORANGE, linewidth=0.5)
        axes.scatter(*start.T, s=14, color=GREEN, label="the vectors' start", zorder=2)
    axes.scatter(*prompt.T, s=22, color=ORANGE, label="the prompt's vectors", zorder=3)
    for p, place in enumerate(prompt):
        axes.annotate(str(p), place, (3, 3), textcoords="offset points", fontsize=7)
    axes.set_title(f"a map: {share:.0%} of the variance of words", fontsize=10)
    axes.set_xlabel("first principal component of the words", fontsize=9)
    axes.set_ylabel("second", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.09), ncols=3)
    tidy(axes)


def _strips(axes: Axes, groups: Mapping[str, np.ndarray], title: str) -> None:
    """Each group's values as a row of strokes, with one long stroke at the median."""
    colours = {"prompt": ORANGE, "random": GREEN, "words": GREY}
    for row, (who, values) in enumerate(groups.items()):
        axes.plot(values, np.full(len(values), row), "|", color=colours[who], ms=12, alpha=0.4)
        axes.plot(np.median(values), row, "|", color="black", ms=22)
    axes.set_yticks(np.arange(len(groups)), groups, fontsize=8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_title(title, fontsize=10)
    tidy(axes)


def _heat(axes: Axes, weights: np.ndarray, names: Sequence[str], title: str) -> None:
    image = axes.imshow(weights, cmap=HEAT, vmin=0, aspect="auto", interpolation="nearest")
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("prompt vector", fontsize=9)
    _number_vectors(axes, weights.shape[1])
    axes.figure.colorbar(image, ax=axes, pad=0.01, label="weight")


def _gradient_bars(axes: Axes, gradient: np.ndarray) -> None:
    axes.bar(np.arange(len(gradient)), gradient, color=BLUE)
    axes.set_title("norm of the gradient at each prompt vector", fontsize=10)
    axes.set_xlabel("prompt vector")
    _number_vectors(axes, len(gradient))
    tidy(axes)


def _answer_bars(axes: Axes, answers: Mapping[str, Sequence[float]], labels: Sequence[str]) -> None:
    width = 0.8 / len(answers)
    for i, (moment, probabilities) in enumerate(answers.items()):
        places = np.arange(len(labels)) + (i - (len(answers) - 1) / 2) * width
        axes.bar(places, probabilities, width, color=(GREY, ORANGE, GREEN)[i], label=moment)
    names = [in_font(label) for label in labels]
    axes.set_xticks(np.arange(len(labels)), names, rotation=90 if len(labels) > 6 else 0)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylim(0, 1.25)  # the legend stands above the highest bar
    axes.set_title("the answer, before and after the step", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper center", ncols=3)
    tidy(axes)


def _number_vectors(axes: Axes, count: int) -> None:
    every = -(-count // MOST_VECTOR_LABELS)
    axes.set_xticks(np.arange(0, count, every))
    axes.tick_params(axis="x", labelsize=8)


def _shown(token: str) -> str:
    """A token with its white space made visible."""
    return in_font(token.replace("\n", "⏎").replace(" ", "·"))


def in_font(text: str) -> str:
    """Letters that matplotlib's own font has, and no `$`, which would begin a formula."""
    known = "".join(c if c < LAST_OF_FONT or c in "⏎…" else "□" for c in text)
    return known.replace("$", r"\$")


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Each value's mean with those before it, at most `width` of them."""
    return [float(np.mean(values[max(0, i + 1 - width) : i + 1])) for i in range(len(values))]


def tidy(axes: Axes) -> None:
    """Axes with a light grid, open to the right and above."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
