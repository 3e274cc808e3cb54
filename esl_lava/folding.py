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
The larger it is, the less is rounded. Where several inputs are added, each has its own gain and
unit, and the bias is one; spikes that are added as they are weigh Theta. docs/convolutions.md
derives the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array, Floats, Int32s, Ints
from esl_lava.chip import BIAS_RANGE, NEVER, SPIKE_RANGE
from esl_lava.kernels.rounding import measure_rows, round_rows

if TYPE_CHECKING:
    from typing_extensions import Self

LARGEST_WEIGHT = 254
"""Of either sign: a negative gain turns the sign of a weight, and 256 has none but the minus."""

LARGEST_BIAS = BIAS_RANGE[1]
LARGEST_STATE = NEVER - 1
"""u and v over 64 may have this size: v clips one above, u wraps."""

NO_THRESHOLD = "no threshold keeps its weights, biases and potentials within the chip's ranges"
NO_READOUT = "no integers of its weights keep v within the chip's range"
"""Of a layer: why `fold` or `fold_readout` found nothing, in a clause."""

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


class Rows(Protocol):
    """Weights by output channel, in whatever memory."""

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """Of each row the largest size, the sum of negative and that of positive weights."""

    def rounded(self, factors: Floats, step: int) -> Self:
        """The multiples of `step` closest to each row times its factor, ties to even ones."""


AnyRows = TypeVar("AnyRows", bound=Rows)


