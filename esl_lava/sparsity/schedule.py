"""Schedules: the iterations at which connections move, and the fraction that moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from esl_lava.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Schedule of updates: one every `t_iter` optimiser iterations, none after `t_end`.

    Attributes:
        decay: the function that gives the fraction, an entry of `SCHEDULES`.
        alpha: the fraction at step 0, within 0..1; with 0 no connection moves.
        t_iter: number of iterations between updates, at least 1.
        t_end: the last iteration at which an update is possible, at least 1.

    Raises:
        ConfigError: if a value is out of range.
    """

    decay: Callable[[Schedule, int], float]
    alpha: float
    t_iter: int
    t_end: int

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(
                f"alpha {self.alpha} is outside 0..1",
                "range",
                key="alpha",
                value=self.alpha,
                limit=1,
            )
        for name in ("t_iter", "t_end"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(
                    f"{name} {value}: at least 1 is needed", "range", key=name, value=value, limit=1
                )

    def fraction(self, step: int) -> float:
        """Return the share of the connections to move at `step`; 0 after `t_end`."""
        return self.decay(self, step) if step <= self.t_end else 0.0

    def due(self, step: int) -> bool:
        """Check whether an update follows optimiser iteration `step` (the first is 1)."""
        return step % self.t_iter == 0 and 0 < step <= self.t_end


def cosine(schedule: Schedule, step: int) -> float:
    """Return Eq. 2 of the paper, alpha / 2 * (1 + cos(pi * step / t_end)), exactly 0 at t_end."""
    return schedule.alpha / 2 * (1 + math.cos(math.pi * step / schedule.t_end))


def constant(schedule: Schedule, step: int) -> float:
    """Return alpha at every update, also at t_end."""
    return schedule.alpha


SCHEDULES: Mapping[str, Callable[[Schedule, int], float]] = MappingProxyType(
    {"cosine": cosine, "constant": constant}
)
"""Name -> function that gives the fraction up to t_end."""
