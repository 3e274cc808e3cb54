"""Kernels where numba can write its cache nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import esl_lava

PROGRAM = """
import logging
logging.basicConfig(format="%(name)s: %(levelname)s")
import numpy as np
from esl_lava.kernels import narrow, rounding
sums = [np.zeros(1) for _ in range(3)]
rounding.measure_rows(np.array([-2.0, 1.0]), np.array([0, 2]), *sums)
print(rounding.__file__, [float(number[0]) for number in sums])
"""


def test_kernels_run_without_a_cache(tmp_path: Path) -> None:
    """A file in place of each folder keeps root from writing too."""
    package = tmp_path / "esl_lava"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(esl_lava.__file__).parent, package, symlinks=True, ignore=ignored)
    (package / "kernels/__pycache__").write_text("")
    environment = {name: text for name, text in os.environ.items() if "NUMBA" not in name}
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "IPYTHONDIR"), os.devnull)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, **nowhere, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{package / 'kernels/rounding.py'} [2.0, -2.0, 1.0]\n"
    assert done.stderr == "esl_lava.kernels: WARNING\n"
