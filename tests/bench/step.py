"""How long a training step takes beside Hugging Face PEFT and beside plain PyTorch.

    python tests/bench/step.py                        # every shape and length, then an epoch
    python tests/bench/step.py small middle --length 20 --rounds 15
    python tests/bench/step.py middle --length 20 --tokens 128 512 1024 --rounds 5 --epoch
    python tests/bench/step.py llama --length 20 --tokens 256 --texts 8 --rounds 5 --epoch
    python tests/bench/step.py small middle --length 20 --busy --epoch
    python tests/bench/step.py gpt2 --epoch --json    # no epoch

A step is the loss, the prompt's gradient and Adam, on the same random GPT-2 or Llama, texts and
prompt for all (`rivals.py`), which are first held to agree. Plain PyTorch is what one can write by
hand, prompt and text concatenated, with frozen parameters, fused attention and the output matrix on
the last row only. "The same savings" is a PyTorch that runs the prompt once for all texts and in
the last layer only the rows that are read, as minipt does. An epoch is one over a sample of real
reviews that has the lengths of all of them, in front of a base that has a name, in the same batches
for all: random ones, padded to the longest, as PEFT's usual collator makes them, and such of
neighbouring length, as minipt's `tune` makes them. With --busy each takes every turn twice, alone
and beside a process that keeps one core busy. Memory is that of the whole process at its peak
during the first steps.

Each lives in a process of its own, as its user would run it: beside this program's own imports
nothing else is there, and what minipt tells the C library does not reach its rivals. They take
turns. Each turn begins with a pause and a warm-up, because the threads of the one before still wait
for work and would take half of the next one's time. Needs the `parity` extra and Linux.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from rivals import CONTESTANTS, Rows, quieten
from tqdm import tqdm

import minipt
from minipt.loading.named_bases import base_directory
from minipt.prompting.text import encode
from minipt.prompting.verbalizer import label_tokens

PAUSE = 0.4  # seconds until another process's threads have gone to sleep
WARM_UP = 0.3  # seconds of steps until a processor that slept is at its speed
SOME_TIME = 0.3  # seconds of steps in a turn
STEPS_A_TURN = 5  # at least, and as many as fit into the same time
LONG_TURN = 2.0  # seconds after which a turn has enough steps, however few
AGREEMENT = 1e-4
SPAWN = multiprocessing.get_context("spawn")  # a fork would begin with all the parent has imported


@dataclass(frozen=True)
class Shape:
    layers: int
    channels: int
    heads: int
    texts: int
    vocabulary: int
    key_value_heads: int | None = None
    hidden: int | None = None

    @property
    def is_llama(self) -> bool:
        """Only a Llama's heads share keys and values here."""
        return self.key_value_heads is not None


CONTEXT = 1200
SHAPES = {
    "small": Shape(layers=4, channels=128, heads=4, texts=16, vocabulary=4096),
    "middle": Shape(layers=6, channels=256, heads=8, texts=16, vocabulary=4096),
    "gpt2": Shape(layers=12, channels=768, heads=12, texts=8, vocabulary=50257),
    # SmolLM2-135M.
    "llama": Shape(
        layers=30,
        channels=576,
        heads=9,
        texts=16,
        vocabulary=49152,
        key_value_heads=3,
        hidden=1536,
    ),
}
EPOCH_TEXTS = 16  # a step
BATCHES = ("random", "grouped")
RIVALS = {"peft": "PEFT", "plain": "plain", "savings": "same savings"}

Case = tuple[Path, np.ndarray, Rows, np.ndarray]  # a model, vectors (P, C), texts, answers (B,)


