"""Writing files whole or not at all, and plain values as JSON."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from esl_lava.errors import DataError, FileError

_TEMPORARY = ".unfinished"


def is_unfinished(path: Path) -> bool:
    """Whether a file is what `replace_file` leaves when the process is killed in it."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Put `content` at `path` atomically: temporary name, fsync, rename.

    Raises:
        FileError: when the file cannot be written; the old one then stays.
    """
    if not path.name:
        raise FileError(f"{path}: not the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def replace_json(path: Path, values: Any) -> None:
    """Put plain values at `path` as indented JSON, atomically.

    Raises:
        DataError: for a number that is not finite.
        FileError: when the file cannot be written; the old one then stays.
    """
    replace_file(path, (as_json(values, indent=1) + "\n").encode())


def as_json(values: Any, indent: int | None = None) -> str:
    """Plain values as JSON, which has no NaN and no infinity.

    Args:
        values: of dictionaries, lists, tuples, strings, numbers, booleans and None.
        indent: as `json.dumps`.

    Raises:
        DataError: for a number that is not finite, by its place.
    """
    for place, number in _not_finite(values, ()):
        raise DataError(f"{'.'.join(place)} is {number}, which is not a finite number")
    return json.dumps(values, indent=indent, allow_nan=False)


def _not_finite(values: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """(keys on the way, number) of what JSON cannot say."""
    if isinstance(values, float) and not math.isfinite(values):
        yield place, values
    elif isinstance(values, dict):
        for key, inner in values.items():
            yield from _not_finite(inner, (*place, str(key)))
    elif isinstance(values, (list, tuple)):
        for index, inner in enumerate(values):
            yield from _not_finite(inner, (*place, str(index)))
