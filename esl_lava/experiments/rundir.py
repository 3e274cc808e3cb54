"""The directory of a run: its files, and checks before writing to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import Code, FileError
from esl_lava.files import check_output, is_unfinished, open_regular, remove_unfinished
from esl_lava.results.training import MaskUpdate

UPDATES_LIMIT = 1 << 28
"""An `updates.json` may have at most this many bytes."""

LOCK = ".lock"
"""Name of the file in a run directory that a training locks."""

_logger = logging.getLogger(__name__)

_UPDATES = TypeAdapter(list[MaskUpdate])


@dataclass(frozen=True)
class _File:
    """A descriptor that gives the path of a file in a run directory."""

    name: str

    def __get__(self, run: RunDirectory, owner: type[RunDirectory]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """The paths of the files in a run directory."""

    path: Path

    config = _File("config.toml")
    """The experiment as TOML."""
    model = _File("model.pt")
    """The trained model."""
    checkpoint = _File("checkpoint.pt")
    """The latest saved state of an unfinished training."""
    updates = _File("updates.json")
    """All updates of the masks, as JSON."""
    net = _File("net.h5")
    """The exported network."""
    page = _File("report.html")
    """The report on the run, as HTML."""
    report = _File("report.json")
    """The content of the report, as JSON."""
    outcome = _File("outcome.json")
    """The results of the run in a sweep, as JSON."""
    training_plot = _File("training.png")
    """A plot of accuracy and density over the epochs."""
    raster_plot = _File("raster.png")
    """A plot of the spikes of one sample in all layers."""


def create(path: Path) -> RunDirectory:
    """Create a run directory; it may exist if it holds only files of killed processes.

    Raises:
        FileError: if the path holds other files, or cannot be created.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{path}: cannot create the directory: {error.strerror}", "unwritable", file=path
        ) from None
    return RunDirectory(path)


def check_free(path: Path) -> None:
    """Check that a run directory can be created at a path.

    The path may be a directory with a lock file and unfinished files, which killed processes leave.

    Raises:
        FileError: if the path holds other files, or cannot be read.
    """
    try:
        free = not path.exists() or (
            path.is_dir()
            and all(is_unfinished(file) or file.name == LOCK for file in path.iterdir())
        )
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}", "unwritable", file=path) from None
    if not free:
        raise FileError(
            f"{path}: already exists and is not empty; choose another directory or remove it",
            "exists",
            file=path,
        )


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep other trainings out of a run directory while the context is open.

    The operating system releases the lock when the process ends, however it ends. If the file
    system has no locks, a warning is logged and the context keeps nobody out. Files that killed
    processes left unfinished are removed.

    Raises:
        FileError: if another training has the lock.
    """
    file = path / LOCK
    try:
        descriptor = _open_locked(file)
    except BlockingIOError:
        holder = _read_holder(file)
        raise FileError(
            f"{path}: another training is running in this directory{holder}; wait until it ends",
            "conflict",
            file=path,
        ) from None
    except OSError as error:
        if os.path.isdir(path):
            _logger.warning(
                "%s cannot be locked (%s): make sure that no other training runs in this directory",
                *(file, error.strerror),
            )
        yield
        return
    try:
        remove_unfinished(path)
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # before the lock is released, so that the file is still ours
        os.close(descriptor)


def _open_locked(file: Path) -> int:
    """Open and lock a file, and write into it who has the lock. Return its descriptor.

    Raises:
        BlockingIOError: if another process has the lock.
        OSError: if the file cannot be opened or locked.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, file):
                with contextlib.suppress(OSError):  # a full disk
                    os.ftruncate(descriptor, 0)
                    os.write(
                        descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode()
                    )
                return descriptor
        except PermissionError as error:  # some systems report a held lock in this way
            os.close(descriptor)
            raise BlockingIOError(errno.EWOULDBLOCK, error.strerror) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that had the lock has removed the file meanwhile


def _is_same(descriptor: int, file: Path) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _read_holder(file: Path) -> str:
    """Return who has a lock, as a part of a sentence; an empty text if that is not known."""
    with contextlib.suppress(OSError):
        with file.open(errors="replace") as content:
            words = content.read(200).split()
        return f" ({' '.join(words)})" if words else ""
    return ""


def next_free(path: Path) -> Path:
    """Return `path` if nothing exists there, else the first of path-2, path-3, ... that is free."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Refuse an existing output file unless the user asked to replace it.

    Raises:
        FileError: if `path` exists and `overwrite` is false, exists and is no regular file, or
            its directory does not exist.
    """
    try:
        check_output(path)
        # A symbolic link counts even if the file that it names does not exist.
        if not overwrite and os.path.lexists(path):
            raise FileError(
                f"{path}: already exists; use --overwrite to replace it", "exists", file=path
            )
        if not path.parent.is_dir():
            raise FileError(
                f"{path.parent}: the directory does not exist", "not-found", file=path.parent
            )
    except OSError as error:  # the name is too long, or a directory may not be searched
        raise FileError(f"{path}: {error.strerror}", "unwritable", file=path) from None


def read_updates(path: Path) -> list[MaskUpdate]:
    """Read the updates of the masks from an `updates.json`.

    Raises:
        FileError: if the file cannot be read or is not a list of updates.
    """
    try:
        with open_regular(path) as file:
            content = file.read(UPDATES_LIMIT + 1)
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{path}: cannot be read: {error.strerror}", code, file=path) from None
    if len(content) > UPDATES_LIMIT:
        raise FileError(
            f"{path}: the file exceeds the limit of {UPDATES_LIMIT} bytes",
            "too-large",
            limit=UPDATES_LIMIT,
            file=path,
        )
    try:
        return _UPDATES.validate_json(content)
    except (ValidationError, MemoryError):
        raise FileError(f"{path}: is not a list of mask updates", "damaged", file=path) from None
