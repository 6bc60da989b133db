"""Damage to files and values, drawn by a generator: the same generator gives the same damage.

In: a path, bytes or a value. Out: the path with other content, or another value.
"""

import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers import gguf_writer

NUMBERS = (0, -1, 1, 2, 7, 0.5, 1e-320, 1e38, -1e38, 1e308, math.nan, math.inf, -math.inf)
NUMBERS += (2**31, 2**32, 2**63, 2**64, -(2**63), 10**30, 10**400)
# Control characters that a terminal obeys, marks, names of special tokens, half a character.
TEXTS = ("", " ", "\0", "\x1b[31mred\x1b]0;title\x07", "\r\b", "\n\n", "\u202e", "\ufeff", "\u0085")
TEXTS += ("[MASK]", "<|endoftext|>", "{text}", "{}", "%s", "..", "-1", '"', "é" * 300, "a" * 3000)
HALF = "\ud800"
ANYTHING = (None, True, False, "", "word", [], {}, [[]], {"a": 1}, [1, "a"], 0, -1, 1.5, math.nan)
BLOCKS = (
    b"\0" * 9,
    b"\xff" * 8,
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    b'"',
    b"[" * 9999,
    b"\r",
    b"\xf0\x28",
)
BLOCKS += tuple((2**bits).to_bytes(8, "little") for bits in (8, 31, 32, 40, 62, 63))
ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "cp037", "utf-7")
KINDS = {"BOOL": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "I32": 4, "F32": 4, "F64": 8}
GGUF_KEYS = ("general.architecture", "llama.block_count", "llama.embedding_length")
GGUF_KEYS += ("llama.attention.head_count", "llama.attention.head_count_kv", "llama.vocab_size")
GGUF_KEYS += ("llama.feed_forward_length", "llama.context_length", "llama.rope.freq_base")
GGUF_KEYS += ("llama.rope.dimension_count", "llama.attention.layer_norm_rms_epsilon")
GGUF_KEYS += (
    "llama.rope.scaling.type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "split.count",
)
GGUF_KEYS += ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
GGUF_KEYS += ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", "general.alignment")


def damage_file(path: Path, rng: random.Random) -> None:
    """Change what lies at a path, by what its ending says that it is."""
    if rng.random() < 0.04:
        replace_file(path, rng)
    elif path.suffix == ".gguf" and rng.random() < 0.5:
        value = rng.choice(
            [None, rng.choice(TEXTS), rng.choice((0, 1, 3, 2**32 - 1)), 0.0, math.nan]
        )
        value = rng.choice([value, [1], [0.5], ["a", "b"], ["a b", "a"], True])
        gguf_writer.write(path, gguf_writer.small_llama(), **{rng.choice(GGUF_KEYS): value})
    else:
        by_kind = FILES.get(path.suffix, damage_bytes)
        damage = damage_bytes if rng.random() < 0.25 else by_kind
        path.write_bytes(damage(path.read_bytes(), rng))


def replace_file(path: Path, rng: random.Random) -> None:
    """Nothing, a directory, a link to nothing or a FIFO in the place of a file."""
    path.unlink()
    make = [path.mkdir, lambda: path.symlink_to("nowhere"), lambda: os.mkfifo(path), lambda: None]
    rng.choice(make)()


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """A bit flipped, a slice lost, repeated, emptied or put in, the end cut off; mostly early."""
    start = int(len(data) * rng.random() ** 3)
    stop = min(len(data), start + rng.choice((1, 8, 100, len(data))))
    before, part, after = data[:start], data[start:stop], data[stop:]
    block = rng.choice(BLOCKS)
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in part[:1])
    return rng.choice(
        (
            before + flipped + part[1:] + after,
            before + flipped + part[1:] + after,
            before,
            before + after,
            before + part + part + after,
            before + bytes(len(part)) + after,
            before + block + part + after,
            before + block + data[start + len(block) :],
            b"\xef\xbb\xbf" + data,
            b"",
        )
    )


