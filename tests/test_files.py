"""Files that are opened safely or written atomically, and plain values as JSON."""

import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from esl_lava.errors import DataError, FileError
from esl_lava.files import as_json, is_unfinished, open_regular, replace_file, replace_json
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
