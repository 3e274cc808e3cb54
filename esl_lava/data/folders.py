"""Where data sets lie: the user's folder of them, and the cache of what is made once."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "ESL_LAVA_DATA"
"""The environment variable that names the folder of data sets."""


def own_folder(name: str) -> Path | None:
    """The user's folder `$ESL_LAVA_DATA/name`; None where there is none."""
    path = own_path(name)
    return path if path is not None and path.is_dir() else None


def own_path(name: str) -> Path | None:
    """The user's file or folder `$ESL_LAVA_DATA/name`; None where there is none."""
    data = os.environ.get(DATA_VARIABLE)
    path = Path(data) / name if data else None
    return path if path is not None and path.exists() else None


def cache_folder() -> Path:
    """The folder of what can be made or fetched anew, in the user's cache; it may not exist."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("esl-lava"))