def damage_text(data: bytes, rng: random.Random) -> bytes:
    """Lines lost, repeated, moved or joined, a character or a text put in, another encoding."""
    text = data.decode(errors="replace")
    lines = text.splitlines(keepends=True) or [""]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    line = lines[at]
    cut = rng.randrange(len(line) + 1)
    piece = rng.choice((*TEXTS, ",", ",", '"', '"', "\r", "\n", "\t", ";", line[:-1] * 50))
    changed = [line[:cut] + piece + line[cut:]] * 3 + ["", line * 2, line[:-1], line[cut:]]
    changed += [lines[other], json_line(line, rng), line.replace(",", "", 1), piece + "\n"]
    lines[at] = rng.choice(changed)
    encoding = rng.choice(("utf-8",) * 9 + ENCODINGS)
    return "".join(lines).encode(encoding, "replace")


def json_line(line: str, rng: random.Random) -> str:
    """A line of JSON damaged as JSON."""
    return damage_json(line.encode(), rng).decode(errors="replace") + "\n"


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """A value of another kind, a key lost, renamed or repeated, brackets, another encoding."""
    try:
        value = unsigned(json.loads(data), rng)
    except (ValueError, RecursionError):
        return damage_bytes(data, rng)
    text = json.dumps(damage_value(value, rng))
    if rng.random() < 0.04:
        text = "[" * 100_000 + rng.choice(("", text + "]" * 100_000))
    if rng.random() < 0.06 and isinstance(value, dict) and value:
        key = json.dumps(rng.choice(list(value)))
        text = f"{{{key}: {json.dumps(wild(rng))}, {json.dumps(value)[1:]}"
    return text.encode(rng.choice(("utf-8",) * 12 + ENCODINGS), "replace")


def unsigned(value: object, rng: random.Random) -> object:
    """Often a record without its sha256, as from before, so that all else in it is looked at."""
    if not isinstance(value, dict) or rng.random() < 0.2:
        return value
    return {key: each for key, each in value.items() if not key.endswith("sha256")}


def damage_value(value: object, rng: random.Random) -> object:
    """A JSON value with one of its parts, or all of it, changed."""
    if not (isinstance(value, dict | list) and value) or rng.random() < 0.03:
        return near(value, rng)
    value = value.copy()
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if rng.random() < 0.75:
        value[key] = damage_value(value[key], rng)
        return value
    part = value.pop(key)
    if rng.random() < 0.5:
        more = rng.choice((wild(rng), part))
        if isinstance(value, list):
            value[key:key] = [part, more]
        else:
            value[rng.choice((*TEXTS, f"{key}s", key.upper()))] = more
    return value


def near(value: object, rng: random.Random) -> object:
    """A value in place of another: of the same kind, or any."""
    if isinstance(value, bool) or value is None or rng.random() < 0.4:
        return wild(rng)
    if isinstance(value, int | float):
        return rng.choice((*NUMBERS, value + 1, value * 2, -value, str(value), [value]))
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        return rng.choice((value[:cut], value * 2, value[:cut] + rng.choice(TEXTS) + value[cut:]))
    return wild(rng)


