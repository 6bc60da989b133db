"""Predicting: a label, its probabilities and whether the text was cut, for each text."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers.bases import base_that_reads, base_with_tokenizer, small_task

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


def several(base) -> list:
    """Prompts that differ in length, template, labels and head."""
    words = ("good day", "good night", "bad", "a", "b")
    five = replace(small_task(), labels=words, label_words=tuple(f" {word}" for word in words))
    tasks = [small_task(), replace(small_task(), template="Say: {text} ="), small_task()]
    tasks += [five] if base.config.causal else []  # of several tokens
    heads = [False, False, True, False]
    return [
        minipt.tune(base, each, length=n + 2, steps=2, batch_size=4, seed=n, head=heads[n]).prompt
        for n, each in enumerate(tasks)
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_texts_with_prompts_of_their_own_are_answered_as_one_by_one(family: str):
    base = base_that_reads(family, context=100)
    prompts = several(base)
    texts = [f"{text} number {n}" for n, text in enumerate(TEXTS * 6)]
    which = np.random.default_rng(0).integers(0, len(prompts), len(texts))
    together = minipt.predict(base, prompts, texts, which)
    for k, text, answer in zip(which, texts, together, strict=True):
        (alone,) = minipt.predict(base, prompts[k], [text])
        assert (answer.label, answer.cut) == (alone.label, alone.cut)
        assert answer.probabilities == pytest.approx(alone.probabilities, rel=1e-5, abs=1e-6)


def test_a_hundred_prompts_answer_one_batch(base, prompt):
    rng = np.random.default_rng(0)
    prompts = [
        replace(prompt, vectors=rng.normal(size=prompt.vectors.shape).astype(np.float32))
        for _ in range(100)
    ]
    texts = ["a good day"] * 100
    together = minipt.predict(base, prompts, texts, which=range(100))
    for k in range(0, 100, 7):
        (alone,) = minipt.predict(base, prompts[k], texts[:1])
        assert together[k].probabilities == pytest.approx(alone.probabilities, rel=1e-5)
    assert len({answer.probabilities["good"] for answer in together}) > 90


@pytest.mark.parametrize("which", [None, [0], [0, 1, 2, 0], [0, -1, 0, 0], [0.0, 1.0, 0.0, 0.0]])
def test_which_has_a_prompt_for_each_text(base, prompt, which):
    match = "which says for each of the 4 texts the index of its prompt, 0 to 1"
    with pytest.raises(MiniptError, match=match):
        minipt.predict(base, [prompt, prompt], TEXTS, which)


def test_a_prompt_of_another_base_among_several_is_refused(base, prompt):
    other = replace(prompt, fingerprint="0" * 64, base_name="another")
    with pytest.raises(MiniptError, match="made for base 'another'"):
        minipt.predict(base, [prompt, other], TEXTS, [0, 1, 0, 0])
