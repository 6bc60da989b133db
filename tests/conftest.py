"""What all tests share: drawn cases are the same in every run, and may take their time.

Since this file is here, the helpers beside it (`bases`, `op_checks`, `comparison`) can be imported
from the folders below too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.bases import base_with_tokenizer, write_texts
from hypothesis import settings

from minipt.commands import cli
from minipt.learning import loop as learning
from minipt.loading.load import save_base

settings.register_profile("same-cases", deadline=None, derandomize=True, database=None)
settings.load_profile("same-cases")


@pytest.fixture(scope="session")
def saved_base(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("bases") / "small"
    save_base(base_with_tokenizer(), directory)
    return directory


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with texts of two classes in a CSV file."""
    write_texts(tmp_path / "texts.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Run a command in this process; returns its exit status, standard output and error."""

    def called(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


@pytest.fixture
def ctrl_c(monkeypatch):
    """A context in which Ctrl-C comes in the middle of a step, once its arrays have changed."""

    @contextmanager
    def at(step: int) -> Iterator[None]:
        real = learning._step

        def pressed(*arguments):
            record = real(*arguments)
            if record["step"] == step:
                raise KeyboardInterrupt
            return record

        with monkeypatch.context() as patched:
            patched.setattr(learning, "_step", pressed)
            yield

    return at