def wild(rng: random.Random) -> object:
    """Any value that JSON can hold, half characters too."""
    return rng.choice((rng.choice(NUMBERS), rng.choice((*TEXTS, HALF)), rng.choice(ANYTHING)))


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header, the record that it holds, or an array, with all lengths made right again."""
    try:
        header, tensors, record = _unpack(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return damage_bytes(data, rng)  # it was damaged before
    if rng.random() < 0.2:
        body = data[8 + int.from_bytes(data[:8], "little") :]
        return _pack(damage_value(header, rng), body)
    if record is not None:
        record = json.dumps(unsigned(record, rng))
    if record is not None and rng.random() < 0.5:
        record = damage_json(record.encode(), rng).decode(errors="replace")
    elif tensors:
        name = rng.choice(list(tensors))
        tensor = damage_tensor(*tensors.pop(name), rng)
        renamed = rng.choice((f"{name}s", f"module.{name}", *TEXTS))
        names = rng.choice([[name]] * 8 + [[], [renamed], [name, renamed]])
        tensors |= dict.fromkeys(names, tensor)
    header, offset = {} if record is None else {"__metadata__": {"minipt": record}}, 0
    for name, (about, body) in tensors.items():
        header[name] = about | {"data_offsets": [offset, offset + len(body)]}
        offset += len(body)
    return _pack(header, b"".join(body for _, body in tensors.values()))


def _unpack(data: bytes) -> tuple[dict, dict[str, tuple[dict, bytes]], object]:
    """The header, what it says of each tensor with its bytes, and minipt's record or None."""
    size = 8 + int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8:size]), {}
    record = header.get("__metadata__", {}).get("minipt")
    for name in sorted(header.keys() - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        if not all(isinstance(size, int) for size in header[name]["shape"]):
            raise TypeError("a size is no whole number")
        tensors[name] = header[name], data[size + begin : size + end]
    return header, tensors, None if record is None else json.loads(record)


def _pack(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def damage_tensor(part: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    """A tensor of a safetensors file with other numbers, another shape or another type."""
    if len(body) != 4 * math.prod(part["shape"]) or not body or rng.random() < 0.25:
        kind = rng.choice(list(KINDS))
        size = KINDS[kind] * math.prod(part["shape"])
        return part | {"dtype": kind}, (body * 8)[:size]
    array = np.frombuffer(body, "<f4").reshape(part["shape"])
    changed = rng.choice((renumbered, reshaped))(array, rng)
    return part | {"shape": list(changed.shape)}, np.ascontiguousarray(changed).tobytes()


def renumbered(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """One number, or all, become extreme."""
    array = array.copy()
    where = rng.choice((0, -1, slice(None)))
    with np.errstate(all="ignore"):
        array.reshape(-1)[where] = np.array(rng.choice(NUMBERS[:13])).astype(array.dtype)
    return array


def reshaped(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """The same numbers, more or fewer of them, in another shape."""
    array = np.atleast_1d(array)
    shapes = (array[:1], array[:-1], array[:0], array.T, array.ravel(), array[None], array[..., :1])
    longer = np.concatenate([array, array])
    return rng.choice((*shapes, longer, array.ravel()[:1].reshape(())))


def damage_argument(value: object, rng: random.Random) -> object:
    """An argument of a function in place of another."""
    if isinstance(value, np.ndarray) and rng.random() < 0.8:
        kind = rng.choice("fdeiqBOc?")
        with np.errstate(all="ignore"):
            return rng.choice(
                (
                    lambda: renumbered(value, rng),
                    lambda: reshaped(value, rng),
                    lambda: value.astype(kind),
                )
            )()
    if isinstance(value, list) and rng.random() < 0.5:
        return rng.choice((damage_value(value, rng), np.array(value, rng.choice(("O", "U9")))))
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice(
            (np.float32("nan"), np.uint64(5), np.int8(-1), np.array([1, 2]), np.array(1))
        )
    strange = (
        b"bytes",
        b"\xff",
        {1, 2},
        object,
        Path("nowhere"),
        np.array([]),
        np.full((2, 2), np.nan),
    )
    return rng.choice((near(value, rng), near(value, rng), rng.choice(strange)))


def damage_words(words: list[str], rng: random.Random) -> list[str]:
    """A command line with a word lost, repeated, moved, changed or put in."""
    words, at = list(words), rng.randrange(len(words))
    any_word = str(
        rng.choice((*NUMBERS[:13], *TEXTS, "\udcff", "--json", "--help", "--", "=", "1,2"))
    )
    change: Callable[[], object] = rng.choice(
        (
            lambda: words.pop(at),
            lambda: words.insert(at, words[at]),
            lambda: words.insert(rng.randrange(len(words)), words.pop(at)),
            lambda: words.insert(at, any_word),
            lambda: words.__setitem__(at, any_word),
            lambda: words.__setitem__(at, str(near(words[at], rng))),
        )
    )
    change()
    return words


FILES = {
    ".json": damage_json,
    ".safetensors": damage_safetensors,
    ".csv": damage_text,
    ".jsonl": damage_text,
    ".txt": damage_text,
}
