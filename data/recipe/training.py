"""One run over the text: what it asks of a model, two optimizers, the loop, checkpoints, export.

Comes in: a model that is a `Trainee`, and the streams of `streams.py`. Goes out: a directory in
Hugging Face's format. Ctrl-C is safe: the same command goes on from the last checkpoint. The story
continues in `pretrain.py` for GPT-2 and in `masked.py` for BERT.
"""

import argparse
import json
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from streams import BATCH, LAST, TOKENIZER, draw, held_out_windows, prepare, shares
from tokenizers import Tokenizer
from torch import nn
from tqdm import tqdm

from minipt.files.fetch import cache_directory

STEPS = 2560
WARMUP, DECAY = 0.01, 0.3
MATRIX_RATE, VECTOR_RATE = 0.02, 0.003
SECONDS_BETWEEN_CHECKPOINTS = 180
DATA = Path(__file__).parents[1]


class Trainee(nn.Module):
    """What a run asks of a model, beside its parameters."""

    def examples(self, windows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is learnt from windows of the text, (B, T+1) token ids; B stays in front."""
        return windows

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """The mean loss on these examples, in nats per predicted token."""
        raise NotImplementedError

    def maps(self, name: str, array: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The linear maps in a parameter or its gradient, as views (in, out), for Muon.

        None of them in what Adam trains: vectors and tables.
        """
        raise NotImplementedError

    def config(self) -> dict:
        """The `config.json`."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """The parameters by the names that transformers has for them."""
        raise NotImplementedError

    def tokenizer(self, plain: Tokenizer) -> Tokenizer:
        """How the model reads text, given how the streams were read."""
        return plain


def export(model: Trainee, plain: Path, directory: Path) -> None:
    """Write config.json, model.safetensors (float16) and tokenizer.json as transformers does."""
    directory.mkdir(parents=True, exist_ok=True)
    halves = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.tensors().items()
    }
    save_file(halves, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(model.config(), indent=2) + "\n")
    model.tokenizer(Tokenizer.from_file(str(plain))).save(str(directory / "tokenizer.json"))


def orthogonalise(update: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz: push the singular values of (..., rows, columns) to about one."""
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon:
    """Momentum, orthogonalised: one step per linear map, of the same size in every direction."""

    def __init__(self, model: Trainee) -> None:
        self.model = model
        self.parameters = {n: p for n, p in model.named_parameters() if model.maps(n, p)}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, name: str, rate: float) -> None:
        """Apply one parameter's gradient at this learning rate."""
        torch.set_num_threads(1)
        parameter, momentum = self.parameters[name], self.momentum[name]
        momentum.lerp_(parameter.grad, 0.05)
        update = parameter.grad.lerp(momentum, 0.95)
        parameter.mul_(1 - rate * 0.05)
        maps = self.model.maps(name, parameter.data), self.model.maps(name, update)
        for matrix, change in zip(*maps, strict=True):
            rows, columns = matrix.shape
            matrix.sub_(orthogonalise(change), alpha=rate * max(1.0, columns / rows) ** 0.5)


