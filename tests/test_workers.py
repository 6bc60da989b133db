"""A step in shares: the same loss and gradients, however many processes take them."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bases import BERT, LLAMA, random_base, random_batch, random_prompt

import minipt
from minipt.errors import MiniptError
from minipt.learn import Settings
from minipt.rivals import LEARNERS
from minipt.text import Batch
from minipt.tune import PromptLearner
from minipt.workers import THREADS, Workers, prompt_step, shares

FAMILIES = {"gpt2": {}, "llama": LLAMA, "bert": BERT, "encoder": BERT | {"head": None}}
ROWS = ("ids", "lengths", "targets")
QUICK = {"length": 3, "steps": 4, "batch_size": 4, "evaluate_every": 2, "warmup": 1}


@pytest.fixture(scope="module")
def task():
    return minipt.load_task("toy")


@pytest.fixture(scope="module")
def tiny():
    return minipt.load_base("tiny")


def answers_of_several_tokens(base, texts: int) -> Batch:
    """Each text has one to three tokens that count, so that shares differ in theirs."""
    batch, rng = random_batch(base, texts, 6), np.random.default_rng(4)
    targets = rng.integers(0, base.config.vocabulary, (texts, 3))
    counted = rng.integers(1, 1 + np.minimum(3, batch.lengths))
    targets[np.arange(3) < 3 - counted[:, None]] = -1
    return Batch(batch.ids, batch.lengths, targets)


def test_every_text_is_in_one_share():
    batch = random_batch(random_base(0), 5, 6, middle=True)
    parts = shares(batch, 2)
    assert [len(part.ids) for part in parts] == [3, 2]
    for name in ("ids", "lengths", "targets", "positions"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(batch, name)[[0, 2, 4, 1, 3]])
    assert len(shares(batch, 9)) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_add_up_to_the_whole_step(family):
    base = random_base(3, **FAMILIES[family]).astype(np.float64)
    prompt, batch = random_prompt(base, 2), random_batch(base, 5, 6, choices=3)
    batches = [batch, replace(batch, **{name: getattr(batch, name)[:1] for name in ROWS})]
    if family == "gpt2":
        batches.append(answers_of_several_tokens(base, 5))
    with Workers(base, 2) as workers:
        for each in batches:
            loss, gradients = workers.prompt_step(prompt, each)
            whole, expected = prompt_step(base, prompt, each)
            assert loss == pytest.approx(whole, rel=1e-13)
            assert gradients.keys() == expected.keys() == {"prompt"}
            assert minipt.compare("prompt", gradients["prompt"], expected["prompt"]) < 1e-12


def test_a_head_learns_from_all_shares():
    base = random_base(3).astype(np.float64)
    head = np.random.default_rng(0).normal(size=(3, base.config.channels))
    prompt = replace(random_prompt(base, 2), head=head)
    batch = replace(random_batch(base, 5, 6, choices=3), choices=head)
    with Workers(base, 3) as workers:
        _, gradients = workers.prompt_step(prompt, batch)
    _, expected = prompt_step(base, prompt, batch)
    assert gradients.keys() == expected.keys() == {"prompt", "head"}
    for name, gradient in gradients.items():
        assert minipt.compare(name, gradient, expected[name]) < 1e-12


def test_the_same_number_of_workers_gives_the_same_bits(tiny, task):
    before = tiny.fingerprint
    alone, first, second = (minipt.tune(tiny, task, workers=n, **QUICK) for n in (1, 2, 2))
    np.testing.assert_array_equal(first.prompt.vectors, second.prompt.vectors)
    np.testing.assert_allclose(first.prompt.vectors, alone.prompt.vectors, atol=1e-3)
    assert first.prompt.vectors.dtype == np.float32
    assert first.settings.workers == 2
    assert tiny.fingerprint == before


def test_a_run_is_resumed_with_as_many_workers(tiny, task, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    minipt.tune(tiny, task, checkpoint, workers=2, **QUICK)
    with pytest.raises(MiniptError, match="another workers"):
        minipt.tune(tiny, task, checkpoint, resume=True, **QUICK)


def test_the_processes_end_with_the_context_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.setenv(THREADS[0], "5")
    monkeypatch.delenv(THREADS[1], raising=False)
    with Workers(random_base(0), 2) as workers:
        assert all(worker.process.is_alive() for worker in workers.workers)
    assert not any(worker.process.is_alive() for worker in workers.workers)
    assert os.environ[THREADS[0]] == "5"
    assert THREADS[1] not in os.environ


def test_a_worker_that_dies_is_an_error_with_advice():
    base = random_base(0)
    prompt, batch = random_prompt(base, 2), random_batch(base, 4, 5)
    with Workers(base, 2) as workers:
        workers.prompt_step(prompt, batch)
        workers.workers[1].process.kill()
        with pytest.raises(MiniptError, match="exit code -9; each holds a copy of the base"):
            workers.prompt_step(prompt, batch)


def test_what_goes_wrong_in_a_worker_is_raised_here():
    base = random_base(0)
    batch = random_batch(base, 4, 5)
    with Workers(base, 2) as workers:
        with pytest.raises(MiniptError, match="lie outside 0 to"):
            workers.prompt_step(random_prompt(base, 2), replace(batch, ids=batch.ids + 1000))
        assert workers.prompt_step(random_prompt(base, 2), batch)[0] > 0  # and it lives on


def test_a_script_that_forgets_its_main_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import minipt\nminipt.tune(minipt.load_base('tiny'), minipt.load_task('toy'), workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert 'begins its work under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("learner", sorted(LEARNERS.keys() & {"full", "lora", "prefix", "probe"}))
def test_what_is_no_prompt_learns_in_one_process(tiny, task, learner):
    chosen = Settings(workers=2, **QUICK)
    with pytest.raises(MiniptError, match=f"{learner} learns in one process"):
        minipt.learn.learn(LEARNERS[learner](tiny, task, chosen), task, chosen)


def test_workers_that_make_no_sense_are_refused():
    with pytest.raises(MiniptError, match="workers is at least 1"):
        Settings(workers=0)
    with pytest.raises(MiniptError, match="5 workers cannot share 4 texts"):
        Settings(workers=5, batch_size=4)


def test_after_learning_a_learner_works_alone(tiny, task):
    learner = PromptLearner(tiny, task, Settings(workers=2, **QUICK))
    with learner.at_work(2):
        assert learner.workers
    assert learner.workers is None
