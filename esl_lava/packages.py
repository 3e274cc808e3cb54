"""Packages that only some commands need, and the commands that install them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
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
"""Import name of a package -> the extra of esl-lava that installs it."""

LAVA = "lava.lib.dl"
"""Import name of lava-dl, which requires lava-nc."""

PINS_END = (3, 11)
"""The first Python version that Lava's own pins exclude."""

PAST_PINS = "pip install --no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0"
"""Command that installs Lava on Python `PINS_END` and later.

The extra `lava` installs the packages that Lava imports.
"""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported. To find out, only its parents are imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # raised for a parent package
        return False


def missing(error: ModuleNotFoundError) -> PackageError | None:
    """Return an error that says how to install the package that was not found.

    Returns:
        None if no extra of esl-lava installs that package, or if the package is installed.
    """
    name = error.name or ""
    package = name.partition(".")[0]
    required = LAVA if package == "lava" else package
    return None if package not in EXTRAS or is_installed(required) else needed(package)


@contextlib.contextmanager
def explain_missing() -> Iterator[None]:
    """Raise the error of `missing` if a package is not found within the context.

    Raises:
        PackageError: if an extra of esl-lava installs the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package_error = missing(error)
        if package_error is None:
            raise
        raise package_error from None


def needed(package: str) -> PackageError:
    """Return an error that says how to install a package of `EXTRAS`."""
    extra = EXTRAS[package]
    command = f"pip install 'esl-lava[{extra}]'"
    lacks_lava = extra in ("lava", "train") and not is_installed(LAVA)
    if lacks_lava and sys.version_info >= PINS_END:
        command = f"{command}, then {PAST_PINS}"
    name = "lava-dl" if package == "lava" else package
    return PackageError(
        f"the package {name} is not installed; install it with {command}",
        "package",
        value=package,
    )
