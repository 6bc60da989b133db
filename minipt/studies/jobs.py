"""Many runs, each done once, for sweeps, tables of rivals and evidence.

In: jobs, each a learner's name, a base, a task and settings. Out: their results, trained now or
read from `runs/study/`. Each has a directory there, named after all that decides its bits. A run
that was killed goes on from its last checkpoint, so that a study gives the same results bit for bit
however often it is interrupted. The name does not know the source and a base's tokenizer: whoever
changes a learner or a tokenizer removes `runs/study/`.
"""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory
from minipt.files.records import (
    is_number,
    read_record,
    read_tensors,
    write_record,
    write_tensors,
)
from minipt.files.versions import versions
from minipt.learning.checkpoint import put
from minipt.learning.evaluate import Evaluation, measure, task_question
from minipt.learning.learner import Learner
from minipt.learning.loop import learn
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings, defaults_for
from minipt.learning.tune import PromptLearner
from minipt.prompting.prompt import SoftPrompt
from minipt.results.kept import STUDY, named
from minipt.results.store import checkpoint_path, unfinished
from minipt.rivals import find_learner
from minipt.tasks.task import Split, Task
from minipt.transformer.base import Base

# What every result was measured by.
NUMBERS = (
    "best_step",
    "validation_accuracy",
    "validation_loss",
    "test_accuracy",
    "test_loss",
    "correct",
    "total",
    "trained_numbers",
    "stored_bytes",
    "seconds",
)


@dataclass(frozen=True)
class Job:
    """One run: who learns, with which base, what, and how.

    start: a prompt to go on from, in place of the learner's own start; for a plain prompt only.
    """

    learner: str
    base: Base
    task: Task
    settings: Settings
    start: SoftPrompt | None = None

    def make(self) -> Learner:
        """The learner before its first step. Raises MiniptError as it does, and for no such one."""
        start = {} if self.start is None else {"start": self.start}
        return find_learner(self.learner)(self.base, self.task, self.settings, **start)

    @cached_property
    def directory(self) -> Path:
        """The place of its result once it is done."""
        start = "" if self.start is None else hashlib.sha256(self.start.vectors).hexdigest()
        decides = [self.learner, self.base.fingerprint, self.task.digest, start]
        name = f"{self.learner}-{self.task.name}-{self.base.name}-{self.settings.seed}"
        return STUDY / named(name, [*decides, asdict(self.settings)])

    @property
    def description(self) -> dict:
        """What the result's record says of the job itself."""
        return {
            "learner": self.learner,
            "task": self.task.name,
            "base": self.base.name,
            "fingerprint": self.base.fingerprint,
            "settings": asdict(self.settings),
        }


@dataclass(frozen=True)
class Result:
    """The result of a job. record: as in its `run.json`."""

    job: Job
    record: dict

    @property
    def arrays(self) -> Arrays:
        """What was trained, the best on validation; read when it is asked for."""
        return self.learner().arrays

    def learner(self) -> Learner:
        """The learner as it was when it did best, to ask it about other texts.

        Raises MiniptError when its file is damaged or holds the arrays of another learner.
        """
        learner, place = self.job.make(), self.job.directory
        path = place / "arrays.safetensors"
        arrays, _ = read_tensors(path, "result", f"remove {place}")
        try:
            put(arrays, learner.arrays)
        except ValueError as error:
            raise MiniptError(f"{path} does not fit its job ({error}): remove {place}") from None
        return learner

    def prompt(self) -> SoftPrompt:
        """Of a job whose learner is a soft prompt: the vectors that it keeps."""
        return _prompt_of(self.learner())

    def evaluate(self, split: Split, task: Task) -> Evaluation:
        """Its answers on a split of any task with the same labels, in that task's words."""
        learner = self.learner()
        prompt = learner.prompt if isinstance(learner, PromptLearner) else None
        question = task_question(learner.base, prompt, split, task)
        return measure(learner.base, learner.answerer(), question, split, learner.room)


def run(job: Job) -> Result:
    """The result of a job, from `runs/study/` if it was done before.

    Raises MiniptError as the learner does, and KeyboardInterrupt on Ctrl-C, with what was learnt
    kept in a checkpoint.
    """
    place = job.directory
    if not place.exists():
        learner, checkpoint = job.make(), checkpoint_path(place)
        learnt = learn(learner, job.task, job.settings, checkpoint, resume=checkpoint.exists())
        if learnt.interrupted:
            raise KeyboardInterrupt
        best = learnt.history[learnt.best_step]
        record = {
            **job.description,
            "best_step": learnt.best_step,
            "validation_accuracy": best["validation_accuracy"],
            "validation_loss": best["validation_loss"],
            "test_accuracy": learnt.test.accuracy,
            "test_loss": learnt.test.loss,
            "correct": learnt.test.correct,
            "total": learnt.test.total,
            "trained_numbers": sum(array.size for array in learnt.best_arrays.values()),
            "stored_bytes": sum(array.nbytes for array in learner.to_store().values()),
            "losses": [step["loss"] for step in learnt.history[1:]],
            "seconds": round(learnt.seconds, 3),
            "versions": versions(),
        }
        _write(place, record, learner)
    # Also where a process was killed between the two.
    shutil.rmtree(unfinished(place), ignore_errors=True)
    return _read(job)


def _read(job: Job) -> Result:
    """The result that `_write` wrote. Raises MiniptError for one that is not whole."""
    place = job.directory
    record = read_record(place / "run.json", f"remove {place}")
    sound = isinstance(record, dict) and job.description.items() <= record.items()
    if not sound or not all(is_number(record.get(name)) for name in NUMBERS):
        raise MiniptError(f"{place / 'run.json'} is no result of this run: remove {place}")
    return Result(job, record)


def _write(place: Path, record: dict, learner: Learner) -> None:
    """A finished job's directory, complete or not at all; another process may have been first."""
    try:
        with complete_directory(place) as partial:
            write_record(partial / "run.json", record)
            write_tensors(partial / "arrays.safetensors", learner.arrays, {})
            if isinstance(learner, PromptLearner):
                _prompt_of(learner).save(partial / "prompt.safetensors")
    except MiniptError:
        if not place.exists():
            raise


def _prompt_of(learner: PromptLearner) -> SoftPrompt:
    return replace(learner.prompt, vectors=learner.to_store()["prompt"])


def jobs_of_seeds(
    base: Base, task: Task, seeds: int, learner: str = "prompt", **settings: object
) -> list[Job]:
    """The same job with seeds 0 to seeds - 1. settings: fields of `Settings`."""
    every = [defaults_for(base, task, **settings, seed=seed) for seed in range(seeds)]
    return [Job(learner, base, task, each) for each in every]


def run_all(jobs: Iterable[Job]) -> list[Result]:
    """The results of jobs in their order, with a bar that shows the time left."""
    jobs = list(jobs)
    left = [job for job in jobs if not job.directory.exists()]
    with tqdm(total=len(left), desc="runs", unit="run", disable=None) as bar:
        for job in left:
            bar.set_postfix_str(f"{job.learner}, seed {job.settings.seed}")
            run(job)
            bar.update()
    return [run(job) for job in jobs]


def accuracies(results: Iterable[Result], split: str = "test") -> np.ndarray:
    """One accuracy a result, on its "test" or "validation" split. (N,)"""
    return np.array([result.record[f"{split}_accuracy"] for result in results])
