"""How soon `minipt watch` sees a change, and how often it sees one where there is none.

    python tests/bench/monitoring.py

For each task a prompt is tuned in front of the small base, and its answers to some pools of texts
are computed once: to the validation and test splits, to another domain, to another language's
words. Each of 200 streams draws 500 of these answers, with replacement. From the middle on all
streams but the quiet ones draw otherwise. `watch` looks after every 50 answers at all so far.

First the level is fixed, on validation alone: one random half is watched against the other. Then
the lesson: spam that grows more and shorter, over several seeds, with the truth beside it.
"""

import argparse
from dataclasses import replace

import numpy as np

import minipt
from minipt.learning.observe import ARRAYS, Observation, observe
from minipt.registry.monitor import LEVEL, at_one_level, compare
from minipt.results.tables import markdown
from minipt.tasks.bag_of_words import confidence_interval
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# Each task and the domain from which its streams come later.
DOMAINS = {"sms-spam": "tweets", "questions": "editorials", "movie-reviews": "product-reviews"}
# Frequent German words, written down for this program.
GERMAN = (
    "der die das und ist nicht ein eine mit auf für sich von dem den im war wird auch haben nach "
    "wie über können müssen Straße Bücher Kinder schön früh größer Häuser Wasser gehen kommen "
    "heute morgen Abend Freund zwischen während obwohl Geschichte Gesellschaft möglich vielleicht"
).split()
STREAMS, LENGTH, STEP = 200, 500, 50
MIDDLE, LOOKS = LENGTH // 2, range(STEP, LENGTH + 1, STEP)
LEVELS = (0.05, 0.01, 0.005, 0.002, 0.001, 0.0005)
MOST_ALARMS = 10  # of 200 quiet streams
HALVES = 10  # ways to divide a validation split, each for a tenth of the streams
FEW_WORDS = 6
Pools = dict[str, Observation]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(DOMAINS), help="some of the three")
    parser.add_argument("--base", default="micro", help="a base's name or directory")
    parser.add_argument("--seeds", type=int, default=3, help="of the lesson (default: 3)")
    arguments = parser.parse_args()
    base = minipt.load_base(arguments.base)
    levels = [("task", *(f"level {level:g}" for level in LEVELS))]
    rows = [("task", "stream", "alarms", "interval", "at any look", "delay", "seen by")]
    for name in arguments.tasks:
        task = minipt.load_task(name)
        pools = ask(base, task)
        levels.append((name, *(str(n) for n in alarms_on_halves(pools["validation"]))))
        rows += [(name, *row) for row in study(task, pools)]
    print(markdown(levels), markdown(rows), markdown(lesson(base, arguments.seeds)), sep="\n")


def ask(base: Base, task: Task) -> Pools:
    """A tuned prompt's answers to each pool of texts."""
    run, rng = minipt.tune(base, task, seed=0), np.random.default_rng(0)
    texts = {"validation": task.validation.texts, "quiet": task.test.texts}
    texts["another domain"] = minipt.load_task(DOMAINS[task.name]).test.texts
    texts["another language"] = [
        " ".join(rng.choice(GERMAN, max(1, len(text.split())))) for text in task.test.texts
    ]
    return {kind: observe(base, run.prompt, some) for kind, some in texts.items()}


