"""The cost of a step, told: the sentences hold the table's own numbers, of every family."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, base_with_tokenizer, random_base, small_tokenizer

from minipt.errors import MiniptError
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner
from minipt.prompting.text import Batch
from minipt.prompting.verbalizer import MASK
from minipt.results.tables import WIDTH
from minipt.studies.cost import LABEL_WORDS, TextbookLearner, compare_ways, describe, tell
from minipt.studies.count import count
from minipt.tasks.datasets import load_task
from minipt.transformer.base import Base

SIZES = {"length": 3, "batch_size": 2, "tokens": 5}
FAMILIES = {
    "gpt2": {},
    "llama": LLAMA | {"key_value_heads": 1},
    "bert": BERT,
    "encoder": BERT | {"head": None},
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def base_of(family: str) -> Base:
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens([MASK])
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return random_base(0, vocabulary=size, context=32, tokenizer=tokenizer, **FAMILIES[family])


@every_family
def test_every_family_is_counted_measured_and_told(family):
    base = base_of(family)
    before = base.fingerprint
    costs = compare_ways(base, **SIZES)
    assert base.fingerprint == before
    assert costs.counted.keys() == costs.measured.keys()
    assert ("shared" in costs.counted) == base.config.causal
    for way, measured in costs.measured.items():
        assert costs.counted[way] == count(base.config, way, costs.step)
        assert measured.seconds > 0
        # All activations are there at one time, with what the step needs beside them.
        assert measured.peak > 4 * costs.counted[way].activations
    text = tell(costs)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(line == line.rstrip() for line in text.splitlines())
    assert ("in front of it, as this base must." in text.replace("\n", " ")) != base.config.causal
    json.dumps(describe(costs))


def test_the_record_adds_up():
    costs = compare_ways(base_with_tokenizer(), **SIZES)
    record = describe(costs)
    assert record["ways"]["full"]["operations_of_full"] == 1.0
    assert record["ways"]["full"]["trained_numbers"] == record["base_numbers"]
    for way in record["ways"].values():
        directions = ("forward", "to_inputs", "to_weights")
        parts = [sum(way["operations"][each].values()) for each in directions]
        assert sum(parts) == way["operations"]["total"]
        assert way["bytes"]["stored"] == 4 * way["trained_numbers"]
        assert way["bytes"]["state"] == 2 * way["bytes"]["stored"]
    answer = record["answer_operations"]
    assert answer["plain"] < answer["cached"] < answer["in_front"]
    P, C, L = 3, costs.base.config.channels, costs.base.config.layers
    assert record["key_value_bytes"] == 4 * 2 * L * P * C


def test_the_sentences_say_the_tables_numbers():
    costs = compare_ways(base_with_tokenizer(), **SIZES)
    text = " ".join(tell(costs).split())
    prompt, full = costs.counted["shared"], costs.counted["full"]
    assert f"takes {prompt.total / full.total:.0%} of full fine-tuning's operations" in text
    assert f"{full.to_weights.total / full.total:.0%}, and of the lowest layer" in text
    assert "in 13 rows; in front of each text they are 16" in text  # 3 + 2 · 5 and 2 · (3 + 5)
    stored = re.search(r"what is left: ([\d.]+) kB a task instead of ([\d.]+),", text).groups()
    assert [float(each) for each in stored] == [
        round(4 * cost.trained / 1000, 1) for cost in (prompt, full)
    ]


def test_the_textbook_learner_finds_the_same_gradient():
    base, task = base_with_tokenizer(), replace(load_task("toy"), label_words=LABEL_WORDS)
    batch = Batch([[1, 2, 3], [4, 5, 6]], [3, 3], [0, 1], [7, 8])
    ours, theirs = (
        kind(base, task, Settings(length=4)).loss_and_gradients(batch, np.random.default_rng(0))
        for kind in (PromptLearner, TextbookLearner)
    )
    assert abs(ours[0] - theirs[0]) < 1e-5
    np.testing.assert_allclose(ours[1]["prompt"], theirs[1]["prompt"], atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"tokens": 0}, "tokens is at least 1, not 0"),
        ({"length": 0}, "length is at least 1, not 0"),
        ({"batch_size": -1}, "batch_size is at least 1, not -1"),
        ({"tokens": 30}, "3 prompt vectors and 30 tokens exceed the 32 positions"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes, words):
    with pytest.raises(MiniptError, match=words):
        compare_ways(base_with_tokenizer(), **SIZES | sizes)
