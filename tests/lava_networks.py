"""Folder of the networks and recordings of lava-dl's own tests, which its wheel contains."""

import importlib.metadata
import sys
from pathlib import Path

_WHEEL = Path(str(importlib.metadata.distribution("lava-dl").locate_file("tests/lava/lib/dl/netx")))
_COPY = Path(sys.prefix) / "share" / "lava-dl" / "netx"  # made by tools/setup.sh

FOLDER = _COPY if _COPY.is_dir() else _WHEEL
