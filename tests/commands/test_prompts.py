"""Kept prompts on the command line: wherever a RUN is taken, and the command `prompts`."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, write_texts

import minipt
from minipt.commands import cli, tune
from minipt.loading.load import load_base, save_base
from minipt.registry.registry import Registry

CSV = ("--csv", "texts.csv", "--text-column", "text", "--label-column", "label")
QUICK = ("--length", "3", "--steps", "6", "--batch-size", "8")
RUN = "runs/texts-small-0"
TEXTS = ("a good day", "cruel words")


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr(tune, "draw_curves", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.delenv("MINIPT_REGISTRY", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, saved_base) -> Path:
    """A directory with a run that was kept as spam@1, made once."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("kept"))
    write_texts(Path("texts.csv"))
    line = ["tune", *CSV, "--base", str(saved_base), *QUICK, "--keep", "spam", "-m", "first try"]
    assert cli.main(line) == 0
    place = Path.cwd()
    os.chdir(before)
    return place


@pytest.fixture
def kept(finished, tmp_path, monkeypatch) -> Path:
    """A working directory of one's own with all of it."""
    place = tmp_path / "work"
    shutil.copytree(finished, place)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def job(saved_base) -> list[str]:
    return ["tune", *CSV, "--base", str(saved_base), *QUICK]


def one_sentence(err: str) -> str:
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("minipt: "), err
    return lines[0]


