"""GGUF files: a Llama written as llama.cpp keeps it and read back; and each way to be wrong."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from helpers import gguf_writer
from helpers.bases import random_batch
from helpers.gguf_writer import Type, small_llama, write

from minipt.errors import MiniptError
from minipt.loading.load import load_base, save_base
from minipt.maths.gradcheck import compare
from minipt.prompting.wiring import logits
from minipt.transformer.base import Base

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
    found, expected = (logits(in_one_order(each), batch) for each in (loaded, base))
    np.testing.assert_array_equal(found, expected)


def in_one_order(base: Base) -> Base:
    """BLAS may add the same numbers in another order if they lie in another order in memory."""
    return replace(base, params={n: np.ascontiguousarray(a) for n, a in base.params.items()})


def test_a_file_that_changes_later_does_not_change_the_base(base, tmp_path):
    path = write(tmp_path / "small.gguf", base)
    loaded = load_base(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert loaded.fingerprint == base.fingerprint


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_is_the_same(base, tmp_path, text):
    loaded = load_base(write(tmp_path / "small.gguf", base)).tokenizer
    ids = base.tokenizer.encode(text).ids
    assert loaded.encode(text).ids == ids
    assert loaded.decode(ids) == base.tokenizer.decode(ids)


def test_tokens_that_a_user_defined_stand_for_themselves(base, tmp_path):
    """As the special ones do, but they are written out."""
    last = base.config.vocabulary - 1
    kinds = [3] + [1] * (last - 1) + [4]
    path = write(tmp_path / "small.gguf", base, **{"tokenizer.ggml.token_type": kinds})
    loaded = load_base(path).tokenizer
    token = loaded.id_to_token(last)
    assert token.startswith("Ġ")
    ids = loaded.encode(f"<|endoftext|>{token} end").ids
    assert ids[:2] == [0, last] != base.tokenizer.encode(f"<|endoftext|>{token} end").ids[:2]
    assert loaded.decode(ids) == f" {token[1:]} end"


def test_the_beginning_that_a_file_asks_for_is_the_tokenizers(base, tmp_path):
    said = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 0}
    loaded = load_base(write(tmp_path / "small.gguf", base, **said)).tokenizer
    ids = base.tokenizer.encode("the film").ids
    assert loaded.encode("the film").ids == [0, *ids]
    assert loaded.encode("the film", add_special_tokens=False).ids == ids
    save_base(load_base(tmp_path / "small.gguf"), tmp_path / "model")
    assert load_base(tmp_path / "model").tokenizer.encode("the film").ids == [0, *ids]
    off = write(tmp_path / "off.gguf", base, **said | {"tokenizer.ggml.add_bos_token": False})
    assert load_base(off).tokenizer.encode("the film").ids == ids


def test_a_file_is_known_by_its_first_bytes(base, tmp_path):
    loaded = load_base(write(tmp_path / "sha256-0123", base))
    assert loaded.fingerprint == base.fingerprint


def test_double_precision_is_read(base, tmp_path, monkeypatch):
    doubled = {name: a.astype(np.float64) for name, a in gguf_writer.tensors(base).items()}
    monkeypatch.setattr(gguf_writer, "tensors", lambda base: doubled)
    assert load_base(write(tmp_path / "small.gguf", base)).fingerprint == base.fingerprint


def test_wavelengths_that_are_not_said_are_llamas(base, tmp_path):
    path = write(tmp_path / "small.gguf", base, **{"llama.rope.freq_base": None})
    assert load_base(path).config == replace(base.config, rotary_base=10000.0)


def test_smollm_makes_each_digit_a_word(base, tmp_path):
    path = write(tmp_path / "small.gguf", base, **{"tokenizer.ggml.pre": "smollm"})
    pieces = load_base(path).tokenizer.pre_tokenizer.pre_tokenize_str("in 1984")
    assert [piece for piece, _ in pieces][-4:] == list("1984")


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [(Type.F16, 1e-3), (Type.BF16, 1e-2), (Type.Q8_0, 0.01), (Type.Q4_1, 0.1)],
)
def test_quantized_numbers_are_what_gguf_makes_of_them(base, tmp_path, kind, tolerance):
    """A row is quantized by itself, so another order of the rows changes no number."""
    loaded = load_base(write(tmp_path / "small.gguf", base, kind))
    for name, array in base.params.items():
        found = loaded.params[name]
        assert found.dtype == np.float32
        assert compare(name, found, array) < tolerance
        if array.ndim == 2:
            rows = array if name.endswith("table") else array.T  # (out, in)
            exact = gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)
            np.testing.assert_array_equal(found if name.endswith("table") else found.T, exact, name)


def test_an_output_matrix_of_its_own_is_read(base, tmp_path):
    table = np.random.default_rng(2).standard_normal(base.params["token.table"].shape)
    params = base.params | {"output.table": table.astype(np.float32)}
    untied = Base(base.name, replace(base.config, tied=False), params, base.tokenizer)
    loaded = load_base(write(tmp_path / "small.gguf", untied))
    assert loaded.fingerprint == untied.fingerprint != base.fingerprint


def test_settings_that_say_what_is_so_anyway(base, tmp_path):
    """llama.cpp writes some of them into every file."""
    D = base.config.channels // base.config.heads
    said = dict.fromkeys(("rope.dimension_count", "attention.key_length"), D)
    said |= {"attention.value_length": D, "vocab_size": base.config.vocabulary}
    said |= {"rope.scaling.type": "none", "rope.scale_linear": 1.0, "expert_count": 0}
    said |= {"attention.causal": True}
    path = write(tmp_path / "small.gguf", base, **{f"llama.{key}": x for key, x in said.items()})
    assert load_base(path).fingerprint == base.fingerprint


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
        ({"llama.attention.head_count": 0}, "every size is at least 1"),
        ({"llama.attention.head_count": [4, 4]}, r"head_count = \[4, 4\], not of the type int"),
        ({"llama.attention.head_count": [4]}, r"head_count = \[4\], not of the type int"),
        ({"llama.attention.head_count": 4.0}, r"head_count = 4\.0, not of the type int"),
        ({"llama.block_count": True}, r"block_count = True, not of the type int"),
        ({"llama.rope.freq_base": "4"}, r"freq_base = '4', not of the type float"),
        ({"llama.rope.freq_base": float("inf")}, "rope_theta = inf"),
        ({"llama.attention.layer_norm_rms_epsilon": False}, "epsilon = False, not of the type"),
        ({"llama.rope.dimension_count": "16"}, "dimension_count = '16', not of the type int"),
        ({"tokenizer.ggml.tokens": 3}, r"tokens = 3, not a list of the type str"),
        ({"tokenizer.ggml.tokens": [1, 2]}, r"tokens = \[1, 2\], not a list of the type str"),
        ({"tokenizer.ggml.merges": "a b"}, "merges = 'a b', not a list of the type str"),
        ({"tokenizer.ggml.token_type": 3}, "token_type = 3, not a list of the type int"),
        ({"tokenizer.ggml.pre": [1]}, r"pre = \[1\], not of the type str"),
        ({"tokenizer.ggml.model": 7}, r"model = 7, not of the type str"),
        ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token = 1, not of the type bool"),
        ({"tokenizer.ggml.add_bos_token": True}, "bos_token_id = None is no token's"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 290},
            "bos_token_id = 290 is no token's",
        ),
        ({"tokenizer.ggml.add_eos_token": True}, r"add_eos_token = True, which minipt does not"),
        ({"split.count": 2, "split.no": 0}, r"is part 1 of 2 of a model: join them"),
        ({"llama.rope.scaling.type": "yarn"}, r"says llama\.rope\.scaling\.type = 'yarn'"),
        ({"llama.rope.scaling.factor": 2.0}, r"says llama\.rope\.scaling\.factor = 2\.0"),
        ({"llama.rope.scale_linear": 2.0}, r"says llama\.rope\.scale_linear = 2\.0"),
        ({"llama.attention.sliding_window": 8}, r"says llama\.attention\.sliding_window = 8"),
        ({"llama.expert_count": 2}, r"says llama\.expert_count = 2"),
        ({"llama.rope.dimension_count": 8}, r"says llama\.rope\.dimension_count = 8"),
        ({"llama.attention.key_length": 8}, r"says llama\.attention\.key_length = 8"),
        ({"llama.attention.value_length": 8}, r"says llama\.attention\.value_length = 8"),
        ({"tokenizer.ggml.model": "llama"}, "a tokenizer of the kind 'llama'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "with words of 'qwen2'"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.token_type": None}, "tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "290 tokens of 2 kinds"),
        ({"tokenizer.ggml.merges": ["a unheard-of"]}, "has a damaged tokenizer .*unheard-of"),
        ({"tokenizer.ggml.merges": ["alone"]}, "has a damaged tokenizer"),
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


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("output_norm.weight", np.ones(64, np.int32), "output_norm.weight is quantized as I32"),
        ("output_norm.weight", np.ones(32, np.float32), r"final\.gain has shape \(32,\)"),
        ("rope_freqs.weight", np.ones(8, np.float32), "holds a tensor rope_freqs.weight"),
        ("blk.0.ffn_up_exps.weight", np.ones((2, 32), np.float32), "blk.0.ffn_up_exps.weight"),
        ("blk.0.attn_q.bias", np.ones(64, np.float32), r"config has not: .*q_proj\.bias"),
        ("blk.0.weight", np.ones(8, np.float32), r"holds a tensor blk\.0\.weight"),
        ("blk.0.attn_q.weight", np.ones((255, 64), np.float32), r"has shape \(64, 255\)"),
        ("blk.0.attn_k.weight", np.ones((31, 64), np.float32), r"has shape \(64, 31\)"),
        ("output_norm.weight", np.full(64, 1e300), r"output_norm\.weight holds NaN or infinite"),
        ("blk.2.attn_norm.weight", np.ones(64, np.float32), r"config has not: .*layers\.2"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(base, tmp_path, monkeypatch, name, array, match):
    changed = gguf_writer.tensors(base) | {name: array}
    monkeypatch.setattr(gguf_writer, "tensors", lambda base: changed)
    with pytest.raises(MiniptError, match=match):
        load_base(write(tmp_path / "small.gguf", base))


def test_numbers_that_are_not_finite_are_refused(base, tmp_path):
    params = {name: array.copy() for name, array in base.params.items()}
    params["h1.mlp.up.weight"][0, 0] = np.nan
    spoilt = Base(base.name, base.config, params, base.tokenizer)
    with pytest.raises(MiniptError, match="holds NaN or infinite numbers"):
        load_base(write(tmp_path / "small.gguf", spoilt))
