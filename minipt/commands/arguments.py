"""Commands, and the arguments that several of them share.

In: functions with their arguments above them, and the arguments that argparse has parsed. Out:
commands; a base, a task, settings or a prompt; a result, printed as text or as JSON.
"""

import argparse
import json
from collections.abc import Callable, Container, Iterable
from dataclasses import fields
from pathlib import Path

from minipt.commands.find import find_prompt
from minipt.learning.optimizers import OPTIMIZERS, SCHEDULES
from minipt.learning.settings import Settings
from minipt.loading.load import NAMES, load_base
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import STARTS
from minipt.tasks.datasets import load_task, task_names
from minipt.tasks.rows import read_labelled
from minipt.tasks.task import Task, load_csv, load_pairs
from minipt.transformer.base import Base

DEFAULT_TASK = "sms-spam"
# A task that is too hard for the tiny base and not for the stronger ones.
HARDER_TASK = "movie-reviews"
STRONGER_BASES = ("minilm", "smollm2-135m")
USUAL_TASK = f"{DEFAULT_TASK}, or {HARDER_TASK} for {' and '.join(STRONGER_BASES)}"
PROMPTS_OWN = "the one that the prompt was made for"
GOES_ON = "a run's directory or a kept prompt, to go on from it"
# The fields of `Settings` that have a flag: the flag, the type of a value, and what it means.
SETTINGS = {
    "length": ("--length", int, "number of prompt vectors"),
    "method": ("--init", str, f"how they begin: {', '.join(STARTS)}; to tune, also {GOES_ON}"),
    "text": ("--init-text", str, "the words of --init text, in place of the task's instruction"),
    "steps": ("--steps", int, "number of batches to learn from"),
    "seed": ("--seed", int, "the same seed gives the same bits on one kind of processor"),
    "batch_size": ("--batch-size", int, "texts a step"),
    "learning_rate": ("--learning-rate", float, "size of a step"),
    "optimizer": ("--optimizer", str, f"one of {', '.join(OPTIMIZERS)}"),
    "schedule": ("--schedule", str, f"of the learning rate: {', '.join(SCHEDULES)}"),
    "patience": ("--patience", int, "looks at validation without a better one that end the run"),
    "workers": ("--workers", int, "processes that share the texts of a step"),
}
SHARED = ("--registry", "--json")  # by a command and its actions

Argument = tuple[str, dict]  # as argparse's `add_argument` takes it


def command(
    example: str, *arguments: Argument, prints: str = "one JSON object", within: str = ""
) -> Callable:
    """Make the function below, such as `tune_command`, one that adds its command to argparse's.

    The function takes the parsed arguments and returns the exit status, None: 0. Its docstring is
    the help. example: the arguments of an example. prints: the output of --json, in words. within:
    the command that this one is an action of, and a space. It has --registry and --json too.
    """
    arguments += (argument("--json", f"print {prints}", action="store_true"),)

    def decorate(call: Callable[[argparse.Namespace], int | None]) -> Callable:
        def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
            name, description = call.__name__.removesuffix("_command"), call.__doc__ or ""
            summary = description.split("\n")[0].removesuffix(".")
            parser = commands.add_parser(
                name,
                help=summary[:1].lower() + summary[1:],
                description=description,
                epilog=f"example: minipt {within}{name} {example}".rstrip(),
            )
            parser.color = False  # as in `cli`
            for flag, options in arguments:
                if within and flag in SHARED:  # left out, it is what the command was given
                    options = options | {"default": argparse.SUPPRESS}
                parser.add_argument(flag, **options)
            parser.set_defaults(call=call, parser=parser)
            return parser

        return add_to

    return decorate


def argument(flag: str, meaning: str = "", **options: object) -> Argument:
    """An argument and what it means, with its default in words."""
    shown = "" if options.get("default") is None else f" (default: {options['default']})"
    return flag, options | {"help": meaning + shown}


def base_argument(default: str | None = NAMES[0], otherwise: str = PROMPTS_OWN) -> Argument:
    """The language model. otherwise: the usual one in words, where there is no default."""
    meaning = "the language model: a name of `minipt bases`, a directory, a .gguf file or a hub id"
    meaning += "" if default else f" (default: {otherwise})"
    return argument("--base", meaning, default=default, metavar="BASE", type=_named)


def _named(base: str) -> str:
    if not base:  # a path that is empty is the working directory
        raise argparse.ArgumentTypeError("it is empty: give a name of `minipt bases`")
    return base


