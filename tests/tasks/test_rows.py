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
    assert "has at line 7 quotation marks around several lines that look like rows" in message
    assert "such as 'the film was bad,0': remove the mark" in message


@pytest.mark.parametrize(
    ("header", "row", "mark"),
    [
        ("text,label", "{text},{label}", '"'),
        ("text,label", "{text}, {label}", '"'),
        ("text,label", '"{text}",{label}', ""),
        ("label,text", '{label},"{text}"', ""),
        ("id,text,label", '1,"{text}",{label}', ""),
        ("text,label,note", '"{text}",{label}', ""),
        ("note,label,text", 'a,{label},"{text}"', ""),
    ],
)
@pytest.mark.parametrize("apart", [1, 12])
def test_rows_between_two_stray_marks_are_never_silent(tmp_path, header, row, mark, apart):
    """The mark that is too many, or the two marks that are missing, in rows that may be near."""
    comma = "" if mark else ","  # in texts that are quoted
    lines = [
        row.format(text=f"the night{comma} {i}", label=("bad", "good")[i % 2]) for i in range(32)
    ]
    if mark:
        lines[5] = lines[5].replace("the", f"{mark}the")
        lines[5 + apart] = lines[5 + apart].replace(f" {5 + apart}", f" {5 + apart}{mark}")
    else:
        lines[5] = lines[5].replace('5"', "5")
        lines[6 : 5 + apart] = [line.replace('"', "") for line in lines[6 : 5 + apart]]
        lines[5 + apart] = lines[5 + apart].replace('"the', "the")
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *lines]))
    assert "has at line 7 quotation marks around several lines" in failure(path)


def test_rows_of_pairs_between_two_stray_marks_are_refused(tmp_path):
    lines = [f"the night {i},{('bad', 'good')[i % 2]}" for i in range(32)]
    lines[5], lines[6] = '"the night was kind,good', 'the night was cruel",bad'
    (tmp_path / "a.csv").write_text("\n".join(["prompt,response", *lines]))
    with pytest.raises(MiniptError, match="or the line breaks if the lines are one text"):
        load_pairs(tmp_path / "a.csv")


def test_a_row_with_more_fields_than_the_header_is_refused(tmp_path):
    message = failure(write(tmp_path / "a.csv", rows(row5="No film, never boring,1")))
    assert "at line 7, which has 3 fields, the header has 2: put the text in quotation" in message
    assert load_csv(write(tmp_path / "a.csv", rows(row5="a film,1,, ")), "text", "label")
    (tmp_path / "a.csv").write_text("\n".join(["PAR1,text,label", *(f"x,{r}" for r in rows())]))
    assert load_csv(tmp_path / "a.csv", "text", "label")
    (tmp_path / "p.csv").write_text("prompt,response\nSay film,Well, it is film\n")
    with pytest.raises(MiniptError, match="at line 2, which has 3 fields, the header has 2"):
        load_pairs(tmp_path / "p.csv")


@pytest.mark.parametrize(
    "text",
    [
        '"one, ""two""\nthree, four,\n1 and\nfive"',
        '"mail:\nfrom,1\nto,x\nfilm"',
        '"Well, 1\n0"',
        'a "mark" in the middle',
        '"a\r\n\r\nb"',
    ],
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


@pytest.mark.parametrize("end", ["", '{"prompt": "a" "response": "b"}\n]', "{]", "nothing\n\n"])
def test_a_damaged_array_is_named_by_the_decoders_own_line(tmp_path, end):
    pairs = json.dumps([{"prompt": "a", "response": "b"}] * 3, indent=2).removesuffix("\n]")
    path = tmp_path / "a.json"
    path.write_text(f"\n{pairs},\n{end}")
    line = 15 if end else 14
    with pytest.raises(MiniptError, match=f"at line {line} no JSON object .* mend that line"):
        load_pairs(path)


@pytest.mark.parametrize("name", ["a.ndjson", "a.txt", "a.csv"])
@pytest.mark.parametrize("layout", [{}, {"separators": (",", ":")}, {"indent": 1}])
def test_json_under_another_name_is_said_to_be_json(tmp_path, name, layout):
    path = tmp_path / name
    for content in ({"prompt": "a, b", "response": "c"}, [{"prompt": "a", "response": "c"}]):
        path.write_text(json.dumps(content, **layout))
        with pytest.raises(MiniptError, match=r"holds JSON, not CSV: give it the ending \.jsonl"):
            load_pairs(path)
        assert "holds JSON, not CSV: write it as CSV" in failure(path)


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\x1f\x8b\x08\x00", "is compressed by gzip: unpack it"),
        (b"PK\x03\x04\x14\x00", "is a zip archive or a spreadsheet"),
        (b"PAR1\x15\x04", "is a Parquet file: save it as CSV"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_of_another_kind_is_named(tmp_path, beginning, kind, name):
    path = tmp_path / name
    path.write_bytes(beginning + b"\xff")
    assert kind in failure(path)
    with pytest.raises(MiniptError, match=kind):
        load_pairs(path)


@pytest.mark.parametrize("name", ["a\0.csv", "a\0.jsonl"])
def test_a_path_with_a_nul_is_refused(name):
    assert "check the path" in failure(name)
    with pytest.raises(MiniptError, match="check the path"):
        load_pairs(name)
