"""PEFT's adapters, read and written without PEFT: what PEFT saved and computed is stored."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import BERT, base_with_tokenizer, random_base, random_prompt
from helpers.damage import write_bfloat16
from safetensors import safe_open
from safetensors.numpy import save_file

import minipt
from minipt.errors import MiniptError
from minipt.maths.gradcheck import compare
from minipt.prompting.peft_adapter import ADAPTER
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch

GOLDEN = Path(__file__).parents[1] / "reference" / "adapter"
TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def base():
    return minipt.load_base(GOLDEN.parent / "ragged")


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A copy of what PEFT saved, for a test to spoil."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "adapter"))


def tensor(directory: Path) -> np.ndarray:
    with safe_open(directory / TENSORS, framework="numpy") as file:
        return file.get_tensor("prompt_embeddings")


def config_of(directory: Path) -> dict:
    return json.loads((directory / CONFIG).read_text(encoding="utf-8"))


def say(directory: Path, **changes: object) -> None:
    described = config_of(directory) | changes
    (directory / CONFIG).write_text(json.dumps(described), encoding="utf-8")


# What PEFT saved.


def test_the_vectors_are_those_that_peft_saved(base):
    prompt = minipt.from_peft(GOLDEN, base)
    assert prompt.vectors.shape == (4, 8)
    assert prompt.vectors.tobytes() == tensor(GOLDEN).tobytes()
    assert prompt.vectors.flags.writeable
    assert (prompt.fingerprint, prompt.base_name) == (base.fingerprint, base.name)
    assert prompt.about == {"method": "peft", "adapter": config_of(GOLDEN)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minipt_computes_what_peft_computed(base, dtype):
    base = base.astype(dtype)
    with safe_open(GOLDEN / "answers.safetensors", framework="numpy") as file:
        ids, lengths, logits = (file.get_tensor(name) for name in ("ids", "lengths", "logits"))
    prompt = minipt.from_peft(str(GOLDEN), base)
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    for b, length in enumerate(lengths):
        for t in range(length):
            only = Batch(ids[b : b + 1], lengths[b : b + 1], np.array([0]), positions=np.array([t]))
            ours = minipt.logits(base, only, prompt)[0]
            assert compare("logits", ours, logits[b, t]) < tolerance


def test_from_peft_and_back_gives_the_same_bytes(base, tmp_path):
    minipt.from_peft(GOLDEN, base).to_peft(tmp_path / "again")
    for name in (TENSORS, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_half_precision_is_read_as_single(base, adapter):
    save_file({"prompt_embeddings": tensor(adapter).astype(np.float16)}, adapter / TENSORS)
    vectors = minipt.from_peft(adapter, base).vectors
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, tensor(GOLDEN), rtol=1e-3)


# What minipt saves.


def test_the_config_has_peft_s_keys_and_the_sizes_that_a_prompt_knows(base, tmp_path):
    random_prompt(base, 3).to_peft(tmp_path / "adapter")
    written, golden = config_of(tmp_path / "adapter"), config_of(GOLDEN)
    assert written == golden | {
        "base_model_name_or_path": base.name,
        "num_virtual_tokens": 3,
        "num_layers": None,
        "num_attention_heads": None,
    }
    assert (ADAPTER["num_virtual_tokens"], ADAPTER["token_dim"]) == (None, None)


def test_there_is_one_tensor_of_single_precision(base, tmp_path):
    prompt = random_prompt(base.astype(np.float64), 3)
    prompt.to_peft(tmp_path / "adapter")
    with safe_open(tmp_path / "adapter" / TENSORS, framework="numpy") as file:
        assert list(file.keys()) == ["prompt_embeddings"]
        assert file.metadata() == {"format": "pt"}
    np.testing.assert_array_equal(tensor(tmp_path / "adapter"), prompt.vectors.astype(np.float32))
    assert tensor(tmp_path / "adapter").dtype == np.float32


def test_the_base_has_the_name_that_is_given_or_the_one_the_adapter_said(base, tmp_path):
    ours, theirs = random_prompt(base, 3), minipt.from_peft(GOLDEN, base)
    for name, prompt, given, expected in (
        ("a", ours, None, base.name),
        ("b", ours, "hub/gpt2", "hub/gpt2"),
        ("c", theirs, None, "random-gpt2"),
        ("d", theirs, "hub/gpt2", "hub/gpt2"),
    ):
        prompt.to_peft(tmp_path / name, base_name=given)
        assert config_of(tmp_path / name)["base_model_name_or_path"] == expected


def test_an_encoder_s_prompt_is_of_the_kind_that_peft_puts_in_front_of_encoders(tmp_path):
    for fields, kind in (({}, "CAUSAL_LM"), (BERT, "FEATURE_EXTRACTION")):
        init_prompt(random_base(0, **fields), 3, "uniform").to_peft(tmp_path / kind)
        assert config_of(tmp_path / kind)["task_type"] == kind


def test_nothing_is_lost_from_minipt_through_an_adapter_to_minipt(base, tmp_path):
    prompt = random_prompt(base, 4, seed=5)
    prompt.about |= {"template": "{text}\nIs it good?", "label_words": [" ja", " nein"], "steps": 7}
    prompt.to_peft(tmp_path / "adapter")
    again = minipt.from_peft(tmp_path / "adapter", base)
    assert again.vectors.tobytes() == prompt.vectors.tobytes()
    assert (again.fingerprint, again.base_name) == (prompt.fingerprint, prompt.base_name)
    assert {key: again.about[key] for key in prompt.about} == prompt.about
    again.to_peft(tmp_path / "again")
    for path in (tmp_path / "adapter").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_record_of_other_vectors_is_not_believed(base, tmp_path, capsys):
    """PEFT tuned our prompt further and saved it over ours: the history is not that prompt's."""
    prompt = random_prompt(base, 4)
    prompt.about |= {"steps": 7}
    prompt.to_peft(tmp_path / "adapter")
    save_file({"prompt_embeddings": prompt.vectors + 1}, tmp_path / "adapter" / TENSORS)
    again = minipt.from_peft(tmp_path / "adapter", base)
    assert "is about other vectors" in capsys.readouterr().err
    np.testing.assert_array_equal(again.vectors, prompt.vectors + 1)
    assert again.about["method"] == "peft"
    assert "steps" not in again.about


