"""Where a prompt starts: random numbers, frequent tokens, label words, a text, another prompt.

In: a base and the name of a start, or a prompt to go on from. Out: a `SoftPrompt` to be tuned.
"text" and "normal" are PEFT's starts, the others are those of Lester et al. 2021, section 3.2. Each
is a function with an entry in `STARTS`.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np

from minipt.errors import MiniptError
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.prompt_file import check_vectors
from minipt.prompting.text import tokens
from minipt.transformer.base import Base

FREQUENT_TOKENS = 5000


def init_prompt(
    base: Base,
    length: int = 20,
    method: str = "vocab",
    seed: int = 0,
    text: str | None = None,
    label_words: Sequence[str] | None = None,
) -> SoftPrompt:
    """A prompt of `length` vectors to begin with. The same seed gives the same bits.

    method: "uniform", numbers from [-0.5, 0.5]; "vocab", the embeddings of frequent tokens;
    "labels", an embedding of each of `label_words`, then as "vocab"; "text", those of a `text`;
    "normal", numbers from N(0, 1), with which vectors are much longer than a word's.

    Raises MiniptError for a length that leaves no room for text, a seed that is no whole number
    from 0 on, an unknown method, and for a missing text or missing label words where the method
    needs them.
    """
    most = base.config.context - 1
    if not (isinstance(seed, Integral) and seed >= 0):
        raise MiniptError(f"a seed is a whole number from 0 on, not {seed!r}")
    if not (isinstance(length, Integral) and 1 <= length <= most):
        raise MiniptError(f"a prompt for base {base.name!r} has 1 to {most} vectors, not {length}")
    if method not in STARTS:
        raise MiniptError(f"unknown start {method!r}: choose one of {', '.join(STARTS)}")
    rng = np.random.default_rng(seed)
    vectors = STARTS[method](base, length, rng=rng, text=text, label_words=label_words)
    about = {"method": method, "seed": int(seed)} | ({"text": text} if method == "text" else {})
    return _prompt(base, vectors, about)


def go_on_from(base: Base, prompt: SoftPrompt, method: str, seed: int) -> SoftPrompt:
    """A prompt to begin with that has the vectors of another one. method: the other's name.

    Its head is left out. Raises MiniptError for a prompt that was made for another base, leaves no
    room for text or holds numbers that are not finite.
    """
    made_for = {"fingerprint": prompt.fingerprint, "base_name": prompt.base_name}
    check_vectors("the prompt to go on from", prompt.vectors, made_for, base)
    adapter = {name: prompt.about[name] for name in ("adapter",) if name in prompt.about}
    return _prompt(base, prompt.vectors, adapter | {"method": method, "seed": seed})


def _prompt(base: Base, vectors: np.ndarray, about: dict) -> SoftPrompt:
    if not base.config.causal:  # PEFT's only kind that puts a prompt in front of an encoder
        about = {"adapter": {"task_type": "FEATURE_EXTRACTION"}} | about
    return SoftPrompt(vectors.astype(base.dtype), base.fingerprint, base.name, about)


def draw_uniform(base: Base, length: int, rng: np.random.Generator, **_: object) -> np.ndarray:
    """Numbers from [-0.5, 0.5], all equally likely. (P, C)"""
    return rng.uniform(-0.5, 0.5, (length, base.config.channels))


def draw_normal(base: Base, length: int, rng: np.random.Generator, **_: object) -> np.ndarray:
    """Numbers from N(0, 1), as PEFT draws them where it has no text. (P, C)

    Word embeddings are smaller: 0.15 is the size of a number in the tiny base. So the learning rate
    must fit. One that suits words hardly turns vectors of this length.
    """
    return rng.standard_normal((length, base.config.channels))


def draw_frequent(base: Base, length: int, rng: np.random.Generator, **_: object) -> np.ndarray:
    """The embeddings of frequent tokens, drawn without repetition if there are enough. (P, C)"""
    frequent = frequent_ids(base)
    drawn = rng.choice(frequent, length, replace=length > len(frequent))  # (P,)
    return base.params["token.table"][drawn]


def embed_labels(
    base: Base,
    length: int,
    rng: np.random.Generator,
    label_words: Sequence[str] | None,
    **_: object,
) -> np.ndarray:
    """For each label word the mean of its tokens' embeddings, then as `draw_frequent`. (P, C)"""
    if not label_words:
        raise MiniptError('the start "labels" needs label words')
    table = base.params["token.table"]  # (V, C)
    words = np.stack([table[tokens(base, word)].mean(0) for word in label_words[:length]])  # (K, C)
    return np.concatenate([words, draw_frequent(base, length - len(words), rng)])


def embed_text(base: Base, length: int, text: str | None, **_: object) -> np.ndarray:
    """The embeddings of the tokens of a text, repeated or cut to the length. (P, C)"""
    if not text:
        raise MiniptError('the start "text" needs a text')
    return base.params["token.table"][np.resize(tokens(base, text), length)]


STARTS: dict[str, Callable[..., np.ndarray]] = {
    "uniform": draw_uniform,
    "vocab": draw_frequent,
    "labels": embed_labels,
    "text": embed_text,
    "normal": draw_normal,
}


def word_ids(base: Base) -> np.ndarray:
    """The tokens that texts are made of, without special ones and BERT's unused ones. (W,)"""
    left_out = set()
    if base.tokenizer:
        left_out = set(base.tokenizer.get_added_tokens_decoder())
        vocabulary = base.tokenizer.get_vocab(with_added_tokens=False)
        left_out |= {i for token, i in vocabulary.items() if token.startswith("[unused")}
    return np.array([i for i in range(base.config.vocabulary) if i not in left_out])


def frequent_ids(base: Base) -> np.ndarray:
    """Those of `word_ids` below 5,000, the number that Lester et al. draw from.

    A tokenizer's training makes frequent tokens first. So low ids are single characters or bytes,
    then frequent words or parts of words. All tokens of a small vocabulary count as frequent.
    """
    words = word_ids(base)
    return words[words < FREQUENT_TOKENS]
