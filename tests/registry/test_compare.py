"""Two versions side by side: what differs, and the paired difference of their accuracies."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import base_that_reads, base_with_tokenizer, random_prompt, small_task

import minipt
from minipt.errors import MiniptError


def test_what_differs_stands_side_by_side(registry, base):
    for seed, steps in ((0, 4), (1, 6)):
        run = minipt.tune(base, small_task(), length=3, steps=steps, batch_size=4, seed=seed)
        registry.save(run, "spam", f"seed {seed}")
    diff = registry.diff("spam@1", "spam")
    assert diff.facts["seed"] == (0, 1)
    assert diff.facts["settings.steps"] == (4, 6)
    assert "settings.length" not in diff.facts and "data.sha256" not in diff.facts
    assert diff.equal > 10 and diff.answers is None
    json.dumps(diff.describe())


def test_norms_distance_and_cosine_are_those_of_all_numbers(registry, base):
    one, two = random_prompt(base, 3, 0), random_prompt(base, 3, 1)
    registry.save(one, "a")
    registry.save(two, "b")
    diff = registry.diff("a", "b")
    a, b = one.vectors.ravel().astype(float), two.vectors.ravel().astype(float)
    assert diff.norms == pytest.approx((np.linalg.norm(a), np.linalg.norm(b)), rel=1e-12)
    assert diff.distance == pytest.approx(np.linalg.norm(a - b), rel=1e-12)
    assert diff.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    same = registry.diff("a", "a")
    assert same.distance == 0 and same.cosine == pytest.approx(1.0) and same.facts == {}


def test_other_lengths_and_bases_have_no_distance(registry, base):
    registry.save(random_prompt(base, 3), "a")
    registry.save(random_prompt(base, 4), "longer")
    registry.save(random_prompt(base_with_tokenizer(1), 3), "elsewhere")
    zero = replace(random_prompt(base, 3), vectors=np.zeros((3, 8), np.float32))
    registry.save(zero, "zero")
    for other in ("longer", "elsewhere"):
        diff = registry.diff("a", other)
        assert diff.distance is None and diff.cosine is None
    assert registry.diff("a", "zero").cosine is None


def test_the_two_answer_the_same_texts(registry, base):
    task = small_task()
    runs = [minipt.tune(base, task, length=3, steps=4, batch_size=4, seed=s) for s in range(2)]
    for run in runs:
        registry.save(run, "spam")
    answers = registry.diff("spam@1", "spam@2", task, base).answers
    a, b = (run.test.right for run in runs)
    assert answers.correct == (a.sum(), b.sum()) and answers.total == len(a)
    assert answers.gained - answers.lost == b.sum() - a.sum()
    assert answers.difference.mean == pytest.approx(b.mean() - a.mean())
    assert answers.difference.low <= answers.difference.mean <= answers.difference.high
    assert 0 < answers.p_value <= 1


def test_versions_of_two_bases_answer_each_on_its_own(registry):
    task = small_task()
    bases = (base_with_tokenizer(0), base_that_reads("llama"))
    runs = [minipt.tune(base, task, length=3, steps=2, batch_size=4) for base in bases]
    for run in runs:
        registry.save(run, "spam")
    diff = registry.diff("spam@1", "spam@2", task, bases)
    assert diff.answers.correct == tuple(run.test.correct for run in runs)
    with pytest.raises(MiniptError, match=r"spam@2 was made for base"):
        registry.diff("spam@1", "spam@2", task, bases[0])


def test_a_task_of_other_labels_is_refused(two, base, run):
    two.save(run, "spam")
    other = replace(small_task(), labels=("yes", "no"))
    with pytest.raises(MiniptError, match="has the labels yes, no, and a prompt was tuned for"):
        two.diff("spam@2", "spam@3", other, base)
    with pytest.raises(MiniptError, match="needs the base"):
        two.diff("spam@2", "spam@3", small_task())


def test_only_the_texts_where_one_is_right_tell_the_two_apart(two, base, run, monkeypatch):
    two.save(run, "spam")
    rights = iter([[1, 1, 1, 0, 0, 0, 0, 1], [1, 0, 1, 1, 1, 1, 0, 1]])

    def evaluate(*_):
        right = np.array(next(rights), bool)
        return replace(run.test, right=right, correct=int(right.sum()), total=len(right))

    monkeypatch.setattr("minipt.registry.compare.evaluate", evaluate)
    answers = two.diff("spam@2", "spam@3", small_task(), base).answers
    assert (answers.correct, answers.total) == ((4, 6), 8)
    assert (answers.gained, answers.lost) == (3, 1)
    assert answers.difference.mean == pytest.approx(0.25)
    assert answers.p_value == pytest.approx(2 * (1 + 4) / 2**4)  # four tosses of a coin
