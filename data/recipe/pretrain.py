"""Make the tiny base: text, then a tokenizer, then a GPT-2 of 6 layers, then `data/tiny/`.

    python data/recipe/pretrain.py --minutes 78

needs torch beside minipt. Ctrl-C is safe: the same command goes on from the last checkpoint. The
run is a budget of time, so a slower machine sees less text; the order of the text is seeded.
"""

import argparse
import json
import math
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import corpus
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from tqdm import tqdm

from minipt.fetch import cache_directory

LAYERS, CHANNELS, HEADS, CONTEXT, VOCABULARY = 6, 192, 6, 256, 4096
BATCH, THREADS = 16, 2
END = "<|endoftext|>"
LABEL_WORDS = (
    "positive negative good bad great terrible spam ham normal advert yes no abbreviation "
    "description thing entity person human place location number"
).split()
# Each source's share of the batches: language first, then more of what the tasks look like.
EARLY = {"books": 20, "definitions": 12, "questions": 8, "chat": 13, "newsgroups": 8,
         "fortunes": 4, "reviews": 35}  # fmt: skip
LATE = {"books": 7, "definitions": 5, "questions": 13, "chat": 17, "newsgroups": 5,
        "fortunes": 3, "reviews": 50}  # fmt: skip
LAST = {**LATE, "verdicts": 35}  # about a quarter of the batches
LAST_STARTS = 0.93
WARMUP, DECAY = 0.01, 0.3
MATRIX_RATE, VECTOR_RATE = 0.02, 0.003


def train_tokenizer(texts: dict[str, list[str]], path: Path) -> Tokenizer:
    """A byte-level BPE in which every label word, with the space before it, is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = [" " + " ".join(LABEL_WORDS)] * 5000
    for name, share in LATE.items():
        characters = 0
        for text in texts[name]:
            sample.append(text)
            characters += len(text)
            if characters > share * 300_000:
                break
    tokenizer.train_from_iterator(sample, trainer)
    for word in LABEL_WORDS:
        assert len(tokenizer.encode(" " + word).ids) == 1, word
    tokenizer.save(str(path))
    return tokenizer


def pack(texts: list[str], tokenizer: Tokenizer, rng: random.Random) -> np.ndarray:
    """One stream of token ids; short documents stand behind a blank line in others' company."""
    pieces, start = [], 0
    while start < len(texts):
        count = rng.randint(1, 8) if len(texts[start]) < 300 else 1
        pieces.append("\n\n".join(texts[start : start + count]) + END)
        start += count
    encoded = (part.ids for part in tokenizer.encode_batch_fast(pieces, add_special_tokens=False))
    return np.concatenate([np.array(ids, dtype=np.uint16) for ids in encoded])


