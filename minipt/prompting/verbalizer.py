"""From label words to a `QuestionFormat`: how a base is asked, and which words it may answer.

In: a base, a task's template such as "{text}\\nSentiment:" and its label words such as " positive".
Out: a format that depends on the base's head. A language model predicts the token after the
template. A masked-word model fills in a mask (Schick & Schütze 2021, section 3). An encoder without
a head embeds the text, and the label with the closest sentence, "Sentiment: positive", is chosen.
"""

from collections.abc import Sequence

import numpy as np

from minipt.errors import MiniptError
from minipt.maths.threads import one_blas_thread
from minipt.prompting.readout import choice_vectors, embeddings
from minipt.prompting.text import Batch, QuestionFormat, encode, fill, tokens_behind
from minipt.transformer.base import Base
from minipt.transformer.layer import StreamLayout
from minipt.transformer.model import embed_tokens, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly

MASK = "[MASK]"
OTHERWISE = (
    "name other words (--label-words), train a head (--head) or learn to write them (--pairs)"
)


def question_format(
    base: Base, template: str, label_words: Sequence[str], head: np.ndarray | None = None
) -> QuestionFormat:
    """How `base` answers a task with one of K labels.

    A language model reads a label as it continues the filled template. Tokens that all labels share
    go behind every text. A label is read at the first token that differs. Where that token does not
    tell all labels apart, or is a lone space, a label is read at all its tokens. A masked-word
    model answers at the mask in the template, or at a mask that is put behind it.

    head (K, C): vectors that were trained to compare with, in place of label words.

    Raises MiniptError for label words that the base cannot tell apart, and for a masked-word base
    whose tokenizer has no mask.
    """
    mask, lead, label_tails = None, (), None
    if base.config.head == "language":
        how = "the language model's head at the text's end"
        if head is None:
            choices, lead, label_tails = read_labels(base, template, label_words)
        if label_tails is not None:
            how = "the language model's head at all tokens of each label"
    elif base.config.head == "masked":
        mask = base.tokenizer.token_to_id(MASK) if base.tokenizer else None
        if mask is None:
            raise MiniptError(f"base {base.name!r} has no token {MASK} to be filled in")
        template = template if MASK in template else f"{template} {MASK}."
        how = f"the masked-word head at {MASK} in {template!r}"
        if head is None:
            choices = label_tokens(base, label_words)
    else:
        sentences = _label_sentences(template, label_words)
        how = f"the cosine to the base's own embeddings of {', '.join(map(repr, sentences))}"
        template = "{text}"
        if head is None:
            choices = embed(base, sentences)
            _refuse_equal(base, label_words, choices)
    if head is not None:
        return QuestionFormat(template, head, mask, "a trained linear head")
    return QuestionFormat(template, choices, mask, how, lead, label_tails)


def read_labels(
    base: Base, template: str, label_words: Sequence[str]
) -> tuple[np.ndarray | None, tuple[int, ...], tuple[np.ndarray, ...] | None]:
    """The choices (K,), the lead and the label tokens of a `QuestionFormat` for a language model.

    A leading space counts: " good" follows a text, "good" does not. Raises MiniptError where the
    tokens of one label are the beginning of another's, or its first token merges with the template.
    """
    if len(label_words) < 2:
        raise MiniptError(f"a task has at least two label words to choose from, not {label_words}")
    texts = [template, *(template + word for word in label_words)]
    alone, *filled = (fill(base, text, [":"])[0] for text in texts)
    if any(ids[: len(alone)] != alone for ids in filled):
        raise MiniptError(
            f"the template {template!r} and a label word share a token of base {base.name!r}: "
            "begin the label words with a space"
        )
    behind = [ids[len(alone) :] for ids in filled]  # K lists of token ids
    shared = _common_length(behind)
    lead, tails = behind[0][:shared], [ids[shared:] for ids in behind]
    _refuse_unknown(base, label_words, behind)
    for k, tail in enumerate(tails):
        for other, longer in enumerate(tails):
            if other != k and longer[: len(tail)] == tail:
                why = "the first is the beginning of the second"
                _refuse_labels(base, label_words[k], label_words[other], why)
    first = [tail[0] for tail in tails]
    # A lone space may begin any word, so it tells nothing of the label.
    if len(set(first)) == len(first) and not any(_is_blank(base, token) for token in first):
        return np.array(first), tuple(lead), None
    return None, tuple(lead), tuple(np.array(tail) for tail in tails)