def test_a_damaged_record_is_refused(base, tmp_path):
    """It is not dropped together with the fingerprint that it holds."""
    random_prompt(base, 4).to_peft(tmp_path / "adapter")
    path = tmp_path / "adapter" / "minipt.json"
    whole = path.read_bytes()
    for junk in (b"{half", b"[]", b"\xff\xfe", b"{}", b"[" * 99999, whole[:-1], whole[:-9] + b"}"):
        path.write_bytes(junk)
        with pytest.raises(MiniptError, match=r"minipt\.json is no record that minipt wrote"):
            minipt.from_peft(tmp_path / "adapter", base)
    for changed in ({"about": None}, {"about": {"labels": ["a"]}}, {"fingerprint": 5}, {"new": 1}):
        path.write_text(json.dumps(json.loads(whole) | changed))
        with pytest.raises(MiniptError, match=r"minipt\.json .*, or is damaged: save the prompt"):
            minipt.from_peft(tmp_path / "adapter", base)
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    assert minipt.from_peft(tmp_path / "adapter", base).fingerprint == base.fingerprint
    with pytest.raises(MiniptError, match="was made for base 'ragged'"):
        minipt.from_peft(tmp_path / "adapter", random_base(5))


@pytest.mark.parametrize("length", [1, 4])
def test_one_bit_of_the_vectors_is_noticed(base, tmp_path, length):
    random_prompt(base, length).to_peft(tmp_path / "adapter")
    path = tmp_path / "adapter" / TENSORS
    whole = path.read_bytes()
    for place in range(-4 * 8 * length, 0, 5):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        for other in (base, random_base(5)):
            with pytest.raises(MiniptError, match="is not as minipt wrote it, but damaged"):
                minipt.from_peft(tmp_path / "adapter", other)


@pytest.mark.parametrize("about", [None, 5, {"labels": ["a"]}])
def test_a_record_from_before_is_read(base, tmp_path, about):
    """It had no sha256 of its own, and one of the whole file of the vectors."""
    prompt = random_prompt(base, 4)
    prompt.to_peft(tmp_path / "adapter")
    digest = hashlib.sha256((tmp_path / "adapter" / TENSORS).read_bytes()).hexdigest()
    record = {"fingerprint": base.fingerprint, "base_name": "old", "adapter_model_sha256": digest}
    path = tmp_path / "adapter" / "minipt.json"
    path.write_text(json.dumps(record | {"about": {"steps": 7}}))
    assert minipt.from_peft(tmp_path / "adapter", base).about == {"steps": 7}
    with pytest.raises(MiniptError, match="was made for base 'old'"):
        minipt.from_peft(tmp_path / "adapter", random_base(5))
    path.write_text(json.dumps(record | {"about": about}))
    with pytest.raises(MiniptError, match=r"minipt\.json is no prompt that minipt saved"):
        minipt.from_peft(tmp_path / "adapter", base)


def test_what_minipt_wrote_is_refused_for_another_base(tmp_path):
    init_prompt(base_with_tokenizer(0), 4).to_peft(tmp_path / "adapter")
    with pytest.raises(MiniptError, match=r"made for base 'random-0' .* not for base 'random-1'"):
        minipt.from_peft(tmp_path / "adapter", base_with_tokenizer(1))