@dataclass(frozen=True, eq=False)
class HostRows:
    """Weights in arrays: every one, or those of existing connections alone.

    Attributes:
        values: (n,) float32, float64 or int32; row i is values[starts[i]:starts[i + 1]].
        starts: (rows + 1,) int64.
    """

    values: Array
    starts: Ints

    @classmethod
    def of(cls, weights: npt.ArrayLike) -> HostRows:
        """All weights of an array, (rows, ...)."""
        array = np.asarray(weights)
        values = np.ascontiguousarray(array).reshape(-1)
        rows = len(array)
        return cls(values, np.arange(rows + 1) * (values.size // max(rows, 1)))

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """See `Rows`."""
        found = np.empty((3, len(self.starts) - 1))
        measure_rows(self.values, self.starts, *found)
        largest, below, above = found
        return largest, below, above

    def rounded(self, factors: Floats, step: int) -> HostRows:
        """See `Rows`; int32."""
        out = np.empty(self.values.shape, np.int32)
        round_rows(self.values, self.starts, factors, step, out)
        return HostRows(out, self.starts)


@dataclass(frozen=True, eq=False)
class Weighing(Generic[AnyRows]):
    """Weights that bring a layer one of its inputs.

    Attributes:
        rows: one for each output channel, finite, 0 where pruned.
        gain: (channels,) finite, of the normalisation behind them.
        span: of the input.
    """

    rows: AnyRows
    gain: Floats
    span: Span


@dataclass(frozen=True, eq=False)
class FoldedLayer(Generic[AnyRows]):
    """The integers of a layer whose neurons fire.

    Attributes:
        rows: the weights of each input, as they were given.
        bias: (channels,) int32.
        threshold: Theta, one, or (channels,) int32.
        scales: for each input (channels,) float64: a trained weight is about `scale` times its
            integer; NaN where the gain is 0, and every integer with it.
    """

    rows: tuple[AnyRows, ...]
    bias: Int32s
    threshold: int | Int32s
    scales: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class FoldedReadout(Generic[AnyRows]):
    """The integers of a readout, which sums over the steps of a sample and never fires.

    Attributes:
        rows: the weights, as they were given.
        scale: a trained weight is about `scale` times its integer.
    """

    rows: AnyRows
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
    inputs: Sequence[Weighing[AnyRows]],
    bias: npt.ArrayLike,
    voltage_decay: float,
    *,
    identity: bool = False,
    per_channel: bool = False,
) -> FoldedLayer[AnyRows] | None:
    """The integers of a layer of neurons without synaptic filter.

    Args:
        inputs: what is weighed and added, at least one.
        bias: (channels,) finite, see above, the sum over inputs; the threshold is 1.
        voltage_decay: d, the share of v lost per step, above 0.
        identity: whether spikes of a layer of the same shape are added too, one to one; the
            threshold is then even, as the weights are that make it up.
        per_channel: whether each channel has a threshold of its own, instead of one for all.

    Returns:
        None where no threshold of at least 1 keeps the ranges.
    """
    shift = np.asarray(bias, np.float64)
    gains = [np.asarray(part.gain, np.float64) * part.span.unit for part in inputs]
    scaled = [_scaled(part, gain) for part, gain in zip(inputs, gains)]
    added = 1.0 if identity else 0.0  # thresholds that the identity brings at most
    bounds = _largest_thresholds(scaled, shift, added, voltage_decay)
    thresholds = np.floor(bounds if per_channel else np.full_like(bounds, bounds.min()))
    while (thresholds := thresholds - thresholds % (2 if identity else 1)).min() >= 1:
        rows = tuple(part.rows.rounded(gain * thresholds, 2) for part, gain in zip(inputs, gains))
        shifts = np.rint(shift * thresholds)
        measured = [_reach(part.span, found.measure()) for part, found in zip(inputs, rows)]
        fits = _fits(measured, shifts, thresholds, added, voltage_decay)
        if fits.all():
            with np.errstate(divide="ignore"):
                scales = tuple(
                    np.where(gain == 0, np.nan, 1 / (gain * thresholds)) for gain in gains
                )
            chosen = thresholds.astype(np.int32)
            threshold = chosen if per_channel else int(chosen[0])
            return FoldedLayer(rows, shifts.astype(np.int32), threshold, scales)
        # Rounded up, integers may need a little more room.
        lower = thresholds - 1 - thresholds // 512
        thresholds = np.where(fits, thresholds, lower) if per_channel else lower
    return None


def fold_readout(rows: AnyRows, span: Span, steps: int) -> FoldedReadout[AnyRows] | None:
    """The integers of a readout: v, the sum of `steps` steps, stays within what the chip holds.

    Args:
        rows: one for each class, finite, 0 where pruned.
        span: of the input.
        steps: T.

    Returns:
        None where that leaves no integer of any weight but 0.
    """
    measured = rows.measure()
    classes = len(measured[0])
    largest = float(measured[0].max(initial=0))
    if not largest:
        return FoldedReadout(rows.rounded(np.ones(classes), 1), 1.0)
    factor = LARGEST_WEIGHT / largest
    if (most := steps * _reach(span, measured).most.max()) > 0:
        factor = min(factor, LARGEST_STATE / most)
    while (most := factor * largest) >= 0.5:
        found = rows.rounded(np.full(classes, factor), 1 if most <= FINE_WEIGHT else 2)
        reach = _reach(span, found.measure())
        if steps * reach.most.max() <= LARGEST_STATE and reach.largest.max() <= LARGEST_WEIGHT:
            return FoldedReadout(found, 1 / factor)
        factor *= 511 / 512
    return None


@dataclass(frozen=True, eq=False)
class _Reach:
    """Of each row (channels,): its largest weight, and the least and largest sum it can bring."""

    largest: Floats
    low: Floats
    high: Floats

    @property
    def most(self) -> Floats:
        """The largest size of a sum."""
        return np.maximum(-self.low, self.high)


def _reach(span: Span, measured: tuple[Floats, Floats, Floats]) -> _Reach:
    largest, below, above = measured
    return _Reach(
        largest, below * span.high + above * span.low, above * span.high + below * span.low
    )


def _scaled(part: Weighing[AnyRows], gain: Floats) -> _Reach:
    """As `_reach`, of weights times the gain of their row."""
    largest, below, above = part.rows.measure()
    size = np.abs(gain)
    turned = gain < 0
    below, above = np.where(turned, -above, below) * size, np.where(turned, -below, above) * size
    return _reach(part.span, (largest * size, below, above))


def _largest_thresholds(
    inputs: Sequence[_Reach], bias: Floats, added: float, decay: float
) -> Floats:
    """(channels,) the largest that all ranges admit before rounding, all proportional to it."""
    low, high = _sums(inputs, added)
    size = np.abs(bias)
    needed = [
        (LARGEST_BIAS, size),
        (LARGEST_STATE, np.maximum(-low, high)),
        (LARGEST_STATE, (size - low) / decay),
        (LARGEST_STATE, np.maximum(high + size + 1 - decay, 1)),
    ]
    needed += [(LARGEST_WEIGHT, part.largest) for part in inputs]
    with np.errstate(divide="ignore"):
        found: Floats = np.min([limit / share for limit, share in needed], axis=0)
    return found


def _fits(
    inputs: Sequence[_Reach], bias: Floats, threshold: Floats, added: float, decay: float
) -> npt.NDArray[np.bool_]:
    """(channels,) whether integers keep every range whatever the input (docs/convolutions.md)."""
    low, high = _sums(inputs, added * threshold)
    size = np.abs(bias)
    fits: npt.NDArray[np.bool_] = (
        (size <= LARGEST_BIAS)
        & (np.maximum(-low, high) <= LARGEST_STATE)
        & ((size - low) / decay <= LARGEST_STATE)
        & (high + size + (1 - decay) * threshold <= LARGEST_STATE)
    )
    for part in inputs:
        fits &= part.largest <= LARGEST_WEIGHT
    return fits


def _sums(inputs: Sequence[_Reach], added: float | Floats) -> tuple[Floats, Floats]:
    """Least and largest sum of all inputs."""
    low = np.sum([part.low for part in inputs], axis=0)
    return low, np.sum([part.high for part in inputs], axis=0) + added