def label_tokens(base: Base, label_words: Sequence[str]) -> np.ndarray:
    """The first token of each label word, for a model that fills in one. (K,)

    Raises MiniptError when two label words begin with the same token, or one with a lone space.
    """
    words = [tokens_behind(base, word).tolist() for word in label_words]
    _refuse_unknown(base, label_words, words)
    first = [ids[0] for ids in words]
    for k, token in enumerate(first):
        if token in first[:k]:
            why = "they begin with the same token"
            _refuse_labels(base, label_words[first.index(token)], label_words[k], why)
        if _is_blank(base, token):
            raise MiniptError(
                f"base {base.name!r} fills in one token, and the label word {label_words[k]!r} "
                f"begins with a lone space: {OTHERWISE}"
            )
    return np.array(first)


def head_start(base: Base, template: str, label_words: Sequence[str]) -> np.ndarray:
    """Vectors for a linear head to begin with: of each label the row of its first token. (K, C)

    The rows are those of the output table. Tokens that all labels share are passed over. Of a base
    without a head the vectors are those that it would compare with.
    """
    if base.config.head is None:
        return embed(base, _label_sentences(template, label_words))
    words = [tokens_behind(base, word).tolist() for word in label_words]
    shared = _common_length(words)
    first = [ids[min(shared, len(ids) - 1)] for ids in words]  # (K,)
    return choice_vectors(base, np.array(first))


def _label_sentences(template: str, label_words: Sequence[str]) -> list[str]:
    return [template.replace("{text}", "").strip() + word for word in label_words]


def _common_length(rows: list[list[int]]) -> int:
    """With how many equal numbers all rows begin."""
    columns = enumerate(zip(*rows, strict=False))
    return next((n for n, column in columns if len(set(column)) > 1), min(map(len, rows)))


def _is_blank(base: Base, token: int) -> bool:
    return not base.tokenizer.decode([token]).strip()


def _refuse_unknown(base: Base, label_words: Sequence[str], rows: list[list[int]]) -> None:
    """A tokenizer drops what it does not know, or has one token for all of it."""
    unknown = getattr(base.tokenizer.model, "unk_token", None)
    unknown = None if unknown is None else base.tokenizer.token_to_id(unknown)
    for word, ids in zip(label_words, rows, strict=True):
        if unknown in ids or not base.tokenizer.decode(ids).strip():
            raise MiniptError(
                f"the tokenizer of base {base.name!r} has no tokens for the label word {word!r}: "
                f"{OTHERWISE}"
            )


def _refuse_equal(base: Base, label_words: Sequence[str], vectors: np.ndarray) -> None:
    for k, vector in enumerate(vectors):
        for other in range(k):
            if (vector == vectors[other]).all():
                why = "its embeddings of the two are equal"
                _refuse_labels(base, label_words[other], label_words[k], why)


def _refuse_labels(base: Base, word: str, other: str, why: str) -> None:
    raise MiniptError(
        f"base {base.name!r} cannot tell the label words {word!r} and {other!r} apart, since "
        f"{why}: {OTHERWISE}"
    )


@one_blas_thread()
def embed(base: Base, sentences: Sequence[str]) -> np.ndarray:
    """A unit vector for each sentence, along the mean of its last hidden states. (N, C)

    Reimers & Gurevych 2019, section 3. Raises MiniptError for a sentence without tokens.
    """
    rows, _ = encode(base, "{text}", sentences, base.config.context)
    return np.concatenate([_embed_one(base, ids) for ids in rows])


def _embed_one(base: Base, ids: np.ndarray) -> np.ndarray:
    """(T,) -> (1, C)"""
    batch = Batch(ids[None], [len(ids)], [0])
    read = np.arange(len(ids))[None]  # (1, R = T)
    x = embed_tokens(base, batch.ids, start=0)  # (1, T, C)
    text = Stream("text", x, read, lengths=batch.lengths)
    hidden, _ = forward(StreamLayout(base, text, ForwardOnly()))  # (1, T, C)
    return embeddings(hidden, batch, ForwardOnly())
