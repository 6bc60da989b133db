"""A base, a run of it, and a registry with two versions of it."""

from pathlib import Path

import pytest
from helpers.bases import base_with_tokenizer, random_prompt, small_task

import minipt
from minipt.registry.registry import Registry


@pytest.fixture(scope="session")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="session")
def run(base):
    return minipt.tune(base, small_task(), length=3, steps=4, batch_size=4)


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "prompts")


@pytest.fixture
def two(registry, run, base) -> Registry:
    """spam@1 is a bare prompt, spam@2 a run."""
    registry.save(random_prompt(base, 3), "spam", "first try")
    registry.save(run, "spam", "tuned", parent="spam@1")
    return registry


@pytest.fixture
def object_of():
    """The file of a version."""

    def path(registry: Registry, reference: str) -> Path:
        return registry.path_of(registry.find(reference))

    return path
