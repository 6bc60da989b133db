"""Labels as they continue the filled template: what they share, where they differ, all tokens."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, base_that_reads, base_with_tokenizer, random_base, random_prompt
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

import minipt
from minipt.errors import MiniptError
from minipt.learning.evaluate import encode_split, evaluate, task_question
from minipt.maths.gradcheck import check_gradient
from minipt.maths.ops import softmax
from minipt.prompting.responses import encode_responses
from minipt.prompting.shares import share
from minipt.prompting.text import QuestionFormat, batches, encode
from minipt.prompting.verbalizer import head_start, label_tokens, question_format, read_labels
from minipt.prompting.wiring import WIRINGS, logits, loss_and_gradient
from minipt.tasks.task import Split, Task

FIVE = (" very good", " good", " fair", " bad", " very bad")


def marked_tokenizer(special: bool = False) -> Tokenizer:
    """As SentencePiece's: a mark stands in front of every text and for every space."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "▁",
        "▁good",
        "▁bad",
        *"godba:t",
        "▁g",
        "▁b",
        "▁go",
        "od",
        "▁ba",
    ]
    merges = [("▁", "g"), ("▁g", "o"), ("o", "d"), ("▁go", "od"), ("▁", "b"), ("▁b", "a")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, [*merges, ("▁ba", "d")], unk_token="<unk>")
    tokenizer = Tokenizer(model)
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(marks)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if special:
        ends = [("<s>", 1)]
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=ends)
    return tokenizer


def marked_base(special: bool = False):
    return random_base(0, vocabulary=20, context=40, tokenizer=marked_tokenizer(special))


def task_of(words, texts=12) -> Task:
    labels = np.arange(texts) % len(words)
    told = [f"the word was {'good' if k % 2 else 'bad'} {n}" for n, k in enumerate(labels)]
    split = Split(told, labels)
    names = tuple(word.strip() for word in words)
    return Task("task", names, tuple(words), "{text}\nIt was", split, split, split, "here")


def batch_of(base, task, room=30):
    question = task_question(base, None, task.train, task)
    rows, targets, _ = encode_split(base, question, task.train, room)
    ((_, batch),) = batches(rows, targets, question, len(rows))
    return question, batch


# What the labels share goes behind the text.


def test_classes_that_are_numbers_are_read_at_the_number():
    base = minipt.load_base("nano")
    words = [f" {number}" for number in (7001, 7002, 7003)]
    choices, lead, tails = read_labels(base, "{text}\nLabel:", words)
    assert base.tokenizer.decode(list(lead)) == " 700"
    assert [base.tokenizer.decode([token]) for token in choices] == ["1", "2", "3"]
    assert tails is None
    question = question_format(base, "{text}\nLabel:", words)
    (row,), _ = encode(base, question.template, ["a"], 30, question.lead)
    assert base.tokenizer.decode(row.tolist()) == "a\nLabel: 700"


def test_a_lone_space_is_no_label():
    """In this vocabulary " 0" is a space and a 0, and " 1" is one token."""
    base = minipt.load_base("nano")
    _, lead, tails = read_labels(base, "{text}\nLabel:", [" 0", " 1"])
    assert lead == ()
    assert [base.tokenizer.decode(tail.tolist()) for tail in tails] == [" 0", " 1"]
    assert [len(tail) for tail in tails] == [2, 1]


def test_a_mark_in_front_of_every_text_is_no_label():
    base = marked_base()
    assert label_tokens(base, (" good", " bad")).tolist() == [4, 5]
    choices, lead, _ = read_labels(base, "{text}\nIt was", (" good", " bad"))
    assert (choices.tolist(), lead) == ([4, 5], ())


def test_a_response_is_learnt_as_in_running_text():
    base = marked_base()
    _, (target,), _ = encode_responses(base, "{text}", ["good"], [" bad"], 20)
    assert target.tolist() == [5, 2]  # ▁bad and the end


@pytest.mark.parametrize("text", ["good bad", "good", "a good"])
def test_what_the_tokenizer_puts_in_front_stands_there(text):
    base = marked_base(special=True)
    (row,), _ = encode(base, "{text}", [text], 20)
    assert row.tolist() == base.tokenizer.encode(text).ids
    (short,), (cut,) = encode(base, "{text}", [text + " good" * 9], 4)
    assert cut and short[0] == 1 and len(short) == 4


