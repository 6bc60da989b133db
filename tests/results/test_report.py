"""The report: every number beside its rivals, examples that nobody picked, and the proof."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_base, random_prompt

from minipt.errors import MiniptError
from minipt.learning.evaluate import Evaluation, evaluate
from minipt.learning.tune import prepare, tune
from minipt.results.report import (
    Score,
    account,
    choose_messages,
    class_table,
    compare_with_rivals,
    comparison_table,
    introduce,
    make_record,
    message_table,
    tell,
    warn,
)
from minipt.results.tables import align, shorten
from minipt.tasks.bag_of_words import bag_of_words, confidence_interval
from minipt.tasks.task import Split, Task


@pytest.fixture(scope="module")
def task():
    texts = [f"the {s} was {w}" for s in ("film", "day", "night", "life") for w in ("good", "bad")]
    split = Split(texts, np.array([0, 1] * 4))
    return Task("words", ("good", "bad"), (" good", " bad"), "{text}\n:", split, split, split, "me")


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def run(base, task):
    return tune(base, task, length=3, steps=4, batch_size=4)


def test_a_score_has_its_interval():
    assert Score(9, 10).accuracy == 0.9
    assert Score(9, 10).interval == confidence_interval(9, 10)


def test_the_comparison_is_of_the_test_split(base, task, run):
    scores = compare_with_rivals(base, task, run.test)
    assert list(scores) == ["majority", "bag_of_words", "untuned", "written", "tuned"]
    assert scores["majority"].accuracy == task.majority_accuracy
    words = bag_of_words(task.train, task.test, 2)
    assert scores["bag_of_words"].correct == (words == task.test.labels).sum()
    assert scores["untuned"].correct == evaluate(base, None, task.test, task).correct
    by_hand = replace(task, template=task.opening + task.template)
    assert by_hand.template.startswith("Answer with one word.\n\n{text}")
    assert scores["written"].correct == evaluate(base, None, task.test, by_hand).correct
    assert scores["tuned"].accuracy == run.test_accuracy
    table = comparison_table(task, scores).splitlines()
    assert len(table) == 6
    assert len({line.index(" of 8") for line in table[1:]}) == 1
    assert table[1].startswith("always 'good' ")
    low, high = scores["tuned"].interval
    assert table[5].endswith(f"  {run.test_accuracy:.3f}  {low:.3f} to {high:.3f}")


def test_the_record_is_json(base, task, run):
    record = make_record(base, task, run, compare_with_rivals(base, task, run.test))
    assert json.loads(json.dumps(record)) == record
    assert record["test_accuracy"] == run.test_accuracy
    assert record["validation_accuracy"] == run.history[run.best_step]["validation_accuracy"]
    assert record["interval"] == list(confidence_interval(run.test.correct, run.test.total))
    assert record["intervals"].keys() == {"majority", "bag_of_words", "untuned", "written", "tuned"}


def introduced(base, task, **given) -> str:
    learner, settings = prepare(base, task, **given)
    return introduce(task, learner, settings)


def test_everything_is_told_in_lines_of_a_terminal(base, task, run):
    told = tell(base, task, run, compare_with_rivals(base, task, run.test))
    assert max(map(len, told.splitlines())) <= 100
    assert "too long" not in told
    run.cut = 3
    assert "which lost their beginning: 3" in tell(base, task, run, {})
    run.cut = 0
    assert "prompt: 20 vectors from 'vocab'\n" in introduced(base, task)
    worded = introduced(base, task, method="text", text="Judge.\n")
    assert "prompt: 20 vectors from the words 'Judge.'\n" in worded
    assert f"read by: {run.reading}\n" in told


def test_a_start_says_what_it_needs(base, task):
    told = introduced(base, task, method="normal")
    ratio = np.linalg.norm(prepare(base, task, method="normal")[0].start.vectors, axis=1).mean()
    ratio /= np.linalg.norm(base.params["token.table"], axis=1).mean()
    assert f"from 'normal', {ratio:.1f} times as long as words: the learning rate must fit" in told


def test_labels_that_are_read_otherwise_are_told(base, task):
    assert "labels:" not in introduced(base, task)
    longer = replace(task, label_words=(" good day", " good day night"))
    with pytest.raises(MiniptError, match="cannot tell"):
        introduced(base, longer)
    assert "\nlabels: told apart by the head only" in introduced(base, longer, head=True)
    shared = replace(task, label_words=(" a good", " a bad"))
    assert "\nlabels: read behind ' a', with which all begin" in introduced(base, shared)


def test_a_base_that_cannot_be_asked_is_left_out(base, task):
    alike = replace(task, label_words=(" good", " good day"))
    with_head = tune(base, alike, length=3, steps=2, head=True)
    scores = compare_with_rivals(base, alike, with_head.test)
    assert list(scores) == ["majority", "bag_of_words", "tuned"]
    record = make_record(base, alike, with_head, scores)
    assert "untuned_accuracy" not in record
    assert max(map(len, tell(base, alike, with_head, scores).splitlines())) <= 100


def test_a_run_that_went_nowhere_is_warned_of(base, task, run):
    still = tune(base, task, length=3, steps=4, learning_rate=1e-6)
    counts = np.array([[4, 0], [4, 0]])
    moved = (
        r"the prompt moved by only 0\.0% of its start's length: the learning rate, 1e-06, is too "
    )
    moved += r"small, or 4 steps are too few: try --learning-rate 1e-05"
    both = replace(still.test, counts=np.array([[2, 2], [0, 4]]))
    assert re.fullmatch(moved, warn(task, replace(still, test=both)))
    only = "the prompt answers 'good' to every test text"
    one = replace(still, test=replace(still.test, counts=counts))
    assert re.fullmatch(f"{only}, and {moved}", warn(task, one))
    far = replace(run, settings=replace(run.settings, learning_rate=0.3))
    far.history[-1]["distance"] = 1e3
    assert warn(task, replace(far, test=one.test)).startswith(f"{only}: try another learning rate")
    assert warn(task, replace(far, test=both)) == ""
    single = replace(task, test=Split(task.test.texts, np.zeros(8, int)))
    assert warn(single, replace(far, test=one.test)) == ""


def many(total: int, classes: int, right: bool = True) -> tuple[Task, Evaluation]:
    labels = np.arange(total) % classes
    split = Split([f"text {i} " + "long " * 40 for i in range(total)], labels)
    names = tuple(f"class{k}" for k in range(classes))
    task = Task("many", names, names, "{text}", split, split, split, "me")
    answers = labels if right else (labels + 1) % classes
    probabilities = np.full((total, classes), 0.1 / classes)
    probabilities[np.arange(total), answers] = 0.9
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, answers), 1)
    correct = int(counts.trace())
    each = answers == labels
    return task, Evaluation(correct / total, 0.1, correct, total, each, counts, probabilities, 0)


def test_counts_stand_at_the_row_of_the_class_and_the_column_of_the_answer():
    task, evaluation = many(9, 3, right=False)
    lines = [line.split() for line in class_table(task, evaluation).splitlines()]
    assert lines[1:] == [
        ["class0", "0", "3", "0"],
        ["class1", "0", "0", "3"],
        ["class2", "3", "0", "0"],
    ]


def test_a_table_of_many_classes_is_left_out(base, run):
    task, evaluation = many(40, 9)
    run = type(run)(**{**vars(run), "test": evaluation})
    assert "class \\ answer" not in tell(base, task, run, {})


def test_messages_are_the_first_of_each_class_in_turn():
    assert choose_messages(np.array([1, 1, 1, 0, 1, 0]), 4) == [3, 0, 5, 1]
    assert choose_messages(np.array([1, 1, 1, 0, 1, 0]), 10) == [3, 0, 5, 1, 2, 4]
    assert choose_messages(np.arange(20), 10) == list(range(10))


def test_wrong_answers_are_marked():
    head, _, *rows = message_table(*many(30, 2)).splitlines()
    assert head.endswith("10 of 30")
    assert len(rows) == 10
    assert all(row.startswith("  class") for row in rows)
    assert all(row.endswith("...") and len(row) <= 100 for row in rows)
    wrong = message_table(*many(30, 2, right=False)).splitlines()[2:]
    assert all(row.startswith("x  class") for row in wrong)


def test_the_account_says_when_a_base_has_changed():
    base = random_base(0)
    prompt = random_prompt(base, 5)
    told = account(base, prompt)
    assert f"5 x 8 = 40 numbers, 0.2 kB, {40 / base.size:.2%} of the base's {base.size:,}" in told
    assert "the same" in told
    assert "NOT" not in told
    base.params["final.bias"].flags.writeable = True
    base.params["final.bias"][0] += 1
    told = account(base, prompt)
    assert "CHANGED" in told
    assert "NOT read-only" in told


def test_tables_line_up_and_keep_to_the_width():
    assert align([("a", "1"), ("long", "23")], "<>") == "a      1\nlong  23"
    assert align([("a\n b\x07c",)], "<") == "a b c"
    assert len(align([("x" * 300,)], "<")) <= 100
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abc..."
