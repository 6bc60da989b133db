"""Tuning: the same bits again, after an interruption too; the best kept; the base untouched."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_base, small_task
from safetensors.numpy import save_file

from minipt.errors import MiniptError
from minipt.files.records import read_tensors, write_tensors
from minipt.learning import loop as learning
from minipt.learning.evaluate import evaluate
from minipt.learning.optimizers import OPTIMIZERS
from minipt.learning.settings import DEFAULTS_FOR, Settings, defaults_for
from minipt.learning.tune import tune
from minipt.prompting.prompt import load_prompt
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch, QuestionFormat, encode
from minipt.prompting.verbalizer import label_tokens
from minipt.prompting.wiring import logits
from minipt.rivals import find_learner
from minipt.tasks.task import Split, evenly

tuning = sys.modules["minipt.learning.tune"]
QUICK = {"length": 3, "steps": 12, "batch_size": 4, "evaluate_every": 4, "warmup": 2}


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def task():
    return small_task()


def bits(run) -> tuple:
    return run.prompt.vectors.tobytes(), json.dumps(run.history), run.best_step


def test_the_same_seed_gives_the_same_bits(base, task):
    assert bits(tune(base, task, **QUICK, seed=1)) == bits(tune(base, task, **QUICK, seed=1))
    assert bits(tune(base, task, **QUICK, seed=1)) != bits(tune(base, task, **QUICK, seed=2))


def test_a_look_reads_as_many_validation_texts_as_are_asked_for(base, task):
    some = replace(task, validation=evenly(task.validation, 3))
    part, same = tune(base, task, **QUICK, validation_texts=3), tune(base, some, **QUICK)
    assert part.history == same.history != tune(base, task, **QUICK).history
    assert part.test.total == len(task.test.texts)  # the test split is measured as a whole


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    base, task, optimizer, ctrl_c, tmp_path
):
    settings = QUICK | {"optimizer": optimizer, "learning_rate": 0.05}
    whole = tune(base, task, **settings)
    path = tmp_path / "checkpoint.safetensors"
    with ctrl_c(7):
        broken = tune(base, task, path, **settings)
    assert broken.interrupted
    assert broken.history[-1]["step"] == 7
    resumed = tune(base, task, path, resume=True, **settings)
    assert not resumed.interrupted
    assert bits(resumed) == bits(whole)
    assert resumed.test.probabilities.tobytes() == whole.test.probabilities.tobytes()


def test_a_finished_run_that_is_resumed_stays_finished(base, task, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    whole = tune(base, task, path, **QUICK)
    assert bits(tune(base, task, path, resume=True, **QUICK)) == bits(whole)


def test_the_best_on_validation_is_kept_not_the_last(base, task, monkeypatch):
    accuracies = iter([0.5, 0.75, 0.875, 0.625])
    seen = []

    def scripted(learner, split):
        found = real(learner, split)
        if split is not task.validation:
            return found
        seen.append(learner.prompt.vectors.copy())
        return replace(found, accuracy=next(accuracies))

    real = learning._measure
    monkeypatch.setattr(learning, "_measure", scripted)
    run = tune(base, task, **QUICK)
    assert run.best_step == 8
    assert run.prompt.vectors.tobytes() == seen[2].tobytes()
    assert run.prompt.vectors.tobytes() != seen[3].tobytes()


def test_patience_ends_a_run_early_and_for_good(base, task, monkeypatch, tmp_path):
    def no_better(learner, split):
        loss = 1.0 + np.abs(learner.prompt.vectors - start).sum()
        return replace(real(learner, split), accuracy=0.5, loss=float(loss))

    real = learning._measure
    start = init_prompt(base, QUICK["length"], "vocab", 0).vectors
    monkeypatch.setattr(learning, "_measure", no_better)
    settings = QUICK | {"steps": 40, "patience": 2}
    path = tmp_path / "checkpoint.safetensors"
    run = tune(base, task, path, **settings)
    assert (run.history[-1]["step"], run.best_step) == (8, 0)
    assert tune(base, task, path, resume=True, **settings).history == run.history


def test_the_base_is_unchanged_by_a_run_an_interrupted_and_a_failing_one(
    base, task, ctrl_c, monkeypatch, tmp_path
):
    before = base.fingerprint
    tune(base, task, **QUICK)
    assert base.fingerprint == before
    with ctrl_c(2):
        assert tune(base, task, **QUICK).interrupted
    assert base.fingerprint == before
    with monkeypatch.context() as patched:
        bad = (math.nan, {"prompt": np.zeros((3, 8), np.float32)})
        patched.setattr(tuning, "prompt_step", lambda *_: bad)
        with pytest.raises(MiniptError, match=r"not finite at step 1: lower the learning rate"):
            tune(base, task, tmp_path / "checkpoint.safetensors", **QUICK)
    assert base.fingerprint == before
    assert not any(array.flags.writeable for array in base.params.values())
    assert not list(tmp_path.iterdir())


def test_a_changed_base_is_noticed(task, monkeypatch):
    changed = base_with_tokenizer()
    real = learning._step

    def careless(*arguments):
        table = changed.params["final.bias"]
        table.flags.writeable = True
        table += 1.0
        return real(*arguments)

    monkeypatch.setattr(learning, "_step", careless)
    with pytest.raises(RuntimeError, match="changed while prompt learnt with it"):
        tune(changed, task, **QUICK)


def test_sixteen_texts_are_learnt_through_a_random_base(base, task):
    vocabulary = base.config.vocabulary
    wider = random_base(0, channels=32, vocabulary=vocabulary, tokenizer=base.tokenizer, context=32)
    run = tune(wider, task, length=10, steps=60, batch_size=16, evaluate_every=60, warmup=2)
    losses = [record["loss"] for record in run.history[1:]]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    # `run.prompt` may be the start: of the eight other texts, none tells a random base anything.
    assert np.mean(losses[-10:]) < np.log(2)


def test_history_says_what_happened_at_each_step(base, task):
    run = tune(base, task, **QUICK)
    first, *steps = run.history
    assert first.keys() == {"step", "validation_accuracy", "validation_loss"}
    assert [record["step"] for record in steps] == list(range(1, 13))
    each = {"step", "loss", "gradient_norm", "prompt_norm", "distance", "rate"}
    looks = {"validation_accuracy", "validation_loss"}
    for record in steps:
        assert record.keys() == (each | looks if record["step"] % 4 == 0 else each)
        assert all(math.isfinite(value) for value in record.values())
    assert steps[0]["rate"] == pytest.approx(Settings.learning_rate / 2)
    start = init_prompt(base, 3, "vocab", 0).vectors
    last = np.linalg.norm(run.prompt.vectors - start)
    assert steps[run.best_step - 1]["distance"] == pytest.approx(last)
    assert run.prompt.about["history"] == run.history


def test_the_prompt_knows_its_task(base, task):
    run = tune(base, task, **QUICK)
    assert run.prompt.about["task"] == "words"
    assert evaluate(base, run.prompt, task.test).accuracy == run.test_accuracy


def test_a_start_from_words(base, task):
    chosen = QUICK | {"method": "text", "text": "kind people", "steps": 1, "learning_rate": 1e-9}
    start = init_prompt(base, 3, "text", text="kind people").vectors
    np.testing.assert_allclose(tune(base, task, **chosen).prompt.vectors, start, atol=1e-6)


@pytest.mark.parametrize("length", [0, 3])
def test_evaluation_is_that_of_one_text_at_a_time(base, task, length):
    prompt = init_prompt(base, length, "uniform", 5) if length else None
    found = evaluate(base, prompt, task.train, task)
    choices = label_tokens(base, task.label_words)
    room = base.config.context - length
    slow = []
    for text in task.train.texts:
        (ids,), _ = encode(base, task.template, [text], room)
        slow.append(logits(base, Batch(ids[None], [len(ids)], [0], choices), prompt)[0])
    slow = np.array(slow, np.float64)
    probabilities = np.exp(slow) / np.exp(slow).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-4, atol=1e-6)
    truth = task.train.labels
    answers = slow.argmax(1)
    counts = [[int(((truth == i) & (answers == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    assert found.counts.tolist() == counts
    assert found.counts.sum() == found.total == len(truth)
    assert found.correct == (answers == truth).sum()
    assert found.accuracy == found.correct / found.total
    expected = -np.log(probabilities[np.arange(len(truth)), truth]).mean()
    assert found.loss == pytest.approx(expected, rel=1e-5)


def test_evaluation_needs_to_know_how_the_answer_is_read(base, task):
    with pytest.raises(MiniptError, match="only a tuned prompt knows its task"):
        evaluate(base, init_prompt(base, 3), task.test)


def test_long_texts_lose_their_beginning_and_are_counted(base, task):
    long = "cruel words " * 20
    texts = [long + text for text in task.train.texts[:2]] + task.train.texts[2:]
    lengthened = replace(task, train=Split(texts, task.train.labels))
    run = tune(base, lengthened, **QUICK)
    assert run.cut == 2
    (kept,), cut = encode(base, task.template, [texts[0]], base.config.context - 3)
    (whole,), _ = encode(base, task.template, [texts[0]], 10_000)
    assert cut.tolist() == [True]
    assert kept.tolist() == whole[-(base.config.context - 3) :].tolist()


@pytest.mark.parametrize("first", [0, 2, 5])
def test_batches_take_every_text_once_an_epoch_and_start_anywhere(first):
    rows = [np.full(1 + i % 4, i) for i in range(10)]
    labels = np.zeros(10, int)
    settings = Settings(batch_size=4, seed=3)

    def drawn(first, count):
        learner = SimpleNamespace(question=QuestionFormat("{text}", np.array([0, 1]), None, ""))
        state = SimpleNamespace(learner=learner, settings=settings, step=first)
        training = learning._training_batches(state, rows, labels)
        return [next(training).ids[:, 0].tolist() for _ in range(count)]

    everything = drawn(0, 9)
    for epoch in range(3):
        ids = [i for batch in everything[3 * epoch : 3 * epoch + 3] for i in batch]
        assert sorted(ids) == list(range(10))
    assert everything[:3] != everything[3:6]
    assert drawn(first, 4) == everything[first : first + 4]


def refused(base, task, path, match, **settings):
    with pytest.raises(MiniptError, match=match) as caught:
        tune(base, task, path, resume=True, **QUICK | settings)
    assert "\n" not in str(caught.value)


def test_checkpoints_that_cannot_be_resumed(base, task, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    refused(base, task, None, "which checkpoint")
    refused(base, task, path, "there is no checkpoint")
    tune(base, task, path, **QUICK)
    refused(base, task, path, "another seed", seed=9)
    fewer = replace(task, train=Split(task.train.texts[:8], task.train.labels[:8]))
    refused(base, fewer, path, "another task")
    refused(base_with_tokenizer(seed=4), task, path, "another base")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(base, task, path, "is no checkpoint, or is truncated")
    path.write_bytes(b"junk")
    refused(base, task, path, "is no checkpoint, or is truncated")
    save_file({"vectors": np.zeros((3, 8), np.float32)}, path)
    refused(base, task, path, "is no checkpoint")


def test_a_checkpoint_that_contradicts_itself_cannot_be_resumed(base, task, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tune(base, task, path, **QUICK)
    arrays, record = read_tensors(path, "checkpoint", "")
    halves = record["history"][:1] + record["history"][2:]
    narrow = np.zeros((3, 7), np.float32)
    for wrong, other in (
        ({"history": None}, {}),
        ({"history": [1, 2]}, {}),
        ({"history": halves}, {}),
        ({"best_step": 999}, {}),
        ({"best_step": 1}, {}),
        ({"best_step": float(record["best_step"])}, {}),
        ({"seconds": None}, {}),
        ({"seconds": math.inf}, {}),
        ({"seconds": -1}, {}),
        ({"identity": []}, {}),
        ({}, {"trained.prompt": narrow}),
        ({}, {"best.prompt": narrow}),
    ):
        write_tensors(path, arrays | other, record | wrong)
        refused(base, task, path, "is no checkpoint that can be used .*remove it and start")
    write_tensors(path, arrays, record)
    tune(base, task, path, resume=True, **QUICK)


MEAN, SQUARE = "optimizer.prompt.mean", "optimizer.prompt.square"
ROW, SCALAR = np.zeros((1, 8), np.float32), np.zeros((), np.float32)
# What is done to a file's arrays and to its history, and what the sentence says of it.
DAMAGE = {
    "longer": (lambda a, h: h.extend(h[-1:] * 90), "has 98 steps, the run has 12"),
    "cut": (lambda a, h: h.pop(), "its best step is|does not end where its arrays do"),
    "cut-to-a-look": (lambda a, h: h.__delitem__(slice(5, None)), "best step is|does not end"),
    "cut-to-the-start": (lambda a, h: h.__delitem__(slice(1, None)), "best step|array too many"),
    "empty": (lambda a, h: h.clear(), "has -1 steps"),
    "no-loss": (lambda a, h: h[3].pop("loss"), "damaged at step 3"),
    "no-norm": (lambda a, h: h[3].pop("prompt_norm"), "damaged at step 3"),
    "no-validation": (lambda a, h: h[4].pop("validation_accuracy"), "damaged at step 4"),
    "not-finite": (lambda a, h: h[4].update(loss=math.nan), "damaged at step 4"),
    "text": (lambda a, h: h[4].update(loss="0.5"), "damaged at step 4"),
    "huge": (lambda a, h: h[4].update(loss=10**400), "damaged at step 4"),
    "more": (lambda a, h: h[4].update(extra=1), "damaged at step 4"),
    "row": (lambda a, h: a.update({"trained.prompt": ROW}), "trained.prompt is float32 of shape"),
    "one": (lambda a, h: a.update({"trained.prompt": ROW[0, :1]}), "trained.prompt is float32"),
    "scalar": (lambda a, h: a.update({"best.prompt": SCALAR}), "best.prompt is float32 of shape"),
    "type": (lambda a, h: a.update({"best.prompt": np.zeros((3, 8))}), "best.prompt is float64"),
    "others": (lambda a, h: a["trained.prompt"].__iadd__(1), "does not end where its arrays do"),
    "renamed": (lambda a, h: a.update({"best.p": a.pop("best.prompt")}), "best.p is an array too"),
    "nan": (lambda a, h: a["best.prompt"].fill(np.nan), "best.prompt holds numbers that are not"),
    "unknown": (lambda a, h: a.update({"other": ROW}), "other is an array too many"),
    "mean-shape": (lambda a, h: a.update({MEAN: ROW}), "prompt.mean is float32 of shape"),
    "mean-infinite": (lambda a, h: a[MEAN].fill(np.inf), "prompt.mean holds numbers that are not"),
    "mean-missing": (lambda a, h: a.pop(MEAN), "the checkpoint lacks the optimizer's prompt.mean"),
    "no-memory": (lambda a, h: (a.pop(MEAN), a.pop(SQUARE)), "lacks the optimizer's prompt.mean"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_refused_at_once(base, task, ctrl_c, tmp_path, monkeypatch, case):
    """Before anything is learnt again, even where the file has the sha256 of its content."""
    path = tmp_path / "checkpoint.safetensors"
    with ctrl_c(9):
        tune(base, task, path, **QUICK)
    arrays, record = read_tensors(path, "checkpoint", "")
    assert record["history"][-1]["step"] == 8
    change, match = DAMAGE[case]
    change(arrays, record["history"])
    write_tensors(path, arrays, record)
    monkeypatch.setattr(learning, "_measure", None)  # nothing is measured
    refused(base, task, path, rf"({match}).*remove it and start without resuming")


def test_one_bit_of_a_checkpoint(base, task, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tune(base, task, path, **QUICK)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    refused(base, task, path, "has changed since minipt wrote it .*start without resuming")


def test_a_checkpoint_from_before_is_resumed(base, task, ctrl_c, tmp_path):
    """Without a sha256, as minipt wrote them until there was one."""
    path = tmp_path / "checkpoint.safetensors"
    whole = tune(base, task, **QUICK)
    with ctrl_c(7):
        tune(base, task, path, **QUICK)
    arrays, record = read_tensors(path, "checkpoint", "")
    save_file(arrays, path, {"minipt": json.dumps(record)})
    assert bits(tune(base, task, path, resume=True, **QUICK)) == bits(whole)


@pytest.mark.parametrize("rate", [1e30, 1e38, 1e300])
@pytest.mark.parametrize("steps", [1, 3])
def test_learning_that_overflows_is_refused(base, task, rate, steps):
    settings = QUICK | {"steps": steps, "learning_rate": rate, "warmup": 0}
    with pytest.raises(MiniptError, match=r"learning rate") as caught:
        tune(base, task, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["probe", "full"])
def test_learners_without_measurements_are_looked_at_too(base, task, name):
    settings = Settings(**QUICK | {"steps": 1, "learning_rate": 1e300, "warmup": 0})
    learner = find_learner(name)(base, task, settings)
    with pytest.raises(MiniptError, match="what learns is not finite at step 1"):
        learning.learn(learner, task, settings)


def test_a_checkpoint_holds_no_more_than_a_run_needs(base, task, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tune(base, task, path, **QUICK)
    arrays, _ = read_tensors(path, "checkpoint", "")
    names = {"trained.prompt", "best.prompt", "optimizer.prompt.mean", "optimizer.prompt.square"}
    assert arrays.keys() == names
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"steps": 0}, "steps is at least 1, not 0"),
        ({"length": -3}, "length is at least 1, not -3"),
        ({"length": 99}, "has 1 to 31 vectors, not 99"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is a positive number"),
        ({"learning_rate": math.nan}, "learning_rate is a positive number"),
        ({"clip": math.inf}, "clip is a positive number"),
        ({"clip": 10**400}, "clip is a positive number"),
        ({"optimizer": "adagrad"}, "unknown optimizer 'adagrad': choose one of adam"),
        ({"schedule": "step"}, "unknown schedule"),
        ({"method": "zeros"}, "unknown start 'zeros'"),
        ({"seed": -1}, "seed is at least 0, not -1"),
        ({"warmup": -1}, "warmup is at least 0, not -1"),
        ({"steps": 2.5}, "steps is a whole number, not 2.5"),
        ({"evaluate_every": 2.5}, "evaluate_every is a whole number, not 2.5"),
        ({"validation_texts": 0}, "validation_texts is at least 1, not 0"),
        ({"seed": None}, "seed is a whole number, not None"),
        ({"learning_rate": "x"}, "learning_rate is a positive number, not 'x'"),
        ({"optimizer": ["adam"]}, "unknown optimizer"),
        ({"method": "text", "text": ""}, 'the start "text" needs a text'),
    ],
)
def test_settings_that_make_no_sense(base, task, wrong, match):
    with pytest.raises(MiniptError, match=match):
        tune(base, task, **QUICK | wrong)


def test_a_start_from_words_takes_the_instruction(base, task):
    assert defaults_for(base, task, method="text").text == f"{task.instruction}\n\n"
    assert defaults_for(base, task, method="text", text="a day").text == "a day"
    assert defaults_for(base, task, text="a day").method == "text"
    assert defaults_for(base, task, method="vocab", text="a day").method == "vocab"
    assert defaults_for(base, task).text is None
    with pytest.raises(MiniptError, match="needs a text"):
        tune(base, replace(task, instruction=""), **QUICK | {"method": "text"})


def test_a_base_with_a_name_has_settings_of_its_own(base, task, monkeypatch):
    monkeypatch.setitem(DEFAULTS_FOR, base.name, {"method": "text", "steps": 7})
    assert defaults_for(base, task).method == "text"
    assert defaults_for(base, task).steps == 7
    assert defaults_for(base, task, steps=9, method="vocab") == Settings(steps=9)
    monkeypatch.setitem(DEFAULTS_FOR, (base.name, task.name), {"steps": 8})
    assert defaults_for(base, task).steps == 8
    assert defaults_for(base, task, steps=9).steps == 9
    assert defaults_for(base).steps == defaults_for(base, replace(task, name="other")).steps == 7
    monkeypatch.delitem(DEFAULTS_FOR, (base.name, task.name))
    wordless = replace(task, instruction="")
    assert defaults_for(base, wordless) == defaults_for(base) == Settings(steps=7)


def test_numbers_of_numpy_are_computed_with_as_pythons(base, task):
    """A float64 of NumPy's would turn float32 arrays into float64."""
    whole = QUICK | {"learning_rate": 0.3, "clip": 0.5}
    numpys = {name: np.array(value)[()] for name, value in whole.items()}
    assert {type(value).__module__ for value in numpys.values()} == {"numpy"}
    settings = Settings(**numpys, seed=np.int64(3), patience=np.int32(2), threads=np.uint8(1))
    kinds = {type(value) for value in asdict(settings).values()}
    assert kinds == {int, float, str, bool, type(None)}
    assert bits(tune(base, task, **numpys)) == bits(tune(base, task, **whole))


