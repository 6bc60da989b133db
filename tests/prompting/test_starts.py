"""Where a prompt starts: each of the starts, and what they refuse."""

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_base, random_batch

from minipt.errors import MiniptError
from minipt.prompting import starts
from minipt.prompting.starts import STARTS, init_prompt
from minipt.prompting.wiring import loss_and_gradient

NEEDED = {"labels": {"label_words": [" good", " bad"]}, "text": {"text": "a good day"}}
every_method = pytest.mark.parametrize("method", STARTS)


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture
def table(base):
    return base.params["token.table"]


def rows_of(vectors: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The token whose embedding each vector is, -1 for none."""
    same = (vectors[:, None] == table).all(-1)
    return np.where(same.any(1), same.argmax(1), -1)


@every_method
def test_every_start_has_the_asked_shape_and_says_how_it_was_made(base, method):
    prompt = init_prompt(base, 5, method, seed=3, **NEEDED.get(method, {}))
    assert prompt.vectors.shape == (5, base.config.channels)
    assert prompt.vectors.dtype == np.float32
    assert prompt.vectors.flags.writeable
    assert (prompt.fingerprint, prompt.base_name) == (base.fingerprint, base.name)
    words = {"text": "a good day"} if method == "text" else {}
    assert prompt.about == {"method": method, "seed": 3} | words


@every_method
def test_the_same_seed_gives_the_same_bits(base, method):
    first, again = (init_prompt(base, 5, method, seed=3, **NEEDED.get(method, {})) for _ in "ab")
    assert first.vectors.tobytes() == again.vectors.tobytes()


def test_a_seed_of_numpys_can_be_saved(base, tmp_path):
    prompt = init_prompt(base, 3, seed=np.int64(3))
    prompt.save(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(prompt.vectors, init_prompt(base, 3, seed=3).vectors)


@pytest.mark.parametrize("method", ["uniform", "vocab", "labels"])
def test_another_seed_gives_other_vectors(base, method):
    first, other = (init_prompt(base, 5, method, s, **NEEDED.get(method, {})) for s in (0, 1))
    assert not np.array_equal(first.vectors, other.vectors)


def test_uniform_fills_the_range_from_minus_to_plus_a_half(base):
    vectors = init_prompt(base, 31, "uniform").vectors
    assert -0.5 <= vectors.min() < -0.45 and 0.45 < vectors.max() <= 0.5
    assert abs(vectors.mean()) < 0.05
    assert vectors.std() == pytest.approx(12**-0.5, rel=0.1)


def test_vocab_takes_different_tokens_embeddings_and_no_special_ones(base, table):
    drawn = [rows_of(init_prompt(base, 20, "vocab", seed).vectors, table) for seed in range(150)]
    assert all(len(set(rows)) == 20 for rows in drawn)
    special = set(base.tokenizer.get_added_tokens_decoder())
    assert special == {0}
    assert set(np.concatenate(drawn)) == set(range(len(table))) - special


def test_vocab_takes_the_most_frequent_tokens(base, table, monkeypatch):
    monkeypatch.setattr(starts, "FREQUENT_TOKENS", 9)
    rows = rows_of(init_prompt(base, 8, "vocab").vectors, table)
    assert sorted(rows) == list(range(1, 9))


def test_vocab_repeats_tokens_only_where_there_are_too_few(base, table, monkeypatch):
    monkeypatch.setattr(starts, "FREQUENT_TOKENS", 4)
    assert set(rows_of(init_prompt(base, 20, "vocab").vectors, table)) <= {1, 2, 3}


def test_labels_begin_with_the_mean_of_each_words_tokens(base, table):
    vectors = init_prompt(base, 5, "labels", label_words=[" good", " day cruel"]).vectors
    one, several = (base.tokenizer.encode(word).ids for word in (" good", " day cruel"))
    assert len(several) > 1
    np.testing.assert_allclose(vectors[0], table[one].mean(0), rtol=1e-6)
    np.testing.assert_allclose(vectors[1], table[several].mean(0), rtol=1e-6)
    assert (rows_of(vectors[2:], table) >= 0).all()


def test_more_labels_than_vectors_are_cut(base, table):
    vectors = init_prompt(base, 1, "labels", label_words=[" good", " bad"]).vectors
    expected = table[base.tokenizer.encode(" good").ids].mean(0)
    np.testing.assert_allclose(vectors, expected[None], rtol=1e-6)


def test_text_is_its_tokens_embeddings_repeated_or_cut(base, table):
    ids = base.tokenizer.encode("a good day").ids
    for length in (len(ids), 2 * len(ids) + 1, 2):
        vectors = init_prompt(base, length, "text", text="a good day").vectors
        np.testing.assert_array_equal(vectors, table[[ids[p % len(ids)] for p in range(length)]])


def test_a_prompt_is_a_copy_and_the_base_stays_as_it_is(base, table):
    fingerprint = base.fingerprint
    for method in STARTS:
        init_prompt(base, 3, method, **NEEDED.get(method, {})).vectors[...] = 9.0
    assert base.fingerprint == fingerprint


def test_a_base_without_a_tokenizer_can_start_from_its_vocabulary():
    assert init_prompt(random_base(0), 3).vectors.shape == (3, 8)


@pytest.mark.parametrize("length", [0, -1, 32, 1000])
def test_a_length_that_leaves_no_room_is_refused(base, length):
    with pytest.raises(MiniptError, match=rf"has 1 to 31 vectors, not {length}"):
        init_prompt(base, length)


def test_the_longest_prompt_leaves_room_for_one_token(base):
    prompt = init_prompt(base, 31)
    assert np.isfinite(loss_and_gradient(base, prompt, random_batch(base, 2, 1))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "zeros"}, "unknown start 'zeros': choose one of uniform, vocab, labels, text"),
        ({"method": "text"}, "needs a text"),
        ({"method": "text", "text": ""}, "needs a text"),
        ({"method": "labels"}, "needs label words"),
        ({"method": "labels", "label_words": []}, "needs label words"),
        ({"method": "labels", "label_words": [" good", ""]}, "has no tokens"),
    ],
)
def test_a_start_without_what_it_needs_is_refused(base, arguments, message):
    with pytest.raises(MiniptError, match=message):
        init_prompt(base, 3, **arguments)


@pytest.mark.parametrize("method", ["text", "labels"])
def test_a_start_from_words_needs_a_tokenizer(method):
    with pytest.raises(MiniptError, match=r"without a tokenizer\.json"):
        init_prompt(random_base(0), 3, method, **NEEDED[method])


def test_peft_s_own_start_is_longer_than_words():
    tiny = random_base(0, channels=64)
    vectors = init_prompt(tiny, 15, "normal").vectors
    assert abs(vectors.mean()) < 0.1
    assert 0.9 < vectors.std() < 1.1


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 0.5}, {"seed": None}, {"length": 2.5}])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(MiniptError, match=r"seed is a whole number|has 1 to 15 vectors"):
        init_prompt(random_base(0), **{"length": 3} | wrong)
