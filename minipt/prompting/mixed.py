"""Texts with prompts of their own, in one pass: many tasks over one frozen base.

In: for each prompt the keys and values that it leaves, and a batch of its texts. Out: the hidden
states of each batch's answers. Norms, linear maps and MLPs compute all texts as one matrix. Only
attention tells the prompts apart: each text reads the keys and values of its own.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import rows_to_read
from minipt.prompting.text import Batch
from minipt.prompting.wiring import check_prompt, hidden_after, hidden_together, run_prompt
from minipt.transformer.base import Base
from minipt.transformer.layer import Past, StreamLayout, length_of
from minipt.transformer.model import embed_tokens, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly

Reader = Callable[[Sequence[tuple[int, Batch]]], list[np.ndarray]]


def hidden_reader(base: Base, prompts: Sequence[SoftPrompt]) -> Reader:
    """A function from batches, each with its prompt's index, to the hidden states of the answers.

    In front of a causal base each prompt runs now and never again, and all batches are one pass.
    """
    for prompt in prompts:
        check_prompt(base, prompt)
    if not base.config.causal:
        return lambda parts: [
            hidden_together(base, prompts[k].vectors, batch) for k, batch in parts
        ]
    pasts = [run_prompt(base, prompt) for prompt in prompts]
    return lambda parts: hidden_of_each(base, [(pasts[k], batch) for k, batch in parts])


def hidden_of_each(base: Base, parts: Sequence[tuple[Past, Batch]]) -> list[np.ndarray]:
    """The hidden states that the answers of each batch are made from. (B, R, C) of each

    parts: keys and values of a prompt, and a batch of texts behind it. The base is causal, and R is
    the same for all batches; B, T, P and the choices may differ.
    """
    if len(parts) == 1:
        return [hidden_after(base, parts[0][1], parts[0][0])]
    sizes = [len(batch.ids) for _, batch in parts]
    ends = np.cumsum(sizes)
    T = max(batch.ids.shape[1] for _, batch in parts)
    x = np.zeros((ends[-1], T, base.config.channels), base.dtype)  # (B, T, C) of all parts
    readers = []
    for (past, batch), end in zip(parts, ends, strict=True):
        texts = np.arange(end - len(batch.ids), end)
        x[texts, : batch.ids.shape[1]] = embed_tokens(base, batch.ids, length_of(past))
        readers.append((past, texts))
    lengths = np.concatenate([batch.lengths for _, batch in parts])
    answer_rows = np.concatenate([rows_to_read(base, batch) for _, batch in parts])  # (B, R)
    stream = Stream("text", x, answer_rows, lengths=lengths)
    hidden, _ = forward(StreamLayout(base, stream, ForwardOnly(), readers=readers))
    return np.split(hidden, ends[:-1])
