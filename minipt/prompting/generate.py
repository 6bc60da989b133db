"""Generation: a causal base writes on after a text, one token a step.

In: a `Base`, a finished prompt or none, a text. Out: the text's continuation, piece by piece. The
prompt's keys and values are computed once, and the text's in the first step. From then on each step
runs one row, that of the token just chosen. It appends the row's keys and values to the past, which
the next step reads. The prompt is part of that past and is never put in again.
"""

from collections.abc import Callable, Iterator

import numpy as np

from minipt.errors import MiniptError
from minipt.maths.threads import one_blas_thread
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import readout
from minipt.prompting.text import Batch, encode
from minipt.prompting.wiring import run_prompt
from minipt.transformer.base import Base
from minipt.transformer.layer import Past, StreamLayout, empty_past
from minipt.transformer.model import embed_tokens, forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly

LIMIT = 50
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a decoder shows for a character's first bytes


def generate(
    base: Base,
    prompt: SoftPrompt | None,
    text: str,
    limit: int = LIMIT,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """What the base writes after a text, in pieces of whole characters as they come.

    prompt: its vectors stand in front, and the text is put into the template that it was tuned
        with, if there was one; None: the base alone.
    limit: the most tokens to write. The end comes earlier at any of the tokenizer's special tokens,
        such as <|endoftext|>, and where the base has no more positions.
    temperature, top_k, top_p, seed: how a token is chosen, see `choose`.

    Raises MiniptError, before anything is computed, for a base that does not predict next tokens, a
    prompt of another width, a text that does not fit the base's context, and settings out of range.
    """
    _check_base(base, prompt)
    _check_settings(limit, temperature, top_k, top_p, seed)
    template = prompt.about.get("template", "{text}") if prompt else "{text}"
    room = base.config.context - (len(prompt.vectors) if prompt else 0)
    (ids,), (cut,) = encode(base, template, [text], room)
    if cut:
        raise MiniptError(
            f"the text is longer than the {room} tokens that base {base.name!r} has room for: "
            "shorten it"
        )
    rng = np.random.default_rng(seed)

    def pick(logits: np.ndarray) -> int:
        return choose(logits, temperature, top_k, top_p, rng)

    return write(base, prompt, ids, limit, pick)


def write(
    base: Base,
    prompt: SoftPrompt | None,
    ids: np.ndarray,
    limit: int,
    pick: Callable[[np.ndarray], int],
) -> Iterator[str]:
    """As `generate`, after tokens, ids (T,); pick: a token for the logits (V,) of what may follow.

    The tokens leave the base at least one position.
    """
    return _pieces(base, ids, _tokens(base, prompt, ids, limit, pick))


def end_tokens(base: Base) -> set[int]:
    """The tokens at which generation stops: all that are special to the base's tokenizer."""
    special = base.tokenizer.get_added_tokens_decoder().items()
    return {token for token, added in special if added.special}


@one_blas_thread()
def advance(base: Base, ids: np.ndarray, past: Past) -> tuple[np.ndarray, Past]:
    """Read tokens that stand behind a past: what may follow them, and the past of what follows.

    ids (T,) -> logits (V,), and past with keys and values (Hkv, P+T, D)
    """
    start = past[0][0].shape[1]
    x = embed_tokens(base, ids[None], start)  # (1, T, C)
    last = np.array([[len(ids) - 1]])  # (1, 1)
    text = Stream("text", x, last, leaves_kv=True)
    hidden, own_kv = forward(StreamLayout(base, text, ForwardOnly(), past))  # (1, 1, C)
    grown = [
        (np.concatenate([past_key, key], axis=1), np.concatenate([past_value, value], axis=1))
        for (past_key, past_value), (key, value) in zip(past, own_kv, strict=True)
    ]
    batch = Batch(ids[None], [len(ids)], [0])
    return readout(base, hidden, batch, ForwardOnly())[0], grown


def choose(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    rng: np.random.Generator,
) -> int:
    """The next token: at temperature 0 the likeliest, of equals the first; else drawn.

    The logits are divided by the temperature, then those outside the `top_k` likeliest are left
    out, then those outside the nucleus `top_p`; None leaves out nothing. logits (V,)
    """
    if temperature == 0.0:
        return int(logits.argmax())
    probabilities = soften(logits, temperature)  # (V,)
    if top_k is not None:
        probabilities = keep_top_k(probabilities, top_k)
    if top_p is not None:
        probabilities = keep_top_p(probabilities, top_p)
    return int(rng.choice(len(logits), p=probabilities))


def soften(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature): below 1 the likely become likelier, above 1 less so.

    In float64, so that the probabilities sum to 1 for whoever draws from them. (V,) -> (V,)
    """
    below = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):  # at a tiny temperature all but the likeliest become exp(-inf)
        powers = np.exp(below / temperature)
    return powers / powers.sum()


def keep_top_k(probabilities: np.ndarray, k: int) -> np.ndarray:
    """The k largest, of equals the first, made to sum to 1; 0 elsewhere. (V,) -> (V,)"""
    kept = np.argsort(-probabilities, kind="stable")[:k]
    return _only(probabilities, kept)


def keep_top_p(probabilities: np.ndarray, p: float) -> np.ndarray:
    """The nucleus: the fewest and likeliest tokens that have p together, made to sum to 1.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1. The likeliest
    is always in it. (V,) -> (V,)
    """
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]  # what the likelier ones have
    return _only(probabilities, order[before < p])


def _only(probabilities: np.ndarray, kept: np.ndarray) -> np.ndarray:
    others_gone = np.zeros_like(probabilities)
    others_gone[kept] = probabilities[kept]
    return others_gone / others_gone.sum()


def _tokens(
    base: Base,
    prompt: SoftPrompt | None,
    ids: np.ndarray,
    limit: int,
    pick: Callable[[np.ndarray], int],
) -> Iterator[int]:
    """Token ids until a special one, the limit or the context's end."""
    ends = end_tokens(base)
    past = run_prompt(base, prompt) or empty_past(base.config, base.dtype)
    # The last token needs no position: nothing reads it.
    room = base.config.context - past[0][0].shape[1] - len(ids) + 1
    for _ in range(min(limit, room)):
        logits, past = advance(base, ids, past)
        if not np.isfinite(logits).all():
            raise MiniptError("with this prompt the next token's logits are not finite: tune again")
        token = pick(logits)
        if token in ends:
            return
        yield token
        ids = np.array([token])


def _pieces(base: Base, ids: np.ndarray, tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to the text; bytes wait for the rest of their character.

    The text in front is decoded too, because some decoders drop a leading space.
    """
    whole = ids.tolist()
    shown = decoded = base.tokenizer.decode(whole)
    for token in tokens:
        whole.append(token)
        decoded = base.tokenizer.decode(whole)
        if len(decoded) > len(shown) and not decoded.endswith(INCOMPLETE):
            yield decoded[len(shown) :]
            shown = decoded
    if len(decoded) > len(shown):
        yield decoded[len(shown) :]


def _check_base(base: Base, prompt: SoftPrompt | None) -> None:
    config = base.config
    if not config.causal or config.head != "language":
        raise MiniptError(
            f"base {base.name!r} is not made to predict the next token, so it cannot write: choose "
            "a causal language model such as tiny"
        )
    if prompt and prompt.vectors.shape[1:] != (config.channels,):
        raise MiniptError(
            f"base {base.name!r} needs vectors of {config.channels} channels, the prompt's array "
            f"has shape {prompt.vectors.shape}"
        )


def _check_settings(
    limit: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    rules = (
        (limit >= 1, "limit is at least 1", limit),
        (0.0 <= temperature < np.inf, "temperature is 0 or a positive number", temperature),
        (top_k is None or top_k >= 1, "top_k is at least 1", top_k),
        (top_p is None or 0.0 < top_p <= 1.0, "top_p lies above 0 and is at most 1", top_p),
        (seed >= 0, "seed is 0 or a positive number", seed),
    )
    for holds, rule, given in rules:
        if not holds:
            raise MiniptError(f"{rule}, not {given}")
