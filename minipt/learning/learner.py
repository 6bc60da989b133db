"""What learns: some arrays, and the way from a batch to their gradients.

In: a base, a task and settings; each kind of learner is made of these three. Out: a `Learner`,
which the loop trains. The prompt of `tune.py` is one, its rivals are the others.
"""

import numpy as np

from minipt.learning.optimizers import Arrays, Optimizer
from minipt.prompting.text import Batch, QuestionFormat
from minipt.prompting.wiring import Answerer
from minipt.transformer.base import Base


class Learner:
    """What learns, in front of a frozen base or in a copy of its parts."""

    name: str  # of the kind of learning
    base: Base  # the frozen model
    arrays: Arrays  # what is trained, by name, changed in place
    question: QuestionFormat  # how an answer is read
    room: int  # the positions that are left to a text
    goes_on_from: str = ""  # the sha256 of the prompt that it began as, where that was given

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        """The mean cross-entropy of a batch in nats, and its gradient for each of the arrays.

        rng: the step's own, for a learner that draws.
        """
        raise NotImplementedError

    def answerer(self) -> Answerer:
        """A function from batches to logits (N, K), with the arrays as they are now."""
        raise NotImplementedError

    def update(self, optimizer: Optimizer, gradients: Arrays, rate: float) -> None:
        """Change the arrays by one step."""
        optimizer.step(self.arrays, gradients, rate)

    def to_store(self) -> Arrays:
        """What one must store to answer as now: the arrays, unless smaller ones are enough."""
        return self.arrays

    def measurements(self) -> dict[str, float]:
        """What the history says about the arrays after a step."""
        return {}
