"""A RUN as it was typed: a run's directory, a prompt's file, or a prompt that is kept.

In: the argument, and --registry. Out: a `Found`, which loads the prompt and its base.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from minipt.commands.terminal import command_line
from minipt.errors import MiniptError
from minipt.files.records import USUAL_NAME
from minipt.loading.load import NAMES, load_base
from minipt.prompting.prompt import SoftPrompt, load_prompt
from minipt.registry.names import is_name
from minipt.registry.registry import Registry
from minipt.registry.version import Version
from minipt.results.store import find_base
from minipt.transformer.base import Base


@dataclass(frozen=True)
class Found:
    """A prompt's file, and its version in a registry; None: it is a run's."""

    path: Path
    registry: Registry
    version: Version | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return self.version.reference if self.version else str(self.path)

    @property
    def file(self) -> Path:
        """The prompt's file, which is in a run's directory."""
        return self.path / USUAL_NAME if self.path.is_dir() else self.path

    def load_base(self, given: str | None) -> Base:
        """The base that the prompt was made for, or the one that is given."""
        if given is not None:
            return load_base(given)
        if self.version is None:
            return load_base(find_base(self.path))
        place = self.version.text("base_path") or self.version.text("base")
        if place not in NAMES and not self.version.text("base_path"):
            raise MiniptError(
                f"{self.name} was made for base {place!r}, which `minipt bases` does not know: say "
                "where it is with --base"
            )
        return load_base(place)

    def load(self, base: Base) -> SoftPrompt:
        """The prompt. Raises MiniptError for another base."""
        if self.version is None:
            return load_prompt(self.path, base)
        return self.registry.load(self.version.reference, base)

    def load_labelled(self, base: Base) -> SoftPrompt:
        """The same. Raises MiniptError too for a prompt without labels to choose from."""
        prompt = self.load(base)
        if "labels" not in prompt.about:
            raise MiniptError(
                f"{self.name} holds a prompt that was not tuned for a task: tune it first"
            )
        if not prompt.about["labels"]:
            raise MiniptError(
                f"{self.name} was tuned to write responses and knows no labels to choose from: use "
                f"`{command_line('minipt', 'generate', self.name)}`"
            )
        return prompt


def open_registry(args: argparse.Namespace) -> Registry:
    """The registry of --registry, MINIPT_REGISTRY or ./prompts."""
    return Registry(args.registry)


def find_prompt(args: argparse.Namespace, given: str) -> Found:
    """What a RUN names: NAME, NAME@2 or NAME@TAG in the registry, else a path.

    Raises MiniptError for one that is both, since the answer would depend on the working directory.
    """
    registry, path = open_registry(args), Path(given)
    name, at, _ = given.partition("@")
    is_run = os.path.isfile(path) or os.path.isfile(path / USUAL_NAME)
    is_kept = is_name(name) and registry.has(name)
    if is_run and is_kept:
        raise MiniptError(
            f"{given!r} is here a run's directory or a file, and in the registry "
            f"{registry.directory} a prompt: write {os.path.join('.', given)} for the first, and "
            f"{name}@NUMBER for the second"
        )
    if is_kept or (is_name(name) and (at or not os.path.lexists(given)) and not is_run):
        return _find_version(registry, given)
    return Found(path, registry)


def _find_version(registry: Registry, reference: str) -> Found:
    try:
        version = registry.find(reference)
    except MiniptError as error:
        if "@" in reference:
            raise
        raise MiniptError(f"there is no prompt at {reference}, and {error}") from error
    return Found(registry.path_of(version), registry, version)
