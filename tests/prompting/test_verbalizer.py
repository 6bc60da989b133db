"""From label words to what an answer is compared with, by what the base has for a head."""

import numpy as np
import pytest
from helpers.bases import BERT, random_base, small_tokenizer
from tokenizers import AddedToken, processors

from minipt.errors import MiniptError
from minipt.maths.gradcheck import compare
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import embed, label_tokens, question_format
from minipt.transformer.base import Base
from minipt.transformer.layer import StreamLayout
from minipt.transformer.model import forward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import ForwardOnly

WORDS = (" good", " bad")


def make(mask: bool = False, **fields: object) -> Base:
    """A BERT's tokenizer puts a token at both ends."""
    tokenizer = small_tokenizer()
    if fields:
        tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=ends
        )
    if mask:
        tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return random_base(0, vocabulary=size, context=32, tokenizer=tokenizer, **fields)


def test_a_decoder_answers_with_the_first_token_of_each_word():
    base = make()
    question = question_format(base, "{text}\nIt was", WORDS)
    first = [base.tokenizer.encode(word).ids[0] for word in WORDS]
    assert question.choices.tolist() == first == label_tokens(base, WORDS).tolist()
    assert (question.template, question.mask) == ("{text}\nIt was", None)
    assert question.how == "the language model's head at the text's end"


@pytest.mark.parametrize("fields", [{}, {"mask": True} | BERT])
def test_words_that_begin_alike_are_refused(fields):
    match = r"the label words ' good' and ' good day' apart.*--label-words.*--head.*--pairs"
    with pytest.raises(MiniptError, match=match):
        question_format(make(**fields), "{text}", (" bad", " good", " good day"))


def test_sentences_may_begin_alike():
    base = make(**BERT | {"head": None})
    question = question_format(base, "{text}", (" good", " good day"))
    assert compare("the two", *question.choices) > 1e-3


def test_a_word_without_tokens_is_refused():
    with pytest.raises(MiniptError, match="'' has no tokens"):
        label_tokens(make(), ("",))


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("{text} It was [MASK].", "{text} It was [MASK]."),
        ("{text}\nSentiment:", "{text}\nSentiment: [MASK]."),
    ],
)
def test_a_masked_base_answers_at_the_mask(template, asked):
    base = make(mask=True, **BERT)
    question = question_format(base, template, WORDS)
    assert question.template == asked
    assert f"the masked-word head at [MASK] in {asked!r}" == question.how
    rows, _ = encode(base, question.template, ["a good day", "bad"], 32)
    for _, batch in batches(rows, np.array([0, 1]), question, 2):
        read = batch.ids[np.arange(2), batch.positions]
        assert read.tolist() == [base.tokenizer.token_to_id("[MASK]")] * 2


@pytest.mark.parametrize("base", [make(**BERT), random_base(0, **BERT)])
def test_a_masked_base_whose_tokenizer_has_no_mask_is_refused(base):
    with pytest.raises(MiniptError, match=r"has no token \[MASK\]"):
        question_format(base, "{text}", WORDS)


def test_a_base_without_a_head_compares_with_its_own_sentences():
    base = make(**BERT | {"head": None})
    question = question_format(base, "{text}\nSentiment:", WORDS)
    assert (question.template, question.mask) == ("{text}", None)
    assert "'Sentiment: good', 'Sentiment: bad'" in question.how
    np.testing.assert_array_equal(
        question.choices, embed(base, ["Sentiment: good", "Sentiment: bad"])
    )
    np.testing.assert_allclose(np.linalg.norm(question.choices, axis=1), 1.0, rtol=1e-6)


def test_an_embedding_has_the_direction_of_the_mean_hidden_state():
    base = make(**BERT | {"head": None})
    ids = base.tokenizer.encode("a good day").ids
    assert ids[0] == base.tokenizer.token_to_id("[CLS]")
    p, every = base.params, np.arange(len(ids))[None]
    x = p["token.table"][ids] + p["position.table"][: len(ids)] + p["segment.table"][0]  # (T, C)
    lengths = np.array([len(ids)])
    text = Stream("text", x[None], every, lengths=lengths)
    hidden, _ = forward(StreamLayout(base, text, ForwardOnly()))  # (1, T, C)
    mean = hidden[0].mean(0)
    assert compare("embedding", embed(base, ["a good day"])[0], mean / np.linalg.norm(mean)) < 1e-6


def test_an_embedding_does_not_depend_on_its_neighbours():
    base = make(**BERT | {"head": None})
    sentences = ["a good day", "the people in it were cruel", "bad"]
    together = embed(base, sentences)
    for i, sentence in enumerate(sentences):
        np.testing.assert_array_equal(embed(base, [sentence])[0], together[i])
    with pytest.raises(MiniptError, match="has no tokens"):
        embed(base, [""])
