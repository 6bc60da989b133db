"""A step in shares: the same loss and gradients, however many processes take them."""

import errno
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt

import minipt
from minipt.errors import MiniptError
from minipt.learning import workers as workers_module
from minipt.learning.loop import learn
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner
from minipt.learning.workers import THREADS, Workers, share
from minipt.prompting.text import Batch
from minipt.prompting.wiring import prompt_step
from minipt.rivals import LEARNERS

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
    parts = [share(batch, k, 2) for k in range(2)]
    assert [len(part.ids) for part in parts] == [3, 2]
    for name in ("ids", "lengths", "targets", "positions"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(batch, name)[[0, 2, 4, 1, 3]])


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_add_up_to_the_whole_step(family):
    base = random_base(3, **FAMILIES[family]).astype(np.float64)
    prompt, batch = random_prompt(base, 2), random_batch(base, 5, 6, choices=3)
    batches = [batch, replace(batch, **{name: getattr(batch, name)[:1] for name in ROWS})]
    if family == "gpt2":
        several = answers_of_several_tokens(base, 5)
        of_one_share = np.where(np.arange(5)[:, None] % 2, -1, several.targets)
        batches += [several, replace(several, targets=of_one_share)]
    with Workers(base, 2) as workers:
        for each in batches:
            loss, gradients = workers.prompt_step(prompt, each)
            whole, expected = prompt_step(base, prompt, each)
            assert loss == pytest.approx(whole, rel=1e-13)
            assert gradients.keys() == expected.keys() == {"prompt"}
            assert minipt.compare("prompt", gradients["prompt"], expected["prompt"]) < 1e-12


def test_a_batch_without_an_answer_is_refused_as_in_one_process():
    base = random_base(3)
    batch = Batch([[1, 2], [3, 4]], [2, 2], np.full((2, 1), -1))
    with Workers(base, 2) as workers, pytest.raises(MiniptError, match="batch has no targets"):
        workers.prompt_step(random_prompt(base, 2), batch)


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


def test_an_interrupted_run_is_resumed_with_as_many_workers(tiny, task, tmp_path, ctrl_c):
    checkpoint, chosen = tmp_path / "checkpoint", QUICK | {"workers": 2}
    with ctrl_c(3):
        assert minipt.tune(tiny, task, checkpoint, **chosen).interrupted
    assert not multiprocessing.active_children()
    with pytest.raises(MiniptError, match="another workers"):
        minipt.tune(tiny, task, checkpoint, resume=True, **QUICK)
    resumed = minipt.tune(tiny, task, checkpoint, resume=True, **chosen)
    whole = minipt.tune(tiny, task, **chosen)
    np.testing.assert_array_equal(resumed.prompt.vectors, whole.prompt.vectors)


def test_ctrl_c_before_the_first_step_is_no_run(tiny, task, monkeypatch):
    def pressed(worker):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers_module._Process, "receive", pressed)
    with pytest.raises(KeyboardInterrupt):
        minipt.tune(tiny, task, workers=2, **QUICK)
    assert not multiprocessing.active_children()


def test_the_processes_end_with_the_context():
    with Workers(random_base(0), 2) as workers:
        processes = [each.process for each in workers.processes]
        assert all(process.is_alive() for process in processes)
    assert not multiprocessing.active_children()
    with pytest.raises(MiniptError, match="these workers have ended"):
        workers.prompt_step(random_prompt(random_base(0), 2), random_batch(random_base(0), 4, 5))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads it there")
def test_each_process_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv(THREADS[0], "5")  # a user's own word
    monkeypatch.delenv(THREADS[1], raising=False)
    monkeypatch.setattr(workers_module, "_cores", lambda: 9)
    with Workers(random_base(0), 3) as workers:
        for each in workers.processes:
            inherited = Path(f"/proc/{each.process.pid}/environ").read_text().split("\0")
            assert {f"{THREADS[0]}=5", f"{THREADS[1]}=3"} <= set(inherited)
    assert os.environ[THREADS[0]] == "5"
    assert THREADS[1] not in os.environ


