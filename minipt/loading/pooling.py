"""How a text becomes one vector, as the files of sentence-transformers say it.

In: an encoder's directory. Out: nothing. minipt takes the mean of all rows at length 1 (Reimers &
Gurevych 2019). Whatever else the files say is refused by its name.
"""

from pathlib import Path

from minipt.files.formats import read_json
from minipt.loading.families import not_computed

COMPLAINT, ADVICE = "is not what sentence-transformers writes", "fetch the model again"
PARTS = ("Transformer", "Pooling", "Normalize")


def check_pooling(directory: Path) -> None:
    """Raise MiniptError for a way from rows to a vector that minipt does not compute.

    The files lie beside the model or, of older models, around its directory `0_Transformer`.
    """
    place = directory.parent if directory.name.startswith("0_") else directory
    path, parts = place / "modules.json", []
    for part in read_json(path, COMPLAINT, ADVICE, []):
        said = part.get("type") if isinstance(part, dict) else part
        parts.append(str(said).rpartition(".")[2])
        if parts[-1] not in PARTS:
            raise not_computed(path, "type", said, ", ".join(PARTS))
    for path in sorted(place.glob("*_Pooling/config.json")):
        for key, value in read_json(path, COMPLAINT, ADVICE, {}).items():
            mean = "mean" if key == "pooling_mode" else key == "pooling_mode_mean_tokens"
            if key.startswith("pooling_mode") and value != mean:
                raise not_computed(path, key, value, "pooling_mode_mean_tokens alone")
    path = place / "config_sentence_transformers.json"
    said = read_json(path, COMPLAINT, ADVICE, {})
    alike = ("cosine", None, "dot") if "Normalize" in parts else ("cosine", None)
    for key, known in {"default_prompt_name": (None,), "similarity_fn_name": alike}.items():
        if said.get(key) not in known:
            raise not_computed(path, key, said[key], repr(known[0]))
