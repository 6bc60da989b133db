"""Many processes write to one registry, and some are killed: is anything lost?

    python tests/registry/storm.py together 1000 8    1,000 versions by 8 processes, tags moved
    python tests/registry/storm.py killed 50          kill -9 at 50 random moments

The tests take smaller numbers. Both end with an AssertionError when something is lost.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from minipt.prompting.prompt import SoftPrompt
from minipt.registry.registry import Registry

NAME, TAGS = "spam", ("production", "trial")
AT_ONCE = 5


def work(directory: str, worker: int, wanted: int) -> None:
    """Keep prompts, and move a tag after each, as one of the processes; 0: without an end."""
    registry, rng = Registry(directory), np.random.default_rng(worker)
    print("ready", flush=True)
    for n in range(wanted) if wanted else count():
        vectors = rng.standard_normal((3, 8)).astype(np.float32)
        kept = registry.save(SoftPrompt(vectors, "f" * 64, "tiny"), NAME, f"{worker} {n}")
        registry.tag(NAME, kept.number, TAGS[n % 2])


@contextmanager
def started(directory: Path, workers: Sequence[int], wanted: int) -> Iterator[list]:
    """Processes that work; they are killed where the block has not waited for them."""
    command = [sys.executable, __file__, "work", str(directory)]
    working = [
        subprocess.Popen([*command, str(k), str(wanted)], stdout=subprocess.PIPE, text=True)
        for k in workers
    ]
    try:
        yield working
    finally:
        for each in working:
            each.kill()
            each.wait()
            each.stdout.close()


def together(directory: Path, versions: int, processes: int) -> float:
    """Let processes keep so many versions together. Returns the seconds that it took."""
    registry = Registry(directory)
    began, looks = time.perf_counter(), 0
    with started(directory, range(processes), versions // processes) as working:
        while any(each.poll() is None for each in working):
            if registry.has(NAME):
                tagged = [tag for each in registry.versions(NAME) for tag in each.tags]
                assert len(tagged) == len(set(tagged))  # no tag is on two versions
                assert looks == 0 or TAGS[0] in tagged  # and it is on one from the first move on
                looks += TAGS[0] in tagged
            time.sleep(0.05)
        assert [each.returncode for each in working] == [0] * processes
    seconds = time.perf_counter() - began
    assert looks > 1
    messages = [each.message for each in registry.versions(NAME)]
    wanted = {f"{k} {n}" for k in range(processes) for n in range(versions // processes)}
    assert len(messages) == versions and set(messages) == wanted
    check(registry)
    assert registry.unnamed() == []
    return seconds


def killed(directory: Path, kills: int, seed: int = 0) -> int:
    """Kill processes while they keep and tag. Returns how many files no version names."""
    registry, rng = Registry(directory), random.Random(seed)
    seen = {}
    for first in range(0, kills, AT_ONCE):
        with started(directory, range(first, min(first + AT_ONCE, kills)), 0) as working:
            for each in working:
                assert each.stdout.readline() == "ready\n"
            for each in working:
                time.sleep(rng.uniform(0, 0.1))
                each.kill()
                each.wait()
                if registry.has(NAME):
                    now = {each.number: each.sha256 for each in registry.versions(NAME)}
                    assert seen.items() <= now.items()  # what was kept stays, and stays the same
                    seen = now
    assert seen
    check(registry)
    return len(registry.unnamed())


def check(registry: Registry) -> None:
    """Nothing is damaged, numbers have no gaps, and the history of each tag has none either."""
    assert registry.verify() == []
    numbers = [each.number for each in registry.versions(NAME)]
    assert numbers == list(range(1, len(numbers) + 1))
    place = dict.fromkeys(TAGS)
    for move in registry.moves(NAME):
        assert move.before == place[move.tag]
        place[move.tag] = move.after
    assert {tag: n for tag, n in place.items() if n} == registry.tags(NAME)


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    if what == "work":
        work(numbers[0], *map(int, numbers[1:]))
    else:
        with TemporaryDirectory() as place:
            print({"together": together, "killed": killed}[what](Path(place), *map(int, numbers)))
