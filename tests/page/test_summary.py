"""A step as text, as JSON and as a picture."""

import json

import numpy as np
import pytest
from helpers.bases import base_that_reads, base_with_tokenizer, random_base, random_prompt

from minipt.page.steps import take_steps
from minipt.page.summary import describe, draw, tell

LABELS = {"labels": ["a", "b"], "label_words": [" good", " bad"], "template": "{text}\n:"}


def steps_of(base, text="the film was kind", count=1, P=4):
    prompt = random_prompt(base, P)
    prompt.about |= LABELS
    return take_steps(base, prompt, text, "b", count)


def test_the_table_has_every_array():
    of = steps_of(base_with_tokenizer())
    told = tell(of)
    assert max(map(len, told.splitlines())) <= 100
    for row in of.trace.table():
        assert f"\n{row['name']} " in told
    assert "after step" not in told


def test_of_several_steps_every_loss_is_told():
    of = steps_of(base_with_tokenizer(), count=3)
    told = tell(of)
    lines = told[told.index("after step") :].splitlines()[1:4]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert lines[2].split()[1] == f"{of.steps[2].loss_after:.4f}"
    record = json.loads(json.dumps(describe(of)))
    assert record["losses"] == [of.loss, *(step.loss_after for step in of.steps)]
    assert record["probabilities"]["after"]["b"] == of.probabilities["after"][1]
    assert len(record["gradient_norms"]) == 4


@pytest.mark.parametrize("layers", [1, 2])
def test_the_picture_shows_attention_to_the_prompt(layers):
    base = base_with_tokenizer()
    small = random_base(0, layers, vocabulary=290, context=32, tokenizer=base.tokenizer)
    of = steps_of(small, "the film")
    figure = draw(of)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (layers, 4)
    last = of.trace[f"text.h{layers - 1}.attn.weights"][0, :, -1, :4].mean(0)
    np.testing.assert_allclose(shown[-1], last)
    rows = len(figure.axes[2].get_yticklabels())
    assert rows == (1 if layers == 1 else len(of.tokens))


@pytest.mark.parametrize("family", ["bert", "encoder"])
def test_the_picture_of_an_encoder_shows_the_tokens_of_the_text(family):
    of = steps_of(base_that_reads(family))
    axes = draw(of).axes[2]
    shown = axes.images[0].get_array()
    assert len(axes.get_yticklabels()) == len(shown) == len(of.tokens)
    weights = of.trace["text.h0.attn.weights"][0, :, 4:, :4].mean(0)
    np.testing.assert_allclose(shown, weights, 1e-6)
