"""The command `tune`: learn a prompt, compare it with its rivals, keep all of it.

In: arguments. Out: a page of text, or with --json the record; and the directory of a run. After
Ctrl-C the best prompt so far is kept, and the command that goes on from there is printed.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from textwrap import fill

from minipt.commands.arguments import (
    BASE_AND_TASK,
    REGISTRY,
    SETTINGS,
    argument,
    command,
    given_settings,
    load_base_and_task,
    readable,
    setting_arguments,
)
from minipt.commands.find import Found, find_prompt, open_registry
from minipt.commands.terminal import command_line, complain
from minipt.errors import MiniptError
from minipt.files.records import USUAL_NAME
from minipt.learning.observe import validation_record
from minipt.learning.tune import Run, prepare, tune
from minipt.loading.load import NAMES
from minipt.maths.threads import at_most_threads, thread_count
from minipt.prompting.starts import STARTS
from minipt.registry.names import check_name
from minipt.registry.objects import sha256_of
from minipt.results.plot import draw_curves, render
from minipt.results.report import Score, compare_with_rivals, introduce, make_record, tell, warn
from minipt.results.store import (
    checkpoint_path,
    choose_directory,
    remove_empty,
    unfinished,
    write_interrupted,
    write_run,
)
from minipt.results.tables import WIDTH

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@command(
    "--task questions --seed 1",
    *BASE_AND_TASK,
    *setting_arguments(SETTINGS),
    argument(
        "--head",
        "train a linear head beside the prompt: what the answer is compared with, K labels x C "
        "channels more numbers",
        action="store_true",
        default=None,
    ),
    argument("--name", "write to runs/RUN (default: made of task, base and seed)", metavar="RUN"),
    argument("--keep", "keep the prompt under this name, as its next version", metavar="NAME"),
    argument("-m", "what is new in this version", dest="message", metavar="MESSAGE"),
    REGISTRY,
    argument("--resume", "go on with the interrupted run of this name", action="store_true"),
    prints="run.json; everything else to standard error",
)
def tune_command(args: argparse.Namespace) -> int:
    """Learn a prompt for a task and compare it with its rivals.

    The defaults of what is learnt are for the tiny base; the bases minilm and smollm2-135m have
    their own.
    """
    say = partial(print, file=sys.stderr if args.json else sys.stdout)
    _check_keeping(args)
    base, task = load_base_and_task(args)
    parent = _parent(args)
    given = given_settings(args) | {"start": parent and parent.load(base)}
    learner, settings = prepare(base, task, **given)
    directory = choose_directory(args.name, task.name, base.name, settings.seed, args.resume)
    origin = _origin(parent, directory)
    again = f"`{_command_again(args, directory)}`"
    try:
        say(introduce(task, learner, settings), flush=True)
        run = tune(base, task, checkpoint_path(directory), args.resume, **given)
    except Exception as error:
        remove_empty(directory)
        if isinstance(error, MiniptError) and checkpoint_path(directory).exists():
            anew = f"to begin anew, remove {unfinished(directory)} or choose another --name"
            raise MiniptError(f"{error}; {anew}") from error
        raise
    except KeyboardInterrupt:  # while nothing is learnt, before or after
        remove_empty(directory)
        if checkpoint_path(directory).exists():
            complain(f"go on with {again}")
        raise
    place = {"base_path": _place_of(args.base), "base_revision": _revision_of(args.base)} | origin
    try:
        if run.interrupted:
            raise KeyboardInterrupt  # from here on, Ctrl-C before and after the last step are one
        with at_most_threads(settings.threads or thread_count()):
            scores = compare_with_rivals(base, task, run.test)
        record = make_record(base, task, run, scores) | place
        _write(directory, record, run, scores, again)
    except KeyboardInterrupt:
        return _keep_interrupted(directory, make_record(base, task, run, {}) | place, run, again)
    say(f"\n{tell(base, task, run, scores)}\n")
    if warning := warn(task, run):
        say(fill(f"warning: {warning}", WIDTH) + "\n")
    say(_closing(directory, run))
    kept = {} if args.keep is None else {"kept": _keep(args, directory, say)}
    if args.json:
        print(json.dumps(record | {"directory": str(directory)} | kept))
    return 0


def _check_keeping(args: argparse.Namespace) -> None:
    """A name that could not be kept is refused before anything is learnt."""
    if args.keep is not None:
        check_name(args.keep)
    elif args.message is not None:
        args.parser.error("-m is the message of --keep NAME: give both")


def _parent(args: argparse.Namespace) -> Found | None:
    """The prompt that --init names; None for the name of a start."""
    method = args.method
    if method is None or method in STARTS:
        return None
    found, exists = None, os.path.exists(method)
    try:
        found = find_prompt(args, method)
    except MiniptError:
        if exists or "@" in method:
            raise
    if found is None or not (found.version or exists):
        raise MiniptError(
            f"unknown start {method!r:.60}: choose one of {', '.join(STARTS)}, or a run's "
            f"directory, or a prompt in the registry {open_registry(args).directory}"
        )
    return found


def _origin(parent: Found | None, directory: Path) -> dict[str, str]:
    """What run.json says of the prompt that a run goes on from, so that its version is found.

    A run that is resumed without --init goes on from the best prompt of its first part.
    """
    path = parent.file if parent else unfinished(directory) / USUAL_NAME
    if not os.path.isfile(path):
        return {}
    version = {"parent": parent.version.reference} if parent and parent.version else {}
    return version | {"parent_sha256": sha256_of(path.read_bytes())}


def _write(directory: Path, record: dict, run: Run, scores: dict[str, Score], again: str) -> None:
    rivals = [name for name in ("majority", "bag_of_words") if name in scores]
    lines = {name.replace("_", " "): scores[name].accuracy for name in rivals}
    try:
        curves = render(draw_curves(directory.name, run.history, run.best_step, lines), ".png")
    except MiniptError as error:
        complain(f"the run is kept without curves.png, since {error}")
        curves = None
    base, split = run.learner.base, run.task.validation
    validation = validation_record(base, run.prompt, split) if run.task.labels else None
    try:
        write_run(directory, record, run.history, run.prompt, curves, validation)
    except MiniptError as error:
        raise MiniptError(f"{error}; the tuned prompt is kept, go on with {again}") from error


def _keep(args: argparse.Namespace, directory: Path, say: Callable[[str], None]) -> str:
    """Keep the run in the registry, and say so. Returns the version, such as spam@2."""
    registry = open_registry(args)
    try:
        version = registry.save(directory, args.keep, readable(args.message or ""))
    except MiniptError as error:
        raise MiniptError(
            f"{error}; the run itself is complete in {directory}: keep it with `minipt prompts "
            "keep`"
        ) from error
    say(f"kept:    {version.reference} in {registry.directory}")
    return version.reference


def _place_of(base: str) -> str | None:
    """The base's place, to be found again from anywhere; None for a name of `minipt bases`."""
    if base in NAMES:
        return None
    return str(Path(base).resolve()) if Path(base).exists() else base  # a hub id stays what it is