def as_json(call, *arguments):
    status, out, err = call(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


# --- keeping ---


def test_tune_keeps_a_version_and_says_so(kept, call):
    record = as_json(call, "prompts", "show", "spam@1")
    assert record["message"] == "first try" and record["parent"] is None
    assert record["record"] == json.loads((kept / RUN / "run.json").read_text())
    assert Registry("prompts").validation("spam")[0].labels == ("bad", "good")
    status, out, _ = call("prompts")
    assert status == 0
    assert out.splitlines()[0].split() == "name version tags base task accuracy date".split()
    accuracy = f"{record['record']['test_accuracy']:.3f}"
    assert out.splitlines()[1].split()[:-1] == ["spam", "1", "-", "small", "texts", accuracy]


def test_tune_goes_on_from_a_version_which_becomes_the_parent(kept, call, job):
    line = [word for word in job if word not in ("--length", "3")]
    status, out, _ = call(*line, "--init", "spam@1", "--keep", "spam")
    assert status == 0
    assert f"kept:    spam@2 in {kept / 'prompts'}" in out
    assert Registry().find("spam").parent == "spam@1"
    call(*line, "--init", RUN, "--name", "from-a-directory")  # the same content
    assert call("prompts", "keep", "runs/from-a-directory", "spam")[0] == 0
    assert Registry().find("spam@3").parent == "spam@1"


def test_a_resumed_run_has_the_kept_part_as_its_parent(kept, call, job, ctrl_c):
    with ctrl_c(4):
        assert call(*job, "--name", "half")[0] == 130
    assert call("prompts", "keep", "runs/half.unfinished", "half", "-m", "so far")[0] == 0
    assert call(*job, "--name", "half", "--resume", "--keep", "half")[0] == 0
    assert Registry().find("half@2").parent == "half@1"


def test_keep_takes_a_run_or_its_file(kept, call):
    for given in (RUN, f"{RUN}/prompt.safetensors"):
        assert call("prompts", "keep", given, "again", "-m", given)[0] == 0
    versions = Registry().versions("again")
    assert [each.message for each in versions] == [RUN, f"{RUN}/prompt.safetensors"]
    assert len({each.sha256 for each in versions}) == 1
    status, _, err = call("prompts", "keep", "spam@1", "again")
    assert status == 1 and "spam@1 is kept already" in one_sentence(err)


@pytest.mark.parametrize("name", ["a/b", "a@2", "a,b", "", ".hidden", "x" * 300])
def test_a_name_that_cannot_be_kept_is_refused_before_anything_is_learnt(kept, call, job, name):
    status, _, err = call(*job, f"--keep={name}", "--name", "new")
    assert status == 1 and "name" in one_sentence(err)
    assert not list(kept.glob("runs/new*"))


def test_a_message_belongs_to_a_name(kept, call, job):
    status, _, err = call(*job, "-m", "first")
    assert status == 2 and "-m is the message of --keep NAME" in err


def test_a_run_that_cannot_be_kept_is_complete_all_the_same(kept, call, job):
    (kept / "file").write_text("")
    status, _, err = call(*job, "--keep", "spam", "--registry", "file", "--name", "new")
    assert status == 1
    assert "the run itself is complete in runs/new" in err.splitlines()[-1]
    assert (kept / "runs/new/run.json").exists()


# --- wherever a RUN is taken ---


def test_a_version_answers_as_its_run_does(kept, call, tmp_path):
    call("prompts", "tag", "spam@1", "production")
    runs = (RUN, "spam", "spam@1", "spam@production")
    outputs = {call("predict", run, *TEXTS)[1] for run in runs}
    assert len(outputs) == 1 and "a good day" in outputs.pop()
    for run in runs:
        assert call("generate", run, "a", "--limit", "3")[0] == 0
        assert call("xray", "a good day", "--run", run)[0] == 0
        assert call("read", run, *CSV, "--texts", "4")[0] == 0


def test_a_version_becomes_an_adapter(kept, saved_base):
    base = load_base(saved_base)
    prompt = minipt.Registry().load("spam@1", base)
    prompt.to_peft("adapter")
    assert (minipt.from_peft("adapter", base).vectors == prompt.vectors).all()


def test_the_registry_is_the_option_then_the_variable_then_the_directory(kept, call, monkeypatch):
    line = ("predict", "spam@1", "a good day")
    shutil.move("prompts", "elsewhere")
    for status, arguments, variable in (
        (1, (), None),
        (0, ("--registry", "elsewhere"), None),
        (0, (), "elsewhere"),
        (1, ("--registry", "nowhere"), "elsewhere"),
    ):
        with monkeypatch.context() as patched:
            if variable:
                patched.setenv("MINIPT_REGISTRY", variable)
            found, _, err = call(*line, *arguments)
            assert found == status
            if status:
                assert f"there is no registry at {kept}{os.sep}" in one_sentence(err)
    assert not (kept / "prompts").exists() and not (kept / "nowhere").exists()
    status, out, _ = call("prompts", "--registry", "elsewhere", "show", "spam")
    assert status == 0 and out.startswith("spam@1\n")  # given before the action, it counts too


@pytest.mark.parametrize("reference", ["spma", "spam@9", "spam@live", "spam@", "a@b@c", "eggs@1"])
def test_an_unknown_version_is_one_sentence(kept, call, reference):
    for line in (
        ("predict", reference, "x"),
        ("generate", reference, "x"),
        ("xray", "x", "--run", reference),
        ("prompts", "show", reference),
        ("prompts", "tag", reference, "live"),
        ("prompts", "diff", "spam", reference),
    ):
        status, out, err = call(*line)
        assert (status, out) == (1, "")
        sentence = one_sentence(err)
        if reference in ("spma", "spam@9", "spam@live", "eggs@1"):
            assert str(kept / "prompts") in sentence


def test_what_is_a_run_and_a_name_is_refused(kept, call):
    shutil.copytree(RUN, "spam")
    status, _, err = call("predict", "spam", "x")
    assert status == 1
    assert "'spam' is here a run's directory or a file, and in the registry" in one_sentence(err)
    assert call("predict", "./spam", "x")[0] == 0
    assert call("predict", "spam@1", "x")[0] == 0
    shutil.rmtree("spam")
    (kept / "spam").mkdir()  # a directory without a prompt is no run
    assert call("predict", "spam", "x")[0] == 0


def test_a_prompt_of_another_base_is_refused_by_name(kept, call, tmp_path):
    save_base(base_with_tokenizer(1), tmp_path / "other")
    status, _, err = call("predict", "spam@1", "x", "--base", tmp_path / "other")
    assert status == 1 and "spam@1 was made for base 'small'" in one_sentence(err)
    other = load_base(tmp_path / "other")
    task = minipt.load_csv("texts.csv", "text", "label")
    Registry().save(minipt.tune(other, task, length=2, steps=1), "other")
    status, _, err = call("predict", "--each", "spam@1,other@1", "x")
    assert status == 1 and "other@1 was made for base 'other'" in one_sentence(err)


def test_a_base_that_is_not_known_is_asked_for(kept, call, saved_base):
    task, base = minipt.load_csv("texts.csv", "text", "label"), load_base(saved_base)
    Registry().save(minipt.tune(base, task, length=2, steps=1), "spam")
    status, _, err = call("predict", "spam@2", "x")
    assert status == 1 and "spam@2 was made for base 'small', which" in one_sentence(err)
    assert call("predict", "spam@2", "x", "--base", saved_base)[0] == 0


# --- the actions ---


def test_tags_move_and_come_back(kept, call, job):
    call(*job, "--keep", "spam")
    assert call("prompts", "tag", "spam@1", "production")[1] == "production is on spam@1\n"
    moved = call("prompts", "tag", "spam@2", "production")[1]
    assert moved == "production is on spam@2, before on spam@1\n"
    call("prompts", "tag", "spam@1", "production")
    assert Registry().tags("spam") == {"production": 1}
    lines = call("prompts", "log", "spam")[1].splitlines()
    assert len(lines) == 5 and "kept spam@1" in lines[0] and "first try" in lines[0]
    assert "tag production: @2 to @1" in lines[-1] and " by " in lines[-1]
    record = as_json(call, "prompts", "log", "spam")
    assert [move["after"] for move in record["moves"]] == [1, 2, 1]
    assert "no longer on spam@1" in call("prompts", "untag", "spam@production")[1]
    assert call("prompts", "untag", "spam@1")[0] == 2
    assert Registry().tags("spam") == {}


def test_what_is_not_known_is_shown_as_a_dash(kept, call):
    call("prompts", "keep", f"{RUN}/prompt.safetensors", "bare")
    row = call("prompts")[1].splitlines()[1].split()
    assert row[:6] == ["bare", "1", "-", "small", "texts", "-"]
    shown = dict(
        line.split("  ", 1) for line in call("prompts", "show", "bare")[1].splitlines()[1:]
    )
    assert shown["accuracy"].strip() == shown["message"].strip() == shown["BLAS"].strip() == "-"
    shown = call("prompts", "show", "spam")[1]
    assert " to " in shown and "steps=6" in shown and "numpy" in shown


def test_diff_asks_which_one_is_better(kept, call, job):
    call(*job, "--seed", "1", "--keep", "spam")
    out = call("prompts", "diff", "spam@1", "spam@2")[1]
    assert "seed" in out and "cosine" in out and "McNemar" not in out
    status, out, err = call("prompts", "diff", "spam@1", "spam@2", *CSV)
    assert (status, err) == (0, "")
    assert "95 % interval, paired" in out and "McNemar's exact test, p =" in out
    for wrong in (RUN, "spam@9"):
        status, out, err = call("prompts", "diff", "spam@1", wrong, *CSV)
        assert (status, out) == (1, "") and one_sentence(err)
    answers = as_json(call, "prompts", "diff", "spam@1", "spam@2", *CSV)["answers"]
    assert answers["total"] == 6
    assert answers["gained"] - answers["lost"] == answers["correct"][1] - answers["correct"][0]


def test_verify_names_what_is_damaged_and_ends_with_1(kept, call):
    status, out, _ = call("prompts", "verify")
    counts = "versions: 1, damaged: 0; files that no version names, which is no fault: 0\n"
    assert (status, out) == (0, counts)
    (path,) = (kept / "prompts/objects").iterdir()
    path.write_bytes(b"")
    status, out, _ = call("prompts", "verify")
    assert status == 1 and out.startswith("spam@1: its file ")
    assert call("prompts", "verify", "--json")[0] == 1


def test_remove_needs_a_number(kept, call):
    assert call("prompts", "remove", "spam")[0] == 2
    assert call("prompts", "remove", "spam@1")[1] == "removed: spam@1\n"
    status, _, err = call("prompts", "show", "spam")
    assert status == 1 and "there is none yet" in one_sentence(err)
    assert call("prompts")[1].split() == "name version tags base task accuracy date".split()


def test_export_and_import(kept, call):
    assert call("prompts", "export", "backup.zip")[1] == "versions written to backup.zip: 1\n"
    status, out, _ = call("prompts", "import", "backup.zip", "--registry", "other")
    assert (status, out) == (0, f"new versions in {kept / 'other'}: 1\n")
    assert call("predict", "spam@1", "x", "--registry", "other")[0] == 0


# --- answers ---


def test_each_answers_with_several_prompts(kept, call):
    call("prompts", "tag", "spam@1", "production")
    status, out, _ = call("predict", "--each", f"spam@production,{RUN}", *TEXTS)
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["prompt", "answer", "sure", "text"]
    assert [line[0] for line in lines[1:]] == ["spam@1", RUN] * 2
    assert lines[1][1:] == lines[2][1:]
    status, out, _ = call("predict", *TEXTS, "--each", f"spam,{RUN}", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [(a["prompt"], a["text"]) for a in answers] == [
        (name, text) for text in TEXTS for name in ("spam@1", RUN)
    ]
    for wrong in ("spam,", "spam,spam", ",", "spam,,x"):
        assert call("predict", "--each", wrong, "x")[0] == 2


def test_the_log_has_every_answer_and_no_text(kept, call):
    status, out, _ = call("predict", "spam@1", *TEXTS, "--log")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["id", "1", "2"]
    status, out, _ = call("predict", "spam@1", *TEXTS, "--log-texts", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [(each["id"], each["prompt"]) for each in answers] == [(3, "spam@1"), (4, "spam@1")]
    logged = Registry().logged("spam@1")
    assert logged.ids.tolist() == [1, 2, 3, 4]
    for n, answer in enumerate(answers):
        shares = logged.observation.probabilities[n + 2].tolist()
        assert shares == list(answer["probabilities"].values())
    with Registry().reading() as tables:
        texts = [row["text"] for row in tables.rows("SELECT text FROM log ORDER BY id")]
    assert texts == [None, None, *TEXTS]


def test_the_log_takes_kept_prompts_only(kept, call):
    for line in (("predict", RUN, "x"), ("predict", "--each", f"spam,{RUN}", "x")):
        status, out, err = call(*line, "--log")
        assert (status, out) == (1, "")
        assert f"`minipt prompts keep {RUN} NAME`" in one_sentence(err)
    assert Registry().logged("spam").ids.size == 0


def test_the_truth_comes_from_a_table(kept, call):
    call("predict", "spam@1", *TEXTS, "--log")
    Path("truth.csv").write_text("id,label\n1,good\n2,bad\n")
    assert call("prompts", "truth", "truth.csv")[1] == "answers that have their truth: 2\n"
    assert Registry().logged("spam").right.tolist() == [1, 0]
    for row, sentence in (
        ("7,good", "the log has no answer 7"),
        ("1,ham", "the answer 1 has no label 'ham': choose one of bad, good"),
        ("x,good", "has the id 'x'"),
        ("-1,good", "has the id '-1'"),
        ("9" * 40 + ",good", "has the id '999"),
    ):
        Path("truth.csv").write_text(f"id,label\n{row}\n")
        status, _, err = call("prompts", "truth", "truth.csv")
        assert status == 1 and sentence in one_sentence(err)
    assert Registry().logged("spam").right.tolist() == [1, 0]
    assert call("prompts", "forget", "--before", "2999-01-01")[1] == "answers forgotten: 2\n"
    assert call("prompts", "forget", "--before", "soon")[0] == 1


def test_a_table_gets_the_answers_behind_its_own_columns(kept, call):
    rows = [["n", "text", "note"], ["1", "a good day", "x"], ["2", "cruel, long\nwords", ""]]
    with open("mine.csv", "w", newline="") as file:
        csv.writer(file).writerows([*rows, ["3", "kind people"]])
    line = ("predict", "spam@1", "--csv", "mine.csv", "--text-column", "text")
    status, out, _ = call(*line, "--save", "answers.csv", "--log")
    assert (status, out) == (0, "")
    with open("answers.csv", encoding="utf-8", newline="") as file:
        head, *answered = csv.reader(file)
    assert head == ["n", "text", "note", "answer", "p(bad)", "p(good)", "cut", "id"]
    assert [row[:3] for row in answered] == [*rows[1:], ["3", "kind people", ""]]
    base = load_base(json.loads((kept / RUN / "run.json").read_text())["base_path"])
    prompt = Registry().load("spam", base)
    for row, expected in zip(
        answered, minipt.predict(base, prompt, [row[1] for row in answered]), strict=True
    ):
        assert row[3] == expected.label
        np.testing.assert_allclose(
            [float(each) for each in row[4:6]], list(expected.probabilities.values()), rtol=1e-6
        )
    assert [row[6:] for row in answered] == [["0", "1"], ["0", "2"], ["0", "3"]]
    assert len(call(*line)[1].splitlines()) == 4  # without --save it is printed


def test_a_table_that_cannot_be_answered_is_refused(kept, call):
    line = ("predict", "spam@1", "--csv", "mine.csv", "--text-column", "text")
    for content, sentence in (
        ("text\n", "has no rows: add some, with text"),
        ("a,b\n1,2\n", "has no column 'text'"),
        ("text,text\n1,2\n", "has two columns 'text'"),
        ("text,n\n,1\n", "has 1 rows with an empty text, the first at line 2"),
        ("text,answer\na,1\n", "has a column 'answer' already"),
    ):
        Path("mine.csv").write_text(content)
        status, _, err = call(*line, "--save", "answers.csv", "--log")
        assert status == 1 and sentence in one_sentence(err)
    assert Registry().logged("spam").ids.size == 0  # nothing was answered
    for wrong in (
        ("predict", "spam@1", "--csv", "mine.csv"),
        ("predict", "spam@1", "--text-column", "text", "x"),
        ("predict", "spam@1", "x", "--save", "answers.csv"),
        (*line, "a text"),
        ("predict", "--each", "spam,x", *line[2:], "--save", "answers.csv"),
        ("predict",),
    ):
        assert call(*wrong)[0] == 2
    assert not Path("answers.csv").exists()


def test_an_order_of_arguments_changes_nothing(kept, call):
    expected = call("predict", "spam@1", *TEXTS)[1]
    base = json.loads((kept / RUN / "run.json").read_text())["base_path"]
    assert call("predict", "--base", base, "spam@1", *TEXTS)[1] == expected
    assert call("predict", "spam@1", "--base", base, *TEXTS)[1] == expected
    assert call("predict", "spam@1", TEXTS[0], "--base", base, TEXTS[1])[1] == expected
