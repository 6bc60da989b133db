"""What a tuned prompt's answers leave to be watched: numbers, without the texts.

In: a base, a prompt, and texts. Out: an `Observation`: for each text the probabilities of the
labels, how long the text was and how strange, and where its hidden state lies. `validation.json`
holds it for the validation split of a run, and the registry's log for texts that came later, so
that the two can be compared.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import (
    Prediction,
    batch_size,
    check_answerable,
    encode_split,
    task_question,
)
from minipt.maths.ops import cross_entropy
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import embeddings, label_logits, readout
from minipt.prompting.text import Batch, batches
from minipt.prompting.wiring import hidden_reader
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
    """Answer at least one text as `minipt.predict` does, and keep what can be watched.

    Raises MiniptError as `minipt.predict` does, and for no text at all.
    """
    check_answerable(base, prompt, texts)
    split = Split(list(texts), np.zeros(len(texts), np.int64))  # no answer is right or wrong here
    question = task_question(base, prompt, split, None)
    room = base.config.context - len(prompt.vectors)
    token_rows, targets, cut = encode_split(base, question, split, room)
    N, labels = len(token_rows), tuple(prompt.about["labels"])
    probabilities = np.empty((N, len(labels)), np.float32)
    hidden = np.empty((N, DIRECTIONS), np.float32)
    read, onto = hidden_reader(base, prompt), directions(base.config.channels)
    size = batch_size(base, question, targets)
    for indices, batch in batches(token_rows, targets, question, size):
        states = read(batch)  # (B, R, C)
        logits = label_logits(readout(base, states, batch, ForwardOnly()), batch)  # (M, K)
        losses, probabilities[indices] = cross_entropy(logits, batch.right_choices)
        if not np.isfinite(losses).all():
            raise MiniptError("with this prompt the answer is not a finite number: tune it again")
        hidden[indices] = _state_that_is_read(base, states, batch) @ onto
    tokens = np.array([len(row) for row in token_rows])
    single = single_characters(base)
    unknown = np.array([np.isin(row, single).mean() for row in token_rows], np.float32)
    return Observation(labels, probabilities, tokens, cut, unknown, hidden)


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
