"""The versions of the packages on which results depend."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

STACK = ("torch", "lava-nc", "lava-dl", "numpy", "numba", "h5py")
"""The packages whose versions `esl --version` prints."""


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