def task_arguments(default: str = USUAL_TASK) -> tuple[Argument, ...]:
    """The task: one with a name, or a file of the user's own. default: the usual one, in words."""
    return (
        argument("--task", f"one of {', '.join(task_names())} (default: {default})"),
        argument("--csv", "your own texts, with the two columns below", type=Path, metavar="FILE"),
        argument("--text-column", "the CSV file's column of texts", metavar="COLUMN"),
        argument("--label-column", "the CSV file's column of classes", metavar="COLUMN"),
        argument(
            "--label-words",
            "the word that stands for each class of the CSV file (default: its name)",
            nargs="+",
            metavar="CLASS=WORD",
        ),
        argument(
            "--pairs",
            "in place of labels, your own prompts and what should be written after each: JSON "
            "lines (.jsonl) or CSV with the columns prompt and response",
            type=Path,
            metavar="FILE",
        ),
    )


def setting_arguments(names: Iterable[str]) -> tuple[Argument, ...]:
    """Some fields of `Settings`, each with the default that it has there."""
    arguments = []
    for name in names:
        flag, kind, meaning = SETTINGS[name]
        flag, options = argument(flag, meaning, default=getattr(Settings, name), type=kind)
        arguments.append((flag, options | {"dest": name, "default": None}))
    return tuple(arguments)


def list_of(kind: type) -> dict:
    """The options of an argument that is a list such as 1,5,20."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"list of {kind.__name__}"  # argparse's complaint names it
    return {"type": parse, "metavar": "A,B"}


A_RUN = "a run's directory, its prompt.safetensors, or a kept prompt: NAME, NAME@2 or NAME@TAG"
RUN = argument("run", A_RUN, metavar="RUN")
REGISTRY = argument(
    "--registry",
    "the directory of kept prompts (default: MINIPT_REGISTRY, or else ./prompts)",
    metavar="DIR",
)
BASE_AND_TASK = (*task_arguments(), base_argument())


def given_settings(args: argparse.Namespace) -> dict:
    """The fields of `Settings` that were given."""
    given = {field.name: getattr(args, field.name, None) for field in fields(Settings)}
    return {name: value for name, value in given.items() if value is not None}


def load_base_and_task(args: argparse.Namespace) -> tuple[Base, Task]:
    """The base and the task of `BASE_AND_TASK`."""
    base = load_base(args.base)
    return base, choose_task(args, base)


def load_tuned(args: argparse.Namespace) -> tuple[Base, SoftPrompt]:
    """A run's prompt and the base that it was made for, which --base may say where to find."""
    found = find_prompt(args, args.run)
    base = found.load_base(args.base)
    return base, found.load(base)


def choose_task(args: argparse.Namespace, base: Base) -> Task:
    """The task of `task_arguments`. Exits with status 2 for arguments that contradict."""
    columns = (args.text_column, args.label_column)
    if args.pairs and (args.csv or args.task is not None):
        args.parser.error("--pairs stands alone, without --task and --csv")
    if args.csv is None:
        if any(columns) or args.label_words:
            args.parser.error("--text-column, --label-column and --label-words belong to --csv")
        return load_pairs(args.pairs) if args.pairs else named_task(args, base)
    if args.task is not None or not all(columns):
        args.parser.error("--csv needs --text-column and --label-column, and no --task")
    words = None
    if args.label_words:
        complaint = "--label-words are pairs such as yes=good no=bad, one for a class"
        if any(not pair.partition("=")[2].strip() for pair in args.label_words):
            args.parser.error(complaint)
        classes = set(read_labelled(args.csv, *columns)[1])
        # In the text that goes on after the template, a word begins with a space.
        words = {
            label: f" {word.strip()}"
            for label, word in (_split_pair(pair, classes) for pair in args.label_words)
        }
        if len(words) < len(args.label_words) or not all(map(str.strip, words.values())):
            args.parser.error(complaint)
    return load_csv(args.csv, *columns, words)


def _split_pair(pair: str, classes: Container[str]) -> tuple[str, str]:
    """A class and its word. Both may hold an equals sign, the word only if the class has none."""
    label, _, word = pair.rpartition("=")
    if label not in classes:
        label, _, word = pair.partition("=")
    return label, word


def named_task(args: argparse.Namespace, base: Base) -> Task:
    """The task of the name that was given, or the one that suits the base."""
    default = HARDER_TASK if base.name in STRONGER_BASES else DEFAULT_TASK
    return load_task(default if args.task is None else args.task)


def readable(text: str) -> str:
    """An argument as UTF-8, in any locale; bytes that are no UTF-8 become question marks."""
    try:
        given = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, which only Windows lets pass
        given = text.encode(errors="replace")
    return given.decode(errors="replace")


def print_result(args: argparse.Namespace, record: object, text: str) -> None:
    """Print a command's result: with --json its record, otherwise its text."""
    print(json.dumps(record) if args.json else text)
