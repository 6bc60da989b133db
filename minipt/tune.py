"""Tuning: the step taken many times, and the best prompt kept.

In: a frozen `Base` and a `Task`. Out: a `Run` with the prompt that did best on validation, the
history of every step and the result on the test split, which nothing was chosen on. Long work can
be interrupted: with a checkpoint it continues later with the same bits. The story continues in
`store.py`, which keeps a run, and in `plot.py` and `report.py`, which make a picture and a page of
it.
"""

import ctypes
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minipt.base import Base
from minipt.errors import MiniptError
from minipt.evaluate import Evaluation, encode_split, evaluate, read_task
from minipt.files import read_tensors, write_tensors
from minipt.optim import OPTIMIZERS, SCHEDULES, Optimizer, clip_gradients, schedule
from minipt.prompt import SoftPrompt, init_prompt
from minipt.readout import choice_vectors
from minipt.tasks import Task
from minipt.text import Batch, Reading, Targets, batches
from minipt.wiring import loss_and_gradient


@dataclass(frozen=True)
class Settings:
    """How to tune; the defaults are those of the tiny base, `SUITED` has those of others.

    length: P. method and text: the start, as in `init_prompt`. steps: how many batches to learn
    from.
    learning_rate: in units of the vectors for Adam, so that one step moves a coordinate by about
    this much. schedule: "constant", "linear" or "cosine" after `warmup` steps, at most half of
    all. clip: the largest norm of a gradient. evaluate_every: steps between looks at the validation
    split. patience: how many such looks without a better one end the run early, None: none do.
    head: train what the answer is compared with too, a linear head of K x C numbers, for labels.

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

    def __post_init__(self) -> None:
        for name in ("length", "steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise MiniptError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise MiniptError(f"{name} is a positive number, not {getattr(self, name)}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise MiniptError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        if self.seed < 0 or self.warmup < 0:
            raise MiniptError("seed and warmup are 0 or more")


# GNU's names for two settings of its allocator (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

# What a base that has a name is tuned with where nothing else is said.
SUITED = {
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


def suited(base: Base, task: Task | None = None, **settings: object) -> Settings:
    """The settings for a base: those given, then those that suit it, then the defaults.

    A start from words begins with the task's instruction where no other words are given; for a task
    without one, a start from words that was not asked for is the default start.

    Raises MiniptError for a value that makes no sense, by its name.
    """
    chosen = SUITED.get(base.name, {}) | settings
    opening = task.opening if task else ""
    if chosen.get("method") == "text" and not chosen.get("text"):
        if opening:
            chosen["text"] = opening
        elif "method" in settings:
            raise MiniptError('the start "text" needs a text: give one, or choose another start')
        else:
            del chosen["method"]
    return Settings(**chosen)


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


@dataclass
class _State:
    """All that a run changes, and so all that a checkpoint holds.

    trained and best: "prompt" (P, C) and, if a head is trained, "head" (K, C).
    """

    trained: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    optimizer: Optimizer
    history: list[dict] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0

    @property
    def step(self) -> int:
        return self.history[-1]["step"] if self.history else 0


def keep_freed_memory() -> None:
    """Let each step use the memory of the one before: a third of a small model's time.

    A C library gives the memory of large arrays back to the system when they are freed, and to get
    it again, page by page, takes time. GNU's can be told to keep it (mallopt(3)), for all arrays
    but those of 32 MB and more, which no step makes of a base's usual size. Others are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
    fields of `Settings`, such as length=20, steps=600, seed=0. Ctrl-C ends the learning: what is
    returned is the best prompt so far, with `interrupted` set.

    Raises MiniptError for settings that make no sense, a checkpoint that is missing, damaged or of
    another run, a response that does not fit the base, a base that writes none, and a loss that is
    no longer finite.
    """
    chosen = suited(base, task, **settings)
    keep_freed_memory()
    fingerprint = base.fingerprint
    reading = read_task(base, None, task.train, task)
    start = _start(base, task, reading, chosen)
    identity = {"base": fingerprint, "task": _digest(task), "settings": asdict(chosen)}
    state = _State(start.arrays(), start.arrays(), OPTIMIZERS[chosen.optimizer]())
    if resume:
        _read_checkpoint(checkpoint, identity, state)
    room = base.config.context - chosen.length
    token_rows, targets, cut = encode_split(base, reading, task.train, room)
    for split in (task.validation, task.test):  # what cannot be read is refused before the start
        encode_split(base, reading, split, room)
    interrupted = False
    try:
        for _ in _learn(base, task, reading, token_rows, targets, start, chosen, state):
            if checkpoint is not None:
                _write_checkpoint(checkpoint, identity, state)
    except KeyboardInterrupt:
        interrupted = True
    if base.fingerprint != fingerprint:
        raise RuntimeError(f"base {base.name!r} changed while a prompt was tuned in front of it")
    prompt = start.with_arrays(state.best)
    prompt.about |= {"steps": state.step, "history": state.history}
    return Run(
        prompt=prompt,
        history=state.history,
        settings=chosen,
        test=evaluate(base, prompt, task.test),
        best_step=state.best_step,
        seconds=state.seconds,
        reading="a trained linear head" if chosen.head else reading.how,
        cut=cut,
        interrupted=interrupted,
    )


def _start(base: Base, task: Task, reading: Reading, chosen: Settings) -> SoftPrompt:
    """A trained head begins as what the answer is compared with anyway."""
    start = init_prompt(
        base, chosen.length, chosen.method, chosen.seed, chosen.text, task.label_words
    )
    if chosen.head and reading.choices is None:
        raise MiniptError(
            "a head of its own is trained for labels, not for responses: leave it out"
        )
    if chosen.head:
        start.head = choice_vectors(base, reading.choices).copy()  # (K, C)
    start.about |= {
        "task": task.name,
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
        "length": chosen.length,
    }
    return start


def _learn(
    base: Base,
    task: Task,
    reading: Reading,
    token_rows: list[np.ndarray],
    targets: Targets,
    start: SoftPrompt,
    chosen: Settings,
    state: _State,
) -> Iterator[int]:
    """Take the steps that are left; yield whenever the validation split has been looked at."""
    if not state.history:
        state.history.append({"step": 0})
        _look(base, task, start, state)
        yield 0
    if _is_over(state, chosen):
        return
    prompt = start.with_arrays(state.trained)
    if chosen.head:
        reading = replace(reading, choices=prompt.head)
    bar = tqdm(total=chosen.steps, initial=state.step, desc="tuning", unit="step", disable=None)
    with bar:
        for batch in _stream(token_rows, targets, reading, chosen, state.step):
            began = time.perf_counter()
            record = _step(base, prompt, batch, start, chosen, state)
            bar.update()
            done = record["step"] == chosen.steps
            if done or record["step"] % chosen.evaluate_every == 0:
                _look(base, task, prompt, state)
                bar.set_postfix(validation=f"{record['validation_accuracy']:.3f}")
            state.seconds += time.perf_counter() - began
            if "validation_accuracy" in record:
                yield record["step"]
            if _is_over(state, chosen):
                return


def _step(
    base: Base,
    prompt: SoftPrompt,
    batch: Batch,
    start: SoftPrompt,
    chosen: Settings,
    state: _State,
) -> dict:
    """One step: loss, gradient, clipping, optimizer; and the record of it."""
    warmup = min(chosen.warmup, chosen.steps // 2)
    rate = chosen.learning_rate * schedule(chosen.schedule, state.step, chosen.steps, warmup)
    of_head = {} if chosen.head else None
    loss, gradient = loss_and_gradient(base, prompt, batch, gradients=of_head)
    gradients = {"prompt": gradient}
    if chosen.head:
        gradients["head"] = of_head["choices"]
    if not (math.isfinite(loss) and all(np.isfinite(x).all() for x in gradients.values())):
        raise MiniptError(
            f"the loss or its gradient is not finite at step {state.step + 1}: lower the learning "
            f"rate, {chosen.learning_rate:g}"
        )
    norm = clip_gradients(gradients, chosen.clip)
    state.optimizer.step(state.trained, gradients, rate)
    record = {
        "step": state.step + 1,
        "loss": loss,
        "gradient_norm": norm,
        "prompt_norm": float(np.linalg.norm(prompt.vectors)),
        "distance": float(np.linalg.norm(prompt.vectors - start.vectors)),
        "rate": rate,
    }
    state.history.append(record)
    return record


def _look(base: Base, task: Task, prompt: SoftPrompt, state: _State) -> None:
    """Measure on the validation split; remember what is trained if nothing did better before."""
    found = evaluate(base, prompt, task.validation, task)
    record = state.history[-1]
    record |= {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
    best = state.history[state.best_step]
    if (found.accuracy, -found.loss) >= (best["validation_accuracy"], -best["validation_loss"]):
        state.best_step = record["step"]
        state.best = prompt.arrays()


def _is_over(state: _State, chosen: Settings) -> bool:
    waited = (state.step - state.best_step) // chosen.evaluate_every
    out_of_patience = chosen.patience is not None and waited >= chosen.patience
    return state.step == chosen.steps or out_of_patience


def _stream(
    token_rows: list[np.ndarray],
    targets: Targets,
    reading: Reading,
    chosen: Settings,
    first: int,
) -> Iterator[Batch]:
    """Batches for ever, from the one of step `first`; each epoch's order has a seed of its own."""
    epoch, skipped = divmod(first, math.ceil(len(token_rows) / chosen.batch_size))
    while True:
        rng = np.random.default_rng([chosen.seed, epoch])
        for i, (_, batch) in enumerate(
            batches(token_rows, targets, reading, chosen.batch_size, rng)
        ):
            if i >= skipped:
                yield batch
        epoch, skipped = epoch + 1, 0


def _digest(task: Task) -> str:
    """Two tasks with one digest give the same run."""
    splits = [(split.texts, split.answers) for split in (task.train, task.validation)]
    described = [task.template, task.label_words, splits]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


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
    arrays, record = read_tensors(path, "checkpoint", "start without resuming")
    try:
        found = record["identity"]["settings"] | record["identity"]
        state.history = record["history"]
        state.best_step = record["best_step"]
        state.seconds = record["seconds"]
        state.trained = {name: arrays.pop(f"trained.{name}") for name in state.trained}
        state.best = {name: arrays.pop(f"best.{name}") for name in state.best}
    except KeyError as error:
        raise MiniptError(f"{path} is no checkpoint: it lacks {error}; remove it") from None
    for name, value in (identity["settings"] | identity).items():
        if found.get(name) != value:
            raise MiniptError(
                f"{path} belongs to a run with another {name}: resume with the same, or remove it"
            )
    state.optimizer.t = state.step
    state.optimizer.state = {name.removeprefix("optimizer."): a for name, a in arrays.items()}
