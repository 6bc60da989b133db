"""What minipt writes for itself is believed whole, or refused."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minipt.errors import MiniptError
from minipt.files.records import read_record, read_tensors, write_record, write_tensors

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3)}
RECORD = {"numbers": [1, 2.5, None], "naïve": {"x": True}}


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, ARRAYS, RECORD)
    arrays, record = read_tensors(path, "file", "")
    assert record == RECORD
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    write_record(path, RECORD)
    assert read_record(path, "") == RECORD


def test_every_changed_bit_is_noticed(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, ARRAYS, RECORD)
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        if b"sha256" in whole[place - 5 : place + 6]:  # the name under which it stands
            continue
        path.write_bytes(flipped(whole, place))
        with pytest.raises(MiniptError, match="do it again"):
            read_tensors(path, "file", "do it again")


def test_a_changed_record_is_noticed(tmp_path):
    path = tmp_path / "file"
    write_record(path, RECORD)
    whole = path.read_bytes()
    for place in (whole.index(b"2.5"), whole.index(b"numbers"), whole.index(b"true")):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(MiniptError, match="do it again"):
            read_record(path, "do it again")


def test_files_from_before_are_read(tmp_path):
    path = tmp_path / "file"
    save_file(ARRAYS, path, {"minipt": json.dumps(RECORD)})
    assert read_tensors(path, "file", "")[1] == RECORD
    for record in (RECORD, [1, 2], 3.5):
        path.write_text(json.dumps(record), encoding="utf-8-sig")
        assert read_record(path, "") == record


def test_numbers_that_were_converted_are_read(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, ARRAYS, RECORD)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file({"a": ARRAYS["a"].astype(np.float16)}, path, metadata)
    assert read_tensors(path, "file", "")[0]["a"].dtype == np.float16


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", 100_000 * b"["])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(MiniptError, match=r"cannot be read .*: do it again") as caught:
        read_record(tmp_path / "file", "do it again")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_refused(tmp_path):
    with pytest.raises(MiniptError, match="do it again"):
        read_record(tmp_path / "file", "do it again")
    with pytest.raises(MiniptError, match="it is a directory"):
        read_record(tmp_path, "do it again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_no_pipe_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_record, lambda path, advice: read_tensors(path, "file", advice)):
        with pytest.raises(MiniptError, match="a device"):
            read(tmp_path / "pipe", "do it again")


def test_an_array_in_another_order_of_memory_is_written_as_it_reads(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "file", {"array": array.T}, {})
    np.testing.assert_array_equal(read_tensors(tmp_path / "file", "", "")[0]["array"], array.T)
