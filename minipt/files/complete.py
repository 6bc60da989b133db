"""Files and directories that are complete or absent, and the data that ships with minipt.

In: a path. Out: a temporary path to write to. It is a hidden name beside the path and is renamed
when the file is whole. So a full disk, Ctrl-C or a crash never leaves half a file under a name that
someone reads later.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minipt.errors import MiniptError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EFBIG,
    errno.EIO,
    errno.ELOOP,
)


@contextmanager
def complete_directory(path: str | os.PathLike, or_empty: bool = False) -> Iterator[Path]:
    """Fill a directory that appears under `path` only once it is complete.

    Yields an empty temporary directory beside `path`. When the `with` block ends, it is renamed to
    `path`. When the block raises, it is removed. A process that is killed can leave one behind. Its
    name begins with `.partial-`, and nothing reads it. or_empty: an empty directory that is there
    already may be replaced.

    Raises MiniptError if `path` exists, cannot be written, or the disk is full.
    """
    path = Path(path)
    _refuse_name(path)
    partial = _name_beside(path)
    try:
        with _plain_errors(path, partial):
            if not (or_empty and path.is_dir() and not any(path.iterdir())):
                _refuse_existing(path)
            _make_parent(path)
            partial.mkdir()
            yield partial
            if or_empty:
                with suppress(OSError):  # what is not empty cannot be removed in this way
                    path.rmdir()
            # Asked again because rename() silently replaces an empty directory.
            _refuse_existing(path)
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def complete_file(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file that appears under `path`, or replaces it, only once it is complete.

    Yields a temporary path beside `path` with the same suffix, for a file that the caller makes.
    When the `with` block ends, it is renamed to `path`. When the block raises, it is removed, and a
    file that was at `path` before is untouched. Where `path` is a link, the file that it leads to
    is written, and the link stays.

    Raises MiniptError if `path` cannot be written, is a pipe or a device, or the disk is full.
    """
    path = Path(path)
    _refuse_name(path)
    refuse_special(path)
    target = Path(os.path.realpath(path))
    partial = _name_beside(target)
    try:
        with _plain_errors(path, partial):
            if target.is_symlink():  # it leads to itself
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            _make_parent(target)
            yield partial
            partial.replace(target)
    finally:
        with suppress(OSError):  # where nothing could be written, nothing is left
            partial.unlink(missing_ok=True)


def refuse_special(path: str | os.PathLike) -> None:
    """Raise MiniptError for a pipe, a socket or a device, before it is read or replaced.

    Who opens a pipe may wait for ever. A path without a file passes.
    """
    with suppress(OSError):  # whoever opens the path says it better
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise MiniptError(f"{path} is a pipe, a socket or a device: name a regular file")


def shipped(name: str) -> Path:
    """The path of a file or directory that comes with minipt, such as `toy.csv`.

    An installed package has it in `minipt/data`. A source checkout has it in `data` beside
    `minipt`. Raises MiniptError if it is in neither.
    """
    package = Path(__file__).parents[1]
    for data in (package / "data", package.parent / "data"):
        if (data / name).exists():
            return data / name
    raise MiniptError(
        f"{name!r} should ship with minipt but is not in {package / 'data'}: install minipt again"
    )


def _refuse_name(path: Path) -> None:
    if not path.name:
        raise MiniptError(f"'{path}' names no file or directory to write: give it a name")
    if "\0" in str(path):
        raise MiniptError(f"{str(path)!r} holds a NUL, which no name may hold: give another name")


def _name_beside(path: Path) -> Path:
    # The name stays at the end, because writers such as matplotlib read the suffix.
    return path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc, where nothing can be made
        raise MiniptError(
            f"{path} cannot be written, since there is no {path.parent} and none can be made: "
            "choose a place that you may write to"
        ) from error


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):  # a link that leads nowhere too
        raise MiniptError(f"{path} exists already: remove it or choose another name")


@contextmanager
def _plain_errors(path: Path, partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise MiniptError(
                f"the disk is full, so {path} was not written: make room and try again"
            ) from error
        # Below /proc even a new name is not found.
        if error.errno in NOT_WRITABLE or str(error.filename) == str(partial):
            raise MiniptError(
                f"{path} cannot be written ({error.strerror}): choose a place that you may write to"
            ) from error
        raise
