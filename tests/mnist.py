"""A mark that skips tests without the real MNIST."""

import os
from pathlib import Path

import pytest

DATA = os.environ.get("ESL_LAVA_DATA")
needs_mnist = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "mnist").is_dir(),
    reason="ESL_LAVA_DATA names no folder that contains mnist/",
)
