"""The command `predict`: the labels that tuned prompts choose for texts.

In: one run or several, and texts: arguments, lines of standard input, or a column of a table. Out:
for each text its label with the probabilities of all labels; where it is asked for, the same in a
table's file and in the registry's log.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minipt.commands.arguments import A_RUN, REGISTRY, argument, base_argument, command, readable
from minipt.commands.find import Found, find_prompt
from minipt.commands.terminal import command_line, is_closed
from minipt.errors import MiniptError
from minipt.files.complete import complete_file
from minipt.learning.evaluate import Prediction
from minipt.learning.observe import observe
from minipt.prompting.prompt import SoftPrompt
from minipt.results.tables import align, decimals
from minipt.tasks.rows import quoted, read_table
from minipt.transformer.base import Base


@dataclass(frozen=True)
class Answers:
    """The answers of one prompt to N texts. ids: in the log; None: they are not in it."""

    found: Found
    labels: Sequence[str]
    predictions: list[Prediction]
    ids: list[int] | None

    def rows(self) -> Iterator[tuple[Prediction, list[int]]]:
        """Each answer, and in a list its id, if it has one."""
        ids = [[]] * len(self.predictions) if self.ids is None else [[n] for n in self.ids]
        return zip(self.predictions, ids, strict=True)


@command(
    'runs/sms-spam-tiny-0 "shall we meet at noon?"',
    argument("run", A_RUN, nargs="?", metavar="RUN"),
    argument("texts", "default: the lines of standard input", nargs="*", metavar="TEXT"),
    argument("--each", "in place of RUN several, which all answer each text", metavar="RUN,RUN"),
    argument("--csv", "a table of texts, in place of arguments", type=Path, metavar="FILE"),
    argument("--text-column", "the table's column of texts", metavar="COLUMN"),
    argument("--save", "write the table with the answers", type=Path, metavar="FILE.csv"),
    argument("--log", "write the answers to the registry's log, but no text", action="store_true"),
    argument("--log-texts", "write the answers and the texts to it", action="store_true"),
    base_argument(None),
    REGISTRY,
    prints="one JSON object an answer",
)
def predict_command(args: argparse.Namespace) -> None:
    """Answer texts with a tuned prompt, or with several over one base."""
    runs, words = _runs_and_words(args)
    found = [find_prompt(args, run) for run in runs]
    _check_kept(args, found)
    base = found[0].load_base(args.base)
    prompts = [each.load_labelled(base) for each in found]
    header, rows, texts = _texts(args, words)
    added = _added_columns(args, header, prompts[0].about["labels"])
    pairs = zip(found, prompts, strict=True)
    answers = [_answer(args, base, each, prompt, texts) for each, prompt in pairs]
    if cut := sum(each.cut for one in answers for each in one.predictions):
        print(f"texts too long for the base, which lost their beginning: {cut}", file=sys.stderr)
    if args.save:
        _save(args, [*header, *added], rows, answers[0])
    elif args.json:
        _print_json(texts, answers)
    else:
        _print_table(texts, answers)


def _runs_and_words(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The prompts' names, and the words behind them. Exits with status 2 where something lacks."""
    words = [word for word in (args.run, *args.texts) if word is not None]
    if args.save and (args.each or not args.csv):
        args.parser.error("--save writes the table of --csv with the answers of one RUN")
    if bool(args.csv) != bool(args.text_column):
        args.parser.error("--csv and --text-column belong together")
    if args.each:
        runs = args.each.split(",")
        if len(set(runs)) < len(runs) or not all(runs):
            args.parser.error("--each names prompts, each once, with commas between")
    elif words:
        runs, words = words[:1], words[1:]
    else:
        args.parser.error("the following arguments are required: RUN")
    if args.csv and words:
        args.parser.error("texts are arguments or the table of --csv, not both")
    return runs, words


def _check_kept(args: argparse.Namespace, found: list[Found]) -> None:
    """Raise MiniptError for a prompt whose answers could not be logged."""
    for each in found:
        if (args.log or args.log_texts) and each.version is None:
            keep = command_line("minipt", "prompts", "keep", str(each.path), "NAME")
            raise MiniptError(
                f"{each.path} is not kept, and the log says which version gave an answer: keep it "
                f"first with `{keep}`"
            )


