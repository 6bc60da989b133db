"""The commands that compare: many runs, or one run looked at from many sides.

In: arguments. Out: a table or JSON on standard output; of a sweep and of the evidence also a
directory below `runs/`. The runs themselves are kept in `runs/study/`. A command that was
interrupted or killed goes on where it was when it is typed again.
"""

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from minipt.commands.arguments import (
    BASE_AND_TASK,
    REGISTRY,
    RUN,
    SETTINGS,
    argument,
    base_argument,
    choose_task,
    command,
    given_settings,
    list_of,
    load_base_and_task,
    load_tuned,
    print_result,
    setting_arguments,
    task_arguments,
)
from minipt.commands.terminal import command_line
from minipt.errors import MiniptError
from minipt.loading.load import load_base
from minipt.results import reading
from minipt.results.store import check_page, save_page
from minipt.rivals import LEARNERS
from minipt.studies import compare, cost, ensemble, evidence, sweep, transfer
from minipt.studies.claims import PLANS
from minipt.studies.jobs import jobs_of_seeds, run_all
from minipt.tasks.datasets import load_task

SINGLE = setting_arguments(("length", "steps", "batch_size", "learning_rate"))
SWEPT = [
    argument(flag, f"{meaning}; values to try", dest=name, **list_of(kind))
    for name, (flag, kind, meaning) in SETTINGS.items()
    if name in ("length", "method", "steps", "batch_size", "learning_rate", "optimizer")
]
SEEDS = argument("--seeds", "how many seeds: 0, 1, and so on", type=int, default=3)
LEARNER = argument("--learner", f"who learns, some of {', '.join(LEARNERS)}", **list_of(str))


@command(
    "--length 1,5,20,60 --init uniform,vocab --seeds 3",
    *BASE_AND_TASK,
    LEARNER,
    *SWEPT,
    SEEDS,
)
def sweep_command(args: argparse.Namespace) -> None:
    """Tune with other settings, over seeds, and compare; the best rate on validation is taken."""
    base, task = load_base_and_task(args)
    axes = ({"learner": args.learner} if args.learner else {}) | given_settings(args)
    rows = sweep.sweep(base, task, axes, args.seeds)
    place = sweep.write(base, task, axes, args.seeds, rows)
    text = f"{sweep.tell(task, rows)}\n\nwritten: {place}/"
    print_result(args, sweep.describe(rows), text)


@command(
    "--task questions --members 5",
    *BASE_AND_TASK,
    argument("--members", "how many prompts", type=int, default=5),
    *SINGLE,
)
def ensemble_command(args: argparse.Namespace) -> None:
    """Tune prompts that differ in their seed, and let them vote."""
    base, task = load_base_and_task(args)
    if args.members < 2 or not task.labels:
        args.parser.error("an ensemble needs two members or more, and labels to vote on")
    results = run_all(jobs_of_seeds(base, task, args.members, **given_settings(args)))
    prompts = [result.prompt() for result in results]
    answers = ensemble.ensemble(base, prompts, task)
    losses = ensemble.losses_between(base, *prompts[:2], task)
    path = "validation loss from the first to the second: "
    path += ", ".join(f"{loss:.2f}" for loss in losses)
    record = {"accuracies": answers.accuracies(), "losses_between": losses}
    print_result(args, record, f"{ensemble.tell(task, answers)}\n\n{path}")


@command("--base minilm --seeds 3", base_argument(), *SINGLE, SEEDS)
def transfer_command(args: argparse.Namespace) -> None:
    """Tune on each of several tasks with the labels positive and negative, and ask on all."""
    base, tasks = load_base(args.base), [load_task(name) for name in transfer.DOMAINS]
    transfers = transfer.transfer(base, tasks, args.seeds, **given_settings(args))
    print_result(args, transfers, transfer.tell(base, tasks, transfers))


@command(
    "--task questions --learner prompt,lora,full",
    *BASE_AND_TASK,
    LEARNER,
    *setting_arguments(("steps", "batch_size")),
    argument("--rates", "learning rates to try on validation", type=int, default=2),
    SEEDS,
)
def rivals_command(args: argparse.Namespace) -> None:
    """Compare prompt tuning with what one would try instead."""
    base, task = load_base_and_task(args)
    names, reasons = (args.learner, []) if args.learner else compare.able(base, task)
    for reason in reasons:
        print(f"left out: {reason}", file=sys.stderr)
    lines = compare.compare(base, task, names, args.seeds, args.rates, **given_settings(args))
    print_result(args, {"lines": [asdict(line) for line in lines]}, compare.tell(base, task, lines))


@command(
    "runs/sms-spam-tiny-0 --save page.png",
    RUN,
    REGISTRY,
    *task_arguments("the one that the prompt was tuned for"),
    base_argument(None),
    argument("--texts", "validation texts to measure on", type=int, default=128),
    argument("--save", "draw it on one page", type=Path, metavar="PAGE.png"),
)
def read_command(args: argparse.Namespace) -> None:
    """Look at a tuned prompt: the nearest words, who reads each vector, what each is worth."""
    check_page(args.save)
    base, prompt = load_tuned(args)
    if not (args.csv or args.pairs):
        args.task = args.task or prompt.about.get("task")
    task = choose_task(args, base)
    if prompt.about.get("labels", []) != list(task.labels):
        raise MiniptError(
            f"{args.run} was not tuned for {task.name}, whose labels are others: give its own "
            "data with --csv or --pairs"
        )
    seen = reading.read(base, prompt, task, args.texts, reading.find_start(base, prompt))
    if args.save:
        save_page(reading.page(seen), args.save)
    print_result(args, reading.describe(seen), reading.tell(seen))


@command(
    "--base minilm --length 100",
    base_argument(),
    argument("--length", "number of prompt vectors", type=int, default=20),
    argument("--batch-size", "texts a step", type=int, default=16),
    argument("--tokens", "tokens a text", type=int, default=24),
)
def cost_command(args: argparse.Namespace) -> None:
    """Count and measure what a step costs, and say why."""
    costs = cost.compare_ways(load_base(args.base), args.length, args.batch_size, args.tokens)
    print_result(args, cost.describe(costs), cost.tell(costs))


@command(
    "--quick",
    argument("--quick", "small bases and few steps: about ten minutes", action="store_true"),
    argument("--full", "SmolLM2 too: about an hour more", action="store_true"),
    argument("--claim", "only the claims of these numbers", **list_of(int)),
    prints="one JSON object; all else to standard error",
)
def evidence_command(args: argparse.Namespace) -> None:
    """Put ten published claims to the test."""
    if args.quick and args.full:
        args.parser.error("--quick and --full exclude each other")
    plan = PLANS["quick" if args.quick else "full" if args.full else "default"]
    say = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    findings = evidence.gather(plan, args.claim or (), say)
    place = evidence.write_report(plan, findings, command_line("minipt", *args.line))
    say(f"written: {place}/report.md")
    if args.json:
        print(json.dumps(evidence.describe(plan, findings)))


STUDIES = (sweep_command, ensemble_command, transfer_command, rivals_command)
STUDIES += (read_command, cost_command, evidence_command)
