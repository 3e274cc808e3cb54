"""The lowest versions that pyproject.toml allows, as constraints for pip: `>=` as `==`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import tomli
from packaging.requirements import Requirement


def lowest(requirement: str) -> str:
    """A requirement as the lowest version that it allows, e.g. rich>=13 as rich==13."""
    wanted = Requirement(requirement)
    (version,) = (s.version for s in wanted.specifier if s.operator in (">=", "=="))
    return f"{wanted.name}=={version}"


if __name__ == "__main__":
    project = tomli.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *chain(*map(extras.get, ("lava", "train", "report", "dev")))]
    found = [lowest(one) for one in named if not one.startswith("esl-lava[")]
    # torchaudio, which neurobench needs, fits one torch only, and says so nowhere.
    found += [pin.replace("torch", "torchaudio") for pin in found if pin.startswith("torch==")]
    print("\n".join(found))
