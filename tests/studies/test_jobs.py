"""Runs done once, sweeps over them, and a kill at any moment that changes nothing."""

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, small_task

from minipt.errors import MiniptError
from minipt.files.records import read_tensors, write_tensors
from minipt.learning import loop as learning
from minipt.learning.evaluate import evaluate
from minipt.learning.settings import Settings
from minipt.results.kept import remember
from minipt.results.store import checkpoint_path
from minipt.rivals import LEARNERS
from minipt.studies.jobs import Job, run, run_all
from minipt.studies.sweep import describe, draw, sweep, tell

QUICK = {"length": 3, "steps": 12, "batch_size": 4, "evaluate_every": 4, "warmup": 2}


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(base, task, learner="prompt", **settings):
    return Job(learner, base, task, Settings(**QUICK | settings))


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_job_is_run_once_and_read_afterwards(base, task, learner, monkeypatch):
    before = base.fingerprint
    start = {"method": "text", "text": "a good day"}  # what the wayward prompt needs
    first = run(job(base, task, learner, **start))
    monkeypatch.setattr(learning, "_step", None)  # no step is taken again
    again = run(job(base, task, learner, **start))
    assert again.record == first.record
    for name, array in first.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes()
    assert base.fingerprint == before
    evaluation = again.evaluate(task.test, task)
    assert evaluation.accuracy == first.record["test_accuracy"]
    assert evaluation.loss == pytest.approx(first.record["test_loss"], abs=1e-6)


def test_what_decides_a_result_decides_its_place(base, task):
    places = {
        job(base, task).directory,
        job(base, task, seed=1).directory,
        job(base, task, learning_rate=0.1).directory,
        job(base, task, "full").directory,
        job(base_with_tokenizer(seed=3), task).directory,
        job(base, replace(task, test=task.validation)).directory,
        Job("prompt", base, task, Settings(**QUICK), run(job(base, task)).prompt()).directory,
    }
    assert len(places) == 7


def test_a_prompts_result_is_a_prompt_that_can_be_used(base, task):
    result = run(job(base, task))
    evaluation = evaluate(base, result.prompt(), task.test, task)
    assert evaluation.accuracy == result.record["test_accuracy"]
    assert (result.job.directory / "prompt.safetensors").exists()


def test_a_job_can_begin_with_another_prompt(base, task):
    source = run(job(base, task, seed=5)).prompt()
    settings = Settings(**QUICK | {"steps": 1, "learning_rate": 1e-9})
    begun = run(Job("prompt", base, task, settings, source))
    np.testing.assert_allclose(begun.prompt().vectors, source.vectors, atol=1e-6)


def test_an_interrupted_job_goes_on_with_the_same_bits(base, task, ctrl_c, here):
    with ctrl_c(7), pytest.raises(KeyboardInterrupt):
        run(job(base, task))
    assert [path.suffix for path in (here / "runs" / "study").iterdir()] == [".unfinished"]
    broken = run(job(base, task))
    assert len(list((here / "runs" / "study").iterdir())) == 1
    broken.job.directory.rename(here / "broken")
    whole = run(job(base, task))
    assert whole.arrays["prompt"].tobytes() == broken.arrays["prompt"].tobytes()
    assert whole.record["losses"] == broken.record["losses"]


def test_what_a_kill_between_the_result_and_its_clearing_has_left_is_removed(base, task):
    place = run(job(base, task)).job.directory
    checkpoint_path(place).parent.mkdir()
    checkpoint_path(place).touch()
    run_all([job(base, task)])
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_an_unknown_rival_is_refused_before_anything_is_run(base, task, here):
    with pytest.raises(MiniptError, match="there is no rival 'lara': choose one of prompt, full"):
        sweep(base, task, {"learner": ["prompt", "lara"]}, 2, **QUICK)
    assert not (here / "runs").exists()


