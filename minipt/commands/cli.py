"""The command `minipt`: arguments in, text or JSON out, an exit status that a program may trust.

0: done. 1: something that the user can mend or the system refused, said in one sentence on standard
error. 2: arguments that make no sense. 130: interrupted. Whatever else goes wrong is a fault of
minipt's own and keeps its traceback. This is the last module; all that it does is done by those it
imports.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from minipt.commands.arguments import (
    STRONGER_BASES,
    add_base,
    add_command,
    add_task,
    choose_task,
    named_task,
)
from minipt.commands.doctor import examine, tell_bases, tell_health
from minipt.commands.studies import add_studies
from minipt.errors import MiniptError
from minipt.learning.evaluate import predict
from minipt.learning.optimizers import OPTIMIZERS, SCHEDULES
from minipt.learning.settings import Settings, defaults_for
from minipt.learning.tune import Run, tune
from minipt.loading.load import NAMES, load_base
from minipt.loading.named_bases import describe_bases
from minipt.prompting.generate import LIMIT, generate
from minipt.prompting.prompt import SoftPrompt, load_prompt
from minipt.prompting.starts import STARTS, init_prompt
from minipt.results.plot import draw_curves
from minipt.results.report import Score, align, compare_with_rivals, introduce, make_record, tell
from minipt.results.store import (
    check_page,
    checkpoint_path,
    choose_directory,
    find_base,
    remove_empty,
    save_page,
    unfinished,
    write_interrupted,
    write_run,
)
from minipt.results.xray import describe, page, take_step, tell_step
from minipt.transformer.base import Base

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# A model may write anything, and a terminal obeys control characters.
CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; arguments: those after the program's name, None: the process's own.

    Returns the exit status. Raises SystemExit(2) for arguments that argparse refuses.
    """
    _open_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = _parse(arguments)
    chosen.line = arguments
    try:
        # What overflows ends in numbers that are not finite, and these in a sentence.
        with np.errstate(over="ignore", invalid="ignore"):
            status = chosen.command(chosen)
        sys.stdout.flush()
        return status
    except MiniptError as error:
        print(f"minipt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minipt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except MemoryError as error:
        print(
            f"minipt: there is not enough memory ({error}): take fewer texts a step, fewer workers "
            "or a smaller base",
            file=sys.stderr,
        )
        return 1
    except OSError as error:  # for which no module has a better sentence
        if not isinstance(error, BrokenPipeError):  # whoever read the output has gone, and knows
            what = error.filename or "the output"
            print(f"minipt: {what!s:.200} cannot be used ({error.strerror})", file=sys.stderr)
        if error.filename is None:  # Python's own flush at exit must not complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _open_streams() -> None:
    """Where a shell has closed one, what is written to it is lost, and that is all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        # A terminal that lacks a letter of someone's message shows a question mark instead.
        getattr(sys, name).reconfigure(errors="replace")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    chosen, rest = parser.parse_known_args(arguments)
    # argparse gives the texts that stand behind an option to nobody.
    if chosen.command is _predict and not any(word.startswith("-") for word in rest):
        chosen.texts += rest
    elif rest:
        chosen.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minipt",
        description="Prompt tuning: vectors in front of a text learn a task, the model stays as "
        "it is.",
        epilog="start with: minipt tune",
    )
    parser.add_argument("--version", action="version", version=f"minipt {version('minipt')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_tune(commands)
    _add_predict(commands)
    _add_generate(commands)
    _add_xray(commands)
    add_studies(commands)
    for name, command, summary in (
        ("bases", _bases, "list the models that have a name, and where they come from"),
        ("doctor", _doctor, "look at this machine and say what is missing"),
    ):
        plain = add_command(commands, name, command, summary, f"minipt {name}")
        plain.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_tune(commands) -> None:
    parser = add_command(
        commands,
        "tune",
        _tune,
        "learn a prompt for a task and compare it with its rivals",
        "minipt tune --task questions --seed 1",
    )
    add = parser.add_argument
    add_task(add)
    add_base(add)
    about = f"The defaults are for the tiny base; {' and '.join(STRONGER_BASES)} have their own."
    setting = partial(_add_setting, parser.add_argument_group("learning", about).add_argument)
    setting("--length", "length", int, "number of prompt vectors")
    setting("--init", "method", str, f"how they begin: {', '.join(STARTS)}")
    setting(
        "--init-text",
        "text",
        str,
        "the words of --init text, in place of the task's instruction",
    )
    setting("--steps", "steps", int, "number of batches to learn from")
    setting("--seed", "seed", int, "the same seed gives the same bits")
    setting("--batch-size", "batch_size", int, "texts a step")
    setting("--learning-rate", "learning_rate", float, "size of a step")
    setting("--optimizer", "optimizer", str, f"one of {', '.join(OPTIMIZERS)}")
    setting("--schedule", "schedule", str, f"of the learning rate: {', '.join(SCHEDULES)}")
    setting(
        "--patience", "patience", int, "looks at validation without a better one that end the run"
    )
    setting("--workers", "workers", int, "processes that share the texts of a step")
    add(
        "--head",
        action="store_true",
        default=None,
        help="train a linear head beside the prompt: what the answer is compared with, K labels x "
        "C channels more numbers",
    )
    add("--name", metavar="RUN", help="write to runs/RUN (default: made of task, base and seed)")
    add("--resume", action="store_true", help="go on with the interrupted run of this name")
    add("--json", action="store_true", help="print run.json; everything else to standard error")


def _add_setting(add, flag: str, field: str, kind: type, meaning: str) -> None:
    default = getattr(Settings, field)
    shown = "" if default is None else f" (default: {default})"
    add(flag, dest=field, type=kind, help=meaning + shown)


def _add_predict(commands) -> None:
    add = add_command(
        commands,
        "predict",
        _predict,
        "answer texts with a tuned prompt",
        'minipt predict runs/sms-spam-tiny-0 "shall we meet at noon?"',
    ).add_argument
    add("run", type=Path, metavar="RUN", help="a run's directory, or its prompt.safetensors")
    add("texts", nargs="*", metavar="TEXT", help="default: the lines of standard input")
    add_base(add, None)
    add("--json", action="store_true", help="print one JSON object a text")


def _add_generate(commands) -> None:
    add = add_command(
        commands,
        "generate",
        _generate,
        "write on after a text, with a tuned prompt in front of it",
        'minipt generate runs/sms-spam-tiny-0 "shall we meet" --temperature 0.8 --top-p 0.9',
    ).add_argument
    add("run", type=Path, metavar="RUN", help="a run's directory, or its prompt.safetensors")
    add("text", metavar="TEXT", help="it is put into the template that the prompt was tuned with")
    add("--limit", type=int, default=LIMIT, help=f"the most tokens written (default: {LIMIT})")
    add(
        "--temperature",
        type=float,
        default=0.0,
        help="0: always the likeliest token; 1: as the model has it (default: 0)",
    )
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="draw from the likeliest that have P together")
    add("--seed", type=int, default=0, help="the same seed draws the same tokens (default: 0)")
    add_base(add, None)
    add("--json", action="store_true", help="print one JSON object when all is written")


def _add_xray(commands) -> None:
    add = add_command(
        commands,
        "xray",
        _xray,
        "take one training step and show every activation and gradient of it",
        'minipt xray "free entry, text WIN" --label spam --save page.png',
    ).add_argument
    add("text", metavar="TEXT")
    add("--run", type=Path, help="begin with this run's prompt (default: with a fresh one)")
    add("--task", help="without --run: whose labels to use (default: as for tune)")
    add_base(add, None, f"{NAMES[0]}, or with --run the one that its prompt was made for")
    add("--label", help="the right answer (default: the one that the prompt finds least likely)")
    add("--save", type=Path, metavar="PAGE.png", help="draw the step on one page")
    add("--json", action="store_true", help="print one JSON object")


def _tune(chosen: argparse.Namespace) -> int:
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout)
    given = {
        field.name: getattr(chosen, field.name)
        for field in fields(Settings)
        if getattr(chosen, field.name, None) is not None
    }
    base = load_base(chosen.base)
    task = choose_task(chosen, base)
    settings = defaults_for(base, task, **given)
    directory = choose_directory(chosen.name, task.name, base.name, settings.seed, chosen.resume)
    again = f"`{_command_again(chosen, directory)}`"
    try:
        say(introduce(base, task, settings), flush=True)
        run = tune(base, task, checkpoint_path(directory), chosen.resume, **given)
    except Exception:
        remove_empty(directory)
        raise
    except KeyboardInterrupt:  # while nothing is learnt, before or after
        remove_empty(directory)
        if checkpoint_path(directory).exists():
            print(f"minipt: go on with {again}", file=sys.stderr)
        raise
    place = {"base_path": _place_of(chosen.base)}
    try:
        if run.interrupted:
            raise KeyboardInterrupt  # from here on, Ctrl-C before and after the last step are one
        scores = compare_with_rivals(base, task, run.test)
        record = make_record(base, task, run, scores) | place
        _write(directory, record, run, scores, again)
    except KeyboardInterrupt:
        return _keep_interrupted(directory, make_record(base, task, run, {}) | place, run, again)
    say(f"\n{tell(base, task, run, scores)}\n\n{_closing(directory, run)}")
    if chosen.json:
        print(json.dumps(record | {"directory": str(directory)}))
    return 0


def _write(directory: Path, record: dict, run: Run, scores: dict[str, Score], again: str) -> None:
    rivals = [name for name in ("majority", "bag_of_words") if name in scores]
    lines = {name.replace("_", " "): scores[name].accuracy for name in rivals}
    curves = draw_curves(directory.name, run.history, run.best_step, lines)
    try:
        write_run(directory, record, run.history, run.prompt, curves)
    except MiniptError as error:
        raise MiniptError(f"{error}; the tuned prompt is kept, go on with {again}") from error


def _place_of(base: str) -> str | None:
    """How to find the base again from anywhere: None for its name alone."""
    if base in NAMES:
        return None
    return str(Path(base).resolve()) if Path(base).exists() else base  # a hub id stays what it is


def _keep_interrupted(directory: Path, record: dict, run: Run, again: str) -> int:
    if not checkpoint_path(directory).exists():
        remove_empty(directory)
        print("minipt: interrupted before anything was learnt", file=sys.stderr)
        return INTERRUPTED
    write_interrupted(directory, record, run.prompt)
    print(
        f"minipt: interrupted after step {record['steps']}; the best prompt so far, of step "
        f"{run.best_step}, is in {unfinished(directory)}: go on with {again}",
        file=sys.stderr,
    )
    return INTERRUPTED


def _command_again(chosen: argparse.Namespace, directory: Path) -> str:
    """The command line that resumes this run."""
    words = [word for word in chosen.line if word != "--resume"]
    if chosen.name is None:
        words += ["--name", directory.name]
    return shlex.join(["minipt", *words, "--resume"])


def _closing(directory: Path, run: Run) -> str:
    """Where everything is, and what to type next."""
    command = "predict" if run.prompt.about["labels"] else "generate"
    example = shlex.join(["minipt", command, str(directory), "a text of your own"])
    return (
        f"{run.seconds:.0f} s of tuning; the best prompt on validation is that of step "
        f"{run.best_step}\n"
        f"written: {directory}/ with {', '.join(sorted(p.name for p in directory.iterdir()))}\n"
        f"next:    {example}"
    )


def _predict(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base or find_base(chosen.run))
    prompt = load_prompt(chosen.run, base)
    _refuse_without_labels(chosen.run, prompt)
    given = [_readable(text) for text in chosen.texts or _read_lines()]
    texts = [text for text in given if text.strip()]
    if not texts:
        raise MiniptError("there is no text to answer: give one, or lines on standard input")
    if len(texts) < len(given):
        print(f"blank texts left out: {len(given) - len(texts)}", file=sys.stderr)
    predictions = predict(base, prompt, texts)
    if cut := sum(each.cut for each in predictions):
        print(f"texts too long for the base, which lost their beginning: {cut}", file=sys.stderr)
    labels = prompt.about["labels"]
    rows = [("answer", *labels, "text")]
    for text, each in zip(texts, predictions, strict=True):
        if chosen.json:
            answer = {"label": each.label, "probabilities": each.probabilities}
            print(json.dumps({"text": text} | answer))
        rows.append((each.label, *(f"{p:.3f}" for p in each.probabilities.values()), text))
    if not chosen.json:
        print(align(rows, "<" + ">" * len(labels) + "<"))
    return 0


def _refuse_without_labels(path: Path, prompt: SoftPrompt) -> None:
    if "labels" not in prompt.about:
        raise MiniptError(f"{path} holds a prompt that was not tuned for a task: tune it first")
    if not prompt.about["labels"]:
        raise MiniptError(
            f"{path} was tuned to write responses and knows no labels to choose from: use "
            f"`minipt generate {shlex.quote(str(path))}`"
        )


def _refuse_infinite(whence: Path | str, probabilities: np.ndarray) -> None:
    if not np.isfinite(probabilities).all():
        raise MiniptError(f"with {whence} the answer is not a finite number: tune again")


def _generate(chosen: argparse.Namespace) -> int:
    base = load_base(chosen.base or find_base(chosen.run))
    prompt = load_prompt(chosen.run, base)
    settings = {
        name: getattr(chosen, name) for name in ("limit", "temperature", "top_k", "top_p", "seed")
    }
    text = _readable(chosen.text)
    pieces = generate(base, prompt, text, **settings)
    if chosen.json:
        print(json.dumps({"text": text, "written": "".join(pieces)} | settings))
        return 0
    try:
        for piece in pieces:
            print(piece.translate(CONTROLS), end="", flush=True)
    finally:
        print()
    return 0


def _read_lines() -> list[str]:
    """As a file of texts is read: UTF-8, whatever the locale, and lines of any system."""
    if sys.stdin is None:
        return []
    if sys.stdin.isatty():
        print("reading texts from standard input, one a line, until Ctrl-D", file=sys.stderr)
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline=None)
    try:
        return sys.stdin.read().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise MiniptError("standard input is not utf-8: save the texts as UTF-8") from error


def _readable(text: str) -> str:
    """An argument as UTF-8, whatever the locale took its bytes for; what is none becomes marks."""
    try:
        given = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, which only Windows lets pass
        given = text.encode(errors="replace")
    return given.decode(errors="replace")


def _xray(chosen: argparse.Namespace) -> int:
    check_page(chosen.save)
    base, prompt = _choose_prompt(chosen)
    about = prompt.about
    labels = about["labels"]
    if chosen.label is not None and chosen.label not in labels:
        raise MiniptError(f"there is no label {chosen.label!r}: choose one of {', '.join(labels)}")
    target = None if chosen.label is None else labels.index(chosen.label)
    text = _readable(chosen.text)
    xray = take_step(base, prompt, about["template"], about["label_words"], text, target)
    _refuse_infinite(chosen.run or "a fresh prompt", xray.probabilities["before"])
    if xray.cut:
        print("the text is too long for the base and lost its beginning", file=sys.stderr)
    if chosen.save:
        save_page(page(xray, labels, text), chosen.save)
        print(f"the page is in {chosen.save}", file=sys.stderr)
    if chosen.json:
        print(json.dumps(describe(xray, labels, text)))
    else:
        print(tell_step(xray, labels))
    return 0


def _choose_prompt(chosen: argparse.Namespace) -> tuple[Base, SoftPrompt]:
    """A run's prompt, or a fresh one that knows the task's labels."""
    if chosen.run:
        if chosen.task:
            chosen.parser.error("--run knows its task: leave --task out")
        base = load_base(chosen.base or find_base(chosen.run))
        prompt = load_prompt(chosen.run, base)
        _refuse_without_labels(chosen.run, prompt)
        return base, prompt
    base = load_base(chosen.base or NAMES[0])
    task = named_task(chosen, base)
    prompt = init_prompt(base, Settings.length, Settings.method, Settings.seed)
    prompt.about |= {
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
    }
    return base, prompt


def _bases(chosen: argparse.Namespace) -> int:
    found = describe_bases()
    print(json.dumps({"bases": found}) if chosen.json else tell_bases(found))
    return 0


def _doctor(chosen: argparse.Namespace) -> int:
    found = examine()
    print(json.dumps(found) if chosen.json else tell_health(found))
    return 1 if found["problems"] else 0