def alarms_on_halves(validation: Observation) -> list[int]:
    """Of 200 streams of one half of validation, watched against the other, the alarms by level."""
    rng, found = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(len(validation.tokens))
        known, pool = pick(validation, order[::2]), pick(validation, order[1::2])
        for _ in range(STREAMS // HALVES):
            stream = pick(pool, rng.integers(0, len(pool.tokens), LENGTH))
            found.append(min(look(known, stream).values()))
    return [int(sum(p <= level for p in found)) for level in LEVELS]


def study(task: Task, pools: Pools) -> list[tuple[str, ...]]:
    """A row for each kind of stream: its alarms, its delay, and the tests that see it."""
    quiet, rng = pools["quiet"], np.random.default_rng(1)
    last = np.flatnonzero(task.test.labels == len(task.labels) - 1)
    rows = []
    for kind in ("quiet", "another domain", "classes shifted", "another language"):
        everything, late, share = quiet, last, 0.5
        if kind != "classes shifted":
            everything, share = join(quiet, pools[kind]), float(kind != "quiet")
            late = np.arange(len(quiet.tokens), len(everything.tokens))
        streams = draw(rng, len(quiet.tokens), late, share)
        looks = [n for n in LOOKS if kind == "quiet" or n > MIDDLE]
        rows.append((kind, *tell(kind, watch_all(pools["validation"], everything, streams, looks))))
    return rows


def draw(rng: np.random.Generator, quiet: int, late: np.ndarray, share: float) -> np.ndarray:
    """Streams of texts by their indices, below `quiet` at first. (STREAMS, LENGTH)

    From the middle on, this share of the texts is drawn from the indices `late`.
    """
    streams = rng.integers(0, quiet, (STREAMS, LENGTH))
    changed = rng.random((STREAMS, LENGTH)) < share
    changed[:, :MIDDLE] = False
    streams[changed] = rng.choice(late, changed.sum())
    return streams


def watch_all(
    validation: Observation, everything: Observation, streams: np.ndarray, looks: list[int]
) -> dict[str, np.ndarray]:
    """The adjusted p of each test, for each stream after so many answers. (STREAMS, looks) each

    Streams of one length come together, since they share their relabellings.
    """
    found = [[look(validation, pick(everything, s[:n])) for s in streams] for n in looks]
    return {test: np.array([[p[test] for p in row] for row in found]).T for test in found[0][0]}


def tell(kind: str, found: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Alarms at the end with their interval, at any look, the delay, and the tests at the end."""
    alarms = np.min(list(found.values()), axis=0) <= LEVEL  # (STREAMS, looks)
    at_end = int(alarms[:, -1].sum())
    interval = "{:.3f} to {:.3f}".format(*confidence_interval(at_end, STREAMS))
    any_look, delay = str(int(alarms.any(1).sum())), "-"
    if kind != "quiet":
        delays = np.where(alarms.any(1), STEP * (1 + alarms.argmax(1)), np.inf)
        delay = ", ".join(f"{x:g}" for x in np.percentile(delays, [50, 90], method="lower"))
    return f"{at_end} of {STREAMS}", interval, any_look, delay, seen_by(found)


def seen_by(found: dict[str, np.ndarray]) -> str:
    """How many streams each test sees at the end, the most first; those that see none left out."""
    counts = {test: int((p[:, -1] <= LEVEL).sum()) for test, p in found.items()}
    order = sorted(counts, key=counts.get, reverse=True)
    return ", ".join(f"{test} {counts[test]}" for test in order if counts[test]) or "-"


def lesson(base: Base, seeds: int) -> list[tuple[str, ...]]:
    """Confidence and accuracy before the change and after it, and how many streams each test sees.

    From the middle on every second text is spam that was cut to its first six words.
    """
    task, rng = minipt.load_task("sms-spam"), np.random.default_rng(2)
    spam = np.flatnonzero(task.test.labels == task.labels.index("spam"))
    short = [" ".join(task.test.texts[i].split()[:FEW_WORDS]) for i in spam]
    rows = [("seed", "confidence before, after", "accuracy before, after", "alarms", "seen by")]
    for seed in range(seeds):
        prompt = minipt.tune(base, task, seed=seed).prompt
        texts = (task.validation.texts, task.test.texts, short)
        validation, quiet, late = (observe(base, prompt, some) for some in texts)
        everything, N = join(quiet, late), len(quiet.tokens)
        right = np.append(task.test.labels, np.full(len(short), task.labels.index("spam")))
        streams = draw(rng, N, np.arange(N, len(right)), 0.5)
        halves = streams[:, :MIDDLE], streams[:, MIDDLE:]
        numbers = (everything.probabilities.max(1), everything.answers == right)  # (N,) each
        means = [", ".join(f"{x[half].mean():.3f}" for half in halves) for x in numbers]
        found = watch_all(validation, everything, streams, [LENGTH])
        rows.append((str(seed), *means, tell("", found)[0], seen_by(found)))
    return rows


def look(validation: Observation, seen: Observation) -> dict[str, float]:
    """What `watch` finds without truths: each test's p after Holm."""
    return {each.name: each.adjusted for each in at_one_level(compare(validation, seen))}


def pick(seen: Observation, indices: np.ndarray) -> Observation:
    """Some of the texts, in this order."""
    return replace(seen, **{name: getattr(seen, name)[indices] for name in ARRAYS})


def join(first: Observation, second: Observation) -> Observation:
    """The texts of both."""
    both = {name: (getattr(first, name), getattr(second, name)) for name in ARRAYS}
    return replace(first, **{name: np.concatenate(pair) for name, pair in both.items()})


if __name__ == "__main__":
    main()
