"""Packages that only some commands need, and what installs them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import MappingProxyType

from esl_lava.errors import PackageError

EXTRAS = MappingProxyType(
    {
        "PIL": "train",
        "aedat": "events",
        "asteval": "lava",
        "distributed": "cluster",
        "joblib": "train",
        "lava": "lava",
        "matplotlib": "report",
        "networkx": "lava",
        "scipy": "lava",
        "tensorboard": "tensorboard",
        "tonic": "events",
        "torch": "train",
    }
)
"""Package, as it is imported -> the extra of esl-lava that brings it."""

LAVA = "lava.lib.dl"
"""lava-dl as it is imported; lava-nc comes with it."""

PINS_END = (3, 11)
"""The first Python that Lava's own pins do not allow."""

PAST_PINS = "pip install --no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0"
"""What installs Lava there, beside the extra `lava`, which brings what it imports."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that, but what it is part of."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of what it is part of
        return False


def missing(error: ModuleNotFoundError) -> PackageError | None:
    """The error that says how to install what was not found; None where it is no extra's."""
    name = error.name or ""
    package = name.partition(".")[0]
    wanted = LAVA if package == "lava" else package
    return None if package not in EXTRAS or is_installed(wanted) else needed(package)


def needed(package: str) -> PackageError:
    """The error that says how to get a package of `EXTRAS`."""
    extra = EXTRAS[package]
    how = f"pip install 'esl-lava[{extra}]'"
    lacks_lava = extra in ("lava", "train") and not is_installed(LAVA)
    if lacks_lava and sys.version_info >= PINS_END:
        how = f"{how}, then {PAST_PINS}"
    return PackageError(
        f"the package {package} is not installed: {how}", "package", key=package, limit=how
    )