def test_a_worker_that_dies_is_an_error_with_advice():
    base = random_base(0)
    prompt, batch = random_prompt(base, 2), random_batch(base, 4, 5)
    with Workers(base, 2) as workers:
        workers.prompt_step(prompt, batch)
        workers.processes[1].process.kill()
        with pytest.raises(MiniptError, match="exit code -9; each needs memory of its own"):
            workers.prompt_step(prompt, batch)
        assert not multiprocessing.active_children()  # nor is the other's answer read later


def test_a_worker_that_cannot_be_started(monkeypatch):
    def refuse(process):
        raise BlockingIOError(errno.EAGAIN, "too many processes")

    monkeypatch.setattr(workers_module.SPAWN.Process, "start", refuse)
    with pytest.raises(MiniptError, match=r"not be started \(too many processes\): use fewer"):
        Workers(random_base(0), 2).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_read_one_copy_of_the_base(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = random_base(0)
    with Workers(base, 2) as workers:
        assert not list(tmp_path.iterdir())  # nothing is left, however the program ends
        mapped = [Path(f"/proc/{each.process.pid}/maps").read_text() for each in workers.processes]
    for name in base.params:
        assert all(
            re.search(rf" r--s .*/{re.escape(name)}\.npy \(deleted\)", maps) for maps in mapped
        )


@pytest.mark.parametrize("full", [True, False])
def test_no_room_for_the_files_of_the_base(full, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("81408 requested and 0 written")  # as NumPy says it

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path if full else tmp_path / "nowhere"))
    monkeypatch.setattr(np, "save", refuse)
    workers = Workers(random_base(0), 2)
    with pytest.raises(MiniptError, match=r"among the temporary files \(.* in TMPDIR"):
        workers.__enter__()
    assert not workers.processes and not list(tmp_path.iterdir())


def test_what_goes_wrong_in_a_worker_is_raised_here():
    base = random_base(0)
    prompt, batch = random_prompt(base, 2), random_batch(base, 4, 5)
    with Workers(base, 2) as workers:
        with pytest.raises(MiniptError, match="lie outside 0 to"):
            workers.prompt_step(prompt, replace(batch, ids=batch.ids + 1000))
        with pytest.raises(AttributeError) as caught:
            workers.prompt_step(None, batch)
        assert "wiring.py" in caught.value.__notes__[0]  # where it came from
        assert workers.prompt_step(prompt, batch)[0] > 0  # and they live on


def test_no_file_of_the_working_directory_is_run(tmp_path, monkeypatch):
    for name in ("signal", "tempfile", "selectors"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w'); raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    base = random_base(0)
    with Workers(base, 2) as workers:
        workers.prompt_step(random_prompt(base, 2), random_batch(base, 4, 5))
    assert not list(tmp_path.glob("ran"))
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_script_that_forgets_its_main_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import minipt\nminipt.tune(minipt.load_base('tiny'), minipt.load_task('toy'), workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert 'begins its work under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("learner", LEARNERS)
def test_prompts_learn_by_workers_and_nothing_else_does(tiny, task, learner):
    start = {"method": "text", "text": "a small house", "steps": 1}
    chosen = Settings(workers=2, **QUICK | start)
    made = LEARNERS[learner](tiny, task, chosen)
    if isinstance(made, PromptLearner):
        assert learn(made, task, chosen).history[1]["loss"] > 0
        return
    with pytest.raises(MiniptError, match=f"{learner} learns in one process"):
        learn(made, task, chosen)


def test_workers_that_make_no_sense_are_refused():
    with pytest.raises(MiniptError, match="workers is at least 1"):
        Settings(workers=0)
    with pytest.raises(MiniptError, match="5 workers cannot share 4 texts"):
        Settings(workers=5, batch_size=4)


def test_after_learning_a_learner_works_alone(tiny, task):
    learner = PromptLearner(tiny, task, Settings(workers=2, **QUICK))
    with learner.with_workers(2):
        assert learner.workers
    assert learner.workers is None
