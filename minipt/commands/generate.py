"""The command `generate`: what a base writes behind a tuned prompt and a text.

In: a run and a text. Out: the words, as they are written.
"""

import argparse
import json

from minipt.commands.arguments import (
    REGISTRY,
    RUN,
    argument,
    base_argument,
    command,
    load_tuned,
    readable,
)
from minipt.prompting.generate import LIMIT, generate


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
