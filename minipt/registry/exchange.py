"""One file that carries versions to another machine's registry, checked when it arrives.

In: a registry. Out: a zip archive with `registry.json`, which has every version, tag and move, and
the prompts by their content. The log stays where it is: its texts may be private.

What arrives keeps its numbers. Where another version has the name and number already, nothing is
imported. A suffix then gives all names that arrive other ones.
"""

import json
import zipfile
import zlib
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.complete import complete_file
from minipt.files.formats import parse_json
from minipt.registry.database import reading, writing
from minipt.registry.names import check_name
from minipt.registry.objects import OBJECTS, put_object, sha256_of, sound_object
from minipt.registry.registry import Registry
from minipt.registry.tables import Tables
from minipt.registry.version import parse_record

INDEX = "registry.json"
LARGEST = 1_000_000_000  # bytes of one member, so that no archive fills the memory
TEXT, WHOLE, MAYBE_TEXT, MAYBE_WHOLE = (str,), (int,), (str, type(None)), (int, type(None))
# The columns that travel, and their types.
TABLES = {
    "names": {"name": TEXT, "newest": WHOLE},
    "versions": dict.fromkeys(
        ("name", "sha256", "fingerprint", "created", "message", "record"), TEXT
    )
    | {"number": WHOLE, "parent": MAYBE_TEXT, "validation": MAYBE_TEXT},
    "tags": {"name": TEXT, "tag": TEXT, "number": WHOLE},
    "moves": dict.fromkeys(("time", "name", "tag", "user", "host"), TEXT)
    | {"before": MAYBE_WHOLE, "after": MAYBE_WHOLE},
}
Index = dict[str, list[dict]]  # the rows of each table


def export_to(registry: Registry, path: Path) -> int:
    """Write all versions to one file. Returns how many.

    Raises MiniptError for a version whose file is missing or damaged, and where the file cannot be
    written.
    """
    index: Index = {}
    with reading(registry.directory) as database:
        for table, columns in TABLES.items():
            rows = database.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid")
            index[table] = [dict(row) for row in rows]
    whose = {row["sha256"]: f"{row['name']}@{row['number']}" for row in index["versions"]}
    with complete_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(INDEX, json.dumps(index))
        for sha256, reference in whose.items():
            file = sound_object(registry.directory, sha256, reference)
            archive.write(file, f"{OBJECTS}/{file.name}")
    return len(index["versions"])


def import_from(registry: Registry, path: Path, suffix: str = "") -> int:
    """Add the versions of such a file, all or none. Returns how many were not here before.

    suffix: put behind every name that arrives. A tag that this registry has stays where it is.
    Raises MiniptError for a file that is damaged, and for a version whose number is taken here.
    """
    index, contents = _read(path)
    if suffix:
        _rename(index, suffix)
    with writing(registry.directory, new=True) as database:
        tables = Tables(registry.directory, database)
        new = [row for row in index["versions"] if _is_new(tables, row)]
        for row in index["names"]:
            database.execute("INSERT OR IGNORE INTO names VALUES (?, 0)", (row["name"],))
            change = "UPDATE names SET newest = max(newest, ?) WHERE name = ?"
            database.execute(change, (row["newest"], row["name"]))
        for row in new:
            put_object(registry.directory, contents[row["sha256"]])
            tables.insert("versions", row)
        here = {(row["name"], row["tag"]) for row in database.execute("SELECT * FROM moves")}
        for table in ("tags", "moves"):
            for row in index[table]:
                if (row["name"], row["tag"]) not in here:
                    tables.insert(table, row)
    return len(new)


def _read(path: Path) -> tuple[Index, dict[str, bytes]]:
    """The rows, and the contents by their sha256, all of them checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > LARGEST for member in archive.infolist()):
                raise ValueError("a member is larger than a prompt can be")
            index = parse_json(archive.read(INDEX))
            _check(index)
            names = {row["sha256"] for row in index["versions"]}
            contents = {s: archive.read(f"{OBJECTS}/{s}.safetensors") for s in names}
        if any(sha256_of(content) != sha256 for sha256, content in contents.items()):
            raise ValueError("a prompt's sha256 differs")
    except FileNotFoundError:
        raise MiniptError(f"there is no file {path}: check the path") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError) as error:
        raise MiniptError(
            f"{path} is no file of `minipt prompts export`, or is damaged ({error}): export it "
            "again"
        ) from error
    return index, contents


def _check(index: Index) -> None:
    """Raise ValueError, KeyError or TypeError for rows that no registry has written."""
    for table, columns in TABLES.items():
        for row in index[table]:
            if row.keys() != columns.keys() or not all(
                type(row[column]) in kinds for column, kinds in columns.items()
            ):
                raise ValueError(f"a row of {table} has other columns")
            check_name(row["name"])
    for row in index["versions"]:
        parse_record(row["record"])
    known = {(row["name"], row["number"]) for row in index["versions"]}
    if any((row["name"], row["number"]) not in known for row in index["tags"]):
        raise ValueError("a tag is on no version")
    given = {row["name"]: row["newest"] for row in index["names"]}
    if any(not 1 <= row["number"] <= given[row["name"]] for row in index["versions"]):
        raise ValueError("a version has a number that was not given")


def _rename(index: Index, suffix: str) -> None:
    names = {row["name"] for row in index["names"]}
    for rows in index.values():
        for row in rows:
            row["name"] = check_name(row["name"] + suffix)
            parent, _, number = (row.get("parent") or "").partition("@")
            if parent in names:
                row["parent"] = f"{parent}{suffix}@{number}"


def _is_new(tables: Tables, row: dict) -> bool:
    """Whether a version is not here. Raises MiniptError where another has its number."""
    query = "SELECT sha256, created FROM versions WHERE name = ? AND number = ?"
    found = tables.database.execute(query, (row["name"], row["number"])).fetchone()
    if found is None:
        return True
    if tuple(found) != (row["sha256"], row["created"]):
        raise MiniptError(
            f"the registry {tables.directory} has another {row['name']}@{row['number']}: import "
            "with --suffix, such as --suffix .laptop, which renames what arrives"
        )
    return False
