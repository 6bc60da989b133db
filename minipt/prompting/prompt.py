"""The soft prompt: P trainable vectors in front of the text, their start and their file.

In: a frozen `Base` and a way to begin. Out: a `SoftPrompt`, the only thing that training changes.
Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
section 2. The story continues in `readout.py`, which makes an answer of hidden states, and in
`wiring.py`, which puts the vectors in front of a text.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory, read_tensors, write_tensors
from minipt.prompting.text import tokens
from minipt.transformer.base import Base

# Lester et al. draw uniform starts from [-0.5, 0.5] and vocabulary starts from the 5,000 most
# common tokens (section 3.2).
UNIFORM_RANGE = 0.5
FREQUENT_TOKENS = 5000
METHODS = ("uniform", "vocab", "labels", "text")
# What PEFT 0.21 writes about a prompt. None: it has nothing to say, or takes it from the model.
ADAPTER = {
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
    "modules_to_save": None,
    "num_attention_heads": None,
    "num_layers": None,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": None,
    "peft_type": "PROMPT_TUNING",
    "peft_version": "0.21.2",
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "revision": None,
    "task_type": "CAUSAL_LM",
    "token_dim": None,
    "tokenizer_kwargs": None,
    "tokenizer_name_or_path": None,
}


@dataclass
class SoftPrompt:
    """P vectors of a base's channels, and what one must know to use them.

    vectors (P, C), may be written to; fingerprint and base_name of the base they were made for;
    about: what can be said in JSON (method, seed, text, and after tuning task, labels, label_words,
    template, history, versions; adapter: what `to_peft` is to write otherwise than as usual);
    head (K, C): what the answer is compared with, where it was trained beside the prompt.
    """

    vectors: np.ndarray
    fingerprint: str
    base_name: str
    about: dict = field(default_factory=dict)
    head: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of all that is trained: "prompt" (P, C) and, if there is one, "head" (K, C)."""
        head = {} if self.head is None else {"head": self.head.copy()}
        return {"prompt": self.vectors.copy()} | head

    def with_arrays(self, arrays: dict[str, np.ndarray]) -> "SoftPrompt":
        """The same prompt around other arrays, which are not copied."""
        about = dict(self.about)
        return replace(self, vectors=arrays["prompt"], head=arrays.get("head"), about=about)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the tensor `prompt` (P, C), a head's, the rest as JSON.

        Raises MiniptError when the vectors are not finite or the file cannot be written.
        """
        self._refuse_infinite(path)
        write_tensors(path, self.arrays(), self._record())

    def to_peft(self, directory: str | Path, base_name: str | None = None) -> None:
        """Write the adapter that Hugging Face's PEFT 0.21 reads, complete or not at all.

        `adapter_config.json` and `adapter_model.safetensors`, one tensor `prompt_embeddings` (P, C)
        float32, are as PEFT writes them, except that the numbers of layers and heads, which a
        prompt does not know, are null: PEFT takes them from the model. Beside them `minipt.json`
        holds what PEFT has no place for (template, labels, history); `minipt.from_peft` reads it,
        PEFT neither reads it nor writes it again.

        base_name: what PEFT is to call the model, such as a hub id (default: the base's own name,
        or what the adapter called it that the prompt was read from). PEFT computes what minipt
        does if texts are padded on the right: it too counts positions from the first vector.
        Raises MiniptError when the vectors are not finite, for a prompt with a head of its own, and
        when the directory exists or cannot be written.
        """
        self._refuse_infinite(directory)
        if self.head is not None:
            raise MiniptError(
                "the prompt was tuned with a head of its own, for which PEFT's adapters have no "
                f"place, so {directory} was not written: tune without the head"
            )
        vectors = np.ascontiguousarray(self.vectors, np.float32)  # (P, C)
        tensors = save({"prompt_embeddings": vectors}, {"format": "pt"})
        adapter = ADAPTER | {"base_model_name_or_path": self.base_name}
        adapter |= self.about.get("adapter", {})
        adapter |= {"num_virtual_tokens": vectors.shape[0], "token_dim": vectors.shape[1]}
        adapter |= {"base_model_name_or_path": base_name} if base_name else {}
        record = self._record() | {"adapter_model_sha256": hashlib.sha256(tensors).hexdigest()}
        with complete_directory(directory) as partial:
            (partial / "adapter_model.safetensors").write_bytes(tensors)
            described = json.dumps(adapter, indent=2, sort_keys=True)
            (partial / "adapter_config.json").write_text(described, encoding="utf-8")
            (partial / "minipt.json").write_text(json.dumps(record), encoding="utf-8")

    def _record(self) -> dict:
        """All but the vectors, for JSON."""
        return {
            "fingerprint": self.fingerprint,
            "base_name": self.base_name,
            "about": self.about | {"versions": versions()},
        }

    def _refuse_infinite(self, path: str | Path) -> None:
        if not all(np.isfinite(array).all() for array in self.arrays().values()):
            raise MiniptError(
                f"the prompt holds NaN or infinite numbers, so {path} was not written"
            )


def load_prompt(path: str | Path, base: Base) -> SoftPrompt:
    """Read what `SoftPrompt.save` wrote, or the `prompt.safetensors` of a run's directory.

    Raises MiniptError for a file that is missing, truncated, not a prompt, holds numbers that are
    not finite, or was made for another base.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "prompt.safetensors"
    tensors, record = read_tensors(path, "prompt", "give a run's directory or its file")
    try:
        vectors, about = tensors["prompt"], record["about"]
        fingerprint, base_name = record["fingerprint"], record["base_name"]
    except KeyError as error:
        raise MiniptError(f"{path} is no prompt that minipt saved: it lacks {error}") from None
    if not (isinstance(fingerprint, str) and isinstance(base_name, str)):
        raise MiniptError(f"{path} is no prompt that minipt saved: make the prompt again")
    check_about(path, about)
    check_fits(path, vectors, fingerprint, base_name, base)
    head = tensors.get("head")
    if head is not None:
        C = base.config.channels
        K = len(about["labels"]) if "labels" in about else head.size // C
        if head.shape != (K, C):
            raise MiniptError(f"{path} holds a head of shape {head.shape}: make the prompt again")
        _check_numbers(path, head)
    return SoftPrompt(vectors, fingerprint, base_name, about, head)


