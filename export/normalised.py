"""Turn layers with batch normalisation into integer layers.

The module applies the range rule, and folds pools into kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from esl_lava.arrays import Array, Bools, Int32s
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE
from esl_lava.errors import Fault, LimitError
from esl_lava.folding import (
    LARGEST_WEIGHT,
    NO_READOUT,
    NO_THRESHOLD,
    HostRows,
    WeightedInput,
    compute_span,
    fold,
    fold_readout,
)
from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Input, Layer, Matrix, Origin
from esl_lava.trained import (
    Identity,
    NormalisedNeuron,
    NormalisedReadout,
    NormalisedWeights,
    Sliding,
    TrainedLayer,
)

NEURONS = (NormalisedNeuron, NormalisedReadout)
"""The types of neurons of layers with batch normalisation."""


def find_faults(layer: TrainedLayer) -> Iterator[Fault]:
    """Yield the reasons why a normalised layer cannot be expressed."""
    start = f"layer {layer.name}: "
    weighted = [one for one in layer.inputs.values() if isinstance(one, NormalisedWeights)]
    others = [one for one in layer.inputs.values() if not isinstance(one, NormalisedWeights)]
    readout = isinstance(layer.neuron, NormalisedReadout)
    if not weighted or len(others) > 1 or not all(isinstance(one, Identity) for one in others):
        yield Fault(
            f"{start}it needs normalised weights and may have at most one identity beside them",
            "unsupported",
            layer=layer.name,
        )
    elif readout and len(layer.inputs) > 1:
        yield Fault(
            f"{start}a readout has {len(layer.inputs)} inputs; only 1 is supported",
            "unsupported",
            value=len(layer.inputs),
            limit=1,
            layer=layer.name,
        )
    for one in weighted:
        if one.gain is None and not readout:
            yield Fault(
                f"{start}the weights {one.name} have no gain",
                "missing",
                key="gain",
                layer=layer.name,
            )
    parameters = [one.gain for one in weighted if one.gain is not None]
    if isinstance(layer.neuron, NormalisedNeuron):
        parameters.append(layer.neuron.bias)
    if broken := sum(int(np.count_nonzero(~np.isfinite(array))) for array in parameters):
        yield Fault(
            f"{start}{broken} numbers of its normalisation are NaN or infinite",
            "not-finite",
            value=broken,
            layer=layer.name,
        )


def lower_layer(layer: TrainedLayer, steps: int | None, input_range: tuple[int, int]) -> Layer:
    """Compute the integer layer of a normalised layer that has no faults (`find_faults`).

    Raises:
        LimitError: if no threshold, or for a readout no integer weights, keep all numbers within
            the ranges of the chip.
        ValueError: if the layer is a readout and `steps`, over which it sums, is None.
    """
    weighted = {
        source: one for source, one in layer.inputs.items() if isinstance(one, NormalisedWeights)
    }
    spans = {
        source: compute_span(one.sliding.pool, input_range if source == INPUT else SPIKE_RANGE)
        for source, one in weighted.items()
    }
    if isinstance(layer.neuron, NormalisedReadout):
        ((source, one),) = weighted.items()
        if steps is None:
            raise ValueError("a readout of normalised layers needs `steps`, the number of steps")
        readout = fold_readout(_rows(one), spans[source], steps)
        if readout is None:
            raise LimitError(f"layer {layer.name}: {NO_READOUT}", "limit", layer=layer.name)
        return Layer(layer.name, (_input(layer.name, source, one, readout.rows),), INTEGRATOR)
    neuron = layer.neuron
    assert isinstance(neuron, NormalisedNeuron)
    (identity,) = layer.inputs.keys() - weighted.keys() or (None,)
    folded = fold(
        [WeightedInput(_rows(one), _gain(one), spans[source]) for source, one in weighted.items()],
        neuron.bias,
        neuron.voltage_decay,
        identity=identity is not None,
        per_channel=neuron.per_channel,
    )
    if folded is None:
        raise LimitError(f"layer {layer.name}: {NO_THRESHOLD}", "limit", layer=layer.name)
    inputs = [
        _input(layer.name, source, one, rows)
        for (source, one), rows in zip(weighted.items(), folded.rows)
    ]
    connections = inputs[0].connections
    if identity is not None:
        assert isinstance(connections, Convolution)
        thresholds = np.broadcast_to(folded.threshold, folded.bias.shape)
        inputs += [
            Input(identity, one, origin=Origin("", 0, 0))
            for one in add_spikes(thresholds, connections.out_shape)
        ]
    bias = np.repeat(folded.bias, connections.n_post // len(folded.bias))
    decay = round(neuron.voltage_decay * DECAY_UNITY)
    return Layer(layer.name, tuple(inputs), Cuba(DECAY_UNITY, decay, folded.threshold), bias)


def add_spikes(weights: Int32s, shape: tuple[int, int, int]) -> list[Convolution]:
    """Return kernels that add a neuron's spikes, times a weight, to the neuron at the same place.

    Args:
        weights: (channels,) even integers of at least 2, of any size.
        shape: (channels, rows, columns) of both layers.

    Returns:
        As many kernels as the largest weight needs, because no weight of a kernel exceeds
        `LARGEST_WEIGHT`. A channel that needs fewer has no connections in the last kernels.
    """
    halves = weights.astype(np.int64) // 2
    most = LARGEST_WEIGHT // 2
    number = int(-(-halves.max() // most))
    own = np.eye(len(weights), dtype=bool)[:, :, None, None]
    kernels = []
    for place in range(number):
        part = (2 * np.clip(halves - place * most, 0, most)).astype(np.int32)
        allowed = own & (part > 0)[:, None, None, None]
        kernel = allowed * part[:, None, None, None]
        kernels.append(Convolution(kernel.astype(np.int32), shape, (1, 1), (0, 0), allowed=allowed))
    return kernels


def connect(integers: Array, mask: Bools, sliding: Sliding) -> Convolution | Matrix:
    """Return connections from the feature maps for integer weights over sums of p x p squares.

    A kernel over p x p sums equals a kernel over the maps in which every weight is repeated
    p x p times, with a stride and a padding p times as long. The same holds for a row of a fully
    connected layer.

    Args:
        integers, mask: (n_post, channels, rows, columns, 1) of kernels, or (n_post, n_pre,
            1, 1, 1) of a fully connected layer; n_pre counts the sums.
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


def _input(layer: str, source: str, one: NormalisedWeights, rows: HostRows) -> Input:
    shape, mask = one.shape, one.dense.mask
    allowed = np.ones(shape, bool) if mask is None else (mask != 0).reshape(shape)
    connections = connect(rows.values.reshape(shape), allowed, one.sliding)
    origin = Origin(one.name, int(np.count_nonzero(allowed)), allowed.size)
    plain = layer == one.name and origin.positions == connections.possible
    return Input(source, connections, origin=None if plain else origin)


def _rows(one: NormalisedWeights) -> HostRows:
    return HostRows.of(one.dense.values)


def _gain(one: NormalisedWeights) -> Array:
    assert one.gain is not None
    return one.gain


def _repeated(array: Array, p: int) -> Array:
    return array.repeat(p, axis=2).repeat(p, axis=3)
