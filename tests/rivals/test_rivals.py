"""What one would try instead of a prompt: its gradients, that it learns, the same bits again."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from helpers.bases import FAMILIES, base_that_reads, random_base, small_task

from minipt.errors import MiniptError
from minipt.files.records import read_tensors, write_tensors
from minipt.learning.checkpoint import State
from minipt.learning.learner import Learner
from minipt.learning.loop import learn
from minipt.learning.settings import Settings
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch, batches, encode
from minipt.prompting.wiring import logits, logits_after, loss_and_gradient
from minipt.rivals import LEARNERS, RATES, RIVALS
from minipt.rivals.prefix import WIDTH, MlpPrefixLearner, PrefixLearner, as_past
from minipt.rivals.probe import ProbeLearner, features
from minipt.tasks.task import Pairs, Task
from minipt.transformer.base import Base

QUICK = {"length": 3, "steps": 12, "batch_size": 4, "evaluate_every": 4, "warmup": 2}
QUICK |= {"learning_rate": 0.01}
NAMES = [learner.name for learner in RIVALS]
CASES = [
    (name, family)
    for name in NAMES
    for family in FAMILIES
    # A Llama has no biases; tokens have no derivative, their search has tests of its own.
    if (name, family) != ("bitfit", "llama") and name != "discrete"
]
every_learner = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize(("name", "family"), CASES)


@pytest.fixture(scope="module")
def task() -> Task:
    return small_task()


def learner_of(name: str, base: Base, task: Task, **settings: object) -> Learner:
    return LEARNERS[name](base, task, Settings(**QUICK | settings))


def shaken(learner: Learner, seed: int = 0) -> Learner:
    """Away from its start, where some gradients are zero."""
    rng = np.random.default_rng(seed)
    for array in learner.arrays.values():
        array += 0.1 * rng.standard_normal(array.shape)
    return learner


def batch_of(learner: Learner, task: Task, size: int = 6) -> Batch:
    """Ragged and padded, as the learner reads its texts."""
    texts, labels = task.train.texts[:size], task.train.labels[:size]
    rows, _ = encode(learner.base, learner.question.template, texts, learner.room)
    ((_, batch),) = batches(rows, labels, learner.question, size)
    assert batch.lengths.min() < batch.lengths.max()
    return batch


def loss_with(learner: Learner, batch: Batch, name: str, values: np.ndarray) -> float:
    """The loss with other values in one of the arrays, which has its own again afterwards."""
    array = learner.arrays[name]
    before = array.copy()
    array[...] = values
    loss, _ = learner.loss_and_gradients(batch, np.random.default_rng(0))
    array[...] = before
    return loss


def bits(learnt: State) -> tuple:
    arrays = {name: array.tobytes() for name, array in learnt.best_arrays.items()}
    history = json.dumps(learnt.history)
    return arrays, history, learnt.best_step, learnt.test.probabilities.tobytes()


def interrupt_at(learner: Learner, step: int) -> None:
    """Ctrl-C while this step is computed."""
    real, steps = learner.loss_and_gradients, count(1)

    def pressed(batch, rng):
        if next(steps) == step:
            raise KeyboardInterrupt
        return real(batch, rng)

    learner.loss_and_gradients = pressed


@every_case
def test_every_gradient_agrees_with_finite_differences(name, family, task):
    base = base_that_reads(family).astype(np.float64)
    learner = shaken(learner_of(name, base, task))
    batch = batch_of(learner, task)
    _, gradients = learner.loss_and_gradients(batch, np.random.default_rng(0))
    assert gradients.keys() == learner.arrays.keys()
    for each, gradient in gradients.items():
        if each.endswith("key.bias") and base.config.positions == "learned":
            # It adds the same to all scores of a row, which the softmax takes away again.
            assert np.abs(gradient).max() < 1e-13
            continue

        def loss(values: np.ndarray, each: str = each) -> float:
            return loss_with(learner, batch, each, values)

        assert np.abs(gradient).max() > 1e-9, each
        error = check_gradient(loss, learner.arrays[each].copy(), gradient, directions=2)
        assert error < 1e-6, each


@every_case
def test_sixteen_texts_are_learnt_and_the_base_stays(name, family, task):
    base = base_that_reads(family, channels=32)
    before = base.fingerprint
    settings = {"steps": 60, "batch_size": 16, "evaluate_every": 60, "length": 8}
    settings |= {"learning_rate": 0.1}
    learner = learner_of(name, base, task, **settings)
    learnt = learn(learner, task, Settings(**QUICK | settings))
    losses = [record["loss"] for record in learnt.history[1:]]
    # A random encoder gives all texts much the same direction, and so all answers the same cosines.
    share = 0.95 if family == "encoder" else 0.6
    assert np.mean(losses[-5:]) < share * np.mean(losses[:5])
    assert base.fingerprint == before
    assert learner.base is base


@every_learner
def test_the_same_seed_gives_the_same_bits(name, task):
    base = base_that_reads("gpt2")

    def once(seed: int) -> tuple:
        chosen = Settings(**QUICK, seed=seed)
        return bits(learn(LEARNERS[name](base, task, chosen), task, chosen))

    assert once(1) == once(1)
    assert once(1) != once(2)


@every_learner
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(name, task, tmp_path):
    base, chosen = base_that_reads("gpt2"), Settings(**QUICK)
    whole = learn(LEARNERS[name](base, task, chosen), task, chosen)
    path = tmp_path / "checkpoint.safetensors"
    learner = LEARNERS[name](base, task, chosen)
    interrupt_at(learner, 7)
    broken = learn(learner, task, chosen, path)
    assert (broken.interrupted, broken.history[-1]["step"]) == (True, 6)
    resumed = learn(LEARNERS[name](base, task, chosen), task, chosen, path, resume=True)
    assert not resumed.interrupted
    assert bits(resumed) == bits(whole)


def test_rates_are_those_of_learners():
    assert RATES.keys() <= LEARNERS.keys()


def test_without_biases_there_is_no_bitfit(task):
    with pytest.raises(MiniptError, match="has no biases, so bitfit has nothing to train"):
        learner_of("bitfit", base_that_reads("llama"), task)


# The probe.


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_probes_features_are_what_the_base_answers_with(family, task):
    base = base_that_reads(family)
    batch = batch_of(learner_of("prompt", base, task), task)
    table = base.params.get("output.table", base.params["token.table"])
    bias = base.params.get("head.bias", np.zeros(len(table), np.float32))
    ours = features(base, batch) @ table[batch.choices].T + bias[batch.choices]
    np.testing.assert_allclose(ours, logits(base, batch), rtol=1e-6, atol=1e-6)


def test_an_encoders_features_have_length_one(task):
    base = base_that_reads("encoder")
    found = features(base, batch_of(learner_of("probe", base, task), task))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)


def test_a_probe_begins_undecided(task):
    learner = learner_of("probe", base_that_reads("gpt2"), task)
    loss, _ = learner.loss_and_gradients(batch_of(learner, task), np.random.default_rng(0))
    assert loss == pytest.approx(np.log(2))


def test_a_probe_needs_classes(task):
    pairs = Pairs(task.train.texts, [" good"] * len(task.train.texts))
    splits = {"train": pairs, "validation": pairs, "test": pairs}
    responses = replace(task, labels=(), label_words=(), template="{text}", **splits)
    with pytest.raises(MiniptError, match="for labels, not for responses"):
        ProbeLearner(base_that_reads("gpt2"), responses, Settings(**QUICK))


# The prefix.


@pytest.mark.parametrize("kind", [PrefixLearner, MlpPrefixLearner])
@pytest.mark.parametrize(
    ("family", "layers"), [("gpt2", 2), ("llama", 2), ("bert", 1), ("encoder", 1)]
)
def test_a_prefix_begins_as_the_prompt_that_it_was_made_from(kind, family, layers, task):
    """With one layer in a BERT too: what a prompt leaves in the first, no text has changed yet."""
    base = base_that_reads(family, layers=layers).astype(np.float64)
    learner = kind(base, task, Settings(**QUICK))
    batch = batch_of(learner, task)
    loss, _ = learner.loss_and_gradients(batch, np.random.default_rng(0))
    prompt = init_prompt(base, QUICK["length"])
    assert loss == pytest.approx(loss_and_gradient(base, prompt, batch)[0], rel=1e-10)
    np.testing.assert_allclose(learner.answerer()(batch), logits(base, batch, prompt), rtol=1e-9)


def test_in_a_deeper_bert_the_texts_change_a_prompt_and_no_prefix(task):
    base = base_that_reads("bert").astype(np.float64)
    learner = learner_of("prefix", base, task)
    batch = batch_of(learner, task)
    prompt = init_prompt(base, QUICK["length"])
    assert compare("logits", learner.answerer()(batch), logits(base, batch, prompt)) > 1e-3


def test_a_prefix_longer_than_the_network_is_wide_begins_close_by(task):
    base = random_base(
        3, context=2 * WIDTH, vocabulary=400, tokenizer=base_that_reads("gpt2").tokenizer
    )
    shorter, longer = (
        [kind(base, task, Settings(length=P)) for kind in (PrefixLearner, MlpPrefixLearner)]
        for P in (WIDTH, WIDTH + 20)
    )
    errors = []
    for plain, mlp in (shorter, longer):
        assert mlp.to_store()["keys"].shape == plain.to_store()["keys"].shape
        errors.append(compare("values", mlp.to_store()["values"], plain.to_store()["values"]))
    assert errors[0] < 1e-3 < errors[1] < 1


def test_a_prefix_starts_from_words_where_they_are_given(task):
    base = base_that_reads("gpt2")
    drawn, written = (
        learner_of("prefix", base, task, **how).arrays["keys"]
        for how in ({}, {"method": "text", "text": "kind people"})
    )
    assert compare("keys", drawn, written) > 1e-2


@pytest.mark.parametrize("name", ["prefix", "prefix-mlp"])
def test_what_is_kept_of_a_prefix_can_be_written_and_read(name, task, tmp_path):
    learner = shaken(learner_of(name, base_that_reads("llama"), task))
    kept, path = learner.to_store(), tmp_path / "prefix.safetensors"
    write_tensors(path, kept, {})
    read, _ = read_tensors(path, "prefix", "make it again")
    batch = batch_of(learner, task)
    answers = logits_after(learner.base, batch, as_past(read))
    np.testing.assert_array_equal(answers, learner.answerer()(batch))
    L, P, D = learner.base.config.layers, QUICK["length"], 4
    assert {name: array.shape for name, array in read.items()} == dict.fromkeys(
        ("keys", "values"), (L, 1, P, D)
    )


def test_a_prefix_leaves_a_text_the_room_that_a_prompt_does(task):
    base = base_that_reads("gpt2")
    assert learner_of("prefix", base, task).room == base.config.context - QUICK["length"]
