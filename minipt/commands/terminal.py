"""What a user sees and types: streams that a terminal need not fear, and command lines.

In: text that may hold anything, such as labels, names of files and tensors, and what libraries say.
Out: the same text on the user's streams, with every control character shown as text.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

# A terminal obeys control characters. JSON writes them in the same way, so JSON stays as it is.
CONTROLS = {
    code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
# A progress bar goes to the beginning of its line, or moves between the lines of several bars.
MOVES = re.compile(r"\r|(\n|\x1b\[A)+\Z")


class Shown:
    """A stream that shows control characters as text, such as \\u001b for Escape.

    A letter that the stream lacks becomes a question mark. bars: the stream has progress bars.
    """

    def __init__(self, stream: TextIO, bars: bool = False) -> None:
        self.stream, self.bars = stream, bars

    def write(self, text: str) -> int:
        """Write a text; returns how many characters of it were written, all of them."""
        move = MOVES.match(text) if self.bars else None
        kept = move.group() if move else ""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = kept + text[len(kept) :].translate(CONTROLS)
        self.stream.write(shown.encode(encoding, "replace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def shown_streams() -> Iterator[None]:
    """Standard output and standard error are such streams meanwhile.

    They may be any streams, those of a notebook too. What is written to a stream that the shell has
    closed, or a program, is lost.
    """
    with open(os.devnull, "w", encoding="utf-8") as lost:
        out = Shown(lost if is_closed(sys.stdout) else sys.stdout)
        err = Shown(lost if is_closed(sys.stderr) else sys.stderr, bars=True)
        with redirect_stdout(out), redirect_stderr(err):
            yield


def is_closed(stream: TextIO | None) -> bool:
    """Whether a stream is closed. None is a stream that the shell has closed."""
    return stream is None or getattr(stream, "closed", False)


def complain(sentence: object) -> None:
    """Say on standard error what is wrong, in one line."""
    line = str(sentence).replace("\n", " ")  # a file's name or a library's message may have several
    print(f"minipt: {line}", file=sys.stderr)


def command_line(*words: str) -> str:
    """Words as a line to type, in the quotation marks that the system's shell knows."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