def prepare(work: Path, seed: int) -> dict[str, np.ndarray]:
    """Return the token stream of every source, and of `held-out/<source>`, made once."""
    if not (work / "tokens.safetensors").exists():
        texts = corpus.documents(seed)
        tokenizer = train_tokenizer(texts, work / "tokenizer.json")
        streams = {}
        for name, documents in texts.items():
            held_out = max(50, len(documents) // 100)
            rng = random.Random(seed)
            streams[f"held-out/{name}"] = pack(documents[:held_out], tokenizer, rng)
            streams[name] = pack(documents[held_out:], tokenizer, rng)
        tensors = {name: torch.from_numpy(ids.astype(np.int16)) for name, ids in streams.items()}
        save_file(tensors, work / "partial.safetensors")
        (work / "partial.safetensors").rename(work / "tokens.safetensors")
    tensors = load_file(work / "tokens.safetensors")
    return {name: ids.numpy() for name, ids in tensors.items()}


class Block(nn.Module):
    """One pre-LN transformer block, GPT-2's; matrices are (in, out) as in its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        shapes = {
            "attn": (CHANNELS, 3 * CHANNELS),
            "attn_proj": (CHANNELS, CHANNELS),
            "fc": (CHANNELS, 4 * CHANNELS),
            "fc_proj": (4 * CHANNELS, CHANNELS),
        }
        for name, (rows, columns) in shapes.items():
            # What a block adds to the stream starts at zero.
            spread = 0.0 if name.endswith("proj") else rows**-0.5
            setattr(self, name, nn.Parameter(torch.randn(rows, columns) * spread))
            setattr(self, f"{name}_bias", nn.Parameter(torch.zeros(columns)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, C)."""
        batch, length, _ = x.shape
        qkv = self.ln_1(x) @ self.attn + self.attn_bias  # (B, T, 3C)
        q, k, v = qkv.view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        heads = heads.transpose(1, 2).reshape(batch, length, CHANNELS)  # (B, T, C)
        x = x + heads @ self.attn_proj + self.attn_proj_bias
        hidden = F.gelu(self.ln_2(x) @ self.fc + self.fc_bias, approximate="tanh")  # (B, T, 4C)
        return x + hidden @ self.fc_proj + self.fc_proj_bias


class Model(nn.Module):
    """GPT-2 with tied output."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Parameter(torch.randn(VOCABULARY, CHANNELS) * 0.02)
        self.wpe = nn.Parameter(torch.randn(CONTEXT, CHANNELS) * 0.01)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(CHANNELS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of predicting ids[:, 1:] from ids[:, :-1]; ids: (B, T+1)."""
        x = self.wte[ids[:, :-1]] + self.wpe[: ids.shape[1] - 1]  # (B, T, C)
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.T  # (B, T, V)
        return F.cross_entropy(logits.view(-1, VOCABULARY), ids[:, 1:].reshape(-1))


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
    """Momentum, orthogonalised: one step per matrix, of the same size in every direction."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.momentum = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, name: str, rate: float) -> None:
        """Apply one matrix's gradient at this learning rate."""
        torch.set_num_threads(1)
        parameter, momentum = self.parameters[name], self.momentum[name]
        momentum.lerp_(parameter.grad, 0.05)
        update = parameter.grad.lerp(momentum, 0.95)
        # Query, key and value are three matrices that stand side by side.
        parts = update.split(CHANNELS, dim=1) if name.endswith("attn") else (update,)
        rows, columns = parts[0].shape
        update = torch.cat([orthogonalise(part) for part in parts], dim=1)
        parameter.mul_(1 - rate * 0.05)
        parameter.add_(update, alpha=-rate * max(1.0, columns / rows) ** 0.5)


def draw(streams: dict[str, np.ndarray], share: dict, seed: int, step: int) -> torch.Tensor:
    """Batch number `step`: windows at random places, each from one source; (B, T+1)."""
    rng = np.random.default_rng([seed, step])
    weights = np.array(list(share.values()), dtype=float)
    rows = []
    for name in rng.choice(list(share), size=BATCH, p=weights / weights.sum()):
        start = rng.integers(len(streams[name]) - CONTEXT)
        rows.append(streams[name][start : start + CONTEXT + 1])
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def schedule(progress: float) -> float:
    """Warm-up, plateau, then a straight line to zero; progress runs from 0 to 1."""
    return max(0.0, min(1.0, (progress + 1e-4) / WARMUP, (1 - progress) / DECAY))


def shares(progress: float) -> dict[str, float]:
    """What the batches are made of at this point of the run."""
    if progress >= LAST_STARTS:
        return LAST
    late = min(1.0, max(0.0, (progress - 0.35) / 0.3))
    return {name: (1 - late) * EARLY[name] + late * LATE[name] for name in EARLY}


@torch.no_grad()
def held_out(model: nn.Module, streams: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean loss on each source's held-out stream, in nats per token."""
    losses = {}
    for name in EARLY | LAST:
        ids = streams[f"held-out/{name}"]
        count = min(2 * BATCH, (len(ids) - 1) // CONTEXT)
        starts = np.linspace(0, len(ids) - CONTEXT - 1, count).astype(int)
        rows = np.stack([ids[start : start + CONTEXT + 1] for start in starts]).astype(np.int64)
        parts = torch.from_numpy(rows).split(BATCH)
        losses[name] = sum(model(part).item() * len(part) for part in parts) / count
    return {name: round(loss, 4) for name, loss in losses.items()}


def export(model: Model, work: Path, directory: Path) -> None:
    """Write config.json, model.safetensors (float16) and tokenizer.json as transformers does."""
    names = {
        "attn": "attn.c_attn.weight", "attn_bias": "attn.c_attn.bias",
        "attn_proj": "attn.c_proj.weight", "attn_proj_bias": "attn.c_proj.bias",
        "fc": "mlp.c_fc.weight", "fc_bias": "mlp.c_fc.bias",
        "fc_proj": "mlp.c_proj.weight", "fc_proj_bias": "mlp.c_proj.bias",
    }  # fmt: skip
    tensors = {}
    for name, value in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        name = f"{stem}.{names[last]}" if last in names else name
        name += ".weight" if name in ("wte", "wpe") else ""
        tensors[f"transformer.{name}"] = value.to(torch.float16).contiguous()
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "torch_dtype": "float16",
        "vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_ctx": CONTEXT, "n_embd": CHANNELS,
        "n_layer": LAYERS, "n_head": HEADS, "n_inner": None, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "tie_word_embeddings": True,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": True,
        "scale_attn_weights": True, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "tokenizer.json").write_bytes((work / "tokenizer.json").read_bytes())


class Run:
    """The state of a training run: model, optimizers, steps and seconds so far."""

    def __init__(self, work: Path) -> None:
        self.path = work / "checkpoint.safetensors"
        self.model = Model()
        parameters = dict(self.model.named_parameters())
        self.matrices = {n: p for n, p in parameters.items() if n.startswith("h.") and p.ndim == 2}
        self.others = {n: p for n, p in parameters.items() if n not in self.matrices}
        self.muon = Muon(self.matrices)
        self.adam = torch.optim.Adam(self.others.values(), betas=(0.9, 0.98), eps=1e-10)
        self.progress = {"steps": 0.0, "seconds": 0.0}
        self.threads = ThreadPoolExecutor(THREADS)
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        saved = load_file(self.path)
        self.model.load_state_dict({n: saved[f"model/{n}"] for n in self.model.state_dict()})
        for name in self.muon.momentum:
            self.muon.momentum[name] = saved[f"muon/{name}"]
        for name, parameter in self.others.items():
            self.adam.state[parameter] = {
                key: saved[f"adam/{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.progress = {key: saved[key].item() for key in self.progress}

    def save(self) -> None:
        """Write everything beside the old checkpoint, then replace it."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"muon/{name}": value for name, value in self.muon.momentum.items()}
        for name, parameter in self.others.items():
            state = self.adam.state[parameter]
            tensors |= {f"adam/{name}/{key}": value for key, value in state.items()}
        tensors |= {key: torch.tensor(v, dtype=torch.float64) for key, v in self.progress.items()}
        partial = self.path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(self.path)

    def _part(self, ids: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...]]:
        torch.set_num_threads(1)  # each thread has a setting of its own
        loss = self.model(ids)
        return loss.item(), torch.autograd.grad(loss, list(self.model.parameters()))

    def step(self, ids: torch.Tensor, rate: float) -> float:
        """One update; returns the loss in nats per token."""
        # A thread for each half of the batch, which meet once a step: threads inside the matrix
        # products meet at every product, and wait there whenever others use a core.
        losses, gradients = zip(*self.threads.map(self._part, ids.chunk(THREADS)), strict=True)
        for parameter, *parts in zip(self.model.parameters(), *gradients, strict=True):
            parameter.grad = sum(parts) / THREADS
        self.adam.param_groups[0]["lr"] = rate * VECTOR_RATE
        self.adam.step()
        list(self.threads.map(lambda name: self.muon.step(name, rate * MATRIX_RATE), self.matrices))
        return sum(losses) / THREADS


def log(run: Run, streams: dict[str, np.ndarray], average: float, work: Path) -> None:
    """Add a line of losses to the log, and export what there is."""
    entry = {**run.progress, "train": round(average, 4), **held_out(run.model, streams)}
    with (work / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    export(run.model, work, work / "export")


def train(work: Path, minutes: float, seed: int) -> Run:
    """Train for `minutes` in all, earlier runs of the same work directory included."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # `Run` has its own threads, and idle ones would spin beside them
    streams = prepare(work, seed)
    run = Run(work)
    asked_to_stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.append(True))
    budget = minutes * 60
    bar = tqdm(total=round(budget), initial=round(run.progress["seconds"]), unit="s")
    saved = now = time.monotonic()
    average = math.nan
    while run.progress["seconds"] < budget and not asked_to_stop:
        done = run.progress["seconds"] / budget
        ids = draw(streams, shares(done), seed, int(run.progress["steps"]))
        loss = run.step(ids, schedule(done))
        average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
        run.progress["steps"] += 1
        if run.progress["steps"] % 250 == 0:
            log(run, streams, average, work)
        before, now = now, time.monotonic()
        run.progress["seconds"] += now - before
        bar.n = round(run.progress["seconds"])
        bar.set_postfix_str(f"step {run.progress['steps']:.0f}, loss {average:.3f}")
        if now - saved > 180:
            run.save()
            saved = now
    run.save()
    if asked_to_stop:
        raise KeyboardInterrupt
    log(run, streams, average, work)
    return run


def main() -> None:
    """Read the arguments, train, export."""
    parser = argparse.ArgumentParser(description="make minipt's tiny base")
    parser.add_argument("--minutes", type=float, default=78.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=cache_directory() / "tiny-recipe")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tiny")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        run = train(arguments.work, arguments.minutes, arguments.seed)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped: the same command goes on from the last checkpoint") from None
    export(run.model, arguments.work, arguments.out)


if __name__ == "__main__":
    main()
