"""Prompt tuning by hand: a frozen transformer in NumPy and the vectors in front of the text.

Begin with `plain`: the whole idea for GPT-2, in functions on arrays. Then the folders, which are
the layers of the house. Each builds on those above it, and its `__init__` says what comes in, what
goes out and in what order to read its files.

    maths        pure functions on arrays, each forward above its backward
    files        files that are complete or absent; fetching
    transformer  the frozen base, its layers, forward and backward
    prompting    the prompt, the texts, one step of prompt tuning
    tasks        data with its splits
    learning     the loop, and what is measured
    loading      weights of other people
    results      what a run becomes
    statistics   tests of significance, and calibration
    registry     a prompt's life: versions, tags, a log
    rivals       what one would try instead
    studies      whether it works
    commands     the command line
    course       the exercises of the notebooks, and their checks

`errors` serves all.
"""

from importlib import import_module

from minipt.errors import MiniptError
from minipt.learning.evaluate import evaluate, predict
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting.generate import generate
from minipt.prompting.prompt import SoftPrompt, from_peft, load_prompt
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import logits, loss_and_gradient
from minipt.tasks.datasets import load_task
from minipt.tasks.task import load_csv, load_pairs
from minipt.transformer.trace import Trace

__all__ = [
    "Batch",
    "MiniptError",
    "Registry",
    "SoftPrompt",
    "Trace",
    "check_gradient",
    "compare",
    "evaluate",
    "from_peft",
    "generate",
    "init_prompt",
    "load_base",
    "load_csv",
    "load_pairs",
    "load_prompt",
    "load_task",
    "logits",
    "loss_and_gradient",
    "predict",
    "tune",
]


def __getattr__(name: str) -> object:
    """The course, and the registry with its sqlite3: imported when they are first asked for."""
    if name == "course":
        return import_module("minipt.course")
    if name == "Registry":
        return import_module("minipt.registry.registry").Registry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