def test_an_existing_directory_is_left_as_it_is(base, adapter):
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with pytest.raises(MiniptError, match="exists already"):
        random_prompt(base, 3).to_peft(adapter)
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_an_empty_directory_is_filled(base, tmp_path):
    random_prompt(base, 3).to_peft(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "minipt.json",
    }
    assert len(minipt.from_peft(tmp_path, base).vectors) == 3


def test_a_full_disk_leaves_nothing(base, tmp_path, monkeypatch):
    def disk_full(path: Path, text: str, **how: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", disk_full)
    with pytest.raises(MiniptError, match="the disk is full"):
        random_prompt(base, 3).to_peft(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_written(base, tmp_path, bad):
    vectors = np.zeros((4, 8), np.float32)
    vectors[3, 1] = bad
    with pytest.raises(MiniptError, match="the prompt holds NaN or infinite numbers"):
        SoftPrompt(vectors, base.fingerprint, base.name).to_peft(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


# What is refused.


@pytest.mark.parametrize(
    "kind", ["LORA", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "IA3"]
)
def test_an_adapter_of_another_kind_is_refused_by_name(base, adapter, kind):
    say(adapter, peft_type=kind)
    with pytest.raises(MiniptError, match=rf"of the kind {kind}; minipt reads PROMPT_TUNING only"):
        minipt.from_peft(adapter, base)


@pytest.mark.parametrize(
    "changes", [{"num_transformer_submodules": 2}, {"task_type": "SEQ_2_SEQ_LM"}]
)
def test_an_adapter_of_two_stacks_is_refused(base, adapter, changes):
    say(adapter, **changes)
    with pytest.raises(MiniptError, match="an encoder and a decoder"):
        minipt.from_peft(adapter, base)


def test_another_width_is_refused(adapter):
    with pytest.raises(MiniptError, match=r"of shape \(4, 8\), not \(P, 12\) as base 'random-3'"):
        minipt.from_peft(adapter, random_base(3, channels=12))


@pytest.mark.parametrize("shape", [(), (8,), (0, 8), (1, 4, 8)])
def test_a_tensor_of_another_shape_is_refused(base, adapter, shape):
    save_file({"prompt_embeddings": np.zeros(shape, np.float32)}, adapter / TENSORS)
    with pytest.raises(MiniptError, match="holds an array of shape"):
        minipt.from_peft(adapter, base)


@pytest.mark.parametrize("promised", [3, 5, None, "four"])
def test_a_length_that_the_config_does_not_name_is_refused(base, adapter, promised):
    say(adapter, num_virtual_tokens=promised)
    with pytest.raises(MiniptError, match=rf"4 vectors .* num_virtual_tokens = {promised!r}"):
        minipt.from_peft(adapter, base)


def test_vectors_that_leave_no_room_for_a_text_are_refused(adapter):
    with pytest.raises(MiniptError, match="leaves no room for a text"):
        minipt.from_peft(adapter, random_base(0, context=4))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_numbers_that_are_not_finite_are_refused(base, adapter, bad):
    vectors = tensor(adapter)
    vectors[1, 2] = bad
    save_file({"prompt_embeddings": vectors}, adapter / TENSORS)
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        minipt.from_peft(adapter, base)


def test_what_was_trained_beside_the_vectors_is_refused_by_name(base, adapter):
    tensors = {"prompt_embeddings": tensor(adapter), "score.weight": np.zeros((2, 8), np.float32)}
    save_file(tensors, adapter / TENSORS)
    with pytest.raises(MiniptError, match=r"holds score\.weight beside prompt_embeddings"):
        minipt.from_peft(adapter, base)


def test_numbers_of_another_type_are_refused(base, adapter):
    save_file({"prompt_embeddings": tensor(adapter).astype(np.int32)}, adapter / TENSORS)
    with pytest.raises(MiniptError, match="prompt_embeddings is of type int32, minipt reads F16"):
        minipt.from_peft(adapter, base)
    save_file({"prompt_embeddings": tensor(adapter).astype(np.float64)}, adapter / TENSORS)
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers in float32"):
        save_file({"prompt_embeddings": np.full((4, 8), 1e300)}, adapter / TENSORS)
        minipt.from_peft(adapter, base)


def test_double_precision_and_bfloat16_are_read(base, adapter):
    vectors = tensor(adapter)
    save_file({"prompt_embeddings": vectors.astype(np.float64)}, adapter / TENSORS)
    np.testing.assert_array_equal(minipt.from_peft(adapter, base).vectors, vectors)
    write_bfloat16(adapter / TENSORS, {"prompt_embeddings": vectors})
    upper = (vectors.view(np.uint32) >> 16 << 16).view(np.float32)
    np.testing.assert_array_equal(minipt.from_peft(adapter, base).vectors, upper)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_state_of_a_model_in_training_is_read(base, adapter, prefix):
    name = f"{prefix}prompt_encoder.default.embedding.weight"
    vectors = tensor(adapter)
    save_file({name: vectors}, adapter / TENSORS)
    np.testing.assert_array_equal(minipt.from_peft(adapter, base).vectors, vectors)
    save_file({name: vectors, "base_model.wte.weight": vectors}, adapter / TENSORS)
    with pytest.raises(MiniptError, match=rf"holds base_model\.wte\.weight beside {name}"):
        minipt.from_peft(adapter, base)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (random_base(5, layers=3), "says num_layers = 2, where base 'random-5' has 3"),
        (random_base(5, heads=4), "says num_attention_heads = 2, where base 'random-5' has 4"),
        (random_base(5, **BERT), "says task_type = 'CAUSAL_LM', where .* has FEATURE_EXTRACTION"),
    ],
)
def test_an_adapter_of_another_model_is_refused(adapter, other, match):
    with pytest.raises(MiniptError, match=match + r".*'random-gpt2'"):
        minipt.from_peft(adapter, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"task_type": "SEQ_CLS"},
        {"task_type": "TOKEN_CLS"},
        {"task_type": "QUESTION_ANS"},
        {"task_type": ["CAUSAL_LM"]},
        {"modules_to_save": ["score"]},
        {"token_dim": 16},
        {"num_layers": "2"},
        {"num_transformer_submodules": 3},
    ],
)
def test_an_adapter_for_another_use_is_refused(base, adapter, changes):
    say(adapter, **changes)
    (key,) = changes
    with pytest.raises(MiniptError, match=rf"config\.json says {key} = .*another use or model"):
        minipt.from_peft(adapter, base)


