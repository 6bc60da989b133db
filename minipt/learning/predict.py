"""The answers of tuned prompts to new texts.

In: a base, one or several prompts, and texts. Out: a `Prediction` for each text.
"""

from collections.abc import Sequence

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.observe import Prediction, observe_each
from minipt.prompting.prompt import SoftPrompt
from minipt.transformer.base import Base


def predict(
    base: Base,
    prompt: SoftPrompt | Sequence[SoftPrompt],
    texts: Sequence[str],
    which: Sequence[int] | None = None,
) -> list[Prediction]:
    """The answers of a tuned prompt, or of several over one base, to new texts, in their order.

    which (N,): with several prompts, the index of the one that answers each text. In front of a
    causal base all texts are answered in one pass.
    Raises MiniptError for a prompt that was not tuned for labels, or for another base, for texts
    that are no list of strings, a `which` that does not fit, a text without tokens, and answers
    that are not finite.
    """
    prompts = [prompt] if isinstance(prompt, SoftPrompt) else list(prompt)
    which = _check_which(prompts, texts, which, isinstance(prompt, SoftPrompt))
    answers: list[Prediction | None] = [None] * len(texts)
    for k, seen in enumerate(observe_each(base, prompts, texts, which)):
        for i, answer in zip((which == k).nonzero()[0], seen.predictions(), strict=True):
            answers[i] = answer
    return answers


def _check_which(
    prompts: list[SoftPrompt], texts: Sequence[str], which: Sequence[int] | None, is_one: bool
) -> np.ndarray:
    """Which of the prompts answers each text. (N,)"""
    if is_one and which is None:
        return np.zeros(len(texts), np.int64)
    found = np.asarray(() if which is None else which)
    fits = (found.shape == (len(texts),) and found.dtype.kind in "iu") or not len(texts)
    if not fits or not ((found >= 0) & (found < len(prompts))).all():
        raise MiniptError(
            f"which says for each of the {len(texts)} texts the index of its prompt, 0 to "
            f"{len(prompts) - 1}: give so many numbers"
        )
    return found.astype(np.int64)
