"""From text to arrays: token ids, batches, and where the answer is read.

In: texts and a template such as "{text}\nSentiment:". Out: `Batch`es of texts of similar length.
A batch says where the answer is read and what it is compared with.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from minipt.errors import MiniptError
from minipt.files.diagnose import panics_as_errors
from minipt.transformer.base import Base


@dataclass
class Batch:
    """B rows of token ids, right-padded, and what should be answered after them.

    A row is a text; of labels of several tokens, a text has K rows.

    ids (B, T) integers. lengths (B,): how many tokens of each text are real, 1 to T.
    targets (B,): token ids, or indices into choices. targets (B, R), for an answer of several
    tokens: the tokens that should follow a text's last R tokens; -1 does not count.
    choices: token ids (K,) for the softmax, or vectors (K, C) to compare with; None: all tokens.
    positions (B,): the token of each text at which the answer is read; None: its last real token.
    labels (B / K,), for labels of several tokens: each text stands here K times, once with each
    label behind it, of which `targets` has the tokens. The answer is the label whose tokens are
    likeliest together, and `labels` says which one is right.

    Raises MiniptError when the shapes do not fit together, and for numbers that are not whole.
    """

    ids: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    choices: np.ndarray | None = None
    positions: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, values in list(vars(self).items()):
            if values is not None or name not in ("choices", "positions", "labels"):
                setattr(self, name, _numbers(name, values))
        if self.ids.ndim != 2 or not self.ids.size:
            raise MiniptError(
                f"a batch's ids have shape (B, T), B and T at least 1, not {self.ids.shape}"
            )
        B, T = self.ids.shape
        if self.choices is not None and not (self.choices.ndim in (1, 2) and len(self.choices)):
            raise MiniptError(
                f"a batch's choices have shape (K,) or (K, C), K at least 1, not "
                f"{self.choices.shape}"
            )
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
        labels = self.labels
        if labels is not None and (labels.ndim != 1 or not labels.size or B % len(labels)):
            raise MiniptError(f"a batch of {B} rows has labels of shape {self.labels.shape}")
        if labels is not None and not 0 <= labels.min() <= labels.max() < B // len(labels):
            raise MiniptError(f"a batch's labels lie outside 0 to {B // len(labels) - 1}")

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
    def counted_targets(self) -> np.ndarray:
        """The targets that count, text after text. (N,)"""
        return self.targets.reshape(len(self.targets), -1)[self.counted]

    @property
    def right_choices(self) -> np.ndarray:
        """Which of its choices each answer should be: labels, or `counted_targets`. (N,)"""
        return self.counted_targets if self.labels is None else self.labels


def _numbers(name: str, values: object) -> np.ndarray:
    """An array of integers, or of choices (K, C) in floats."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise MiniptError(f"a batch's {name} are no array ({error})") from error
    vectors = name == "choices" and array.ndim == 2 and array.dtype.kind == "f"
    if array.size and array.dtype.kind not in "iu" and not vectors:
        raise MiniptError(f"a batch's {name} are whole numbers, not {array.dtype}")
    if array.dtype.kind == "u":  # with whole numbers that have a sign, NumPy would make floats
        if array.max(initial=0) > np.iinfo(np.int64).max:
            raise MiniptError(f"a batch's {name} are whole numbers below 2**63")
        array = array.astype(np.int64)
    return array


@dataclass(frozen=True)
class QuestionFormat:
    """How a base is asked and how its answer is read, the same for all texts.

    template: holds "{text}". choices: as in `Batch`. mask: the token at which the answer is read;
    None: at the text's end, or over all of the text. how: the same in words.
    lead: the tokens with which all label words begin; they stand behind every text.
    label_tails: of each label the tokens behind the lead, where one token is not enough to tell
    the labels apart; else None.
    """

    template: str
    choices: np.ndarray | None
    mask: int | None
    how: str
    lead: tuple[int, ...] = ()
    label_tails: tuple[np.ndarray, ...] | None = None

    @property
    def label_count(self) -> int:
        """K; 0 where responses are written."""
        return len(self.label_tails or (() if self.choices is None else self.choices))


def encode(
    base: Base, template: str, texts: Sequence[str], room: int, lead: Sequence[int] = ()
) -> tuple[list[np.ndarray], np.ndarray]:
    """Each of N texts in the template as token ids, and which had to be cut to fit. (N,)

    What the tokenizer puts around a text, such as <s> or [CLS] and [SEP], stands around it here.
    The name of a special token inside a text, such as [MASK], is text. lead: tokens to stand behind
    each text. A text that needs more than `room` tokens loses its beginning, so that the words next
    to the answer stay.
    Raises MiniptError for no room at all, a base without a tokenizer, a template without "{text}"
    and a text that, in the template, has no tokens.
    """
    front, back = _ends(base)
    room -= len(front) + len(back) + len(lead)
    if room < 1:
        raise MiniptError(f"the prompt leaves no room for a text in base {base.name!r}: shorten it")
    if "{text}" not in template:
        raise MiniptError(
            f'a template says where the text goes with "{{text}}"; {template!r} does not'
        )
    rows, was_cut = [], []
    for text, ids in zip(texts, fill(base, template, texts), strict=True):
        if not ids:
            raise MiniptError(f"the text {text!r} has no tokens: give it at least one word")
        was_cut.append(len(ids) > room)
        rows.append(np.array([*front, *ids[-room:], *lead, *back], np.int64))
    return rows, np.array(was_cut, bool)