def test_a_seed_of_numpys_is_stored(base, task, tmp_path):
    run = tune(base, task, tmp_path / "checkpoint", **QUICK, seed=np.int64(3))
    for prompt in (run.prompt, init_prompt(base, 3, seed=np.int64(3))):
        prompt.save(tmp_path / "prompt")
        assert load_prompt(tmp_path / "prompt", base).about["seed"] == 3


def test_a_run_goes_on_from_a_prompt(base, task):
    first = tune(base, task, **QUICK)
    settings = {name: value for name, value in QUICK.items() if name != "length"}
    kept = first.prompt.vectors.copy()
    second = tune(base, task, start=first.prompt, **settings)
    assert first.prompt.vectors.tobytes() == kept.tobytes()
    assert second.learner.start.vectors.tobytes() == kept.tobytes()
    assert second.settings.method == second.prompt.about["method"] == "another prompt"
    assert second.settings.length == second.prompt.about["length"] == 3
    assert second.prompt.vectors.tobytes() != kept.tobytes()
    best = first.history[first.best_step]["validation_loss"]
    assert second.history[0]["validation_loss"] == pytest.approx(best)
    named = tune(base, task, start=first.prompt, method="runs/first", **settings)
    assert named.prompt.about["method"] == "runs/first"
    assert named.prompt.vectors.tobytes() == second.prompt.vectors.tobytes()