def _revision_of(base: str) -> str | None:
    """The commit of a base from the hub, by which the hub's cache names the directory."""
    path = Path(base)
    if not (base in NAMES or path.exists()):
        with suppress(ImportError, OSError, ValueError):
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(base, local_files_only=True))
    return path.resolve().name if path.resolve().parent.name == "snapshots" else None


def _keep_interrupted(directory: Path, record: dict, run: Run, again: str) -> int:
    if not checkpoint_path(directory).exists():
        remove_empty(directory)
        complain("interrupted before anything was learnt")
        return INTERRUPTED
    write_interrupted(directory, record, run.prompt)
    complain(
        f"interrupted after step {record['steps']}; the best prompt so far, of step "
        f"{run.best_step}, is in {unfinished(directory)}: go on with {again}"
    )
    return INTERRUPTED


def _command_again(args: argparse.Namespace, directory: Path) -> str:
    """The command line that resumes this run."""
    words = [word for word in args.line if word != "--resume"]
    if args.name is None:
        words += ["--name", directory.name]
    return command_line("minipt", *words, "--resume")


def _closing(directory: Path, run: Run) -> str:
    """The place of everything, and the next command to type."""
    command = "predict" if run.prompt.about["labels"] else "generate"
    example = command_line("minipt", command, str(directory), "a text of your own")
    names = ", ".join(sorted(path.name for path in directory.iterdir()))
    written = fill(f"written: {directory}/ with {names}", WIDTH, subsequent_indent=" " * 9)
    return (
        f"{run.seconds:.0f} s of tuning; the best prompt on validation is that of step "
        f"{run.best_step}\n"
        f"{written}\n"
        f"next:    {example}"
    )
