"""Data sets with their splits: texts and their labels, or texts and their responses.

In: a file of the user's own. Out: a `Task`, which a prompt is tuned for. There are two kinds. In
the first each text has one of a few classes; a template says where the answer stands, and each
class has a word that the base can answer with. In the second each text has a response that the base
should write.

Every task is made the same way. Texts that differ only in case and white space are taken once.
Texts that occur with two different answers are left out, since nothing says which answer is right.
Then each class is split 80/10/10, so no text is in two splits.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.tasks.rows import Example, quoted, read_labelled, read_pairs

# One text goes to validation, one to test, and one must be left to learn from.
FEWEST_PER_CLASS = 3


@dataclass(frozen=True)
class Split:
    """N texts and their classes.

    Raises MiniptError for none, and for labels that do not count classes.
    """

    texts: list[str]
    labels: np.ndarray  # (N,) int, an index into Task.labels

    def __post_init__(self) -> None:
        _check_strings(self.texts)
        labels = np.asarray(self.labels)
        if labels.shape != (len(self.texts),) or not len(labels):
            raise MiniptError(
                f"a split has at least one text and a label for each, not {len(self.texts)} texts "
                f"and labels of shape {labels.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise MiniptError("a split's labels are whole numbers from 0 on, which count classes")
        object.__setattr__(self, "labels", labels)

    @property
    def answers(self) -> list[int]:
        """The N classes."""
        return self.labels.tolist()


@dataclass(frozen=True)
class Pairs:
    """N texts and the response to each, which begins with the space between the two.

    Raises MiniptError for none, and for a text without a response.
    """

    texts: list[str]
    responses: list[str]

    def __post_init__(self) -> None:
        _check_strings(self.texts, self.responses)
        if len(self.texts) != len(self.responses) or not len(self.texts):
            raise MiniptError(
                f"pairs are at least one text and a response for each, not {len(self.texts)} texts "
                f"and {len(self.responses)} responses"
            )

    @property
    def answers(self) -> list[str]:
        """The N responses."""
        return self.responses


def evenly(split: Split | Pairs, count: int | None) -> Split | Pairs:
    """So many of a split's texts, spread evenly over it; None, or more than there are: all."""
    N = len(split.texts)
    if count is None or count >= N:
        return split
    chosen = np.arange(count) * N // count
    texts, answers = ([those[i] for i in chosen] for those in (split.texts, split.answers))
    return type(split)(texts, answers)


