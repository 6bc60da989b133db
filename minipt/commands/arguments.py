"""Arguments that several commands share, and the task that they name.

In: argparse's parsers and what they have parsed. Out: the same with more arguments; a `Task`. The
story continues in `cli.py`.
"""

import argparse
from pathlib import Path

from minipt.loading.load import NAMES
from minipt.tasks.datasets import load_task, task_names
from minipt.tasks.task import Task, load_csv, load_pairs
from minipt.transformer.base import Base

DEFAULT_TASK = "sms-spam"
# What is too hard for the tiny base and not for these.
HARDER_TASK = "movie-reviews"
STRONGER_BASES = ("minilm", "smollm2-135m")
PROMPTS_OWN = "the one that the prompt was made for"


def add_command(commands, name, command, summary, example) -> argparse.ArgumentParser:
    """A command of this name, which runs `command` on what is parsed."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: {example}",
    )
    parser.set_defaults(command=command, parser=parser)
    return parser


def add_task(add, default: str | None = None) -> None:
    """What is learnt: a named task, or a file of the user's own. default: the one, in words."""
    default = default or f"{DEFAULT_TASK}, or {HARDER_TASK} for {' and '.join(STRONGER_BASES)}"
    add("--task", help=f"one of {', '.join(task_names())} (default: {default})")
    add("--csv", type=Path, metavar="FILE", help="your own texts, with the two columns below")
    add("--text-column", metavar="COLUMN", help="the CSV file's column of texts")
    add("--label-column", metavar="COLUMN", help="the CSV file's column of classes")
    add(
        "--label-words",
        nargs="+",
        metavar="CLASS=WORD",
        help="the word that stands for each class of the CSV file (default: its name)",
    )
    add(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="in place of labels, your own prompts and what should be written after each: JSON "
        "lines (.jsonl) or CSV with the columns prompt and response",
    )


def add_base(add, default: str | None = NAMES[0], otherwise: str = PROMPTS_OWN) -> None:
    """Which language model stands still."""
    meaning = "the language model: a name of `minipt bases`, a directory, a .gguf file or a hub id"
    meaning += f" (default: {default or otherwise})"
    add("--base", default=default, metavar="BASE", help=meaning)


def choose_task(chosen: argparse.Namespace, base: Base) -> Task:
    """The task that `add_task` asked for. Exits with status 2 for arguments that contradict."""
    columns = (chosen.text_column, chosen.label_column)
    if chosen.pairs and (chosen.csv or chosen.task is not None):
        chosen.parser.error("--pairs stands alone, without --task and --csv")
    if chosen.csv is None:
        if any(columns) or chosen.label_words:
            chosen.parser.error("--text-column, --label-column and --label-words belong to --csv")
        return load_pairs(chosen.pairs) if chosen.pairs else named_task(chosen, base)
    if chosen.task is not None or not all(columns):
        chosen.parser.error("--csv needs --text-column and --label-column, and no --task")
    words = None
    if chosen.label_words:
        pairs = [pair.partition("=") for pair in chosen.label_words]
        classes = {label for label, _, _ in pairs}
        if any(not word.strip() for _, _, word in pairs) or len(classes) < len(pairs):
            chosen.parser.error("--label-words are pairs such as yes=good no=bad, one for a class")
        # In the text that goes on after the template, a word begins with a space.
        words = {label: f" {word.strip()}" for label, _, word in pairs}
    return load_csv(chosen.csv, *columns, words)


def named_task(chosen: argparse.Namespace, base: Base) -> Task:
    """The task of the name that was given, or the one that suits the base."""
    default = HARDER_TASK if base.name in STRONGER_BASES else DEFAULT_TASK
    return load_task(default if chosen.task is None else chosen.task)
