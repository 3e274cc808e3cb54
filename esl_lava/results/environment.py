"""Records of the machine and its software, for `esl doctor` and `esl --version`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package that esl-lava uses.

    Attributes:
        name: the name under which pip knows it.
        version: the installed version, or None.
        extra: the extra of esl-lava that installs it; None for a package that is always needed.
        used_for: what needs it.
    """

    name: str
    version: str | None
    extra: str | None
    used_for: str


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        state: "ok", "missing" (some commands will refuse) or "broken" (a fault to mend).
        finding: what was found.
        remedy: what to do, or an empty text.
    """

    subject: str
    state: str
    finding: str
    remedy: str = ""


@dataclass(frozen=True)
class Environment:
    """The machine and its software.

    Attributes:
        version: version of esl-lava.
        python, platform: version of Python, operating system and processor.
        cores: number of processor cores that this process may use.
        packages: packages that esl-lava uses.
        checks: results of the checks, in the order in which they were made.
    """

    version: str
    python: str
    platform: str
    cores: int
    packages: Sequence[Package]
    checks: Sequence[Check]

    @property
    def broken(self) -> Sequence[Check]:
        """The checks that found a fault."""
        return [check for check in self.checks if check.state == "broken"]
