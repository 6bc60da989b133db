"""Versions that never change, numbers that are never given again, tags that move, a log."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, random_prompt, small_task

import minipt
from minipt.errors import MiniptError
from minipt.files.clock import seconds_of
from minipt.files.records import write_record
from minipt.learning.observe import observe, validation_record
from minipt.registry.registry import Registry
from minipt.results.report import make_record
from minipt.results.store import write_run

TEXTS = ["a good day", "cruel words", "kind people"]


def test_the_public_contract(tmp_path, run, base):
    registry = minipt.Registry(tmp_path / "prompts")
    version = registry.save(run, name="spam", message="first", parent=None)
    assert (version.name, version.number, version.message) == ("spam", 1, "first")
    assert version.parent is None and len(version.sha256) == 64
    assert version.created.endswith("Z") and abs(seconds_of(version.created) - time.time()) < 60
    second = registry.save(run.prompt, name="spam", message="second", parent="spam@1")
    assert (second.number, second.parent) == (2, "spam@1")
    assert [each.number for each in registry.versions("spam")] == [1, 2]
    assert registry.names() == ["spam"]
    registry.tag("spam", 2, "production")
    assert registry.tags("spam") == {"production": 2}
    for reference in ("spam@production", "spam@2", "spam"):
        loaded = registry.load(reference, base)
        assert loaded.vectors.tobytes() == run.prompt.vectors.tobytes()
    assert registry.diff("spam@1", "spam@2").distance == 0.0
    assert registry.verify() == []


def test_what_is_known_of_a_run_is_kept(two, run, base):
    version = two.find("spam")
    record = version.record
    assert version.accuracy == run.test_accuracy
    low, high = version.interval
    assert low <= version.accuracy <= high
    assert (version.text("task"), version.text("base")) == ("words", base.name)
    assert version.fingerprint == base.fingerprint
    assert record["data"]["sha256"] == small_task().digest
    assert record["settings"]["steps"] == 4 and record["seed"] == 0
    assert record["versions"]["numpy"] == np.__version__
    assert {"processor", "blas"} <= record["machine"].keys()
    assert json.loads(json.dumps(version.describe()))["parent"] == "spam@1"


def test_what_is_not_known_is_none(two):
    version = two.find("spam@1")
    assert version.accuracy is version.interval is version.text("task") is version.parent is None
    assert version.labels == () and version.text("base") == "random-0"
    with pytest.raises(MiniptError, match=r"spam@1 was kept without its validation split"):
        two.validation("spam@1")


def test_the_validation_split_is_kept_with_a_run(two, run, base):
    seen, right = two.validation("spam@2")
    again = observe(base, run.prompt, small_task().validation.texts)
    np.testing.assert_allclose(seen.hidden, again.hidden, rtol=1e-6)
    assert right.tolist() == small_task().validation.labels.tolist()


def test_a_runs_directory_is_kept_with_all_it_says(registry, run, base, tmp_path):
    record = make_record(base, run.task, run, {}) | {"base_path": "/somewhere"}
    validation = validation_record(base, run.prompt, run.task.validation)
    write_run(tmp_path / "run", record, run.history, run.prompt, None, validation)
    version = registry.save(tmp_path / "run", "spam")
    assert version.text("base_path") == "/somewhere" and version.accuracy == run.test_accuracy
    content = (tmp_path / "run/prompt.safetensors").read_bytes()
    assert registry.path_of(version).read_bytes() == content
    assert registry.validation("spam")[0].labels == ("good", "bad")
    bare = registry.save(tmp_path / "run/prompt.safetensors", "spam")  # the file alone
    assert bare.sha256 == version.sha256 and bare.accuracy is None


def test_damaged_files_of_a_run_are_refused(registry, run, base, tmp_path):
    record = make_record(base, run.task, run, {})
    validation = validation_record(base, run.prompt, run.task.validation)
    write_run(tmp_path / "run", record, run.history, run.prompt, None, validation)
    changes = {
        "run.json": [b"{", json.dumps(record | {"fingerprint": "0" * 64}).encode()],
        "validation.json": [b"{}", b"[" * 100_000, b'{"labels": []}'],
        "prompt.safetensors": [b"", (tmp_path / "run/prompt.safetensors").read_bytes()[:-1]],
    }
    for name, contents in changes.items():
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(MiniptError, match=name) as caught:
                registry.save(tmp_path / "run", "spam")
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    assert not registry.has("spam")


def test_a_record_of_other_types_is_unknown(registry, run, base, tmp_path):
    record = make_record(base, run.task, run, {})
    wrong = {"settings": 3, "data": [1], "labels": {"a": 1}, "test_accuracy": "high"}
    wrong |= {"interval": [0.1], "machine": None, "versions": "old", "task": 7}
    write_run(tmp_path / "run", record | wrong, run.history, run.prompt, None)
    version = registry.save(tmp_path / "run", "spam")
    assert (version.labels, version.accuracy, version.interval) == ((), None, None)
    assert version.text("task") is None and version.part("settings") == {}
    assert registry.diff("spam", "spam").facts == {}


@pytest.mark.parametrize("run", [None, 3, b"run", np.zeros((2, 3))])
def test_other_things_cannot_be_kept(registry, run):
    with pytest.raises(MiniptError, match="cannot be kept"):
        registry.save(run, "spam")
    assert not registry.directory.exists()


def test_what_is_no_prompt_is_not_kept(registry, tmp_path):
    write_record(tmp_path / "prompt.safetensors", {})
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / ("x" * 3000)):
        with pytest.raises(MiniptError):
            registry.save(path, "spam")
    assert not registry.directory.exists()


def test_a_parent_is_found_by_what_the_record_says(two, run, base, tmp_path):
    sha256 = two.find("spam@1").sha256
    two.save(two.path_of(two.find("spam@1")), "copy")
    record = make_record(base, run.task, run, {})
    for n, (said, expected) in enumerate(
        (
            ({"parent": "spam@1", "parent_sha256": sha256}, "spam@1"),
            ({"parent_sha256": sha256}, "copy@1"),
            ({"parent": "eggs@7", "parent_sha256": sha256}, "copy@1"),  # of another registry
            ({"parent": "spam@1", "parent_sha256": "0" * 64}, None),
            ({"parent": 3, "parent_sha256": ["x"]}, None),
        )
    ):
        directory = tmp_path / f"run-{n}"
        write_run(directory, record | said, run.history, run.prompt, None)
        assert two.save(directory, "later").parent == expected


def test_an_unknown_parent_is_refused(two, run):
    with pytest.raises(MiniptError, match="has no 'spam@9'"):
        two.save(run, "spam", parent="spam@9")
    assert [each.number for each in two.versions("spam")] == [1, 2]  # and no number is used up


def test_numbers_are_never_given_again(two, run):
    assert two.remove("spam@2").number == 2
    assert two.save(run, "spam").number == 3
    for number in (1, 3):
        two.remove(f"spam@{number}")
    assert two.names() == []
    assert two.save(run, "spam").number == 4


def test_equal_content_lies_there_once(two, run):
    two.save(run, "other")
    assert two.find("other").sha256 == two.find("spam@2").sha256
    objects = two.directory / "objects"
    assert len(list(objects.iterdir())) == 2
    two.remove("other@1")
    assert two.verify() == []  # spam@2 still needs it
    two.remove("spam@2")
    assert len(list(objects.iterdir())) == 1


def test_a_tag_is_on_one_version_and_its_moves_are_written_down(two):
    two.tag("spam", 1, "production")
    two.tag("spam", 2, "production")
    two.tag("spam", 2, "trial")
    two.tag("spam", 1, "production")
    two.untag("spam", "trial")
    assert two.tags("spam") == {"production": 1}
    assert [each.tags for each in two.versions("spam")] == [("production",), ()]
    moves = two.moves("spam")
    assert [(m.tag, m.before, m.after) for m in moves] == [
        ("production", None, 1),
        ("production", 1, 2),
        ("trial", None, 2),
        ("production", 2, 1),
        ("trial", 2, None),
    ]
    assert all(m.user and m.host and m.time.endswith("Z") for m in moves)


def test_names_have_tags_of_their_own(two, run):
    two.save(run, "eggs")
    two.tag("spam", 2, "production")
    two.tag("eggs", 1, "production")
    assert two.find("spam@production").number == 2
    assert two.tags("eggs") == {"production": 1}


def test_what_a_tag_or_the_log_names_stays(two, run, base):
    two.tag("spam", 2, "production")
    with pytest.raises(MiniptError, match=r"spam@2 has the tag 'production'"):
        two.remove("spam@2")
    two.untag("spam", "production")
    two.log("spam@2", observe(base, run.prompt, TEXTS))
    with pytest.raises(MiniptError, match=r"the log has 3 answers of spam@2"):
        two.remove("spam@2")
    assert two.forget(time.time() + 1) == 3
    two.remove("spam@2")
    assert [each.number for each in two.versions("spam")] == [1]


def test_unknown_names_say_where_was_looked_and_what_there_is(two):
    place = str(two.directory)
    with pytest.raises(MiniptError, match="did you mean spam") as caught:
        two.find("spm")
    assert place in str(caught.value)
    for reference in ("spam@3", "spam@latest", "spam@999999999999999999"):
        with pytest.raises(MiniptError) as caught:
            two.find(reference)
        assert place in str(caught.value)
        assert "versions 1, 2" in str(caught.value)
        assert "'spam' alone is the newest" in str(caught.value)
    for action in (two.versions, two.tags, two.moves):
        with pytest.raises(MiniptError, match="has no prompt 'eggs': there are spam"):
            action("eggs")


def test_reading_makes_no_registry(registry, base):
    actions = [
        registry.names,
        registry.versions,
        registry.verify,
        registry.unnamed,
        lambda: registry.find("spam"),
        lambda: registry.load("spam", base),
        lambda: registry.tag("spam", 1, "production"),
        lambda: registry.untag("spam", "production"),
        lambda: registry.remove("spam@1"),
        lambda: registry.forget(0.0),
        lambda: registry.add_truth({1: "good"}),
        lambda: registry.diff("spam@1", "spam@2"),
    ]
    for action in actions:
        with pytest.raises(MiniptError, match="there is no registry at") as caught:
            action()
        assert str(registry.directory) in str(caught.value)
    assert not registry.has("spam")
    assert not registry.directory.exists()


def test_the_place_is_absolute_and_does_not_follow_the_working_directory(
    tmp_path, monkeypatch, run
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIPT_REGISTRY", raising=False)
    usual, named = Registry(), Registry("named")
    monkeypatch.setenv("MINIPT_REGISTRY", str(tmp_path / "variable"))
    assert Registry().directory == tmp_path / "variable"
    assert Registry("named").directory == tmp_path / "named"  # what is given goes first
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert usual.directory == tmp_path / "prompts"
    named.save(run, "spam")
    assert (tmp_path / "named/registry.db").exists()


def test_a_prompt_of_another_base_is_refused_by_name(two):
    other = base_with_tokenizer(1)
    with pytest.raises(MiniptError, match=r"spam@2 was made for base 'random-0' .* not for base"):
        two.load("spam", other)


def test_a_damaged_or_missing_object_is_named_and_the_rest_can_be_used(two, object_of, base):
    first, second = (object_of(two, f"spam@{n}") for n in (1, 2))
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (fault,) = two.verify()
    assert fault.startswith("spam@1: its file") and first.name in fault and "damaged" in fault
    with pytest.raises(MiniptError, match=r"spam@1 cannot be used, since its file .* is damaged"):
        two.load("spam@1", base)
    assert two.load("spam@2", base) is not None
    second.unlink()
    assert [fault.split(":")[0] for fault in two.verify()] == ["spam@1", "spam@2"]
    with pytest.raises(MiniptError, match=r"spam@2 cannot be used, since its file .* is missing"):
        two.load("spam@2", base)


def test_keeping_it_again_heals_a_damaged_object(two, object_of, base):
    path = object_of(two, "spam@1")
    path.write_bytes(b"")
    two.save(random_prompt(base, 3), "again")  # the same numbers
    assert two.verify() == []


def test_what_no_version_names_is_no_fault(two):
    objects = two.directory / "objects"
    (objects / ("0" * 64 + ".safetensors")).write_bytes(b"left")
    (objects / ".partial-0-x.safetensors").write_bytes(b"half")
    assert two.verify() == []
    assert len(two.unnamed()) == 2


def test_a_message_is_any_text(two, run):
    message = "two lines\nand 🙂 and 'quotes\"; DROP TABLE versions"
    assert two.save(run, "spam", message).message == message
    assert two.find("spam").message == message
    for wrong in ("\ud800", None, 3):
        with pytest.raises(MiniptError, match="a message is a text"):
            two.save(run, "spam", wrong)


@pytest.mark.parametrize(
    "name", ["spam.v2", "my spam", "🙂", "短信", "o'clock", 'a"b', "%s", "x;--"]
)
def test_names_of_any_letters(registry, run, base, name):
    registry.save(run, name)
    registry.tag(name, 1, name)
    assert registry.names() == [name]
    assert registry.find(f"{name}@{name}").number == 1
    assert registry.load(name, base).about["labels"] == ["good", "bad"]


# --- the log ---


def test_answers_come_back_from_the_log(two, run, base):
    seen = observe(base, run.prompt, TEXTS)
    ids = two.log("spam@2", seen)
    assert ids == [1, 2, 3]
    assert two.log("spam@2", seen, TEXTS, times=[3e9, 1e9, 2e9]) == [4, 5, 6]
    logged = two.logged("spam@2")
    assert logged.ids.tolist() == [5, 1, 2, 3, 6, 4]  # in the order of their times
    assert (np.diff(logged.times) >= 0).all() and abs(logged.times[1] - time.time()) < 60
    order = [1, 0, 1, 2, 2, 0]
    for name in ("probabilities", "tokens", "cut", "unknown", "hidden"):
        found, given = getattr(logged.observation, name), getattr(seen, name)
        np.testing.assert_array_equal(found, given[order])
        assert found.dtype == given.dtype
    assert logged.right.tolist() == [-1] * 6
    assert two.logged("spam@2", since=1.5e9).ids.tolist() == [1, 2, 3, 6, 4]
    assert two.logged("spam@2", since=4e9).observation.probabilities.shape == (0, 2)


def test_texts_are_kept_only_where_they_are_given(two, run, base):
    seen = observe(base, run.prompt, TEXTS)
    two.log("spam@2", seen)
    file = two.directory / "registry.db"
    assert b"cruel words" not in file.read_bytes()
    two.log("spam@2", seen, TEXTS)
    assert b"cruel words" in file.read_bytes()
    two.forget(time.time() + 1)
    assert b"cruel words" not in file.read_bytes()  # forgotten, and overwritten


def test_forgetting_leaves_what_is_younger_and_ids_are_not_given_again(two, run, base):
    seen = observe(base, run.prompt, TEXTS)
    two.log("spam@2", seen, times=[1e9, 2e9, 3e9])
    assert two.forget(seconds_of("2033-05-18T03:33:20Z")) == 1  # 2e9
    assert two.logged("spam@2").ids.tolist() == [2, 3]
    assert two.forget(4e9) == 2
    assert two.log("spam@2", seen) == [4, 5, 6]


def test_the_truth_comes_later(two, run, base):
    two.log("spam@2", observe(base, run.prompt, TEXTS))
    two.add_truth({1: "bad", 3: "good"})
    assert two.logged("spam@2").right.tolist() == [1, -1, 0]
    two.add_truth({1: "good"})  # it is corrected
    assert two.logged("spam@2").right.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    "truth, sentence",
    [({2: "bad", 9: "good"}, "the log has no answer 9"), ({2: "bad", 1: "ham"}, "no label 'ham'")],
)
def test_a_wrong_truth_changes_nothing(two, run, base, truth, sentence):
    two.log("spam@2", observe(base, run.prompt, TEXTS))
    with pytest.raises(MiniptError, match=sentence):
        two.add_truth(truth)
    assert two.logged("spam@2").right.tolist() == [-1] * 3


def test_answers_of_other_labels_are_not_logged(two, run, base):
    with pytest.raises(MiniptError, match=r"not of spam@1, whose labels are others"):
        two.log("spam@1", observe(base, run.prompt, TEXTS))


def test_a_date_is_of_utc_where_it_names_no_zone():
    assert seconds_of("2001-09-09T01:46:40Z") == seconds_of("2001-09-09T01:46:40") == 1e9
    assert seconds_of("2001-09-09T03:46:40+02:00") == 1e9
    assert seconds_of("1970-01-02") == 86400
    for wrong in ("", "yesterday", "2026-13-01", "7d"):
        with pytest.raises(MiniptError, match="is no date"):
            seconds_of(wrong)


# --- the rest of minipt ---


def test_minipt_is_imported_without_sqlite3():
    script = (
        "import sys; sys.modules['sqlite3'] = None\n"
        "import minipt, minipt.commands.cli\n"
        "from minipt.errors import MiniptError\n"
        "try: minipt.Registry('x').save('y', 'z')\n"
        "except MiniptError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert "there is no prompt at y" in done.stdout


def test_importing_minipt_does_not_import_sqlite3():
    script = "import minipt, sys; print('sqlite3' in sys.modules, 'Registry' in minipt.__all__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False True\n"


def test_the_source_stays_short():
    """The registry's folder has at most 1,200 lines, docstrings aside."""
    import ast

    total = 0
    for path in (Path(minipt.__file__).parent / "registry").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        total += len(source.splitlines())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
                node
            ):
                total -= node.body[0].end_lineno - node.body[0].lineno + 1
    assert total <= 1200


def test_who_moves_is_known_without_an_entry_for_the_user(two, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    two.tag("spam", 1, "production")
    assert two.moves("spam")[0].user == str(os.getuid())
