"""Files of the user's own: no row is swallowed, and a file takes little more memory than itself."""

import json
import os
import time
import tracemalloc

import pytest

from minipt.errors import MiniptError
from minipt.tasks.task import load_csv, load_pairs


def rows(count=40, **changed):
    """The lines of rows of two classes; changed: other lines, such as row5='...'."""
    lines = [f"the text number {i} was {('bad', 'good')[i % 2]},{i % 2}" for i in range(count)]
    for name, line in changed.items():
        lines[int(name.removeprefix("row"))] = line
    return lines


def write(path, lines):
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


def failure(path) -> str:
    with pytest.raises(MiniptError) as caught:
        load_csv(path, "text", "label")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_quotation_that_ends_in_the_middle_of_another_row_is_named_by_its_line(tmp_path):
    stray = rows(row5='"the film was bad,0', row25='a film called "dull",1')
    message = failure(write(tmp_path / "a.csv", stray))
    assert "cannot be read as CSV at line 7, where a quotation begins" in message


def test_a_quotation_that_never_ends_is_named_by_its_line(tmp_path):
    message = failure(write(tmp_path / "a.csv", rows(25, row5='"the film was bad,0')))
    assert "cannot be read as CSV at line 7, where a quotation begins" in message


def test_a_quotation_in_a_later_line_of_a_row_is_named_by_that_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,more,label\na,b,1\n"two\r\nlines, and a ""mark""","open,1\nc,d,0\n')
    assert "at line 4, where a quotation begins" in failure(path)


def test_a_quotation_that_swallows_whole_rows_is_refused(tmp_path):
    stray = rows(row5='"the film was bad,0', row25='it was only 5",1')
    message = failure(write(tmp_path / "a.csv", stray))
    assert "has the row 'the text number 6 was bad,0' inside the quotation marks" in message
    assert "'the film was bad,0" in message


@pytest.mark.parametrize(
    "text",
    ['"one, ""two""\nthree, four,\n1 and\nfive"', 'a "mark" in the middle', '"a\r\n\r\nb"'],
)
def test_quotations_that_are_right_are_read(tmp_path, text):
    task = load_csv(write(tmp_path / "a.csv", rows(row5=f"{text},1")), "text", "label")
    texts = task.train.texts + task.validation.texts + task.test.texts
    expected = text[1:-1].replace('""', '"') if text.startswith('"') else text
    assert expected in texts
    assert len(texts) == 40


def test_classes_by_the_thousand_are_refused_at_once(tmp_path):
    lines = [f"the text number {i},id{i}" for i in range(40_000)]
    began = time.perf_counter()
    message = failure(write(tmp_path / "a.csv", lines))
    assert time.perf_counter() - began < 10
    assert "has only 1 different texts of class 'id0', and as few of 39,999 others" in message


def peak(make, path) -> int:
    tracemalloc.start()
    try:
        make(path)
    except MiniptError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


@pytest.mark.parametrize("kind", ["rows", "words", "fields", "lines", "array"])
def test_a_file_takes_less_than_three_times_its_size(tmp_path, kind):
    """With a tenth of the room that a large file has beside."""
    long = "word " * 1_000_000
    pairs = [{"prompt": f"{i} {long}", "response": "yes"} for i in range(4)]
    contents = {
        "rows": ["text,label", *(f"{i} {'film ' * 9},{i % 2}" for i in range(100_000))],
        "words": ["text,label", *(f"{i} {long[:100_000]},{i % 2}" for i in range(80))],
        "fields": ["text,label", f"{long},1", f"{long},0"],
        "lines": map(json.dumps, pairs),
        "array": [json.dumps(pairs)],
    }
    path = tmp_path / ("a.json" if kind in ("lines", "array") else "a.csv")
    path.write_text("\n".join(contents[kind]) + "\n")
    make = load_pairs if path.suffix == ".json" else lambda path: load_csv(path, "text", "label")
    assert peak(make, path) < 3 * path.stat().st_size + 20_000_000


def test_a_json_array_is_read_as_lines_are(tmp_path):
    pairs = [{"prompt": f"question {i}", "response": f"answer {i}"} for i in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    lines = load_pairs(tmp_path / "a.jsonl")
    for text in (json.dumps(pairs), json.dumps(pairs, indent=2), "\n " + json.dumps(pairs)):
        (tmp_path / "a.json").write_text(text, encoding="utf-8-sig")
        assert load_pairs(tmp_path / "a.json").digest == lines.digest


def test_a_completion_is_a_response(tmp_path):
    pairs = [(f"question {i}", f"answer {i}") for i in range(9)]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"prompt": p, "completion": c}) for p, c in pairs)
    )
    (tmp_path / "a.csv").write_text("\n".join(["prompt,completion", *map(",".join, pairs)]))
    task = load_pairs(tmp_path / "a.jsonl")
    assert task.digest == load_pairs(tmp_path / "a.csv").digest
    assert " answer 3" in task.train.responses + task.validation.responses + task.test.responses


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.csv", "pipe.jsonl"])
def test_no_pipe_is_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(MiniptError, match="is a pipe, a socket or a device: name a regular file"):
        load_pairs(tmp_path / name)


def test_the_digest_knows_every_label(tmp_path):
    def digest(lines):
        return load_csv(write(tmp_path / "a.csv", lines), "text", "label").digest

    same = digest(rows())
    assert digest(rows()[::-1]) == same
    assert digest(rows(row7="the text number 7 was good,0")) != same
    assert digest(rows(row7="the text number 7 was  good,1")) != same
