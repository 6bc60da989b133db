"""Disks that cannot be written, are full or hold something else: one sentence, and nothing lost."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import random_prompt

from minipt.errors import MiniptError
from minipt.learning.observe import observe
from minipt.registry import database
from minipt.registry.registry import Registry

TEXTS = ["a good day", "cruel words"]


def mounted(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@contextmanager
def mount(target: Path, *arguments: str):
    """Mount something for a while, or skip the test where this user may not."""
    target.mkdir()
    if shutil.which("mount") is None or not mounted(*arguments, str(target)):
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def read_all(registry: Registry, base) -> None:
    assert registry.names() == ["spam"]
    assert registry.tags("spam") == {"production": 2}
    assert registry.load("spam@production", base).about["labels"] == ["good", "bad"]
    assert registry.verify() == []
    assert registry.moves("spam") and registry.logged("spam@2").ids.tolist() == [1, 2]


@pytest.fixture
def used(two, run, base):
    two.tag("spam", 2, "production")
    two.log("spam@2", observe(base, run.prompt, TEXTS))
    return two


def refuse_writing(registry: Registry, run) -> None:
    for write in (
        lambda: registry.save(run, "spam"),
        lambda: registry.tag("spam", 1, "production"),
        lambda: registry.remove("spam@1"),
        lambda: registry.forget(9e9),
    ):
        with pytest.raises(MiniptError, match="can be read but not written") as caught:
            write()
        assert str(registry.directory) in str(caught.value)


def test_a_registry_on_a_read_only_disk_can_be_read(used, run, base, tmp_path):
    place = tmp_path / "mounted"
    with mount(place, "--bind", "-o", "ro", str(used.directory)):
        if os.access(place, os.W_OK) and not mounted("-o", "remount,ro,bind", str(place)):
            pytest.skip("this system mounts nothing read-only")
        registry = Registry(place)
        read_all(registry, base)
        refuse_writing(registry, run)


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="no permission binds root, nor Windows"
)
def test_a_registry_without_permission_to_write_can_be_read(used, run, base):
    paths = [used.directory, *used.directory.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        read_all(used, base)
        refuse_writing(used, run)
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)


def test_there_is_no_write_ahead_log(used):
    """With one, a read-only disk could not be read."""
    assert {path.name for path in used.directory.iterdir()} == {"registry.db", "objects"}
    with closing(sqlite3.connect(used.directory / "registry.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_reading_writes_nothing(used, base):
    paths = [used.directory, *used.directory.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in paths}
    read_all(used, base)
    assert {path: path.stat().st_mtime_ns for path in used.directory.rglob("*")} | {
        used.directory: used.directory.stat().st_mtime_ns
    } == before


def interrupt(registry: Registry, copy: Path) -> None:
    """A copy of a registry as a power failure leaves it, with a change half in the file."""
    path = registry.path_of(registry.find("spam@1"))
    for n in range(3, 31):
        registry.save(path, "spam", str(n))
    whole = (registry.directory / "registry.db").read_bytes()
    with registry.writing() as tables:
        tables.database.execute("PRAGMA cache_size = 1")  # pages go to the file before the end
        tables.database.execute("UPDATE versions SET message = 'half' || hex(zeroblob(20000))")
        shutil.copytree(registry.directory, copy)
        tables.database.execute("ROLLBACK")
        tables.database.execute("BEGIN")
    assert (copy / "registry.db-journal").exists()
    assert (copy / "registry.db").read_bytes()[: len(whole)] != whole


def test_the_next_reader_undoes_what_was_interrupted(two, tmp_path):
    interrupt(two, tmp_path / "copy")
    copy = Registry(tmp_path / "copy")
    assert [each.message for each in copy.versions()][1:] == ["tuned", *map(str, range(3, 31))]
    assert copy.verify() == []


def test_what_was_interrupted_is_not_read_from_a_read_only_disk(two, tmp_path):
    interrupt(two, tmp_path / "copy")
    with mount(tmp_path / "mounted", "--bind", "-o", "ro", str(tmp_path / "copy")):
        if not mounted("-o", "remount,ro,bind", str(tmp_path / "mounted")):
            pytest.skip("this system mounts nothing read-only")
        with pytest.raises(MiniptError, match="was left in the middle of a change"):
            Registry(tmp_path / "mounted").names()


def fill(registry: Registry, base) -> int:
    """Keep prompts until the disk is full. Returns how many there were room for."""
    for n in range(1000):
        try:
            registry.save(random_prompt(base, 30, n), "full", str(n))
        except MiniptError as error:
            sentence = str(error)
            assert "full" in sentence or "cannot be written" in sentence, sentence
            assert "\n" not in sentence
            return n
    raise AssertionError("the disk was never full")


def test_a_full_disk_loses_nothing(base, tmp_path):
    place = tmp_path / "small"
    with mount(place, "-t", "tmpfs", "-o", "size=300k", "tmpfs"):
        registry, ballast = Registry(place / "prompts"), place / "ballast"
        ballast.write_bytes(b"x" * 50_000)
        kept = fill(registry, base)
        assert kept > 3
        assert [each.message for each in registry.versions()] == [str(n) for n in range(kept)]
        assert registry.verify() == []
        ballast.unlink()  # there is room again
        assert registry.save(random_prompt(base, 3), "full").number == kept + 1


LIMITED = """
import resource, sys
from helpers.bases import base_with_tokenizer
from tests.registry.test_disk import fill
from minipt.registry.registry import Registry
base, registry = base_with_tokenizer(), Registry(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
print(fill(registry, base))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such limit")
def test_a_file_that_may_not_grow_loses_nothing(tmp_path):
    """The limit of a file's size stands in for a full disk, where nobody may mount one."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "prompts")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
    )
    assert done.stderr == ""
    registry = Registry(tmp_path / "prompts")
    assert len(registry.versions()) == int(done.stdout) > 3
    assert registry.verify() == []


def test_what_is_no_registry_is_said(tmp_path, run):
    place = tmp_path / "prompts"
    place.mkdir()
    file = place / "registry.db"
    file.write_bytes(b"something else" * 100)
    for action in (Registry(place).names, lambda: Registry(place).save(run, "spam")):
        with pytest.raises(MiniptError, match="is no SQLite file"):
            action()
    file.unlink()
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE mine (x)")
    before = file.read_bytes()
    for action in (Registry(place).names, lambda: Registry(place).save(run, "spam")):
        with pytest.raises(MiniptError, match="no registry of minipt"):
            action()
    assert file.read_bytes() == before


def test_a_registry_of_a_later_layout_is_refused(two, run):
    with closing(sqlite3.connect(two.directory / "registry.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
    for action in (two.names, lambda: two.save(run, "spam")):
        with pytest.raises(MiniptError, match="written by a newer minipt"):
            action()


def test_damage_of_the_tables_is_one_sentence(two, base):
    """Every page of the file is overwritten in turn; what can be read is right."""
    file = two.directory / "registry.db"
    whole = file.read_bytes()
    size, messages = 4096, ["first try", "tuned"]
    rng = np.random.default_rng(0)
    seen = 0
    for start in range(0, len(whole), size):
        file.write_bytes(whole[:start] + rng.bytes(size) + whole[start + size :])
        for action in (two.verify, lambda: [each.message for each in two.versions()]):
            try:
                found = action()
            except MiniptError as error:
                assert "\n" not in str(error)
                seen += 1
            else:
                assert found == messages or "registry.db is damaged" in str(found) or found == []
    assert seen


def test_places_that_cannot_be_made_are_one_sentence(tmp_path, run):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file/below", "a\0b", "/proc/prompts", "x" * 3000):
        with pytest.raises(MiniptError) as caught:
            Registry(place).save(run, "spam")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        with pytest.raises(MiniptError, match="there is no registry at"):
            Registry(place).names()


def test_a_place_of_any_letters(tmp_path, run, base):
    registry = Registry(tmp_path / "my prompts? #1 100% 🙂 file:x&mode=memory")
    registry.save(run, "spam")
    assert registry.load("spam", base) is not None
    assert (registry.directory / "registry.db").exists()


def test_who_waits_too_long_is_told_so(two, monkeypatch, run):
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with two.writing():
        with pytest.raises(MiniptError, match="is in use by another process"):
            two.save(run, "spam")
        assert two.names() == ["spam"]  # reading does not wait for a writer that has not ended


def test_threads_keep_together(registry, base):
    def keep(seed):
        registry.save(random_prompt(base, 3, seed), "spam", str(seed))

    threads = [threading.Thread(target=keep, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = registry.versions("spam")
    assert [each.number for each in versions] == list(range(1, 9))
    assert {each.message for each in versions} == set(map(str, range(8)))
