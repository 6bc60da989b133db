"""The real weights against transformers, on real texts, where the cache has what is needed."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tokenizers import Tokenizer

import minipt
from minipt.loading.named_bases import base_directory, base_is_here
from minipt.maths.gradcheck import compare
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import embed, question_format
from minipt.prompting.wiring import logits
from minipt.tasks.datasets import task_is_here

TEXTS = 50


def cached(name: str) -> minipt.transformer.base.Base:
    if not (base_is_here(name) and task_is_here("movie-reviews")):
        pytest.skip(f"{name} and the film reviews are not in the cache")
    return minipt.load_base(name)


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    if not task_is_here("movie-reviews"):
        pytest.skip("the film reviews are not in the cache")
    return minipt.load_task("movie-reviews").test.texts[:TEXTS]


def test_minilm_embeds_as_transformers_does(reviews):
    base = cached("minilm")
    directory = base_directory("minilm")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = transformers.AutoModel.from_pretrained(directory).eval()
    for text, ours in zip(reviews, embed(base, reviews), strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            hidden = model(input_ids=ids).last_hidden_state[0]
        theirs = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        assert compare("embedding", ours, theirs) < 1e-5


def test_smollm2_answers_as_transformers_does(reviews):
    base = cached("smollm2-135m")
    model = transformers.AutoModelForCausalLM.from_pretrained(base_directory("smollm2-135m")).eval()
    rows, _ = encode(base, "{text}\nSentiment:", reviews, base.config.context)
    question = question_format(base, "{text}\nSentiment:", (" negative", " positive"))
    worst = 0.0
    for which, batch in batches(rows, np.zeros(TEXTS, np.int64), question, 10):
        whole = minipt.Batch(batch.ids, batch.lengths, batch.targets)
        ours = logits(base, whole)  # (B, V)
        for b, i in enumerate(which):
            with torch.no_grad():
                theirs = model(input_ids=torch.tensor(rows[i][None])).logits[0, -1].numpy()
            worst = max(worst, compare("logits", ours[b], theirs))
    assert worst < 1e-5


def test_micro_masked_answers_as_transformers_does(reviews):
    base = minipt.load_base("micro-masked")
    directory = base_directory("micro-masked")
    model = transformers.BertForMaskedLM.from_pretrained(directory, dtype=torch.float32).eval()
    rows, _ = encode(base, "{text} It was [MASK].", reviews, base.config.context)
    mask = base.tokenizer.token_to_id("[MASK]")
    worst = 0.0
    for row in rows:
        (position,) = np.flatnonzero(row == mask)
        ours = logits(
            base, minipt.Batch(row[None], [len(row)], [0], positions=[position])
        )  # (1, V)
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor(row[None])).logits[0, position].numpy()
        worst = max(worst, compare("logits", ours[0], theirs))
    assert worst < 1e-5
