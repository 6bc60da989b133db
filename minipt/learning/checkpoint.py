"""The state of a run, and the file from which an interrupted run goes on.

In: a `State`. Out: one safetensors file, which fills a fresh `State` with the same bits again. The
file says which run it belongs to.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.records import read_tensors, write_tensors
from minipt.learning.evaluate import Evaluation
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays, Optimizer
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
    arrays: Arrays  # the best on validation, not the last
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
    """All that decides the bits of a run."""
    identity = {
        "base": learner.base.fingerprint,
        "task": task.digest,
        "learner": learner.name,
        "settings": asdict(settings),
    }
    return identity | ({"start": learner.goes_on_from} if learner.goes_on_from else {})


def write_checkpoint(path: str | Path, state: State) -> None:
    """Write what the steps have changed. Raises MiniptError when that is not possible."""
    arrays = {f"trained.{name}": array for name, array in state.learner.arrays.items()}
    arrays |= {f"best.{name}": array for name, array in state.arrays.items()}
    arrays |= {f"optimizer.{name}": array for name, array in state.optimizer.state.items()}
    names = ("identity", "history", "best_step", "seconds")
    record = {name: getattr(state, name) for name in names}
    write_tensors(path, arrays, record)


def read_checkpoint(path: str | Path | None, state: State) -> None:
    """Fill a fresh state. Raises MiniptError for a missing or damaged file, or another run's."""
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
        state.history, state.best_step = record["history"], record["best_step"]
        state.seconds = float(record["seconds"])
        steps = [entry["step"] for entry in state.history]
        if steps != list(range(len(steps))) or state.best_step not in steps:
            raise ValueError("its history has gaps")
        for kind, filled in (("trained", state.learner.arrays), ("best", state.arrays)):
            put({name: arrays.pop(f"{kind}.{name}") for name in filled}, filled)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MiniptError(f"{path} is no checkpoint that can be used ({error}): {advice}") from None
    state.optimizer.t = state.step
    state.optimizer.state = {name.removeprefix("optimizer."): a for name, a in arrays.items()}


def put(values: Arrays, arrays: Arrays) -> None:
    """Write the values into the arrays of the same names."""
    for name, array in arrays.items():
        array[...] = values[name]
