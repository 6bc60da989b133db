"""Texts and their answers in a file of the user's own: CSV, JSON lines or a JSON array, in UTF-8.

In: a path, and the names of two columns. Out: examples. A file is read row by row, so that only its
examples are in memory.
"""

import csv
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.complete import refuse_special
from minipt.files.diagnose import starts_with

Example = tuple[str, str]  # a text and the name of its class, or the response to it
Row = tuple[str, str, str]  # its place, such as "line 2", and the texts of its two columns

PROMPT, RESPONSE = "prompt", "response"  # the columns of a file of pairs
COMPLETION = "completion"  # another name of a response
# How other files begin than text in UTF-8.
BEGINNINGS = {
    b"\x1f\x8b": "is compressed by gzip: unpack it",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or save the sheet as CSV",
    b"PAR1\x15": "is a Parquet file: save it as CSV",
}
JSON = re.compile(r'\s*[\[{]\s*(["\[{]|$)')  # a line that begins a file of JSON
LINE_END = re.compile(r"\r\n?|\n")
# A field of CSV that is whole, with its comma.
FIELD = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^",][^,]*|),')


def read_labelled(path: Path, text_column: str, label_column: str) -> tuple[list[str], list[str]]:
    """The texts and classes of a CSV file. Raises MiniptError as `load_csv` does."""
    rows = _csv_rows(path, text_column, label_column)
    texts, labels = [], []
    classes: dict[str, str] = {}  # one string for each, however many texts have it
    for text, label in _filled(path, rows, text_column, label_column):
        label = label.strip()
        texts.append(text.strip())
        labels.append(classes.setdefault(label, label))
    return texts, labels


def read_table(path: Path, text_column: str) -> tuple[list[str], list[list[str]], list[str]]:
    """The header of a CSV file, its rows, as long as the header, and the texts of one column.

    Raises MiniptError as `load_csv` does, but needs no labels.
    """
    table: list[list[str]] = []
    found = _csv_rows(path, text_column, text_column, table.append)
    texts = [text for text, _ in _filled(path, found, text_column, text_column)]
    header, *rows = table
    return header, [(row + [""] * len(header))[: len(header)] for row in rows], texts


def read_pairs(path: Path) -> Iterator[Example]:
    """The prompts and responses of a file. Raises MiniptError as `load_pairs` does."""
    is_json = path.suffix.lower() in (".jsonl", ".json")
    rows = _json_rows(path) if is_json else _csv_rows(path, PROMPT, RESPONSE)
    return _filled(path, rows, PROMPT, RESPONSE)


def quoted(names: Iterable[str]) -> str:
    """Names for a sentence: 'a', 'b'."""
    return ", ".join(repr(name) for name in names) or "none"


def _filled(path: Path, rows: Iterable[Row], first: str, second: str) -> Iterator[Example]:
    """The rows without their places. Raises MiniptError for none at all and for an empty text."""
    filled, empty, names = 0, [], list(dict.fromkeys((first, second)))
    for place, *texts in rows:
        if all(text.strip() for text in texts):
            filled += 1
            yield tuple(texts)
        else:
            empty.append(place)
    if empty:
        raise MiniptError(
            f"{path} has {len(empty)} rows with an empty {' or '.join(names)}, the first at "
            f"{empty[0]}: fill or remove them"
        )
    if not filled:
        raise MiniptError(f"{path} has no rows: add some, with {' and '.join(names)}")