def test_a_head_goes_on_too_where_the_labels_are_the_same(base, task):
    first = tune(base, task, head=True, **QUICK)
    second = tune(base, task, start=first.prompt, steps=1)
    assert second.settings.head
    assert second.learner.start.head.tobytes() == first.prompt.head.tobytes()
    assert tune(base, task, start=first.prompt, steps=1, head=False).prompt.head is None
    others = replace(task, labels=("yes", "no"))
    assert tune(base, others, start=first.prompt, steps=1).prompt.head is None
    anew = tune(base, others, start=first.prompt, steps=1, head=True).learner.start.head
    assert anew.tobytes() == tune(base, task, steps=1, head=True).learner.start.head.tobytes()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"length": 4}, "has 3 vectors, not 4: leave the length out"),
        ({"method": "vocab"}, "has no other start"),
        ({"text": "a good day"}, "has no other start"),
    ],
)
def test_a_start_from_a_prompt_decides(base, task, given, match):
    with pytest.raises(MiniptError, match=match):
        tune(base, task, start=init_prompt(base, 3), **given)


def test_a_start_that_is_no_prompt_of_this_base_is_refused(base, task):
    other = init_prompt(random_base(7), 3)
    with pytest.raises(MiniptError, match="the prompt to go on from was made for base"):
        tune(base, task, start=other)
    wrong = init_prompt(base, 3)
    wrong.vectors[0, 0] = np.nan
    with pytest.raises(MiniptError, match="NaN or infinite"):
        tune(base, task, start=wrong)
    wrong.vectors = np.zeros((3, 5), np.float32)
    with pytest.raises(MiniptError, match=r"not \(P, 8\)"):
        tune(base, task, start=wrong)


