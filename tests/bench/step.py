"""How long a training step takes beside Hugging Face PEFT and beside plain PyTorch.

    python tests/bench/step.py                        # every shape and length, then an epoch
    python tests/bench/step.py small middle --length 20 --rounds 15
    python tests/bench/step.py gpt2 --epoch --json    # no epoch
    python tests/bench/step.py llama --length 20 --epoch smollm2-135m --texts 160
    python tests/bench/step.py small --length 20 --workers 8 --epoch

A step is the loss, the prompt's gradient and Adam, on the same random GPT-2 or Llama, texts and
prompt for all, which are first held to agree. Ours is taken in one process, and by workers that
share its texts. PEFT is used as its guide does: the answer stands behind the text and `labels` are
-100 elsewhere, so its texts are one token longer. Plain PyTorch is what one can write by hand,
prompt and text concatenated, with frozen parameters, fused attention and the output matrix on the
last row only. An epoch is one over a sample of real reviews that has the lengths of all of them, in
front of a base that has a name, in the same batches for both: random ones, padded to the longest,
as PEFT's usual collator makes them, and such of neighbouring length, as minipt's `tune` makes them.
Memory is that of the whole process during the first steps, and of its workers after them, what they
share counted once.

Each lives in a process of its own, as its user would run it: beside this program's own imports
nothing else is there, and what minipt tells the C library does not reach its rivals. They take
turns. Each turn begins with a pause and a warm-up, because the threads of the one before still wait
for work and would take half of the next one's time. Needs the `parity` extra and Linux.
"""

import argparse
import json
import multiprocessing
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minipt
from minipt.learning.memory import keep_freed_memory
from minipt.learning.optimizers import Adam
from minipt.learning.workers import Workers
from minipt.loading.named_bases import base_directory
from minipt.prompting.text import encode
from minipt.prompting.verbalizer import label_tokens
from minipt.prompting.wiring import prompt_step

T = 24
RATE = 1e-3
PAUSE = 0.4  # seconds until another process's threads have gone to sleep
WARM_UP = 0.3  # seconds of steps until a processor that slept is at its speed
STEPS_A_TURN = 5  # at least, and as many as fit into the same time
AGREEMENT = 1e-4
SPAWN = multiprocessing.get_context("spawn")  # a fork would begin with all the parent has imported


@dataclass(frozen=True)
class Shape:
    layers: int
    channels: int
    heads: int
    texts: int
    vocabulary: int
    context: int = 256
    key_value_heads: int | None = None
    hidden: int | None = None

    @property
    def is_llama(self) -> bool:
        """Only a Llama's heads share keys and values here."""
        return self.key_value_heads is not None


SHAPES = {
    "small": Shape(layers=4, channels=128, heads=4, texts=16, vocabulary=4096),
    "middle": Shape(layers=6, channels=256, heads=8, texts=16, vocabulary=4096),
    "gpt2": Shape(layers=12, channels=768, heads=12, texts=8, vocabulary=50257, context=1024),
    # SmolLM2-135M.
    "llama": Shape(
        layers=30,
        channels=576,
        heads=9,
        texts=16,
        vocabulary=49152,
        context=1024,
        key_value_heads=3,
        hidden=1536,
    ),
}
EPOCH_TEXTS = 16  # a step
BATCHES = ("random", "grouped")

Rows = list[np.ndarray]  # the token ids of each text
Case = tuple[Path, np.ndarray, Rows, np.ndarray]  # a model, vectors (P, C), texts, answers (B,)
Contestants = dict[str, Callable]  # each made of a model's directory and vectors


class Ours:
    """minipt as `tune` uses it."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        keep_freed_memory()
        self.base = minipt.load_base(directory)
        self.prompt = minipt.SoftPrompt(vectors.copy(), self.base.fingerprint, self.base.name)
        self.optimizer = Adam()

    def collate(self, rows: Rows, answers: np.ndarray) -> minipt.Batch:
        ids, lengths = padded(rows)
        return minipt.Batch(ids, lengths, answers)

    def step(self, batch: minipt.Batch) -> tuple[float, np.ndarray]:
        loss, gradients = self.loss_and_gradients(batch)
        self.optimizer.step(self.prompt.arrays(), gradients, RATE)
        return loss, gradients["prompt"]

    def loss_and_gradients(self, batch: minipt.Batch) -> tuple[float, dict[str, np.ndarray]]:
        return prompt_step(self.base, self.prompt, batch)


class OursByWorkers(Ours):
    """minipt with `workers=count`."""

    def __init__(self, directory: Path, vectors: np.ndarray, count: int) -> None:
        super().__init__(directory, vectors)
        self.workers = Workers(self.base, count).__enter__()  # they end when this process does

    def loss_and_gradients(self, batch: minipt.Batch) -> tuple[float, dict[str, np.ndarray]]:
        return self.workers.prompt_step(self.prompt, batch)


class Peft:
    """Hugging Face PEFT's prompt tuning on transformers' model."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        import peft
        import torch

        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(vectors))
        self.model = peft.get_peft_model(load_transformers(directory), config).train()
        self.vectors = self.model.prompt_encoder["default"].embedding.weight
        self.vectors.data = torch.tensor(vectors)
        self.optimizer = torch.optim.Adam([self.vectors], lr=RATE)

    def collate(self, rows: Rows, answers: np.ndarray) -> dict:
        import torch

        pairs = zip(rows, answers, strict=True)
        ids, lengths = padded([np.append(row, answer) for row, answer in pairs])
        labels = np.full_like(ids, -100)
        labels[np.arange(len(ids)), lengths - 1] = answers
        real = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        named = {"input_ids": ids, "attention_mask": real, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in named.items()}

    def step(self, batch: dict) -> tuple[float, np.ndarray]:
        self.optimizer.zero_grad()
        loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.vectors.grad.numpy()


