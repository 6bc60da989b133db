"""The loop: a step taken many times, the best kept, and nothing lost when it is interrupted.

In: a `Learner` and a `Task`. Out: the `State` at the end: the arrays that did best on validation,
the history of every step, and the result on the test split, which no choice was made on.
"""

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minipt.errors import MiniptError
from minipt.learning.checkpoint import State, identify, put, read_checkpoint, write_checkpoint
from minipt.learning.evaluate import Evaluation, encode_split, measure
from minipt.learning.learner import Learner
from minipt.learning.memory import keep_freed_memory
from minipt.learning.optimizers import OPTIMIZERS, clip_gradients, schedule
from minipt.learning.settings import Settings
from minipt.maths.threads import at_most_threads, one_blas_thread, thread_count
from minipt.prompting.text import Batch, Targets, batches
from minipt.tasks.task import Pairs, Split, Task, evenly


def learn(
    learner: Learner,
    task: Task,
    settings: Settings,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> State:
    """Take all the steps. checkpoint, resume, Ctrl-C, the frozen base: as in `tune`.

    Returns the run's state; the learner's arrays are the best too. Raises MiniptError as `tune`
    does.
    """
    keep_freed_memory()
    base, identity = learner.base, identify(learner, task, settings)
    optimizer, arrays = OPTIMIZERS[settings.optimizer](), deepcopy(learner.arrays)
    state = State(learner, task, settings, identity, optimizer, arrays)
    if resume:
        read_checkpoint(checkpoint, state)
    token_rows, targets, was_cut = encode_split(base, learner.question, task.train, learner.room)
    for split in (task.validation, task.test):  # what cannot be read is refused before the start
        encode_split(base, learner.question, split, learner.room)
    if not token_rows:
        raise MiniptError(f"the task {task.name!r} has no texts to learn from: give it some")
    training = _training_batches(state, token_rows, targets)
    # What overflows ends in numbers that are not finite, and these in a sentence.
    threads = at_most_threads(settings.threads or thread_count())
    with np.errstate(over="ignore", invalid="ignore"), threads, one_blas_thread():
        _take_steps_and_keep(state, training, checkpoint)
        if base.fingerprint != identity["base"]:
            raise RuntimeError(f"base {base.name!r} changed while {learner.name} learnt with it")
        put(state.best_arrays, learner.arrays)
        state.test, state.cut = _measure(learner, task.test), int(was_cut.sum())
    return state


def _take_steps_and_keep(
    state: State, training: Iterator[Batch], checkpoint: str | Path | None
) -> None:
    """Take the steps that are left. Ctrl-C ends them; an error leaves no checkpoint of step 0.

    Such a checkpoint holds no work, and it would stand in the way of the next run.
    """
    kept = state.step if state.history else None  # the checkpoint's step; None: it is not ours

    def save() -> None:
        nonlocal kept
        if checkpoint is not None:
            write_checkpoint(checkpoint, state)
            kept = state.step

    try:
        _take_steps(state, training, save)
    except KeyboardInterrupt:
        state.interrupted = True
    except Exception:
        if kept == 0:
            Path(checkpoint).unlink(missing_ok=True)
        raise


def _take_steps(state: State, training: Iterator[Batch], save: Callable[[], None]) -> None:
    """Take the steps that are left; save the state after each look at the validation split."""
    settings = state.settings
    if not state.history:
        state.history.append({"step": 0})
        _look(state)
        save()
    steps = {"total": settings.steps, "initial": state.step, "unit": "step"}
    with tqdm(**steps, desc="tuning", disable=None, leave=None) as bar:
        while not _is_over(state):
            batch, began = next(training), time.perf_counter()
            record = _step(state, batch)
            bar.update()
            looks = settings.looks_after(state.step)
            if looks:
                _look(state)
                bar.set_postfix(validation=f"{record['validation_accuracy']:.3f}")
            state.seconds += time.perf_counter() - began
            if looks:
                save()


def _step(state: State, batch: Batch) -> dict:
    """One step: loss, gradient, clipping, optimizer; and the record of it."""
    settings, learner, done = state.settings, state.learner, state.step
    warmup = min(settings.warmup, settings.steps // 2)
    rate = settings.learning_rate * schedule(settings.schedule, done, settings.steps, warmup)
    # No other draw has this seed: [seed] draws the start, [seed, epoch] the order of the texts
    # (and NumPy takes [seed] for [seed, 0]).
    rng = np.random.default_rng([settings.seed, 0, done + 1])
    loss, gradients = learner.loss_and_gradients(batch, rng)
    _refuse_infinite(settings, done + 1, loss, *gradients.values())
    norm = clip_gradients(gradients, settings.clip)
    learner.update(state.optimizer, gradients, rate)
    record = {"step": done + 1, "loss": loss, "gradient_norm": norm, "rate": rate}
    record |= learner.measurements()
    _refuse_infinite(settings, done + 1, *record.values())
    state.history.append(record)
    return record


def _refuse_infinite(settings: Settings, step: int, *numbers: float | np.ndarray) -> None:
    if not all(np.isfinite(x).all() for x in numbers):
        raise MiniptError(
            f"the loss, its gradient or what learns is not finite at step {step}: lower the "
            f"learning rate, {settings.learning_rate:g}"
        )


def _look(state: State) -> None:
    """Measure on the validation split; copy the arrays if nothing did better before."""
    _refuse_infinite(state.settings, state.step, *state.learner.arrays.values())
    texts = evenly(state.task.validation, state.settings.validation_texts)
    try:
        evaluation = _measure(state.learner, texts)
    except MiniptError as error:  # an answer is not finite
        slower = f", with a learning rate below {state.settings.learning_rate:g}"
        raise MiniptError(f"{error}{slower if state.step else ''}") from error
    accuracy, loss = evaluation.accuracy, evaluation.loss
    state.history[-1] |= {"validation_accuracy": accuracy, "validation_loss": loss}
    best = state.history[state.best_step]
    if (accuracy, -loss) >= (best["validation_accuracy"], -best["validation_loss"]):
        state.best_step = state.step
        state.best_arrays = deepcopy(state.learner.arrays)


def _measure(learner: Learner, split: Split | Pairs) -> Evaluation:
    return measure(learner.base, learner.answerer(), learner.question, split, learner.room)


def _is_over(state: State) -> bool:
    steps, patience = state.settings.steps, state.settings.patience
    looks_since_best = (state.step - state.best_step) // state.settings.evaluate_every
    return state.step == steps or (patience is not None and looks_since_best >= patience)


def _training_batches(
    state: State, token_rows: list[np.ndarray], targets: Targets
) -> Iterator[Batch]:
    """Batches for ever, from that of the next step; each epoch's order has a seed of its own."""
    question, size = state.learner.question, state.settings.batch_size
    epoch, skipped = divmod(state.step, math.ceil(len(token_rows) / size))
    while True:
        rng = np.random.default_rng([state.settings.seed, epoch])
        for _, batch in islice(batches(token_rows, targets, question, size, rng), skipped, None):
            yield batch
        epoch, skipped = epoch + 1, 0
