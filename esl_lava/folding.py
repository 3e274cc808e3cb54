"""The range rule, which turns a normalised layer of floats into integers.

A layer with batch normalisation and input x computes, with z = sum of w x over its inputs,

    v <- (1 - d) v + gain z + bias        gain = gamma / sigma,  bias = beta - gain mu
    a spike and v = 0 where v > 1

The chip computes, with integers X = x / unit, W and B and a threshold Theta (`network.py`),

    v <- trunc((1 - d) v) + 64 (sum of W X + B)
    a spike and v = 0 where v > 64 Theta

The first rule multiplied by 64 Theta is the second with W = w gain unit Theta and B = bias Theta,
up to rounding. The threshold is therefore the only number to choose. The range rule chooses the
largest threshold with which every weight, bias, current and membrane of every neuron stays within
the chip's ranges for any input. A larger threshold means a smaller rounding error. If several
inputs are added, each has its own gain and unit, and they share one bias. If a residual block adds
spikes unchanged, their weight is Theta. docs/convolutions.md derives the bounds.
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
"""The largest absolute value of a weight.

A negative gain turns the sign of a weight, and the chip has -256 but not 256.
"""

LARGEST_BIAS = BIAS_RANGE[1]
LARGEST_STATE = NEVER - 1
"""The largest absolute value of u / 64 and v / 64: beyond it, v clips and u can wrap."""

NO_THRESHOLD = "no threshold keeps its weights, biases and potentials within the chip's ranges"
NO_READOUT = "no integers of its weights keep v within the chip's range"
"""A clause that says why `fold` or `fold_readout` returned None for a layer."""

FINE_WEIGHT = 127
"""If no weight of a readout exceeds this absolute value, weights may be odd; else all are even."""


@dataclass(frozen=True)
class Span:
    """The range of the integers X of an input in one step.

    Attributes:
        low, high: least and largest X, low <= 0 <= high; 0 and p for the sum of p spikes.
        unit: the layer was trained on the input x = unit * X.
    """

    low: int
    high: int
    unit: float


class Rows(Protocol):
    """Rows of weights, one for each output channel, on any device."""

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """Measure each row.

        Returns:
            (rows,) largest absolute value, sum of negative and sum of positive weights.
        """

    def rounded(self, factors: Floats, step: int) -> Self:
        """Round each row times its factor to multiples of `step`, ties to even multiples."""


AnyRows = TypeVar("AnyRows", bound=Rows)


@dataclass(frozen=True, eq=False)
class HostRows:
    """Rows of weights in arrays, either of all positions or only of existing connections.

    Attributes:
        values: (n,) float32, float64 or int32; row i is values[starts[i]:starts[i + 1]].
        starts: (rows + 1,) int64.
    """

    values: Array
    starts: Ints

    @classmethod
    def of(cls, weights: npt.ArrayLike) -> HostRows:
        """Make the rows of an array of weights, (rows, ...)."""
        array = np.asarray(weights)
        values = np.ascontiguousarray(array).reshape(-1)
        rows = len(array)
        return cls(values, np.arange(rows + 1) * (values.size // max(rows, 1)))

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """Measure each row, see `Rows`."""
        measures = np.empty((3, len(self.starts) - 1))
        measure_rows(self.values, self.starts, *measures)
        largest, below, above = measures
        return largest, below, above

    def rounded(self, factors: Floats, step: int) -> HostRows:
        """Round each row to int32, see `Rows`."""
        out = np.empty(self.values.shape, np.int32)
        round_rows(self.values, self.starts, factors, step, out)
        return HostRows(out, self.starts)


@dataclass(frozen=True, eq=False)
class WeightedInput(Generic[AnyRows]):
    """The weights of one input of a layer.

    Attributes:
        rows: one row for each output channel, finite, 0 where pruned.
        gain: (channels,) finite gain of the normalisation behind the weights.
        span: range of the input.
    """

    rows: AnyRows
    gain: Floats
    span: Span


@dataclass(frozen=True, eq=False)
class FoldedLayer(Generic[AnyRows]):
    """The integers of a layer whose neurons fire.

    Attributes:
        rows: integer weights of each input, in rows of the same class as the trained ones.
        bias: (channels,) int32.
        threshold: Theta, one integer for all channels or (channels,) int32.
        scales: for each input (channels,) float64: a trained weight is about `scale` times its
            integer; NaN where the gain is 0, because then every integer is 0.
    """

    rows: tuple[AnyRows, ...]
    bias: Int32s
    threshold: int | Int32s
    scales: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class FoldedReadout(Generic[AnyRows]):
    """The integers of a readout, which sums over the steps of a sample and never fires.

    Attributes:
        rows: integer weights, in rows of the same class as the trained ones.
        scale: a trained weight is about `scale` times its integer.
    """

    rows: AnyRows
    scale: float


def compute_span(pool: int, values: tuple[int, int] = SPIKE_RANGE) -> Span:
    """Return the span of an input that is pooled: sums over squares of `pool` x `pool` places.

    The layer was trained on means over these squares instead of sums.

    Args:
        pool: side of the squares; 1 without a pool.
        values: the least and the largest integer at a place. The layer was trained on fractions
            of the larger absolute value: of 16 if signed pixels are -16..15.
    """
    size = pool * pool
    low, high = values
    return Span(low * size, high * size, 1 / (max(-low, high) * size))


def gain_and_bias(normalisation: Iterable[npt.ArrayLike], epsilon: float) -> tuple[Floats, Floats]:
    """Return gain and bias of a batch normalisation with fixed statistics: z -> gain z + bias.

    Args:
        normalisation: gamma, beta, mean and variance, (channels,) each.
        epsilon: number that is added to the variance.
    """
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in normalisation)
    gain = gamma / np.sqrt(variance + epsilon)
    return gain, beta - gain * mean


def fold(
    inputs: Sequence[WeightedInput[AnyRows]],
    bias: npt.ArrayLike,
    voltage_decay: float,
    *,
    identity: bool = False,
    per_channel: bool = False,
) -> FoldedLayer[AnyRows] | None:
    """Compute the integers of a layer of neurons without synaptic filter.

    Args:
        inputs: the weighted inputs that are added, at least one.
        bias: (channels,) finite bias for the threshold 1, summed over the inputs.
        voltage_decay: d, the share of v lost per step, above 0.
        identity: whether spikes of a layer of the same shape are added too, one to one. The
            threshold is then even, because the even weights of their synapses add up to it.
        per_channel: whether each channel has a threshold of its own.

    Returns:
        The integers, or None if no threshold of at least 1 keeps the ranges.
    """
    shift = np.asarray(bias, np.float64)
    gains = [np.asarray(part.gain, np.float64) * part.span.unit for part in inputs]
    scaled = [_scaled(part, gain) for part, gain in zip(inputs, gains)]
    added = 1.0 if identity else 0.0  # the most that the identity adds, in thresholds
    bounds = _largest_thresholds(scaled, shift, added, voltage_decay)
    thresholds = np.floor(bounds if per_channel else np.full_like(bounds, bounds.min()))
    while (thresholds := thresholds - thresholds % (2 if identity else 1)).min() >= 1:
        rows = tuple(part.rows.rounded(gain * thresholds, 2) for part, gain in zip(inputs, gains))
        shifts = np.rint(shift * thresholds)
        measured = [_reach(part.span, row.measure()) for part, row in zip(inputs, rows)]
        fits = _fits(measured, shifts, thresholds, added, voltage_decay)
        if fits.all():
            with np.errstate(divide="ignore"):
                scales = tuple(
                    np.where(gain == 0, np.nan, 1 / (gain * thresholds)) for gain in gains
                )
            integers = thresholds.astype(np.int32)
            threshold = integers if per_channel else int(integers[0])
            return FoldedLayer(rows, shifts.astype(np.int32), threshold, scales)
        # Integers that were rounded up may exceed a range that the floats keep.
        lower = thresholds - 1 - thresholds // 512
        thresholds = np.where(fits, thresholds, lower) if per_channel else lower
    return None


def fold_readout(rows: AnyRows, span: Span, steps: int) -> FoldedReadout[AnyRows] | None:
    """Compute the integers of a readout, so that v, the sum of all steps, stays in its range.

    Args:
        rows: one row for each class, finite, 0 where pruned.
        span: range of the input.
        steps: T, the steps of a sample.

    Returns:
        The integers, or None if all of them would be 0 although a weight is not 0.
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
        integers = rows.rounded(np.full(classes, factor), 1 if most <= FINE_WEIGHT else 2)
        reach = _reach(span, integers.measure())
        if steps * reach.most.max() <= LARGEST_STATE and reach.largest.max() <= LARGEST_WEIGHT:
            return FoldedReadout(integers, 1 / factor)
        factor *= 511 / 512
    return None


