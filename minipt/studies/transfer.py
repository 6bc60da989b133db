"""Transfer: a prompt on other texts, as the start for another task, and on another base.

In: a base and tasks. Out: the accuracy of each task's prompts on every domain of the same labels
(Lester et al. 2021, section 5); the worth of another task's prompt as a start (SPoT: Vu et al.
2022, section 3.1); and a prompt's accuracy on `renamed`, a base that computes the same with its
channels in another order, which shows what a prompt is tied to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import evaluate
from minipt.learning.settings import defaults_for
from minipt.prompting.prompt import SoftPrompt
from minipt.results.kept import remember
from minipt.results.tables import align, spread, tabulate
from minipt.studies.jobs import Result, accuracies, jobs_of_seeds, run_all
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# The tasks whose labels are positive and negative.
DOMAINS = ("movie-reviews", "product-reviews", "tweets", "editorials")
# Parameters whose last axis runs over the channels of the residual stream.
INTO_STREAM = ("attn.out.weight", "mlp.down.weight", "table")
# Parameters that the stream's channels do not touch.
INSIDE = ("query.bias", "key.bias", "value.bias", "up.bias", "gate.bias")


def transfer(base: Base, tasks: Sequence[Task], seeds: int, **settings: object) -> dict:
    """Every transfer of prompts between tasks of the same labels, as numbers that JSON knows.

    settings: fields of `Settings`. matrix: see `domain_matrix`. starts: see `head_starts`, of the
    first task's prompts for the second task, in `steps` steps. another_base: see `on_another_base`,
    of the first task's first prompt; absent for a base without a language model's head.
    Raises MiniptError for no seed, and as the runs do.
    """
    if seeds < 1:
        raise MiniptError("a transfer needs at least one seed")
    first, second = tasks[:2]
    few = few_of(defaults_for(base, second, **settings).steps)
    transfers = {
        "matrix": domain_matrix(base, tasks, seeds, **settings),
        "starts": head_starts(base, first, second, seeds, few, **settings),
        "steps": few,
    }
    if base.config.head == "language":
        (result,) = run_all(jobs_of_seeds(base, first, 1, **settings))
        transfers["another_base"] = on_another_base(base, result.prompt(), first)
    return transfers


def few_of(steps: int) -> int:
    """A tenth of the usual steps, after which a head start should show."""
    return max(1, steps // 10)


def zero_shot(results: Sequence[Result], task: Task) -> np.ndarray:
    """The accuracies of finished runs on the test split of a task with the same labels. (N,)

    Asked once: the answer is kept beside the runs.
    """
    decides = [[str(result.job.directory) for result in results], task.digest]
    return np.array(
        remember("domain", decides, lambda: [r.evaluate(task.test, task).accuracy for r in results])
    )


def domain_matrix(
    base: Base, tasks: Sequence[Task], seeds: int, **settings: object
) -> dict[str, dict[str, list[float]]]:
    """Tune on each task and ask on all, in the words of the task that is asked.

    Returns test accuracies, one a seed, by the name of the task learnt and of the task asked. The
    base without a prompt stands under "no prompt", and what always answering the majority gives
    under "majority".
    """
    run_all(job for task in tasks for job in jobs_of_seeds(base, task, seeds, **settings))
    matrix = {"majority": {task.name: [task.majority_accuracy] for task in tasks}}
    matrix["no prompt"] = {
        task.name: [evaluate(base, None, task.test, task).accuracy] for task in tasks
    }
    for learnt in tasks:
        results = run_all(jobs_of_seeds(base, learnt, seeds, **settings))
        matrix[learnt.name] = {asked.name: zero_shot(results, asked).tolist() for asked in tasks}
    return matrix


def head_starts(
    base: Base, source: Task, task: Task, seeds: int, few: int, **settings: object
) -> dict[str, list[float]]:
    """A task learnt in few steps only, from the usual start and from another task's prompt (SPoT).

    Returns test accuracies, one a seed, by the name of the start: "usual", and the source's.
    """
    learnt = run_all(jobs_of_seeds(base, source, seeds, **settings))
    usual = jobs_of_seeds(base, task, seeds, **settings | {"steps": few})
    begun = [replace(job, start=result.prompt()) for job, result in zip(usual, learnt, strict=True)]
    results = run_all([*usual, *begun])
    halves = {"usual": results[:seeds], source.name: results[seeds:]}
    return {name: accuracies(half).tolist() for name, half in halves.items()}


def renamed(base: Base, seed: int) -> tuple[Base, np.ndarray]:
    """The same function with its channels in another order, and that order. (C,)

    The norms, sums and products of a transformer do not depend on the order of the residual
    stream's channels: with the rows or columns of every weight reordered alike, the base answers as
    before. Only a prompt, which comes from outside, finds nothing where it was. For bases with a
    language model's head.
    """
    order = np.random.default_rng(seed).permutation(base.config.channels)
    params = {}
    for name, array in base.params.items():
        if name.endswith(INSIDE):
            params[name] = array
        elif name.endswith(INTO_STREAM):
            params[name] = np.ascontiguousarray(array[:, order])
        else:
            params[name] = array[order]
    return Base(f"{base.name}-renamed", base.config, params, base.tokenizer), order


def on_another_base(base: Base, prompt: SoftPrompt, task: Task) -> dict[str, float]:
    """A prompt's test accuracy on its own base, on the base `renamed`, and there once it follows.

    `load_prompt` refuses such a prompt; here its vectors are handed over all the same.
    """
    other, order = renamed(base, seed=0)
    following = replace(prompt, vectors=np.ascontiguousarray(prompt.vectors[:, order]))
    pairs = {
        "its own base": (base, prompt),
        "the base, channels renamed": (other, prompt),
        "there, the prompt's renamed too": (other, following),
    }
    return {name: evaluate(*pair, task.test, task).accuracy for name, pair in pairs.items()}


def tell(base: Base, tasks: Sequence[Task], transfers: Mapping) -> str:
    """The results of `transfer` as three tables, of means over the seeds."""
    first, second = tasks[:2]
    means = {
        learnt: [np.mean(values) for values in row.values()]
        for learnt, row in transfers["matrix"].items()
    }
    few = f"{second.name} in {transfers['steps']} steps, begun with"
    usual, begun = map(spread, transfers["starts"].values())
    starts = {"the usual start": usual, f"the prompt of {first.name}": begun}
    tables = [
        align(tabulate(("learnt on \\ asked on", *(task.name for task in tasks)), means.items())),
        align(tabulate((few, "test: mean", "lowest", "highest"), starts.items())),
        f"on another base: not shown, since base {base.name!r} has no language head",
    ]
    if "another_base" in transfers:
        numbers = ((name, [accuracy]) for name, accuracy in transfers["another_base"].items())
        tables[-1] = align(tabulate((f"a prompt of {first.name} on", "test"), numbers))
    return "\n\n".join(tables)
