"""Data sets with their splits: texts and their labels, or texts and their responses.

In: a file of the user's own. Out: a `Task`, which a prompt is tuned for. There are two kinds. In
the first each text has one of a few classes; a template says where the answer stands, and each
class has a word that the base can answer with. In the second each text has a response that the base
should write.

Every task is made the same way. Texts that differ only in case and white space are taken once.
Texts that occur with two different answers are left out, since nothing says which answer is right.
Then each class is split 80/10/10, so no text is in two splits.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError

# One text goes to validation, one to test, and one must be left to learn from.
FEWEST_PER_CLASS = 3

PAIR = ("prompt", "response")  # the columns of a file of pairs

Example = tuple[str, str]  # a text and the name of its class, or the response to it
Row = tuple[int, str, str]  # the line at which it ends, and the texts of its two columns


@dataclass(frozen=True)
class Split:
    """N texts and their classes."""

    texts: list[str]
    labels: np.ndarray  # (N,) int, an index into Task.labels

    @property
    def answers(self) -> list[int]:
        """The N classes."""
        return self.labels.tolist()


@dataclass(frozen=True)
class Pairs:
    """N texts and the response to each, which begins with the space between the two."""

    texts: list[str]
    responses: list[str]

    @property
    def answers(self) -> list[str]:
        """The N responses."""
        return self.responses


@dataclass(frozen=True)
class Task:
    """A data set with the right answers, ready for tuning.

    labels: the K class names; none if the answers are responses and the splits `Pairs`.
    label_words: for each class the word that the base should answer with. It begins with a space,
        because a space stands between the template and the word.
    template: holds `{text}` once and ends where the answer begins.
    instruction: what one would write in front of the text by hand, to compare with; "": nothing.
    source: what to cite.
    duplicates, contradictions: how many texts were left out because they occurred before, and
        because they occurred with two different answers.
    """

    name: str
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    template: str
    train: Split | Pairs
    validation: Split | Pairs
    test: Split | Pairs
    source: str
    instruction: str = "Answer with one word."
    duplicates: int = 0
    contradictions: int = 0

    @property
    def opening(self) -> str:
        """The instruction as it stands in front of the template; "" without one."""
        return f"{self.instruction}\n\n" if self.instruction else ""

    @property
    def majority(self) -> int | str:
        """The most frequent answer in the training split: a class, by its index, or a response."""
        counts = Counter(self.train.answers)
        return max(sorted(counts), key=counts.get)

    @property
    def majority_name(self) -> str:
        """The majority in words."""
        return self.labels[self.majority] if self.labels else self.majority

    @property
    def majority_accuracy(self) -> float:
        """The accuracy on the test split of answering `majority` every time."""
        return self.test.answers.count(self.majority) / len(self.test.answers)

    def summary(self) -> str:
        """Lines with the sizes, what was left out, class shares and the majority accuracy."""
        splits = (self.train, self.validation, self.test)
        sizes = [len(split.texts) for split in splits]
        counts = Counter(answer for split in splits for answer in split.answers)
        if self.labels:
            answers, what = "classes: ", "labels"
            answers += ", ".join(
                f"{label} {counts[k] / sum(sizes):.1%}" for k, label in enumerate(self.labels)
            )
        else:
            answers, what = f"responses: {len(counts):,} different ones", "responses"
        return (
            f"{self.name}: {sum(sizes):,} texts: {sizes[0]:,} to train, {sizes[1]:,} to validate, "
            f"{sizes[2]:,} to test\n"
            f"left out: {self.duplicates:,} duplicates, {self.contradictions:,} with two {what}\n"
            f"{answers}\n"
            f"always answering {self.majority_name!r:.40} is right for "
            f"{self.majority_accuracy:.1%} of the test split"
        )


def load_csv(
    path: str | os.PathLike,
    text_column: str,
    label_column: str,
    label_words: Mapping[str, str] | None = None,
) -> Task:
    """Make a task of the user's own comma-separated file, in UTF-8 and with a header row.

    text_column, label_column: names in the header row; other columns are ignored.
    label_words: the answer word of each class name; by default a space and the class name.

    Classes are in alphabetical order. Raises MiniptError if the file cannot be read, is not UTF-8,
    lacks a column or a word, has no rows, rows without a text or label, only one class, or a class
    with fewer than three different texts.
    """
    path = Path(path)
    examples = read_labelled(path, text_column, label_column)
    labels = sorted({label for _, label in examples})
    if len(labels) < 2:
        raise MiniptError(
            f"{path} has the one class {labels[0]!r} in column {label_column!r}: "
            "at least two are needed"
        )
    words = {label: f" {label}" for label in labels} if label_words is None else label_words
    if missing := [label for label in labels if label not in words]:
        raise MiniptError(f"no label word for {quoted(missing)} of {path}: give each class one")
    label_words = {label: words[label] for label in labels}
    return make_task(path.stem, examples, label_words, "{text}\nLabel:", str(path))


def load_pairs(path: str | os.PathLike) -> Task:
    """Make a task of the user's own prompts and responses: texts to be answered by texts.

    path: a file in UTF-8, either JSON lines, known by the ending .jsonl or .json, or CSV. Each line
    of JSON is an object with the texts "prompt" and "response"; CSV has these two columns. Other
    names are ignored.

    The texts stay as they are, with their white space. There is one exception: a response gets a
    space in front, unless the prompt ends or the response begins with white space. So "The film
    was" and "good" become "The film was" and " good".

    Raises MiniptError if the file cannot be read, is not UTF-8, lacks a column, has a line that is
    no such object, no rows, rows without a prompt or response, or fewer than three different
    prompts.
    """
    path = Path(path)
    read = _read_json_lines if path.suffix.lower() in (".jsonl", ".json") else _read_csv
    pairs = _complete(path, read(path, *PAIR), *PAIR)
    examples = [(prompt, _after(prompt, response)) for prompt, response in pairs]
    unique, contradictions = _distinct(examples)
    train, validation, test = (
        Pairs([prompt for prompt, _ in part], [response for _, response in part])
        for part in _split(path.stem, {"prompts": unique})
    )
    return Task(
        name=path.stem,
        labels=(),
        label_words=(),
        template="{text}",
        instruction="",
        train=train,
        validation=validation,
        test=test,
        source=str(path),
        duplicates=len(examples) - len(unique) - contradictions,
        contradictions=contradictions,
    )


def _after(prompt: str, response: str) -> str:
    apart = prompt[-1].isspace() or response[0].isspace()
    return response if apart else f" {response}"


def normalised(text: str) -> str:
    """A text with case folded and white space collapsed. Two texts equal in it are the same."""
    return " ".join(text.casefold().split())


def make_task(
    name: str,
    examples: list[Example],
    label_words: Mapping[str, str],
    template: str,
    source: str,
    instruction: str | None = None,
) -> Task:
    """Make a task of texts and the names of their classes. The classes' order is `label_words`'.

    instruction: None for one that lists the label words. Raises MiniptError for a class with fewer
    than three different texts.
    """
    words = ",".join(label_words.values())
    unique, contradictions = _distinct(examples)
    labels = tuple(label_words)
    classes = {
        f"texts of class {label!r}": [example for example in unique if example[1] == label]
        for label in labels
    }
    train, validation, test = (
        Split([text for text, _ in part], np.array([labels.index(label) for _, label in part]))
        for part in _split(name, classes)
    )
    return Task(
        name=name,
        labels=labels,
        label_words=tuple(label_words.values()),
        template=template,
        instruction=instruction or f"Answer with one of these words:{words}.",
        train=train,
        validation=validation,
        test=test,
        source=source,
        duplicates=len(examples) - len(unique) - contradictions,
        contradictions=contradictions,
    )


def _distinct(examples: Iterable[Example]) -> tuple[list[Example], int]:
    """One example of each text, and the number of examples whose text has two answers."""
    same: dict[str, list[Example]] = {}
    for text, label in examples:
        same.setdefault(normalised(text), []).append((text, label))
    agreed = [copies for copies in same.values() if len({label for _, label in copies}) == 1]
    contradictions = sum(map(len, same.values())) - sum(map(len, agreed))
    return [copies[0] for copies in agreed], contradictions


def _split(name: str, classes: Mapping[str, list[Example]]) -> list[list[Example]]:
    """Train, validation and test: 80, 10 and 10 % of each class, in an order like a shuffled one.

    The order is that of the texts' sha256. It is the same under every version of NumPy and however
    the file was sorted. The order of a seeded generator is not.
    """
    parts: list[list[Example]] = [[], [], []]
    for what, members in classes.items():
        if len(members) < FEWEST_PER_CLASS:
            raise MiniptError(
                f"{name} has only {len(members)} different {what}: "
                f"at least {FEWEST_PER_CLASS} are needed to train, validate and test"
            )
        shuffled = sorted(members, key=lambda example: _digest(example[0]))
        tenth = max(1, round(len(members) / 10))
        parts[0] += shuffled[2 * tenth :]
        parts[1] += shuffled[tenth : 2 * tenth]
        parts[2] += shuffled[:tenth]
    for part in parts:
        part.sort(key=lambda example: _digest(example[0]))
    return parts


def _digest(text: str) -> bytes:
    return hashlib.sha256(normalised(text).encode()).digest()


def read_labelled(path: Path, text_column: str, label_column: str) -> list[Example]:
    """The texts and classes of a CSV file. Raises MiniptError as `load_csv` does."""
    columns = (text_column, label_column)
    examples = _complete(path, _read_csv(path, *columns), *columns)
    return [(text.strip(), label.strip()) for text, label in examples]


def _read_csv(path: Path, first: str, second: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_decode(path), newline=""))
    try:
        columns = reader.fieldnames or []
        if missing := [column for column in (first, second) if column not in columns]:
            raise MiniptError(
                f"{path} has no column {quoted(missing)}: its columns are {quoted(columns):.200}"
            )
        if twice := [column for column in (first, second) if columns.count(column) > 1]:
            raise MiniptError(f"{path} has two columns {quoted(twice)}: rename one")
        # A row that is too short has None in its last columns.
        return [(reader.line_num, row[first] or "", row[second] or "") for row in reader]
    except csv.Error as error:
        raise MiniptError(
            f"{path} cannot be read as CSV at line {reader.reader.line_num} ({error}): "
            "mend that line"
        ) from error


def _read_json_lines(path: Path, first: str, second: str) -> list[Row]:
    rows = []
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = (row[first], row[second])
            "".join(texts).encode()  # an escape such as \ud800 is half a character
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise MiniptError(
                f"{path} has at line {number} no JSON object with the texts {first!r} and "
                f"{second!r}: mend that line"
            ) from error
        rows.append((number, *texts))
    return rows


def _complete(path: Path, rows: list[Row], first: str, second: str) -> list[Example]:
    """The rows without their lines. Raises MiniptError for none at all and for an empty text."""
    if not rows:
        raise MiniptError(f"{path} has no rows: add some, with {first} and {second}")
    if incomplete := [line for line, *texts in rows if not all(text.strip() for text in texts)]:
        raise MiniptError(
            f"{path} has {len(incomplete)} rows with an empty {first} or {second}, the first at "
            f"line {incomplete[0]}: fill or remove them"
        )
    return [(text, answer) for _, text, answer in rows]


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MiniptError(f"{path} cannot be read ({error.strerror}): check the path") from error
    try:
        return data.decode("utf-8-sig")  # spreadsheets write a byte-order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MiniptError(f"{path} is not UTF-8 at line {line}: save it again as UTF-8") from error


def quoted(names: Iterable[str]) -> str:
    """Names for a sentence: 'a', 'b'."""
    return ", ".join(repr(name) for name in names) or "none"
