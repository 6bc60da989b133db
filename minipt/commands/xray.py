"""The command `xray`: one training step on one text, with every array of it.

In: a text, and a run or a task. Out: a table or JSON, and where it is asked for a page.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from minipt.commands.arguments import (
    A_RUN,
    REGISTRY,
    argument,
    base_argument,
    command,
    named_task,
    print_result,
    readable,
)
from minipt.commands.find import find_prompt
from minipt.errors import MiniptError
from minipt.learning.settings import Settings
from minipt.loading.load import NAMES, load_base
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import init_prompt
from minipt.results.store import check_page, save_page
from minipt.results.xray import describe, page, take_step, tell_step
from minipt.transformer.base import Base


@command(
    '"free entry, text WIN" --label spam --save page.png',
    argument("text", metavar="TEXT"),
    argument("--run", f"begin with this prompt, {A_RUN} (default: with a fresh one)"),
    REGISTRY,
    argument("--task", "without --run: whose labels to use (default: as for tune)"),
    base_argument(None, f"{NAMES[0]}, or with --run the one that its prompt was made for"),
    argument("--label", "the right answer (default: the one that the prompt finds least likely)"),
    argument("--save", "draw the step on one page", type=Path, metavar="PAGE.png"),
)
def xray_command(args: argparse.Namespace) -> None:
    """Take one training step and show every activation and gradient of it."""
    check_page(args.save)
    base, prompt = _choose_prompt(args)
    about = prompt.about
    labels = about["labels"]
    if args.label is not None and args.label not in labels:
        raise MiniptError(f"there is no label {args.label!r}: choose one of {', '.join(labels)}")
    target = None if args.label is None else labels.index(args.label)
    text = readable(args.text)
    step = take_step(base, prompt, about["template"], about["label_words"], text, target)
    if not np.isfinite(step.probabilities["before"]).all():
        prompts_name = args.run or "a fresh prompt"
        raise MiniptError(f"with {prompts_name} the answer is not a finite number: tune again")
    if step.cut:
        print("the text is too long for the base and lost its beginning", file=sys.stderr)
    if args.save:
        save_page(page(step, labels, text), args.save)
        print(f"the page is in {args.save}", file=sys.stderr)
    print_result(args, describe(step, labels, text), tell_step(step, labels))


def _choose_prompt(args: argparse.Namespace) -> tuple[Base, SoftPrompt]:
    """A run's prompt, or a fresh one that knows the task's labels."""
    if args.run:
        if args.task:
            args.parser.error("--run knows its task: leave --task out")
        found = find_prompt(args, args.run)
        base = found.load_base(args.base)
        return base, found.load_labelled(base)
    base = load_base(args.base or NAMES[0])
    task = named_task(args, base)
    prompt = init_prompt(base, Settings.length, Settings.method, Settings.seed)
    prompt.about |= {
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
    }
    return base, prompt
