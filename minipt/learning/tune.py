"""Prompt tuning: what learns is a prompt, in front of a base that does not.

In: a frozen `Base` and a `Task`. Out: a `Run`, with the prompt that did best on validation.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.checkpoint import State
from minipt.learning.evaluate import task_question
from minipt.learning.learner import Learner
from minipt.learning.loop import learn
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings, defaults_for
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import STARTS, go_on_from, init_prompt
from minipt.prompting.text import Batch
from minipt.prompting.verbalizer import head_start
from minipt.prompting.wiring import Answerer, answerer, prompt_step
from minipt.tasks.task import Task
from minipt.transformer.base import Base

ANOTHER = "another prompt"  # the start's name, where the prompt to go on from has none


class PromptLearner(Learner):
    """P vectors in front of every text, and, if it is wanted, a linear head beside them.

    arrays: "prompt" (P, C), "head" (K, C). start: the prompt before the first step. prompt: the
    same around the arrays that learn. start, as an argument: a prompt to go on from.
    Raises MiniptError for a start that makes no sense, for label words that the base cannot tell
    apart, and for a head where responses are learnt.
    """

    name = "prompt"

    def __init__(
        self, base: Base, task: Task, settings: Settings, start: SoftPrompt | None = None
    ) -> None:
        self.base = base
        self.start = _start(base, task, settings, start)
        self.goes_on_from = "" if start is None else sha256(start)
        self.arrays = self.start.arrays()
        self.prompt = self.start.with_arrays(self.arrays)
        # It holds the head itself, not a copy, so that every batch has the head as it is now.
        self.question = task_question(base, self.prompt, task.train, task)
        self.room = base.config.context - settings.length

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        return prompt_step(self.base, self.prompt, batch)

    def answerer(self) -> Answerer:
        return answerer(self.base, self.prompt)

    def measurements(self) -> dict[str, float]:
        vectors, start = self.prompt.vectors, self.start.vectors
        norm, distance = (float(np.linalg.norm(x)) for x in (vectors, vectors - start))
        return {"prompt_norm": norm, "distance": distance}


@dataclass(kw_only=True)
class Run(State):
    """A run of a prompt; its history has prompt_norm and distance (from the start) too."""

    prompt: SoftPrompt  # the best on validation, not the last
    reading: str  # how the answer was read, in words

    @property
    def test_accuracy(self) -> float:
        """The share of the test split's texts that the prompt answers rightly."""
        return self.test.accuracy


def tune(
    base: Base,
    task: Task,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    start: SoftPrompt | None = None,
    **given: object,
) -> Run:
    """Learn a prompt for a task; the base is not changed, which is checked by its fingerprint.

    checkpoint: a file to write at each look at the validation split; with `resume` the run
    continues from it, and the result has the same bits as without the interruption. start: a prompt
    to go on from, and with it its length; its head too, if it has one for the same labels. given:
    fields of `Settings`, such as length=20, steps=600, seed=0. Ctrl-C ends the learning, and the
    best prompt so far is returned, with `interrupted` set.

    Raises MiniptError for settings that make no sense, a start that is no prompt of this base,
    label words that the base cannot tell apart, a checkpoint that is missing, damaged or of another
    run, a response that does not fit the base, a base that writes none, and a loss that is no
    longer finite.
    """
    learner, settings = prepare(base, task, start, **given)
    state = learn(learner, task, settings, checkpoint, resume)
    prompt = learner.start.with_arrays(state.best_arrays)
    prompt.about |= {"steps": state.step, "history": state.history}
    return Run(**vars(state), prompt=prompt, reading=learner.question.how)


def prepare(
    base: Base, task: Task, start: SoftPrompt | None = None, **given: object
) -> tuple[PromptLearner, Settings]:
    """The learner of `tune` before its first step, and all of its settings. Raises as it does."""
    if start is not None:
        if given.get("method") in STARTS or given.get("text") is not None:
            raise MiniptError("a run that goes on from a prompt has no other start: leave it out")
        length = len(start.vectors)
        if given.get("length", length) != length:
            raise MiniptError(
                f"the prompt to go on from has {length} vectors, not {given['length']}: leave the "
                "length out"
            )
        given = {"method": ANOTHER, "head": _has_head_for(task, start)} | given | {"length": length}
    settings = defaults_for(base, task, **given)
    return PromptLearner(base, task, settings, start), settings


def sha256(prompt: SoftPrompt) -> str:
    """The sha256 of a prompt's numbers."""
    digest = hashlib.sha256(np.ascontiguousarray(prompt.vectors))
    if prompt.head is not None:
        digest.update(np.ascontiguousarray(prompt.head))
    return digest.hexdigest()


def _start(base: Base, task: Task, settings: Settings, given: SoftPrompt | None) -> SoftPrompt:
    """The prompt before the first step; a head of its own begins as its labels' words."""
    if given is None:
        start = init_prompt(
            base, settings.length, settings.method, settings.seed, settings.text, task.label_words
        )
    else:
        method = ANOTHER if settings.method in STARTS else settings.method
        start = go_on_from(base, given, method, settings.seed)
    if settings.head:
        if not task.labels:
            raise MiniptError(
                "a head of its own is trained for labels, not for responses: leave it out"
            )
        if given is not None and _has_head_for(task, given):
            start.head = given.head.astype(base.dtype)  # (K, C)
        else:
            start.head = head_start(base, task.template, task.label_words)  # (K, C)
    start.about |= {
        "task": task.name,
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
        "length": settings.length,
    }
    return start


def _has_head_for(task: Task, prompt: SoftPrompt) -> bool:
    return prompt.head is not None and prompt.about.get("labels") == list(task.labels)
