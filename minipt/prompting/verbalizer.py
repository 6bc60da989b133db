"""From label words to a `QuestionFormat`: how a base is asked, and which words it may answer.

In: a base, a task's template such as "{text}\\nSentiment:" and its label words such as " positive".
Out: a format that depends on the base's head. A language model predicts the token after the
template. A masked-word model fills in a mask (Schick & Schütze 2021, section 3). An encoder without
a head embeds the text, and the label with the closest sentence, "Sentiment: positive", is chosen.
"""

from collections.abc import Sequence

import numpy as np

from minipt.errors import MiniptError
from minipt.prompting.readout import embeddings
from minipt.prompting.text import Batch, QuestionFormat, encode, tokens
from minipt.transformer.base import Base
from minipt.transformer.layer import StepLayout
from minipt.transformer.model import embed_tokens, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly

MASK = "[MASK]"


def question_format(base: Base, template: str, label_words: Sequence[str]) -> QuestionFormat:
    """How `base` answers a task with one of K label words.

    A masked-word model answers at the mask in the template, or at a mask that is put behind it.

    Raises MiniptError when two label words begin with the same token and so cannot be told apart,
    and for a masked-word base whose tokenizer has no mask.
    """
    if base.config.head == "language":
        how = "the language model's head at the text's end"
        return QuestionFormat(template, label_tokens(base, label_words), None, how)
    if base.config.head == "masked":
        mask = base.tokenizer.token_to_id(MASK) if base.tokenizer else None
        if mask is None:
            raise MiniptError(f"base {base.name!r} has no token {MASK} to be filled in")
        template = template if MASK in template else f"{template} {MASK}."
        how = f"the masked-word head at {MASK} in {template!r}"
        return QuestionFormat(template, label_tokens(base, label_words), mask, how)
    sentences = [template.replace("{text}", "").strip() + word for word in label_words]
    how = f"the cosine to the base's own embeddings of {', '.join(map(repr, sentences))}"
    return QuestionFormat("{text}", embed(base, sentences), None, how)


def label_tokens(base: Base, label_words: Sequence[str]) -> np.ndarray:
    """The first token of each label word. (K,)

    A leading space counts: " good" follows a text, "good" does not. Raises MiniptError when two
    label words begin with the same token and so cannot be told apart.
    """
    first = [int(tokens(base, word)[0]) for word in label_words]
    for k, token in enumerate(first):
        if token in first[:k]:
            other = label_words[first.index(token)]
            raise MiniptError(
                f"the label words {other!r} and {label_words[k]!r} begin with the same token of "
                f"base {base.name!r}: choose others"
            )
    return np.array(first)


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
    hidden, _ = forward(StepLayout(base, text, ForwardOnly()))  # (1, T, C)
    return embeddings(hidden, batch, ForwardOnly())