@dataclass(frozen=True, eq=False)
class _Reach:
    """Largest absolute weight, least sum and largest sum of each row, (channels,) each."""

    largest: Floats
    low: Floats
    high: Floats

    @property
    def most(self) -> Floats:
        """The largest absolute value of a sum."""
        return np.maximum(-self.low, self.high)


def _reach(span: Span, measured: tuple[Floats, Floats, Floats]) -> _Reach:
    """Compute the reach of rows with these measures (`Rows.measure`) over inputs of a span."""
    largest, below, above = measured
    return _Reach(
        largest, below * span.high + above * span.low, above * span.high + below * span.low
    )


def _scaled(part: WeightedInput[AnyRows], gain: Floats) -> _Reach:
    """Compute the reach of the weights times the gain of their row."""
    largest, below, above = part.rows.measure()
    size = np.abs(gain)
    turned = gain < 0
    below, above = np.where(turned, -above, below) * size, np.where(turned, -below, above) * size
    return _reach(part.span, (largest * size, below, above))


def _largest_thresholds(
    inputs: Sequence[_Reach], bias: Floats, added: float, decay: float
) -> Floats:
    """Compute the largest threshold of each channel that keeps all ranges before rounding.

    All quantities are proportional to the threshold.
    """
    low, high = _sums(inputs, added)
    size = np.abs(bias)
    limits = [
        (LARGEST_BIAS, size),
        (LARGEST_STATE, np.maximum(-low, high)),
        (LARGEST_STATE, (size - low) / decay),
        (LARGEST_STATE, np.maximum(high + size + 1 - decay, 1)),
    ]
    limits += [(LARGEST_WEIGHT, part.largest) for part in inputs]
    with np.errstate(divide="ignore"):
        thresholds: Floats = np.min([limit / share for limit, share in limits], axis=0)
    return thresholds


def _fits(
    inputs: Sequence[_Reach], bias: Floats, threshold: Floats, added: float, decay: float
) -> npt.NDArray[np.bool_]:
    """Check for each channel whether its integers keep all ranges (docs/convolutions.md)."""
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
    """Return the least and the largest sum of all inputs and of what an identity adds."""
    low = np.sum([part.low for part in inputs], axis=0)
    return low, np.sum([part.high for part in inputs], axis=0) + added
