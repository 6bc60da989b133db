"""Prompt tuning: what learns is a prompt, in front of a base that does not.

In: a frozen `Base` and a `Task`. Out: a `Run` with the prompt that did best on validation, the
history of every step and the result on the test split. The loop stands in `learn.py`. The story
continues in `store.py`, which keeps a run, and in `plot.py` and `report.py`, which make a picture
and a page of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import Evaluation, task_question
from minipt.learning.loop import Arrays, Learner, Settings, learn
from minipt.learning.workers import Workers
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.readout import choice_vectors
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch, QuestionFormat
from minipt.prompting.wiring import Answer, answerer, prompt_step
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# What a base that has a name is tuned with where nothing else is said.
DEFAULTS_FOR = {
    "smollm2-135m": {
        "method": "text",
        "steps": 500,
        "learning_rate": 0.02,
        "evaluate_every": 250,
    },
    "minilm": {
        "steps": 900,
        "batch_size": 32,
        "learning_rate": 0.02,
        "evaluate_every": 150,
    },
}


def defaults_for(base: Base, task: Task | None = None, **settings: object) -> Settings:
    """The settings for a base: those given, then those that suit it, then the defaults.

    A start from words begins with the task's instruction where no other words are given; for a task
    without one, a start from words that was not asked for is the default start. Words alone ask for
    a start from them.

    Raises MiniptError for a value that makes no sense, by its name.
    """
    asked = {"method": "text"} if settings.get("text") is not None else {}
    chosen = DEFAULTS_FOR.get(base.name, {}) | asked | settings
    opening = task.opening if task else ""
    if chosen.get("method") == "text" and chosen.get("text") is None:
        if opening:
            chosen["text"] = opening
        elif "method" in settings:
            raise MiniptError('the start "text" needs a text: give one, or choose another start')
        else:
            del chosen["method"]
    return Settings(**chosen)


class PromptLearner(Learner):
    """P vectors in front of every text, and, if it is wanted, a linear head beside them.

    arrays: "prompt" (P, C), "head" (K, C). start: the prompt before the first step. prompt: the
    same around the arrays that learn.
    Raises MiniptError for a start that makes no sense, and for a head where responses are learnt.
    """

    name = "prompt"

    def __init__(self, base: Base, task: Task, chosen: Settings) -> None:
        self.base = base
        self.question = task_question(base, None, task.train, task)
        self.start = _start(base, task, self.question, chosen)
        self.arrays = self.start.arrays()
        self.prompt = self.start.with_arrays(self.arrays)
        self.room = base.config.context - chosen.length
        self.workers: Workers | None = None
        if chosen.head:
            how = "a trained linear head"
            self.question = replace(self.question, choices=self.prompt.head, how=how)

    @contextmanager
    def at_work(self, workers: int) -> Iterator[None]:
        if workers == 1:
            yield
            return
        with Workers(self.base, workers) as self.workers:
            try:
                yield
            finally:
                self.workers = None

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        if self.workers:
            return self.workers.prompt_step(self.prompt, batch)
        return prompt_step(self.base, self.prompt, batch)

    def answerer(self) -> Answer:
        return answerer(self.base, self.prompt)

    def begin_with(self, start: SoftPrompt) -> None:
        """Take another prompt's vectors for the start."""
        self.start.vectors[...] = start.vectors
        self.arrays["prompt"][...] = start.vectors
        self.start.about["method"] = self.prompt.about["method"] = "another prompt"

    def measures(self) -> dict[str, float]:
        vectors = self.prompt.vectors
        return {
            "prompt_norm": float(np.linalg.norm(vectors)),
            "distance": float(np.linalg.norm(vectors - self.start.vectors)),
        }


@dataclass
class Run:
    """A finished or interrupted run. `prompt` is the best on validation, not the last.

    history: a dict a step with step, loss, gradient_norm, prompt_norm (|vectors|), distance (from
    the start) and rate, and, where the validation split was looked at, validation_accuracy and
    validation_loss; entry 0 is the start. reading: how the answer was read, in words. cut: how many
    training texts were shortened to fit.
    """

    prompt: SoftPrompt
    history: list[dict]
    settings: Settings
    test: Evaluation
    best_step: int
    seconds: float
    reading: str
    cut: int
    interrupted: bool

    @property
    def test_accuracy(self) -> float:
        """The share of the test split's texts that the prompt answers rightly."""
        return self.test.accuracy


def tune(
    base: Base,
    task: Task,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    **settings: object,
) -> Run:
    """Learn a prompt for a task; the base is not changed, which is checked by its fingerprint.

    checkpoint: a file to write at each look at the validation split; with `resume` the run
    continues from it, and the result has the same bits as without the interruption. settings: the
    fields of `Settings`, such as length=20, steps=600, seed=0; a script that sets workers begins
    its work under `if __name__ == "__main__":`, since each worker reads it too. Ctrl-C ends the
    learning: what is returned is the best prompt so far, with `interrupted` set.

    Raises MiniptError for settings that make no sense, a checkpoint that is missing, damaged or of
    another run, a response that does not fit the base, a base that writes none, a worker that has
    died, and a loss that is no longer finite.
    """
    chosen = defaults_for(base, task, **settings)
    learner = PromptLearner(base, task, chosen)
    learnt = learn(learner, task, chosen, checkpoint, resume)
    prompt = learner.start.with_arrays(learnt.arrays)
    prompt.about |= {"steps": learnt.history[-1]["step"], "history": learnt.history}
    return Run(
        prompt=prompt,
        history=learnt.history,
        settings=chosen,
        test=learnt.test,
        best_step=learnt.best_step,
        seconds=learnt.seconds,
        reading=learner.question.how,
        cut=learnt.cut,
        interrupted=learnt.interrupted,
    )


def _start(base: Base, task: Task, question: QuestionFormat, chosen: Settings) -> SoftPrompt:
    """The prompt before the first step; a head begins as its labels' words."""
    start = init_prompt(
        base, chosen.length, chosen.method, chosen.seed, chosen.text, task.label_words
    )
    if chosen.head and question.choices is None:
        raise MiniptError(
            "a head of its own is trained for labels, not for responses: leave it out"
        )
    if chosen.head:
        start.head = choice_vectors(base, question.choices).copy()  # (K, C)
    start.about |= {
        "task": task.name,
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
        "length": chosen.length,
    }
    return start
