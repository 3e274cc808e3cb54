"""Files that are opened safely or written atomically, and plain values as JSON."""

import errno
import fcntl
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esl_lava.errors import DataError, FileError
from esl_lava.files import (
    FullDiskError,
    as_json,
    is_process,
    is_unfinished,
    open_regular,
    remove_unfinished,
    replace_file,
    replace_json,
)
from tests.faults import refused
from tests.folders import contents


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")
    replace_json(path, {"a": [1, None]})
    assert list(contents(tmp_path)) == ["a.json"]
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert not is_unfinished(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "a.json"
    with refused(FileError, "unwritable", file=path):
        replace_file(path, b"")
    with refused(FileError, "type", file=Path()):
        replace_file(Path(), b"")


def irregular(folder: Path) -> dict[str, Path]:
    """Make files that are not regular: kind -> path."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    return {"pipe": folder / "pipe", "link": folder / "link", "device": Path(os.devnull)}


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = irregular(tmp_path)[kind]
    with refused(FileError, "unreadable", file=str(path)):
        open_regular(path)


def test_a_socket_and_a_folder_are_not_opened(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="socket"):
            open_regular("socket")
    with pytest.raises(IsADirectoryError) as caught:
        open_regular(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_an_opened_file_is_read_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    before = os.listdir("/proc/self/fd")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"abc"
            assert not os.get_inheritable(file.fileno())
    with pytest.raises(FileError):
        open_regular(os.devnull)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = irregular(tmp_path)[kind]
    before = os.lstat(path)
    with refused(FileError, "unwritable", file=path):
        replace_file(path, b"")
    assert os.lstat(path).st_ino == before.st_ino
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.parametrize(
    ("values", "key", "number"),
    [
        ({"a": {"b": [0.5, math.inf]}}, "a.b.1", math.inf),
        ([1, (2, -math.inf)], "1.1", -math.inf),
        (math.inf, None, math.inf),
    ],
)
def test_json_has_only_finite_numbers(values: Any, key: str | None, number: float) -> None:
    with refused(DataError, "not-finite", key=key, value=number):
        as_json(values)


# --- a full disk, and files that a killed process leaves -----------------------------------


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, FullDiskError), (errno.EDQUOT, FullDiskError), (errno.EIO, FileError)],
)
def test_a_full_disk_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[FileError]
) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with refused(kind, "unwritable", file=path) as caught:
        replace_file(path, b"new")
    assert caught.type is kind
    assert contents(tmp_path) == {"a.json": b"old"}


def test_a_file_system_without_locks_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    replace_file(tmp_path / "a", b"new")
    left = tmp_path / f".a.{dead_process()}.unfinished"
    left.write_bytes(b"perhaps of another machine")
    remove_unfinished(tmp_path)
    assert sorted(contents(tmp_path)) == [left.name, "a"]


def dead_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead = dead_process()
    assert not is_process(dead)
    assert not is_process(10**30)
    removed = tmp_path / f".checkpoint.pt.{dead}.unfinished"
    removed.write_bytes(b"half")
    (tmp_path / f".model.pt.{10**30}.unfinished").write_bytes(b"half")
    kept = [
        f".a.{os.getpid()}.unfinished",
        f"a.{dead}.unfinished",
        f".a.{dead}.unfinished.txt",
        ".a.b.unfinished",
        f".locked.{dead}.unfinished",
    ]
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
    with (tmp_path / kept[-1]).open() as of_another_machine:
        fcntl.flock(of_another_machine, fcntl.LOCK_EX)
        remove_unfinished(tmp_path)
        assert sorted(contents(tmp_path)) == sorted(kept)
    remove_unfinished(tmp_path)
    assert sorted(contents(tmp_path)) == sorted(kept[:-1])
    remove_unfinished(tmp_path / "absent")


def test_a_file_replaces_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    number = dead_process()
    for name in ("net.h5", "a.net.h5", "net.h5.1"):
        (tmp_path / f".{name}.{number}.unfinished").write_bytes(b"half")
    replace_file(tmp_path / "net.h5", b"whole")
    left = {f".{name}.{number}.unfinished": b"half" for name in ("a.net.h5", "net.h5.1")}
    assert contents(tmp_path) == {**left, "net.h5": b"whole"}


WAITING = """
import os, sys
from pathlib import Path
from esl_lava import files

def wait(descriptor):
    print("writing", flush=True)
    sys.stdin.readline()

os.fsync = wait
files.replace_file(Path(sys.argv[1]), b"whole")
"""


def test_the_file_of_a_living_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        remove_unfinished(tmp_path)
        writer.communicate("go on\n")
    assert writer.returncode == 0
    assert contents(tmp_path) == {"checkpoint.pt": b"whole"}
