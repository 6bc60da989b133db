"""The command `xray`: training steps on one text, with every array of them.

In: a text, and a run or a task. Out: a table or JSON, and where it is asked for a page.
"""

import argparse
import sys
from pathlib import Path

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
from minipt.learning.settings import Settings
from minipt.loading.load import NAMES, load_base
from minipt.page.summary import describe, tell
from minipt.page.xray import check_ending, for_task, xray
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import init_prompt
from minipt.transformer.base import Base


@command(
    '"free entry, text WIN" --label spam --save page.html',
    argument("text", metavar="TEXT"),
    argument("--run", f"begin with this prompt, {A_RUN} (default: with a fresh one)"),
    REGISTRY,
    argument("--task", "without --run: whose labels to use (default: as for tune)"),
    base_argument(None, f"{NAMES[0]}, or with --run the one that its prompt was made for"),
    argument("--label", "the right answer (default: the one that the prompt finds least likely)"),
    argument("--steps", "how many steps to take, 1 to 20", type=int, default=1),
    argument(
        "--save",
        "write a page to click through (.html) or a picture of the first step (.png)",
        type=Path,
        metavar="PAGE.html",
    ),
)
def xray_command(args: argparse.Namespace) -> None:
    """Take a training step on one text and show every activation and gradient of it."""
    check_ending(args.save)
    base, prompt = _choose_prompt(args)
    step = xray(base, prompt, readable(args.text), args.label, args.steps)
    if step.subject.cut:
        print("the text is too long for the base and lost its beginning", file=sys.stderr)
    if args.save:
        step.save(args.save)
        print(f"the page is in {args.save}", file=sys.stderr)
    print_result(args, describe(step), tell(step))


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
    return base, for_task(prompt, task)
