"""The command `watch`: its table, JSON, picture and exit status."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import write_texts

import minipt
from minipt.learning.observe import ARRAYS, Observation
from minipt.registry.registry import Registry
from minipt.tasks.task import Split


@pytest.fixture(scope="module")
def place(tmp_path_factory, saved_base) -> Path:
    """A registry with one version, and with a prompt that was kept alone."""
    directory = tmp_path_factory.mktemp("watched")
    write_texts(directory / "texts.csv")
    task = minipt.load_csv(directory / "texts.csv", "text", "label")
    few = task.validation  # as many as a real task has
    many = Split(few.texts * 30, np.tile(few.labels, 30))
    task = replace(task, validation=many)
    run = minipt.tune(minipt.load_base(saved_base), task, length=3, steps=6, batch_size=8)
    registry = Registry(directory / "prompts")
    registry.save(run, "spam")
    registry.save(run.prompt, "alone")
    registry.tag("spam", 1, "production")
    return directory


@pytest.fixture
def registry(place, tmp_path) -> Registry:
    shutil.copytree(place / "prompts", tmp_path / "prompts")
    return Registry(tmp_path / "prompts")


def fill(registry: Registry, N: int, change: float = 0.0, ago: float = 0.0) -> list[int]:
    """Log N answers as validation had them, all hidden states moved by `change`."""
    seen, _ = registry.validation("spam@1")
    rows = np.arange(N) % len(seen.tokens)
    arrays = {name: getattr(seen, name)[rows] for name in ARRAYS}
    arrays["hidden"] = arrays["hidden"] + np.float32(change)
    seen = Observation(seen.labels, **arrays)
    return registry.log("spam@1", seen, times=time.time() - ago + np.arange(N) * 0.001)


@pytest.fixture
def watch(call, registry):
    return lambda *more: call("watch", "spam@production", "--registry", registry.directory, *more)


def test_a_quiet_log_ends_with_status_0(watch, registry):
    fill(registry, 80)
    status, out, err = watch()
    assert (status, err) == (0, "")
    assert "spam@1: 80 answers" in out
    assert "no alarm" in out
    assert "no truth is known" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_changed_log_ends_with_status_1_and_says_what_changed(watch, registry):
    fill(registry, 80, change=50.0)
    status, out, err = watch()
    assert (status, err) == (1, "")
    assert "ALARM at the level 0.001 of all tests together: hidden states" in out


def test_json_says_the_same(watch, registry):
    ids = fill(registry, 80, change=50.0)
    labels = registry.find("spam@1").labels
    registry.add_truth(dict.fromkeys(ids[:30], labels[0]))
    status, out, _ = watch("--json")
    record = json.loads(out)
    assert (status, record["alarm"], record["answers"]) == (1, True, 80)
    found = {each["name"]: each for each in record["findings"]}
    assert found["hidden states"]["alarms"]
    assert not found["tokens"]["alarms"]
    assert record["truths"][1]["total"] == 30
    assert sum(share["logged"] for share in record["shares"].values()) == pytest.approx(1)


def test_truth_is_shown_with_its_interval_and_calibration(watch, registry):
    ids = fill(registry, 80)
    labels = registry.find("spam@1").labels
    registry.add_truth(dict.fromkeys(ids, labels[0]))
    assert "temperature T =" in watch()[1]


def test_only_what_was_logged_since_counts(watch, registry):
    fill(registry, 80, change=50.0, ago=10 * 86_400)
    assert watch()[0] == 1
    status, out, err = watch("--since", "7d")
    assert (status, out) == (1, "")
    assert "nothing was logged of spam@1 since 7d" in err
    fill(registry, 40)
    assert watch("--since", "7d")[0] == 0
    assert "spam@1: 40 answers" in watch("--since", "7d")[1]
    assert "spam@1: 120 answers" in watch("--since", "2020-01-01")[1]


@pytest.mark.parametrize("since", ["7", "7y", "soon", "-1d", ""])
def test_a_time_that_is_none_is_one_sentence(watch, registry, since):
    fill(registry, 10)
    status, _, err = watch(f"--since={since}")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "--since" in err


def test_an_empty_log_is_one_sentence(watch):
    status, out, err = watch()
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "minipt predict spam@1 --log" in err


def test_a_version_without_its_validation_split_is_not_watched(call, registry):
    status, out, err = call("watch", "alone", "--registry", registry.directory)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "validation split" in err


@pytest.mark.parametrize("truth", [True, False])
def test_a_page_is_drawn(watch, registry, tmp_path, truth):
    ids = fill(registry, 80)
    if truth:
        seen, right = registry.validation("spam@1")
        registry.add_truth({id: seen.labels[k] for id, k in zip(ids, right, strict=False)})
    status, _, err = watch("--save", tmp_path / "page.png")
    assert (status, err) == (0, "")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_of_another_kind_is_refused_before_the_work(watch, tmp_path):
    status, _, err = watch("--save", tmp_path / "page.txt")
    assert status == 1
    assert "page.txt" in err


def test_one_answer_is_watched(watch, registry):
    fill(registry, 1)
    assert watch()[0] == 0


def test_an_alarm_over_time_says_which_label_grows_and_since_when(watch, registry):
    seen, _ = registry.validation("spam@1")
    common = np.bincount(seen.answers, minlength=2).argmax()
    arrays = {name: getattr(seen, name).copy() for name in ARRAYS}
    late = np.arange(len(seen.tokens)) >= len(seen.tokens) // 2
    arrays["probabilities"][late] = np.where(np.arange(2) == common, 0.1, 0.9)
    registry.log("spam@1", replace(seen, **arrays))
    status, out, _ = watch()
    assert status == 1
    assert f"the share of {seen.labels[1 - common]!r} grows since answer" in out
