"""One file that carries a registry to another machine, checked when it arrives.

In: a registry. Out: a zip archive that holds it again, without the log, whose texts may be private.
What arrives keeps its numbers. Where another version has the name and number already, nothing is
imported; a suffix then gives all names that arrive other ones.
"""

import os
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from minipt.errors import MiniptError
from minipt.files.complete import complete_file
from minipt.registry.database import FILE
from minipt.registry.names import check_name
from minipt.registry.objects import OBJECTS, put_object, sound_object
from minipt.registry.registry import Registry
from minipt.registry.tables import Tables

TRAVEL = ("names", "versions", "tags", "moves")  # these tables do, the log does not
LARGEST = 2_000_000_000  # bytes of a whole registry, so that no archive fills the disk


def export_to(registry: Registry, path: Path) -> int:
    """Write all versions, tags and moves to one file. Returns how many versions.

    Raises MiniptError for a version whose file is missing or damaged, and where the file cannot be
    written.
    """
    with TemporaryDirectory(prefix="minipt-") as place:
        count = _copy(registry, Registry(place), "")
        with complete_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            for file in sorted(file for file in Path(place).rglob("*") if file.is_file()):
                archive.write(file, file.relative_to(place))
    return count


def import_from(registry: Registry, path: Path, suffix: str = "") -> int:
    """Add the versions of such a file, all or none. Returns how many were not here before.

    suffix: put behind every name that arrives. A tag that this registry has stays where it is.
    Raises MiniptError for a file that is damaged, and for a version whose number is taken here.
    """
    with TemporaryDirectory(prefix="minipt-") as place:
        try:
            _unpack(path, place)
            arrived = Registry(place)
            faults = arrived.verify()
        except FileNotFoundError:
            raise MiniptError(f"there is no file {path}: check the path") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            faults = [error]
        except MiniptError:  # it would name the place
            faults = ["its tables cannot be read"]
        if faults:
            raise MiniptError(
                f"{path} is no file of `minipt prompts export`, or is damaged ({faults[0]}): "
                "export it again"
            )
        return _copy(arrived, registry, suffix)


def _unpack(path: Path, place: str) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise zipfile.BadZipFile("it is larger than a registry")
        for name in archive.namelist():
            if name != FILE and os.path.dirname(name) != OBJECTS:
                raise zipfile.BadZipFile(f"it holds {name!r:.60}")
            archive.extract(name, place)


def _copy(source: Registry, target: Registry, suffix: str) -> int:
    """Add what one registry holds to another. Returns how many versions were not there before."""
    with source.reading() as tables:
        rows = {table: tables.rows(f"SELECT * FROM {table} ORDER BY rowid") for table in TRAVEL}
    for row in (row for table in TRAVEL for row in rows[table]):
        row["name"] = check_name(row["name"] + suffix)
        check_name(row.get("tag", "none"), "tag")
        row.pop("id", None)  # it is given anew
        if row.get("parent"):
            row["parent"] = f"{suffix}@".join(row["parent"].split("@"))
    with target.writing(new=True) as tables:
        here = {(row["name"], row["tag"]) for row in tables.rows("SELECT name, tag FROM moves")}
        for row in rows["names"]:
            tables.give_number(row["name"], row["newest"])
        new = [row for row in rows["versions"] if _is_new(tables, row)]
        for row in new:
            whose = f"{row['name']}@{row['number']}"
            file = sound_object(source.directory, row["sha256"], whose)
            put_object(target.directory, file.read_bytes())
            tables.insert("versions", row)
        for table in ("tags", "moves"):
            for row in rows[table]:
                if (row["name"], row["tag"]) not in here:
                    tables.insert(table, row)
    return len(new)


def _is_new(tables: Tables, row: dict) -> bool:
    """Whether a version is not here. Raises MiniptError where another has its number."""
    query = "SELECT sha256, created FROM versions WHERE name = ? AND number = ?"
    found = tables.rows(query, row["name"], row["number"])
    ours = {name: row[name] for name in ("sha256", "created")}
    if found and found[0] != ours:
        raise MiniptError(
            f"the registry {tables.directory} has another {row['name']}@{row['number']}: import "
            "with --suffix, such as --suffix .laptop, which renames what arrives"
        )
    return not found