class Plain:
    """A decoder in PyTorch's functions, with nothing that prompt tuning does not need."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        import torch

        model = load_transformers(directory)
        self.config = model.config
        self.params = {name: p.requires_grad_(False) for name, p in model.named_parameters()}
        self.vectors = torch.tensor(vectors, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.vectors], lr=RATE)
        self.hidden = self.llama if self.config.model_type == "llama" else self.gpt2

    def collate(self, rows: Rows, answers: np.ndarray) -> tuple:
        import torch

        ids, lengths = padded(rows)
        return torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(answers)

    def step(self, batch: tuple) -> tuple[float, np.ndarray]:
        import torch

        ids, lengths, answers = batch
        self.optimizer.zero_grad()
        B, P = len(ids), len(self.vectors)
        table = next(iter(self.params.values()))  # (V, C), tied
        x = torch.cat([self.vectors.expand(B, -1, -1), table[ids]], 1)  # (B, P+T, C)
        last = self.hidden(x, (torch.arange(B), P + lengths - 1))  # (B, C)
        loss = torch.nn.functional.cross_entropy(last @ table.T, answers)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.vectors.grad.numpy()

    def gpt2(self, x, read: tuple):
        x = x + self.params["transformer.wpe.weight"][: x.shape[1]]
        for i in range(self.config.n_layer):
            x = self.gpt2_block(f"transformer.h.{i}.", x)
        return self.layer_norm("transformer.ln_f", x[read])

    def gpt2_block(self, at: str, x):
        from torch.nn import functional as F

        B, S, C = x.shape
        heads = self.conv(f"{at}attn.c_attn", self.layer_norm(f"{at}ln_1", x))
        query, key, value = heads.view(B, S, 3, self.config.n_head, -1).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.conv(f"{at}attn.c_proj", context.transpose(1, 2).reshape(B, S, C))
        up = self.conv(f"{at}mlp.c_fc", self.layer_norm(f"{at}ln_2", x))
        return x + self.conv(f"{at}mlp.c_proj", F.gelu(up, approximate="tanh"))

    def conv(self, name: str, x):
        import torch

        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        rows = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
        return rows.view(*x.shape[:-1], -1)

    def layer_norm(self, name: str, x):
        from torch.nn import functional as F

        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.config.layer_norm_epsilon)

    def llama(self, x, read: tuple):
        import torch

        D = x.shape[2] // self.config.num_attention_heads
        base = self.config.rope_parameters["rope_theta"]
        angles = torch.outer(torch.arange(x.shape[1]), base ** -(torch.arange(0, D, 2) / D))
        turns = (angles.cos(), angles.sin())  # (S, D/2) each
        for i in range(self.config.num_hidden_layers):
            x = self.llama_block(f"model.layers.{i}.", x, turns)
        return self.rms_norm("model.norm", x[read])

    def llama_block(self, at: str, x, turns: tuple):
        from torch.nn import functional as F

        B, S, C = x.shape
        H = self.config.num_attention_heads
        normed = self.rms_norm(f"{at}input_layernorm", x)
        parts = [F.linear(normed, self.params[f"{at}self_attn.{p}_proj.weight"]) for p in "qkv"]
        query, key, value = (part.view(B, S, -1, C // H).transpose(1, 2) for part in parts)
        query, key = self.turn(query, *turns), self.turn(key, *turns)
        context = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=key.shape[1] < H
        )
        out = self.params[f"{at}self_attn.o_proj.weight"]
        x = x + F.linear(context.transpose(1, 2).reshape(B, S, C), out)
        normed = self.rms_norm(f"{at}post_attention_layernorm", x)
        gate = F.silu(F.linear(normed, self.params[f"{at}mlp.gate_proj.weight"]))
        up = F.linear(normed, self.params[f"{at}mlp.up_proj.weight"])
        return x + F.linear(gate * up, self.params[f"{at}mlp.down_proj.weight"])

    def turn(self, x, cos, sin):
        import torch

        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def rms_norm(self, name: str, x):
        from torch.nn import functional as F

        weight = self.params[f"{name}.weight"]
        return F.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


def contestants(workers: int) -> Contestants:
    by_workers = partial(OursByWorkers, count=workers)
    return {"ours": Ours, "workers": by_workers, "peft": Peft, "plain": Plain}


def padded(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Ids (B, T), zeros behind each text, and lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = row
    return ids, lengths


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
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            **ends,
        )
    else:
        config = transformers.GPT2Config(
            n_layer=shape.layers,
            n_embd=shape.channels,
            n_head=shape.heads,
            n_positions=shape.context,
            **ends,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def load_transformers(directory: Path):
    import transformers

    quieten(transformers)
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="float32")


def quieten(transformers) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")


def random_case(shape: Shape, length: int, directory: Path) -> Case:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0.0, 0.1, (length, shape.channels)).astype(np.float32)
    ids = rng.integers(0, shape.vocabulary, (shape.texts, T + 1))
    return directory, vectors, list(ids[:, :T]), ids[:, T]


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
    """One of the rivals in a process of its own."""

    def __init__(self, name: str, rival: Callable, case: Case, batches: str | None) -> None:
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
    step = partial(contestant.step, contestant.collate(rows[:EPOCH_TEXTS], answers[:EPOCH_TEXTS]))
    pipe.recv()
    pipe.send(first_steps(step))
    rng = np.random.default_rng(0)
    while pipe.recv():
        time.sleep(PAUSE)
        repeat(step, 2)
        if batches:
            order = epoch_order(rows, batches, rng)
            pipe.send(stopwatch(partial(epoch, contestant, rows, answers, order)))
        else:
            pipe.send(float(np.median(repeat(step, STEPS_A_TURN))))


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
    loaded = memory_mb("self/status", "VmRSS") + of_workers_mb()
    results = [step() for _ in range(3)]
    return results[0], {
        "loaded": loaded,
        "peak": memory_mb("self/status", "VmHWM") + of_workers_mb(),
    }


def of_workers_mb() -> float:
    """What this process's workers hold now, each counting its part of what they share."""
    workers = multiprocessing.active_children()
    return sum(memory_mb(f"{worker.pid}/smaps_rollup", "Pss") for worker in workers)