def test_another_name_of_the_model_is_said(base, adapter, capsys):
    minipt.from_peft(adapter, base)
    assert "was made for 'random-gpt2' and is read for 'ragged'" in capsys.readouterr().err
    say(adapter, base_model_name_or_path="someone/ragged")
    minipt.from_peft(adapter, base)
    assert capsys.readouterr().err == ""


def test_a_long_name_of_the_model_is_shortened(base, adapter, capsys):
    say(adapter, base_model_name_or_path="m" * 100_000)
    minipt.from_peft(adapter, base)
    assert len(capsys.readouterr().err) < 1000
    say(adapter, token_dim=9)
    with pytest.raises(MiniptError) as error:
        minipt.from_peft(adapter, base)
    assert len(str(error.value)) < 1000


def test_a_config_with_a_byte_order_mark_is_read(base, adapter):
    (adapter / CONFIG).write_bytes(b"\xef\xbb\xbf" + (adapter / CONFIG).read_bytes())
    assert minipt.from_peft(adapter, base).vectors.shape == (4, 8)


def test_an_adapter_in_the_place_of_a_prompt_or_a_base_is_named(base, adapter):
    with pytest.raises(MiniptError, match=r"there is no prompt at .*is an adapter of PEFT: .*from"):
        minipt.load_prompt(adapter, base)
    with pytest.raises(MiniptError, match=r"is an adapter of PEFT: load the base .*from_peft"):
        minipt.load_base(adapter)


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_a_truncated_file_is_refused(base, adapter, keep):
    (adapter / TENSORS).write_bytes((adapter / TENSORS).read_bytes()[:keep])
    with pytest.raises(MiniptError, match="is truncated or holds no prompt_embeddings"):
        minipt.from_peft(adapter, base)


def test_a_file_without_vectors_is_refused(base, adapter):
    save_file({}, adapter / TENSORS)
    with pytest.raises(MiniptError, match="holds no prompt_embeddings"):
        minipt.from_peft(adapter, base)


def test_a_missing_file_is_refused(base, adapter):
    (adapter / TENSORS).unlink()
    with pytest.raises(MiniptError, match=r"there is no .*safetensors: save the adapter again"):
        minipt.from_peft(adapter, base)
    (adapter / "adapter_model.bin").touch()
    with pytest.raises(MiniptError, match="with safe_serialization=True"):
        minipt.from_peft(adapter, base)


def test_a_place_that_is_no_adapter_is_refused(base, tmp_path):
    for place in (tmp_path, tmp_path / "none", GOLDEN.parent / "ragged", GOLDEN / CONFIG):
        with pytest.raises(MiniptError, match="is no PEFT adapter"):
            minipt.from_peft(place, base)


@pytest.mark.parametrize("junk", [b"", b"{half", b"[]", b"7", b"{}", b"\xff\xfe", 100_000 * b"["])
def test_a_config_that_is_none_is_refused(base, adapter, junk):
    (adapter / CONFIG).write_bytes(junk)
    with pytest.raises(MiniptError, match="is not what PEFT writes about an adapter"):
        minipt.from_peft(adapter, base)
