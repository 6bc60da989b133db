"""Small random bases, prompts and batches for the tests, made without any framework."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.verbalizer import MASK
from minipt.tasks.task import Split, Task
from minipt.transformer.base import Base, Config, parameter_shapes

SENTENCES = (
    "the film was good and the people in it were kind",
    "the film was bad and the people in it were cruel",
    "a good day, a bad night, a long and happy life",
    "good words are kind words, bad words are cruel words",
)
SUBJECTS = ("film", "day", "night", "life", "word", "people", "end", "song")

LLAMA = {
    "norm": "rms",
    "positions": "rotary",
    "activation": "silu",
    "gated": True,
    "attention_bias": False,
    "mlp_bias": False,
}
BERT = {
    "norm_first": False,
    "activation": "gelu",
    "causal": False,
    "segments": 2,
    "head": "masked",
}
FAMILIES = {
    "gpt2": {},
    "llama": LLAMA | {"key_value_heads": 1, "tied": False},
    "llama-with-biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "bert": BERT,
    "encoder": BERT | {"head": None},
}


def random_base(
    seed: int,
    layers: int = 2,
    channels: int = 8,
    heads: int = 2,
    vocabulary: int = 17,
    context: int = 16,
    tokenizer: Tokenizer | None = None,
    **fields: object,
) -> Base:
    """Every gain, bias and weight is random, so that none of them can be left out unnoticed.

    fields: those of `Config` that differ from GPT-2's, such as **LLAMA or **BERT.
    """
    config = Config(layers, channels, heads, 3 * channels, vocabulary, context, 1e-5, **fields)
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in parameter_shapes(config).items():
        spread = shape[0] ** -0.5 if name.endswith("weight") else 0.3
        centre = 1.0 if name.endswith("gain") else 0.0
        spread = 1.0 if name.endswith("table") else spread
        params[name] = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
    return Base(f"random-{seed}", config, params, tokenizer)


def random_prompt(base: Base, length: int, seed: int = 0) -> SoftPrompt:
    """Vectors in the base's own float type."""
    dtype = base.params["token.table"].dtype
    vectors = np.random.default_rng(seed).standard_normal((length, base.config.channels))
    return SoftPrompt(vectors.astype(dtype), base.fingerprint, base.name)


def random_batch(
    base: Base, texts: int, tokens: int, seed: int = 0, choices: int = 0, middle: bool = False
) -> Batch:
    """Ragged texts whose padding is random ids; `middle`: the answer is read somewhere inside."""
    rng = np.random.default_rng(seed)
    V = base.config.vocabulary
    ids = rng.integers(0, V, (texts, tokens))
    lengths = rng.integers(1, tokens + 1, texts)
    lengths[0] = tokens
    targets = rng.integers(0, choices or V, texts)
    words = rng.choice(V, choices, replace=False) if choices else None
    if base.config.head is None:  # it compares with vectors (K, C)
        words = rng.standard_normal((choices, base.config.channels)).astype(np.float32)
    return Batch(ids, lengths, targets, words, rng.integers(0, lengths) if middle else None)


def small_tokenizer() -> Tokenizer:
    """A byte-level BPE, as GPT-2's: about 290 tokens, of which " good" and " bad" are two."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, " good bad" * 9], trainer)
    return tokenizer


def base_with_tokenizer(seed: int = 0, context: int = 32) -> Base:
    tokenizer = small_tokenizer()
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return random_base(seed, vocabulary=size, context=context, tokenizer=tokenizer)


def base_that_reads(family: str, **sizes: int) -> Base:
    """One of the `FAMILIES`, with a tokenizer that has BERT's mask and, for a BERT, its ends."""
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens([MASK, "[CLS]", "[SEP]"])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    fields = {"context": 40} | FAMILIES[family] | sizes
    if not fields.get("causal", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=ends
        )
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return random_base(3, vocabulary=size, tokenizer=tokenizer, **fields)


def small_task() -> Task:
    """Thirty-two texts, of which one word gives the class away; a quarter each to look at."""
    texts = [f"the {s} was {w}" for s in SUBJECTS for w in ("good", "kind", "bad", "cruel")]
    labels = np.array([0, 0, 1, 1] * len(SUBJECTS))
    split = {"train": slice(0, 16), "validation": slice(16, 24), "test": slice(24, 32)}
    parts = {name: Split(texts[part], labels[part]) for name, part in split.items()}
    return Task("words", ("good", "bad"), (" good", " bad"), "{text}\n:", **parts, source="here")


def write_texts(path: Path) -> None:
    """Sixty texts of two classes as a CSV file."""
    words = {"good": ("good", "kind", "happy"), "bad": ("bad", "cruel", "long")}
    rows = [
        f"the {subject} was {word},{label}"
        for subject in (*SUBJECTS, "sea", "house")
        for label, each in words.items()
        for word in each
    ]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