def test_a_checkpoint_knows_the_prompt_that_it_began_as(base, task, ctrl_c, tmp_path):
    path, start = tmp_path / "checkpoint.safetensors", init_prompt(base, 3, seed=1)
    whole = tune(base, task, start=start, **QUICK)
    with ctrl_c(7):
        tune(base, task, path, start=start, **QUICK)
    with pytest.raises(MiniptError, match="another start"):
        tune(base, task, path, resume=True, start=init_prompt(base, 3, seed=2), **QUICK)
    with pytest.raises(MiniptError, match="another method"):
        tune(base, task, path, resume=True, **QUICK)
    assert bits(tune(base, task, path, resume=True, start=start, **QUICK)) == bits(whole)


def test_a_task_whose_texts_were_taken_away_is_refused(base):
    task = small_task()
    task.train.texts.clear()
    with pytest.raises(MiniptError, match="no texts to learn from"):
        tune(base, task, **QUICK)


SHARED_OUT = """
import hashlib, sys
import minipt
from minipt.maths import matrix_products
from minipt.prompting import shares
matrix_products.PIECE = 10_000
shares.SHARE = 1000
threads = int(sys.argv[1]) or None
run = minipt.tune(minipt.load_base("nano"), minipt.load_task("toy"), steps=4, threads=threads)
print(hashlib.sha256(run.prompt.vectors.tobytes()).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_any_number_of_cores_and_threads_gives_the_same_bits():
    cores = sorted(os.sched_getaffinity(0))
    free = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    bits = set()
    for count, threads in ((1, 0), (2, 0), (2, 1), (2, 2), (2, 4)):
        command = [sys.executable, "-c", SHARED_OUT, str(threads)]
        with on_cores(cores[:count]):
            bits.add(subprocess.run(command, check=True, capture_output=True, env=free).stdout)
    assert len(bits) == 1


@contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    """What is started meanwhile may use these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
