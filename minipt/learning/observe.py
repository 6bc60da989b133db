"""What tuned prompts' answers to new texts leave to be watched: numbers, without the texts.

In: a base, one or several prompts, and texts. Out: an `Observation` a prompt: for each text the
probabilities of the labels, how long the text was and how strange, and where its hidden state lies.
`validation.json` holds it for the validation split of a run, and the registry's log for texts that
came later, so that the two can be compared.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import batch_size, encode_split, task_question
from minipt.maths.ops import cross_entropy
from minipt.maths.threads import in_threads
from minipt.prompting.mixed import hidden_reader
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import embeddings, label_logits, readout
from minipt.prompting.text import Batch, batch_of
from minipt.tasks.task import Split
from minipt.transformer.base import Base
from minipt.transformer.trace import ForwardOnly

DIRECTIONS = 16
SEED = b"minipt's directions"
DIGITS = 7  # a float32 has no more
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # SentencePiece's tokens for single bytes
ARRAYS = {"probabilities": np.float32, "tokens": np.int64, "cut": np.bool_}
ARRAYS |= {"unknown": np.float32, "hidden": np.float32}


@dataclass(frozen=True)
class Prediction:
    """The answer to one text."""

    label: str  # the likeliest
    probabilities: dict[str, float]  # of all labels, in the task's order
    cut: bool  # the text was too long and lost its beginning


@dataclass(frozen=True)
class Observation:
    """What N answers with K labels leave.

    labels: the prompt's, in its order. tokens: how many were read, the template's included.
    unknown: the share of these that are the tokenizer's unknown token or a single character, which
    in a vocabulary of bytes is a byte. hidden: the last layer's state of the row that is read, or
    the embedding that an encoder compares, on the `directions`.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray  # (N, K) float32
    tokens: np.ndarray  # (N,) int64
    cut: np.ndarray  # (N,) bool: the text lost its beginning
    unknown: np.ndarray  # (N,) float32
    hidden: np.ndarray  # (N, 16) float32

    @property
    def answers(self) -> np.ndarray:
        """The likeliest label of each text, by its index. (N,)"""
        return self.probabilities.argmax(1)

    def predictions(self) -> list[Prediction]:
        """The same as `minipt.predict` gives it."""
        rows = zip(self.answers, self.probabilities.tolist(), self.cut.tolist(), strict=True)
        return [
            Prediction(self.labels[k], dict(zip(self.labels, row, strict=True)), cut)
            for k, row, cut in rows
        ]


def observe(base: Base, prompt: SoftPrompt, texts: Sequence[str]) -> Observation:
    """Answer texts as `minipt.predict` does, and keep what can be watched. Raises as it does."""
    return observe_each(base, [prompt], texts, np.zeros(len(texts), np.int64))[0]


def observe_each(
    base: Base, prompts: Sequence[SoftPrompt], texts: Sequence[str], which: np.ndarray
) -> list[Observation]:
    """For each prompt the observation of its own texts, in their order.

    which (N,): the index of each text's prompt. Raises MiniptError as `minipt.predict` does.
    """
    _check_answerable(base, prompts, texts)
    own = [[texts[i] for i in (which == k).nonzero()[0]] for k in range(len(prompts))]
    asked = [_Asked(base, *each) for each in zip(prompts, own, strict=True)]
    read, onto = hidden_reader(base, prompts), directions(base.config.channels)

    def answer(parts: list[tuple[int, np.ndarray, Batch]]) -> None:
        states = read([(k, batch) for k, _, batch in parts])  # (B, R, C) of each
        for (k, indices, batch), hidden in zip(parts, states, strict=True):
            asked[k].take(indices, batch, hidden, onto)

    in_threads(answer, list(_mixed_batches(base, asked)))
    single = single_characters(base)
    return [each.observation(single) for each in asked]


class _Asked:
    """A prompt's texts as token ids, and what is filled in as they are answered."""

    def __init__(self, base: Base, prompt: SoftPrompt, texts: list[str]) -> None:
        self.base, self.labels = base, tuple(prompt.about["labels"])
        self.question = task_question(base, prompt, None, None)
        room = base.config.context - len(prompt.vectors)
        self.rows, self.cut = [], np.zeros(0, bool)
        if texts:
            split = Split(texts, np.zeros(len(texts), np.int64))  # nothing is right or wrong here
            self.rows, _, self.cut = encode_split(base, self.question, split, room)
        self.probabilities = np.empty((len(texts), len(self.labels)), np.float32)
        self.hidden = np.empty((len(texts), DIRECTIONS), np.float32)

    @property
    def rows_read(self) -> int:
        """R: how many rows of each text are read out."""
        return max(map(len, self.question.label_tails or ([0],)))

    def batch(self, indices: np.ndarray) -> Batch:
        return batch_of([self.rows[i] for i in indices], [0] * len(indices), self.question)

    def take(self, indices: np.ndarray, batch: Batch, hidden: np.ndarray, onto: np.ndarray) -> None:
        """Fill in the answers to some texts. hidden (B, R, C), onto (C, 16)"""
        logits = readout(self.base, hidden, batch, ForwardOnly())
        logits = label_logits(logits, batch)  # (n, K)
        losses, self.probabilities[indices] = cross_entropy(logits, batch.right_choices)
        if not np.isfinite(losses).all():
            raise MiniptError("with this prompt the answer is not a finite number: tune it again")
        self.hidden[indices] = _state_that_is_read(self.base, hidden, batch) @ onto

    def observation(self, single: np.ndarray) -> Observation:
        """single: the ids of `single_characters`."""
        tokens = np.array([len(row) for row in self.rows], np.int64)
        unknown = np.array([np.isin(row, single).mean() for row in self.rows], np.float32)
        parts = (self.probabilities, tokens, self.cut, unknown, self.hidden)
        return Observation(self.labels, *parts)