def memory_mb(file: str, key: str) -> float:
    lines = Path("/proc", file).read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def repeat(work: Callable[[], object], least: int) -> list[float]:
    """The seconds of each repetition, at least so many and for at least the time of a warm-up."""
    seconds = []
    while len(seconds) < least or sum(seconds) < WARM_UP:
        seconds.append(stopwatch(work))
    return seconds


def stopwatch(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_steps(
    name: str, length: int, rounds: int, rivals: Contestants, directory: Path
) -> dict:
    """One shape and prompt length: milliseconds a step of each, and the ratios to ours."""
    case = random_case(SHAPES[name], length, directory)
    workers = {key: Worker(key, rival, case, None) for key, rival in rivals.items()}
    memory, seconds = compare(workers, rounds, f"{name}, P={length}")
    ratios = {
        f"{theirs}_over_{ours}": ratio(seconds[theirs], seconds[ours])
        for theirs in ("peft", "plain")
        for ours in ("ours", "workers")
    }
    times = {"ms": milliseconds(seconds)} | ratios
    return {"shape": name, "length": length, "memory_mb": memory} | times


def compare_epochs(name: str, texts: int, rounds: int, rivals: Contestants) -> dict:
    """An epoch over real reviews: ours, alone and by workers, and PEFT, in the same batches."""
    _, _, rows, _ = case = review_case(name, texts)
    workers = {
        f"{key}_{batches}": Worker(key, rivals[key], case, batches)
        for batches in BATCHES
        for key in ("ours", "workers", "peft")
    }
    _, seconds = compare(workers, rounds, f"epochs of {texts} texts")
    ratios = {
        f"peft_over_{ours}_{batches}": ratio(
            seconds[f"peft_{batches}"], seconds[f"{ours}_{batches}"]
        )
        for ours in ("ours", "workers")
        for batches in BATCHES
    }
    times = {"ms": milliseconds(seconds)} | ratios
    return {"base": name, "texts": texts, "tokens": sum(map(len, rows))} | times


def compare(workers: dict[str, Worker], rounds: int, title: str) -> tuple[dict, dict]:
    """The memory of each, and its seconds in each turn, taken in turns once they agree."""
    try:
        first = {key: worker.ask() for key, worker in workers.items()}
        check_agreement({key: result for key, (result, _) in first.items()})
        seconds = {key: [] for key in workers}
        for _ in tqdm(range(rounds), title, leave=False):
            for key, worker in workers.items():
                seconds[key].append(worker.ask())
    finally:
        for worker in workers.values():
            worker.process.terminate()
    return {key: found for key, (_, found) in first.items()}, seconds


def check_agreement(results: dict[str, tuple[float, np.ndarray]]) -> None:
    """The same loss and the same gradient, else the times would compare different things."""
    loss, gradient = next(result for name, result in results.items() if name.startswith("ours"))
    for name, (their_loss, their_gradient) in results.items():
        distance = np.linalg.norm(their_gradient - gradient) / np.linalg.norm(gradient)
        if max(abs(their_loss - loss) / loss, distance) > AGREEMENT:
            sys.exit(f"{name} computes another step: loss {their_loss} not {loss}, {distance=:.1e}")


def milliseconds(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median over the rounds of each."""
    return {key: 1e3 * float(np.median(times)) for key, times in seconds.items()}


def ratio(theirs: list[float], ours: list[float]) -> list[float]:
    """That of the medians over the rounds, and the quartiles of the rounds' own ratios."""
    low, high = np.percentile(np.array(theirs) / ours, [25, 75])
    return [float(np.median(theirs) / np.median(ours)), float(low), float(high)]


def print_steps(results: list[dict], workers: int) -> None:
    print("\nA step, T=24. Ratios of medians over ours, in brackets a round's quartiles.\n")
    columns = ("base", "P", "ours", "PEFT / ours", "plain PyTorch / ours")
    columns += (f"by {workers} workers: ours", "PEFT / ours", "plain / ours")
    columns += (f"peak MB: ours, by {workers} workers, PEFT, plain",)
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for result in results:
        shape = SHAPES[result["shape"]]
        sizes = f"L{shape.layers} C{shape.channels} H{shape.heads} B={shape.texts}"
        memory = result["memory_mb"]
        cells = (
            f"{sizes}, V={shape.vocabulary}",
            f"{result['length']}",
            f"{result['ms']['ours']:.1f} ms",
            ratio_cell(result["peft_over_ours"]),
            ratio_cell(result["plain_over_ours"]),
            f"{result['ms']['workers']:.1f} ms",
            ratio_cell(result["peft_over_workers"]),
            ratio_cell(result["plain_over_workers"]),
            ", ".join(
                f"{memory[key]['peak']:.0f} (+{memory[key]['peak'] - memory[key]['loaded']:.0f})"
                for key in memory
            ),
        )
        print(f"| {' | '.join(cells)} |")
    print("\nMemory: the whole process at its peak, in brackets what the steps added to it.")


def print_epoch(result: dict, workers: int) -> None:
    about = f"{result['texts']} reviews, {result['tokens']} tokens, in front of {result['base']}"
    print(f"\nAn epoch of {about}, {EPOCH_TEXTS} a step, P=20\n")
    print(f"| batches | ours | PEFT / ours | by {workers} workers: ours | PEFT / ours |")
    print("|---|---|---|---|---|")
    for batches in BATCHES:
        cells = [batches]
        for ours in ("ours", "workers"):
            cells.append(f"{result['ms'][f'{ours}_{batches}'] / 1e3:.2f} s")
            cells.append(ratio_cell(result[f"peft_over_{ours}_{batches}"]))
        print(f"| {' | '.join(cells)} |")


def ratio_cell(figures: list[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*figures)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", help=f"of {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--length", type=int, nargs="+", default=[20, 100], help="P")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (default: 15)")
    parser.add_argument(
        "--texts", type=int, default=320, help="in an epoch, 16 a step (default: 320)"
    )
    parser.add_argument("--workers", type=int, default=2, help="of ours (default: 2)")
    epochs = "bases for an epoch, none: steps only (default: tiny)"
    parser.add_argument("--epoch", nargs="*", metavar="BASE", default=["tiny"], help=epochs)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.shapes if name not in SHAPES]:
        parser.error(f"unknown shapes {unknown}: choose of {', '.join(SHAPES)}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    rivals, steps = contestants(arguments.workers), []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.shapes or SHAPES:
            directory = Path(folder) / name
            save_random_model(SHAPES[name], directory)
            for length in arguments.length:
                steps.append(compare_steps(name, length, arguments.rounds, rivals, directory))
    rounds = max(3, arguments.rounds // 3)
    epochs = [compare_epochs(name, arguments.texts, rounds, rivals) for name in arguments.epoch]
    if arguments.json:
        settings = {"rounds": arguments.rounds, "workers": arguments.workers}
        print(json.dumps(settings | {"steps": steps, "epochs": epochs}, indent=2))
        return
    print_steps(steps, arguments.workers)
    for epoch in epochs:
        print_epoch(epoch, arguments.workers)


if __name__ == "__main__":
    main()
