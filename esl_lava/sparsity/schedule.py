"""When connections move, and what fraction of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from esl_lava.errors import ConfigError


@dataclass(frozen=True)
class CosineDecay:
    """The paper's Eq. 2, evaluated every `t_iter` optimiser iterations.

    Attributes:
        alpha: fraction at step 0, within 0..1; with 0 the masks stay as drawn.
        t_iter: iterations between updates, at least 1.
        t_end: last iteration of rewiring, at least 1.

    Raises:
        ConfigError: when a value is out of range.
    """

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
        """Share of a layer's connections to move at `step`; 0 from t_end on."""
        if step > self.t_end:
            return 0.0
        return self.alpha / 2 * (1 + math.cos(math.pi * step / self.t_end))

    def due(self, step: int) -> bool:
        """Whether masks are updated after optimiser iteration `step` (the first is 1).

        Eq. 2 is exactly 0 at t_end: an update that falls there moves nothing.
        """
        return step % self.t_iter == 0 and 0 < step <= self.t_end
