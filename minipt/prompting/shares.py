"""A batch in shares, which threads work on at the same time.

In: a batch, and a step on a batch. Out: what the step returns for the whole batch. The loss is a
mean over N answers, and share k has N_k of them:

    loss = Σ_k N_k / N loss_k,    so    gradient = Σ_k N_k / N gradient_k

The size of a step alone says into how many shares it is cut, and the sums have a fixed order. So
any number of threads gives the same bits. One share is forgotten before the next one begins on its
thread: a large batch needs no more memory than the shares that are worked on.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minipt.maths.threads import in_threads
from minipt.prompting.text import Batch
from minipt.transformer.base import Base
from minipt.transformer.trace import Gradients, Tape, add_gradient

# A batch of so many hidden numbers (rows times C) is cut in two. It is cut further as long as each
# share has SHARE of them. Smaller shares lose more to waiting for the interpreter's lock than they
# gain.
TWO_SHARES = 40_000
SHARE = 150_000

# From a share, an empty tape and what else to fill to the loss and one array of gradients.
Step = Callable[[Batch, Tape, Gradients | None], tuple[float, np.ndarray]]


def in_shares(
    step: Step, base: Base, batch: Batch, P: int, tape: Tape, gradients: Gradients | None
) -> tuple[float, np.ndarray]:
    """The loss and the array of gradients of a step on the whole batch; `gradients` are filled.

    P: how many rows stand in front of each text and go through the layers with it. A step that
    someone watches is one share.
    """
    shares = [batch] if tape.is_watched else cut(base, batch, P)
    if len(shares) == 1:
        return step(batch, tape, gradients)
    filled = [dict.fromkeys(gradients or ()) for _ in shares]
    results = in_threads(lambda k: step(shares[k], Tape(), filled[k]), range(len(shares)))
    answers = [count_answers(share) for share in shares]
    parts = [count / sum(answers) for count in answers]  # N_k / N
    for name in gradients or ():
        of_shares = zip(parts, filled, strict=True)
        add_gradient(gradients, name, sum(part * each[name] for part, each in of_shares))
    losses, arrays = zip(*results, strict=True)
    loss = sum(part * each for part, each in zip(parts, losses, strict=True))
    return loss, sum(part * each for part, each in zip(parts, arrays, strict=True))


def cut(base: Base, batch: Batch, P: int = 0) -> list[Batch]:
    """The shares of a batch, as many as its size allows, a power of two; each has an answer."""
    texts = count_texts(batch)
    rows = int(batch.lengths.sum()) + P * len(batch.ids)
    numbers = rows * base.config.channels
    most = max(numbers // SHARE, 2 if numbers >= TWO_SHARES else 1)
    count = 1
    while 2 * count <= min(most, texts):
        count *= 2
    shares = [share(batch, k, count) for k in range(count)]
    return [each for each in shares if count_answers(each)] or [batch]


def share(batch: Batch, k: int, count: int) -> Batch:
    """Every `count`-th text from the k-th on, so that long and short ones come to all."""
    rows = np.arange(len(batch.ids)).reshape(count_texts(batch), -1)[k::count].ravel()
    names = ("ids", "lengths", "targets", "positions")
    arrays = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    labels = None if batch.labels is None else batch.labels[k::count]
    return replace(batch, **{name: array[rows] for name, array in arrays.items()}, labels=labels)


def count_texts(batch: Batch) -> int:
    """The texts of a batch. Labels of several tokens take K rows of `ids` a text, else one."""
    return len(batch.ids) if batch.labels is None else len(batch.labels)


def count_answers(batch: Batch) -> int:
    """N: the answers whose mean the loss is."""
    return len(batch.right_choices)
