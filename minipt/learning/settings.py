"""Settings: how to learn, and the values that suit a base and a task.

In: what the user gave. Out: `Settings`, complete and checked.
"""

import sys
from dataclasses import dataclass
from numbers import Integral, Real

from minipt.errors import MiniptError
from minipt.learning.optimizers import OPTIMIZERS, SCHEDULES
from minipt.tasks.task import Task
from minipt.transformer.base import Base

UNLIMITED = ("patience", "threads", "validation_texts")  # None is allowed
COUNTS = ("length", "steps", "batch_size", "evaluate_every", *UNLIMITED)
# What suits a base of this name, or a base and a task of these names, better than the defaults.
DEFAULTS_FOR = {
    # This base takes long to answer, so a look reads few texts. They are too few to choose among
    # steps that are nearly as good, so there is one look behind the last step.
    "smollm2-135m": {
        "method": "text",
        "steps": 120,
        "learning_rate": 0.05,
        "evaluate_every": 120,
        "validation_texts": 256,
    },
    "minilm": {"steps": 900, "batch_size": 32, "learning_rate": 0.02, "evaluate_every": 150},
    # Of 28 on validation the least loss: 0.719 right, the mean of three seeds, and the defaults
    # 0.594. On its 32 test texts both have 0.531: this base hardly reads sentiment.
    ("tiny", "toy"): {"method": "text", "steps": 500},
}


@dataclass(frozen=True)
class Settings:
    """How to learn; the defaults are those of a prompt for the tiny base.

    Raises MiniptError for a value that makes no sense, by its name.
    """

    length: int = 20  # P
    method: str = "vocab"  # the start of the prompt, as in `init_prompt`
    text: str | None = None  # the words of the start, as in `init_prompt`
    steps: int = 250  # batches to learn from
    seed: int = 0  # the same seed gives the same bits on one kind of processor
    batch_size: int = 16
    learning_rate: float = 0.3  # for Adam, about how far a step moves each number
    optimizer: str = "adam"
    schedule: str = "linear"  # of the learning rate: "constant", "linear" or "cosine"
    warmup: int = 20  # steps in which the rate rises first, at most half of all
    clip: float = 1.0  # larger gradients are scaled down to this joint norm
    evaluate_every: int = 50  # steps between looks at the validation split
    validation_texts: int | None = None  # that a look reads, spread over the split; None: all
    patience: int | None = None  # so many looks without a better one end the run early
    head: bool = False  # a linear head of K x C numbers learns too; for labels only
    threads: int | None = None  # that work at a time; None: one a core; the bits stay the same

    def __post_init__(self) -> None:
        # A float64 of NumPy's would turn float32 arrays into float64; JSON has no NumPy numbers.
        for name in (*COUNTS, "seed", "warmup"):
            value, least = getattr(self, name), 1 if name in COUNTS else 0
            if value is None and name in UNLIMITED:
                continue
            if not isinstance(value, Integral):
                raise MiniptError(f"{name} is a whole number, not {value!r}")
            if value < least:
                raise MiniptError(f"{name} is at least {least}, not {value}")
            object.__setattr__(self, name, int(value))
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < value <= sys.float_info.max):
                raise MiniptError(f"{name} is a positive number, not {value!r}")
            object.__setattr__(self, name, float(value))
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value not in list(known):
                raise MiniptError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")

    def looks_after(self, step: int) -> bool:
        """Whether the validation split is measured after this step; 0: before the first."""
        return step == self.steps or step % self.evaluate_every == 0


def defaults_for(base: Base, task: Task | None = None, **given: object) -> Settings:
    """The settings for a base and a task: those given, then what suits the two, then the defaults.

    A start from words takes the task's instruction where no other words are given. For a task
    without one, a start from words that was not asked for becomes the default start. Words alone
    ask for a start from them.

    Raises MiniptError for a value that makes no sense, by its name.
    """
    asked = {"method": "text"} if given.get("text") is not None else {}
    suited = DEFAULTS_FOR.get((base.name, task.name), {}) if task else {}
    values = DEFAULTS_FOR.get(base.name, {}) | suited | asked | given
    if values.get("method") == "text" and values.get("text") is None:
        if task and task.opening:
            values["text"] = task.opening
        elif "method" in given:
            raise MiniptError('the start "text" needs a text: give one, or choose another start')
        else:
            del values["method"]
    return Settings(**values)
