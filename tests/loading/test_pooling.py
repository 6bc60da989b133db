"""What an encoder's files say about the way from rows to a vector: the mean, or a refusal."""

import json
from pathlib import Path

import pytest
from helpers.bases import BERT, random_base

from minipt.errors import MiniptError
from minipt.loading.load import load_base, save_base

ENCODER = random_base(3, **BERT | {"head": None})
POOLING, PROMPTS = "1_Pooling/config.json", "config_sentence_transformers.json"
MEAN = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
MEAN |= {"pooling_mode_cls_token": False, "include_prompt": True}


def parts(*names: str) -> list[dict]:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Other": "2_Other", "Normalize": "3"}
    return [{"type": f"sentence_transformers.models.{x}", "path": paths[x]} for x in names]


@pytest.fixture
def directory(tmp_path) -> Path:
    save_base(ENCODER, tmp_path / "model")
    return tmp_path / "model"


def say(directory: Path, name: str, content: object) -> None:
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(content))


def test_the_mean_is_what_minipt_computes(directory):
    say(directory, POOLING, MEAN)
    say(directory, "modules.json", parts("Transformer", "Pooling", "Normalize"))
    say(directory, PROMPTS, {"default_prompt_name": None, "similarity_fn_name": "dot"})
    assert load_base(directory).fingerprint == ENCODER.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (POOLING, MEAN | {"pooling_mode_cls_token": True}, "pooling_mode_cls_token = True"),
        (
            POOLING,
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "pooling_mode_cls_token = True",
        ),
        (POOLING, {"pooling_mode_mean_tokens": False}, "pooling_mode_mean_tokens = False"),
        (POOLING, MEAN | {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken = True"),
        (POOLING, {"pooling_mode": "cls"}, "pooling_mode = 'cls'"),
        ("modules.json", parts("Transformer", "Pooling", "Other"), "type = .*Other'"),
        (PROMPTS, {"default_prompt_name": "query"}, "default_prompt_name = 'query'"),
        (PROMPTS, {"similarity_fn_name": "dot"}, "similarity_fn_name = 'dot'"),
    ],
)
def test_another_way_is_refused_by_its_name(directory, name, content, said):
    say(directory, name, content)
    with pytest.raises(MiniptError, match=rf"{name} says {said}, which minipt does not compute"):
        load_base(directory)


def test_the_directory_around_an_older_model_is_asked_too(directory):
    say(directory.parent, "modules.json", parts("Transformer", "Pooling"))
    say(directory.parent, POOLING, {"pooling_mode_max_tokens": True})
    assert load_base(directory).fingerprint == ENCODER.fingerprint
    directory = directory.rename(directory.with_name("0_Transformer"))
    with pytest.raises(MiniptError, match="says pooling_mode_max_tokens = True"):
        load_base(directory)


@pytest.mark.parametrize("content", [b"{half", b"{}", b"7", b"[1]", b'[{"type": 3, "path": ""}]'])
def test_parts_that_are_damaged_are_refused(directory, content):
    (directory / "modules.json").write_bytes(content)
    with pytest.raises(MiniptError, match=r"modules\.json (is not what sentence-tr|says type = )"):
        load_base(directory)


@pytest.mark.parametrize("content", ["[" * 10**6, "7", "{half"])
def test_a_config_that_is_damaged_is_refused(directory, content):
    (directory / POOLING).parent.mkdir()
    (directory / POOLING).write_text(content)
    with pytest.raises(MiniptError, match=r"Pooling/config\.json is not what sentence-transf"):
        load_base(directory)


def test_a_model_with_a_head_does_not_pool(tmp_path):
    save_base(random_base(3, **BERT), tmp_path / "model")
    say(tmp_path / "model", POOLING, {"pooling_mode_cls_token": True})
    assert load_base(tmp_path / "model").config.head == "masked"
