"""Real data sets for tests, and a mark that skips tests without them."""

import os
from pathlib import Path

import pytest

_DATA = os.environ.get("ESL_LAVA_DATA", "")


def path_of(name: str) -> Path:
    """Return the path of a file or folder in the folder of data sets."""
    return Path(_DATA) / name


def needs(name: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test if the file or folder does not exist."""
    return pytest.mark.skipif(
        not _DATA or not path_of(name).exists(),
        reason=f"ESL_LAVA_DATA names no folder that contains {name}",
    )