def check_about(path: Path, about: object) -> None:
    """Raise MiniptError if what a file says about its prompt is not what its readers rely on.

    A prompt that was tuned for a task knows its labels, a word for each, and a template.
    """
    kinds = {"task": str, "template": str, "labels": list, "adapter": dict}
    sound = isinstance(about, dict) and all(
        isinstance(about[name], kind) for name, kind in kinds.items() if name in about
    )
    if sound and "labels" in about:
        labels, words = about["labels"], about.get("label_words")
        sound = "template" in about and isinstance(words, list) and len(words) == len(labels)
        sound = sound and all(isinstance(word, str) for word in labels + words)
    if not sound:
        raise MiniptError(f"{path} is no prompt that minipt saved: make the prompt again")


def _check_numbers(path: Path, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise MiniptError(f"{path} holds numbers of the type {array.dtype}: make the prompt again")
    if not np.isfinite(array).all():
        raise MiniptError(f"{path} holds NaN or infinite numbers: make the prompt again")


def check_fits(
    path: Path, vectors: np.ndarray, fingerprint: str, base_name: str, base: Base
) -> None:
    """Raise MiniptError if what was read from a file is no prompt (P, C) for this base.

    fingerprint and base_name: of the base that the file says it was made for.
    """
    if fingerprint != base.fingerprint:
        raise MiniptError(
            f"{path} was made for base {base_name!r} ({fingerprint[:12]}), not for base "
            f"{base.name!r} ({base.fingerprint[:12]}): a prompt works only on its own base"
        )
    if vectors.ndim != 2 or vectors.shape[1] != base.config.channels or not len(vectors):
        raise MiniptError(
            f"{path} holds an array of shape {vectors.shape}, not (P, {base.config.channels}) "
            f"as base {base.name!r} needs"
        )
    if len(vectors) >= base.config.context:
        raise MiniptError(f"{path} holds {len(vectors)} vectors and leaves no room for a text")
    _check_numbers(path, vectors)


def init_prompt(
    base: Base,
    length: int = 20,
    method: str = "vocab",
    seed: int = 0,
    text: str | None = None,
    label_words: Sequence[str] | None = None,
) -> SoftPrompt:
    """A prompt of `length` vectors to begin with (Lester et al. 2021, section 3.2).

    method "uniform": numbers from [-0.5, 0.5]; "vocab": the embeddings of tokens drawn from the
    most frequent; "labels": one vector for each of `label_words`, the mean of its tokens'
    embeddings, then as "vocab"; "text", which is PEFT's: the embeddings of the tokens of `text`,
    repeated or cut to the length. The same seed gives the same bits.

    Raises MiniptError for a length that leaves no room for text, an unknown method, and for a
    missing text or missing label words where the method needs them.
    """
    if not 1 <= length < base.config.context:
        raise MiniptError(
            f"a prompt for base {base.name!r} has 1 to {base.config.context - 1} vectors, "
            f"not {length}"
        )
    if method not in METHODS:
        raise MiniptError(f"unknown start {method!r}: choose one of {', '.join(METHODS)}")
    rng = np.random.default_rng(seed)
    table = base.params["token.table"]  # (V, C)
    if method == "uniform":
        vectors = rng.uniform(-UNIFORM_RANGE, UNIFORM_RANGE, (length, base.config.channels))
    elif method == "vocab":
        vectors = table[_draw_frequent(base, length, rng)]
    elif method == "labels":
        words = _label_vectors(base, label_words, length)  # (K, C)
        vectors = np.concatenate([words, table[_draw_frequent(base, length - len(words), rng)]])
    else:
        if not text:
            raise MiniptError('the start "text" needs a text')
        vectors = table[np.resize(tokens(base, text), length)]
    about = {"method": method, "seed": int(seed)} | ({"text": text} if method == "text" else {})
    if not base.config.causal:  # PEFT's only kind that puts a prompt in front of an encoder
        about["adapter"] = {"task_type": "FEATURE_EXTRACTION"}
    return SoftPrompt(vectors.astype(table.dtype), base.fingerprint, base.name, about)


def word_ids(base: Base) -> np.ndarray:
    """The tokens that texts are made of. (W,)

    Special tokens and BERT's places for future ones are left out.
    """
    left_out = set()
    if base.tokenizer:
        left_out = set(base.tokenizer.get_added_tokens_decoder())
        vocabulary = base.tokenizer.get_vocab(with_added_tokens=False)
        left_out |= {i for token, i in vocabulary.items() if token.startswith("[unused")}
    return np.array([i for i in range(base.config.vocabulary) if i not in left_out])


def frequent_ids(base: Base) -> np.ndarray:
    """Those of `word_ids` that stand in front.

    Behind its single characters or bytes, a vocabulary's ids are in the order in which they were
    made, the more frequent first, so that low ids are characters and frequent words or parts of
    them; a vocabulary of fewer than 5,000 counts as frequent as a whole.
    """
    words = word_ids(base)
    return words[words < FREQUENT_TOKENS]


def _draw_frequent(base: Base, count: int, rng: np.random.Generator) -> np.ndarray:
    """Token ids without repetition, as far as there are enough. (count,)"""
    frequent = frequent_ids(base)
    return rng.choice(frequent, count, replace=count > len(frequent))


def _label_vectors(base: Base, label_words: Sequence[str] | None, length: int) -> np.ndarray:
    if not label_words:
        raise MiniptError('the start "labels" needs label words')
    table = base.params["token.table"]
    return np.stack([table[tokens(base, word)].mean(0) for word in label_words[:length]])  # (K, C)


def versions() -> dict[str, str]:
    """What made a file: the versions of minipt, NumPy and Python."""
    return {
        "minipt": version("minipt"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
