"""Transfer: a prompt on other texts, as the start for another task, and on another base.

In: a base and tasks. Out: the accuracy of each task's prompts on every domain of the same labels
(Lester et al. 2021, section 5, asked how a prompt holds up on texts of another kind); what another
task's prompt is worth as a start (SPoT: Vu et al. 2022, section 3.1); and `renamed`, a base that
computes the same as another with its channels in another order, which shows what a prompt is tied
to. The story continues in `neighbours.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.checkpoint import digest
from minipt.learning.evaluate import evaluate
from minipt.learning.settings import defaults_for
from minipt.prompting.prompt import SoftPrompt
from minipt.results.report import align
from minipt.studies.jobs import Job, Result, accuracies, remember, run_all
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# The tasks whose labels are positive and negative.
DOMAINS = ("movie-reviews", "product-reviews", "tweets", "editorials")
# Parameters whose last axis runs over the channels of the residual stream.
INTO_STREAM = ("attn.out.weight", "mlp.down.weight", "table")
# Those that the stream's channels do not touch.
INSIDE = ("query.bias", "key.bias", "value.bias", "up.bias", "gate.bias")


def few_of(steps: int) -> int:
    """A tenth of the usual steps, after which a head start should show."""
    return max(1, steps // 10)


def zero_shot(results: Sequence[Result], task: Task) -> np.ndarray:
    """The accuracies of finished runs on the test split of a task with the same labels. (N,)

    Asked once: the answer is kept beside the runs.
    """
    decides = [[str(result.job.directory) for result in results], digest(task)]
    return np.array(
        remember("domain", decides, lambda: [r.evaluate(task.test, task).accuracy for r in results])
    )


def domain_matrix(
    base: Base, tasks: Sequence[Task], seeds: int, **settings: object
) -> dict[str, dict[str, list[float]]]:
    """Tune on each task and ask on all, in the words of the task that is asked.

    The tasks have the same labels; settings: fields of `Settings`. Returns test accuracies, one a
    seed, by the name of the task learnt and of the task asked. The base without a prompt stands
    under "no prompt", and what always answering the majority gives under "majority".
    """
    jobs = [job for task in tasks for job in _jobs(base, task, seeds, settings)]
    results = run_all(jobs)
    found = {"majority": {task.name: [task.majority_accuracy] for task in tasks}}
    found["no prompt"] = {
        task.name: [evaluate(base, None, task.test, task).accuracy] for task in tasks
    }
    for i, learnt in enumerate(tasks):
        own = results[i * seeds : (i + 1) * seeds]
        found[learnt.name] = {asked.name: zero_shot(own, asked).tolist() for asked in tasks}
    return found


def head_starts(
    base: Base, source: Task, task: Task, seeds: int, few: int, **settings: object
) -> dict[str, list[float]]:
    """A task learnt in few steps only, from the usual start and from another task's prompt (SPoT).

    Returns test accuracies, one a seed, by the name of the start: "usual", and the source's.
    """
    learnt = run_all(_jobs(base, source, seeds, settings))
    short = list(_jobs(base, task, seeds, settings | {"steps": few}))
    begun = [replace(job, start=result.prompt()) for job, result in zip(short, learnt, strict=True)]
    results = run_all([*short, *begun])
    halves = {"usual": results[:seeds], source.name: results[seeds:]}
    return {name: accuracies(half).tolist() for name, half in halves.items()}


def _jobs(base: Base, task: Task, seeds: int, settings: Mapping[str, object]) -> list[Job]:
    if seeds < 1:
        raise MiniptError("a transfer needs at least one seed")
    chosen = [defaults_for(base, task, **settings, seed=seed) for seed in range(seeds)]
    return [Job("prompt", base, task, each) for each in chosen]


def tell_matrix(matrix: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The means over the seeds as a table: a row for each task learnt."""
    targets = list(next(iter(matrix.values())))
    rows = [("learnt on \\ asked on", *targets)]
    for source, found in matrix.items():
        rows.append((source, *(f"{np.mean(found[target]):.3f}" for target in targets)))
    return align(rows, "<" + ">" * len(targets))


def renamed(base: Base, seed: int) -> tuple[Base, np.ndarray]:
    """The same function with its channels in another order, and that order. (C,)

    The norms, sums and products of a transformer do not ask in which order the channels of its
    residual stream stand: with every weight's rows or columns reordered alike, it answers as
    before, and only what comes from outside, a prompt, finds nothing where it was. For bases with a
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
    asked = {
        "its own base": (base, prompt),
        "the base, channels renamed": (other, prompt),
        "there, the prompt's renamed too": (other, following),
    }
    return {name: evaluate(*pair, task.test, task).accuracy for name, pair in asked.items()}


def tell_starts(task: Task, steps: int, starts: Mapping[str, Sequence[float]]) -> str:
    """A line for each start: the mean over the seeds, the lowest and the highest."""
    rows = [(f"{task.name} in {steps} steps, begun with", "test: mean", "lowest", "highest")]
    for name, found in starts.items():
        start = "the usual start" if name == "usual" else f"the prompt of {name}"
        rows.append((start, *(f"{f(found):.3f}" for f in (np.mean, np.min, np.max))))
    return align(rows, "<>>>")


def tell_another_base(task: Task, found: Mapping[str, float]) -> str:
    """The same prompt on three bases."""
    rows = [(f"a prompt of {task.name} on", "test")]
    rows += [(name, f"{accuracy:.3f}") for name, accuracy in found.items()]
    return align(rows, "<>")
