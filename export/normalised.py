"""Layers behind a batch normalisation as integers: the range rule, kernels with pools folded in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from esl_lava.arrays import Array, Bools
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE
from esl_lava.errors import LimitError
from esl_lava.folding import fold, fold_readout, span_of
from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Input, Layer, Matrix
from esl_lava.trained import (
    DenseWeights,
    NormalisedNeuron,
    NormalisedReadout,
    Sliding,
    TrainedLayer,
)

NEURONS = (NormalisedNeuron, NormalisedReadout)
"""The types of neurons of such layers."""


def faults(layer: TrainedLayer) -> Iterator[str]:
    """What of a normalised layer cannot be expressed, a clause each."""
    if len(layer.inputs) != 1 or layer.sliding is None:
        yield "it is not fed by one source through kernels or pools that are known"
        return
    (weights,) = layer.inputs.values()
    if not isinstance(weights, DenseWeights):
        yield "only connections are stored, which is not lowered yet"
        return
    if isinstance(layer.neuron, NormalisedNeuron):
        broken = sum(
            int(np.count_nonzero(~np.isfinite(part)))
            for part in (layer.neuron.gain, layer.neuron.bias)
        )
        if broken:
            yield f"{broken} numbers of its normalisation are NaN or infinite"


def lowered(layer: TrainedLayer, steps: int | None, input_range: tuple[int, int]) -> Layer:
    """The integer layer of a normalised one without `faults`.

    Raises:
        LimitError: where no threshold keeps what the chip holds.
        ValueError: where nobody says the steps that a readout sums over.
    """
    ((source, weights),) = layer.inputs.items()
    sliding = layer.sliding
    assert isinstance(weights, DenseWeights)
    assert sliding is not None
    mask = np.ones(weights.values.shape, bool) if weights.mask is None else weights.mask != 0
    mask = mask.reshape(weights.values.shape)
    span = span_of(sliding.pool, input_range if source == INPUT else SPIKE_RANGE)
    values = weights.values.reshape(weights.n_post, -1)
    if isinstance(layer.neuron, NormalisedReadout):
        if steps is None:
            raise ValueError("a readout of normalised layers needs the number of steps")
        readout = fold_readout(values, span, steps)
        if readout is None:
            raise LimitError(
                [f"layer {layer.name}: no integers of its weights keep v within the chip's range"]
            )
        connections = connect(readout.weights.reshape(mask.shape), mask, sliding)
        return Layer(layer.name, (Input(source, connections),), INTEGRATOR)
    neuron = layer.neuron
    assert isinstance(neuron, NormalisedNeuron)
    folded = fold(values, neuron.gain, neuron.bias, span, neuron.voltage_decay)
    if folded is None:
        raise LimitError(
            [
                f"layer {layer.name}: no threshold keeps its weights, biases and potentials within "
                "the chip's ranges"
            ]
        )
    connections = connect(folded.weights.reshape(mask.shape), mask, sliding)
    decay = round(neuron.voltage_decay * DECAY_UNITY)
    bias = np.repeat(folded.bias, connections.n_post // len(folded.bias))
    cuba = Cuba(DECAY_UNITY, decay, folded.threshold)
    return Layer(layer.name, (Input(source, connections),), cuba, bias)


def connect(integers: Array, mask: Bools, sliding: Sliding) -> Convolution | Matrix:
    """Integer weights over sums of squares as connections from the maps themselves.

    A kernel over p x p sums is one with every weight repeated p x p times, whose stride and
    padding are p times as long; so is a fully connected layer's row.

    Args:
        integers, mask: (n_post, channels, rows, columns, 1) of kernels, or (n_post, n_pre,
            1, 1, 1) of a fully connected layer, n_pre counted over the sums.
    """
    p = sliding.pool
    channels, rows, columns = sliding.source_shape
    if not sliding.stride:
        over = (len(integers), channels, rows // p, columns // p)
        whole = np.zeros((len(integers), channels, rows, columns), np.int32)
        allowed = np.zeros(whole.shape, bool)
        inside = (..., slice(rows // p * p), slice(columns // p * p))
        whole[inside] = _repeated(integers.reshape(over), p)
        allowed[inside] = _repeated(mask.reshape(over), p)
        flat = (len(integers), -1)
        return Matrix.from_dense(whole.reshape(flat), allowed.reshape(flat))
    kernel, allowed = (_repeated(part[..., 0], p) for part in (integers, mask))
    return Convolution(
        kernel,
        sliding.source_shape,
        (sliding.stride * p,) * 2,
        (sliding.padding * p,) * 2,
        allowed=allowed,
    )


def _repeated(array: Array, p: int) -> Array:
    return array.repeat(p, axis=2).repeat(p, axis=3)
