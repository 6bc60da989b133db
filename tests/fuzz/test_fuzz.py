"""A minute of damaged inputs, the same ones each time."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

FEW_ENOUGH = 2000


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="the fuzzer needs Linux or macOS")
def test_no_damaged_input_ends_in_anything_but_a_sentence_or_a_sound_result():
    """In a process of its own, which may wait, fill its memory and end as it will."""
    command = [sys.executable, Path(__file__).with_name("run.py"), "--count", str(FEW_ENOUGH)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