def test_what_the_tokenizer_puts_behind_a_causal_text_is_refused():
    base = marked_base()
    ends = [("</s>", 2)]
    base.tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=ends)
    with pytest.raises(MiniptError, match="ends every text with '</s>'"):
        encode(base, "{text}", ["good"], 20)


# Labels of several tokens.


def test_the_probability_of_a_label_is_that_of_all_its_tokens():
    base = base_with_tokenizer()
    task = task_of(FIVE)
    question, _ = batch_of(base, task)
    assert question.choices is None and question.label_count == 5
    assert question.how == "the language model's head at all tokens of each label"
    found = evaluate(base, None, task.test, task)
    for n in (0, 5):
        scores = []
        for word in FIVE:
            (row,), _ = encode(base, task.template, [task.test.texts[n]], 30)
            tail = base.tokenizer.encode(word).ids
            score = 0.0
            for token in tail:
                whole = minipt.Batch([row], [len(row)], [token])
                score += np.log(softmax(logits(base, whole).astype(np.float64))[0, token])
                row = np.append(row, token)
            scores.append(score)
        expected = softmax(np.array([scores]))[0]
        np.testing.assert_allclose(found.probabilities[n], expected, rtol=1e-4)
    assert found.counts.sum() == found.total == 12


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_gradient_over_labels_agrees_with_finite_differences(wiring):
    base = base_with_tokenizer().astype(np.float64)
    _, batch = batch_of(base, task_of(FIVE, texts=5))
    prompt = random_prompt(base, 2)
    trace = minipt.Trace()
    _, gradient = loss_and_gradient(base, prompt, batch, trace, wiring)
    assert trace["text.scores"].shape == (5, 5)

    def loss(vectors):
        return loss_and_gradient(base, replace(prompt, vectors=vectors), batch, wiring=wiring)[0]

    assert check_gradient(loss, prompt.vectors, gradient) < 1e-7


def test_training_measuring_and_predict_read_the_same_labels():
    base, task = base_with_tokenizer(), task_of(FIVE)
    run = minipt.tune(base, task, length=2, steps=3, batch_size=4)
    again = evaluate(base, run.prompt, task.test)
    np.testing.assert_array_equal(again.probabilities, run.test.probabilities)
    answers = minipt.predict(base, run.prompt, task.test.texts)
    for answer, row in zip(answers, again.probabilities, strict=True):
        assert list(answer.probabilities) == list(task.labels)
        np.testing.assert_allclose(list(answer.probabilities.values()), row, rtol=1e-5)


def test_shares_of_a_batch_keep_a_text_and_its_labels_together():
    base = base_with_tokenizer()
    _, batch = batch_of(base, task_of(FIVE, texts=5))
    prompt = random_prompt(base, 2)
    loss, gradient = loss_and_gradient(base, prompt, batch)
    parts = [
        (len(part.right_choices) / 5, *loss_and_gradient(base, prompt, part))
        for part in (share(batch, k, 2) for k in (0, 1))
    ]
    assert sum(weight * part for weight, part, _ in parts) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(sum(w * g for w, _, g in parts), gradient, rtol=1e-3, atol=1e-6)


def test_a_label_that_begins_another_is_refused_with_what_to_do():
    base = base_with_tokenizer()
    match = "' good' and ' good day' apart, since the first is the beginning of the second.*--head"
    with pytest.raises(MiniptError, match=match):
        question_format(base, "{text}", (" good day", " good", " bad"))


@pytest.mark.parametrize("family", ["gpt2", "bert", "encoder"])
@pytest.mark.parametrize("words", [(" good", " good day", " bad"), FIVE])
def test_a_head_needs_no_words_that_can_be_told_apart(family, words):
    base, task = base_that_reads(family), task_of(words)
    run = minipt.tune(base, task, length=2, steps=2, head=True)
    assert run.prompt.head.shape == (len(words), base.config.channels)
    assert evaluate(base, run.prompt, task.test, task).accuracy == run.test_accuracy
    assert len(minipt.predict(base, run.prompt, ["a film"])) == 1


