"""The folder with the user's data sets, and the cache for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from esl_lava.errors import Code, FileError

DATA_VARIABLE = "ESL_LAVA_DATA"
"""The environment variable that names the folder of data sets."""


def own_folder(name: str) -> Path | None:
    """Return the user's folder `$ESL_LAVA_DATA/name`, or None if it does not exist."""
    path = own_path(name)
    return path if path is not None and path.is_dir() else None


def own_path(name: str) -> Path | None:
    """Return the user's file or folder `$ESL_LAVA_DATA/name`, or None if it does not exist."""
    data = os.environ.get(DATA_VARIABLE)
    path = Path(data) / name if data else None
    return path if path is not None and path.exists() else None


def cache_folder() -> Path:
    """Return the folder in the user's cache for files that can be made or downloaded again.

    The folder may not exist yet.
    """
    import platformdirs

    return Path(platformdirs.user_cache_dir("esl-lava"))


def read_error(file: str | Path, error: OSError) -> FileError:
    """Return the error for a file that the operating system could not read."""
    code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
    return FileError(f"{file} cannot be read: {error.strerror or error}", code, file=file)
