"""Many prompts over one base: one pass for all, beside one prompt after another.

    python tests/bench/prompts.py
    python tests/bench/prompts.py --base smollm2-135m --texts 100 --prompts 1 10

The texts are messages of sms-spam, and each has one of the prompts, drawn at random. "One by one"
loads each prompt's file and answers its texts; "one pass" loads all files and answers all texts
together (`minipt.predict` with `which`). The two are first held to agree. They take turns, and the
table has the medians. The prompts are random vectors behind the task's labels: what they answer
does not matter here. The memory of a prompt is that of the keys and values it leaves.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minipt
from minipt.learning.memory import keep_freed_memory
from minipt.prompting.wiring import run_prompt


def save_prompts(base, count: int, length: int, directory: Path) -> list[Path]:
    task, paths = minipt.load_task("sms-spam"), []
    for seed in range(count):
        prompt = minipt.init_prompt(base, length, seed=seed)
        prompt.about |= {"labels": list(task.labels), "label_words": list(task.label_words)}
        prompt.about |= {"template": task.template, "task": task.name}
        paths.append(directory / f"{seed}.safetensors")
        prompt.save(paths[-1])
    return paths


def one_by_one(base, paths: list[Path], texts: list[str], which: np.ndarray) -> list[str]:
    answers = [""] * len(texts)
    for k, path in enumerate(paths):
        prompt = minipt.load_prompt(path, base)
        own = (which == k).nonzero()[0]
        for i, answer in zip(
            own, minipt.predict(base, prompt, [texts[i] for i in own]), strict=True
        ):
            answers[i] = answer.label
    return answers


def one_pass(base, paths: list[Path], texts: list[str], which: np.ndarray) -> list[str]:
    prompts = [minipt.load_prompt(path, base) for path in paths]
    return [answer.label for answer in minipt.predict(base, prompts, texts, which)]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--length", type=int, default=20, help="P")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    base, rng = minipt.load_base(arguments.base), np.random.default_rng(0)
    texts = minipt.load_task("sms-spam").train.texts[: arguments.texts]
    print(f"{len(texts)} texts, {arguments.length} vectors a prompt, in front of {base.name}\n")
    print("| prompts | one by one | one pass | one by one / one pass |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = save_prompts(base, max(arguments.prompts), arguments.length, Path(folder))
        for count in arguments.prompts:
            given = (base, paths[:count], texts, rng.integers(0, count, len(texts)))
            assert one_by_one(*given) == one_pass(*given)
            turns = [
                [seconds_of(lambda: one_by_one(*given)), seconds_of(lambda: one_pass(*given))]  # noqa: B023
                for _ in range(arguments.rounds)
            ]
            apart, together = np.median(turns, axis=0)
            print(f"| {count} | {apart:.2f} s | {together:.2f} s | {apart / together:.2f} |")
        kept = run_prompt(base, minipt.load_prompt(paths[0], base))
    size = sum(array.nbytes for pair in kept for array in pair)
    print(f"\nA prompt's keys and values: {size / 1e3:.0f} kB; its file: ", end="")
    print(f"{4 * arguments.length * base.config.channels / 1e3:.0f} kB of numbers.")


if __name__ == "__main__":
    main()
