"""The range rule: the largest threshold that keeps all numbers in the chip's ranges."""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.chip import STATE_LIMIT, STATE_SHIFT
from esl_lava.folding import (
    LARGEST_BIAS,
    LARGEST_STATE,
    LARGEST_WEIGHT,
    HostRows,
    Span,
    WeightedInput,
    compute_span,
)
from esl_lava.folding import fold as fold_inputs
from esl_lava.folding import fold_readout as fold_rows

SPIKES = Span(0, 1, 1.0)


@dataclass
class Folded:
    """The folded layer of one input and one threshold, in arrays of the weights' shape."""

    weights: Any
    bias: Any
    threshold: Any
    scale: Any


def fold(weights, gain, bias, span, decay, **options) -> Folded | None:
    """Apply the range rule to a layer with one input."""
    rows = HostRows.of(weights)
    layer = fold_inputs([WeightedInput(rows, np.asarray(gain), span)], bias, decay, **options)
    if layer is None:
        return None
    integers = layer.rows[0].values.reshape(np.shape(weights))
    return Folded(integers, layer.bias, layer.threshold, layer.scales[0])


def fold_readout(weights, span, steps) -> Any:
    readout = fold_rows(HostRows.of(weights), span, steps)
    if readout is None:
        return None
    integers = readout.rows.values.reshape(np.shape(weights))
    return SimpleNamespace(weights=integers, scale=readout.scale)


def test_a_layer_by_hand() -> None:
    """Fold weights 1 and -1/2 with gain 2 and bias 1/4: the largest weight sets the threshold."""
    folded = fold([[1.0, -0.5]], [2.0], [0.25], SPIKES, 0.5)
    assert folded is not None
    assert folded.threshold == 127  # 2 * 127 = 254
    assert folded.weights.tolist() == [[254, -128]]  # -127 is a tie of two even numbers
    assert folded.bias.tolist() == [32]  # 31.75
    assert folded.scale.tolist() == [1 / 254]


def test_pooled_spikes_and_pixels_have_their_units() -> None:
    four = fold([[0.25]], [1.0], [0.0], Span(0, 4, 0.25), 0.5)
    pixel = fold([[0.25]], [1.0], [0.0], Span(-16, 15, 1 / 16), 0.5)
    assert four is not None
    assert pixel is not None
    assert (four.threshold, pixel.threshold) == (254 * 16, 254 * 64)
    assert four.weights.tolist() == pixel.weights.tolist() == [[254]]


@pytest.mark.parametrize(
    ("pool", "values", "span"),
    [
        (1, (0, 1), SPIKES),
        (2, (0, 1), Span(0, 4, 1 / 4)),
        (1, (-16, 15), Span(-16, 15, 1 / 16)),
        (2, (-16, 15), Span(-64, 60, 1 / 64)),
        (1, (0, 3), Span(0, 3, 1 / 3)),
        (1, (-1, 7), Span(-1, 7, 1 / 7)),
    ],
)
def test_spans_of_means_of_fractions(pool: int, values: tuple[int, int], span: Span) -> None:
    assert compute_span(pool, values) == span


@pytest.mark.parametrize(
    ("weights", "bias", "span", "threshold"),
    [
        ([[0.1]], [8.0], SPIKES, 511),  # 4095 / 8
        ([[0.001]], [0.0], SPIKES, LARGEST_STATE),
        ([[0.5] * 4000], [0.0], SPIKES, 65),  # v reaches 2000.5 thresholds
        ([[-1.0] * 2000], [0.0], SPIKES, 32),  # v goes down to -4000 thresholds
        ([[1.0]], [0.0], Span(0, 1000, 1.0), 130),  # not 131, whose weight is the even 132
    ],
)
def test_each_range_limits_the_threshold(
    weights: list[list[float]], bias: list[float], span: Span, threshold: int
):
    folded = fold(weights, np.ones(1), bias, span, 0.5)
    assert folded is not None
    assert folded.threshold == threshold


def test_a_gain_of_zero_and_a_negative_one() -> None:
    folded = fold([[1.0, -1.0]] * 2, [0.0, -1.0], [0.5, 0.0], SPIKES, 0.5)
    assert folded is not None
    assert folded.weights.tolist() == [[0, 0], [-254, 254]]
    assert math.isnan(folded.scale[0])
    assert folded.scale[1] == -1 / 254


def test_no_threshold_keeps_the_ranges() -> None:
    assert fold(np.ones((1, 200_000)), [1.0], [0.0], SPIKES, 0.5) is None
    assert fold([[1.0]], [1.0], [5000.0], SPIKES, 0.5) is None