def _texts(args: argparse.Namespace, words: list[str]) -> tuple[list, list, list[str]]:
    """The header and rows of a table, if there is one, and the texts."""
    if args.csv:
        return read_table(args.csv, args.text_column)
    given = [readable(text) for text in words or _read_lines()]
    texts = [text for text in given if text.strip()]
    if not texts:
        raise MiniptError("there is no text to answer: give one, or lines on standard input")
    if len(texts) < len(given):
        print(f"blank texts left out: {len(given) - len(texts)}", file=sys.stderr)
    return [], [], texts


def _answer(
    args: argparse.Namespace, base: Base, found: Found, prompt: SoftPrompt, texts: list[str]
) -> Answers:
    seen, ids = observe(base, prompt, texts), None
    if args.log or args.log_texts:
        kept = texts if args.log_texts else None
        ids = found.registry.log(found.version.reference, seen, kept)
    return Answers(found, seen.labels, seen.predictions(), ids)


def _lines(
    texts: list[str], answers: list[Answers]
) -> Iterator[tuple[str, Answers, Prediction, list[int]]]:
    """Text by text, the answers of all prompts."""
    for text, *some in zip(texts, *(one.rows() for one in answers), strict=True):
        for one, (each, logged) in zip(answers, some, strict=True):
            yield text, one, each, logged


def _print_json(texts: list[str], answers: list[Answers]) -> None:
    for text, one, each, logged in _lines(texts, answers):
        answer = {"label": each.label, "probabilities": each.probabilities, "cut": each.cut}
        prompt = {"prompt": one.found.name} if one.found.version or len(answers) > 1 else {}
        ids = dict(zip(["id"], logged, strict=False))
        print(json.dumps({"text": text} | answer | prompt | ids))


def _print_table(texts: list[str], answers: list[Answers]) -> None:
    """One prompt has a column for each label; several may have other labels, so each its answer."""
    labels = answers[0].labels if len(answers) == 1 else ()
    rows = [("answer", *labels, "text") if labels else ("prompt", "answer", "sure", "text")]
    sides = "<" + ">" * len(labels) + "<" if labels else "<<><"
    if answers[0].ids is not None:
        rows, sides = [("id", *rows[0])], ">" + sides
    for text, one, each, logged in _lines(texts, answers):
        shares = list(each.probabilities.values())
        shares = decimals(shares if labels else [max(shares)])
        who = [] if labels else [one.found.name]
        rows.append((*map(str, logged), *who, each.label, *shares, text))
    print(align(rows, sides))


def _added_columns(args: argparse.Namespace, header: list[str], labels: list[str]) -> list[str]:
    """The columns of --save behind a table's own. Raises MiniptError for one that is there."""
    shares = [f"p({label})" for label in labels]
    added = ["answer", *shares, "cut", *(["id"] if args.log or args.log_texts else [])]
    if args.save and (twice := [name for name in added if name in header]):
        raise MiniptError(f"{args.csv} has a column {quoted(twice)} already: rename it")
    return added


def _save(
    args: argparse.Namespace, header: list[str], rows: list[list[str]], answers: Answers
) -> None:
    """Write the table, with the answers in columns behind its own."""
    with (
        complete_file(args.save) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(header)
        for row, (each, logged) in zip(rows, answers.rows(), strict=True):
            table.writerow([*row, each.label, *each.probabilities.values(), int(each.cut), *logged])
    print(f"answers written to {args.save}: {len(rows):,}", file=sys.stderr)


def _read_lines() -> list[str]:
    """As a file of texts is read: UTF-8, whatever the locale, and lines of any system."""
    if is_closed(sys.stdin):
        return []
    if getattr(sys.stdin, "isatty", bool)():
        print("reading texts from standard input, one a line, until Ctrl-D", file=sys.stderr)
    try:
        # A stream that is no file of the system's, as in a notebook, may have no bytes.
        bytes_of = getattr(sys.stdin, "buffer", None)
        text = sys.stdin.read() if bytes_of is None else bytes_of.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MiniptError("standard input is not utf-8: save the texts as UTF-8") from error
    return io.StringIO(text, newline=None).read().removesuffix("\n").split("\n")
