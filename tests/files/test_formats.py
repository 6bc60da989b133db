"""One reader of JSON and one of tensors."""

import numpy as np
import pytest
from helpers.damage import write_bfloat16, write_parts
from safetensors.numpy import save_file

from minipt.errors import MiniptError
from minipt.files.formats import as_float32, open_tensors, parse_json, read_json


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_in_any_of_its_encodings(tmp_path, encoding):
    (tmp_path / "a.json").write_text('{"a": "ü🙂"}', encoding=encoding)
    assert read_json(tmp_path / "a.json", "is none", "mend it") == {"a": "ü🙂"}


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": ' * 100_000, '"\\ud800"', b'"\xed\xa0\x80"', "1" * 5000]
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_both_halves_of_a_pair_are_a_character():
    assert parse_json('"\\ud83d\\ude42"') == "🙂"


def test_every_type_of_a_tensor_is_read_or_named(tmp_path):
    array = np.array([[1.5, -2.0, 3e38], [0.0, 1e-40, -1.0]], np.float32)
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.bool_, np.uint16):
        with np.errstate(over="ignore", invalid="ignore"):
            saved = array.astype(dtype)
        save_file({"a": saved}, tmp_path / "a")
        read = open_tensors(tmp_path / "a", "is none", "mend it")[0]["a"]()
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, saved)
    write_bfloat16(tmp_path / "a", {"a": array})
    read = open_tensors(tmp_path / "a", "is none", "mend it")[0]["a"]()
    np.testing.assert_array_equal(read, (array.view(np.uint32) >> 16 << 16).view(np.float32))
    for kind in ("F8_E4M3", "F8_E5M2"):
        write_parts(tmp_path / "a", {"a": (kind, (2, 3), bytes(6))})
        with pytest.raises(MiniptError, match=f"a is of type {kind}, minipt reads F16, BF16"):
            open_tensors(tmp_path / "a", "is none", "mend it")[0]["a"]()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300, -3.5e38])
def test_numbers_beyond_float32_are_refused(bad):
    with pytest.raises(MiniptError, match="here holds NaN or infinite numbers in float32"):
        as_float32(np.array([0.0, bad]), "here")
    assert as_float32(np.array([1e-300, 3.4e38]), "here").dtype == np.float32
