"""From texts and their responses to arrays, for tasks whose answers are texts and not labels.

In: texts, and the response that should follow each. Out: rows of token ids, and for each row the
tokens that should follow its last R tokens. R is the number of the response's tokens:

    row      The  film  was   very  good   text and response, without the end
    target              very  good  <end>  what should follow each of the row's last R tokens

Text and response are encoded apart, because generation knows the text's tokens before there is a
response. Encoded together, the two could share a token or divide white space in another way. The
response's tokens are those of running text: some tokenizers put a mark in front of a text. The
target ends with the tokenizer's token for an end, if there is one: generation learns to stop.
"""

from collections.abc import Sequence

import numpy as np

from minipt.errors import MiniptError
from minipt.prompting.generate import end_tokens
from minipt.prompting.text import QuestionFormat, encode, tokens_behind
from minipt.transformer.base import Base

# The names that tokenizers give to the end of a text; the first that a base has is learnt.
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")


def response_format(base: Base, template: str) -> QuestionFormat:
    """How `base` writes a response: each token is chosen from the whole vocabulary.

    Raises MiniptError for a base that does not predict next tokens.
    """
    if base.config.head != "language":
        raise MiniptError(
            f"base {base.name!r} is not made to predict the next token, so it cannot learn to "
            "write responses: choose a causal language model such as tiny"
        )
    how = "the language model's head at each token of the response"
    return QuestionFormat(template, None, None, how)


def end_token(base: Base) -> int | None:
    """The token that ends a response: the first of `ENDS` at which generation stops."""
    if base.tokenizer is None:
        return None
    stops = end_tokens(base)
    known = (base.tokenizer.token_to_id(name) for name in ENDS)
    return next((token for token in known if token in stops), None)


def encode_responses(
    base: Base, template: str, texts: Sequence[str], responses: Sequence[str], room: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Rows of token ids, what should follow each row's last, and which texts had to be cut. (N,)

    A text of T tokens and its response of R, its end included, become a row of T + R - 1 tokens, at
    most `room`, and a target of R. A text that is too long loses its beginning, a response stays
    whole. Raises MiniptError as `encode` does, and for a response without tokens or without room.
    """
    end = [] if (token := end_token(base)) is None else [token]
    rows, targets, was_cut = [], [], []
    for text, response in zip(texts, responses, strict=True):
        target = np.append(tokens_behind(base, response), end).astype(np.int64)  # (R,)
        if len(target) > room:
            raise MiniptError(
                f"the response {response!r:.40} has {len(target)} tokens, and base "
                f"{base.name!r} has room for {room}: shorten it or the prompt"
            )
        (row,), cut = encode(base, template, [text], room - len(target) + 1)  # (T,)
        rows.append(np.concatenate([row, target[:-1]]))
        targets.append(target)
        was_cut.extend(cut)
    return rows, targets, np.array(was_cut, bool)
