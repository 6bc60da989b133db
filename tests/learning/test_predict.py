"""Predicting: a label, its probabilities and whether the text was cut, for each text."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, small_task

import minipt
from minipt.errors import MiniptError
from minipt.prompting.starts import init_prompt
from minipt.tasks.task import Split

TEXTS = ["a good day", "cruel words " * 40, "kind people", "a bad day"]


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def prompt(base):
    return minipt.tune(base, small_task(), length=3, steps=4, batch_size=4).prompt


def test_each_text_gets_what_evaluation_finds(base, prompt):
    labels = small_task().labels
    predictions = minipt.predict(base, prompt, TEXTS)
    evaluation = minipt.evaluate(base, prompt, Split(TEXTS, np.zeros(len(TEXTS), np.int64)))
    shares = [list(each.probabilities.values()) for each in predictions]
    assert shares == evaluation.probabilities.tolist()
    for each in predictions:
        assert tuple(each.probabilities) == labels
        assert each.label == max(each.probabilities, key=each.probabilities.get)
        assert sum(each.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
        assert {type(value) for value in each.probabilities.values()} == {float}
    assert [each.cut for each in predictions] == [False, True, False, False]
    assert evaluation.cut == 1


def test_a_text_is_answered_alone_as_among_others(base, prompt):
    for text, expected in zip(TEXTS, minipt.predict(base, prompt, TEXTS), strict=True):
        (alone,) = minipt.predict(base, prompt, (text,))
        assert (alone.label, alone.cut) == (expected.label, expected.cut)
        assert alone.probabilities == pytest.approx(expected.probabilities, rel=1e-4)


def test_a_head_of_its_own_answers(base):
    run = minipt.tune(base, small_task(), length=3, steps=4, batch_size=4, head=True)
    task = small_task()
    answers = [each.label for each in minipt.predict(base, run.prompt, task.test.texts)]
    truth = [task.labels[k] for k in task.test.labels]
    assert [a == b for a, b in zip(answers, truth, strict=True)] == run.test.right.tolist()


def test_no_texts_have_no_answers(base, prompt):
    assert minipt.predict(base, prompt, []) == []


def test_a_prediction_can_be_written_as_json(base, prompt):
    (prediction,) = minipt.predict(base, prompt, TEXTS[:1])
    assert asdict(prediction).keys() == {"label", "probabilities", "cut"}
    assert prediction.cut is False


@pytest.mark.parametrize("labels", [None, []])
@pytest.mark.parametrize("texts", [[], TEXTS])
def test_a_prompt_that_knows_no_labels_is_refused(base, prompt, labels, texts):
    about = {} if labels is None else prompt.about | {"labels": [], "label_words": []}
    with pytest.raises(MiniptError, match="not tuned for labels") as caught:
        minipt.predict(base, replace(prompt, about=about), texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", ["a good day", "", b"a good day", [None], [["a"]], ["a", 3]])
def test_texts_are_a_list_of_strings(base, prompt, texts):
    with pytest.raises(MiniptError, match="texts are a list of strings"):
        minipt.predict(base, prompt, texts)


def test_a_text_without_tokens_is_refused(base, prompt):
    bare = replace(prompt, about=prompt.about | {"template": "{text}"})
    with pytest.raises(MiniptError, match="the text '' has no tokens"):
        minipt.predict(base, bare, ["a good day", ""])


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_refused(base, prompt, number):
    broken = replace(prompt, vectors=np.full_like(prompt.vectors, number))
    with pytest.raises(MiniptError, match="not finite"), np.errstate(all="ignore"):
        minipt.predict(base, broken, TEXTS)


def test_a_fresh_prompt_is_refused(base):
    with pytest.raises(MiniptError, match="not tuned for labels"):
        minipt.predict(base, init_prompt(base, 3), TEXTS)


def test_a_label_beyond_the_classes_is_refused(base, prompt):
    split = Split(["the film was good", "the end was bad"], np.array([0, 2]))
    with pytest.raises(MiniptError, match="has the label 2 where there are 2 classes"):
        minipt.evaluate(base, prompt, split)


def test_a_prompt_of_another_base_is_refused():
    base, other = base_with_tokenizer(0), base_with_tokenizer(1)
    run = minipt.tune(base, small_task(), length=2, steps=1)
    with pytest.raises(MiniptError, match="made for base 'random-0', not for base 'random-1'"):
        minipt.predict(other, run.prompt, ["a day"])
