"""The effect of a prompt's vectors: who reads them, and what is lost without each.

In: a base, a tuned prompt and its task. Out: how much of its attention a text gives to each vector,
out of the trace of the step that training takes; and accuracy and loss with one vector after the
other taken away. Both are of validation texts.
"""

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from minipt.learning.evaluate import encode_split, evaluate, task_question
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import rows_to_read
from minipt.prompting.starts import frequent_ids
from minipt.prompting.text import batches
from minipt.prompting.wiring import loss_and_gradient
from minipt.tasks.task import Pairs, Split, Task
from minipt.transformer.base import Base
from minipt.transformer.trace import Trace

LOOKED_AT = 32  # texts whose attention is averaged
ATTENTION_BATCH = 4  # a trace holds a whole step, so its batch is small
TEXTS = 128


@dataclass(frozen=True)
class Ablation:
    """The results of a whole prompt, and with each of its P vectors replaced.

    accuracy, loss: of the whole prompt; accuracies, losses (P,): without each; texts: of how many.
    """

    accuracy: float
    loss: float
    accuracies: np.ndarray
    losses: np.ndarray
    texts: int


def attention(base: Base, prompt: SoftPrompt, task: Task, texts: int = LOOKED_AT) -> np.ndarray:
    """The share of their attention that a text's rows give to each vector, by layer. (L, P)

    The mean over heads, over a text's rows and over the first validation texts, out of the trace.
    A row's weights for prompt and text sum to 1, so a layer's sum to at most 1. Of the last layer
    only the rows count that the answer is read from: no other is computed.
    """
    P, L = len(prompt.vectors), base.config.layers
    split = _first(task.validation, texts)
    question = task_question(base, prompt, split, task)
    rows, targets, _ = encode_split(base, question, split, base.config.context - P)
    total, trace = np.zeros((L, P)), Trace()
    for _, batch in batches(rows, targets, question, ATTENTION_BATCH):
        loss_and_gradient(base, prompt, batch, trace)
        B, T = batch.ids.shape
        all_rows = np.broadcast_to(np.arange(T), (B, T))
        for i in range(L):
            asking = rows_to_read(base, batch) if i == L - 1 else all_rows  # (B, R)
            answers = i == L - 1 and base.config.head is not None
            real = batch.counted if answers else asking < batch.lengths[:, None]  # (B, R)
            # In the concatenated wiring the prompt's own P rows stand before the text's.
            weights = trace[f"text.h{i}.attn.weights"][:, :, -asking.shape[1] :, :P]  # (B, H, R, P)
            by_row = np.where(real[:, :, None], weights.mean(1), 0.0)  # (B, R, P)
            total[i] += (by_row.sum(1) / real.sum(1)[:, None]).sum(0)
    return total / len(split.texts)


def ablate(base: Base, prompt: SoftPrompt, task: Task, texts: int = TEXTS) -> Ablation:
    """Accuracy and loss on the first validation texts, whole and without each vector.

    "Without": the frequent tokens' mean embedding, which says nothing in particular, stands in its
    place. Were the place left empty, all that stands behind it would move to other positions, and
    that alone changes what the base computes.
    """
    split = _first(task.validation, texts)
    whole = evaluate(base, prompt, split, task)
    nothing = base.params["token.table"][frequent_ids(base)].mean(0)  # (C,)
    without = []
    for p in tqdm(range(len(prompt.vectors)), desc="without", unit="vector", disable=None):
        vectors = prompt.vectors.copy()
        vectors[p] = nothing
        without.append(evaluate(base, replace(prompt, vectors=vectors), split, task))
    return Ablation(
        accuracy=whole.accuracy,
        loss=whole.loss,
        accuracies=np.array([one.accuracy for one in without]),
        losses=np.array([one.loss for one in without]),
        texts=len(split.texts),
    )


def _first(split: Split | Pairs, texts: int) -> Split | Pairs:
    """A split's first texts, which are in no particular order."""
    if isinstance(split, Pairs):
        return Pairs(split.texts[:texts], split.responses[:texts])
    return Split(split.texts[:texts], split.labels[:texts])
