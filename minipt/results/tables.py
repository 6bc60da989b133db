"""Tables as text: cells in columns, numbers over several seeds, and the same in Markdown.

In: rows of cells, or numbers by name. Out: lines of at most 96 columns.
"""

from collections.abc import Iterable, Sequence

import numpy as np

WIDTH = 96


def align(rows: Sequence[Sequence[str]], sides: str | None = None) -> str:
    """Rows of cells as a table, of which no line exceeds `WIDTH`.

    sides: `<` or `>` for each column; None: the first to the left, the others to the right.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = sides or "<" + ">" * (len(widths) - 1)
    lines = []
    for row in rows:
        cells = zip(row, sides, widths, strict=True)
        line = "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells)
        lines.append(shorten(line, WIDTH).rstrip())
    return "\n".join(lines)


def tabulate(
    head: Sequence[str], entries: Iterable[tuple[str | Sequence[str], Iterable[float]]]
) -> list[tuple[str, ...]]:
    """Rows of cells: the head, then each entry's name, or several names, before its numbers."""
    rows = [tuple(head)]
    for names, numbers in entries:
        rows.append((*([names] if isinstance(names, str) else names), *decimals(numbers)))
    return rows


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers as cells, to three decimals."""
    return [f"{value:.3f}" for value in values]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, the lowest and the highest, of one value a seed."""
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first the head, as a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"


def shorten(text: str, width: int) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text.rstrip()) <= width else text[: width - 3] + "..."


def one_line(text: str) -> str:
    """The text without line breaks, runs of white space and characters that are not printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
