"""One step of prompt tuning, in two wirings: the same loss and gradient, to rounding.

In: a `Base`, a `SoftPrompt`, a `Batch`. Out: the loss and the gradient of the prompt's vectors.

The textbook wiring, "concatenated", puts the prompt in front of every text and runs B·(P+T) rows:

    [vectors; text] (B, P+T, C) -> blocks -> hidden at the answer rows (B, R, C) -> loss

The "shared" wiring uses that a causal prompt never sees the text. The prompt goes through the
blocks once. In each block all B texts read the keys and values that it has left there:

    vectors (1, P, C) --> block --> block --> ...
                            | keys, values (Hkv, P, D): the texts' past
       text (B, T, C) --> block --> block --> ... -> hidden at the answer rows (B, R, C) -> loss

On the way back the texts' gradients of those keys and values enter the prompt's own.

A base that is not causal, such as BERT, knows only the textbook wiring: there the texts change what
the prompt computes.
"""

from collections.abc import Callable

import numpy as np

from minipt.errors import MiniptError
from minipt.maths import ops
from minipt.maths.threads import one_blas_thread
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import (
    label_logits,
    label_loss,
    readout,
    readout_dw,
    readout_dx,
    rows_to_read,
)
from minipt.prompting.shares import in_shares
from minipt.prompting.text import Batch
from minipt.transformer.base import Base
from minipt.transformer.layer import Past, StreamLayout, length_of
from minipt.transformer.model import backward, embed_tokens, embed_tokens_dw, embed_vectors, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly, Gradients, Tape, Trace

Answerer = Callable[[Batch], np.ndarray]  # from a batch to its logits (N, K)