def _check_strings(*lists: list[str]) -> None:
    for texts in lists:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise MiniptError('texts and responses are lists of strings, such as ["a text"]')


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

    Raises MiniptError unless each class has a word and the three splits are of one kind.
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

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.label_words):
            raise MiniptError(
                f"the task {self.name!r} has {len(self.labels)} labels and "
                f"{len(self.label_words)} label words: give each class one word"
            )
        if len({isinstance(part, Pairs) for part in (self.train, self.validation, self.test)}) > 1:
            raise MiniptError(
                f"the task {self.name!r} has splits of two kinds: make all three Split or all "
                "three Pairs"
            )

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

    @property
    def digest(self) -> str:
        """The sha256 of all that a run reads of its task: one digest, the same run."""
        splits = [(part.texts, part.answers) for part in (self.train, self.validation, self.test)]
        sha256 = hashlib.sha256()
        for piece in json.JSONEncoder().iterencode([self.template, self.label_words, splits]):
            sha256.update(piece.encode())
        return sha256.hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """How many texts each split has."""
        return {name: len(getattr(self, name).texts) for name in ("train", "validation", "test")}

    def summary(self) -> str:
        """Lines with the sizes, what was left out, class shares and the majority accuracy."""
        splits = (self.train, self.validation, self.test)
        sizes = list(self.sizes.values())
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
    lacks a column, a word or the class of a word, has no rows, rows without a text or label, rows
    with more fields than the header, only one class, or a class with fewer than three different
    texts.
    """
    path = Path(path)
    texts, answers = read_labelled(path, text_column, label_column)
    labels = sorted(set(answers))
    if len(labels) < 2:
        raise MiniptError(
            f"{path} has the one class {labels[0]!r} in column {label_column!r}: "
            "at least two are needed"
        )
    words = {label: f" {label}" for label in labels} if label_words is None else label_words
    _check_words(words)
    if unknown := sorted(words.keys() - set(labels)):
        raise MiniptError(
            f"{path} has no class {quoted(unknown):.200}, which got a label word: its classes are "
            f"{quoted(labels):.200}"
        )
    if missing := [label for label in labels if label not in words]:
        raise MiniptError(f"no label word for {quoted(missing)} of {path}: give each class one")
    label_words = {label: words[label] for label in labels}
    examples = zip(texts, answers, strict=True)
    return make_task(path.stem, examples, label_words, "{text}\nLabel:", str(path))


def load_pairs(path: str | os.PathLike) -> Task:
    """Make a task of the user's own prompts and responses: texts to be answered by texts.

    path: a file in UTF-8, either JSON, known by the ending .jsonl or .json, or CSV. JSON has on
    each line, or in one array, objects with the texts "prompt" and "response"; CSV has these two
    columns. "completion" is another name of the response. Other names are ignored.

    The texts stay as they are, with their white space. There is one exception: a response gets a
    space in front, unless the prompt ends or the response begins with white space. So "The film
    was" and "good" become "The film was" and " good".

    Raises MiniptError if the file cannot be read, is not UTF-8, lacks a column, has a line that is
    no such object, no rows, rows without a prompt or response, rows with more fields than the
    header, or fewer than three different prompts.
    """
    path = Path(path)
    pairs = ((prompt, _after(prompt, response)) for prompt, response in read_pairs(path))
    prompts, responses, duplicates, contradictions = _distinct(path.stem, pairs)
    train, validation, test = (
        Pairs([prompts[i] for i in part], [responses[i] for i in part])
        for part in _split(path.stem, ["prompts"], np.zeros(len(prompts), int))
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
        duplicates=duplicates,
        contradictions=contradictions,
    )


def _after(prompt: str, response: str) -> str:
    apart = prompt[-1].isspace() or response[0].isspace()
    return response if apart else f" {response}"


def normalised(text: str) -> str:
    """A text with case folded and white space collapsed. Two texts equal in it are the same."""
    # As " ".join(text.split()), which would make a string of each word of a long text.
    return re.sub(r"\s{2,}|[^\S ]", " ", text.casefold().strip())


def make_task(
    name: str,
    examples: Iterable[Example],
    label_words: Mapping[str, str],
    template: str,
    source: str,
    instruction: str | None = None,
) -> Task:
    """Make a task of texts and the names of their classes. The classes' order is `label_words`'.

    instruction: None for one that lists the label words. Raises MiniptError for a class with fewer
    than three different texts, and for a class without a label word.
    """
    _check_words(label_words)
    words = ",".join(label_words.values())
    texts, answers, duplicates, contradictions = _distinct(name, examples)
    index = {label: k for k, label in enumerate(label_words)}
    if unknown := sorted({repr(answer) for answer in answers if answer not in index}):
        raise MiniptError(f"no label word for {unknown[0]:.60} of {name}: give each class one")
    kinds = [f"texts of class {label!r}" for label in label_words]
    kind_of = np.array([index[answer] for answer in answers], int)  # (N,)
    train, validation, test = (
        Split([texts[i] for i in part], kind_of[part]) for part in _split(name, kinds, kind_of)
    )
    return Task(
        name=name,
        labels=tuple(label_words),
        label_words=tuple(label_words.values()),
        template=template,
        instruction=instruction or f"Answer with one of these words:{words}.",
        train=train,
        validation=validation,
        test=test,
        source=source,
        duplicates=duplicates,
        contradictions=contradictions,
    )


def _check_words(label_words: Mapping[str, str]) -> None:
    if not isinstance(label_words, Mapping) or not all(
        isinstance(text, str) for pair in label_words.items() for text in pair
    ):
        raise MiniptError(
            'label_words gives the word of each class, such as {"good": " yes", "bad": " no"}, '
            f"not {label_words!r:.60}"
        )


def _distinct(name: str, examples: Iterable[Example]) -> tuple[list[str], list[str], int, int]:
    """The texts that differ, the answer to each, and how many duplicates and contradictions.

    The texts are in the order of their sha256. It is like a shuffled one, and the same under every
    version of NumPy and however the file was sorted. The order of a seeded generator is not.

    name: the task's. Raises MiniptError if every text is a contradiction.
    """
    texts, answers, digests = [], [], bytearray()
    for text, answer in examples:
        texts.append(text)
        answers.append(answer)
        digests += hashlib.sha256(normalised(text).encode()).digest()
    keys = np.frombuffer(digests, "S32")  # (N,)
    order = np.argsort(keys, kind="stable")  # equal texts in the order of the file
    unique_texts, their_answers, contradictions = [], [], 0
    for _, same in groupby(order, keys.__getitem__):
        i, *others = same
        if any(answers[j] != answers[i] for j in others):
            contradictions += 1 + len(others)
        else:
            unique_texts.append(texts[i])
            their_answers.append(answers[i])
    if texts and not unique_texts:
        raise MiniptError(
            f"each text of {name} occurs with two different answers: keep one answer for each"
        )
    duplicates = len(texts) - len(unique_texts) - contradictions
    return unique_texts, their_answers, duplicates, contradictions


def _split(name: str, kinds: list[str], kind_of: np.ndarray) -> list[np.ndarray]:
    """Train, validation and test: 80, 10 and 10 % of each kind, by their indices.

    kinds: what each is called in a sentence. kind_of (N,): the kind of each text, by its index.
    """
    counts = np.bincount(kind_of, minlength=len(kinds)).tolist()
    if small := [kind for kind, count in enumerate(counts) if count < FEWEST_PER_CLASS]:
        others = f", and as few of {len(small) - 1:,} others" if len(small) > 1 else ""
        raise MiniptError(
            f"{name} has only {counts[small[0]]} different {kinds[small[0]]}{others}: "
            f"at least {FEWEST_PER_CLASS} are needed to train, validate and test"
        )
    part = np.zeros(len(kind_of), int)  # (N,)
    by_kind = np.split(np.argsort(kind_of, kind="stable"), np.cumsum(counts)[:-1])
    for members in by_kind:
        tenth = max(1, round(len(members) / 10))
        part[members[:tenth]] = 2
        part[members[tenth : 2 * tenth]] = 1
    return [np.flatnonzero(part == k) for k in range(3)]
