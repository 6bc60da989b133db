"""A prompt of real tokens, found by search: the gradient proposes, the loss decides.

In: a frozen base and a task. Out: P token ids. They can be read as text and typed in front of any
text. A token cannot move along a gradient. But to first order, the gradient g of the embedding at
its place says how the loss changes when the token v stands there instead of w:

    loss(v) ≈ loss(w) + (e_v - e_w) · g

(HotFlip: Ebrahimi et al. 2018, who raise the loss.) Each step takes one place. The tokens of the
largest -e_v · g are the candidates, and each is tried on the same batch. The best one stays if it
is better than the token before (after AutoPrompt: Shin et al. 2020, section 2.2, with another batch
to try on). The gradient is that of the soft prompt made of the tokens' embeddings.
"""

from dataclasses import replace

import numpy as np

from minipt.learning.evaluate import task_question
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays, Optimizer
from minipt.learning.settings import Settings
from minipt.maths.ops import cross_entropy
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import init_prompt, word_ids
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer, answerer, loss_and_gradient
from minipt.rivals.regularised import nearest_rows
from minipt.tasks.task import Task
from minipt.transformer.base import Base

CANDIDATES = 10


class DiscreteLearner(Learner):
    """arrays: "tokens" (P,), ids; the first ones are those nearest to a soft prompt's start.

    Their gradient is that of their embeddings, (P, C). The learning rate is not used.
    Raises MiniptError for a start that makes no sense.
    """

    name = "discrete"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        self.base = base
        self.table = base.params["token.table"]  # (V, C)
        self.question = task_question(base, None, task.train, task)
        self.room = base.config.context - settings.length
        self.start = init_prompt(
            base, settings.length, settings.method, settings.seed, settings.text, task.label_words
        )
        self.ordinary = word_ids(base)  # (O,)
        nearest = nearest_rows(self.table[self.ordinary], self.start.vectors)  # (P,)
        self.arrays = {"tokens": self.ordinary[nearest]}
        self.first = self.arrays["tokens"].copy()

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        loss, gradient = loss_and_gradient(self.base, self.soft(self.arrays["tokens"]), batch)
        place = int(rng.integers(len(gradient)))
        self.seen = batch, loss, place  # `update` searches on the same batch
        return loss, {"tokens": gradient}

    def update(self, optimizer: Optimizer, gradients: Arrays, rate: float) -> None:
        """Put the best candidate in its place, if it lowers the loss of the batch just seen."""
        batch, lowest, place = self.seen
        best = self.arrays["tokens"]
        for token in self.candidates(gradients["tokens"][place]):
            tried = self.arrays["tokens"].copy()
            tried[place] = token
            loss = batch_loss(self.base, self.soft(tried), batch)
            if loss < lowest:
                lowest, best = loss, tried
        self.arrays["tokens"][...] = best

    def candidates(self, gradient: np.ndarray) -> np.ndarray:
        """The tokens that promise the lowest loss, by the gradient at their place. (C,) -> ids"""
        promises = -(self.table[self.ordinary] @ gradient)  # (O,)
        return self.ordinary[np.argsort(-promises, kind="stable")[:CANDIDATES]]

    def soft(self, tokens: np.ndarray) -> SoftPrompt:
        """The tokens' embeddings as a soft prompt. tokens (P,)"""
        return replace(self.start, vectors=self.table[tokens])

    def answerer(self) -> Answerer:
        return answerer(self.base, self.soft(self.arrays["tokens"]))

    def measurements(self) -> dict[str, float]:
        return {"tokens_changed": int((self.arrays["tokens"] != self.first).sum())}

    def text(self) -> str:
        """The prompt as text."""
        return self.base.tokenizer.decode(self.arrays["tokens"].tolist())


def batch_loss(base: Base, prompt: SoftPrompt, batch: Batch) -> float:
    """The mean cross-entropy of a batch in nats, forward only."""
    losses, _ = cross_entropy(answerer(base, prompt)(batch), batch.right_choices)
    return float(losses.mean())
