"""The state of a run, and the file from which an interrupted run goes on.

In: a `State`. Out: one safetensors file, which fills a fresh `State` with the same bits again. The
file says which run it belongs to.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.records import is_number, read_tensors, write_tensors
from minipt.learning.evaluate import Evaluation
from minipt.learning.learner import Learner
from minipt.learning.optimizers import OPTIMIZERS, Arrays, Optimizer
from minipt.learning.settings import Settings
from minipt.tasks.task import Task


@dataclass
class State:
    """A run under way or at its end: what is given, what its steps change, what came of it.

    history: a dict for each step with step, loss, gradient_norm, rate and the learner's
    measurements, and, where the validation split was looked at, validation_accuracy and
    validation_loss; entry 0 is the start.
    """

    learner: Learner
    task: Task = field(repr=False)
    settings: Settings
    identity: dict  # as `identify` gives it, of the base before the first step
    optimizer: Optimizer
    best_arrays: Arrays  # on validation; the last ones are the learner's
    best_step: int = 0
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    cut: int = 0  # how many training texts lost their beginning
    interrupted: bool = False
    test: Evaluation | None = None  # None: the run has not ended

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self.history[-1]["step"] if self.history else 0


def identify(learner: Learner, task: Task, settings: Settings) -> dict:
    """All that decides the bits of a run, on one machine with one installation."""
    # Any number of threads gives the same bits.
    given = {name: value for name, value in asdict(settings).items() if name != "threads"}
    identity = {
        "base": learner.base.fingerprint,
        "task": task.digest,
        "learner": learner.name,
        "settings": given,
    }
    return identity | ({"start": learner.goes_on_from} if learner.goes_on_from else {})


def write_checkpoint(path: str | Path, state: State) -> None:
    """Write what the steps have changed. Raises MiniptError when that is not possible."""
    memory = {f"optimizer.{name}": array for name, array in state.optimizer.state.items()}
    names = ("identity", "history", "best_step", "seconds")
    record = {name: getattr(state, name) for name in names}
    write_tensors(path, _parts(state) | memory, record)


def read_checkpoint(path: str | Path | None, state: State) -> None:
    """Fill a fresh state. Raises MiniptError for a missing or damaged file, or another run's.

    A file from before has no sha256, so all that the run relies on is looked at.
    """
    if path is None:
        raise MiniptError("to resume, say which checkpoint to resume from")
    advice = "remove it and start without resuming"
    arrays, record = read_tensors(path, "checkpoint", advice)
    try:
        identity = record["identity"]["settings"] | record["identity"]
        for name, value in (state.identity["settings"] | state.identity).items():
            if identity.get(name) != value:
                other = f"{path} belongs to a run with another {name}"
                raise MiniptError(f"{other}: resume with the same, or remove it")
        for name in ("history", "best_step", "seconds"):
            setattr(state, name, record[name])
        _check_history(state)
        put(arrays, _parts(state) | _memory(state, arrays))
        _check_end(state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MiniptError(f"{path} is no checkpoint that can be used ({error}): {advice}") from None


def _parts(state: State) -> Arrays:
    """The arrays that learn and the best, under the names that they have in the file."""
    kinds = {"trained": state.learner.arrays, "best": state.best_arrays}
    return {f"{kind}.{name}": x for kind, arrays in kinds.items() for name, x in arrays.items()}


def _check_history(state: State) -> None:
    """Raise ValueError unless every step has its numbers, and every look at validation has too."""
    settings, history = state.settings, state.history
    if not 1 <= len(history) <= settings.steps + 1:
        raise ValueError(f"its history has {len(history) - 1} steps, the run has {settings.steps}")
    each_step = {"loss", "gradient_norm", "rate", *state.learner.measurements()}
    for step, entry in enumerate(history):
        names = {"step"} | (each_step if step else set())
        names |= {"validation_accuracy", "validation_loss"} if settings.looks_after(step) else set()
        sound = entry.keys() == names and all(map(is_number, entry.values()))
        if not sound or entry["step"] != step:
            raise ValueError(f"its history is damaged at step {step}")
    looks = [entry for entry in history if "validation_loss" in entry]
    best = max(looks, key=lambda e: (e["validation_accuracy"], -e["validation_loss"], e["step"]))
    if type(state.best_step) is not int or state.best_step != best["step"]:
        raise ValueError(f"its best step is {best['step']}, not {state.best_step!r}")
    if not (is_number(state.seconds) and state.seconds >= 0):
        raise ValueError(f"it took {state.seconds!r} seconds")


def _check_end(state: State) -> None:
    """Raise ValueError unless the history ends with the arrays that were read."""
    end, measured = state.history[-1], state.learner.measurements()
    recorded = [end.get(name, value) for name, value in measured.items()]
    same = np.allclose(recorded, list(measured.values()), rtol=1e-4)
    if "validation_loss" not in end or not same:
        raise ValueError("its history does not end where its arrays do")


def _memory(state: State, arrays: Arrays) -> Arrays:
    """The optimizer's arrays, zeros under the names in the file; it is set to go on with them."""
    state.optimizer.t = state.step
    if state.step and type(state.learner).update is Learner.update:
        # A step of zeros shows what the optimizer keeps. Arrays without a gradient have nothing.
        zeros = {name: np.zeros_like(array) for name, array in state.learner.arrays.items()}
        probe = OPTIMIZERS[state.settings.optimizer]()
        probe.step(zeros, zeros, 0.0)
        saved = {name: x for name, x in probe.state.items() if f"optimizer.{name}" in arrays}
        state.optimizer.state = saved
    return {f"optimizer.{name}": array for name, array in state.optimizer.state.items()}


def put(values: Arrays, arrays: Arrays) -> None:
    """Write the values into the arrays of the same names.

    Raises ValueError for other names, shapes or types, and for numbers that are not finite.
    """
    for name in sorted(values.keys() ^ arrays.keys()):
        raise ValueError(f"{name} is {'missing' if name in arrays else 'an array too many'}")
    for name, array in arrays.items():
        value = values[name]
        if (value.shape, value.dtype) != (array.shape, array.dtype):
            has, needs = (f"{x.dtype} of shape {x.shape}" for x in (value, array))
            raise ValueError(f"{name} is {has}, not {needs}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        array[...] = value
