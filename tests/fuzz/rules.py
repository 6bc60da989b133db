"""What holds for every input, however damaged.

In: a use, a function without arguments. Out: nothing, or a `Broken` or the error that went through.
"""

import io
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from minipt.commands.cli import main
from minipt.errors import MiniptError

LONGEST_SENTENCE = 400  # characters
LONGEST_WAIT = 20  # seconds
MOST_MEMORY = 200_000_000  # bytes, beside three times what the files hold
CONTROLS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")


class Broken(AssertionError):
    """A rule was broken though no error went through."""


class TooLong(BaseException):
    """No `except Exception` may take this for a damaged file."""


def hold(use: Callable[[], object], calls: bool) -> bool:
    """Whether a use accepts its input. Raises what breaks a rule.

    calls: the use is a call of the API, where Python's own TypeError and ValueError are sentences.
    """
    refusals = (MiniptError, TypeError, ValueError) if calls else MiniptError
    held = sum(path.stat().st_size for path in Path().rglob("*") if path.is_file())
    try:
        with quickly(), sparingly(3 * held + MOST_MEMORY), np.errstate(all="ignore"):
            result = use()
    except refusals as error:
        check_sentence(str(error))
        return False
    if not is_finite(result):
        raise Broken("what was accepted is not finite")
    return True


def check_sentence(sentence: str) -> None:
    """Raise Broken for an error without a message that one reads at once."""
    if " " not in sentence.strip():
        raise Broken(f"no sentence: {sentence!r}")
    if len(sentence) > LONGEST_SENTENCE:
        raise Broken(f"a sentence of {len(sentence)} characters: {sentence[:200]!r}")


def hold_command(words: list[str], stdin: bytes = b"") -> None:
    """Run a command line. Raises Broken for output that a terminal or a program cannot trust."""
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with (
            quickly(),
            patch.object(sys, "stdin", given),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = main(words)
    except SystemExit as ended:
        status = ended.code
    complaint = err.getvalue()
    if status not in (0, 1, 2) or (status and not complaint and "doctor" not in words):
        raise Broken(f"status {status} with {complaint!r}")
    if CONTROLS.search(out.getvalue() + complaint) or "Traceback" in complaint:
        raise Broken(f"control characters or a traceback: {(out.getvalue() + complaint)[-300:]!r}")
    if "--json" in words and re.search(r"\b(NaN|Infinity)\b", out.getvalue()):
        raise Broken("NaN in JSON")
    if status == 1 and complaint:
        *_, said = complaint.partition("minipt: ")
        if said.count("\n") != 1:
            raise Broken(f"more than one line: {said[:300]!r}")
        check_sentence(re.sub(r"\\u00[0-9a-f]{2}", "?", said))  # a character each, shown as six


def is_finite(value: object) -> bool:
    """Whether no number in arrays, records and objects is NaN or infinite."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    if is_dataclass(value):
        return all(is_finite(getattr(value, field.name)) for field in fields(value))
    return not isinstance(value, float | np.floating) or math.isfinite(value)


@contextmanager
def quickly() -> Iterator[None]:
    """Raise TooLong after 20 seconds."""

    def end(*_: object) -> None:
        raise TooLong(f"longer than {LONGEST_WAIT} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST_WAIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def sparingly(most: int) -> Iterator[None]:
    """Raise Broken if the process grows by more than so many bytes meanwhile (on Linux)."""
    before = _memory("VmRSS")
    if before:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    yield
    grown = _memory("VmHWM") - before
    if grown > most:
        raise Broken(f"{grown / 1e6:.0f} MB of memory, where {most / 1e6:.0f} are allowed")


def _memory(kind: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(re.search(rf"{kind}:\s+(\d+)", status)[1])
