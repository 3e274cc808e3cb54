"""Write files atomically, and turn plain values into JSON."""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from esl_lava.errors import DataError, FileError

_SUFFIX = ".unfinished"
"""Ending of the names of temporary files."""

_TEMPORARY = re.compile(rf"\.(.+)\.([0-9]+){re.escape(_SUFFIX)}")
"""Name of a temporary file: the name of the file, and the number of the process that writes it."""


class FullDiskError(FileError):
    """A file cannot be written because the disk or the user's quota is full."""


def is_unfinished(path: Path) -> bool:
    """Return whether a file has the name of a temporary file of `replace_file`."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def is_process(number: int) -> bool:
    """Return whether this machine has a process with this number."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_unfinished(directory: Path, name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a directory.

    Args:
        directory: the directory.
        name: remove only the temporary files of the file with this name.

    A file stays if its process may live: if this machine has a process of its number, or if
    another machine holds the lock of the file. It also stays if the file system has no locks.
    """
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            match = _TEMPORARY.fullmatch(path.name)
            if match is None or match[1] != (name or match[1]) or is_process(int(match[2])):
                continue
            with contextlib.suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    A pipe or a device is refused, because it could wait without end, or never end.

    Raises:
        FileError: if the path is a pipe, a device or a socket.
        OSError: if the file does not exist or cannot be opened, or is a directory.
    """
    return open(path, "rb", opener=open_descriptor)


def open_descriptor(path: str, flags: int) -> int:
    """Return a descriptor of a regular file, as the `opener` of Python's `open` and `FileIO`.

    Raises: as `open_regular`.
    """
    # Without O_NONBLOCK the opening of a pipe waits until another process writes into it.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise FileError(f"{path}: is not a regular file", "unreadable", file=path)


def check_output(path: Path) -> None:
    """Check that nothing but a regular file would be replaced by an output file.

    Raises:
        FileError: if the path is a directory, a pipe, a device or a socket.
        OSError: if the system cannot look the path up.
    """
    if path.is_dir():
        raise FileError(f"{path}: is a directory, but must be a file", "unwritable", file=path)
    if path.exists() and not path.is_file():
        raise FileError(
            f"{path}: is not a regular file, and is not replaced by one", "unwritable", file=path
        )


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` atomically: write to a temporary name, fsync, rename.

    Before that, remove the temporary files of killed processes that wrote to `path`.

    Raises:
        FullDiskError: when the disk or the quota is full; an existing file stays as it was.
        FileError: when the file cannot be written; an existing file then stays as it was. Also
            when `path` has no file name, or exists and is no regular file.
    """
    if not path.name:
        raise FileError(f"{path}: not the name of a file", "type", file=path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        check_output(path)
        remove_unfinished(path.parent, path.name)
        with temporary.open("wb") as file:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # while the file has its lock
    except OSError as error:
        kind = FullDiskError if error.errno in (errno.ENOSPC, errno.EDQUOT) else FileError
        raise kind(
            f"{path}: cannot be written: {error.strerror}", "unwritable", file=path
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def replace_json(path: Path, values: Any) -> None:
    """Write plain values to `path` as indented JSON, atomically.

    Raises:
        DataError: for a number that is not finite.
        FileError: when the file cannot be written; an existing file then stays as it was.
    """
    replace_file(path, (as_json(values, indent=1) + "\n").encode())


def as_json(values: Any, indent: int | None = None) -> str:
    """Return plain values as JSON text. JSON has no NaN and no infinity.

    Args:
        values: dictionaries, lists, tuples, strings, numbers, booleans and None.
        indent: as in `json.dumps`.

    Raises:
        DataError: for a number that is not finite; the error names its place.
    """
    for place, number in _not_finite(values, ()):
        key = ".".join(place) or None
        raise DataError(
            f"{key or 'the value'} is {number}, which is not a finite number",
            "not-finite",
            key=key,
            value=number,
        )
    return json.dumps(values, indent=indent, allow_nan=False)


def _not_finite(values: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Find the numbers that are not finite: (keys that lead to the number, number) of each."""
    if isinstance(values, float) and not math.isfinite(values):
        yield place, values
    elif isinstance(values, dict):
        for key, inner in values.items():
            yield from _not_finite(inner, (*place, str(key)))
    elif isinstance(values, (list, tuple)):
        for index, inner in enumerate(values):
            yield from _not_finite(inner, (*place, str(index)))
