"""The command `minipt`: arguments in, text or JSON out, an exit status that a program may trust.

0: done. 1: something that the user can mend or the system refused, said in one sentence on standard
error. 2: arguments that make no sense. 130: interrupted. Any other failure is a fault of minipt's
own and keeps its traceback.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from minipt.commands.doctor import bases_command, doctor_command
from minipt.commands.generate import generate_command
from minipt.commands.predict import predict_command
from minipt.commands.prompts import add_prompts
from minipt.commands.studies import STUDIES
from minipt.commands.terminal import complain, shown_streams
from minipt.commands.tune import INTERRUPTED, tune_command
from minipt.commands.watch import watch_command
from minipt.commands.xray import xray_command
from minipt.errors import MiniptError

COMMANDS = (tune_command, predict_command, generate_command, xray_command, add_prompts)
COMMANDS += (watch_command, *STUDIES, bases_command, doctor_command)


def main(arguments: Sequence[str | os.PathLike] | None = None) -> int:
    """Run one command; arguments: those after the program's name, None: the process's own.

    Returns the exit status. Raises SystemExit(2) for arguments that argparse refuses.
    """
    with shown_streams():
        given = sys.argv[1:] if arguments is None else arguments
        args = _parse([os.fspath(each) for each in given])
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        # An overflow ends in numbers that are not finite, and these end in a sentence.
        with np.errstate(over="ignore", invalid="ignore"):
            status = args.call(args) or 0
        sys.stdout.flush()
        return status
    except MiniptError as error:
        complain(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except MemoryError as error:
        complain(
            f"there is not enough memory ({error}): take fewer texts a step, fewer workers or a "
            "smaller base"
        )
    except OSError as error:  # for which no module has a better sentence
        if not isinstance(error, BrokenPipeError):  # whoever read the output has gone, and knows
            what = error.filename or "the output"
            complain(f"{what!s:.200} cannot be used ({error.strerror or error})")
        if error.filename is None:
            _lose_output()
    return 1


def _lose_output() -> None:
    """Nothing more goes to the process's own output, so that Python's flush at exit is silent."""
    if sys.stdout.stream is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    args, rest = _parser().parse_known_args(arguments)
    args.line = arguments
    # argparse leaves over the texts behind an option.
    if args.command == "predict" and not any(word.startswith("-") for word in rest):
        args.texts += rest
    elif rest:
        args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minipt",
        description="Prompt tuning: vectors in front of a text learn a task, the model stays as "
        "it is.",
        epilog="start with: minipt tune",
    )
    parser.color = False  # Python 3.14 would print escapes
    parser.add_argument("--version", action="version", version=f"minipt {version('minipt')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add_to in COMMANDS:
        add_to(commands)
    return parser
