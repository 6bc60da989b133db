"""Make the reference states beside this file: random models, and what transformers computes.

    python tests/reference/make.py

Needs the `parity` extra. Each folder holds a model in Hugging Face's format and
`state.safetensors`: a batch, a prompt, the loss, and every intermediate with its gradient in
float64, named as `comparison.py` says. `tests/test_reference.py` holds minipt to them without any
framework.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from helpers.bases import random_batch  # noqa: E402
from helpers.recorder import random_bert, random_gpt2, random_llama, record  # noqa: E402

import minipt  # noqa: E402

# For each state: its model, the texts, the prompt's length.
STATES = {
    "smallest": (
        random_gpt2,
        {"seed": 1, "layers": 1, "channels": 4, "heads": 1},
        {"texts": 1, "tokens": 1, "seed": 1},
        1,
    ),
    "ragged": (
        random_gpt2,
        {"seed": 2, "layers": 2, "channels": 8, "heads": 2},
        {"texts": 3, "tokens": 5, "seed": 2},
        3,
    ),
    "choices": (
        random_gpt2,
        {"seed": 3, "layers": 3, "channels": 12, "heads": 3, "n_inner": 20},
        {"texts": 2, "tokens": 4, "seed": 4, "choices": 3, "middle": True},
        2,
    ),
    "llama": (
        random_llama,
        {"seed": 4, "layers": 2, "channels": 16, "heads": 4, "num_key_value_heads": 2}
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        {"texts": 2, "tokens": 4, "seed": 5},
        2,
    ),
    "bert": (
        random_bert,
        {"seed": 5, "layers": 2, "channels": 8, "heads": 2},
        {"texts": 3, "tokens": 5, "seed": 6, "choices": 3, "middle": True},
        2,
    ),
    "encoder": (
        random_bert,
        {"seed": 6, "layers": 2, "channels": 8, "heads": 2, "head": False},
        {"texts": 3, "tokens": 5, "seed": 7, "choices": 3},
        2,
    ),
}


def make(name: str) -> int:
    """Write one state and return its size in bytes."""
    random_model, sizes, texts, length = STATES[name]
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    model = random_model(**sizes)
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    base = minipt.load_base(directory)
    batch = random_batch(base, **texts)
    vectors = np.random.default_rng(length).standard_normal((length, base.config.channels))
    record(model.double(), batch, vectors).save(directory / "state.safetensors")
    return sum(path.stat().st_size for path in directory.iterdir())


if __name__ == "__main__":
    for name in STATES:
        print(f"{name}: {make(name) / 1000:.0f} kB")
