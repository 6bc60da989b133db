"""A run's directory: a place of its own, complete or absent, and the way back to its base."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest
from helpers.bases import random_base, random_prompt

from minipt.errors import MiniptError
from minipt.results.store import (
    checkpoint_path,
    choose_directory,
    find_base,
    remove_empty,
    unfinished,
    write_interrupted,
    write_run,
)

HISTORY = [
    {"step": 0, "validation_accuracy": 0.5, "validation_loss": 0.7},
    {"step": 1, "loss": 0.1 + 0.2, "gradient_norm": 1.0, "prompt_norm": 2.0}
    | {"distance": 0.5, "rate": 0.3},
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prompt():
    return random_prompt(random_base(0), 3)


def choose(name=None, resume=False, task="sms-spam", base="tiny", seed=0) -> str:
    return choose_directory(name, task, base, seed, resume).as_posix()


def interrupt(directory, age=0.0):
    path = checkpoint_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (1e9 - age, 1e9 - age))


def test_names(here):
    assert choose() == "runs/sms-spam-tiny-0"
    assert choose(task="my texts: all", base="", seed=3) == "runs/my-texts-all--3"
    assert choose("mine") == "runs/mine"
    assert all(path.name.endswith(".unfinished") for path in (here / "runs").iterdir())


def test_two_runs_at_the_same_time_never_meet(here):
    assert choose() == "runs/sms-spam-tiny-0"
    assert choose() == "runs/sms-spam-tiny-0-2"
    assert choose("mine") == "runs/mine"
    with pytest.raises(MiniptError, match="exists already"):
        choose("mine")


def test_what_is_there_is_never_taken(here):
    (here / "runs/sms-spam-tiny-0").mkdir(parents=True)
    assert choose() == "runs/sms-spam-tiny-0-2"
    interrupt(here / "runs/sms-spam-tiny-0-2")
    assert choose() == "runs/sms-spam-tiny-0-3"
    for name in ("sms-spam-tiny-0", "sms-spam-tiny-0-2"):
        with pytest.raises(MiniptError, match="exists already"):
            choose(name)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere not everyone may make a link")
@pytest.mark.parametrize("place", ["runs", "runs/sms-spam-tiny-0", "runs/mine.unfinished"])
def test_a_link_that_leads_nowhere_is_taken(here, place):
    (here / place).parent.mkdir(exist_ok=True)
    (here / place).symlink_to("nowhere")
    if place == "runs":
        for name in (None, "mine"):
            with pytest.raises(MiniptError, match=r"runs cannot be made .*: remove what stands"):
                choose(name)
        with pytest.raises(MiniptError, match="no interrupted run"):
            choose(resume=True)
    elif place == "runs/mine.unfinished":
        with pytest.raises(MiniptError, match="exists already"):
            choose("mine")
    else:
        assert choose() == "runs/sms-spam-tiny-0-2"


def test_a_file_in_the_place_of_the_runs_is_a_sentence(here):
    (here / "runs").touch()
    with pytest.raises(MiniptError, match=r"runs cannot be made .*: remove what stands"):
        choose()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a/", 300 * "x"])
def test_names_that_are_no_name(name):
    with pytest.raises(MiniptError, match="one plain word"):
        choose(name)


def test_resuming_finds_the_latest_interrupted_run(here):
    with pytest.raises(MiniptError, match="no interrupted run under runs/sms-spam-tiny-0"):
        choose(resume=True)
    (here / "runs/sms-spam-tiny-0").mkdir(parents=True)
    interrupt(here / "runs/sms-spam-tiny-0-2", age=5)
    interrupt(here / "runs/sms-spam-tiny-0-3", age=9)
    assert choose(resume=True) == "runs/sms-spam-tiny-0-2"
    assert choose("sms-spam-tiny-0-3", resume=True) == "runs/sms-spam-tiny-0-3"
    with pytest.raises(MiniptError, match="no interrupted run"):
        choose("sms-spam-tiny-0", resume=True)


def test_a_run_is_written_whole(here, prompt):
    directory = here / "runs/mine"
    interrupt(directory)
    write_run(directory, {"task": "words", "naïve": True}, HISTORY, prompt, b"a picture")
    assert sorted(path.name for path in directory.iterdir()) == [
        "curves.png",
        "history.csv",
        "prompt.safetensors",
        "run.json",
    ]
    assert json.loads((directory / "run.json").read_text("utf-8"))["naïve"] is True
    with open(directory / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert rows[0]["loss"] == rows[1]["validation_loss"] == ""
    assert float(rows[1]["loss"]) == 0.1 + 0.2
    assert [path.name for path in (here / "runs").iterdir()] == ["mine"]
    with pytest.raises(MiniptError, match="exists already"):
        write_run(directory, {}, HISTORY, prompt, b"a picture")


def test_a_run_without_a_picture_is_whole(here, prompt):
    write_run(here / "runs/mine", {}, HISTORY, prompt, None)
    names = {path.name for path in (here / "runs/mine").iterdir()}
    assert names == {"history.csv", "prompt.safetensors", "run.json"}


def test_links_that_lead_nowhere(here):
    (here / "runs").symlink_to("nowhere")
    for resume in (False, True):
        with pytest.raises(MiniptError, match=r"runs cannot be made|no interrupted run"):
            choose(resume=resume)
    (here / "nowhere").mkdir()
    for taken in ("sms-spam-tiny-0", "sms-spam-tiny-0-2.unfinished", "mine"):
        (here / "runs" / taken).symlink_to("gone")
    assert choose() == "runs/sms-spam-tiny-0-3"
    with pytest.raises(MiniptError, match="runs/mine exists already"):
        choose("mine")
    (here / "runs").unlink()
    (here / "runs").symlink_to("runs")  # a circle
    with pytest.raises(MiniptError, match="runs"):
        choose()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_run_that_cannot_be_written_leaves_the_checkpoint_and_nothing_else(
    here, prompt, monkeypatch, number
):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    interrupt(here / "runs/mine")
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(MiniptError, match=r"was not written|cannot be written") as caught:
        write_run(here / "runs/mine", {}, HISTORY, prompt, b"a picture")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (here / "runs").iterdir()] == ["mine.unfinished"]
    assert checkpoint_path(here / "runs/mine").exists()


def test_an_interrupted_run_keeps_its_best_prompt_beside_the_checkpoint(here, prompt):
    directory = here / "runs/mine"
    interrupt(directory)
    write_interrupted(directory, {"base_path": "/models/mine"}, prompt)
    assert sorted(path.name for path in unfinished(directory).iterdir()) == [
        "checkpoint.safetensors",
        "prompt.safetensors",
        "run.json",
    ]
    assert find_base(unfinished(directory)) == "/models/mine"


def test_only_what_is_empty_is_removed(here):
    directory = here / "runs/mine"
    remove_empty(directory)
    unfinished(directory).mkdir(parents=True)
    remove_empty(directory)
    assert list(here.iterdir()) == []
    interrupt(directory)
    remove_empty(directory)
    assert checkpoint_path(directory).exists()
    unfinished(here / "runs/other").mkdir()
    remove_empty(here / "runs/other")
    assert [path.name for path in (here / "runs").iterdir()] == ["mine.unfinished"]


def test_a_shipped_base_is_found_by_its_name(here, prompt):
    prompt.base_name = "tiny"
    prompt.save(here / "prompt.safetensors")
    assert find_base(here) == find_base(here / "prompt.safetensors") == "tiny"
    (here / "run.json").write_text('{"base_path": null}')
    assert find_base(here) == "tiny"
    for encoding in ("utf-8", "utf-8-sig"):
        (here / "run.json").write_text('{"base_path": "/another/tiny"}', encoding=encoding)
        assert find_base(here) == "/another/tiny"


@pytest.mark.parametrize("beside", [None, "", "[]", "{}", "junk", 100_000 * "["])
def test_another_base_must_be_named_in_run_json(here, prompt, beside):
    prompt.save(here / "prompt.safetensors")
    if beside is not None:
        (here / "run.json").write_text(beside)
    with pytest.raises(MiniptError, match="say where it is with --base"):
        find_base(here)
    (here / "run.json").write_text('{"base_path": "/models/mine"}')
    assert find_base(here) == "/models/mine"
