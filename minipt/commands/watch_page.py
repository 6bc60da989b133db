"""The report of `watch`, as a table, as JSON and as a picture.

In: a `Report`. Out: text, a dict of types that JSON knows, or a figure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from minipt.files.clock import in_words
from minipt.registry.monitor import LEVEL, OVER_TIME, Finding, Report, Truth, answer_counts
from minipt.results.plot import BLUE, GREEN, GREY, ORANGE, in_font, new_figure, tidy
from minipt.results.tables import align, decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES = "<<>>>><"
MOST_SHARES = 10
MINUTES = len("2026-11-28T12:20")
PERCENTILES = np.linspace(0, 100, 101)


def tell(report: Report) -> str:
    """The findings, the shares of the answers, and where truth is known how often it was right."""
    first, last = (_moment(time) for time in report.logged.times[[0, -1]])
    N, M = len(report.logged.ids), len(report.validation.tokens)
    parts = [
        f"{report.reference}: {N:,} answers, {first} to {last} (UTC), beside {M:,} of validation",
        align([("", "test", "validation", "logged", "p", "after Holm", ""), *_rows(report)], SIDES),
        _shares(report),
        _truths(report) if len(report.truths) > 1 else "accuracy: no truth is known of this log",
        _verdict(report),
    ]
    return "\n\n".join(parts)


def _rows(report: Report) -> list[tuple[str, ...]]:
    rows = []
    for each in report.findings:
        numbers = ("" if x is None else f"{x:.3f}" for x in (each.validation, each.logged))
        mark = "ALARM" if each.alarms else ""
        rows.append((each.name, each.test, *numbers, _p(each.p), _p(each.adjusted), mark))
    return rows


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.00005 else f"{p:.0e}"


def shares_of(report: Report) -> list[tuple[str, float, float]]:
    """Each label with its share on validation and in the log, those that changed most first."""
    both = [answer_counts(each) for each in (report.validation, report.logged.observation)]
    before, after = (counts / counts.sum() for counts in both)  # (K,) each
    order = np.argsort(-np.abs(after - before), kind="stable")
    return [(report.validation.labels[k], float(before[k]), float(after[k])) for k in order]


def _shares(report: Report) -> str:
    shares = shares_of(report)
    rows = [("share of the answers", "validation", "logged")]
    rows += [(label, *decimals(numbers)) for label, *numbers in shares[:MOST_SHARES]]
    more = len(shares) - MOST_SHARES
    return align(rows) + (f"\n... and {more:,} labels that changed less" if more > 0 else "")


def _truths(report: Report) -> str:
    head = ("where the truth is known", "right", "accuracy", "95 % interval", "sure", "ECE", "at T")
    rows = [head]
    for name, each in zip(("validation", "logged"), report.truths, strict=True):
        low, high = each.interval
        right = f"{each.correct:,} of {each.total:,}"
        errors = decimals((_mean_confidence(each), each.before.error, each.after.error))
        rows.append((name, right, f"{each.accuracy:.3f}", f"{low:.3f} to {high:.3f}", *errors))
    T = f"{report.temperature:.2f}"
    return (
        f"{align(rows)}\nECE: expected calibration error, as the prompt says it and at the "
        f"temperature T = {T},\nwhich suits validation"
    )


def _mean_confidence(truth: Truth) -> float:
    return float(np.average(truth.before.confidence, weights=truth.before.counts))


def _verdict(report: Report) -> str:
    names = [finding.name for finding in report.alarms]
    if not names:
        return f"no alarm at the level {LEVEL:g} of all tests together"
    growing = ""
    if report.growing:
        label, first = report.growing
        since = _moment(report.logged.times[first])
        growing = f"\nthe share of {label!r:.40} grows since answer {first + 1:,}, {since}"
    return f"ALARM at the level {LEVEL:g} of all tests together: {', '.join(names)}{growing}"


def _moment(time: float) -> str:
    return in_words(datetime.fromtimestamp(float(time), UTC))[:MINUTES]


def describe(report: Report) -> dict:
    """The same for a program."""
    label, first = report.growing or (None, None)
    return {
        "version": report.reference,
        "answers": len(report.logged.ids),
        "validation": len(report.validation.tokens),
        "from": _moment(report.logged.times[0]),
        "to": _moment(report.logged.times[-1]),
        "level": LEVEL,
        "alarm": bool(report.alarms),
        "findings": [_finding(finding) for finding in report.findings],
        "shares": {name: {"validation": a, "logged": b} for name, a, b in shares_of(report)},
        "growing": label,
        "since_answer": None if first is None else first + 1,
        "temperature": report.temperature,
        "truths": [
            {
                "correct": each.correct,
                "total": each.total,
                "accuracy": each.accuracy,
                "interval": list(each.interval),
                "calibration_error": each.before.error,
                "calibration_error_at_temperature": each.after.error,
            }
            for each in report.truths
        ],
    }


def _finding(finding: Finding) -> dict:
    names = ("name", "test", "validation", "logged", "p", "adjusted", "alarms")
    return {name: getattr(finding, name) for name in names}


def page(report: Report) -> Figure:
    """The report on one page: shares, three distributions, the sums over time, reliability."""
    figure = new_figure(figsize=(12, 7.5), layout="constrained")
    figure.suptitle(in_font(f"{report.reference}: {_verdict(report)}"), fontsize=11)
    axes = figure.subplots(2, 3).ravel()
    seen, expected = report.logged.observation, report.validation
    _draw_shares(axes[0], report)
    confidences = [each.probabilities.max(1) for each in (expected, seen)]
    _draw_distributions(axes[1], "confidence", *confidences)
    _draw_distributions(axes[2], "tokens of the text", expected.tokens, seen.tokens)
    _draw_distributions(axes[3], "share of unknown tokens", expected.unknown, seen.unknown)
    _draw_sums(axes[4], report)
    _draw_reliability(axes[5], report)
    for each in axes:
        tidy(each)
    return figure


def _draw_shares(axes: Axes, report: Report) -> None:
    labels, before, after = zip(*shares_of(report)[:MOST_SHARES], strict=True)
    places = np.arange(len(labels))
    axes.bar(places - 0.2, before, 0.4, color=GREY, label="validation")
    axes.bar(places + 0.2, after, 0.4, color=ORANGE, label="logged")
    axes.set_xticks(places, map(in_font, labels), rotation=90 if len(labels) > 4 else 0)
    axes.set_title("share of the answers", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_distributions(axes: Axes, name: str, before: np.ndarray, after: np.ndarray) -> None:
    """Both distribution functions, at their percentiles."""
    for values, color in ((before, GREY), (after, ORANGE)):
        axes.plot(np.percentile(values, PERCENTILES), PERCENTILES / 100, color=color)
    axes.set_title(f"{name}: the share of texts up to it", fontsize=10)


def _draw_sums(axes: Axes, report: Report) -> None:
    G, K = report.sums.shape
    ends = np.minimum(-(-len(report.logged.ids) // G) * np.arange(1, G + 1), len(report.logged.ids))
    highest = np.argsort(-report.sums.max(0), kind="stable")[: min(K, 3)]
    for k, color in zip(highest, (ORANGE, BLUE, GREEN), strict=False):
        axes.plot(ends, report.sums[:, k], color=color, label=in_font(report.validation.labels[k]))
    axes.axhline(report.threshold, color=GREY, linestyle="--", label="alarm")
    axes.set_title(f"{OVER_TIME}: how far a share has grown", fontsize=10)
    axes.set_xlabel("answer", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _draw_reliability(axes: Axes, report: Report) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    truth, whose = report.truths[-1], ("validation", "logged")[len(report.truths) - 1]
    for name, each, color in (
        ("as it says", truth.before, ORANGE),
        (f"at T = {report.temperature:.2f}", truth.after, BLUE),
    ):
        axes.plot(each.confidence, each.accuracy, "o-", ms=4, color=color, label=name)
    axes.set_title(f"how sure and how often right, {whose}", fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8)
