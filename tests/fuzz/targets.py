"""What is damaged: a table of targets, each with sound files, how they are damaged and used.

A sound input is a directory. A damaged copy of it is where its use takes place. The use returns
what must be finite: NaN or infinity in it says that damage was accepted.
"""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from calls import BASE, CALLS, TASK, TEXT
from damage import damage_argument, damage_file, damage_words
from helpers.bases import base_that_reads, write_texts
from helpers.gguf_writer import small_llama, write
from rules import hold_command
from safetensors.numpy import load_file, save_file

import minipt
from minipt.learning import loop
from minipt.learning.settings import Settings
from minipt.loading.load import save_base
from minipt.results.store import find_base
from minipt.studies.jobs import Job, run
from minipt.tasks.task import Task
from minipt.transformer.base import Base

CSV = "--csv texts.csv --text-column text --label-column label"
TUNE = f"tune {CSV} --base base --length 2 --batch-size 4 --steps 1"
PAIRS = "tune --base base --length 2 --batch-size 4 --steps 1 --pairs"
RESUME = f"tune {CSV} --base base --length 2 --batch-size 4 --steps 60 --name x --resume"
CHECKPOINT = Path("runs/x.unfinished/checkpoint.safetensors")
PREDICT = "predict prompt good"
FAMILIES = ("gpt2", "llama", "bert", "encoder")
JOB = Job("prompt", BASE, TASK, Settings(length=2, steps=1))
LINES = (
    f"{TUNE} --init text --init-text good --seed 1 --learning-rate 0.1 --patience 1",
    f"{TUNE} --label-words good=kind bad=cruel --optimizer adam --schedule cosine --head --json",
    f"{PAIRS} pairs.jsonl --json",
    "generate prompt good --limit 3 --temperature 1 --top-k 9 --top-p 0.5 --seed 1 --json",
    "predict prompt good bad --base base --json",
    "xray good --run prompt --label good --base base --json",
    "xray good --run prompt --label good --base base --steps 2 --save page.html",
    f"sweep {CSV} --base base --length 1,2 --steps 1 --batch-size 4 --seeds 1",
    f"read prompt {CSV} --base base",
    RESUME,
)
# A large number of these is a wish for long work, not damage; processes take seconds to begin.
LONG_WORK = ("--steps", "--seeds", "--members", "--threads", "--rates", "steps", "threads")


def make_sound(place: Path) -> None:
    """Write the sound inputs, each in a directory of its name. The bytes are the same each time."""
    for name in FAMILIES:
        save_base(base_that_reads(name), place / name / "base")
        write_texts(place / name / "texts.csv")
    pooling = place / "encoder/base/1_Pooling/config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}')
    for name in ("shards", "words", "run"):
        shutil.copytree(place / "gpt2", place / name)
    _cut_in_two(place / "shards/base")
    _take_apart(place / "words/base")
    (place / "gguf").mkdir()
    write(place / "gguf/base.gguf", small_llama())
    write_texts(place / "gguf/texts.csv")
    with chdir(place / "run"), patch("time.perf_counter", return_value=0.0):
        _write_run()


def _cut_in_two(directory: Path) -> None:
    """The weights in two shards with an index."""
    whole = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    places = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(sorted(whole))}
    for shard in set(places.values()):
        save_file({name: whole[name] for name in whole if places[name] == shard}, directory / shard)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _take_apart(directory: Path) -> None:
    """The tokenizer as GPT-2's vocab.json and merges.txt."""
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    (directory / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    (directory / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))


def _write_run() -> None:
    """All that a run leaves, and texts of every kind."""
    Path("stdin.txt").write_text("the film was good\nthe film was bad\n")
    pairs = [(f"{TEXT} {n}", "kind, long") for n in range(9)]
    Path("pairs.csv").write_text("prompt,response\n" + "".join(f'{a},"{b}"\n' for a, b in pairs))
    rows = [json.dumps({"prompt": a, "response": b}) + "\n" for a, b in pairs]
    Path("pairs.jsonl").write_text("".join(rows))

    def only_early(path: Path, state: loop.State, write=loop.write_checkpoint) -> None:
        if state.step <= 50:
            write(path, state)

    with patch.object(loop, "write_checkpoint", only_early):
        prompt = use_checkpoint(resume=False).prompt
    prompt.save("prompt/prompt.safetensors")
    Path("prompt/run.json").write_text(json.dumps({"base_path": "base", "seconds": 0.0}))
    prompt.to_peft("adapter")
    prompt.to_peft("peft")
    Path("peft/minipt.json").unlink()
    run(JOB)


def use_base(path: str = "base") -> object:
    base = minipt.load_base(path)
    start = minipt.init_prompt(base, 2).vectors
    return base.params, start, use_task(TASK, base) if base.tokenizer else None


def use_task(task: Task, base: Base = BASE) -> object:
    task.summary()
    tuned = minipt.tune(base, task, steps=1, length=2, batch_size=4)
    return tuned.history, tuned.test, use_prompt(tuned.prompt, base)


