"""The tokenizer beside the weights: in which files it may lie, and what is refused."""

import json
from pathlib import Path

import pytest
from helpers.bases import BERT, base_that_reads, random_base, small_tokenizer
from tokenizers import Tokenizer

from minipt.errors import MiniptError
from minipt.loading.load import load_base, save_base
from minipt.transformer.base import Base

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a good film ##s e E ##ly , ."


@pytest.fixture
def directory(tmp_path) -> Path:
    return saved(with_vocabulary(290), tmp_path)


def with_vocabulary(size: int) -> Base:
    return random_base(0, vocabulary=size, tokenizer=small_tokenizer())


def saved(base: Base, tmp_path: Path) -> Path:
    save_base(base, tmp_path / "model")
    return tmp_path / "model"


def change(directory: Path, **entries: object) -> None:
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    with pytest.raises(MiniptError, match=r"such as that of '.*', the model 20 embeddings: the to"):
        load_base(saved(with_vocabulary(20), tmp_path))


def add(directory: Path, *tokens: str) -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens(list(tokens))
    tokenizer.save(str(directory / "tokenizer.json"))


def test_an_added_token_beyond_the_embeddings_is_refused(directory):
    add(directory, "[PAD]", "<|extra|>")
    with pytest.raises(MiniptError, match=r"'<\|extra\|>', .*tokenizer belongs to another model"):
        load_base(directory)


@pytest.mark.parametrize("token", ["[PAD]", "<pad>", "<|pad|>"])
def test_a_token_for_padding_needs_no_embedding(directory, token):
    add(directory, token)
    tokenizer = load_base(directory).tokenizer
    assert tokenizer.get_vocab_size() == 290
    assert max(tokenizer.encode(f"a {token} b").ids) < 290
    assert tokenizer.encode("a good day").ids == small_tokenizer().encode("a good day").ids


@pytest.mark.parametrize("content", [b"", b"{}", b"junk", b"\xff\xff", b"[]"])
def test_a_tokenizer_that_is_junk_is_refused(directory, content):
    (directory / "tokenizer.json").write_bytes(content)
    with pytest.raises(MiniptError, match=r"tokenizer\.json is not a tokenizer"):
        load_base(directory)


def test_a_truncated_tokenizer_is_refused(directory):
    path = directory / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MiniptError, match=r"tokenizer\.json is not a tokenizer"):
        load_base(directory)


def test_a_panic_in_the_library_is_a_sentence(directory):
    change(directory, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(MiniptError, match=r"tokenizer\.json is not a tokenizer \(Precompiled"):
        load_base(directory)


def test_an_interruption_is_not_caught(directory, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minipt.loading.tokenizer_file.check_tokenizer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_base(directory)


def template(number: int) -> dict:
    ends = {"[CLS]": {"id": "[CLS]", "ids": [number], "tokens": ["[CLS]"]}}
    ends |= {"[SEP]": {"id": "[SEP]", "ids": [0], "tokens": ["[SEP]"]}}
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
    single += [{"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    described = {"type": "TemplateProcessing", "single": single, "pair": single * 2}
    described["pair"][4] = {"Sequence": {"id": "B", "type_id": 1}}
    return described | {"special_tokens": ends}


def test_a_post_processor_with_tokens_that_are_not_there_is_refused(directory, tmp_path):
    for number in (290, 100_000):
        change(directory, post_processor=template(number))
        with pytest.raises(MiniptError, match=rf"adds '\[CLS\]' with the id {number}, .*another"):
            load_base(directory)
    change(directory, post_processor=template(289))
    assert load_base(directory).tokenizer.encode("a").ids[0] == 289


@pytest.mark.parametrize("head", ["masked", None])
def test_a_bert_s_tokenizer_adds_the_ends(head, tmp_path):
    directory = saved(base_that_reads("bert", head=head), tmp_path)
    assert load_base(directory).tokenizer.encode("a").tokens == ["[CLS]", "a", "[SEP]"]
    change(directory, post_processor=None)
    with pytest.raises(MiniptError, match=r"puts \[\] around a text, not \[CLS\] and \[SEP\]"):
        load_base(directory)


@pytest.mark.parametrize("token", ["<|endoftext|>", {"content": "<|endoftext|>", "special": True}])
def test_the_beginning_that_a_config_asks_for(directory, token):
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({"add_bos_token": True, "bos_token": token}))
    ids = small_tokenizer().encode("the film").ids
    assert load_base(directory).tokenizer.encode("the film").ids == [0, *ids]
    change(directory, post_processor=template(0))  # it adds one by itself
    assert load_base(directory).tokenizer.encode("the film").ids == [0, *ids, 0]
    path.write_text(json.dumps({"add_bos_token": True, "bos_token": None}))
    change(directory, post_processor=None)
    assert load_base(directory).tokenizer.encode("the film").ids == ids


# Without tokenizer.json.


def in_pieces(base: Base, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    directory = saved(base, tmp_path)
    (directory / "tokenizer.json").unlink(missing_ok=True)
    tokenizer.model.save(str(directory))
    return directory


def test_vocabulary_and_merges_make_gpt2_s_tokenizer(tmp_path):
    directory = in_pieces(with_vocabulary(290), small_tokenizer(), tmp_path)
    tokenizer = load_base(directory).tokenizer
    for text in ("the film was good", " 12 345", "naïve 🙂\n\n\tend", "a<|endoftext|>b", ""):
        ids = small_tokenizer().encode(text).ids
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids) == small_tokenizer().decode(ids)
    (directory / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    ids = small_tokenizer().encode(" good").ids
    assert load_base(directory).tokenizer.encode("good").ids == ids


def test_vocabulary_alone_makes_bert_s_tokenizer(tmp_path):
    base = random_base(3, vocabulary=len(WORDS.split()), **BERT)
    directory = saved(base, tmp_path)
    (directory / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n")
    tokens = load_base(directory).tokenizer.encode("A good films, É[MASK] goodly").tokens
    lowered = ["a", "good", "film", "##s", ",", "e", "[MASK]", "good", "##ly"]
    assert tokens == ["[CLS]", *lowered, "[SEP]"]
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    tokens = load_base(directory).tokenizer.encode("A E").tokens
    assert tokens == ["[CLS]", "[UNK]", "E", "[SEP]"]


def test_pieces_that_are_damaged_are_refused(tmp_path):
    directory = in_pieces(with_vocabulary(290), small_tokenizer(), tmp_path)
    (directory / "vocab.json").write_text("{half")
    with pytest.raises(MiniptError, match=r"vocab\.json is not a tokenizer"):
        load_base(directory)
    (directory / "vocab.json").unlink()
    with pytest.raises(MiniptError, match=r"merges\.txt is not a tokenizer \(.*vocab\.json\)"):
        load_base(directory)
    (directory / "merges.txt").unlink()
    (directory / "vocab.txt").write_text("[UNK]\na\n")  # no [CLS]
    with pytest.raises(MiniptError, match=r"vocab\.txt is not a tokenizer"):
        load_base(directory)


def test_the_format_of_sentencepiece_is_named(directory):
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    with pytest.raises(MiniptError, match=r"in tokenizer\.model only, .*AutoTokenizer and save it"):
        load_base(directory)
