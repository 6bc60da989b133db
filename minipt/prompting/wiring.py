"""How a prompt meets a text: two wirings of one forward and one backward, equal to rounding.

In: a `Base`, a `SoftPrompt`, a `Batch`. Out: the loss and the gradient of the prompt's vectors.

The textbook wiring, "concatenated", puts the prompt in front of every text and runs B·(P+T) rows:

    [vectors; text] (B, P+T, C) -> blocks -> hidden at the rows read (B, R, C) -> loss

The "shared" wiring uses that a causal prompt never sees the text. It stands there once, as a stream
of its own whose outputs nobody reads; in each layer all B texts read the keys and values that it
has left there:

    vectors (1, P, C) --> block --> block --> ...
                            | keys, values (Hkv, P, D): the texts' past
       text (B, T, C) --> block --> block --> ... -> hidden at the rows read (B, R, C) -> loss

and on the way back the texts' gradients of those keys and values are added to the prompt's own. The
rows of both go through a block as one matrix, P + B·T rows, and apart through attention only.

A base that is not causal, such as BERT, knows only the textbook wiring: there the texts change what
the prompt computes. The story continues in `learn.py`, which takes such a step many times.
"""

from collections.abc import Callable

import numpy as np

from minipt.errors import MiniptError
from minipt.maths import ops
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import readout, readout_dw, readout_dx, rows_to_read
from minipt.prompting.text import Batch
from minipt.transformer.base import Base
from minipt.transformer.layer import Pass, Past
from minipt.transformer.model import backward, embed_tokens, embed_tokens_dw, embed_vectors, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import Cache, Gradients, Trace, Untraced

Answer = Callable[[Batch], np.ndarray]  # from a batch to its logits (N, K)
READ_NOTHING = np.empty((1, 0), np.int64)  # (B = 1, R = 0)