class Run:
    """The state of a training run: model, optimizers, steps and seconds so far."""

    def __init__(self, model: Trainee, work: Path, threads: int) -> None:
        self.path = work / "checkpoint.safetensors"
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.muon = Muon(model)
        self.others = {n: p for n, p in self.parameters.items() if n not in self.muon.parameters}
        self.adam = torch.optim.Adam(self.others.values(), betas=(0.9, 0.98), eps=1e-10)
        self.steps, self.seconds = 0, 0.0
        self.parts = threads
        self.threads = ThreadPoolExecutor(threads)
        if self.path.exists():
            self._load()

    @torch.no_grad()
    def _load(self) -> None:
        saved = load_file(self.path)
        for name, parameter in self.parameters.items():
            parameter.copy_(saved[f"model/{name}"])
        for name in self.muon.momentum:
            self.muon.momentum[name] = saved[f"muon/{name}"]
        for name, parameter in self.others.items():
            self.adam.state[parameter] = {
                key: saved[f"adam/{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.steps, self.seconds = int(saved["steps"]), saved["seconds"].item()

    def save(self) -> None:
        """Write everything beside the old checkpoint, then replace it."""
        tensors = {f"model/{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"muon/{name}": value for name, value in self.muon.momentum.items()}
        for name, parameter in self.others.items():
            state = self.adam.state[parameter]
            tensors |= {f"adam/{name}/{key}": value for key, value in state.items()}
        tensors["steps"] = torch.tensor(self.steps)
        tensors["seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        partial = self.path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(self.path)

    def _part(self, examples: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...]]:
        torch.set_num_threads(1)  # each thread has a setting of its own
        loss = self.model(examples)
        return loss.item(), torch.autograd.grad(loss, list(self.parameters.values()))

    def step(self, examples: torch.Tensor, rate: float) -> float:
        """One update, at this share of the full rates; returns the loss in nats per token."""
        # A thread for each part of the batch, which meet once a step: threads inside the matrix
        # products meet at every product, and wait there whenever others use a core.
        parts = self.threads.map(self._part, examples.chunk(self.parts))
        losses, gradients = zip(*parts, strict=True)
        for parameter, *found in zip(self.parameters.values(), *gradients, strict=True):
            parameter.grad = sum(found) / self.parts
        self.adam.param_groups[0]["lr"] = rate * VECTOR_RATE
        self.adam.step()
        matrix_rate = rate * MATRIX_RATE
        list(self.threads.map(lambda name: self.muon.step(name, matrix_rate), self.muon.parameters))
        self.steps += 1
        return sum(losses) / self.parts


def schedule(progress: float) -> float:
    """Warm-up, plateau, then a straight line to zero; progress runs from 0 to 1."""
    return max(0.0, min(1.0, (progress + 1e-4) / WARMUP, (1 - progress) / DECAY))


@torch.no_grad()
def held_out(model: Trainee, streams: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean loss on each source's held-out stream, in nats per predicted token."""
    rng = np.random.default_rng(0)  # the same examples whenever it is asked
    losses = {}
    for name in LAST:
        examples = torch.from_numpy(model.examples(held_out_windows(streams, name), rng))
        total = sum(model(part).item() * len(part) for part in examples.split(BATCH))
        losses[name] = round(total / len(examples), 4)
    return losses


def log(run: Run, streams: dict[str, np.ndarray], average: float, work: Path) -> None:
    """Add a line of losses to the log, and export what there is."""
    entry = {"steps": run.steps, "seconds": round(run.seconds), "train": round(average, 4)}
    with (work / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry | held_out(run.model, streams)) + "\n")
    export(run.model, work.parent / TOKENIZER, work / "export")


def train(run: Run, streams: dict[str, np.ndarray], work: Path, seed: int) -> None:
    """Train to the last step; raises KeyboardInterrupt, all saved, where someone stops it."""
    asked_to_stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.append(True))
    bar = tqdm(total=STEPS, initial=run.steps, unit="step")
    saved = now = time.monotonic()
    average = math.nan
    while run.steps < STEPS and not asked_to_stop:
        progress = run.steps / STEPS
        rng = np.random.default_rng([seed, run.steps])
        examples = run.model.examples(draw(streams, shares(progress), rng), rng)
        loss = run.step(torch.from_numpy(examples), schedule(progress))
        average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
        before, now = now, time.monotonic()
        run.seconds += now - before
        bar.update()
        bar.set_postfix_str(f"loss {average:.3f}")
        if run.steps % 250 == 0 or run.steps == STEPS:
            log(run, streams, average, work)
        if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
            run.save()
            saved = now
    run.save()
    if asked_to_stop:
        raise KeyboardInterrupt


def command(about: str) -> argparse.ArgumentParser:
    """The arguments that every run has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, choices=(1, 2, 4, 8, 16))
    parser.add_argument("--work", type=Path, default=cache_directory() / "recipe")
    parser.add_argument("--out", type=Path, help="default: data/ and the base's name")
    return parser


def make(name: str, build: Callable[[], Trainee], chosen: argparse.Namespace) -> None:
    """Train the base of this name and write it; all bases share the text in the work directory."""
    torch.set_num_threads(1)  # `Run` has its own threads, and idle ones would spin beside them
    work = chosen.work / name
    work.mkdir(parents=True, exist_ok=True)
    streams = prepare(chosen.work, chosen.seed)
    torch.manual_seed(chosen.seed)
    run = Run(build(), work, chosen.threads)
    try:
        train(run, streams, work, chosen.seed)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped: the same command goes on from the last checkpoint") from None
    export(run.model, chosen.work / TOKENIZER, chosen.out or DATA / name)
