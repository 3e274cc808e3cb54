"""Tests that need a real data set are skipped where nobody has it at hand."""

import os
from pathlib import Path

import pytest

_DATA = os.environ.get("ESL_LAVA_DATA", "")


def path_of(name: str) -> Path:
    """Of what lies in the folder of data sets."""
    return Path(_DATA) / name


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where there is no such file or folder."""
    return pytest.mark.skipif(
        not _DATA or not path_of(name).exists(), reason=f"ESL_LAVA_DATA names no folder with {name}"
    )