@st.composite
def layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_post, n_pre = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 30, 3000]))
    size = draw(st.sampled_from([0.01, 1.0, 50.0]))
    weights = rng.normal(draw(st.sampled_from([-1.0, 0.0, 1.0])), 1.0, (n_post, n_pre)) * size
    weights[rng.random(weights.shape) < draw(st.sampled_from([0.0, 0.9]))] = 0
    gain = rng.normal(0, draw(st.sampled_from([0.01, 1.0])), n_post)
    bias = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 30.0])), n_post)
    span = draw(st.sampled_from([SPIKES, Span(0, 4, 0.25), Span(-16, 15, 1 / 16)]))
    return weights, gain, bias, span, draw(st.sampled_from([0.5, 1.0, 0.25]))


@pytest.mark.slow
@given(layer=layers(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_no_input_leaves_what_the_chip_holds(layer, seed: int) -> None:
    weights, gain, bias, span, decay = layer
    folded = fold(weights, gain, bias, span, decay)
    if folded is None:
        return
    assert np.abs(folded.weights).max() <= LARGEST_WEIGHT
    assert not (folded.weights % 2).any()
    assert np.abs(folded.bias).max() <= LARGEST_BIAS
    assert not folded.weights[weights == 0].any()
    # Steps of the chip with the extreme inputs of both signs and with random inputs.
    rng = np.random.default_rng(seed)
    ends = np.where(folded.weights > 0, span.high, span.low)
    others = np.where(folded.weights > 0, span.low, span.high)
    keep = 4096 - round(decay * 4096)
    v = np.zeros(len(weights), np.int64)
    for _ in range(40):
        kind = rng.integers(0, 3)
        x = (ends, others, rng.integers(span.low, span.high + 1, weights.shape))[kind]
        a = (folded.weights * x).sum(axis=1)
        assert np.abs(a << STATE_SHIFT).max() < STATE_LIMIT
        v = np.sign(v) * (np.abs(v) * keep >> 12) + ((a + folded.bias) << STATE_SHIFT)
        assert np.abs(v).max() < STATE_LIMIT
        v[v > folded.threshold << STATE_SHIFT] = 0


@pytest.mark.slow
@given(layer=layers())
@settings(max_examples=60, deadline=None)
def test_integers_are_the_floats_rounded_and_no_larger_threshold_serves(layer) -> None:
    weights, gain, bias, span, decay = layer
    folded = fold(weights, gain, bias, span, decay)
    if folded is None:
        return
    exact = weights * (gain * span.unit)[:, None] * folded.threshold
    assert np.abs(exact - folded.weights).max() <= 1 + 1e-9
    assert np.abs(bias * folded.threshold - folded.bias).max() <= 0.5 + 1e-9
    # A threshold larger by 3 % breaks a range before rounding; rounding changes less than 3 %.
    more = folded.threshold * 1.03 + 2
    scaled = weights * (gain * span.unit)[:, None]
    low = np.minimum(scaled, 0).sum(1) * span.high + np.maximum(scaled, 0).sum(1) * span.low
    high = np.maximum(scaled, 0).sum(1) * span.high + np.minimum(scaled, 0).sum(1) * span.low
    size = np.abs(bias)
    assert (
        np.abs(scaled).max() * more > LARGEST_WEIGHT
        or size.max() * more > LARGEST_BIAS
        or max(-low.min(), high.max()) * more > LARGEST_STATE
        or ((size - low) / decay).max() * more > LARGEST_STATE
        or ((high + size).max() + 1 - decay) * more > LARGEST_STATE
        or more > LARGEST_STATE
    )


@given(
    seed=st.integers(0, 2**32),
    n_pre=st.sampled_from([1, 10, 5000]),
    steps=st.sampled_from([1, 4, 300]),
    span=st.sampled_from([SPIKES, Span(0, 64, 1 / 64)]),
)
@settings(max_examples=60, deadline=None)
def test_a_readout_never_clips(seed: int, n_pre: int, steps: int, span: Span) -> None:
    weights = np.random.default_rng(seed).normal(0, 1, (4, n_pre))
    folded = fold_readout(weights, span, steps)
    if folded is None:
        assert np.abs(weights).sum(axis=1).max() * steps * span.high > LARGEST_STATE
        return
    integers = folded.weights.astype(np.int64)
    for sign in (1, -1):
        most = np.maximum(sign * integers, 0).sum(axis=1).max() * span.high * steps
        assert most << STATE_SHIFT < STATE_LIMIT
    step = 1 if np.abs(integers).max() <= 127 else 2
    assert np.abs(weights / folded.scale - integers).max() <= step / 2 + 1e-6


def test_a_readout_by_hand() -> None:
    folded = fold_readout([[1.0, -0.5]], SPIKES, 4)
    assert folded is not None
    assert folded.weights.tolist() == [[254, -128]]
    assert folded.scale == 1 / 254
    narrow = fold_readout(np.full((1, 1000), 0.5), SPIKES, 4)
    assert narrow is not None
    assert np.unique(narrow.weights).tolist() == [32]  # 131,071 / 4,000 = 32.8; rounded up it clips
    zero = fold_readout(np.zeros((2, 3)), SPIKES, 4)
    assert zero is not None
    assert not zero.weights.any()
    assert fold_readout(np.ones((1, 200_000)), SPIKES, 4) is None


@st.composite
def sums(draw):
    """Draw two inputs of a layer with a bias, and the options identity and per_channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    channels = draw(st.integers(1, 4))
    parts = []
    for _ in range(2):
        n_pre = draw(st.sampled_from([1, 30, 1000]))
        weights = rng.normal(0, draw(st.sampled_from([0.05, 1.0, 5.0])), (channels, n_pre))
        span = draw(st.sampled_from([SPIKES, Span(0, 4, 0.25), Span(-16, 15, 1 / 16)]))
        parts.append((weights, rng.normal(0, 1, channels), span))
    bias = rng.normal(0, 1, channels)
    return parts, bias, draw(st.booleans()), draw(st.booleans())


@pytest.mark.slow
@given(layer=sums(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_sums_of_inputs_keep_the_ranges(layer, seed: int) -> None:
    parts, bias, identity, per_channel = layer
    inputs = [WeightedInput(HostRows.of(weights), gain, span) for weights, gain, span in parts]
    folded = fold_inputs(inputs, bias, 0.5, identity=identity, per_channel=per_channel)
    if folded is None:
        return
    threshold = np.broadcast_to(folded.threshold, bias.shape)
    assert per_channel or isinstance(folded.threshold, int)
    assert threshold.min() >= 1
    assert not (identity and (threshold % 2).any())
    rng = np.random.default_rng(seed)
    v = np.zeros(len(bias), np.int64)
    for _ in range(40):
        a = threshold * rng.integers(0, 2) if identity else np.zeros(len(bias), np.int64)
        most = rng.integers(0, 2)
        for (weights, gain, span), rows, scale in zip(parts, folded.rows, folded.scales):
            integers = rows.values.reshape(weights.shape)
            exact = weights * (gain * span.unit * threshold)[:, None]
            assert np.abs(exact - integers).max() <= 1 + 1e-9
            assert np.abs(integers).max() <= LARGEST_WEIGHT
            assert np.allclose(scale * gain * span.unit * threshold, 1)
            a = a + (integers * np.where((integers > 0) == most, span.high, span.low)).sum(axis=1)
        assert np.abs(a << STATE_SHIFT).max() < STATE_LIMIT
        v = np.sign(v) * (np.abs(v) >> 1) + ((a + folded.bias) << STATE_SHIFT)
        assert np.abs(v).max() < STATE_LIMIT
        v[v > threshold << STATE_SHIFT] = 0


def test_each_channel_may_have_its_own_threshold() -> None:
    weights, gain = [[1.0], [0.01], [0.5]], np.ones(3)
    folded = fold(weights, gain, np.zeros(3), SPIKES, 0.5, per_channel=True)
    assert folded is not None
    assert folded.threshold.tolist() == [254, 25400, 508]
    assert folded.weights.tolist() == [[254]] * 3
    alone = fold(weights, gain, np.zeros(3), SPIKES, 0.5)
    assert alone is not None
    assert alone.threshold == 254


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32),
    n_post=st.integers(1, 8),
    n_pre=st.integers(1, 60),
    density=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_stored_connections_fold_as_the_dense_rows_that_hold_them(
    seed: int, n_post: int, n_pre: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((n_post, n_pre)) < density
    weights = np.where(mask, rng.normal(size=mask.shape), 0).astype(np.float32)
    starts = np.concatenate([[0], mask.sum(axis=1).cumsum()])
    stored = HostRows(weights[mask], starts)
    gain, bias = rng.normal(size=n_post), rng.normal(size=n_post)
    sparse = fold_inputs([WeightedInput(stored, gain, SPIKES)], bias, 0.5)
    dense = fold(weights, gain, bias, SPIKES, 0.5)
    assert sparse is not None
    assert dense is not None
    assert sparse.threshold == dense.threshold
    assert np.array_equal(sparse.rows[0].values, dense.weights[mask])
    assert np.array_equal(sparse.scales[0], dense.scale)
