"""Wrong on purpose: twins of things that minipt does rightly, for the traps of the course.

In: what the right function takes. Out: what a program answers that has this fault. None of these
functions raises an error, and that is the lesson: the answers are worse, and nothing else tells.
Nothing outside the course uses them.
"""

from dataclasses import replace

import numpy as np

from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import choice_vectors
from minipt.prompting.text import Batch
from minipt.transformer.base import Base
from minipt.transformer.layer import StreamLayout
from minipt.transformer.model import embed_tokens, embed_vectors, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly


def pad_left(batch: Batch) -> Batch:
    """WRONG: padding stands in front of shorter texts, and the model reads it as words.

    Every text then ends in the last column, which is handy. But the padding stands between the
    prompt and the text, and the text's words get later positions.
    """
    T = batch.ids.shape[1]
    shifts = T - batch.lengths  # (B,)
    ids = np.stack([np.roll(row, shift) for row, shift in zip(batch.ids, shifts, strict=True)])
    positions = None if batch.positions is None else batch.positions + shifts
    return replace(batch, ids=ids, lengths=np.full_like(batch.lengths, T), positions=positions)


def read_at(base: Base, prompt: SoftPrompt, batch: Batch, rows: np.ndarray) -> np.ndarray:
    """WRONG unless the rows are right: the logits (B, K) of the answers read at any rows.

    rows (B,): of the S = P + T rows of prompt and text, with padding; a negative one counts from
    the end. The right ones are P + lengths - 1.
    """
    P, T = len(prompt.vectors), batch.ids.shape[1]
    hidden = _all_hidden(base, prompt, batch, np.full(len(batch.ids), P + T))  # (B, S, C)
    return hidden[np.arange(len(rows)), rows] @ choice_vectors(base, batch.choices).T


def pool_all(base: Base, prompt: SoftPrompt, batch: Batch) -> np.ndarray:
    """WRONG: a text's vector is the mean of its rows and the prompt's rows together. (B, C)

    Padding is left out. The right one is the mean of the text's rows alone.
    """
    counts = len(prompt.vectors) + batch.lengths  # (B,)
    hidden = _all_hidden(base, prompt, batch, counts)  # (B, S, C), zeros where padding is
    return hidden.sum(1) / counts[:, None]


def prompt_twice(prompt: SoftPrompt) -> SoftPrompt:
    """WRONG: the prompt stands in front of the text two times, as if two programs had put it."""
    return replace(prompt, vectors=np.concatenate([prompt.vectors, prompt.vectors]))


def _all_hidden(base: Base, prompt: SoftPrompt, batch: Batch, counts: np.ndarray) -> np.ndarray:
    """The last hidden states of all rows of prompt and text. counts (B,): real rows. (B, S, C)"""
    B, (P, C) = len(batch.ids), prompt.vectors.shape
    vectors = embed_vectors(base, prompt.vectors.astype(base.dtype))  # (P, C)
    prompts = np.broadcast_to(vectors, (B, P, C))
    x = np.concatenate([prompts, embed_tokens(base, batch.ids, start=P)], axis=1)  # (B, S, C)
    rows = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])  # (B, S): all are read
    return forward(StreamLayout(base, Stream("text", x, rows, lengths=counts), ForwardOnly()))[0]
