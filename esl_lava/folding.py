"""From a normalised layer in floats to integers: the range rule.

A layer with batch normalisation computes, with x its input, z = sum of w x over its inputs,

    v <- (1 - d) v + gain z + bias        gain = gamma / sigma,  bias = beta - gain mu
    a spike and v = 0 where v > 1

and the chip, with integers X = x / unit, W and B and a threshold Theta (`network.py`),

    v <- trunc((1 - d) v) + 64 (sum of W X + B)
    a spike and v = 0 where v > 64 Theta

Multiplied by Theta the first is the second with W = w gain unit Theta and B = bias Theta, up to
rounding. So the threshold is the only number to choose: the largest with which every weight,
bias, current and membrane of every neuron stays within what the chip holds, whatever the input.
The larger it is, the less is rounded. docs/convolutions.md derives the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Floats, Int32s
from esl_lava.chip import BIAS_RANGE, NEVER, SPIKE_RANGE

LARGEST_WEIGHT = 254
"""Of either sign: a negative gain turns the sign of a weight, and 256 has none but the minus."""

LARGEST_BIAS = BIAS_RANGE[1]
LARGEST_STATE = NEVER - 1
"""u and v over 64 may have this size: v clips one above, u wraps."""

FINE_WEIGHT = 127
"""Weights up to this size may be odd; larger ones are even."""


@dataclass(frozen=True)
class Span:
    """What the integers X of an input can be at one step.

    Attributes:
        low, high: least and largest, low <= 0 <= high; of p summed spikes 0 and p.
        unit: x = unit * X.
    """

    low: int
    high: int
    unit: float


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """The integers of a layer whose neurons fire.

    Attributes:
        weights: as they were given in shape, int32.
        bias: (n_post,) int32.
        threshold: Theta.
        scale: (n_post,) float64: a trained weight is about `scale` times its integer; NaN where
            the gain is 0, and every integer with it.
    """

    weights: Int32s
    bias: Int32s
    threshold: int
    scale: Floats


@dataclass(frozen=True, eq=False)
class FoldedReadout:
    """The integers of a readout, which sums over the steps of a sample and never fires.

    Attributes:
        weights: as they were given in shape, int32.
        scale: a trained weight is about `scale` times its integer.
    """

    weights: Int32s
    scale: float


def span_of(pool: int, values: tuple[int, int] = SPIKE_RANGE) -> Span:
    """What the integers of an input can be of which a layer was trained on means of squares.

    Args:
        pool: side of the squares, whose integers are summed.
        values: the least and the largest integer; it was trained on fractions of the larger in
            size: of 16, where signed pixels are -16..15.
    """
    size = pool * pool
    low, high = values
    return Span(low * size, high * size, 1 / (max(-low, high) * size))


def gain_and_bias(normalisation: Iterable[npt.ArrayLike], epsilon: float) -> tuple[Floats, Floats]:
    """What a batch normalisation with fixed statistics does: z becomes gain z + bias.

    Args:
        normalisation: gamma, beta, mean and variance, (channels,) each.
        epsilon: added to the variance.
    """
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in normalisation)
    gain = gamma / np.sqrt(variance + epsilon)
    return gain, beta - gain * mean


def fold(
    weights: npt.ArrayLike,
    gain: npt.ArrayLike,
    bias: npt.ArrayLike,
    span: Span,
    voltage_decay: float,
) -> FoldedLayer | None:
    """The integers of a layer of neurons without synaptic filter.

    Args:
        weights: (n_post, ...) finite, 0 where pruned; what follows the first axis meets one
            neuron.
        gain, bias: (n_post,) finite, see above; the threshold is 1.
        span: of the input.
        voltage_decay: d, the share of v lost per step, above 0.

    Returns:
        None where no threshold of at least 1 keeps the ranges.
    """
    w = np.asarray(weights, np.float64)
    gain, bias = np.asarray(gain, np.float64), np.asarray(bias, np.float64)
    scaled = (w.reshape(len(w), -1).T * (gain * span.unit)).T
    threshold = _largest_threshold(scaled, bias, span, voltage_decay)
    while threshold >= 1:
        integers = 2 * np.rint(scaled * (threshold / 2)).astype(np.int64)
        shifts = np.rint(bias * threshold).astype(np.int64)
        if _fits(integers, shifts, threshold, span, voltage_decay):
            with np.errstate(divide="ignore"):
                scale = np.where(gain == 0, np.nan, 1 / (gain * span.unit * threshold))
            shaped = integers.astype(np.int32).reshape(w.shape)
            return FoldedLayer(shaped, shifts.astype(np.int32), threshold, scale)
        threshold -= 1 + threshold // 512  # rounded up, integers may need a little more room
    return None


def fold_readout(weights: npt.ArrayLike, span: Span, steps: int) -> FoldedReadout | None:
    """The integers of a readout: v, the sum of `steps` steps, stays within what the chip holds.

    Args:
        weights: (n_post, n_pre) finite, 0 where pruned.
        span: of the input.
        steps: T.

    Returns:
        None where that leaves no integer of any weight but 0.
    """
    w = np.asarray(weights, np.float64)
    largest = float(np.abs(w).max(initial=0))
    if not largest:
        return FoldedReadout(np.zeros(w.shape, np.int32), 1.0)
    low, high = _reach(w, span)
    factor = LARGEST_WEIGHT / largest
    if (most := steps * max(-low.min(initial=0), high.max(initial=0))) > 0:
        factor = min(factor, LARGEST_STATE / most)
    while (most := factor * largest) >= 0.5:
        step = 1 if most <= FINE_WEIGHT else 2
        integers = step * np.rint(w * (factor / step)).astype(np.int64)
        low, high = _reach(integers, span)
        reached = steps * max(-int(low.min(initial=0)), int(high.max(initial=0)))
        if reached <= LARGEST_STATE and np.abs(integers).max() <= LARGEST_WEIGHT:
            return FoldedReadout(integers.astype(np.int32), 1 / factor)
        factor *= 511 / 512
    return None


def _reach(weights: npt.NDArray[np.generic], span: Span) -> tuple[Floats, Floats]:
    """(n_post,) the least and the largest sum of weights times an input within its span."""
    negative = np.minimum(weights, 0).sum(axis=1)
    positive = np.maximum(weights, 0).sum(axis=1)
    return negative * span.high + positive * span.low, positive * span.high + negative * span.low


def _largest_threshold(scaled: Floats, bias: Floats, span: Span, decay: float) -> int:
    """The largest that all ranges admit before rounding, which are proportional to it."""
    low, high = _reach(scaled, span)
    size = np.abs(bias)
    per_threshold = (
        (LARGEST_WEIGHT, np.abs(scaled).max(initial=0)),
        (LARGEST_BIAS, size.max(initial=0)),
        (LARGEST_STATE, max(-low.min(initial=0), high.max(initial=0))),
        (LARGEST_STATE, ((size - low) / decay).max(initial=0)),
        (LARGEST_STATE, (high + size).max(initial=0) + 1 - decay),
        (LARGEST_STATE, 1),
    )
    return int(min(limit / needed for limit, needed in per_threshold if needed > 0))


def _fits(
    weights: npt.NDArray[np.int64],
    bias: npt.NDArray[np.int64],
    threshold: int,
    span: Span,
    decay: float,
) -> bool:
    """Whether integers keep every range whatever the input (`docs/convolutions.md`)."""
    low, high = _reach(weights, span)
    size = np.abs(bias)
    return bool(
        np.abs(weights).max(initial=0) <= LARGEST_WEIGHT
        and size.max(initial=0) <= LARGEST_BIAS
        and max(-low.min(initial=0), high.max(initial=0)) <= LARGEST_STATE
        and ((size - low) / decay).max(initial=0) <= LARGEST_STATE
        and (high + size).max(initial=0) + (1 - decay) * threshold <= LARGEST_STATE
    )