def _mixed_batches(
    base: Base, asked: Sequence[_Asked]
) -> Iterator[list[tuple[int, np.ndarray, Batch]]]:
    """All texts in batches of like length; of each prompt in it the texts' indices and a Batch.

    A base that is not causal answers one prompt's texts at a time. All texts of a batch have as
    many rows that are read.
    """
    apart = [k if not base.config.causal else each.rows_read for k, each in enumerate(asked)]
    texts = [
        (apart[k], len(row), k, i)
        for k, each in enumerate(asked)
        for i, row in enumerate(each.rows)
    ]
    for _, group in groupby(sorted(texts), key=lambda text: text[0]):
        group = list(group)
        size = min(batch_size(base, asked[k].question, np.zeros(0)) for _, _, k, _ in group)
        for start in range(0, len(group), size):
            chunk = sorted(group[start : start + size], key=lambda text: text[2])
            yield [
                (k, indices := np.array([i for *_, i in some]), asked[k].batch(indices))
                for k, some in groupby(chunk, key=lambda text: text[2])
            ]


def _check_answerable(base: Base, prompts: Sequence[SoftPrompt], texts: Sequence[str]) -> None:
    """Raise MiniptError unless all prompts have labels and this base, and texts are a list."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise MiniptError('texts are a list of strings, such as ["a text"]')
    fingerprint = base.fingerprint
    for prompt in prompts:
        if not prompt.about.get("labels"):
            raise MiniptError(
                "this prompt was not tuned for labels: tune one, or use minipt.generate"
            )
        if prompt.fingerprint != fingerprint:
            raise MiniptError(
                f"the prompt was made for base {prompt.base_name!r}, not for base {base.name!r}: a "
                "prompt works only on its own base"
            )


def directions(channels: int) -> np.ndarray:
    """Directions to look along, the same for ever and everywhere. (C, 16)

    Their entries are ±1/√C, which keeps distances about as well as a normal distribution's numbers
    (Achlioptas 2003, "Database-friendly random projections"). The signs are bits of SHAKE-256, so
    no version of NumPy draws others.
    """
    wanted = channels * DIRECTIONS
    stream = hashlib.shake_256(SEED).digest(-(-wanted // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))[:wanted].reshape(channels, DIRECTIONS)
    return ((2.0 * bits - 1.0) / np.sqrt(channels)).astype(np.float32)


def single_characters(base: Base) -> np.ndarray:
    """The ids of the unknown token and of tokens of one character or byte."""
    vocabulary = base.tokenizer.get_vocab(with_added_tokens=True)
    unknown = getattr(base.tokenizer.model, "unk_token", None)
    return np.array(
        [
            i
            for token, i in vocabulary.items()
            if len(token) == 1 or token == unknown or BYTE.fullmatch(token)
        ]
    )


def validation_record(base: Base, prompt: SoftPrompt, split: Split) -> dict:
    """What `validation.json` says of a split with labels, in types that JSON knows."""
    seen = observe(base, prompt, split.texts)
    columns = {name: _rounded(getattr(seen, name)) for name in ARRAYS}
    return {"labels": list(seen.labels), "right": split.answers} | columns


def read_validation(record: object, where: str) -> tuple[Observation, np.ndarray]:
    """The observation in such a record, and the right classes (N,). where: it stands, for an error.

    Raises MiniptError for a record that is not as `validation_record` makes it.
    """
    try:
        arrays = {name: np.array(record[name], kind) for name, kind in ARRAYS.items()}
        labels, right = tuple(record["labels"]), np.array(record["right"], np.int64)
        N, K = len(right), len(labels)
        shapes = ((N, K), (N,), (N,), (N,), (N, DIRECTIONS))
        sound = tuple(array.shape for array in arrays.values()) == shapes and N > 0
        sound = sound and right.shape == (N,) and 0 <= right.min() <= right.max() < K
        sound = sound and all(np.isfinite(array).all() for array in arrays.values())
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise MiniptError(f"{where} is not as minipt writes it: tune again")
    return Observation(labels, **arrays), right


def _state_that_is_read(base: Base, states: np.ndarray, batch: Batch) -> np.ndarray:
    """Of each text one row: states (B, R, C) -> (N, C)"""
    if base.config.head is None:
        return embeddings(states, batch, ForwardOnly())
    first = batch.counted.argmax(1)  # (B,): of a label of several tokens the row of its first
    rows = states[np.arange(len(first)), first]  # (B, C)
    return rows if batch.labels is None else rows[:: len(rows) // len(batch.labels)]


def _rounded(array: np.ndarray) -> list:
    """Numbers for JSON, with no more digits than they have."""
    if array.dtype.kind != "f":
        return array.tolist()
    if array.ndim > 1:
        return [_rounded(row) for row in array]
    return [float(f"{x:.{DIGITS}g}") for x in array]
