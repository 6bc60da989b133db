"""From documents to batches: the tokenizer, a stream of token ids for each source, what is drawn.

Comes in: the documents of `corpus.py` and a work directory. Goes out: the streams, made once for
all bases, and from them the windows of any step of the run. The story continues in `training.py`.
"""

import random
from pathlib import Path

import corpus
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT, VOCABULARY, BATCH = 256, 4096, 16
TOKENIZER = "tokenizer.json"
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
        tokenizer = train_tokenizer(texts, work / TOKENIZER)
        streams = {}
        for name, documents in texts.items():
            held_out = max(50, len(documents) // 100)
            rng = random.Random(seed)
            streams[f"held-out/{name}"] = pack(documents[:held_out], tokenizer, rng)
            streams[name] = pack(documents[held_out:], tokenizer, rng)
        save_file(streams, work / "partial.safetensors")
        (work / "partial.safetensors").rename(work / "tokens.safetensors")
    return load_file(work / "tokens.safetensors")


def shares(progress: float) -> dict[str, float]:
    """What the batches are made of at this point of the run."""
    if progress >= LAST_STARTS:
        return LAST
    late = min(1.0, max(0.0, (progress - 0.35) / 0.3))
    return {name: (1 - late) * EARLY[name] + late * LATE[name] for name in EARLY}


def draw(
    streams: dict[str, np.ndarray], share: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """A batch of windows at random places, each from one source. (B, T+1)"""
    weights = np.array(list(share.values()))
    rows = []
    for name in rng.choice(list(share), size=BATCH, p=weights / weights.sum()):
        start = rng.integers(len(streams[name]) - CONTEXT)
        rows.append(streams[name][start : start + CONTEXT + 1])
    return np.stack(rows).astype(np.int64)


def held_out_windows(streams: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Windows at even distances from a source's held-out stream. (N, T+1)"""
    ids = streams[f"held-out/{name}"]
    count = min(2 * BATCH, (len(ids) - 1) // CONTEXT)
    starts = np.linspace(0, len(ids) - CONTEXT - 1, count).astype(int)
    return np.stack([ids[start : start + CONTEXT + 1] for start in starts]).astype(np.int64)
