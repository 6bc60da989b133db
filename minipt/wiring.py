"""How a prompt meets a text: two wirings of one forward and one backward, equal to rounding.

In: a `Base`, a `SoftPrompt`, a `Batch`. Out: the loss and the gradient of the prompt's vectors.

The textbook wiring, "concatenated", puts the prompt in front of every text and runs B·(P+T) rows:

    [vectors; text] (B, P+T, C) -> blocks -> hidden at the rows read (B, 1, C) -> loss

The "shared" wiring uses that a causal prompt never sees the text. It runs once, as a text of its
own whose outputs nobody reads; what it leaves are its keys and values, which all B texts read:

    vectors (1, P, C) -> blocks -> keys, values (H, P, D) a layer
                                        | past
              text (B, T, C) -> blocks -+-> hidden at the rows read (B, 1, C) -> loss

and on the way back the texts' gradients of those keys and values enter the prompt's own backward.
The story continues in `tune.py`, which takes this step many times.
"""

import numpy as np

from minipt import ops
from minipt.base import Base
from minipt.errors import MiniptError
from minipt.model import (
    Past,
    backward,
    embed_tokens,
    embed_vectors,
    forward,
    readout,
    readout_dx,
)
from minipt.prompt import SoftPrompt
from minipt.text import Batch
from minipt.trace import Cache, Trace, Untraced

READ_NOTHING = np.empty((1, 0), np.int64)  # (B = 1, R = 0)


