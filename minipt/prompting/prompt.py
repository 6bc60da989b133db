"""The soft prompt: P trainable vectors in front of the text.

In: arrays, or a file. Out: a `SoftPrompt`, the only thing that training changes. Lester, Al-Rfou
and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.files.versions import versions
from minipt.prompting.peft_adapter import read_adapter, write_adapter
from minipt.prompting.prompt_file import Arrays, read_prompt, write_prompt
from minipt.transformer.base import Base


@dataclass
class SoftPrompt:
    """P vectors of a base's channels, and what one must know to use them.

    vectors (P, C), may be written to; fingerprint and base_name of the base they were made for;
    about: facts for JSON (method, seed, text; after tuning also task, labels, label_words,
    template, history, versions; adapter: where `to_peft` shall differ from its defaults);
    head (K, C): the vectors that the answer is compared with, if they were trained too.
    Raises MiniptError for vectors that are no array (P, C) of floating-point numbers.
    """

    vectors: np.ndarray
    fingerprint: str
    base_name: str
    about: dict = field(default_factory=dict)
    head: np.ndarray | None = None

    def __post_init__(self) -> None:
        array = self.vectors if isinstance(self.vectors, np.ndarray) else np.empty(0)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise MiniptError(
                "a prompt's vectors are an array (P, C) of floating-point numbers, not "
                f"{self.vectors!r:.60}: use numpy.array(rows, numpy.float32)"
            )

    def arrays(self) -> Arrays:
        """Copies of all that is trained: "prompt" (P, C) and, if there is one, "head" (K, C)."""
        head = {} if self.head is None else {"head": self.head.copy()}
        return {"prompt": self.vectors.copy()} | head

    def with_arrays(self, arrays: Arrays) -> "SoftPrompt":
        """The same prompt around other arrays, which are not copied."""
        about = dict(self.about)
        return replace(self, vectors=arrays["prompt"], head=arrays.get("head"), about=about)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the arrays, and the rest as JSON.

        Raises MiniptError when the vectors are not finite or the file cannot be written.
        """
        write_prompt(path, self.arrays(), self._record())

    def to_peft(self, directory: str | Path, base_name: str | None = None) -> None:
        """Write the adapter that Hugging Face's PEFT 0.21 reads, complete or not at all.

        base_name: the name that PEFT shall use for the model, such as a hub id (default: the base's
        own name, or the name in the adapter that the prompt was read from). PEFT computes what
        minipt does if texts are padded on the right: it too counts positions from the first vector.
        Raises MiniptError when the vectors are not finite, for a prompt with a head of its own, and
        when the directory is not empty or cannot be written.
        """
        write_adapter(directory, self.arrays(), self._record(), base_name)

    def _record(self) -> dict:
        """All but the arrays, for JSON."""
        about = self.about | {"versions": versions()}
        return {"fingerprint": self.fingerprint, "base_name": self.base_name, "about": about}


def load_prompt(path: str | Path, base: Base) -> SoftPrompt:
    """Read what `SoftPrompt.save` wrote, or the `prompt.safetensors` of a run's directory.

    Raises MiniptError for a file that is missing, truncated, not a prompt, holds numbers that are
    not finite, or was made for another base.
    """
    arrays, record = read_prompt(path, base)
    return SoftPrompt(arrays["prompt"], **record, head=arrays.get("head"))


def from_peft(directory: str | Path, base: Base) -> SoftPrompt:
    """Read a prompt-tuning adapter of PEFT, or of `SoftPrompt.to_peft`, as a prompt for `base`.

    PEFT keeps no fingerprint of the model, so only the sizes and the use that its config names can
    be checked. A line on standard error says when it names another model. An adapter of `to_peft`
    has the base's fingerprint and the prompt's `about`. One of PEFT's own gets {"method": "peft",
    "adapter": its config}, and `to_peft` writes that again.

    Raises MiniptError for files that are missing, damaged or no adapter, for adapters of other
    kinds, uses and models, for tensors beside the vectors, another base or width, a length that the
    config does not name or that leaves no room, and numbers that are not finite in float32.
    """
    vectors, about = read_adapter(directory, base)
    return SoftPrompt(vectors, base.fingerprint, base.name, about)