def test_a_head_begins_at_the_first_token_of_each_word():
    base = base_with_tokenizer()
    rows = base.params["token.table"][label_tokens(base, (" good", " bad"))]
    np.testing.assert_array_equal(head_start(base, "{text}", (" good", " bad")), rows)


@pytest.mark.parametrize("word", [" 😀", " 漢"])
def test_a_word_that_the_tokenizer_does_not_know_is_refused(word):
    base = marked_base()
    with pytest.raises(MiniptError, match=f"no tokens for the label word '{word}'"):
        question_format(base, "{text}\nIt was", (" good", word))


def test_a_masked_model_refuses_a_lone_space():
    base = base_that_reads("bert")
    with pytest.raises(MiniptError, match="' 7' begins with a lone space: name other words"):
        question_format(base, "{text}", (" good", " 7"))


def test_an_encoder_refuses_words_of_one_embedding():
    base = base_that_reads("encoder")
    with pytest.raises(MiniptError, match="its embeddings of the two are equal"):
        question_format(base, "{text}", (" good", " good"))


@pytest.mark.parametrize("labels", [[-1, 0], [0, 2], [], [[0, 1]], [0, 1, 0]])
def test_labels_that_no_row_has_are_refused(labels):
    with pytest.raises(MiniptError, match="labels"):
        minipt.Batch(np.ones((4, 3), int), [3] * 4, np.ones((4, 1), int), labels=labels)


# A text is text.


def test_the_name_of_a_special_token_in_a_text_is_text():
    base = minipt.load_base("nano")
    (row,), _ = encode(base, "{text}", ["so <|endoftext|> it goes"], 60)
    assert 0 not in row
    assert (
        base.tokenizer.decode(row.tolist(), skip_special_tokens=False) == "so <|endoftext|> it goes"
    )


def test_a_mask_in_a_text_does_not_move_the_question():
    base = base_that_reads("bert")
    question = question_format(base, "{text}\nIt was", (" good", " bad"))
    rows, _ = encode(base, question.template, ["the [MASK] was long", "the day was long"], 40)
    ((_, batch),) = batches(rows, np.array([0, 1]), question, 2)
    assert (batch.ids == question.mask).sum(1).tolist() == [1, 1]
    assert (batch.positions == batch.lengths - 3).all()  # [MASK] . [SEP]


def test_special_tokens_of_the_template_strip_as_they_say():
    base = base_with_tokenizer()
    base.tokenizer.add_special_tokens([AddedToken("<ask>", lstrip=True, rstrip=True)])
    ask = base.tokenizer.token_to_id("<ask>")
    (row,), _ = encode(base, "{text} <ask> good", ["a day"], 30)
    assert row.tolist() == base.tokenizer.encode("a day <ask> good").ids
    assert ask in row


# Not a number.


def test_measuring_refuses_what_is_no_number():
    base, task = base_with_tokenizer(), task_of((" good", " bad"))
    prompt = random_prompt(base, 2)
    prompt.vectors[:] = np.nan
    with pytest.raises(MiniptError, match="not finite"):
        evaluate(base, prompt, Split(["a", "b", "c"], np.zeros(3, int)), task)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_refuses_what_is_no_number(temperature):
    base = base_with_tokenizer()
    prompt = random_prompt(base, 2)
    prompt.vectors[:] = np.nan
    with pytest.raises(MiniptError, match="not finite"):
        list(minipt.generate(base, prompt, "a day", temperature=temperature))


def test_a_format_counts_its_labels():
    assert QuestionFormat("{text}", None, None, "").label_count == 0
    assert QuestionFormat("{text}", np.arange(3), None, "").label_count == 3
    assert (
        question_format(
            random_base(
                0,
                tokenizer=base_that_reads("encoder").tokenizer,
                vocabulary=300,
                **BERT | {"head": None},
            ),
            "{text}",
            (" a", " b"),
        ).label_count
        == 2
    )


@pytest.mark.parametrize("words", [(), (" good",)])
def test_there_are_two_labels_to_choose_from(words):
    with pytest.raises(MiniptError, match="at least two label words"):
        read_labels(base_with_tokenizer(), "{text}:", words)
