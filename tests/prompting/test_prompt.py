"""Where a prompt starts, and its file: complete or absent, and for its own base only."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_base, random_batch
from safetensors import safe_open
from safetensors.numpy import save_file

from minipt.errors import MiniptError
from minipt.prompting import prompt as prompt_module
from minipt.prompting.prompt import METHODS, SoftPrompt, init_prompt, load_prompt
from minipt.prompting.wiring import loss_and_gradient

NEEDED = {"labels": {"label_words": [" good", " bad"]}, "text": {"text": "a good day"}}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture
def table(base):
    return base.params["token.table"]


@pytest.fixture
def saved(base, tmp_path) -> Path:
    path = tmp_path / "prompt.safetensors"
    init_prompt(base, 4).save(path)
    return path


def rows_of(vectors: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The token whose embedding each vector is, -1 for none."""
    same = (vectors[:, None] == table).all(-1)
    return np.where(same.any(1), same.argmax(1), -1)


# Where it starts.


@every_method
def test_every_start_has_the_asked_shape_and_says_how_it_was_made(base, method):
    prompt = init_prompt(base, 5, method, seed=3, **NEEDED.get(method, {}))
    assert prompt.vectors.shape == (5, base.config.channels)
    assert prompt.vectors.dtype == np.float32
    assert prompt.vectors.flags.writeable
    assert (prompt.fingerprint, prompt.base_name) == (base.fingerprint, base.name)
    words = {"text": "a good day"} if method == "text" else {}
    assert prompt.about == {"method": method, "seed": 3} | words


@every_method
def test_the_same_seed_gives_the_same_bits(base, method):
    first, again = (init_prompt(base, 5, method, seed=3, **NEEDED.get(method, {})) for _ in "ab")
    assert first.vectors.tobytes() == again.vectors.tobytes()


@pytest.mark.parametrize("method", ["uniform", "vocab", "labels"])
def test_another_seed_gives_other_vectors(base, method):
    first, other = (init_prompt(base, 5, method, s, **NEEDED.get(method, {})) for s in (0, 1))
    assert not np.array_equal(first.vectors, other.vectors)


def test_uniform_fills_the_range_from_minus_to_plus_a_half(base):
    vectors = init_prompt(base, 31, "uniform").vectors
    assert -0.5 <= vectors.min() < -0.45 and 0.45 < vectors.max() <= 0.5
    assert abs(vectors.mean()) < 0.05
    assert vectors.std() == pytest.approx(12**-0.5, rel=0.1)


def test_vocab_takes_different_tokens_embeddings_and_no_special_ones(base, table):
    drawn = [rows_of(init_prompt(base, 20, "vocab", seed).vectors, table) for seed in range(150)]
    assert all(len(set(rows)) == 20 for rows in drawn)
    special = set(base.tokenizer.get_added_tokens_decoder())
    assert special == {0}
    assert set(np.concatenate(drawn)) == set(range(len(table))) - special


def test_vocab_takes_the_most_frequent_tokens(base, table, monkeypatch):
    monkeypatch.setattr(prompt_module, "FREQUENT_TOKENS", 9)
    rows = rows_of(init_prompt(base, 8, "vocab").vectors, table)
    assert sorted(rows) == list(range(1, 9))


def test_vocab_repeats_tokens_only_where_there_are_too_few(base, table, monkeypatch):
    monkeypatch.setattr(prompt_module, "FREQUENT_TOKENS", 4)
    assert set(rows_of(init_prompt(base, 20, "vocab").vectors, table)) <= {1, 2, 3}


def test_labels_begin_with_the_mean_of_each_words_tokens(base, table):
    vectors = init_prompt(base, 5, "labels", label_words=[" good", " day cruel"]).vectors
    one, several = (base.tokenizer.encode(word).ids for word in (" good", " day cruel"))
    assert len(several) > 1
    np.testing.assert_allclose(vectors[0], table[one].mean(0), rtol=1e-6)
    np.testing.assert_allclose(vectors[1], table[several].mean(0), rtol=1e-6)
    assert (rows_of(vectors[2:], table) >= 0).all()


def test_more_labels_than_vectors_are_cut(base, table):
    vectors = init_prompt(base, 1, "labels", label_words=[" good", " bad"]).vectors
    expected = table[base.tokenizer.encode(" good").ids].mean(0)
    np.testing.assert_allclose(vectors, expected[None], rtol=1e-6)


def test_text_is_its_tokens_embeddings_repeated_or_cut(base, table):
    ids = base.tokenizer.encode("a good day").ids
    for length in (len(ids), 2 * len(ids) + 1, 2):
        vectors = init_prompt(base, length, "text", text="a good day").vectors
        np.testing.assert_array_equal(vectors, table[[ids[p % len(ids)] for p in range(length)]])


def test_a_prompt_is_a_copy_and_the_base_stays_as_it_is(base, table):
    fingerprint = base.fingerprint
    for method in METHODS:
        init_prompt(base, 3, method, **NEEDED.get(method, {})).vectors[...] = 9.0
    assert base.fingerprint == fingerprint


def test_a_base_without_a_tokenizer_can_start_from_its_vocabulary():
    assert init_prompt(random_base(0), 3).vectors.shape == (3, 8)


@pytest.mark.parametrize("length", [0, -1, 32, 1000])
def test_a_length_that_leaves_no_room_is_refused(base, length):
    with pytest.raises(MiniptError, match=rf"has 1 to 31 vectors, not {length}"):
        init_prompt(base, length)


def test_the_longest_prompt_leaves_room_for_one_token(base):
    prompt = init_prompt(base, 31)
    assert np.isfinite(loss_and_gradient(base, prompt, random_batch(base, 2, 1))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "zeros"}, "unknown start 'zeros': choose one of uniform, vocab, labels, text"),
        ({"method": "text"}, "needs a text"),
        ({"method": "text", "text": ""}, "needs a text"),
        ({"method": "labels"}, "needs label words"),
        ({"method": "labels", "label_words": []}, "needs label words"),
        ({"method": "labels", "label_words": [" good", ""]}, "has no tokens"),
    ],
)
def test_a_start_without_what_it_needs_is_refused(base, arguments, message):
    with pytest.raises(MiniptError, match=message):
        init_prompt(base, 3, **arguments)


@pytest.mark.parametrize("method", ["text", "labels"])
def test_a_start_from_words_needs_a_tokenizer(method):
    with pytest.raises(MiniptError, match=r"without a tokenizer\.json"):
        init_prompt(random_base(0), 3, method, **NEEDED[method])


# Its file.


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
        metadata = file.metadata() | metadata
    save_file(tensors, path, metadata)


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
