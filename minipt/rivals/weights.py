"""Full fine-tuning, and its cheapest relative: the base's own numbers learn, in a copy.

In: a frozen base, which stays as it is. Out: learners whose arrays are copies of its parameters,
all of them or only the biases (BitFit: Ben Zaken, Goldberg and Ravfogel 2022). Forward and backward
are those of prompt tuning, without a prompt; the backward gets the names of the parameters that
learn. A base without a head compares with the frozen base's embeddings of the label sentences.
"""

from collections.abc import Iterable

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import task_question
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer, logits_after, text_step
from minipt.tasks.task import Task
from minipt.transformer.base import Base
from minipt.transformer.trace import Tape


class WeightsLearner(Learner):
    """Some parameters of a base, by name, in a copy; all others are shared with it.

    tuned: the base that holds the copies. The copies can be written to, its views of them cannot.
    """

    def __init__(self, base: Base, task: Task, names: Iterable[str]) -> None:
        self.base = base
        self.arrays = {name: base.params[name].copy() for name in names}
        self.tuned = with_params(base, self.arrays)
        self.question = task_question(base, None, task.train, task)
        self.room = base.config.context

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        return weights_step(self.tuned, batch, self.arrays)

    def answerer(self) -> Answerer:
        return lambda batch: logits_after(self.tuned, batch, None)


class FullLearner(WeightsLearner):
    """Full fine-tuning: every parameter learns."""

    name = "full"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        super().__init__(base, task, base.params)


class BitFitLearner(WeightsLearner):
    """Only the biases learn. Raises MiniptError for a base that has none, such as a Llama."""

    name = "bitfit"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        biases = [name for name in base.params if name.endswith(".bias")]
        if not biases:
            raise MiniptError(f"base {base.name!r} has no biases, so bitfit has nothing to train")
        super().__init__(base, task, biases)


def with_params(base: Base, arrays: Arrays) -> Base:
    """The base with other arrays under some names: read-only views of them, nothing copied."""
    views = {name: array.view() for name, array in arrays.items()}
    return Base(base.name, base.config, base.params | views, base.tokenizer)


def weights_step(tuned: Base, batch: Batch, names: Iterable[str]) -> tuple[float, Arrays]:
    """The loss of a batch without a prompt, and its gradient for some of the base's parameters.

    A parameter that the answer does not depend on has none.
    """
    gradients = dict.fromkeys(names)
    loss, _ = text_step(tuned, batch, Tape(gradients), gradients=gradients)
    return loss, {name: each for name, each in gradients.items() if each is not None}
