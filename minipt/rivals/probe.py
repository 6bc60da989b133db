"""The linear probe: the base only describes a text, and a linear map of the description learns.

Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes", at the
last layer. In: a frozen base, which reads the texts without a prompt and gives the features (C,) of
each. A decoder compares them with its output matrix, a masked-word head with its table; an
encoder's are a unit vector. Out: a weight (C, K) and a bias (K,) that make logits of them. What no
probe can find, a prompt has to make the base compute.

Features are neither centred nor scaled. Adam moves every weight by about the rate, however large
its gradient, and so a logit by about the rate times the sum of a text's |features|: 130 times the
rate behind the tiny base's last norm, 15 times with MiniLM's unit vectors. Hence the best rate
depends on the base.
"""

from dataclasses import replace

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.maths import ops
from minipt.prompting.readout import read_features
from minipt.prompting.text import Batch
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import Answerer, hidden_after
from minipt.tasks.task import Task
from minipt.transformer.base import Base
from minipt.transformer.trace import ForwardOnly


class ProbeLearner(Learner):
    """arrays: "weight" (C, K), "bias" (K,), zeros at the start: all classes are equally likely.

    Raises MiniptError for a task of responses, which has no classes.
    """

    name = "probe"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        if not task.labels:
            raise MiniptError("a probe is trained for labels, not for responses: tune a prompt")
        self.base, self.room = base, base.config.context
        # The weight stands in the place of vectors to compare with.
        unread = np.zeros((len(task.labels), base.config.channels), base.dtype)  # (K, C)
        question = question_format(base, task.template, task.label_words, unread)
        K = question.label_count
        self.question = replace(question, how="a linear probe of the base's features")
        self.arrays = {
            "weight": np.zeros((base.config.channels, K), base.dtype),
            "bias": np.zeros(K, base.dtype),
        }

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        x, targets = features(self.base, batch), batch.counted_targets  # (B, C), (B,)
        losses, probabilities = ops.cross_entropy(self._logits(x), targets)  # (B,), (B, K)
        dlosses = np.full_like(losses, 1.0 / len(losses))  # (B,)
        dlogits = ops.cross_entropy_dx(dlosses, probabilities, targets)  # (B, K)
        gradients = {"weight": ops.linear_dw(dlogits, x), "bias": ops.linear_db(dlogits)}
        return float(losses.mean()), gradients

    def answerer(self) -> Answerer:
        return lambda batch: self._logits(features(self.base, batch))

    def _logits(self, x: np.ndarray) -> np.ndarray:
        """(B, C) -> (B, K)"""
        return ops.linear(x, self.arrays["weight"], self.arrays["bias"])


def features(base: Base, batch: Batch) -> np.ndarray:
    """A row for each text: what the base makes its own answer from, without a prompt. (B, C)"""
    return read_features(base, hidden_after(base, batch, None), batch, ForwardOnly())
