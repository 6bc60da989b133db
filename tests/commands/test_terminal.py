"""What a terminal gets: no control characters, on any stream; and lines that its shell reads."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys

import pytest

from minipt.commands import cli, doctor
from minipt.commands.terminal import Shown, command_line
from minipt.errors import MiniptError

ESCAPE = "a\x1b[31m\x9b2J\x07\rb"
TEXT = r"a\u001b[31m\u009b2J\u0007\u000db"


class Lines(io.StringIO):
    """A stream of a notebook: no bytes behind it, no number, nothing to configure."""

    encoding = "utf-8"
    reconfigure = property()

    def fileno(self):
        raise io.UnsupportedOperation("fileno")


@pytest.mark.parametrize("stream", [io.StringIO, Lines])
def test_a_command_writes_to_any_streams_and_leaves_them_as_they_were(stream):
    out, err = stream(), stream()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.main(["bases"]) == 0
        assert cli.main(["predict", "nowhere", "a text"]) == 1
        assert (sys.stdout, sys.stderr) == (out, err)
    assert "\ntiny " in out.getvalue()
    assert err.getvalue().startswith("minipt: there is no prompt at nowhere")


def test_no_streams_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["bases"]) == 0
    assert cli.main(["predict", "nowhere", "a text"]) == 1


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_the_program_has_closed(monkeypatch, name):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, name, stream)
    assert cli.main(["bases"]) == 0
    assert cli.main(["predict", "nowhere"]) == 1


def test_an_output_that_fails_and_is_no_file_of_the_systems(monkeypatch, capfd):
    class Full(Lines):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with contextlib.redirect_stdout(Full()):
        assert cli.main(["bases"]) == 1
    assert capfd.readouterr().err == (
        "minipt: the output cannot be used (No space left on device)\n"
    )
    os.write(1, b"still there\n")
    assert capfd.readouterr().out == "still there\n"


def test_control_characters_are_shown_as_text():
    out = io.StringIO()
    Shown(out).write(f"{ESCAPE}\n\t\x7f")
    assert out.getvalue() == f"{TEXT}\n\t\\u007f"
    assert json.loads(f'"{TEXT}"') == ESCAPE  # what is JSON stays JSON


def test_a_letter_that_the_stream_lacks_is_a_question_mark():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    assert Shown(out).write("caf\u00e9 \udcff") == 6
    out.flush()
    assert raw.getvalue() == b"caf? ?"


def test_progress_bars_move_and_nothing_else_does():
    out = io.StringIO()
    bar = Shown(out, bars=True)
    for text in ("\rtuning: 50%\x1b[A", "\n\n", "\x1b[A\x1b[A", "a\r", "\x1b[2J"):
        bar.write(text)
    assert out.getvalue() == "\rtuning: 50%\\u001b[A\n\n\x1b[A\x1b[Aa\\u000d\\u001b[2J"


def test_what_is_wrong_is_one_line_without_escapes(capsys, monkeypatch):
    def failing():
        raise MiniptError(f"{ESCAPE}\nsaid a library")

    monkeypatch.setattr(doctor, "examine", failing)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == f"minipt: {TEXT} said a library\n"


def test_arguments_and_file_names_with_escapes(call, here):
    for line in (
        ["tune", f"--{ESCAPE}"],
        ["predict", ESCAPE, "a text"],
        ["tune", "--base", ESCAPE],
    ):
        status, out, err = call(*line)
        assert status != 0
        assert "1b[31m" in err
        assert not {"\x1b", "\x9b", "\x07", "\r"} & set(out + err)


def test_labels_and_names_of_data_with_escapes(call, here, saved_base):
    text = (here / "texts.csv").read_text().replace(",bad", f",{ESCAPE[:-2]}")
    (here / "x\x1b[31m.csv").write_text(text)
    columns = ("--text-column", "text", "--label-column", "label")
    job = (
        "--csv",
        "x\x1b[31m.csv",
        *columns,
        "--base",
        saved_base,
        "--steps",
        "2",
        "--length",
        "2",
    )
    for more in ((), ("--json",), ("--label-words", "good=good")):
        status, out, err = call("tune", *job, *more)
        assert status == (1 if "--label-words" in more else 0), err
        assert not {"\x1b", "\x9b", "\x07"} & set(out + err)


def test_command_lines_are_quoted_as_the_shell_reads_them(monkeypatch):
    words = ("minipt", "predict", "runs/a b", "a text of your own", "it's")
    assert shlex.split(command_line(*words)) == list(words)
    monkeypatch.setattr(sys, "platform", "win32")
    assert command_line(*words) == 'minipt predict "runs/a b" "a text of your own" it\'s'


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_bar_still_moves_on_a_real_terminal(here, saved_base):
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    line = ["sweep", "--csv", "texts.csv", "--text-column", "text", "--label-column", "label"]
    line += ["--base", str(saved_base), "--length", "1,2", "--steps", "2", "--seeds", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "minipt", *line], stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # so Linux says that the other end is closed
            while part := os.read(ours, 1 << 16):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    assert b"\rruns: " in seen
    assert b"u001b" not in seen
