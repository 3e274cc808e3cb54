"""How many connections each layer starts with: exact integers, never expectations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from esl_lava.errors import ConfigError


@dataclass(frozen=True)
class LayerShape:
    """What an allocation needs to know about a weight layer.

    Attributes:
        name: as errors print it.
        n_pre, n_post: input and output neurons; channels of a convolution.
        kernel: lengths of a convolution's kernel; none in a fully connected layer.

    Raises:
        ConfigError: when the layer has no weights.
    """

    name: str
    n_pre: int
    n_post: int
    kernel: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.n_pre, self.n_post, *self.kernel, 1) < 1:
            raise ConfigError(
                f"layer {self.name} of {self.n_pre} inputs, {self.n_post} outputs "
                f"and {self.size} weights is empty"
            )

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.n_pre * self.n_post * math.prod(self.kernel)


def round_half_up(value: Fraction) -> int:
    """The nearest integer, halves upwards."""
    return math.floor(value + Fraction(1, 2))


def round_shares(shares: Sequence[Fraction]) -> list[int]:
    """Integers with the same sum as `shares`, each share rounded down or up.

    Largest remainder: those with the largest fractional parts are rounded up, ties to
    the lower index.

    Args:
        shares: non-negative; their sum is an integer.
    """
    counts = [math.floor(share) for share in shares]
    left = round_half_up(sum(shares, Fraction(0))) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[:left]:
        counts[i] += 1
    return counts


def apportion(
    total: int, weights: Sequence[Fraction], caps: Sequence[int], least: int = 1
) -> list[int]:
    """Integers that sum to `total`, in proportion to `weights`, each within least..cap.

    What exceeds a cap goes to the other layers in proportion to their weights: the
    exact shares are `clamp(scale * weight, least, cap)` with the one scale at which they
    sum to `total`; `round_shares` makes integers of them.

    Args:
        total: between `least` in every layer and the sum of the caps.
        weights: one number a layer, positive; with `least` 0 a layer may have weight 0
            and gets none, and `total` is at most the sum of the others' caps.
        caps: one integer a layer, at least `least`.
        least: what every layer gets.
    """

    def shares(scale: Fraction) -> list[Fraction]:
        return [
            min(max(scale * w, Fraction(least)), Fraction(cap)) for w, cap in zip(weights, caps)
        ]

    # The sum of the shares is linear in the scale between the scales at which a layer
    # meets one of its bounds, so the scale wanted is found without iteration.
    bounds = [b / w for w, cap in zip(weights, caps) if w for b in (least, cap)]
    knots = sorted({Fraction(0), *bounds})
    right = next(i for i, knot in enumerate(knots) if sum(shares(knot)) >= total)
    scale, reached = knots[right], sum(shares(knots[right]))
    if reached > total:
        left = knots[right - 1]
        start = sum(shares(left))
        scale = left + (scale - left) * (total - start) / (reached - start)
    return round_shares(shares(scale))


def by_eps(shapes: Sequence[LayerShape], eps: float) -> list[int]:
    """Erdos-Renyi by eps: connections of each layer.

    The paper's Eq. 1, `p = eps * (n_pre + n_post) / (n_pre * n_post)`, capped at 1; a
    layer gets round-half-up(p * size), the expectation itself. Kernel dimensions of a
    convolution enter through size alone. eps counts as the decimal it prints as.

    Raises:
        ConfigError: when eps is not a positive number, or leaves a layer without any.
    """
    if not 0 < eps < math.inf:
        raise ConfigError(f"eps {eps} is not a positive number")
    wanted = [min(Fraction(shape.size), _decimal(eps) * er(shape)) for shape in shapes]
    return [_round_one(f"eps {eps}", shape, w) for shape, w in zip(shapes, wanted)]


def by_layer(shapes: Sequence[LayerShape], densities: Mapping[str, float]) -> list[int]:
    """A density of its own for each layer, by name: round-half-up(density * weights) connections.

    A density counts as the decimal it prints as.

    Raises:
        ConfigError: when a layer is missing or unknown, or its density is outside (0, 1]
            or leaves it without connections.
    """
    names = [shape.name for shape in shapes]
    for name in sorted({*densities} ^ {*names}):
        what = "lacks" if name in names else "names"
        raise ConfigError(f"densities {what} {name!r}; the sparse layers are {', '.join(names)}")
    counts = []
    for shape in shapes:
        density = densities[shape.name]
        if not 0 < density <= 1:
            raise ConfigError(f"layer {shape.name}: density {density} is outside (0, 1]")
        counts.append(_round_one(f"density {density}", shape, _decimal(density) * shape.size))
    return counts


def by_density(shapes: Sequence[LayerShape], density: float, distribution: str) -> list[int]:
    """One density of all layers together: round-half-up(density * weights) connections in all.

    A full layer's excess goes to the others, every layer keeps at least one connection
    (`apportion`). The density counts as the decimal it prints as; `distribution` is a name in
    `DISTRIBUTIONS`.

    Raises:
        ConfigError: when density is outside (0, 1] or gives fewer than one a layer.
    """
    if not 0 < density <= 1:
        raise ConfigError(f"density {density} is outside (0, 1]")
    sizes = [shape.size for shape in shapes]
    total = round_half_up(_decimal(density) * sum(sizes))
    if total < len(shapes):
        raise ConfigError(
            f"density {density} gives {total} of {sum(sizes)} connections to {len(shapes)} "
            "layers, each needs at least 1"
        )
    return apportion(total, [DISTRIBUTIONS[distribution](shape) for shape in shapes], sizes)


def er(shape: LayerShape) -> Fraction:
    """Erdos-Renyi: connections of the layer for eps = 1 (Eq. 1 times size), not capped."""
    return Fraction((shape.n_pre + shape.n_post) * shape.size, shape.n_pre * shape.n_post)


def erk(shape: LayerShape) -> Fraction:
    """Erdos-Renyi-Kernel: n_pre + n_post + sum of kernel lengths.

    Evci et al. 2020, "Rigging the Lottery", section 3. Their rule takes layers that exceed
    density 1 out one after the other and scales the rest up again; `apportion` ends at the
    same densities.
    """
    return Fraction(shape.n_pre + shape.n_post + sum(shape.kernel))


def uniform(shape: LayerShape) -> Fraction:
    """The same density in every layer."""
    return Fraction(shape.size)


DISTRIBUTIONS: Mapping[str, Callable[[LayerShape], Fraction]] = MappingProxyType(
    {"er": er, "erk": erk, "uniform": uniform}
)
"""In proportion to what layers share connections, by name. Density 1 is the dense net in each."""


def allocate(
    shapes: Sequence[LayerShape],
    density: float | None,
    eps: float | None,
    densities: Mapping[str, float] | None,
    distribution: str,
) -> list[int]:
    """Connections of each layer, as `MaskEvolver` takes the same arguments.

    Raises:
        ConfigError: unless exactly one of density, eps and densities is given; for an unknown
            distribution; or where what is given is impossible.
    """
    if distribution not in DISTRIBUTIONS:
        raise ConfigError(
            f"unknown distribution {distribution!r}; known: {', '.join(DISTRIBUTIONS)}"
        )
    given = {"density": density, "eps": eps, "densities": densities}
    if sum(value is not None for value in given.values()) != 1:
        listed = ", ".join(f"{name} ({value})" for name, value in given.items())
        raise ConfigError(f"exactly one of {listed} is needed")
    if density is not None:
        return by_density(shapes, density, distribution)
    if distribution != "er":
        raise ConfigError(
            f"distribution {distribution!r} spreads a density; eps and densities say "
            "themselves what each layer gets"
        )
    return by_eps(shapes, eps) if eps is not None else by_layer(shapes, densities or {})


def _round_one(what: str, shape: LayerShape, wanted: Fraction) -> int:
    """A layer's connections, rounded; refuses none, which `what` would give it."""
    count = round_half_up(wanted)
    if count < 1:
        raise ConfigError(
            f"{what} gives layer {shape.name} none of its {shape.size} connections, "
            "at least 1 is needed"
        )
    return count


def _decimal(value: float) -> Fraction:
    """The decimal a user wrote: 0.3 of 5 connections is 1.5, not slightly less."""
    return Fraction(repr(float(value)))
