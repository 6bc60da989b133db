"""From text to arrays: token ids, batches, and where the answer is read.

In: texts and a template such as "{text}\nSentiment:". Out: `Batch`es of texts of similar length.
A batch says where the answer is read and what it is compared with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.transformer.base import Base


@dataclass
class Batch:
    """B texts as token ids, right-padded, and what should be answered after them.

    ids (B, T) integers. lengths (B,): how many tokens of each text are real, 1 to T.
    targets (B,): token ids, or indices into choices. targets (B, R), for an answer of several
    tokens: the tokens that should follow a text's last R tokens; -1 does not count.
    choices: token ids (K,) for the softmax, or vectors (K, C) to compare with; None: all tokens.
    positions (B,): the token of each text at which the answer is read; None: its last real token.

    Raises MiniptError when the shapes do not fit together, and for numbers that are not whole.
    """

    ids: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    choices: np.ndarray | None = None
    positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, values in list(vars(self).items()):
            if values is not None or name not in ("choices", "positions"):
                setattr(self, name, _numbers(name, values))
        if self.ids.ndim != 2 or not self.ids.size:
            raise MiniptError(
                f"a batch's ids have shape (B, T), B and T at least 1, not {self.ids.shape}"
            )
        B, T = self.ids.shape
        several = self.targets.ndim == 2 and self.targets.shape[0] == B and self.positions is None
        for name in ("lengths", "positions") + (() if several else ("targets",)):
            shape = np.shape(getattr(self, name))
            if getattr(self, name) is not None and shape != (B,):
                raise MiniptError(f"a batch of {B} texts has {name} of shape ({B},), not {shape}")
        if self.lengths.min() < 1 or self.lengths.max() > T:
            raise MiniptError(f"a batch's lengths lie between 1 and T = {T}")
        if several and not 1 <= self.targets.shape[1] <= T:
            raise MiniptError(f"a batch's answers have 1 to T = {T} tokens a text")
        rows = self.answer_rows
        if ((rows < 0) | (rows >= self.lengths[:, None]))[self.counted].any():
            raise MiniptError("a batch's positions lie inside each text's real tokens")

    @property
    def answer_rows(self) -> np.ndarray:
        """The R rows of each text that are read out, all different. (B, R)"""
        if self.positions is not None:
            return self.positions[:, None]
        R = self.counted.shape[1]
        # A text shorter than R has too few rows: rows of its padding are read and do not count.
        return (self.lengths[:, None] - R + np.arange(R)) % self.ids.shape[1]

    @property
    def counted(self) -> np.ndarray:
        """Which of `answer_rows` have a target. (B, R)"""
        if self.targets.ndim == 1:
            return np.ones((len(self.targets), 1), bool)
        return self.targets >= 0

    @property
    def answers(self) -> np.ndarray:
        """The targets that count, text after text. (N,)"""
        return self.targets.reshape(len(self.targets), -1)[self.counted]


def _numbers(name: str, values: object) -> np.ndarray:
    """An array of integers, or of choices (K, C) in floats."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise MiniptError(f"a batch's {name} are no array ({error})") from error
    vectors = name == "choices" and array.ndim == 2 and array.dtype.kind == "f"
    if array.size and array.dtype.kind not in "iu" and not vectors:
        raise MiniptError(f"a batch's {name} are whole numbers, not {array.dtype}")
    return array


@dataclass(frozen=True)
class QuestionFormat:
    """How a base is asked and how its answer is read, the same for all texts.

    template: holds "{text}". choices: as in `Batch`. mask: the token at which the answer is read;
    None: at the text's end, or over all of the text. how: the same in words.
    """

    template: str
    choices: np.ndarray | None
    mask: int | None
    how: str


def encode(
    base: Base, template: str, texts: Sequence[str], room: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Each of N texts in the template as token ids, and which had to be cut to fit. (N,)

    A base that is not causal gets its special tokens around each text, such as [CLS] and [SEP]. A
    text of more than `room` tokens loses its beginning, so that the words next to the answer stay.
    Raises MiniptError for no room at all, a base without a tokenizer, a template without "{text}"
    and a text that, in the template, has no tokens.
    """
    special = not base.config.causal
    first = 1 if special else 0  # the first token stays even where the beginning goes
    if room <= first:
        raise MiniptError(f"the prompt leaves no room for a text in base {base.name!r}: shorten it")
    if "{text}" not in template:
        raise MiniptError(
            f'a template says where the text goes with "{{text}}"; {template!r} does not'
        )
    filled = [template.replace("{text}", text) for text in texts]
    rows, was_cut = [], []
    for text, encoding in zip(texts, _tokenize(base, filled, special), strict=True):
        if len(encoding) <= 2 * first:
            raise MiniptError(f"the text {text!r} has no tokens: give it at least one word")
        was_cut.append(len(encoding) > room)
        if was_cut[-1]:
            encoding = encoding[:first] + encoding[first - room :]
        rows.append(np.array(encoding, np.int64))
    return rows, np.array(was_cut, bool)


def tokens(base: Base, words: str) -> np.ndarray:
    """The token ids of a few words and nothing around them. (T,)

    Raises MiniptError for a base without a tokenizer and for words that have no tokens.
    """
    (ids,) = _tokenize(base, [words], special=False)
    if not ids:
        raise MiniptError(f"{words!r} has no tokens: give at least one word")
    return np.array(ids, np.int64)


def _tokenize(base: Base, texts: Sequence[str], special: bool) -> list[list[int]]:
    if base.tokenizer is None:
        raise MiniptError(
            f"base {base.name!r} came without a tokenizer.json, so it cannot read text"
        )
    try:
        encodings = base.tokenizer.encode_batch(texts, add_special_tokens=special)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise MiniptError(
            f"the tokenizer of base {base.name!r} cannot read the text ({error}): fetch it again"
        ) from error
    return [encoding.ids for encoding in encodings]


Targets = np.ndarray | Sequence[np.ndarray]  # a class for each of N texts, or its answer's tokens


def batches(
    token_rows: Sequence[np.ndarray],
    targets: Targets,
    question: QuestionFormat,
    size: int,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every text once, in batches of texts of similar length, so that batches hold little padding.

    token_rows: N arrays of token ids; targets (N,), or N arrays of the tokens that should follow
    the last ones of each text; size: B, though the last batch may be smaller. With an rng, texts of
    equal length change places and the batches come in random order.
    Yields the texts' indices (B,) and their Batch.
    """
    lengths = np.array([len(row) for row in token_rows])  # (N,)
    order = rng.permutation(len(token_rows)) if rng else np.arange(len(token_rows))
    order = order[np.argsort(lengths[order], kind="stable")]
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    if rng:
        rng.shuffle(groups)
    for group in groups:
        ids = np.zeros((len(group), lengths[group].max()), np.int64)  # (B, T)
        for b, i in enumerate(group):
            ids[b, : lengths[i]] = token_rows[i]
        positions = None if question.mask is None else (ids == question.mask).argmax(1)  # (B,)
        answers = _side_by_side(targets, group)
        yield group, Batch(ids, lengths[group], answers, question.choices, positions)


def _side_by_side(targets: Targets, group: np.ndarray) -> np.ndarray:
    """The group's classes (B,), or its answers' tokens (B, R), -1 in front of the shorter ones."""
    if isinstance(targets, np.ndarray):
        return targets[group]
    longest = max(len(targets[i]) for i in group)
    answers = np.full((len(group), longest), -1)
    for b, i in enumerate(group):
        answers[b, longest - len(targets[i]) :] = targets[i]
    return answers
