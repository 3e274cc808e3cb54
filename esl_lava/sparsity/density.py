"""Number of connections of each sparse layer: exact integers, not expected values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from esl_lava.errors import ConfigError


@dataclass(frozen=True)
class LayerShape:
    """Name and dimensions of a weight layer.

    Attributes:
        name: the name of the layer.
        n_pre, n_post: number of input and output neurons, or of channels of a convolution.
        kernel: lengths of the kernel of a convolution; empty for a fully connected layer.

    Raises:
        ConfigError: if the layer has no positions.
    """

    name: str
    n_pre: int
    n_post: int
    kernel: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.n_pre, self.n_post, *self.kernel, 1) < 1:
            raise ConfigError(
                f"layer {self.name}: {self.n_pre} inputs, {self.n_post} outputs and kernel lengths "
                f"{list(self.kernel)} give no weights; each must be at least 1",
                "shape",
                value=(self.n_pre, self.n_post, *self.kernel),
                limit=1,
                layer=self.name,
            )

    @property
    def size(self) -> int:
        """Number of positions, which are the elements of the weight matrix or kernel."""
        return self.n_pre * self.n_post * math.prod(self.kernel)


def round_half_up(value: Fraction) -> int:
    """Round to the nearest integer; halves round up."""
    return math.floor(value + Fraction(1, 2))


def round_shares(shares: Sequence[Fraction]) -> list[int]:
    """Round each share down or up, so that the sum stays the same.

    This is the largest remainder method: the shares with the largest fractional parts are
    rounded up. At a tie the lower index comes first.

    Args:
        shares: non-negative numbers whose sum is an integer.
    """
    counts = [math.floor(share) for share in shares]
    missing = round_half_up(sum(shares, Fraction(0))) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[:missing]:
        counts[i] += 1
    return counts


def apportion(
    total: int, weights: Sequence[Fraction], caps: Sequence[int], least: int = 1
) -> list[int]:
    """Divide `total` among layers in proportion to `weights`; each gets between least and cap.

    The excess of a layer over its cap goes to the other layers in proportion to their weights.
    The exact shares are `clamp(scale * weight, least, cap)`, with the one scale at which their
    sum is `total`. `round_shares` rounds them to integers.

    Args:
        total: at least `least` per layer, and at most the sum of the caps.
        weights: one positive number per layer. With `least` 0 a layer may have weight 0; it
            gets 0, and `total` is at most the sum of the caps of the other layers.
        caps: one integer per layer, at least `least`.
        least: the smallest number of a layer.
    """

    def shares(scale: Fraction) -> list[Fraction]:
        return [
            min(max(scale * w, Fraction(least)), Fraction(cap)) for w, cap in zip(weights, caps)
        ]

    # Between the scales at which a layer reaches one of its bounds, the sum of the shares is
    # linear in the scale. So the scale for `total` needs no iteration.
    bounds = [b / w for w, cap in zip(weights, caps) if w for b in (least, cap)]
    knots = sorted({Fraction(0), *bounds})
    right = next(i for i, knot in enumerate(knots) if sum(shares(knot)) >= total)
    scale, reached = knots[right], sum(shares(knots[right]))
    if reached > total:
        left = knots[right - 1]
        start = sum(shares(left))
        scale = left + (scale - left) * (total - start) / (reached - start)
    return round_shares(shares(scale))


def allocate_by_eps(shapes: Sequence[LayerShape], eps: float, section: str = "") -> list[int]:
    """Compute the number of connections of each layer for the Erdos-Renyi parameter eps.

    The density of a layer is Eq. 1 of the paper, `p = eps * (n_pre + n_post) / (n_pre *
    n_post)`, at most 1. The layer gets round-half-up(p * size) connections, the expected number.
    The kernel of a convolution counts only in its size. The value of eps is the decimal that it
    prints as.

    Args:
        shapes: the sparse layers.
        eps: the parameter.
        section: the prefix of keys in errors, for example "sparsity.".

    Raises:
        ConfigError: if eps is not finite and above 0, or leaves a layer without connections.
    """
    key = f"{section}eps"
    if not 0 < eps < math.inf:
        raise ConfigError(
            f"{key} {eps} is not a finite number above 0", "range", key=key, value=eps
        )
    shares = [min(Fraction(shape.size), _decimal(eps) * er(shape)) for shape in shapes]
    return [_round_share(share, key, eps, shape) for share, shape in zip(shares, shapes)]


def allocate_by_layer(
    shapes: Sequence[LayerShape], densities: Mapping[str, float], section: str = ""
) -> list[int]:
    """Compute the number of connections of each layer for one density per layer.

    A layer gets round-half-up(density * size) connections. The value of a density is the
    decimal that it prints as.

    Args:
        shapes: the sparse layers.
        densities: layer name -> density.
        section: the prefix of keys in errors, for example "sparsity.".

    Raises:
        ConfigError: if a layer has no density, a name is unknown, or a density is outside (0, 1]
            or leaves its layer without connections.
    """
    names = [shape.name for shape in shapes]
    key = f"{section}densities"
    for name in sorted({*densities} ^ {*names}):
        missing = name in names
        raise ConfigError(
            (
                f"{key} has no density for layer {name}"
                if missing
                else f"{key} names the unknown layer {name!r}"
            )
            + f"; the sparse layers are {', '.join(names)}",
            "missing" if missing else "unknown",
            key=key,
            value=None if missing else name,
            limit=tuple(names),
            layer=name if missing else None,
        )
    counts = []
    for shape in shapes:
        density = densities[shape.name]
        if not 0 < density <= 1:
            raise ConfigError(
                f"{key}: the density {density} of layer {shape.name} is outside (0, 1]",
                "range",
                key=key,
                value=density,
                limit=1,
                layer=shape.name,
            )
        counts.append(_round_share(_decimal(density) * shape.size, key, density, shape))
    return counts


def allocate_by_density(
    shapes: Sequence[LayerShape], density: float, distribution: str, section: str = ""
) -> list[int]:
    """Compute the number of connections of each layer for one density of all layers together.

    The layers get round-half-up(density * all their positions) connections in total. The excess
    of a full layer goes to the other layers, and every layer gets at least one connection
    (`apportion`). The value of the density is the decimal that it prints as.

    Args:
        shapes: the sparse layers.
        density: the density.
        distribution: a name in `DISTRIBUTIONS`.
        section: the prefix of keys in errors, for example "sparsity.".

    Raises:
        ConfigError: if the density is outside (0, 1] or gives fewer connections than layers.
    """
    key = f"{section}density"
    if not 0 < density <= 1:
        raise ConfigError(
            f"{key} {density} is outside (0, 1]", "range", key=key, value=density, limit=1
        )
    sizes = [shape.size for shape in shapes]
    total = round_half_up(_decimal(density) * sum(sizes))
    if total < len(shapes):
        raise ConfigError(
            f"{key} {density} of {sum(sizes)} positions is {total} connections for {len(shapes)} "
            "layers; each layer needs at least 1",
            "range",
            key=key,
            value=density,
        )
    return apportion(total, [DISTRIBUTIONS[distribution](shape) for shape in shapes], sizes)


def er(shape: LayerShape) -> Fraction:
    """Return the weight of a layer in `apportion` by Erdos-Renyi.

    It is the layer's number of connections for eps = 1, without a limit: Eq. 1 times size.
    """
    return Fraction((shape.n_pre + shape.n_post) * shape.size, shape.n_pre * shape.n_post)


def erk(shape: LayerShape) -> Fraction:
    """Return the weight of a layer in `apportion` by Erdos-Renyi-Kernel.

    It is n_pre + n_post + the sum of the kernel lengths. Source: Evci et al. 2020, "Rigging the
    Lottery", section 3. Their rule makes the layers dense that would exceed density 1, one after
    another, and scales up the other layers; `apportion` gives the same densities.
    """
    return Fraction(shape.n_pre + shape.n_post + sum(shape.kernel))


def uniform(shape: LayerShape) -> Fraction:
    """Return the weight of a layer in `apportion` for equal densities: its number of positions."""
    return Fraction(shape.size)


DISTRIBUTIONS: Mapping[str, Callable[[LayerShape], Fraction]] = MappingProxyType(
    {"er": er, "erk": erk, "uniform": uniform}
)
"""Name -> weight of a layer in `apportion`. With each of them density 1 is the dense network."""


def allocate(
    shapes: Sequence[LayerShape],
    density: float | None,
    eps: float | None,
    densities: Mapping[str, float] | None,
    distribution: str,
    section: str = "",
) -> list[int]:
    """Compute the number of connections of each layer from a density, eps or one density per layer.

    Args:
        shapes: the sparse layers.
        density, eps, densities, distribution: as in `MaskEvolver`.
        section: the prefix of keys in errors, for example "sparsity.".

    Raises:
        ConfigError: unless exactly one of density, eps and densities is given; if the
            distribution is unknown, or is not "er" although eps or densities is given; as
            `allocate_by_density`, `allocate_by_eps` and `allocate_by_layer`.
    """
    key = f"{section}distribution"
    if distribution not in DISTRIBUTIONS:
        raise ConfigError(
            f"{key} {distribution!r} is unknown; known are {', '.join(DISTRIBUTIONS)}",
            "unknown",
            key=key,
            value=distribution,
            limit=tuple(DISTRIBUTIONS),
        )
    arguments = {"density": density, "eps": eps, "densities": densities}
    keys = [f"{section}{name}" for name, value in arguments.items() if value is not None]
    if len(keys) != 1:
        needed = ", ".join(f"{section}{name}" for name in arguments)
        raise ConfigError(
            f"exactly one of {needed} is needed; "
            + (f"{' and '.join(keys)} are given" if keys else "none is given"),
            "conflict" if keys else "missing",
            key=keys[0] if keys else f"{section}density",
        )
    if density is not None:
        return allocate_by_density(shapes, density, distribution, section)
    if distribution != "er":
        raise ConfigError(
            f"{key} {distribution!r} needs {section}density; {keys[0]} already determines the "
            "number of connections of each layer",
            "conflict",
            key=key,
            value=distribution,
            limit="er",
        )
    if eps is not None:
        return allocate_by_eps(shapes, eps, section)
    return allocate_by_layer(shapes, densities or {}, section)


def _round_share(share: Fraction, key: str, value: float, shape: LayerShape) -> int:
    """Round a layer's number of connections; the error for 0 names `key` and `value`."""
    count = round_half_up(share)
    if count < 1:
        raise ConfigError(
            f"{key} {value} gives layer {shape.name} no connection in its {shape.size} positions; "
            "a layer needs at least 1",
            "range",
            key=key,
            value=value,
            layer=shape.name,
        )
    return count


def _decimal(value: float) -> Fraction:
    """Return the decimal that a user wrote: 0.3 of 5 positions is 1.5, not slightly less."""
    return Fraction(repr(float(value)))
