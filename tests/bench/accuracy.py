"""What 20 vectors reach: accuracy on the test split, over tasks and seeds, beside the baselines.

    python tests/bench/accuracy.py --seeds 3 sms-spam questions movie-reviews

Prints a row as each task is done: the majority class, a bag of words, the base without a prompt,
and the tuned prompt's mean over the seeds with the lowest and the highest. Nothing is chosen on the
test split: the best step of a run is that of the validation split.
"""

import argparse

import numpy as np
from tqdm import tqdm

import minipt
from minipt.tasks.bag_of_words import bag_of_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=["sms-spam", "questions", "movie-reviews"])
    parser.add_argument("--base", default="tiny", help="a base's name or directory")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--steps", type=int, default=2000, help="of 16 texts each (default: 2000)")
    rate = "of Adam (default: 1.0)"
    parser.add_argument("--learning-rate", type=float, default=1.0, help=rate)
    parser.add_argument("--length", type=int, default=20, help="P (default: 20)")
    arguments = parser.parse_args()
    base = minipt.load_base(arguments.base)
    print("| task | test texts | majority | bag of words | no prompt | tuned (lowest, highest) |")
    print("|---|---|---|---|---|---|")
    for name in arguments.tasks:
        print(row(base, name, arguments), flush=True)


def row(base: minipt.transformer.base.Base, name: str, arguments: argparse.Namespace) -> str:
    """One task's figures as a row of a Markdown table."""
    task = minipt.load_task(name)
    test = task.test
    words = np.mean(bag_of_words(task.train, test, len(task.labels)) == test.labels)
    untuned = minipt.evaluate(base, None, test, task).accuracy
    tuned = [
        minipt.tune(
            base,
            task,
            length=arguments.length,
            steps=arguments.steps,
            learning_rate=arguments.learning_rate,
            evaluate_every=100,
            seed=seed,
        ).test_accuracy
        for seed in tqdm(range(arguments.seeds), desc=name, unit="seed")
    ]
    return (
        f"| {name} | {len(test.texts):,} | {task.majority_accuracy:.3f} | {words:.3f} "
        f"| {untuned:.3f} | {np.mean(tuned):.3f} ({min(tuned):.3f}, {max(tuned):.3f}) |"
    )


if __name__ == "__main__":
    main()
