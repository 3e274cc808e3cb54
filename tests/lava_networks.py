"""Where the networks and recordings of lava-dl's own tests are, which its wheel carries."""

import importlib.metadata
import sys
from pathlib import Path

_WHEEL = Path(str(importlib.metadata.distribution("lava-dl").locate_file("tests/lava/lib/dl/netx")))
_KEPT = Path(sys.prefix) / "share" / "lava-dl" / "netx"  # by tools/setup.sh

FOLDER = _KEPT if _KEPT.is_dir() else _WHEEL