def use_prompt(prompt: minipt.SoftPrompt, base: Base = BASE) -> object:
    answers = minipt.predict(base, prompt, [TEXT]) if prompt.about.get("labels") else None
    if base.config.causal:
        "".join(minipt.generate(base, prompt, TEXT, limit=2))
    return prompt.vectors, prompt.head, answers


def use_run() -> object:
    base = minipt.load_base(find_base("prompt"))
    return use_prompt(minipt.load_prompt("prompt", base), base)


def use_checkpoint(resume: bool = True) -> minipt.learning.tune.Run:
    task = minipt.load_csv("texts.csv", "text", "label")
    return minipt.tune(BASE, task, CHECKPOINT, resume, steps=60, length=2, batch_size=4)


def use_result() -> object:
    result = run(JOB)
    return result.record, result.arrays, result.prompt().vectors


def use_stdin() -> None:
    data = Path("stdin.txt").read_bytes() if Path("stdin.txt").is_file() else b""
    hold_command(["predict", "prompt", "--base", "base"], data)


@dataclass(frozen=True)
class Target:
    """sound: the directories whose copies are damaged, one of them at a time.

    files: which of their files. use: what is done with them. line: a command that reads the same.
    """

    sound: tuple[str, ...]
    files: tuple[str, ...]
    use: Callable[[], object]
    line: str = ""

    def damage(self, rng: random.Random) -> Callable[[], object]:
        """Damage some of the files here; returns the use."""
        there = sorted({path for files in self.files for path in Path().glob(files)})
        for path in rng.choices(there, k=rng.choice((1, 1, 1, 2, 3))):
            if path.is_file():
                damage_file(path, rng)
        return self.use


class Calls(Target):
    """Functions of the API, with one or two of their arguments damaged."""

    def damage(self, rng: random.Random) -> Callable[[], object]:
        function, sound = rng.choice(CALLS)
        arguments = dict(sound)
        for name in rng.sample(list(arguments), min(len(arguments), rng.choice((1, 1, 2)))):
            value = damage_argument(arguments[name], rng)
            large = name in LONG_WORK and isinstance(value, int | float) and value > 2
            arguments[name] = 2 if large else value
        return partial(function, **arguments)


class Lines(Target):
    """Command lines, with some of their words damaged."""

    def damage(self, rng: random.Random) -> Callable[[], object]:
        words = rng.choice(LINES).split()
        for _ in range(rng.choice((1, 1, 2, 4))):
            words = damage_words(words, rng) or ["tune"]
        for n, word in enumerate(words[1:], start=1):
            if words[n - 1] in LONG_WORK and len(word) > 1:
                words[n] = "2"
        return partial(hold_command, words)


MODEL = "base/model*.safetensors"
TARGETS = {
    "config": Target(FAMILIES, ("base/config.json", "base/*/config.json"), use_base, TUNE),
    "weights": Target(FAMILIES, (MODEL,), use_base, TUNE),
    "shards": Target(("shards",), ("base/*.index.json", MODEL), use_base, TUNE),
    "tokenizer": Target(FAMILIES, ("base/tokenizer.json",), use_base, TUNE),
    "words": Target(("words",), ("base/[vmt]*[bgs].*",), use_base, TUNE),
    "gguf": Target(
        ("gguf",),
        ("*.gguf",),
        partial(use_base, "base.gguf"),
        TUNE.replace(" base ", " base.gguf "),
    ),
    "prompt": Target(
        ("run",),
        ("prompt/prompt.safetensors",),
        lambda: use_prompt(minipt.load_prompt("prompt", BASE)),
        PREDICT,
    ),
    "run": Target(("run",), ("prompt/*",), use_run, PREDICT),
    "checkpoint": Target(("run",), (str(CHECKPOINT),), use_checkpoint, RESUME),
    "result": Target(("run",), ("runs/study/*/*.*",), use_result),
    "adapter": Target(
        ("run",), ("adapter/*",), lambda: use_prompt(minipt.from_peft("adapter", BASE))
    ),
    "peft": Target(("run",), ("peft/*",), lambda: use_prompt(minipt.from_peft("peft", BASE))),
    "csv": Target(
        ("run",),
        ("texts.csv",),
        lambda: use_task(minipt.load_csv("texts.csv", "text", "label")),
        TUNE,
    ),
    "pairs": Target(
        ("run",),
        ("pairs.csv",),
        lambda: use_task(minipt.load_pairs("pairs.csv")),
        f"{PAIRS} pairs.csv",
    ),
    "json-lines": Target(
        ("run",),
        ("pairs.jsonl",),
        lambda: use_task(minipt.load_pairs("pairs.jsonl")),
        f"{PAIRS} pairs.jsonl",
    ),
    "stdin": Target(("run",), ("stdin.txt",), use_stdin),
    "calls": Calls(("run",), (), lambda: None),
    "lines": Lines(("run",), (), lambda: None),
}
