"""A model directory, read and written; and one sentence for each way in which it can be wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_base, random_prompt, small_tokenizer
from helpers.damage import write_parts
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from minipt.errors import MiniptError
from minipt.loading import load as checkpoint
from minipt.loading.load import load_base, save_base
from minipt.transformer.base import Base


@pytest.fixture(scope="module")
def base() -> Base:
    return base_with_tokenizer()


@pytest.fixture
def directory(base, tmp_path) -> Path:
    save_base(base, tmp_path / "model")
    return tmp_path / "model"


def change_config(directory: Path, **entries: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_weights(directory: Path, change: Callable[[dict], dict | None]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    tensors = change(tensors) or tensors
    save_file({name: np.array(array, order="C") for name, array in tensors.items()}, path)


def assert_same(loaded: Base, base: Base) -> None:
    assert loaded.config == base.config
    assert loaded.params.keys() == base.params.keys()
    for name, array in base.params.items():
        assert loaded.params[name].tobytes() == array.tobytes(), name
        assert loaded.params[name].shape == array.shape, name
    assert loaded.fingerprint == base.fingerprint


# Right ones.


def test_what_is_saved_is_what_is_loaded(directory, base):
    loaded = load_base(directory)
    assert_same(loaded, base)
    assert loaded.name == "model"
    assert loaded.tokenizer.encode("a good day").ids == base.tokenizer.encode("a good day").ids


@pytest.mark.parametrize("layers", [1, 3])
def test_every_size_comes_back(layers, tmp_path):
    base = random_base(1, layers, channels=6, heads=3, vocabulary=11, context=5)
    save_base(base, tmp_path / "model")
    assert_same(load_base(str(tmp_path / "model")), base)
    assert load_base(tmp_path / "model").tokenizer is None


def test_saving_twice_gives_the_same_bytes(directory, tmp_path):
    save_base(load_base(directory), tmp_path / "again")
    for path in sorted(directory.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(directory.iterdir())) == 3


def test_whoever_may_read_the_config_may_read_the_weights(directory):
    assert len({path.stat().st_mode for path in directory.iterdir()}) == 1


def test_what_is_loaded_is_float32_and_read_only(directory):
    for name, array in load_base(directory).params.items():
        assert array.dtype == np.float32 and array.flags.c_contiguous, name
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_names_without_the_prefix_are_read_too(directory, base):
    change_weights(
        directory, lambda x: {name.removeprefix("transformer."): a for name, a in x.items()}
    )
    assert "wte.weight" in load_file(directory / "model.safetensors")
    assert_same(load_base(directory), base)


def test_old_mask_buffers_are_passed_over(directory, base):
    buffers = {
        "transformer.h.0.attn.bias": np.ones((1, 1, 32, 32), np.uint8),
        "transformer.h.1.attn.masked_bias": np.array(-1e4, np.float32),
    }
    change_weights(directory, lambda x: x | buffers)
    assert_same(load_base(directory), base)


def test_a_tied_output_matrix_may_be_in_the_file(directory, base):
    change_weights(directory, lambda x: x | {"lm_head.weight": x["transformer.wte.weight"]})
    assert_same(load_base(directory), base)


def test_float16_becomes_float32(directory, base):
    change_weights(directory, lambda x: {name: a.astype(np.float16) for name, a in x.items()})
    for name, array in load_base(directory).params.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, base.params[name].astype(np.float16), name)


def test_a_config_needs_no_more_than_the_sizes(directory, base):
    config = json.loads((directory / "config.json").read_text())
    sizes = ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "n_inner")
    kept = {key: config[key] for key in (*sizes, "model_type")}
    (directory / "config.json").write_text(json.dumps(kept))
    assert_same(load_base(directory), base)


def test_without_n_inner_the_mlp_is_four_times_as_wide(directory):
    change_config(directory, n_inner=None)
    with pytest.raises(MiniptError, match=r"mlp\.up\.weight has shape \(8, 24\).*\(8, 32\)"):
        load_base(directory)


def test_the_epsilon_is_read(directory):
    change_config(directory, layer_norm_epsilon=0.125)
    assert load_base(directory).config.epsilon == 0.125


def test_a_tokenizer_neither_cuts_nor_pads(directory, base):
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = load_base(directory).tokenizer.encode("a good day, a bad night").ids
    assert ids == base.tokenizer.encode("a good day, a bad night").ids
    assert 2 < len(ids) < 50


def test_saving_does_not_overwrite(directory, base):
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(MiniptError, match="exists already"):
        save_base(base, directory)
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_a_save_that_fails_leaves_nothing(base, tmp_path, monkeypatch):
    """In the middle of the weights, which safetensors writes, and of the config."""

    def weights_do_not_fit(tensors: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def config_does_not_fit(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    for broken in (
        (checkpoint, "save_file", weights_do_not_fit),
        (Path, "write_text", config_does_not_fit),
    ):
        with monkeypatch.context() as patched, pytest.raises(MiniptError, match="make room"):
            patched.setattr(*broken)
            save_base(base, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []


# Wrong ones: what is not there.


@pytest.mark.parametrize("name", ["no-such-base", "tiny2", "gpt2"])
def test_an_unknown_base_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MiniptError, match=rf"there is no base '{name}': give one of tiny, micro"):
        load_base(name)


def test_a_name_that_is_too_long_for_the_system_is_an_unknown_base():
    with pytest.raises(MiniptError, match="there is no base 'xxx"):
        load_base("x" * 5000)


def test_a_file_is_no_base(directory):
    with pytest.raises(MiniptError, match="there is no base"):
        load_base(directory / "model.safetensors")


def test_a_directory_without_a_config_is_refused(directory):
    (directory / "config.json").unlink()
    with pytest.raises(MiniptError, match=r"model has no config\.json, so it is not a model's"):
        load_base(directory)


@pytest.mark.parametrize("config", ["[" * 100_000, None])
def test_a_config_that_cannot_be_read_is_refused(directory, config):
    (directory / "config.json").unlink()
    if config is None:
        (directory / "config.json").mkdir()
    else:
        (directory / "config.json").write_text(config)
    with pytest.raises(MiniptError, match=r"config\.json is not a JSON object"):
        load_base(directory)


def test_more_layers_than_tensors_are_refused_at_once(directory):
    change_config(directory, n_layer=1_000_000_000)
    with pytest.raises(MiniptError, match=r"n_layer = 1000000000, more than the .* tensors"):
        load_base(directory)


def test_a_directory_without_weights_is_refused(directory):
    (directory / "model.safetensors").unlink()
    with pytest.raises(MiniptError, match=r"model has no model\.safetensors"):
        load_base(directory)


# The config.


@pytest.mark.parametrize(
    "content", [b"{half", b"", b"[1, 2]", b'"text"', b"3", b"null", b"\xff\xfe"]
)
def test_a_config_that_is_no_json_object_is_refused(directory, content):
    (directory / "config.json").write_bytes(content)
    with pytest.raises(MiniptError, match=r"config\.json (is not a JSON object|says)"):
        load_base(directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mistral"),
        ("model_type", {}),
        ("activation_function", "relu"),
        ("activation_function", "gelu"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
    ],
)
def test_what_minipt_does_not_compute_is_refused_by_name(directory, key, value):
    change_config(directory, **{key: value})
    with pytest.raises(
        MiniptError, match=rf"says {key} = {value!r}, which minipt does not compute"
    ):
        load_base(directory)


def test_a_config_without_a_model_type_is_refused(directory):
    (directory / "config.json").write_text("{}")
    with pytest.raises(MiniptError, match=r"does not say which model_type it is: add it"):
        load_base(directory)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2Model"])
def test_a_class_of_transformers_tells_the_model_type(directory, base, name):
    change_config(directory, model_type=None, architectures=["Other", name])
    assert_same(load_base(directory), base)
    change_config(directory, architectures=["GPTNeoForCausalLM", 7])
    with pytest.raises(MiniptError, match="does not say which model_type"):
        load_base(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_no_part_of_a_file(directory, base, name):
    (directory / name).write_bytes(b"\xef\xbb\xbf" + (directory / name).read_bytes())
    loaded = load_base(directory)
    assert_same(loaded, base)
    assert loaded.tokenizer.encode("a good").ids == base.tokenizer.encode("a good").ids


def test_a_config_of_many_megabytes_is_not_read(directory):
    (directory / "config.json").write_text("[" + 6_000_000 * "[]," + "0]")
    with pytest.raises(MiniptError, match=r"config\.json is not a JSON object .*larger than"):
        load_base(directory)


@pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_head", "n_positions", "vocab_size"])
@pytest.mark.parametrize("value", [None, "many", [2], float("inf"), float("nan"), True, 2**40])
def test_a_size_that_is_no_number_is_refused(directory, key, value):
    change_config(directory, **{key: value})
    with pytest.raises(MiniptError, match=rf"has one that is no number of its kind: {key} = "):
        load_base(directory)


@pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_head", "n_positions", "vocab_size"])
def test_a_missing_size_is_refused(directory, key):
    config = json.loads((directory / "config.json").read_text())
    del config[key]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(MiniptError, match=rf"lacks a size .*{key}"):
        load_base(directory)


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_layer": 0},
        {"n_layer": -1},
        {"n_embd": 0},
        {"n_head": 3},
        {"n_head": -2},
        {"n_positions": 0},
        {"vocab_size": -5},
        {"n_inner": -8},
        {"n_head": 0},
    ],
)
def test_an_impossible_size_is_refused(directory, sizes):
    change_config(directory, **sizes)
    with pytest.raises(MiniptError, match=r"every size is at least 1 and .* divide into"):
        load_base(directory)


@pytest.mark.parametrize("epsilon", [-1e-5, 5.0, float("nan")])
def test_an_impossible_epsilon_is_refused(directory, epsilon):
    change_config(directory, layer_norm_epsilon=epsilon)
    with pytest.raises(MiniptError, match=r"epsilon is .*, not a small number"):
        load_base(directory)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_layer": 3}, r"lacks the tensor 'transformer\.h\.2\."),
        ({"n_layer": 1}, r"tensors that a model of this config has not: \['transformer\.h\.1\."),
        ({"n_embd": 16}, r"token\.table has shape \(\d+, 8\), the config asks for \(\d+, 16\)"),
        ({"vocab_size": 5000}, r"token\.table has shape"),
        (
            {"n_positions": 64},
            r"position\.table has shape \(32, 8\), the config asks for \(64, 8\)",
        ),
        ({"n_inner": 32}, r"h0\.mlp\.up\.weight has shape"),
    ],
)
def test_weights_that_disagree_with_the_config_are_refused(directory, sizes, message):
    change_config(directory, **sizes)
    with pytest.raises(MiniptError, match=message):
        load_base(directory)


# The weights.


@pytest.mark.parametrize("keep", [0, 4, 300, -1, -4000])
def test_truncated_weights_are_refused(directory, keep):
    """In the length, in the header, in the data."""
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MiniptError, match=r"model\.safetensors is truncated or no safetensors"):
        load_base(directory)


@pytest.mark.parametrize("more", [b"\0", b"more" * 1000])
def test_oversized_weights_are_refused(directory, more):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(MiniptError, match=r"model\.safetensors is truncated or no safetensors"):
        load_base(directory)


def test_weights_that_are_junk_are_refused(directory):
    (directory / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(MiniptError, match="no safetensors file"):
        load_base(directory)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["wte.weight", "h.1.attn.c_attn.bias", "ln_f.weight"])
def test_numbers_that_are_not_finite_are_refused(directory, name, bad):
    def spoil(tensors: dict) -> None:
        tensors[f"transformer.{name}"].reshape(-1)[-1] = bad

    change_weights(directory, spoil)
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        load_base(directory)


def test_every_missing_tensor_is_refused_by_name(directory):
    path = directory / "model.safetensors"
    whole = load_file(path)
    assert len(whole) == 4 + 2 * 12
    for name in whole:
        save_file({other: array for other, array in whole.items() if other != name}, path)
        with pytest.raises(MiniptError, match=f"lacks the tensor '{name}'"):
            load_base(directory)


def test_every_wrong_shape_is_refused(directory):
    path = directory / "model.safetensors"
    whole = load_file(path)
    for name, array in whole.items():
        longer = np.concatenate([array, array[:1]])
        save_file(whole | {name: longer}, path)
        with pytest.raises(MiniptError, match="has shape"):
            load_base(directory)


@pytest.mark.parametrize("shape", [(), (24,), (8, 24, 1), (8, 25), (24, 8)])
def test_joined_query_key_value_of_a_wrong_shape_are_refused(directory, shape):
    name = "transformer.h.0.attn.c_attn.weight"
    change_weights(directory, lambda x: x | {name: np.zeros(shape, np.float32)})
    with pytest.raises(MiniptError, match="has shape"):
        load_base(directory)


def test_an_unknown_tensor_is_refused_by_name(directory):
    change_weights(directory, lambda x: x | {"transformer.adapter.weight": np.ones(3, np.float32)})
    with pytest.raises(MiniptError, match=r"config has not: \['transformer\.adapter\.weight'\]"):
        load_base(directory)


@pytest.mark.parametrize("shape", [None, (3, 8)])
def test_an_untied_output_matrix_is_refused(directory, shape):
    def untie(tensors: dict) -> dict:
        table = tensors["transformer.wte.weight"]
        head = np.zeros(shape, np.float32) if shape else table + np.float32(0.1)
        return tensors | {"lm_head.weight": head}

    change_weights(directory, untie)
    with pytest.raises(MiniptError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
        load_base(directory)


def test_float64_becomes_float32(directory, base):
    change_weights(directory, lambda x: {name: a.astype(np.float64) for name, a in x.items()})
    assert_same(load_base(directory), base)
    name = "transformer.ln_f.weight"
    change_weights(directory, lambda x: x | {name: np.full(8, 1e300)})
    with pytest.raises(MiniptError, match=rf"{name} holds NaN or infinite numbers in float32"):
        load_base(directory)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_numbers_of_8_bits_are_refused(directory, kind):
    name = "transformer.wte.weight"
    write_parts(directory / "model.safetensors", {name: (kind, (290, 8), bytes(290 * 8))})
    change_config(directory, n_layer=1)
    with pytest.raises(MiniptError, match=rf"{name} is of type {kind}, minipt reads F16"):
        load_base(directory)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_in_the_names_are_left_out(directory, base, prefix):
    change_weights(directory, lambda x: {prefix + name: array for name, array in x.items()})
    assert_same(load_base(directory), base)
    change_weights(directory, lambda x: x | {"transformer.wte.weight": np.ones(3, np.float32)})
    with pytest.raises(MiniptError, match=r"holds transformer\.wte\.weight under two names"):
        load_base(directory)


def test_a_wrapper_inside_a_name_is_left_out(directory, base):
    change_weights(
        directory, lambda x: {n.replace("former.", "former._orig_mod."): a for n, a in x.items()}
    )
    assert "transformer._orig_mod.wte.weight" in load_file(directory / "model.safetensors")
    assert_same(load_base(directory), base)


def test_a_tied_tensor_of_another_family_is_refused(directory):
    bias = {"cls.predictions.decoder.bias": np.ones(3, np.float32)}
    change_weights(directory, lambda x: x | bias)
    with pytest.raises(MiniptError, match=r"config has not: \['cls\.predictions\.decoder\.bias"):
        load_base(directory)


# What lies there instead.

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (POINTER, r"is a pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive, such as torch.save writes: convert it"),
    ],
)
def test_what_a_file_is_instead_is_said(directory, name, content, match):
    (directory / name).write_bytes(content)
    with pytest.raises(MiniptError, match=rf"{name} {match}"):
        load_base(directory)


def test_a_pointer_in_the_place_of_a_gguf_file(tmp_path):
    (tmp_path / "a.gguf").write_bytes(POINTER)
    with pytest.raises(MiniptError, match=r"a\.gguf is a pointer of Git LFS.*git lfs pull"):
        load_base(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pytorch_model.bin", r"holds pytorch_model\.bin, .*convert it with transformers"),
        ("pytorch_model-00001-of-00002.bin", "convert it with transformers"),
        ("tf_model.h5", r"from_tf=True"),
        ("flax_model.msgpack", r"from_flax=True"),
        ("model.onnx", r"fetch the model\.safetensors"),
        ("bert_model.ckpt.index", "a checkpoint of TensorFlow or Lightning"),
        ("other.gguf", r"holds other\.gguf: give the path of that file"),
        ("other.safetensors", r"name it model\.safetensors"),
        ("model-00001-of-00002.safetensors", r"without model\.safetensors\.index\.json"),
        ("README.md", "fetch the model again"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_said(directory, name, match):
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(MiniptError, match=rf"has no model\.safetensors: .*{match}"):
        load_base(directory)


def test_what_lies_in_the_place_of_a_model_is_said(directory, base):
    random_prompt(base, 3).save(directory.parent / "run" / "prompt.safetensors")
    for place, match in (("run", "is a run of minipt"), ("", r"the model in .*model: give")):
        with pytest.raises(MiniptError, match=rf"has no config\.json, .*{match}"):
            load_base(directory.parent / place)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "a.gguf"])
def test_a_fifo_is_not_waited_for(directory, name):
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(MiniptError, match="not a regular file"):
        load_base(directory / name if name == "a.gguf" else directory)


@pytest.mark.parametrize("dtype", [np.int64, np.int8])
def test_numbers_of_another_type_are_refused(directory, dtype):
    name = "transformer.ln_f.weight"
    change_weights(directory, lambda x: x | {name: x[name].astype(dtype)})
    with pytest.raises(MiniptError, match=f"{name} is of type"):
        load_base(directory)
