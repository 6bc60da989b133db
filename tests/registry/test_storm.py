"""Many processes at one registry, and some that are killed; `storm.py` takes larger numbers."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("storm", Path(__file__).with_name("storm.py"))
storm = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(storm)


def test_processes_that_keep_and_tag_together_lose_nothing(tmp_path):
    storm.together(tmp_path / "prompts", 48, 4)


def test_kill_9_at_any_moment_damages_no_version(tmp_path):
    storm.killed(tmp_path / "prompts", 10)


def test_the_checks_can_fail(tmp_path):
    """Of a tag's history one move is taken away, or a prompt is damaged."""
    registry = storm.Registry(tmp_path)
    storm.work(tmp_path, 0, 4)
    storm.check(registry)
    (tmp_path / "objects" / f"{registry.find('spam@2').sha256}.safetensors").write_bytes(b"")
    with pytest.raises(AssertionError):
        storm.check(registry)