def loss_and_gradient(
    base: Base,
    prompt: SoftPrompt,
    batch: Batch,
    trace: Trace | None = None,
    wiring: str | None = None,
    gradients: Gradients | None = None,
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of a batch in nats, and its gradient for the prompt's vectors.

    trace: a `Trace`, emptied and filled with this step's arrays by name. All is computed in the
    base's float type. wiring: "shared" or "concatenated", None: shared where the base allows it; in
    the concatenated one the rows called `text` begin with the prompt's. gradients: to be filled for
    "choices", the only key it may have, with the gradient of choices that are vectors (K, C).
    Returns the loss and d loss / d vectors (P, C).
    Raises MiniptError for an unknown wiring or one that the base does not allow, a prompt of
    another width, targets or ids outside their range, a prompt and texts that are longer together
    than the base's context, and another key in `gradients`.
    """
    wiring = wiring or ("shared" if base.config.causal else "concatenated")
    if wiring not in WIRINGS:
        raise MiniptError(f"unknown wiring {wiring!r}: choose one of {', '.join(WIRINGS)}")
    if wiring == "shared" and not base.config.causal:
        raise MiniptError(
            f"base {base.name!r} reads in both directions, so that every text changes what the "
            "prompt computes and none can share it: use the concatenated wiring"
        )
    for name in set(gradients or ()) - {"choices"}:  # not all rows go back, as its gradient needs
        raise MiniptError(
            f'{name} does not learn beside a prompt: give `gradients` no other key than "choices"'
        )
    _check(base, batch, prompt)
    trace = Cache() if trace is None else trace
    trace.clear()
    return WIRINGS[wiring](base, prompt.vectors.astype(base.dtype), batch, trace, gradients)


def prompt_step(
    base: Base, prompt: SoftPrompt, batch: Batch
) -> tuple[float, dict[str, np.ndarray]]:
    """As `loss_and_gradient`, with the gradients of all arrays that a prompt may have, by name."""
    wanted = {} if prompt.head is None else {"choices": None}
    loss, gradient = loss_and_gradient(base, prompt, batch, gradients=wanted)
    of_head = {"head": wanted["choices"]} if wanted else {}
    return loss, {"prompt": gradient} | of_head


def shared(
    base: Base, vectors: np.ndarray, batch: Batch, trace: Trace, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """The prompt runs once, and all texts read what it leaves: P + B·T rows."""
    trace.note("prompt.vectors", vectors)  # (P, C)
    P = len(vectors)
    prompt = Stream("prompt", embed_vectors(base, vectors)[None], READ_NOTHING, wanted=P)
    text = _text(base, batch, start=P)
    trace.note("text.embedding", text.x)
    loss, (dprompt, _), _ = _step(base, [prompt, text], batch, trace, None, gradients)  # (1, P, C)
    trace.note_grad("prompt.vectors", dprompt[0])
    return loss, dprompt[0].copy()  # the caller's own: clipping changes it, the trace stays


def concatenated(
    base: Base, vectors: np.ndarray, batch: Batch, trace: Trace, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """The prompt stands in front of every text: B·(P+T) rows."""
    trace.note("prompt.vectors", vectors)  # (P, C)
    both = _together(base, vectors, batch)
    trace.note("text.embedding", both.x)
    loss, (dx,), _ = _step(base, [both], batch, trace, None, gradients)  # (B, P, C)
    gradient = dx.sum(0)  # (P, C): the same vectors stood in front of every text
    trace.note_grad("prompt.vectors", gradient)
    return loss, gradient.copy()


WIRINGS = {"shared": shared, "concatenated": concatenated}


def text_step(
    base: Base,
    batch: Batch,
    trace: Trace,
    past: Past | None = None,
    gradients: Gradients | None = None,
) -> tuple[float, Past]:
    """The texts alone, behind a past: their loss, and what it asks of the past's keys and values.

    trace: an empty one. past: as a prompt leaves it, or itself what is trained. gradients: what
    else is trained, by the names of the base's parameters; the trace then keeps the inputs of
    linear maps (`InputCache`).
    """
    start = _length(past)
    trained = gradients and gradients.keys() & base.params.keys()
    text = _text(base, batch, start, wanted=batch.ids.shape[1] if trained else 0)
    trace.note("text.embedding", text.x)
    loss, (dx,), dpast = _step(base, [text], batch, trace, past, gradients)
    if trained:
        embed_tokens_dw(base, dx, batch.ids, start, gradients)
    return loss, dpast


def run_prompt(base: Base, prompt: SoftPrompt | None) -> Past | None:
    """What a finished prompt leaves for texts to read, computed once and for all of them.

    It is read alone: in a base that is not causal it leaves something else in front of a text.
    """
    if prompt is None:
        return None
    x = embed_vectors(base, prompt.vectors.astype(base.dtype))[None]  # (1, P, C)
    stream = Stream("prompt", x, READ_NOTHING, lengths=np.array([x.shape[1]]))
    return forward(Pass(base, [stream], Untraced()))[1]


def logits(base: Base, batch: Batch, prompt: SoftPrompt | None = None) -> np.ndarray:
    """What the base answers after each text. (B, V), or (B, K) with choices

    Of answers of several tokens (N, V), one row for each that counts.
    Raises MiniptError as `loss_and_gradient` does.
    """
    _check(base, batch, prompt)
    return answerer(base, prompt)(batch)


def answerer(base: Base, prompt: SoftPrompt | None) -> Answer:
    """A function from batches to their logits (N, K) that reads the prompt as rarely as possible.

    A causal base reads it now and never again, another one in front of every text.
    """
    past = run_prompt(base, prompt) if base.config.causal else None
    if base.config.causal or prompt is None:
        return lambda batch: logits_after(base, batch, past)
    return lambda batch: logits_together(base, prompt.vectors, batch)


def logits_together(base: Base, vectors: np.ndarray, batch: Batch) -> np.ndarray:
    """As `logits`, with the prompt in front of every text, as each base allows. (N, V or K)

    vectors (P, C), or (B, P, C): a prompt for each text.
    """
    both = _together(base, vectors.astype(base.dtype), batch)
    hidden = forward(Pass(base, [both], Untraced()))[0]  # (B, R, C)
    return readout(base, hidden, batch, Untraced())


def logits_after(base: Base, batch: Batch, past: Past | None) -> np.ndarray:
    """As `logits`, with the prompt already read. (N, V or K)"""
    return readout(base, hidden_after(base, batch, past), batch, Untraced())


def hidden_after(base: Base, batch: Batch, past: Past | None) -> np.ndarray:
    """The hidden states that these answers are made from. (B, R, C)"""
    return forward(Pass(base, [_text(base, batch, _length(past))], Untraced(), past))[0]


def _text(base: Base, batch: Batch, start: int, wanted: int = 0) -> Stream:
    """The texts of a batch behind so many others' rows."""
    x = embed_tokens(base, batch.ids, start)  # (B, T, C)
    return Stream("text", x, rows_to_read(base, batch), wanted, batch.lengths)


def _together(base: Base, vectors: np.ndarray, batch: Batch) -> Stream:
    """Prompt and text as one sequence of P+T rows. vectors (P, C) or (B, P, C)"""
    B, (P, C) = len(batch.ids), vectors.shape[-2:]
    prompt = np.broadcast_to(embed_vectors(base, vectors), (B, P, C))
    text = _text(base, batch, start=P)
    x = np.concatenate([prompt, text.x], axis=1)  # (B, P+T, C)
    return Stream("text", x, text.read + P, wanted=P, lengths=batch.lengths + P)


def _length(past: Past | None) -> int:
    return past[0][0].shape[1] if past else 0


def _step(
    base: Base,
    streams: list[Stream],
    batch: Batch,
    trace: Trace,
    past: Past | None,
    gradients: Gradients | None,
) -> tuple[float, list[np.ndarray], Past]:
    """Forward to the loss and back: the loss, dx of each stream's wanted rows, dpast."""
    way = Pass(base, streams, trace, past, gradients)
    hidden = forward(way)[0]  # (B, R, C)
    loss, dhidden = _loss(base, hidden, batch, trace, gradients)
    dx, dpast = backward(way, dhidden)
    return loss, dx, dpast


def _loss(
    base: Base, hidden: np.ndarray, batch: Batch, trace: Trace, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """The batch's loss, and its gradient for hidden. (B, R, C) -> loss, dhidden (B, R, C)"""
    predictions = readout(base, hidden, batch, trace)  # (N, K)
    losses, probabilities = ops.cross_entropy(predictions, batch.answers)  # (N,), (N, K)
    trace.note("text.logits", predictions)
    trace.note("text.probabilities", probabilities)
    trace.note("text.loss", losses)

    dlosses = np.full_like(losses, 1.0 / len(losses))  # (N,)
    dlogits = ops.cross_entropy_dx(dlosses, probabilities, batch.answers)  # (N, K)
    trace.note_grad("text.loss", dlosses)
    trace.note_grad("text.logits", dlogits)
    if gradients:
        readout_dw(base, dlogits, batch, trace, gradients)
    return float(losses.mean()), readout_dx(base, dlogits, batch, trace, gradients)


def _check(base: Base, batch: Batch, prompt: SoftPrompt | None) -> None:
    config = base.config
    P, T = len(prompt.vectors) if prompt else 0, batch.ids.shape[1]
    if prompt and (prompt.vectors.shape[1:] != (config.channels,) or not P):
        raise MiniptError(
            f"base {base.name!r} needs vectors of {config.channels} channels, the prompt's array "
            f"has shape {prompt.vectors.shape}"
        )
    if P + T > config.context:
        raise MiniptError(
            f"{P} prompt vectors and {T} tokens exceed the {config.context} positions of base "
            f"{base.name!r}: shorten one of them"
        )
    choices, V = batch.choices, config.vocabulary
    if config.head is None and (choices is None or choices.ndim != 2):
        raise MiniptError(
            f"base {base.name!r} has no head to predict tokens with: give the batch vectors of "
            f"shape (K, {config.channels}) as its choices"
        )
    if choices is not None and choices.ndim == 2 and choices.shape[1] != config.channels:
        raise MiniptError(
            f"base {base.name!r} needs choices of {config.channels} channels, the batch's have "
            f"shape {choices.shape}"
        )
    checked = {"ids": (batch.ids, V), "targets": (batch.answers, V)}
    if choices is not None:
        checked["targets"] = (batch.answers, len(choices))
        if choices.ndim == 1:
            checked["choices"] = (choices, V)
    for name, (array, limit) in checked.items():
        if not array.size:
            raise MiniptError(f"the batch has no {name}: there is nothing to learn from")
        if array.min() < 0 or array.max() >= limit:
            raise MiniptError(f"the batch's {name} lie outside 0 to {limit - 1}")
