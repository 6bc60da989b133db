"""GGUF files: a Llama written as llama.cpp keeps it and read back; and each way to be wrong."""

import gguf
import numpy as np
import pytest
from bases import random_batch
from gguf_writer import Type, small_llama, write

from minipt.base import Base
from minipt.checkpoint import load_base
from minipt.errors import MiniptError
from minipt.gradcheck import compare
from minipt.wiring import logits

TEXTS = ("the film was good", " 12 345", "naïve 🙂\n\n\tend", "<|endoftext|>words", "")


@pytest.fixture(scope="module")
def base() -> Base:
    return small_llama()


def test_what_is_written_is_what_is_read(base, tmp_path):
    loaded = load_base(write(tmp_path / "small.gguf", base))
    assert loaded.name == "small"
    assert loaded.config == base.config
    assert loaded.fingerprint == base.fingerprint
    batch = random_batch(base, 3, 6)
    np.testing.assert_array_equal(logits(loaded, batch), logits(base, batch))


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_is_the_same(base, tmp_path, text):
    loaded = load_base(write(tmp_path / "small.gguf", base)).tokenizer
    ids = base.tokenizer.encode(text).ids
    assert loaded.encode(text).ids == ids
    assert loaded.decode(ids) == base.tokenizer.decode(ids)


def test_smollm_makes_each_digit_a_word(base, tmp_path):
    path = write(tmp_path / "small.gguf", base, **{"tokenizer.ggml.pre": "smollm"})
    pieces = load_base(path).tokenizer.pre_tokenizer.pre_tokenize_str("in 1984")
    assert [piece for piece, _ in pieces][-4:] == list("1984")


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(Type.F16, 1e-3), (Type.Q8_0, 0.01), (Type.Q4_1, 0.1)]
)
def test_quantized_numbers_are_near(base, tmp_path, kind, tolerance):
    loaded = load_base(write(tmp_path / "small.gguf", base, kind))
    for name, array in base.params.items():
        assert loaded.params[name].dtype == np.float32
        assert compare(name, loaded.params[name], array) < tolerance
    exact = gguf.quants.dequantize(gguf.quants.quantize(base.params["token.table"], kind), kind)
    np.testing.assert_array_equal(loaded.params["token.table"], exact)


def test_every_truncation_is_refused(base, tmp_path):
    whole = write(tmp_path / "small.gguf", base).read_bytes()
    path = tmp_path / "cut.gguf"
    for keep in (0, 3, 10, 30, 200, len(whole) // 20, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:keep])
        with pytest.raises(MiniptError, match=r"cut\.gguf is truncated or no GGUF file"):
            load_base(path)


def test_a_file_that_is_missing_or_junk_is_refused(tmp_path):
    with pytest.raises(MiniptError, match="there is no file"):
        load_base(tmp_path / "missing.gguf")
    (tmp_path / "junk.gguf").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(MiniptError, match="no GGUF file"):
        load_base(tmp_path / "junk.gguf")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"llama.block_count": None}, r"lacks llama\.block_count"),
        ({"llama.block_count": 3}, r"lacks the tensor 'model\.layers\.2"),
        ({"llama.block_count": 1}, "config has not"),
        ({"llama.embedding_length": 32}, "has shape"),
        ({"llama.attention.head_count": 3}, "divide into"),
        ({"llama.rope.scaling.type": "yarn"}, "scales its rotary positions"),
        ({"llama.rope.dimension_count": 8}, "only some channels of a head"),
        ({"llama.attention.key_length": 8}, "key_length"),
        ({"tokenizer.ggml.model": "llama"}, "a tokenizer of the kind 'llama'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "with words of 'qwen2'"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.token_type": None}, "tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "290 tokens of 2 kinds"),
    ],
)
def test_what_is_not_covered_is_refused_by_its_name(base, tmp_path, changed, match):
    with pytest.raises(MiniptError, match=match):
        load_base(write(tmp_path / "small.gguf", base, **changed))


def test_another_architecture_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(MiniptError, match="the architecture 'qwen2', not 'llama'"):
        load_base(tmp_path / "other.gguf")


def test_a_quantization_that_is_not_undone_is_refused(base, tmp_path, monkeypatch):
    def unknown(data: np.ndarray, kind: Type) -> np.ndarray:
        raise NotImplementedError(f"Dequantization for {kind.name} is not yet implemented")

    path = write(tmp_path / "small.gguf", base, Type.Q8_0)
    monkeypatch.setattr(gguf.quants, "dequantize", unknown)
    with pytest.raises(MiniptError, match=r"token_embd\.weight is quantized as Q8_0, which"):
        load_base(path)


def test_numbers_that_are_not_finite_are_refused(base, tmp_path):
    params = {name: array.copy() for name, array in base.params.items()}
    params["h1.mlp.up.weight"][0, 0] = np.nan
    spoilt = Base(base.name, base.config, params, base.tokenizer)
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        load_base(write(tmp_path / "small.gguf", spoilt))
