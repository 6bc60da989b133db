"""The commands that compare: many runs, or one run looked at from many sides.

In: arguments. Out: a table on standard output, and where there is a figure, a directory below
`runs/` with both. The runs themselves are kept in `runs/study/`, and a command that is interrupted,
or killed, goes on where it was when it is typed again. The story continues in `cli.py`.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from minipt.commands.arguments import add_base, add_command, add_task, choose_task
from minipt.errors import MiniptError
from minipt.learning.settings import Settings, defaults_for
from minipt.loading.load import load_base
from minipt.prompting.prompt import load_prompt
from minipt.prompting.starts import STARTS
from minipt.results.store import check_page, find_base, save_page
from minipt.rivals import LEARNERS
from minipt.studies import cost, reading
from minipt.studies.claims import PLANS
from minipt.studies.compare import able, compare, describe_lines, tell_lines
from minipt.studies.ensemble import ensemble, losses_between, tell_ensemble
from minipt.studies.evidence import describe_evidence, gather, write_report
from minipt.studies.jobs import Job, named, run, run_all, write_result
from minipt.studies.sweep import describe_sweep, draw_sweep, sweep, tell_sweep
from minipt.studies.transfer import (
    DOMAINS,
    domain_matrix,
    few_of,
    head_starts,
    on_another_base,
    tell_another_base,
    tell_matrix,
    tell_starts,
)
from minipt.tasks.datasets import load_task

SEEDS = 3
# A setting's flag, its field, what its values are, and what they mean.
FLAGS = (
    ("--length", "length", int, "numbers of prompt vectors"),
    ("--init", "method", str, f"how they begin: {', '.join(STARTS)}"),
    ("--steps", "steps", int, "numbers of batches to learn from"),
    ("--batch-size", "batch_size", int, "texts a step"),
    ("--learning-rate", "learning_rate", float, "sizes of a step; the best on validation is taken"),
    ("--optimizer", "optimizer", str, "optimizers"),
)
SINGLE = ("length", "steps", "batch_size", "learning_rate")


def add_studies(commands) -> None:
    """Add all commands of this module."""
    _add_sweep(commands)
    _add_ensemble(commands)
    _add_transfer(commands)
    _add_rivals(commands)
    _add_read(commands)
    _add_cost(commands)
    _add_evidence(commands)


def _add_sweep(commands) -> None:
    add = add_command(
        commands,
        "sweep",
        _sweep,
        "tune with other settings, over seeds, and compare",
        "minipt sweep --length 1,5,20,60 --init uniform,vocab --seeds 3",
    ).add_argument
    add_task(add)
    add_base(add)
    add("--learner", type=_values(str), help=f"who learns: {', '.join(LEARNERS)}", metavar="A,B")
    for flag, field, kind, meaning in FLAGS:
        add(flag, dest=field, type=_values(kind), metavar="A,B", help=meaning)
    _add_common(add)


def _add_ensemble(commands) -> None:
    add = add_command(
        commands,
        "ensemble",
        _ensemble,
        "tune prompts that differ in their seed, and let them vote",
        "minipt ensemble --task questions --members 5",
    ).add_argument
    add_task(add)
    add_base(add)
    add("--members", type=int, default=5, help="how many prompts (default: 5)")
    _add_single(add)
    add("--json", action="store_true", help="print one JSON object")


def _add_transfer(commands) -> None:
    add = add_command(
        commands,
        "transfer",
        _transfer,
        f"tune on each of {', '.join(DOMAINS)}, and ask on all",
        "minipt transfer --base minilm --seeds 3",
    ).add_argument
    add_base(add)
    _add_single(add)
    _add_common(add)


def _add_rivals(commands) -> None:
    add = add_command(
        commands,
        "rivals",
        _rivals,
        "compare prompt tuning with what one would try instead",
        "minipt rivals --task questions --learner prompt,lora,full",
    ).add_argument
    add_task(add)
    add_base(add)
    known = ", ".join(LEARNERS)
    add(
        "--learner", type=_values(str), metavar="A,B", help=f"some of {known} (default: the rivals)"
    )
    add("--steps", type=int, help="as for `minipt tune`")
    add("--batch-size", dest="batch_size", type=int, help="as for `minipt tune`")
    add("--rates", type=int, default=2, help="learning rates to try on validation (default: 2)")
    _add_common(add)


def _add_read(commands) -> None:
    add = add_command(
        commands,
        "read",
        _read,
        "look at a tuned prompt: the nearest words, who reads each vector, what each is worth",
        "minipt read runs/sms-spam-tiny-0 --save page.png",
    ).add_argument
    add("run", type=Path, metavar="RUN", help="a run's directory, or its prompt.safetensors")
    add_task(add, "the one that the prompt was tuned for")
    add_base(add, None)
    add("--texts", type=int, default=128, help="validation texts to measure on (default: 128)")
    add("--save", type=Path, metavar="PAGE.png", help="draw it on one page")
    add("--json", action="store_true", help="print one JSON object")


def _add_cost(commands) -> None:
    add = add_command(
        commands,
        "cost",
        _cost,
        "count and measure what a step costs, and say why",
        "minipt cost --base minilm --length 100",
    ).add_argument
    add_base(add)
    add("--length", type=int, default=20, help="number of prompt vectors (default: 20)")
    add("--batch-size", type=int, default=16, help="texts a step (default: 16)")
    add("--tokens", type=int, default=24, help="tokens a text (default: 24)")
    add("--json", action="store_true", help="print one JSON object")


def _add_evidence(commands) -> None:
    add = add_command(
        commands,
        "evidence",
        _evidence,
        "put ten published claims to the test",
        "minipt evidence --quick",
    ).add_argument
    add("--quick", action="store_true", help="small bases and few steps: about ten minutes")
    add("--full", action="store_true", help="SmolLM2 too: about an hour more")
    add("--claim", type=_values(int), default=[], metavar="N,M", help="only these (default: all)")
    add("--json", action="store_true", help="print one JSON object; all else to standard error")


def _add_common(add: Callable) -> None:
    add("--seeds", type=int, default=SEEDS, help=f"seeds 0, 1, and so on (default: {SEEDS})")
    add("--json", action="store_true", help="print one JSON object")


def _add_single(add: Callable) -> None:
    for flag, field, kind, _ in FLAGS:
        if field in SINGLE:
            add(flag, dest=field, type=kind, help="as for `minipt tune`")


def _values(kind: type) -> Callable[[str], list]:
    """What argparse calls to read a list such as 1,5,20."""

    def values(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    values.__name__ = f"list of {kind.__name__}"  # argparse's complaint names it
    return values


def _given(chosen: argparse.Namespace) -> dict:
    names = [field.name for field in fields(Settings)]
    return {n: getattr(chosen, n) for n in names if getattr(chosen, n, None) is not None}


def _sweep(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base)
    task = choose_task(chosen, base)
    axes = _given(chosen)
    if chosen.learner:
        axes = {"learner": chosen.learner} | axes
    rows = sweep(base, task, axes, chosen.seeds)
    table, found = tell_sweep(task, rows), {"rows": describe_sweep(rows)}
    decides = [axes, chosen.seeds, base.fingerprint]
    name = named(f"sweep-{task.name}-{base.name}", decides)
    place = write_result(name, table, found, draw_sweep(task, rows))
    print(json.dumps(found) if chosen.json else f"{table}\n\nwritten: {place}/")
    return 0


def _ensemble(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base)
    task = choose_task(chosen, base)
    if chosen.members < 2 or not task.labels:
        chosen.parser.error("an ensemble needs two members or more, and labels to vote on")
    settings = [
        defaults_for(base, task, **_given(chosen), seed=seed) for seed in range(chosen.members)
    ]
    results = run_all(Job("prompt", base, task, each) for each in settings)
    prompts = [result.prompt() for result in results]
    found = ensemble(base, prompts, task)
    between = losses_between(base, *prompts[:2], task)
    if chosen.json:
        print(json.dumps({"accuracies": found.accuracies(), "losses_between": between}))
        return 0
    path = ", ".join(f"{loss:.2f}" for loss in between)
    print(f"{tell_ensemble(task, found)}\n\nvalidation loss from the first to the second: {path}")
    return 0


def _transfer(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base)
    tasks = [load_task(name) for name in DOMAINS]
    settings = _given(chosen)
    matrix = domain_matrix(base, tasks, chosen.seeds, **settings)
    first, second = tasks[:2]
    few = few_of(defaults_for(base, second, **settings).steps)
    starts = head_starts(base, first, second, chosen.seeds, few, **settings)
    prompt = Job("prompt", base, first, defaults_for(base, first, **settings))
    found = {"matrix": matrix, "starts": starts, "steps": few}
    if base.config.head == "language":
        found["another_base"] = on_another_base(base, run(prompt).prompt(), first)
    if chosen.json:
        print(json.dumps(found))
        return 0
    parts = [tell_matrix(matrix), tell_starts(second, few, starts)]
    if "another_base" in found:
        parts.append(tell_another_base(first, found["another_base"]))
    else:
        parts.append(f"on another base: not shown, since base {base.name!r} has no language head")
    print("\n\n".join(parts))
    return 0


def _rivals(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base)
    task = choose_task(chosen, base)
    names, reasons = (chosen.learner, []) if chosen.learner else able(base, task)
    for reason in reasons:
        print(f"left out: {reason}", file=sys.stderr)
    lines = compare(base, task, names, chosen.seeds, chosen.rates, **_given(chosen))
    if chosen.json:
        print(json.dumps({"lines": describe_lines(lines)}))
    else:
        print(tell_lines(base, task, lines))
    return 0


def _read(chosen: argparse.Namespace) -> int:
    check_page(chosen.save)
    base = load_base(chosen.base or find_base(chosen.run))
    prompt = load_prompt(chosen.run, base)
    if not (chosen.csv or chosen.pairs):
        chosen.task = chosen.task or prompt.about.get("task")
    task = choose_task(chosen, base)
    if prompt.about.get("labels", []) != list(task.labels):
        raise MiniptError(
            f"{chosen.run} was not tuned for {task.name}, whose labels are others: give its own "
            "data with --csv or --pairs"
        )
    start = reading.find_start(base, prompt)
    found = reading.read(base, prompt, task, chosen.texts, start)
    if chosen.save:
        save_page(reading.page(found), chosen.save)
    print(json.dumps(reading.describe(found)) if chosen.json else reading.tell(found))
    return 0


def _cost(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base)
    found = cost.compare_ways(base, chosen.length, chosen.batch_size, chosen.tokens)
    print(json.dumps(cost.describe(found)) if chosen.json else cost.tell(found))
    return 0


def _evidence(chosen: argparse.Namespace) -> int:
    if chosen.quick and chosen.full:
        chosen.parser.error("--quick and --full exclude each other")
    plan = PLANS["quick" if chosen.quick else "full" if chosen.full else "default"]
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    found = gather(plan, chosen.claim, say)
    command = shlex.join(["minipt", *chosen.line])
    place = write_report(plan, found, command)
    say(f"written: {place}/report.md")
    if chosen.json:
        print(json.dumps(describe_evidence(plan, found)))
    return 0
