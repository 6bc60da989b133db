"""A registry in one file: the same on another machine, checked, and never over what is there."""

import random
import zipfile

import pytest
from helpers.bases import random_prompt

from minipt.errors import MiniptError
from minipt.learning.observe import observe
from minipt.registry.exchange import export_to, import_from
from minipt.registry.registry import Registry


@pytest.fixture
def file(two, tmp_path):
    two.tag("spam", 1, "production")
    two.tag("spam", 2, "production")
    assert export_to(two, tmp_path / "backup.zip") == 2
    return tmp_path / "backup.zip"


@pytest.fixture
def other(tmp_path):
    return Registry(tmp_path / "other")


def described(registry: Registry) -> list:
    return [each.describe() for each in registry.versions()]


def test_a_registry_arrives_as_it_was(two, other, file, base):
    assert import_from(other, file) == 2
    assert described(other) == described(two)
    assert other.moves("spam") == two.moves("spam")
    assert other.validation("spam@2")[1].tolist() == two.validation("spam@2")[1].tolist()
    assert other.load("spam@production", base).about == two.load("spam@production", base).about
    assert other.verify() == []
    assert import_from(other, file) == 0  # again: nothing is new
    assert described(other) == described(two)


def test_the_log_stays_at_home(two, other, run, base, tmp_path):
    two.log("spam@2", observe(base, run.prompt, ["a private text"]), ["a private text"])
    export_to(two, tmp_path / "backup.zip")
    assert import_from(other, tmp_path / "backup.zip") == 2
    assert other.logged("spam@2").ids.size == 0
    assert b"private" not in (other.directory / "registry.db").read_bytes()


def test_a_number_that_is_taken_is_refused_and_nothing_changes(two, other, file, base, run):
    other.save(random_prompt(base, 3, seed=9), "spam", "of this machine")
    other.save(run, "eggs")
    before = described(other)
    with pytest.raises(MiniptError, match=r"has another spam@1: import with --suffix"):
        import_from(other, file)
    assert described(other) == before
    assert import_from(other, file, ".laptop") == 2
    assert other.names() == ["eggs", "spam", "spam.laptop"]
    assert other.find("spam.laptop").parent == "spam.laptop@1"
    assert other.tags("spam.laptop") == {"production": 2}
    assert other.verify() == []


def test_what_is_here_stays_where_it_is(two, other, file):
    import_from(other, file)
    other.tag("spam", 1, "production")
    moves = other.moves("spam")
    two.tag("spam", 1, "trial")
    export_to(two, file)
    import_from(other, file)
    assert other.tags("spam") == {"production": 1, "trial": 1}
    assert [move for move in other.moves("spam") if move.tag == "production"] == moves


def test_numbers_that_were_removed_are_not_given_there_either(two, other, run, tmp_path):
    two.remove("spam@2")
    export_to(two, tmp_path / "backup.zip")
    import_from(other, tmp_path / "backup.zip")
    assert other.save(run, "spam").number == 3


def test_a_damaged_object_is_not_exported(two, object_of, tmp_path):
    object_of(two, "spam@1").write_bytes(b"")
    with pytest.raises(MiniptError, match=r"spam@1 cannot be used"):
        export_to(two, tmp_path / "backup.zip")
    assert not (tmp_path / "backup.zip").exists()


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_a_damaged_file_is_refused_or_arrives_as_it_was(two, file, tmp_path, kind):
    whole, rng = file.read_bytes(), random.Random(0)
    refused = 0
    for n in range(30):
        at = rng.randrange(len(whole))
        damaged = bytearray(whole[:at] if kind == "cut" else whole)
        if kind == "flip":
            damaged[at] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        place = Registry(tmp_path / f"other-{n}")
        try:
            import_from(place, file)
        except MiniptError as error:
            refused += 1
            assert "\n" not in str(error)
            assert not place.directory.exists()
        else:
            assert described(place) == described(two)
    assert refused > 20


def test_other_files_are_refused(other, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../evil", "x")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "text").write_text("a text")
    for name in ("evil.zip", "empty.zip", "text"):
        with pytest.raises(MiniptError, match=f"{name} is no file of"):
            import_from(other, tmp_path / name)
    with pytest.raises(MiniptError, match="there is no file"):
        import_from(other, tmp_path / "nowhere")
    assert not other.directory.exists()


def test_a_suffix_that_makes_no_name_is_refused(other, file):
    with pytest.raises(MiniptError, match="holds one of"):
        import_from(other, file, "@2")
    assert not other.has("spam")