def loss_and_gradient(
    base: Base,
    prompt: SoftPrompt,
    batch: Batch,
    trace: Trace | None = None,
    wiring: str = "shared",
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of a batch in nats, and its gradient for the prompt's vectors.

    trace: a `Trace`, emptied and filled with this step's arrays by name. All is computed in the
    base's float type. wiring: "shared" or
    "concatenated"; in the latter the rows called `text` begin with the prompt's.
    Returns the loss and d loss / d vectors (P, C).
    Raises MiniptError for an unknown wiring, a prompt of another width, targets or ids outside
    their range, and a prompt and texts that are longer together than the base's context.
    """
    if wiring not in WIRINGS:
        raise MiniptError(f"unknown wiring {wiring!r}: choose one of {', '.join(WIRINGS)}")
    _check(base, batch, prompt)
    trace = Cache() if trace is None else trace
    trace.clear()
    return WIRINGS[wiring](base, prompt.vectors.astype(base.dtype), batch, trace)


def shared(base: Base, vectors: np.ndarray, batch: Batch, trace: Trace) -> tuple[float, np.ndarray]:
    """The prompt runs once, for all texts: P + B·T rows."""
    trace.note("prompt.vectors", vectors)  # (P, C)
    prompt = embed_vectors(base, vectors)[None]  # (1, P, C)
    _, past = forward(base, prompt, trace, "prompt", READ_NOTHING)
    text = embed_tokens(base, batch.ids, start=len(vectors))  # (B, T, C)
    trace.note("text.embedding", text)
    hidden, _ = forward(base, text, trace, "text", batch.read, past)  # (B, 1, C)
    loss, dhidden = _loss(base, hidden, batch, trace)

    _, dpast = backward(base, dhidden, trace, "text", batch.read, wanted=0, past=past)
    nothing = np.zeros((1, 0, vectors.shape[1]), vectors.dtype)  # (1, R = 0, C)
    dprompt, _ = backward(
        base, nothing, trace, "prompt", READ_NOTHING, wanted=len(vectors), dpresent=dpast
    )  # (1, P, C)
    trace.note_grad("prompt.vectors", dprompt[0])
    return loss, dprompt[0].copy()


def concatenated(
    base: Base, vectors: np.ndarray, batch: Batch, trace: Trace
) -> tuple[float, np.ndarray]:
    """The prompt stands in front of every text: B·(P+T) rows."""
    trace.note("prompt.vectors", vectors)  # (P, C)
    P, B = len(vectors), len(batch.ids)
    prompt = np.broadcast_to(embed_vectors(base, vectors), (B, P, vectors.shape[1]))
    text = embed_tokens(base, batch.ids, start=P)  # (B, T, C)
    x = np.concatenate([prompt, text], axis=1)  # (B, P+T, C)
    trace.note("text.embedding", x)
    read = batch.read + P  # (B, 1)
    hidden, _ = forward(base, x, trace, "text", read)  # (B, 1, C)
    loss, dhidden = _loss(base, hidden, batch, trace)

    dx, _ = backward(base, dhidden, trace, "text", read, wanted=P)  # (B, P, C)
    gradient = dx.sum(0)  # (P, C): the same vectors stood in front of every text
    trace.note_grad("prompt.vectors", gradient)
    return loss, gradient.copy()


WIRINGS = {"shared": shared, "concatenated": concatenated}


def read_prompt(base: Base, prompt: SoftPrompt | None) -> Past | None:
    """What a finished prompt leaves for texts to read, computed once and for all of them."""
    if prompt is None:
        return None
    x = embed_vectors(base, prompt.vectors.astype(base.dtype))[None]  # (1, P, C)
    return forward(base, x, Untraced(), "prompt", READ_NOTHING)[1]


def logits(base: Base, batch: Batch, prompt: SoftPrompt | None = None) -> np.ndarray:
    """What the base answers after each text. (B, V), or (B, K) with choices

    Raises MiniptError as `loss_and_gradient` does.
    """
    _check(base, batch, prompt)
    return logits_after(base, batch, read_prompt(base, prompt))


def logits_after(base: Base, batch: Batch, past: Past | None) -> np.ndarray:
    """As `logits`, with the prompt already read. (B, V or K)"""
    start = past[0][0].shape[1] if past else 0
    text = embed_tokens(base, batch.ids, start)  # (B, T, C)
    hidden, _ = forward(base, text, Untraced(), "text", batch.read, past)  # (B, 1, C)
    return readout(base, hidden[:, 0], batch.choices)


def _loss(base: Base, hidden: np.ndarray, batch: Batch, trace: Trace) -> tuple[float, np.ndarray]:
    """The mean of the texts' cross-entropies and its gradient, both of hidden (B, 1, C)."""
    answers = readout(base, hidden[:, 0], batch.choices)  # (B, K)
    losses, probabilities = ops.cross_entropy(answers, batch.targets)  # (B,), (B, K)
    trace.note("text.logits", answers)
    trace.note("text.probabilities", probabilities)
    trace.note("text.loss", losses)

    dlosses = np.full_like(losses, 1.0 / len(losses))  # (B,)
    dlogits = ops.cross_entropy_dx(dlosses, probabilities, batch.targets)  # (B, K)
    trace.note_grad("text.loss", dlosses)
    trace.note_grad("text.logits", dlogits)
    dhidden = readout_dx(base, dlogits, batch.choices)[:, None]  # (B, 1, C)
    return float(losses.mean()), dhidden


def _check(base: Base, batch: Batch, prompt: SoftPrompt | None) -> None:
    config = base.config
    P, T = len(prompt.vectors) if prompt else 0, batch.ids.shape[1]
    if prompt and prompt.vectors.shape[1:] != (config.channels,):
        raise MiniptError(
            f"base {base.name!r} needs vectors of {config.channels} channels, the prompt's array "
            f"has shape {prompt.vectors.shape}"
        )
    if P + T > config.context:
        raise MiniptError(
            f"{P} prompt vectors and {T} tokens exceed the {config.context} positions of base "
            f"{base.name!r}: shorten one of them"
        )
    V = config.vocabulary
    limits = {"ids": V, "targets": V}
    if batch.choices is not None:
        limits |= {"choices": V, "targets": len(batch.choices)}
    for name, limit in limits.items():
        array = getattr(batch, name)
        if array.min() < 0 or array.max() >= limit:
            raise MiniptError(f"the batch's {name} lie outside 0 to {limit - 1}")