def test_a_damaged_result_is_named(base, task):
    place = run(job(base, task)).job.directory
    (place / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(MiniptError, match=f"run.json cannot be read .*: remove {place}$"):
        run(job(base, task))


@pytest.mark.parametrize("content", ["{}", "[]", "3", 100_000 * "[", '{"test_accuracy": 1.0}'])
def test_a_result_that_is_none_is_named(base, task, content):
    place = run(job(base, task)).job.directory
    (place / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(MiniptError, match=f"run.json .*: remove {place}$"):
        run_all([job(base, task)])


def test_a_result_that_has_changed_is_refused_and_one_from_before_is_read(base, task):
    result = run(job(base, task))
    path = result.job.directory / "run.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(record | {"correct": 1}), encoding="utf-8")
    with pytest.raises(MiniptError, match="has changed since minipt wrote it"):
        run(job(base, task))
    del record["sha256"]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert run(job(base, task)).record == record == result.record
    for wrong in ({"test_accuracy": math.nan}, {"correct": "8"}, {"fingerprint": ""}):
        path.write_text(json.dumps(record | wrong), encoding="utf-8")
        match = "(is no result of this run|it holds NaN or an infinite number).*: remove"
        with pytest.raises(MiniptError, match=match):
            run(job(base, task))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: {"vectors": x}, "prompt is missing"),
        (lambda x: {"prompt": x, "head": x}, "head is an array too many"),
        (lambda x: {"prompt": x[:1]}, r"prompt is float32 of shape \(1, 8\), not .* \(3, 8\)"),
        (lambda x: {"prompt": x[0]}, r"prompt is float32 of shape \(8,\)"),
        (lambda x: {"prompt": x * np.float32(np.nan)}, "prompt holds numbers that are not finite"),
    ],
)
def test_other_arrays_than_the_jobs_are_named(base, task, change, match):
    place = run(job(base, task)).job.directory
    arrays, record = read_tensors(place / "arrays.safetensors", "result", "")
    write_tensors(place / "arrays.safetensors", change(arrays["prompt"]), record)
    with pytest.raises(MiniptError, match=f"{match}.*: remove {place}$"):
        run(job(base, task)).prompt()


def test_what_is_remembered_is_made_once():
    made = []
    for _ in range(2):
        assert remember("sum", [1, 2], lambda: made.append(1) or {"sum": 3}) == {"sum": 3}
    assert remember("sum", [1, 3], lambda: {"sum": 4}) == {"sum": 4}
    assert made == [1]


def test_what_is_remembered_and_damaged_costs_no_runs(here):
    remember("a sum", [1, 2], lambda: 3)
    (path,) = (here / "runs" / "study").iterdir()
    assert path.name.startswith("a-sum-")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(MiniptError, match=f"remove runs/study/{path.name}$"):
        remember("a sum", [1, 2], lambda: 3)
    path.write_text('{"result": 4, "sha256": "' + 64 * "0" + '"}', encoding="utf-8")
    with pytest.raises(MiniptError, match=f"has changed .*: remove runs/study/{path.name}$"):
        remember("a sum", [1, 2], lambda: 3)
    path.write_text("4", encoding="utf-8")  # from before there was a sha256
    assert remember("a sum", [1, 2], lambda: 3) == 4


def test_a_sweep_takes_every_combination_and_the_best_rate_on_validation(base, task):
    axes = {"length": [1, 3], "method": ["vocab", "uniform"], "learning_rate": [1e-9, 0.3]}
    settings = {name: value for name, value in QUICK.items() if name != "length"}
    rows = sweep(base, task, axes, 2, **settings)
    assert [tuple(row.values.values()) for row in rows] == [
        (1, "vocab"), (1, "uniform"), (3, "vocab"), (3, "uniform"),
    ]  # fmt: skip
    for row in rows:
        on_validation = {}
        for rate in axes["learning_rate"]:
            jobs = [
                job(base, task, **settings | row.values | {"learning_rate": rate, "seed": seed})
                for seed in (0, 1)
            ]
            results = run_all(jobs)
            on_validation[rate] = np.mean([r.record["validation_accuracy"] for r in results])
        assert on_validation[row.rate] == max(on_validation.values())
        assert row.rates == 2
    table = tell(task, rows)
    assert "each rate the best of 2 on validation" in table
    assert len(table.splitlines()) == 2 + 1 + 4
    assert json.dumps(describe(rows))
    assert len(draw(task, rows).axes[0].containers) == 2
    same = [replace(row, values={"learner": "prompt"} | row.values) for row in rows]
    assert draw(task, same).axes[0].get_xlabel() == "length"


@pytest.mark.parametrize("axes", [{"length": []}, {}])
def test_a_sweep_needs_values_and_seeds(base, task, axes):
    with pytest.raises(MiniptError, match="at least one seed"):
        sweep(base, task, axes, 1 if axes else 0)


COMMAND = "sweep --task toy --length 1,4 --steps 6 --batch-size 4 --seeds 2".split()


def start(place) -> subprocess.Popen:
    place.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "minipt", *COMMAND],
        cwd=place,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_sweep_that_is_killed_gives_the_same_table_when_started_again(here):
    assert start(here / "whole").wait() == 0
    rng, killed, status = random.Random(0), 0, None
    while status != 0:
        process = start(here / "killed")
        try:
            status = process.wait(rng.uniform(0.8, 2.0) + killed)  # later each time: it ends
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed
    for name in ("table.txt", "result.json"):
        (first,) = (here / "whole").glob(f"runs/sweep-*/{name}")
        (second,) = (here / "killed").glob(f"runs/sweep-*/{name}")
        assert first.read_bytes() == second.read_bytes()
    assert not list((here / "killed").glob("runs/study/*.unfinished"))
