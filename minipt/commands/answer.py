"""The commands `predict` and `generate`: a base's answers behind a tuned prompt.

In: a run and texts. Out: for each text its label with the probabilities of all labels, or the words
that the base writes after it.
"""

import argparse
import io
import json
import sys

from minipt.commands.arguments import (
    REGISTRY,
    RUN,
    argument,
    base_argument,
    command,
    load_tuned,
    readable,
)
from minipt.commands.terminal import command_line, is_closed
from minipt.errors import MiniptError
from minipt.learning.evaluate import predict
from minipt.prompting.generate import LIMIT, generate
from minipt.prompting.prompt import SoftPrompt
from minipt.results.tables import align, decimals


@command(
    'runs/sms-spam-tiny-0 "shall we meet at noon?"',
    RUN,
    argument("texts", "default: the lines of standard input", nargs="*", metavar="TEXT"),
    base_argument(None),
    REGISTRY,
    prints="one JSON object a text",
)
def predict_command(args: argparse.Namespace) -> None:
    """Answer texts with a tuned prompt."""
    base, prompt = load_tuned(args)
    refuse_without_labels(args.run, prompt)
    given = [readable(text) for text in args.texts or _read_lines()]
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
        if args.json:
            answer = {"label": each.label, "probabilities": each.probabilities, "cut": each.cut}
            print(json.dumps({"text": text} | answer))
        rows.append((each.label, *decimals(each.probabilities.values()), text))
    if not args.json:
        print(align(rows, "<" + ">" * len(labels) + "<"))


def refuse_without_labels(path: str, prompt: SoftPrompt) -> None:
    """Raise MiniptError for a prompt that was tuned for no task, or to write."""
    if "labels" not in prompt.about:
        raise MiniptError(f"{path} holds a prompt that was not tuned for a task: tune it first")
    if not prompt.about["labels"]:
        raise MiniptError(
            f"{path} was tuned to write responses and knows no labels to choose from: use "
            f"`{command_line('minipt', 'generate', path)}`"
        )


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


@command(
    'runs/sms-spam-tiny-0 "shall we meet" --temperature 0.8 --top-p 0.9',
    RUN,
    argument("text", "it is put into the template that the prompt was tuned with", metavar="TEXT"),
    argument("--limit", "the most tokens written", type=int, default=LIMIT),
    argument(
        "--temperature",
        "0: always the likeliest token; 1: as the model has it",
        type=float,
        default=0.0,
    ),
    argument("--top-k", "draw from the K likeliest tokens only", type=int, metavar="K"),
    argument("--top-p", "draw from the likeliest that have P together", type=float, metavar="P"),
    argument("--seed", "the same seed draws the same tokens", type=int, default=0),
    base_argument(None),
    REGISTRY,
    prints="one JSON object when all is written",
)
def generate_command(args: argparse.Namespace) -> None:
    """Write on after a text, with a tuned prompt in front of it."""
    base, prompt = load_tuned(args)
    names = ("limit", "temperature", "top_k", "top_p", "seed")
    settings = {name: getattr(args, name) for name in names}
    text = readable(args.text)
    pieces = generate(base, prompt, text, **settings)
    if args.json:
        print(json.dumps({"text": text, "written": "".join(pieces)} | settings))
        return
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:
        print()
