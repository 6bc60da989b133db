"""A prompt's file: complete or absent, and for its own base only."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer
from helpers.damage import write_parts
from safetensors import safe_open
from safetensors.numpy import save_file

from minipt.errors import MiniptError
from minipt.prompting.prompt import SoftPrompt, from_peft, load_prompt
from minipt.prompting.starts import init_prompt
from minipt.results.store import find_base


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture
def saved(base, tmp_path) -> Path:
    path = tmp_path / "prompt.safetensors"
    init_prompt(base, 4).save(path)
    return path


def test_what_is_saved_is_what_is_loaded(base, tmp_path):
    prompt = init_prompt(base, 4, "uniform", seed=2)
    prompt.about |= {"task": "toy", "label_words": {"good": " good"}, "history": [{"loss": 0.5}]}
    prompt.save(tmp_path / "p.safetensors")
    loaded = load_prompt(tmp_path / "p.safetensors", base)
    assert loaded.vectors.tobytes() == prompt.vectors.tobytes()
    assert loaded.vectors.dtype == prompt.vectors.dtype
    assert (loaded.fingerprint, loaded.base_name) == (prompt.fingerprint, prompt.base_name)
    assert {key: loaded.about[key] for key in prompt.about} == prompt.about
    assert {"minipt", "numpy", "python"} <= loaded.about["versions"].keys()


def test_the_file_is_safetensors_with_plain_metadata(saved, base):
    with safe_open(saved, framework="numpy") as file:
        assert list(file.keys()) == ["prompt"]
        record = json.loads(file.metadata()["minipt"])
    assert record["fingerprint"] == base.fingerprint
    assert record["about"]["method"] == "vocab"


def test_saving_again_gives_the_same_bytes(saved, base, tmp_path):
    load_prompt(saved, base).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_a_loaded_prompt_may_be_written_to(saved, base):
    prompt = load_prompt(saved, base)
    prompt.vectors += 1.0
    np.testing.assert_array_equal(prompt.vectors, load_prompt(saved, base).vectors + 1.0)


def test_a_prompt_is_found_in_its_runs_directory(saved, base):
    assert load_prompt(saved.parent, base).vectors.shape == (4, 8)
    assert load_prompt(str(saved.parent), base).vectors.shape == (4, 8)


def test_a_missing_prompt_is_refused(base, tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(MiniptError, match="there is no prompt at"):
            load_prompt(path, base)


def test_a_prompt_for_another_base_is_refused_by_name(saved):
    other = base_with_tokenizer(seed=1)
    with pytest.raises(MiniptError, match=r"made for base 'random-0' .* not for base 'random-1'"):
        load_prompt(saved, other)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_prompt_is_refused(saved, base, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(MiniptError, match="is no prompt, or is truncated"):
        load_prompt(saved, base)


@pytest.mark.parametrize(
    "junk",
    [b"not a prompt at all", b"\xff" * 300, b"{}", b"\0" * 100],
    ids=["words", "ones", "json", "zeros"],
)
def test_junk_is_refused(saved, base, junk):
    saved.write_bytes(junk)
    with pytest.raises(MiniptError, match="is no prompt, or is truncated"):
        load_prompt(saved, base)


def rewrite(path: Path, tensors: dict | None = None, **metadata: str) -> None:
    with safe_open(path, framework="numpy") as file:
        tensors = tensors or {"prompt": file.get_tensor("prompt")}
        record = json.loads(file.metadata()["minipt"])
    record.pop("sha256", None)  # as a file from before
    save_file(tensors, path, {"minipt": json.dumps(record)} | metadata)


def test_a_prompt_that_has_changed_is_refused(saved, base):
    """One bit of the numbers, or one letter of the record."""
    whole = saved.read_bytes()
    for place in (len(whole) - 2, whole.index(b"vocab")):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(MiniptError, match=r"has changed since minipt wrote it \(its sha256"):
            load_prompt(saved, base)
    saved.write_bytes(whole)
    rewrite(saved)
    assert load_prompt(saved, base).about["method"] == "vocab"


def test_a_safetensors_file_of_something_else_is_refused(saved, base):
    for tensors, metadata in (
        ({"weights": np.zeros((4, 8), np.float32)}, None),
        ({"prompt": np.zeros((4, 8), np.float32)}, None),
        (
            {"prompt": np.zeros((4, 8), np.float32)},
            {"minipt": json.dumps({"fingerprint": base.fingerprint})},
        ),
    ):
        save_file(tensors, saved, metadata)
        with pytest.raises(MiniptError, match="is no prompt that minipt saved"):
            load_prompt(saved, base)


def test_metadata_that_is_no_json_is_refused(saved, base):
    rewrite(saved, minipt="{half")
    with pytest.raises(MiniptError, match="is no prompt that minipt saved"):
        load_prompt(saved, base)


@pytest.mark.parametrize(
    "record",
    ["null", "[]", "3", '"x"', "[" * 100_000, '{"about": 1, "base_name": "", "fingerprint": ""}'],
)
def test_metadata_of_another_kind_is_refused(saved, base, record):
    rewrite(saved, minipt=record)
    with pytest.raises(MiniptError, match="is no prompt that minipt saved"):
        load_prompt(saved, base)


TUNED = {"labels": ["a", "b"], "label_words": [" a", " b"], "template": "{text}:", "task": "toy"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": "ab"},
        {"labels": None},
        {"labels": [1, 2]},
        {"labels": ["a"]},
        {"label_words": None},
        {"label_words": [" a"]},
        {"template": 5},
        {"template": None},
        {"task": 5},
        {"adapter": []},
    ],
)
def test_a_prompt_that_knows_its_task_by_halves_is_refused(saved, base, wrong):
    def write(about: dict) -> None:
        record = {"fingerprint": base.fingerprint, "base_name": base.name, "about": about}
        rewrite(saved, minipt=json.dumps(record))

    write(TUNED)
    assert load_prompt(saved, base).about == TUNED
    write(TUNED | wrong)
    with pytest.raises(MiniptError, match="is no prompt that minipt saved: make the prompt again"):
        load_prompt(saved, base)
    write({name: value for name, value in TUNED.items() if name not in wrong} | {"labels": ["a"]})
    with pytest.raises(MiniptError, match="is no prompt that minipt saved"):
        load_prompt(saved, base)


@pytest.mark.parametrize("shape", [(), (8,), (1, 8), (3, 8), (2, 7)])
def test_a_head_that_does_not_fit_is_refused(saved, base, shape):
    tensors = {"prompt": np.zeros((4, 8), np.float32), "head": np.zeros(shape, np.float32)}
    record = {"fingerprint": base.fingerprint, "base_name": base.name, "about": TUNED}
    rewrite(saved, tensors, minipt=json.dumps(record))
    with pytest.raises(MiniptError, match="holds a head of shape"):
        load_prompt(saved, base)


def test_numbers_that_are_no_floats_are_refused(saved, base):
    rewrite(saved, {"prompt": np.zeros((4, 8), np.int32)})
    with pytest.raises(MiniptError, match="holds numbers of the type int32"):
        load_prompt(saved, base)


@pytest.mark.parametrize("bad", [1e300, -3.5e38, np.nan])
def test_numbers_beyond_float32_are_refused_when_loaded(saved, base, bad):
    rewrite(saved, {"prompt": np.full((4, 8), bad)})
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers in float32"):
        load_prompt(saved, base)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_bfloat16_is_read_and_smaller_numbers_are_refused(saved, base, kind):
    with safe_open(saved, framework="numpy") as file:
        vectors, metadata = file.get_tensor("prompt"), file.metadata()
    half = (vectors.view(np.uint32) >> 16).astype("<u2").tobytes()
    data = half if kind == "BF16" else bytes(vectors.size)
    write_parts(saved, {"prompt": (kind, vectors.shape, data)}, metadata)
    if kind == "BF16":
        upper = (vectors.view(np.uint32) >> 16 << 16).view(np.float32)
        np.testing.assert_array_equal(load_prompt(saved, base).vectors, upper)
    else:
        with pytest.raises(MiniptError, match=f"prompt is of type {kind}, minipt reads F16, BF16"):
            load_prompt(saved, base)


def test_a_head_that_is_not_finite_is_refused(saved, base):
    head = np.full((2, 8), np.nan, np.float32)
    rewrite(saved, {"prompt": np.zeros((4, 8), np.float32), "head": head})
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        load_prompt(saved, base)


@pytest.mark.parametrize("shape", [(4, 7), (8,), (0, 8), (1, 4, 8)])
def test_vectors_of_another_shape_are_refused(saved, base, shape):
    rewrite(saved, {"prompt": np.zeros(shape, np.float32)})
    with pytest.raises(MiniptError, match=r"holds an array of shape .* not \(P, 8\)"):
        load_prompt(saved, base)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_at_both_ends(saved, base, bad, tmp_path):
    vectors = np.zeros((4, 8), np.float32)
    vectors[2, 3] = bad
    rewrite(saved, {"prompt": vectors})
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        load_prompt(saved, base)
    path = tmp_path / "new.safetensors"
    with pytest.raises(MiniptError, match="was not written"):
        SoftPrompt(vectors, base.fingerprint, base.name).save(path)
    assert not path.exists()


def test_a_save_that_fails_leaves_what_was_there_and_nothing_else(saved, base, monkeypatch):
    before = saved.read_bytes()

    def disk_full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(MiniptError, match="the disk is full"):
        init_prompt(base, 4, "uniform").save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_place_that_cannot_be_written_is_a_sentence(saved, base):
    with pytest.raises(MiniptError, match="cannot be written"):
        init_prompt(base, 4).save(saved / "inside-a-file.safetensors")
    with pytest.raises(MiniptError, match="cannot be written"):
        init_prompt(base, 4).save(saved.parent)
    with pytest.raises(MiniptError, match="names no file"):
        init_prompt(base, 4).save("")


@pytest.mark.parametrize(
    "vectors",
    ["x", {1.0}, [[1.0]], np.ones(8, np.float32), np.ones((2, 8), int), np.array([["a"]])],
)
def test_a_prompts_vectors_are_an_array(base, vectors):
    with pytest.raises(MiniptError, match=r"vectors are an array \(P, C\) of floating-point"):
        SoftPrompt(vectors, base.fingerprint, base.name)


@pytest.mark.parametrize("read", [find_base, lambda path: load_prompt(path, base_with_tokenizer())])
def test_a_name_that_is_too_long_for_the_system_is_a_sentence(read):
    with pytest.raises(MiniptError, match="there is no prompt at aaa"):
        read("a" * 300)


def test_what_lies_beside_a_prompt_that_is_missing_is_no_model_to_name(base, tmp_path):
    for name in ("mine.gguf", "other.safetensors", "config.json"):
        (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / "mien.safetensors"):
        with pytest.raises(MiniptError, match=r"no prompt at .*: give a run's directory or its"):
            load_prompt(path, base)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "f8", "f2", np.longdouble])
def test_numbers_of_any_type_are_written_as_float32(base, tmp_path, dtype):
    known = init_prompt(base, 4)
    prompt = known.with_arrays({"prompt": np.asfortranarray(known.vectors.astype(dtype))})
    prompt.save(tmp_path / "p.safetensors")
    prompt.to_peft(tmp_path / "adapter")
    expected = prompt.vectors.astype(np.float32)
    for read in (
        load_prompt(tmp_path / "p.safetensors", base),
        from_peft(tmp_path / "adapter", base),
    ):
        assert read.vectors.dtype == np.float32
        assert np.array_equal(read.vectors, expected)


def test_numbers_beyond_float32_are_not_written(base, tmp_path):
    prompt = init_prompt(base, 4)
    prompt = prompt.with_arrays({"prompt": np.full(prompt.vectors.shape, 1e300)})
    for write in (prompt.save, prompt.to_peft):
        with pytest.raises(MiniptError, match="NaN or infinite numbers in float32"):
            write(tmp_path / "p")
    assert not list(tmp_path.iterdir())


PLACES = ["a\0b", "a\0b/c", *(["/proc/x", "/proc/self/mem"] if Path("/proc/self").exists() else [])]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_where_nothing_can_be_written_is_a_sentence(base, place):
    prompt = init_prompt(base, 4)
    for write in (prompt.save, prompt.to_peft):
        with pytest.raises(MiniptError) as error:
            write(place)
        assert place in str(error.value) or repr(place) in str(error.value)
        assert ".partial-" not in str(error.value)
