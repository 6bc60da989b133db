"""The tokenizer beside a model's weights, from any of the files that it may lie in.

In: a directory in Hugging Face's format. Out: a `Tokenizer`, of which each token has an embedding.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from minipt.errors import MiniptError
from minipt.files.diagnose import panics_as_errors, unreadable
from minipt.files.formats import read_json
from minipt.transformer.base import Config

COMPLAINT, ADVICE = "is not a tokenizer", "fetch the model again"
ENDS = ("[CLS]", "[SEP]")
SPECIAL = ("[PAD]", "[UNK]", *ENDS, "[MASK]", "<|endoftext|>")


def read_tokenizer(directory: Path, config: Config) -> Tokenizer | None:
    """The tokenizer, or None if there is no file: such a base takes ids and refuses text.

    Without `tokenizer.json` it is made of `vocab.json` and `merges.txt` as GPT-2's, or of
    `vocab.txt` as BERT's. Raises MiniptError for a file that is damaged or of another model.
    """
    path = next((directory / name for name in MAKERS if (directory / name).exists()), None)
    if path is None and (directory / "tokenizer.model").exists():
        raise MiniptError(
            f"{directory} has its tokenizer in tokenizer.model only, SentencePiece's format: load "
            "it with transformers.AutoTokenizer and save it, which writes tokenizer.json"
        )
    if path is None:
        return None
    said = read_json(directory / "tokenizer_config.json", "is not a JSON object", ADVICE, {})
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        with panics_as_errors():
            tokenizer = MAKERS[path.name](path, said)
    except MiniptError:
        raise
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise unreadable(path, COMPLAINT, error, ADVICE) from error
    if said.get("add_bos_token") is True and config.causal:
        begin_with(tokenizer, _content(said.get("bos_token")))
    return check_tokenizer(path, tokenizer, config)


def begin_with(tokenizer: Tokenizer, token: str | None) -> None:
    """Have the tokenizer put this token in front of a text, if it has it and adds none itself."""
    number = None if token is None else tokenizer.token_to_id(token)
    if number is not None and not tokenizer.encode("").ids:
        front = processors.TemplateProcessing(
            single=f"{token}:0 $A:0", special_tokens=[(token, number)]
        )
        before = tokenizer.post_processor
        tokenizer.post_processor = processors.Sequence([before, front]) if before else front


def check_tokenizer(path: Path, tokenizer: Tokenizer, config: Config) -> Tokenizer:
    """The tokenizer without padding and truncation, if each of its tokens has an embedding.

    A token for padding may lack one. It is taken out, since minipt pads with nothing. Raises
    MiniptError for other tokens without an embedding, and for a BERT's that adds no [CLS] and
    [SEP].
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.get_vocab(with_added_tokens=True)
    beyond = {token for token, i in ids.items() if i >= config.vocabulary}
    padding = {token for token in beyond if "pad" in token.lower()} - tokenizer.get_vocab(
        False
    ).keys()
    if others := sorted(beyond - padding):
        raise MiniptError(
            f"{path} has token ids up to {max(ids.values())}, such as that of {others[0]!r}, the "
            f"model {config.vocabulary} embeddings: the tokenizer belongs to another model"
        )
    if padding:
        tokenizer = _without(padding, tokenizer)
    try:
        with panics_as_errors():
            ends, said = tokenizer.encode(""), tokenizer.encode("a b")
    except Exception as error:
        raise unreadable(path, COMPLAINT, error, ADVICE) from error
    for i, token in zip(ends.ids + said.ids, ends.tokens + said.tokens, strict=True):
        if i >= config.vocabulary or tokenizer.id_to_token(i) is None:
            raise MiniptError(
                f"{path} has a post_processor that adds {token!r} with the id {i}, which the model "
                "has not: the tokenizer belongs to another model"
            )
    if not config.causal and len(ends.ids) != 2:
        raise MiniptError(
            f"{path} puts {ends.tokens} around a text, not {' and '.join(ENDS)}, as a BERT needs: "
            "give it the post_processor of the model's authors"
        )
    return tokenizer


def _without(tokens: set[str], tokenizer: Tokenizer) -> Tokenizer:
    described = json.loads(tokenizer.to_str())
    added = described["added_tokens"]
    described["added_tokens"] = [each for each in added if each["content"] not in tokens]
    return Tokenizer.from_str(json.dumps(described))


def _from_json(path: Path, _: dict) -> Tokenizer:
    return Tokenizer.from_str(path.read_text(encoding="utf-8-sig"))


def _like_gpt2(path: Path, said: dict) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019). The first line of the merges may name a version."""
    vocabulary = read_json(path.with_name("vocab.json"), COMPLAINT, ADVICE)
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    front = said.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=front)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special(tokenizer, said)


def _like_bert(path: Path, said: dict) -> Tokenizer:
    """WordPiece (Devlin et al. 2019), in lower case unless it is said otherwise."""
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=said.get("do_lower_case", True),
        strip_accents=said.get("strip_accents"),
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ENDS]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return _with_special(tokenizer, said)


def _with_special(tokenizer: Tokenizer, said: dict) -> Tokenizer:
    named = {_content(value) or "" for key, value in said.items() if key.endswith("_token")}
    tokenizer.add_special_tokens(sorted({*SPECIAL, *named} & tokenizer.get_vocab().keys()))
    return tokenizer


def _content(token: object) -> str | None:
    """A token is written as itself or as a dict that describes it."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


MAKERS = {"tokenizer.json": _from_json, "merges.txt": _like_gpt2, "vocab.txt": _like_bert}
