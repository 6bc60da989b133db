"""Ensembles answer as their members do one at a time; transfer renames channels."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import (
    BERT,
    LLAMA,
    base_with_tokenizer,
    random_base,
    random_batch,
    random_prompt,
    small_task,
)

from minipt.errors import MiniptError
from minipt.learning.evaluate import evaluate
from minipt.prompting.starts import init_prompt
from minipt.prompting.wiring import logits
from minipt.studies.ensemble import (
    Ensemble,
    _logits_of_all,
    average,
    ensemble,
    losses_between,
    tell,
)
from minipt.studies.transfer import on_another_base, renamed


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def prompts(base):
    return [init_prompt(base, 3, "vocab", seed) for seed in range(3)]


@pytest.mark.parametrize("family", [{}, LLAMA, BERT], ids=["gpt2", "llama", "bert"])
@pytest.mark.parametrize("middle", [False, True])
def test_one_batch_gives_what_each_prompt_gives_alone(family, middle):
    base = random_base(0, **family).astype(np.float64)
    batch = random_batch(base, 3, 5, choices=3, middle=middle)
    prompts = [random_prompt(base, 2, seed) for seed in range(4)]
    together = _logits_of_all(base, np.stack([p.vectors for p in prompts]), batch)
    assert together.shape == (4, 3, 3)
    for own, prompt in zip(together, prompts, strict=True):
        np.testing.assert_allclose(own, logits(base, batch, prompt), rtol=1e-12, atol=1e-12)


def test_an_ensemble_stands_beside_its_members(base, prompts):
    task = small_task()
    joined = ensemble(base, prompts, task)
    alone = [evaluate(base, prompt, task.test, task) for prompt in prompts]
    for member, expected in zip(joined.probabilities, alone, strict=True):
        np.testing.assert_allclose(member, expected.probabilities, rtol=1e-4, atol=1e-6)
    accuracies, each = joined.accuracies(), [one.accuracy for one in alone]
    assert accuracies["members, mean"] == pytest.approx(np.mean(each))
    assert accuracies["members, highest"] == max(each)
    on_validation = [evaluate(base, p, task.validation, task).accuracy for p in prompts]
    assert on_validation[joined.best] == max(on_validation)
    assert accuracies["best on validation"] == each[joined.best]
    mean = evaluate(base, average(prompts), task.test, task).accuracy
    assert accuracies["mean of the vectors"] == mean
    assert len(tell(task, joined).splitlines()) == 1 + len(accuracies)


def test_votes_and_mean_probability():
    probabilities = np.array([[[0.6, 0.4]], [[0.55, 0.45]], [[0.0, 1.0]]])  # (k=3, N=1, K=2)
    joined = Ensemble(probabilities, np.array([0]), np.array([1]), 0)
    assert joined.votes.tolist() == [0]
    assert joined.mean.tolist() == [1]
    tied = Ensemble(probabilities[1:], np.array([0]), np.array([1]), 0)
    assert tied.votes.tolist() == [1]  # the surer one


def test_half_way_between_two_prompts(base, prompts):
    task = small_task()
    losses = losses_between(base, prompts[0], prompts[1], task, points=3)
    ends = [evaluate(base, p, task.validation, task).loss for p in prompts[:2]]
    assert [losses[0], losses[2]] == pytest.approx(ends, rel=1e-5)
    vectors = (prompts[0].vectors + prompts[1].vectors) / 2
    middle = evaluate(base, replace(prompts[0], vectors=vectors), task.validation, task).loss
    assert losses[1] == pytest.approx(middle, rel=1e-5)


def test_what_is_no_ensemble(base, prompts):
    with pytest.raises(MiniptError, match="two prompts or more, of one length"):
        ensemble(base, prompts[:1], small_task())
    with pytest.raises(MiniptError, match="two prompts or more, of one length"):
        ensemble(base, [prompts[0], init_prompt(base, 4)], small_task())
    with pytest.raises(MiniptError, match="responses cannot be put to a vote"):
        ensemble(base, prompts, replace(small_task(), labels=(), label_words=()))


@pytest.mark.parametrize("family", [{}, LLAMA | {"tied": False}], ids=["gpt2", "llama"])
def test_a_base_with_its_channels_renamed_computes_the_same(family):
    base = random_base(0, **family).astype(np.float64)
    other, order = renamed(base, seed=1)
    batch, prompt = random_batch(base, 3, 5), random_prompt(base, 2)
    expected = logits(base, batch, prompt)
    following = replace(prompt, vectors=prompt.vectors[:, order])
    np.testing.assert_allclose(logits(other, batch, following), expected, rtol=1e-11)
    np.testing.assert_allclose(logits(other, batch), logits(base, batch), rtol=1e-11)
    assert np.abs(logits(other, batch, prompt) - expected).max() > 0.1
    assert other.fingerprint != base.fingerprint


def test_a_prompt_on_another_base(base, prompts):
    accuracies = on_another_base(base, prompts[0], small_task())
    own, _, there_too = accuracies.values()
    assert own == there_too
