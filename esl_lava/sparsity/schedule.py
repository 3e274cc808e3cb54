"""When connections move, and what fraction of them: schedules, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from esl_lava.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """An update every `t_iter` optimiser iterations up to `t_end`, none after.

    Attributes:
        decay: how the fraction falls, of `SCHEDULES`.
        alpha: fraction at step 0, within 0..1; with 0 nothing moves.
        t_iter: iterations between updates, at least 1.
        t_end: last iteration of rewiring, at least 1.

    Raises:
        ConfigError: when a value is out of range.
    """

    decay: Callable[[Schedule, int], float]
    alpha: float
    t_iter: int
    t_end: int

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha {self.alpha} is outside 0..1")
        for name in ("t_iter", "t_end"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name} {value} is below 1")

    def fraction(self, step: int) -> float:
        """Share of the connections to move at `step`; 0 after `t_end`."""
        return self.decay(self, step) if step <= self.t_end else 0.0

    def due(self, step: int) -> bool:
        """Whether masks are updated after optimiser iteration `step` (the first is 1)."""
        return step % self.t_iter == 0 and 0 < step <= self.t_end


def cosine(schedule: Schedule, step: int) -> float:
    """The paper's Eq. 2, alpha / 2 * (1 + cos(pi * step / t_end)): exactly 0 at t_end."""
    return schedule.alpha / 2 * (1 + math.cos(math.pi * step / schedule.t_end))


def constant(schedule: Schedule, step: int) -> float:
    """The same fraction at every update, the one at t_end included."""
    return schedule.alpha


SCHEDULES: Mapping[str, Callable[[Schedule, int], float]] = MappingProxyType(
    {"cosine": cosine, "constant": constant}
)
"""How the fraction falls until t_end, by name."""