def loss_and_gradient(
    base: Base,
    prompt: SoftPrompt,
    batch: Batch,
    trace: Trace | None = None,
    wiring: str | None = None,
    gradients: Gradients | None = None,
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of a batch in nats, and its gradient for the prompt's vectors.

    trace: a `Trace`, emptied and filled with this step's arrays by name. Everything is computed in
    the base's float type. wiring: "shared" or "concatenated", None: shared where the base allows
    it. In the concatenated one the rows called `text` begin with the prompt's. gradients: to be
    filled for "choices", the only key it may have, with the gradient of choices that are vectors
    (K, C).
    Returns the loss and d loss / d vectors (P, C).
    Raises MiniptError for an unknown wiring or one that the base does not allow, a prompt of
    another width, numbers that are not finite, targets or ids outside their range, a prompt and
    texts that are longer together than the base's context, and another key in `gradients`.
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
    tape = Tape() if trace is None else trace
    tape.clear()
    with one_blas_thread():
        return WIRINGS[wiring](base, prompt.vectors.astype(base.dtype), batch, tape, gradients)


def prompt_step(
    base: Base, prompt: SoftPrompt, batch: Batch
) -> tuple[float, dict[str, np.ndarray]]:
    """As `loss_and_gradient`, with the gradients of all arrays that a prompt may have, by name."""
    gradients = {} if prompt.head is None else {"choices": None}
    loss, gradient = loss_and_gradient(base, prompt, batch, gradients=gradients)
    of_head = {"head": gradients["choices"]} if gradients else {}
    return loss, {"prompt": gradient} | of_head


def shared(
    base: Base, vectors: np.ndarray, batch: Batch, tape: Tape, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """Run the prompt; run the texts behind it; carry what they ask of it back through it."""
    tape.show("prompt.vectors", vectors)  # (P, C)
    layout = StreamLayout(base, _prompt_stream(base, vectors), tape)
    unread, prompt_kv = forward(layout)

    def step(share: Batch, tape: Tape, gradients: Gradients | None) -> tuple[float, np.ndarray]:
        loss, dprompt_kv = text_step(base, share, tape, prompt_kv, gradients)
        return loss, np.array(dprompt_kv)  # (L, 2, Hkv, P, D)

    loss, dprompt_kv = in_shares(step, base, batch, 0, tape, gradients)
    dkv = [(dkey, dvalue) for dkey, dvalue in dprompt_kv]  # (Hkv, P, D) twice, of each layer
    dprompt, _ = backward(layout, np.zeros_like(unread), dkv_from_readers=dkv)  # (1, P, C)
    tape.show_grad("prompt.vectors", dprompt[0])
    return loss, dprompt[0].copy()  # the caller's own: clipping changes it, the trace stays


def concatenated(
    base: Base, vectors: np.ndarray, batch: Batch, tape: Tape, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """The prompt stands in front of every text: B·(P+T) rows."""
    tape.show("prompt.vectors", vectors)  # (P, C)

    def step(share: Batch, tape: Tape, gradients: Gradients | None) -> tuple[float, np.ndarray]:
        layout = StreamLayout(base, _joined_stream(base, vectors, share), tape)
        loss, dx, _ = _forward_and_back(layout, share, gradients)  # dx (B, P, C)
        return loss, dx.sum(0)  # (P, C): the same vectors stand in front of every text

    loss, gradient = in_shares(step, base, batch, len(vectors), tape, gradients)
    tape.show_grad("prompt.vectors", gradient)
    return loss, gradient.copy()


WIRINGS = {"shared": shared, "concatenated": concatenated}


def text_step(
    base: Base,
    batch: Batch,
    tape: Tape,
    past: Past | None = None,
    gradients: Gradients | None = None,
) -> tuple[float, Past]:
    """The texts alone, behind a past: their loss, and what it asks of the past's keys and values.

    past: what a prompt leaves, or an array that is trained itself. gradients: as in `StreamLayout`;
    the tape has to know the names of parameters too.
    """
    trained = gradients and gradients.keys() & base.params.keys()
    stream = _text_stream(base, batch, past, batch.ids.shape[1] if trained else 0)
    layout = StreamLayout(base, stream, tape, past, gradients)
    loss, dx, dpast = _forward_and_back(layout, batch, gradients)
    if trained:
        embed_tokens_dw(base, dx, batch.ids, length_of(past), gradients)
    return loss, dpast


def run_prompt(base: Base, prompt: SoftPrompt | None) -> Past | None:
    """The keys and values that a finished prompt leaves for texts, computed once for all of them.

    The prompt runs alone. In a base that is not causal it leaves others in front of a text.
    """
    if prompt is None:
        return None
    stream = _prompt_stream(base, prompt.vectors.astype(base.dtype))
    with one_blas_thread():
        return forward(StreamLayout(base, stream, ForwardOnly()))[1]


@one_blas_thread()
def logits(base: Base, batch: Batch, prompt: SoftPrompt | None = None) -> np.ndarray:
    """What the base answers after each text. (B, V), or (B, K) with choices

    Of answers of several tokens (N, V), one row for each that counts. Of labels of several tokens
    (B / K, K): the sum of the logarithms of its tokens' probabilities for each label.
    Raises MiniptError as `loss_and_gradient` does.
    """
    _check(base, batch, prompt)
    return answerer(base, prompt)(batch)


def answerer(base: Base, prompt: SoftPrompt | None) -> Answerer:
    """A function from batches to their logits (N, K), which runs the prompt as rarely as it can.

    In front of a causal base the prompt runs now and never again, else in front of every text.
    """
    check_prompt(base, prompt)
    past = run_prompt(base, prompt) if base.config.causal else None
    if base.config.causal or prompt is None:
        return lambda batch: logits_after(base, batch, past)
    return lambda batch: logits_together(base, prompt.vectors, batch)


def logits_together(base: Base, vectors: np.ndarray, batch: Batch) -> np.ndarray:
    """As `logits`, with the prompt in front of every text, as each base allows. (N, V or K)

    vectors (P, C), or (B, P, C): a prompt for each text.
    """
    hidden = hidden_together(base, vectors, batch)  # (B, R, C)
    return label_logits(readout(base, hidden, batch, ForwardOnly()), batch)


def logits_after(base: Base, batch: Batch, past: Past | None) -> np.ndarray:
    """As `logits`, behind the keys and values of a prompt. (N, V or K)"""
    hidden = hidden_after(base, batch, past)  # (B, R, C)
    return label_logits(readout(base, hidden, batch, ForwardOnly()), batch)


def hidden_after(base: Base, batch: Batch, past: Past | None) -> np.ndarray:
    """The hidden states that these answers are made from. (B, R, C)"""
    stream = _text_stream(base, batch, past)
    return forward(StreamLayout(base, stream, ForwardOnly(), past))[0]


def hidden_together(base: Base, vectors: np.ndarray, batch: Batch) -> np.ndarray:
    """The same with the prompt in front of every text. (B, R, C)"""
    stream = _joined_stream(base, vectors.astype(base.dtype), batch)
    return forward(StreamLayout(base, stream, ForwardOnly()))[0]


def _prompt_stream(base: Base, vectors: np.ndarray) -> Stream:
    """The prompt alone: nothing of it is read out, all of it needs a gradient. vectors (P, C)"""
    x, answer_rows = embed_vectors(base, vectors)[None], np.empty((1, 0), np.int64)  # (1, P, C)
    return Stream("prompt", x, answer_rows, leading_grads=len(vectors), leaves_kv=True)


def _text_stream(base: Base, batch: Batch, past: Past | None, leading_grads: int = 0) -> Stream:
    """The texts of a batch, behind a past."""
    x = embed_tokens(base, batch.ids, length_of(past))  # (B, T, C)
    return Stream("text", x, rows_to_read(base, batch), leading_grads, batch.lengths)


def _joined_stream(base: Base, vectors: np.ndarray, batch: Batch) -> Stream:
    """Prompt and text as one sequence of P+T rows. vectors (P, C) or (B, P, C)"""
    B, (P, C) = len(batch.ids), vectors.shape[-2:]
    prompts = np.broadcast_to(embed_vectors(base, vectors), (B, P, C))
    texts = embed_tokens(base, batch.ids, start=P)  # (B, T, C)
    x = np.concatenate([prompts, texts], axis=1)  # (B, P+T, C)
    return Stream("text", x, rows_to_read(base, batch) + P, P, batch.lengths + P)


def _forward_and_back(
    layout: StreamLayout, batch: Batch, gradients: Gradients | None
) -> tuple[float, np.ndarray, Past]:
    """Forward to the loss and back. -> loss, dx (B, n, C) of the leading rows, dpast"""
    base, tape = layout.base, layout.tape
    tape.show("text.embedding", layout.stream.x)  # (B, T, C)
    hidden, _ = forward(layout)  # (B, R, C)
    logits = readout(base, hidden, batch, tape)  # (N, K)
    losses, probabilities = ops.cross_entropy(logits, batch.counted_targets)  # (N,), (N, K)
    tape.show("text.logits", logits)
    tape.show("text.probabilities", probabilities)
    tape.show("text.loss", losses)
    if batch.labels is None:
        loss, dlosses = losses.mean(), np.full_like(losses, 1.0 / len(losses))  # (N,)
    else:
        loss, dlosses = label_loss(losses, batch, tape)
    dlogits = ops.cross_entropy_dx(dlosses, probabilities, batch.counted_targets)  # (N, K)
    tape.show_grad("text.loss", dlosses)
    tape.show_grad("text.logits", dlogits)
    if gradients:
        readout_dw(base, dlogits, batch, tape, gradients)
    dhidden = readout_dx(base, dlogits, batch, tape, gradients)  # (B, R, C)
    return float(loss), *backward(layout, dhidden)


def check_prompt(base: Base, prompt: SoftPrompt | None) -> None:
    """Raise MiniptError for a prompt of another width, or with numbers that are not finite."""
    if prompt is None:
        return
    P, C = prompt.vectors.shape
    if base.config.channels != C or not P:
        raise MiniptError(
            f"base {base.name!r} needs vectors of {base.config.channels} channels, the prompt's "
            f"array has shape {prompt.vectors.shape}"
        )
    with np.errstate(over="ignore"):  # float64 may hold what float32 cannot
        finite = np.isfinite(prompt.vectors.astype(base.dtype)).all()
    if not finite:
        raise MiniptError("the prompt holds numbers that are not finite: tune it again")


def _check(base: Base, batch: Batch, prompt: SoftPrompt | None) -> None:
    config = base.config
    check_prompt(base, prompt)
    P, T = len(prompt.vectors) if prompt else 0, batch.ids.shape[1]
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
    if choices is not None and not np.isfinite(choices).all():
        raise MiniptError("the batch's choices hold numbers that are not finite")
    checked = {"ids": (batch.ids, V), "targets": (batch.counted_targets, V)}
    if choices is not None:
        checked["targets"] = (batch.counted_targets, len(choices))
        if choices.ndim == 1:
            checked["choices"] = (choices, V)
    for name, (array, limit) in checked.items():
        if not array.size:
            raise MiniptError(f"the batch has no {name}: there is nothing to learn from")
        if array.min() < 0 or array.max() >= limit:
            raise MiniptError(f"the batch's {name} lie outside 0 to {limit - 1}")
