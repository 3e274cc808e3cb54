import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esl_lava.errors import FileError
from esl_lava.experiments.rundir import (
    LOCK,
    RunDirectory,
    create,
    lock,
    next_free,
    read_updates,
    refuse_overwrite,
)
from tests.faults import refused


def test_a_new_or_empty_directory_is_accepted(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    assert create(new) == RunDirectory(new)
    assert new.is_dir()
    assert create(new) == RunDirectory(new)


def test_a_directory_with_only_an_unfinished_file_is_accepted(tmp_path: Path) -> None:
    """A killed process leaves such a file."""
    script = f"""
import os
from pathlib import Path
from esl_lava import files
os.fsync = lambda number: os.kill(os.getpid(), 9)
files.replace_file(Path({str(tmp_path)!r}) / "checkpoint.pt", b"half")
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    assert create(tmp_path) == RunDirectory(tmp_path)


def test_a_path_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")
    with refused(FileError, "exists", file=tmp_path):
        create(tmp_path)
    file = tmp_path / "file"
    file.write_text("mine")
    with refused(FileError, "exists", file=file):
        create(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_an_impossible_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with refused(FileError, "unwritable", file=tmp_path / name):
        create(tmp_path / name)


def test_next_free(tmp_path: Path) -> None:
    assert next_free(tmp_path / "demo") == tmp_path / "demo"
    for name in ("demo", "demo-2", "demo-4"):
        (tmp_path / name).mkdir()
    assert next_free(tmp_path / "demo") == tmp_path / "demo-3"


def test_refuse_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "net.h5"
    refuse_overwrite(file, overwrite=False)
    file.write_text("old")
    with refused(FileError, "exists", file=file) as caught:
        refuse_overwrite(file, overwrite=False)
    assert "--overwrite" in str(caught.value)
    refuse_overwrite(file, overwrite=True)
    for overwrite in (False, True):
        with refused(FileError, "unwritable", file=tmp_path):
            refuse_overwrite(tmp_path, overwrite)
        with refused(FileError, "not-found", file=tmp_path / "missing"):
            refuse_overwrite(tmp_path / "missing" / "net.h5", overwrite)
        long = tmp_path / ("x" * 300)
        with refused(FileError, "unwritable", file=long):
            refuse_overwrite(long, overwrite)


def test_every_file_has_its_own_path(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    paths = [
        *(run.config, run.model, run.checkpoint, run.net),
        *(run.report, run.page, run.training_plot, run.raster_plot, run.updates),
    ]
    assert [path.name for path in paths] == [
        *("config.toml", "model.pt", "checkpoint.pt", "net.h5"),
        *("report.json", "report.html", "training.png", "raster.png", "updates.json"),
    ]
    assert {path.parent for path in paths} == {tmp_path}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '[{"layers": {}}]',
        "[" * 100_000,
        '[{"iteration": 1e999}]',
        f"[{'9' * 6000}]",
    ],
)
def test_damaged_updates_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "updates.json"
    path.write_text(content)
    with refused(FileError, "damaged", file=path):
        read_updates(path)


# --- the lock of a run directory -----------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from esl_lava.experiments.rundir import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_directory_is_locked_until_its_process_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            with refused(FileError, "conflict", file=tmp_path) as caught, lock(tmp_path):
                pass
            assert f"process {holder.pid} on " in str(caught.value)
        finally:
            holder.kill()
    assert (tmp_path / LOCK).exists()
    create(tmp_path)  # what the killed process left does not count
    unfinished = tmp_path / f".checkpoint.pt.{holder.pid}.unfinished"
    unfinished.write_bytes(b"half")
    with lock(tmp_path):
        assert not unfinished.exists()
        with refused(FileError, "conflict", file=tmp_path), lock(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_there_is_only_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock(tmp_path):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path) in record.getMessage()


def test_a_lock_file_that_its_process_has_just_removed_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / LOCK).unlink()  # between opening and locking
        calls.append(descriptor)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(tmp_path):
        assert len(calls) == 2
        with refused(FileError, "conflict", file=tmp_path), lock(tmp_path):
            pass


def test_a_full_disk_does_not_hinder_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "held")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with lock(tmp_path), refused(FileError, "conflict", file=tmp_path), lock(tmp_path):
            pass
    monkeypatch.setattr(fcntl, "flock", refuse)  # some systems say so if the lock is held
    with refused(FileError, "conflict", file=tmp_path), lock(tmp_path):
        pass
