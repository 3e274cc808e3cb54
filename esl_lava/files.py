"""Writing files whole or not at all."""

import contextlib
import os
from pathlib import Path

from esl_lava.errors import FileError

_TEMPORARY = ".unfinished"


def is_unfinished(path: Path) -> bool:
    """Whether a file is what `replace_file` leaves when the process is killed in it."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


def replace_file(path: Path, content: bytes) -> None:
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
