"""The loop: a step taken many times, the best kept, and nothing lost when it is interrupted.

In: a `Learner`, which knows what is trained and how a batch gives its gradient, and a `Task`. Out:
`Learnt`, the arrays that did best on validation, the history of every step and the result on the
test split, which nothing was chosen on. With a checkpoint the work continues later with the same
bits. The story continues in `workers.py`, where several processes share a step.
"""

import ctypes
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minipt.errors import MiniptError
from minipt.files.complete import read_tensors, write_tensors
from minipt.learning.evaluate import Evaluation, encode_split, measure
from minipt.learning.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Arrays,
    Optimizer,
    clip_gradients,
    schedule,
)
from minipt.prompting.text import Batch, QuestionFormat, Targets, batches
from minipt.prompting.wiring import Answer
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# GNU's names for two settings of its allocator (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Settings:
    """How to learn; the defaults are those of a prompt for the tiny base.

    length: P. method and text: the start, as in `init_prompt`. steps: how many batches to learn
    from. learning_rate: for Adam, about how far a step moves each number. schedule: "constant",
    "linear" or "cosine" after `warmup` steps, at most half of all. clip: the joint norm that larger
    gradients are scaled down to. evaluate_every: steps between looks at the validation split.
    patience: how many such looks without a better one end the run early, None: none do.
    head: train what the answer is compared with too, a linear head of K x C numbers, for labels.
    workers: how many processes share the texts of a step (`workers.py`), at most batch_size.

    Raises MiniptError for a value that makes no sense, by its name.
    """

    length: int = 20
    method: str = "vocab"
    text: str | None = None
    steps: int = 250
    seed: int = 0
    batch_size: int = 16
    learning_rate: float = 0.3
    optimizer: str = "adam"
    schedule: str = "linear"
    warmup: int = 20
    clip: float = 1.0
    evaluate_every: int = 50
    patience: int | None = None
    head: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        counts = ("length", "steps", "batch_size", "evaluate_every", "patience", "workers")
        for name in (*counts, "seed", "warmup"):
            value, least = getattr(self, name), 1 if name in counts else 0
            if value is None and name == "patience":
                continue
            if not isinstance(value, Integral):
                raise MiniptError(f"{name} is a whole number, not {value!r}")
            if value < least:
                raise MiniptError(f"{name} is at least {least}, not {value}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < value < math.inf):
                raise MiniptError(f"{name} is a positive number, not {value!r}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in list(known):
                raise MiniptError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        if self.workers > self.batch_size:
            raise MiniptError(
                f"{self.workers} workers cannot share {self.batch_size} texts: use fewer"
            )


class Learner:
    """What learns, in front of a frozen base or in a copy of its parts.

    name: of the kind of learning. base: the frozen model. arrays: what is trained, by name, changed
    in place. question: how an answer is read. room: the positions that are left to a text.
    """

    name: str
    base: Base
    arrays: Arrays
    question: QuestionFormat
    room: int

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        """The mean cross-entropy of a batch in nats, and its gradient for each of the arrays.

        rng: the step's own, for a learner that draws.
        """
        raise NotImplementedError

    def at_work(self, workers: int) -> AbstractContextManager[None]:
        """While it learns; a learner may let that many processes share its steps.

        Raises MiniptError where it may not.
        """
        if workers > 1:
            raise MiniptError(f"{self.name} learns in one process: leave workers out")
        return nullcontext()

    def answerer(self) -> Answer:
        """A function from batches to logits (N, K), with the arrays as they are now."""
        raise NotImplementedError

    def update(self, optimizer: Optimizer, gradients: Arrays, rate: float) -> None:
        """Change the arrays by one step."""
        optimizer.step(self.arrays, gradients, rate)

    def kept(self) -> Arrays:
        """What must be stored to answer as now: the arrays, where no smaller ones do."""
        return self.arrays

    def measures(self) -> dict[str, float]:
        """What the history should say of the arrays after a step."""
        return {}


@dataclass
class Learnt:
    """What came of a finished or interrupted run.

    arrays: the best on validation, not the last; the learner holds them too. history: a dict a step
    with step, loss, gradient_norm, rate and the learner's own measures, and, where the validation
    split was looked at, validation_accuracy and validation_loss; entry 0 is the start. cut: how
    many training texts were shortened to fit.
    """

    arrays: Arrays
    history: list[dict]
    test: Evaluation
    best_step: int
    seconds: float
    cut: int
    interrupted: bool


@dataclass
class _State:
    """All that a run changes, and so all that a checkpoint holds."""

    trained: Arrays
    best: Arrays
    optimizer: Optimizer
    history: list[dict] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0

    @property
    def step(self) -> int:
        return self.history[-1]["step"] if self.history else 0


def keep_freed_memory() -> None:
    """Let each step use the memory of the one before: this saves a third of a small model's time.

    A C library gives the memory of large arrays back to the system when they are freed, and to get
    it again, page by page, takes time. GNU's can be told to keep it (mallopt(3)), for all arrays
    but those of 32 MB and more, larger than a usual step makes them. Others are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def learn(
    learner: Learner,
    task: Task,
    chosen: Settings,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Learnt:
    """Take all the steps; the base is not changed, which is checked by its fingerprint.

    checkpoint: a file to write at each look at the validation split; with `resume` the run
    continues from it, and the result has the same bits as without the interruption. Ctrl-C ends the
    learning: what is returned is the best so far, with `interrupted` set.

    Raises MiniptError for a checkpoint that is missing, damaged or of another run, texts that
    cannot be read, workers that have died or that this learner does not take, and a loss that is no
    longer finite.
    """
    keep_freed_memory()
    base, fingerprint = learner.base, learner.base.fingerprint
    identity = {
        "base": fingerprint,
        "task": digest(task),
        "learner": learner.name,
        "settings": asdict(chosen),
    }
    state = _State(learner.arrays, _copies(learner.arrays), OPTIMIZERS[chosen.optimizer]())
    if resume:
        _read_checkpoint(checkpoint, identity, state)
    token_rows, targets, cut = encode_split(base, learner.question, task.train, learner.room)
    for split in (task.validation, task.test):  # what cannot be read is refused before the start
        encode_split(base, learner.question, split, learner.room)
    interrupted = False
    with learner.at_work(chosen.workers):
        try:
            for _ in _learn(learner, task, token_rows, targets, chosen, state):
                if checkpoint is not None:
                    _write_checkpoint(checkpoint, identity, state)
        except KeyboardInterrupt:
            interrupted = True
    if base.fingerprint != fingerprint:
        raise RuntimeError(f"base {base.name!r} changed while {learner.name} learnt with it")
    _put(state.best, learner.arrays)
    return Learnt(
        arrays=state.best,
        history=state.history,
        test=_measure(learner, task.test),
        best_step=state.best_step,
        seconds=state.seconds,
        cut=cut,
        interrupted=interrupted,
    )


def _learn(
    learner: Learner,
    task: Task,
    token_rows: list[np.ndarray],
    targets: Targets,
    chosen: Settings,
    state: _State,
) -> Iterator[None]:
    """Take the steps that are left; yield whenever the validation split has been looked at."""
    if not state.history:
        state.history.append({"step": 0})
        _look(learner, task, state)
        yield
    if _is_over(state, chosen):
        return
    bar = tqdm(
        total=chosen.steps, initial=state.step, desc="tuning", unit="step", disable=None, leave=None
    )
    with bar:
        for batch in _stream(token_rows, targets, learner.question, chosen, state.step):
            began = time.perf_counter()
            record = _step(learner, batch, chosen, state)
            bar.update()
            done = record["step"] == chosen.steps
            if done or record["step"] % chosen.evaluate_every == 0:
                _look(learner, task, state)
                bar.set_postfix(validation=f"{record['validation_accuracy']:.3f}")
            state.seconds += time.perf_counter() - began
            if "validation_accuracy" in record:
                yield
            if _is_over(state, chosen):
                return


def _step(learner: Learner, batch: Batch, chosen: Settings, state: _State) -> dict:
    """One step: loss, gradient, clipping, optimizer; and the record of it."""
    warmup = min(chosen.warmup, chosen.steps // 2)
    rate = chosen.learning_rate * schedule(chosen.schedule, state.step, chosen.steps, warmup)
    # A stream of its own: [seed] draws the start, [seed, epoch] the order of the texts (and NumPy
    # takes [seed] for [seed, 0]).
    rng = np.random.default_rng([chosen.seed, 0, state.step + 1])
    loss, gradients = learner.loss_and_gradients(batch, rng)
    if not (math.isfinite(loss) and all(np.isfinite(x).all() for x in gradients.values())):
        raise MiniptError(
            f"the loss or its gradient is not finite at step {state.step + 1}: lower the learning "
            f"rate, {chosen.learning_rate:g}"
        )
    norm = clip_gradients(gradients, chosen.clip)
    learner.update(state.optimizer, gradients, rate)
    record = {"step": state.step + 1, "loss": loss, "gradient_norm": norm, "rate": rate}
    record |= learner.measures()
    state.history.append(record)
    return record


def _look(learner: Learner, task: Task, state: _State) -> None:
    """Measure on the validation split; remember what is trained if nothing did better before."""
    found = _measure(learner, task.validation)
    record = state.history[-1]
    record |= {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
    best = state.history[state.best_step]
    if (found.accuracy, -found.loss) >= (best["validation_accuracy"], -best["validation_loss"]):
        state.best_step = record["step"]
        state.best = _copies(learner.arrays)


def _measure(learner: Learner, split) -> Evaluation:
    return measure(learner.base, learner.answerer(), learner.question, split, learner.room)


def _is_over(state: _State, chosen: Settings) -> bool:
    waited = (state.step - state.best_step) // chosen.evaluate_every
    out_of_patience = chosen.patience is not None and waited >= chosen.patience
    return state.step == chosen.steps or out_of_patience


def _stream(
    token_rows: list[np.ndarray],
    targets: Targets,
    question: QuestionFormat,
    chosen: Settings,
    first: int,
) -> Iterator[Batch]:
    """Batches for ever, from the one of step `first`; each epoch's order has a seed of its own."""
    epoch, skipped = divmod(first, math.ceil(len(token_rows) / chosen.batch_size))
    while True:
        rng = np.random.default_rng([chosen.seed, epoch])
        for i, (_, batch) in enumerate(
            batches(token_rows, targets, question, chosen.batch_size, rng)
        ):
            if i >= skipped:
                yield batch
        epoch, skipped = epoch + 1, 0


def digest(task: Task) -> str:
    """Two tasks with one digest give the same run."""
    splits = [(part.texts, part.answers) for part in (task.train, task.validation, task.test)]
    described = [task.template, task.label_words, splits]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _put(values: Arrays, arrays: Arrays) -> None:
    for name, array in arrays.items():
        array[...] = values[name]


def _write_checkpoint(path: str | Path, identity: dict, state: _State) -> None:
    arrays = {f"trained.{name}": array for name, array in state.trained.items()}
    arrays |= {f"best.{name}": array for name, array in state.best.items()}
    arrays |= {f"optimizer.{name}": array for name, array in state.optimizer.state.items()}
    record = {
        "identity": identity,
        "history": state.history,
        "best_step": state.best_step,
        "seconds": state.seconds,
    }
    write_tensors(path, arrays, record)


def _read_checkpoint(path: str | Path | None, identity: dict, state: _State) -> None:
    """Fill a fresh state. Raises MiniptError for a checkpoint that is none, or of another run."""
    if path is None:
        raise MiniptError("to resume, say which checkpoint to resume from")
    arrays, record = read_tensors(path, "checkpoint", "remove it and start without resuming")
    try:
        found = record["identity"]["settings"] | record["identity"]
        for name, value in (identity["settings"] | identity).items():
            if found.get(name) != value:
                raise MiniptError(
                    f"{path} belongs to a run with another {name}: resume with the same, or "
                    "remove it"
                )
        state.history = record["history"]
        state.best_step = record["best_step"]
        state.seconds = float(record["seconds"])
        steps = [entry["step"] for entry in state.history]
        if steps != list(range(len(steps))) or state.best_step not in steps:
            raise ValueError("its history has gaps")
        _put({name: arrays.pop(f"trained.{name}") for name in state.trained}, state.trained)
        _put({name: arrays.pop(f"best.{name}") for name in state.best}, state.best)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MiniptError(
            f"{path} is no checkpoint that can be used ({error}): remove it and start without "
            "resuming"
        ) from None
    state.optimizer.t = state.step
    state.optimizer.state = {name.removeprefix("optimizer."): a for name, a in arrays.items()}