def save_random_model(shape: Shape, directory: Path) -> None:
    """A model of random weights without dropout, which would make every loss another one."""
    import torch
    import transformers

    quieten(transformers)
    torch.manual_seed(0)
    ends = {"vocab_size": shape.vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    if shape.is_llama:
        config = transformers.LlamaConfig(
            num_hidden_layers=shape.layers,
            hidden_size=shape.channels,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            intermediate_size=shape.hidden,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            **ends,
        )
    else:
        config = transformers.GPT2Config(
            n_layer=shape.layers,
            n_embd=shape.channels,
            n_head=shape.heads,
            n_positions=CONTEXT,
            **ends,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def random_case(shape: Shape, length: int, tokens: int, texts: int, directory: Path) -> Case:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0.0, 0.1, (length, shape.channels)).astype(np.float32)
    ids = rng.integers(0, shape.vocabulary, (texts, tokens + 1))
    return directory, vectors, list(ids[:, :tokens]), ids[:, tokens]


def review_case(name: str, count: int) -> Case:
    """Training texts of movie-reviews: of all batches of neighbouring length, evenly some."""
    base, task = minipt.load_base(name), minipt.load_task("movie-reviews")
    vectors = minipt.init_prompt(base, 20).vectors
    room = base.config.context - len(vectors)
    rows, _ = encode(base, task.template, task.train.texts, room)
    answers = label_tokens(base, task.label_words)[task.train.labels]
    by_length = np.argsort([len(row) for row in rows], kind="stable")
    groups = np.array_split(by_length, len(rows) // EPOCH_TEXTS)
    some = np.arange(0.5, steps := count // EPOCH_TEXTS) * len(groups) / steps
    chosen = np.concatenate([groups[int(i)][:EPOCH_TEXTS] for i in some])
    return base_directory(name), vectors, [rows[i] for i in chosen], answers[chosen]


class Worker:
    """One of the contestants in a process of its own."""

    def __init__(self, name: str, rival: Callable, case: Case, batches: str | None = None) -> None:
        self.name = name
        self.pipe, far_end = SPAWN.Pipe()
        arguments = (far_end, rival, case, batches)
        self.process = SPAWN.Process(target=serve, args=arguments)
        self.process.start()
        far_end.close()  # only the process holds it, so that its death is noticed here

    def ask(self):
        """What `serve` sends next; ends the benchmark if the process has died."""
        try:
            self.pipe.send("your turn")
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            sys.exit(f"the process of {self.name} ended with code {self.process.exitcode}")


def serve(pipe: Connection, rival: Callable, case: Case, batches: str | None) -> None:
    """In the worker: send, when asked, what `first_steps` finds, then each turn's seconds.

    batches: of `BATCHES`, for a turn that is an epoch; None: it is some steps.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C the parent ends its workers
    directory, vectors, rows, answers = case
    contestant = rival(directory, vectors)
    some = slice(EPOCH_TEXTS) if batches else slice(None)
    step = partial(contestant.step, contestant.collate(rows[some], answers[some]))
    pipe.recv()
    pipe.send(first_steps(step))
    rng = np.random.default_rng(0)
    while pipe.recv():
        time.sleep(PAUSE)
        repeat(step, 1, WARM_UP)
        if batches:
            order = epoch_order(rows, batches, rng)
            pipe.send(stopwatch(partial(epoch, contestant, rows, answers, order)))
        else:
            pipe.send(float(np.median(repeat(step, STEPS_A_TURN, SOME_TIME))))


def epoch_order(rows: Rows, batches: str, rng: np.random.Generator) -> np.ndarray:
    """All texts' indices, by length or as the rng draws them: the same for all contestants."""
    if batches == "grouped":
        return np.argsort([len(row) for row in rows], kind="stable")
    return rng.permutation(len(rows))


def epoch(contestant, rows: Rows, answers: np.ndarray, order: np.ndarray) -> None:
    for start in range(0, len(order), EPOCH_TEXTS):
        chosen = order[start : start + EPOCH_TEXTS]
        contestant.step(contestant.collate([rows[i] for i in chosen], answers[chosen]))


def first_steps(step: Callable[[], tuple]) -> tuple[tuple[float, np.ndarray], dict[str, float]]:
    """The first loss and gradient; MB with the model loaded, and at most while it takes steps.

    Writing 5 to clear_refs forgets the peak of loading the model. Not getrusage's ru_maxrss: it
    cannot be set back, and begins at the size of the parent process.
    """
    Path("/proc/self/clear_refs").write_text("5")
    loaded = memory_mb("VmRSS")
    loss, gradient = step()
    first = loss, gradient.copy()
    repeat(step, 2, 0.0)
    return first, {"loaded": loaded, "peak": memory_mb("VmHWM")}


def memory_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def repeat(work: Callable[[], object], least: int, time_for_it: float) -> list[float]:
    """The seconds of each repetition: for some time, and at least so many.

    Fewer are enough where they take long.
    """
    seconds = []
    while sum(seconds) < time_for_it or (len(seconds) < least and sum(seconds) < LONG_TURN):
        seconds.append(stopwatch(work))
    return seconds


def stopwatch(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Neighbour:
    """A process that keeps one core busy while it is told to."""

    def __init__(self) -> None:
        self.process = SPAWN.Process(target=compute_for_ever, daemon=True)
        self.process.start()
        self.rest()

    def work(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def rest(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)


def compute_for_ever() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        pass


def compare_steps(arguments: argparse.Namespace, name: str, directory: Path) -> list[dict]:
    """A shape at each length and number of tokens: ms a step, ratios to ours, and memory."""
    shape, results = SHAPES[name], []
    texts = arguments.texts or shape.texts
    for length in arguments.length:
        for tokens in arguments.tokens:
            case = random_case(shape, length, tokens, texts, directory)
            workers = {key: Worker(key, rival, case) for key, rival in CONTESTANTS.items()}
            title = f"{name}, P={length}, T={tokens}"
            memory, seconds = compare(workers, arguments.rounds, title, arguments.busy)
            where = {"shape": name, "texts": texts, "length": length, "tokens": tokens}
            results.append(where | {"memory_mb": memory} | summarise(seconds))
    return results


def compare_epochs(name: str, texts: int, rounds: int) -> dict:
    """An epoch over real reviews, ours and PEFT's, in the same batches."""
    _, _, rows, _ = case = review_case(name, texts)
    found = {}
    for batches in BATCHES:
        workers = {
            key: Worker(key, CONTESTANTS[key], case, batches) for key in ("ours", "peft", "savings")
        }
        _, seconds = compare(workers, rounds, f"{name}, {batches} batches of {texts} texts", False)
        found[batches] = summarise(seconds)
    return {"base": name, "texts": texts, "tokens": sum(map(len, rows))} | found


def compare(workers: dict[str, Worker], rounds: int, title: str, busy: bool) -> tuple[dict, dict]:
    """The memory of each, and its seconds in each turn, taken in turns once they agree.

    busy: "ours busy" and so on are the turns beside a busy process.
    """
    neighbour = Neighbour() if busy else None
    try:
        first = {key: worker.ask() for key, worker in workers.items()}
        check_agreement({key: result for key, (result, _) in first.items()})
        seconds = {key + how: [] for key in workers for how in (("", " busy") if busy else ("",))}
        for _ in tqdm(range(rounds), title, leave=False):
            for key, worker in workers.items():
                seconds[key].append(worker.ask())
                if neighbour:
                    neighbour.work()
                    seconds[f"{key} busy"].append(worker.ask())
                    neighbour.rest()
    finally:
        for process in [worker.process for worker in workers.values()]:
            process.terminate()
        if neighbour:
            neighbour.process.kill()
    return {key: found for key, (_, found) in first.items()}, seconds


def check_agreement(results: dict[str, tuple[float, np.ndarray]]) -> None:
    """The same loss and the same gradient, else the times would compare different things."""
    loss, gradient = results["ours"]
    for name, (their_loss, their_gradient) in results.items():
        distance = np.linalg.norm(their_gradient - gradient) / np.linalg.norm(gradient)
        if max(abs(their_loss - loss) / loss, distance) > AGREEMENT:
            sys.exit(f"{name} computes another step: loss {their_loss} not {loss}, {distance=:.1e}")


def summarise(seconds: dict[str, list[float]]) -> dict:
    """The median milliseconds of each, and the ratios: of rivals to ours, of busy to alone."""
    found = {"ms": {key: 1e3 * float(np.median(times)) for key, times in seconds.items()}}
    for key in seconds:
        if key in RIVALS:
            found[f"{key}_over_ours"] = ratio(seconds[key], seconds["ours"])
        if f"{key} busy" in seconds:
            found[f"{key}_busy_over_alone"] = ratio(seconds[f"{key} busy"], seconds[key])
    return found


def ratio(theirs: list[float], ours: list[float]) -> list[float]:
    """That of the medians over the rounds, and the quartiles of the rounds' own ratios."""
    low, high = np.percentile(np.array(theirs) / ours, [25, 75])
    return [float(np.median(theirs) / np.median(ours)), float(low), float(high)]


def print_steps(results: list[dict], busy: bool) -> None:
    print("\nA step. Ratios of medians over ours, in brackets a round's quartiles.\n")
    columns = ["base", "P", "T", "ours", *(f"{name} / ours" for name in RIVALS.values())]
    columns.append("peak MB: ours, PEFT, plain, same savings")
    if busy:
        columns += [f"{name}: busy / alone" for name in ("ours", *RIVALS.values())]
    rows = [columns, ["---"] * len(columns)]
    for result in results:
        shape = SHAPES[result["shape"]]
        sizes = f"L{shape.layers} C{shape.channels} H{shape.heads} B={result['texts']}"
        row = [f"{sizes}, V={shape.vocabulary}", str(result["length"]), str(result["tokens"])]
        row.append(f"{result['ms']['ours']:.1f} ms")
        row += [ratio_cell(result[f"{key}_over_ours"]) for key in RIVALS]
        row.append(", ".join(memory_cell(found) for found in result["memory_mb"].values()))
        if busy:
            row += [ratio_cell(result[f"{key}_busy_over_alone"]) for key in ("ours", *RIVALS)]
        rows.append(row)
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    print("\nMemory: the whole process at its peak, in brackets what the steps added to it.")


def print_epoch(result: dict) -> None:
    about = f"{result['texts']} reviews, {result['tokens']} tokens, in front of {result['base']}"
    print(f"\nAn epoch of {about}, {EPOCH_TEXTS} a step, P=20\n")
    print("| batches | ours | PEFT / ours | same savings / ours |\n|---|---|---|---|")
    for batches in BATCHES:
        found = result[batches]
        cells = [ratio_cell(found[f"{key}_over_ours"]) for key in ("peft", "savings")]
        print(f"| {batches} | {found['ms']['ours'] / 1e3:.2f} s | {' | '.join(cells)} |")


def ratio_cell(figures: list[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*figures)


def memory_cell(found: dict[str, float]) -> str:
    return f"{found['peak']:.0f} (+{found['peak'] - found['loaded']:.0f})"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", help=f"of {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--length", type=int, nargs="+", default=[20, 100], help="P")
    parser.add_argument("--tokens", type=int, nargs="+", default=[24], help="T (default: 24)")
    parser.add_argument("--texts", type=int, help="B (default: the shape's)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (default: 15)")
    parser.add_argument("--busy", action="store_true", help="also beside a busy process")
    epochs = "bases for an epoch, none: steps only (default: tiny)"
    parser.add_argument("--epoch", nargs="*", metavar="BASE", default=["tiny"], help=epochs)
    parser.add_argument("--epoch-texts", type=int, default=320, help="in an epoch (default: 320)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.shapes if name not in SHAPES]:
        parser.error(f"unknown shapes {unknown}: choose of {', '.join(SHAPES)}")
    return arguments


def main() -> None:
    arguments, steps = parse_arguments(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.shapes or SHAPES:
            directory = Path(folder) / name
            save_random_model(SHAPES[name], directory)
            steps += compare_steps(arguments, name, directory)
    rounds = max(3, arguments.rounds // 3)
    epochs = [compare_epochs(name, arguments.epoch_texts, rounds) for name in arguments.epoch]
    if arguments.json:
        print(json.dumps({"rounds": arguments.rounds, "steps": steps, "epochs": epochs}, indent=2))
        return
    print_steps(steps, arguments.busy)
    for epoch in epochs:
        print_epoch(epoch)


if __name__ == "__main__":
    main()
