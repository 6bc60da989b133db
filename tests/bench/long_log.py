"""How long `minipt watch` takes for a long log, and how much memory.

    python tests/bench/long_log.py

Keeps a prompt in a temporary registry, logs 1,000,000 answers that are drawn from its validation
split, with noise on the hidden states and the truth of every answer, and watches them in a process
of its own. Linux and macOS only, since the system counts the memory.
"""

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import minipt
from minipt.learning.observe import ARRAYS, Observation
from minipt.registry.database import FILE
from minipt.registry.registry import Registry

AT_ONCE = 100_000
UNIT = 1e6 if sys.platform == "darwin" else 1e3  # of the memory: bytes or kB, in a MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--task", default="questions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fill(Registry(directory), arguments.task, arguments.answers)
        size = (Path(directory) / FILE).stat().st_size / 1e6
        line = [sys.executable, "-m", "minipt", "watch", "kept", "--registry", directory]
        start = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(done.stdout + done.stderr)
    print(
        f"{arguments.answers:,} answers in {size:.0f} MB: {seconds:.1f} s, of which the processor "
        f"worked {used.ru_utime + used.ru_stime:.1f} s; {used.ru_maxrss / UNIT:.0f} MB of memory"
    )


def fill(registry: Registry, task: str, count: int) -> None:
    """A log that is as validation was."""
    run = minipt.tune(minipt.load_base("micro"), minipt.load_task(task), steps=20, seed=0)
    registry.save(run, "kept")
    seen, right = registry.validation("kept")
    rng, truth = np.random.default_rng(0), []
    for start in range(0, count, AT_ONCE):
        rows = rng.integers(0, len(right), min(AT_ONCE, count - start))
        arrays = {name: getattr(seen, name)[rows] for name in ARRAYS}
        arrays["hidden"] += rng.normal(0, 1e-3, arrays["hidden"].shape).astype(np.float32)
        times = 1.7e9 + start + np.arange(len(rows))
        ids = registry.log("kept", Observation(seen.labels, **arrays), times=times)
        truth += zip(right[rows].tolist(), ids, strict=True)
    with sqlite3.connect(registry.directory / FILE) as database:  # all at once
        database.executemany("UPDATE log SET truth = ? WHERE id = ?", truth)


if __name__ == "__main__":
    main()