def _csv_rows(
    path: Path, first: str, second: str, see: Callable[[list[str]], None] = lambda row: None
) -> Iterator[Row]:
    """The two columns of each row. see: it is called with the header and with each whole row.

    Raises MiniptError for a quotation that does not end, for one that holds rows, and for a row
    with more fields than the header.
    """
    row_lines: list[str] = []

    def remember(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            row_lines.append(line)
            yield line

    lines = _lines(path)
    opening = next(lines, "")
    if JSON.match(opening):
        advice = "give it the ending .jsonl" if second == RESPONSE else "write it as CSV"
        raise MiniptError(f"{path} holds JSON, not CSV: {advice}")
    reader = csv.reader(remember(chain([opening], lines)), strict=True)
    answers: set[str] = set()  # as they are written, with their spaces
    suspects: list[tuple[str, str, list[str]]] = []
    try:
        columns = next(reader, [])
        if second == RESPONSE:
            second = _response_in(columns)
        _check_columns(path, columns, (first, second))
        see(columns)
        wanted = (columns.index(first), columns.index(second))
        row_lines.clear()
        for row in reader:
            if row:
                place = f"line {reader.line_num - len(row_lines) + 1}"
                _check_width(path, place, row, columns)
                see(row)
                text, answer = _at(row, wanted)
                if len(row_lines) > 1:
                    suspects += ((place, *ends) for ends in _ends(row, wanted))
                answers.add(answer)
                yield place, text, answer
            row_lines.clear()
    except csv.Error as error:
        begun = reader.line_num - len(row_lines) + 1
        raise _csv_error(path, begun, "".join(row_lines), error) from error
    _refuse_swallowed(path, suspects, answers)


def _at(row: list[str], wanted: tuple[int, int]) -> list[str]:
    """The two fields of a row, which may be too short."""
    return [row[i] if i < len(row) else "" for i in wanted]


def _check_width(path: Path, place: str, row: list[str], columns: list[str]) -> None:
    """Raise MiniptError for fields without a column, but not for commas at the end of a row."""
    if any(field.strip() for field in row[len(columns) :]):
        raise MiniptError(
            f"{path} cannot be read at {place}, which has {len(row)} fields, the header has "
            f"{len(columns)}: put the text in quotation marks, if the comma belongs to it"
        )


def _check_columns(path: Path, columns: list[str], needed: tuple[str, str]) -> None:
    needed = dict.fromkeys(needed)  # one column may serve as both
    if missing := [column for column in needed if column not in columns]:
        raise MiniptError(
            f"{path} has no column {quoted(missing)}: its columns are {quoted(columns):.200}"
        )
    if twice := [column for column in needed if columns.count(column) > 1]:
        raise MiniptError(f"{path} has two columns {quoted(twice)}: rename one")


def _csv_error(path: Path, line: int, row: str, error: csv.Error) -> MiniptError:
    """The sentence for a row that begins at a line and that Python's reader refuses."""
    whole = 0  # the length of the fields before the one that is refused
    while field := FIELD.match(row, whole):
        whole = field.end()
    line += len(LINE_END.findall(row[:whole]))
    if row[whole : whole + 1] == '"':
        return MiniptError(
            f"{path} cannot be read as CSV at line {line}, where a quotation begins that does not "
            f"end before a comma or a line's end ({error}): close it, or write the mark twice "
            "inside quotation marks if it belongs to the text"
        )
    return MiniptError(f"{path} cannot be read as CSV at line {line} ({error}): mend that line")


def _ends(row: list[str], wanted: tuple[int, int]) -> Iterator[tuple[str, list[str]]]:
    """The fields of a row whose first and last line look like rows of their own.

    The fields before belong to the first line, the fields behind to the last. So a legal field
    gives two rows that are too short, and a field between two stray marks gives two whole ones.

    Yields the first line, or the last one where the first is no news, and the answers of both.
    """
    for i, field in enumerate(row):
        lines = [line for line in LINE_END.split(field) if line.strip()]
        if len(lines) > 1:
            rows = [row[:i] + lines[0].split(","), lines[-1].split(",") + row[i + 1 :]]
            for fields in rows:  # the commas of a text that was quoted are its own
                surplus = max(0, len(fields) - len(row))
                fields[i : i + surplus + 1] = [",".join(fields[i : i + surplus + 1])]
            if all(max(wanted) < len(fields) for fields in rows):
                line = lines[0] if "," in lines[0] else lines[-1]
                yield line[:60], [fields[wanted[1]] for fields in rows]


def _refuse_swallowed(
    path: Path, suspects: list[tuple[str, str, list[str]]], answers: Container[str]
) -> None:
    """Raise MiniptError for a field whose first and last line have answers of other rows."""
    for place, line, found in suspects:
        if all(answer in answers for answer in found):
            raise MiniptError(
                f"{path} has at {place} quotation marks around several lines that look like rows, "
                f"such as {line!r}: remove the mark that does not belong there, or the line "
                "breaks if the lines are one text"
            )


def _json_rows(path: Path) -> Iterator[Row]:
    """The pairs of JSON lines, or of one array."""
    lines = enumerate(_lines(path), start=1)
    number, line = next(((n, each) for n, each in lines if each.strip()), (0, ""))
    if line.lstrip().startswith("["):
        array = _parse(path, number, line + "".join(rest for _, rest in lines))
        for number, pair in enumerate(array, start=1):
            yield _pair(path, f"entry {number}", pair)
        return
    while line:
        if line.strip():
            yield _pair(path, f"line {number}", _parse(path, number, line))
        number, line = next(lines, (0, ""))


def _parse(path: Path, line: int, text: str) -> object:
    """The JSON of a text that begins at a line of the file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        end = min(getattr(error, "pos", 0), len(text.rstrip()))
        raise _no_pair(path, f"line {line + text.count(chr(10), 0, end)}") from error


def _pair(path: Path, place: str, found: object) -> Row:
    """The two texts of an object."""
    if not isinstance(found, dict):
        raise _no_pair(path, place)
    names = (PROMPT, _response_in(found))
    if any(name not in found for name in names):
        raise _no_pair(path, place, f", but {quoted(found):.100}: write them under these names")
    texts = [found[name] for name in names]
    try:
        for text in texts:
            text.encode()  # an escape such as \ud800 is half a character
    except (AttributeError, ValueError) as error:
        raise _no_pair(path, place) from error
    return place, *texts


def _no_pair(path: Path, place: str, advice: str | None = None) -> MiniptError:
    advice = advice or f": mend that {place.split()[0]}"
    texts = f"no JSON object with the texts {PROMPT!r} and {RESPONSE!r}"
    return MiniptError(f"{path} has at {place} {texts}{advice}")


def _response_in(names: Container[str]) -> str:
    """The name under which the response stands among these."""
    return COMPLETION if RESPONSE not in names and COMPLETION in names else RESPONSE


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, with their ends, whatever system has written them."""
    try:
        refuse_special(path)
        for beginning, kind in BEGINNINGS.items():
            if starts_with(path, beginning):
                raise MiniptError(f"{path} {kind}")
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a mark
            yield from file
    except OSError as error:
        raise MiniptError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        line = _first_other_line(path)
        raise MiniptError(f"{path} is not UTF-8 at line {line}: save it again as UTF-8") from error
    except ValueError as error:  # a NUL, which no path has
        raise MiniptError(f"{str(path)!r} cannot be read ({error}): check the path") from error


def _first_other_line(path: Path) -> int:
    """The first line that is not UTF-8, of a file that has one."""
    number = 1
    with open(path, "rb") as file, suppress(UnicodeDecodeError):
        for line in file:
            line.decode()
            number += 1
    return number