def tokens(base: Base, words: str) -> np.ndarray:
    """The token ids of a few words and nothing around them. (T,)

    Raises MiniptError for a base without a tokenizer and for words that have no tokens.
    """
    (ids,) = _tokenize(base, [words])
    if not ids:
        raise MiniptError(f"{words!r} has no tokens: give at least one word")
    return np.array(ids, np.int64)


def tokens_behind(base: Base, words: str) -> np.ndarray:
    """The token ids of words that stand behind others, as in running text. (T,)

    Some tokenizers put a mark in front of every text; words behind others have none.
    Raises MiniptError as `tokens` does.
    """
    before, both = _tokenize(base, [":", f":{words}"])
    goes_on = len(both) > len(before) and both[: len(before)] == before
    return np.array(both[len(before) :], np.int64) if goes_on else tokens(base, words)


def fill(base: Base, template: str, texts: Sequence[str]) -> list[list[int]]:
    """Each text in the template as token ids. The template's special tokens are tokens."""
    added = _tokenizer(base).get_added_tokens_decoder()
    special = {token.content: (i, token) for i, token in added.items() if token.special}
    names = sorted(map(re.escape, special), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(names)})", template) if special else [template]
    rows = [[] for _ in texts]
    for n, piece in enumerate(pieces):
        if n % 2:  # the pieces between are what stood in the brackets
            ids = [[special[piece][0]]] * len(texts)
        else:
            if n and special[pieces[n - 1]][1].rstrip:
                piece = piece.lstrip()
            if n + 1 < len(pieces) and special[pieces[n + 1]][1].lstrip:
                piece = piece.rstrip()
            ids = _tokenize(base, [piece.replace("{text}", text) for text in texts])
        rows = [row + more for row, more in zip(rows, ids, strict=True)]
    return rows


def _ends(base: Base) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts in front of every text and behind it."""
    (encoding,) = _encodings(base, ["a"], special=True)
    text = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    if not text:
        return [], []
    front, back = encoding.ids[: text[0]], encoding.ids[text[-1] + 1 :]
    if back and base.config.causal:
        raise MiniptError(
            f"the tokenizer of base {base.name!r} ends every text with {encoding.tokens[-1]!r}, so "
            "that nothing can follow it: take that out of the post_processor in its tokenizer.json"
        )
    return front, back


def _tokenize(base: Base, texts: Sequence[str]) -> list[list[int]]:
    """Texts as token ids; the name of a special token in a text is text."""
    return [encoding.ids for encoding in _encodings(base, texts, special=False)]


def _encodings(base: Base, texts: Sequence[str], special: bool) -> list[Encoding]:
    tokenizer = _tokenizer(base)
    try:
        tokenizer.encode_special_tokens = True
        with panics_as_errors():
            return tokenizer.encode_batch(texts, add_special_tokens=special)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise MiniptError(
            f"the tokenizer of base {base.name!r} cannot read the text ({error}): fetch it again"
        ) from error
    finally:
        tokenizer.encode_special_tokens = False


def _tokenizer(base: Base) -> Tokenizer:
    if base.tokenizer is None:
        raise MiniptError(
            f"base {base.name!r} came without a tokenizer.json, so it cannot read text"
        )
    return base.tokenizer


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
        rows, answers = [token_rows[i] for i in group], [targets[i] for i in group]
        yield group, batch_of(rows, answers, question)


def batch_of(rows: list[np.ndarray], answers: list, question: QuestionFormat) -> Batch:
    """Texts side by side. answers: for each text its class, or the tokens of its response."""
    labels = None
    if question.label_tails is not None:
        labels, K = answers, question.label_count
        answers = [*question.label_tails] * len(rows)  # each text meets each label
        rows = [np.append(rows[n // K], answer[:-1]) for n, answer in enumerate(answers)]
    lengths = np.array([len(row) for row in rows])  # (B,)
    ids = np.zeros((len(rows), lengths.max()), np.int64)  # (B, T)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = row
    if np.ndim(answers[0]):  # -1 in front of the shorter ones
        R = max(map(len, answers))
        answers = [np.pad(each, (R - len(each), 0), constant_values=-1) for each in answers]
    positions = None
    if question.mask is not None:
        positions = (ids == question.mask).argmax(1)  # (B,)
        if not (ids == question.mask).any(1).all():
            raise MiniptError(
                f"a text was too long and lost the mask of the template {question.template!r}: put "
                "the mask behind {text}, or take shorter texts"
            )
    return Batch(ids, lengths, np.array(answers), question.choices, positions, labels)
