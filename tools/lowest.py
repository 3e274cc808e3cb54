"""Constraints for pip: the lowest versions that pyproject.toml allows this Python."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = ("lava", "train", "report", "dev")


def lowest(requirements: Iterable[str]) -> Iterator[str]:
    """Of each requirement of this Python its lowest version, e.g. of rich>=13 rich==13."""
    for wanted in map(Requirement, requirements):
        if wanted.name != "esl-lava" and (wanted.marker is None or wanted.marker.evaluate()):
            (version,) = (s.version for s in wanted.specifier if s.operator in (">=", "=="))
            yield f"{wanted.name}=={version}"


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    print(f"# for Python {sys.version_info.major}.{sys.version_info.minor}")
    print("\n".join(lowest(chain(project["dependencies"], *map(extras.get, EXTRAS)))))
