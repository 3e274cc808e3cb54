"""Packages that only some commands need, and what installs them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import MappingProxyType

from esl_lava.errors import PackageError

EXTRAS = MappingProxyType(
    {
        "joblib": "train",
        "lava": "lava",
        "matplotlib": "report",
        "networkx": "lava",
        "scipy": "lava",
        "torch": "train",
    }
)
"""Package, as it is imported -> the extra of esl-lava that brings it."""

LAVA_ENDS = (3, 11)
"""The first Python that lava-nc 0.10.0 and lava-dl 0.6.0 cannot be installed on."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that."""
    return find_spec(package) is not None


def missing(error: ModuleNotFoundError) -> PackageError | None:
    """The error that says how to install what was not found; None where it is no extra's."""
    package = (error.name or "").partition(".")[0]
    return None if package not in EXTRAS or is_installed(package) else needed(package)


def needed(package: str) -> PackageError:
    """The error that says how to get a package of `EXTRAS`."""
    extra = EXTRAS[package]
    if extra in ("lava", "train") and sys.version_info >= LAVA_ENDS:
        how = "training and Lava need Python 3.10"
    else:
        how = f"pip install 'esl-lava[{extra}]'"
    return PackageError(f"the package {package} is not installed: {how}")
