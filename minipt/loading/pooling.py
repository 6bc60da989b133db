"""How a text becomes one vector, as the files of sentence-transformers say it.

In: an encoder's directory. Out: nothing. minipt takes the mean of all rows at length 1 (Reimers &
Gurevych 2019). Whatever else the files say is refused by its name.
"""

from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.diagnose import unreadable
from minipt.files.formats import parse_json, read_json
from minipt.loading.families import not_computed

PARTS = ("Transformer", "Pooling", "Normalize")
ADVICE = "fetch the model again"


def check_pooling(directory: Path) -> None:
    """Raise MiniptError for a way from rows to a vector that minipt does not compute."""
    parts = _parts(directory)
    for path in sorted({directory / "1_Pooling" / "config.json", *parts["Pooling"]}):
        for key, value in _said(path).items():
            mean = "mean" if key == "pooling_mode" else key == "pooling_mode_mean_tokens"
            if key.startswith("pooling_mode") and value != mean:
                raise not_computed(path, key, value, "pooling_mode_mean_tokens alone")
    path = directory / "config_sentence_transformers.json"
    said = _said(path)
    if said.get("default_prompt_name") is not None:
        raise not_computed(path, "default_prompt_name", said["default_prompt_name"], "None")
    alike = ("cosine", None, "dot") if parts["Normalize"] else ("cosine", None)
    if said.get("similarity_fn_name") not in alike:
        raise not_computed(path, "similarity_fn_name", said["similarity_fn_name"], "'cosine'")


def _parts(directory: Path) -> dict[str, list[Path]]:
    """The configs of the parts that `modules.json` names, by the parts' classes."""
    path = directory / "modules.json"
    parts: dict[str, list[Path]] = {name: [] for name in PARTS}
    if not path.is_file():
        return parts
    try:
        for part in parse_json(path.read_bytes()):
            name = part["type"].rpartition(".")[2]
            if name not in PARTS:
                raise not_computed(path, "type", part["type"], ", ".join(PARTS))
            parts[name].append(directory / part["path"] / "config.json")
    except MiniptError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise unreadable(path, "is no list of a model's parts", error, ADVICE) from error
    return parts


def _said(path: Path) -> dict:
    try:
        return read_json(path, "is not a JSON object", ADVICE)
    except FileNotFoundError:
        return {}
