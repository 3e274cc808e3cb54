"""Turn trained layers into the integer network, with one rule per quantity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Array, Int32s
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE, WEIGHT_SCALE
from esl_lava.errors import Fault, LimitError
from esl_lava.export import normalised
from esl_lava.export.time_grid import grid_threshold, grid_weights
from esl_lava.network import INPUT, INTEGRATOR, Cuba, Input, Layer, Matrix, Network
from esl_lava.trained import (
    CubaNeuron,
    DenseWeights,
    Identity,
    Neuron,
    NormalisedWeights,
    OneSpikeNeuron,
    ReadoutNeuron,
    SparseWeights,
    TrainedLayer,
    Weights,
)

Rounding = Callable[[Array], Int32s]
"""Rounds trained weights to integers."""


def integer_weights(weights: Array) -> Int32s:
    """Round weights to even integers in -256..254: round(w * 32), half to even, times 2.

    This is the rule of lava-dl 0.6.0, `slayer/neuron/base.py`, quantize_8bit, which SLAYER
    applies in every forward pass of the training.
    """
    with np.errstate(over="ignore"):  # infinity is clipped like any large number
        halves = np.rint(weights * weights.dtype.type(WEIGHT_SCALE / 2)).clip(-128, 127)
    integers: Int32s = (2 * halves).astype(np.int32)
    return integers


def integer_decay(decay: float) -> int:
    """Round 4096 times the fraction lost per step, to 0..4096 (SLAYER's cx_current_decay)."""
    return round(decay * DECAY_UNITY)


def integer_threshold(threshold: float) -> int:
    """Return the threshold times 64, rounded down: a mantissa in units of the integer weights."""
    return int(threshold * WEIGHT_SCALE)


def _cuba(neuron: CubaNeuron, weights: Array, steps: int | None) -> tuple[Cuba, Rounding]:
    lowered = Cuba(
        integer_decay(neuron.current_decay),
        integer_decay(neuron.voltage_decay),
        integer_threshold(neuron.threshold),
    )
    return lowered, integer_weights


def _readout(neuron: ReadoutNeuron, weights: Array, steps: int | None) -> tuple[Cuba, Rounding]:
    return INTEGRATOR, integer_weights


def _one_spike(neuron: OneSpikeNeuron, weights: Array, steps: int | None) -> tuple[Cuba, Rounding]:
    """Scale weights so that the largest just fits 8 bits, and scale the threshold equally.

    The neurons are refractory for the rest of the sample.
    """
    if steps is None:
        raise ValueError("neurons that fire once need `steps`, the number of steps of a sample")
    decay = integer_decay(neuron.current_decay)
    threshold = grid_threshold(weights, decay)
    lowered = Cuba(decay, 0, threshold, refractory=max(1, steps - 1))
    return lowered, partial(grid_weights, decay=decay, threshold=threshold)


_RULES: Mapping[type[Neuron], Callable[..., tuple[Cuba, Rounding]]] = MappingProxyType(
    {CubaNeuron: _cuba, OneSpikeNeuron: _one_spike, ReadoutNeuron: _readout}
)
"""Type of neuron -> function of (neuron, all weights of its layer, T).

The function returns the neuron of the chip and the rounding of the weights.
"""


def lower(
    layers: Sequence[TrainedLayer],
    *,
    steps: int | None = None,
    provenance: Mapping[str, str] | None = None,
    input_range: tuple[int, int] = SPIKE_RANGE,
) -> Network:
    """Compute the integer network of trained layers.

    Args:
        layers: the trained layers in order; they are not changed.
        steps: T, the number of steps of a sample; needed if neurons fire once, or if the readout
            has normalised weights.
        provenance: text facts that the network carries.
        input_range: the least and the largest value of an input at one step. Normalised layers
            were trained on fractions of it (`folding.compute_span`).

    Raises:
        LimitError: naming all layers that the integer network cannot express, all layers with
            weights that are not finite, and all layers with pruned weights other than 0. If there
            are none: naming the first normalised layer whose integers cannot lie within the chip's
            ranges.
        ValueError: if `steps` is None but needed.
    """
    known = [INPUT]
    faults: list[Fault] = []
    for layer in layers:
        faults += _find_faults(layer, known)
        known.append(layer.name)
    if faults:
        raise LimitError.of(faults)
    lowered = tuple(
        normalised.lower_layer(layer, steps, input_range)
        if isinstance(layer.neuron, normalised.NEURONS)
        else _lower_layer(layer, steps)
        for layer in layers
    )
    return Network(lowered, steps, provenance or {}, input_range)


def _find_faults(layer: TrainedLayer, known: Collection[str]) -> Iterator[Fault]:
    """Yield the reasons why a layer cannot be expressed or is unsound."""
    name, kind = layer.name, type(layer.neuron).__name__
    if isinstance(layer.neuron, normalised.NEURONS):
        yield from normalised.find_faults(layer)
    elif type(layer.neuron) not in _RULES:
        yield Fault(
            f"layer {name}: neurons of type {kind} have no rule for integers",
            "unsupported",
            value=kind,
            layer=name,
        )
    elif len(_plain_weights(layer)) < len(layer.inputs):
        yield Fault(
            f"layer {name}: neurons of type {kind} take only plain weights, without a "
            "normalisation or an identity",
            "unsupported",
            value=kind,
            layer=name,
        )
    for source in layer.inputs:
        if source not in known:
            yield Fault(
                f"layer {name}: its source {source} is not a layer before it",
                "unknown",
                value=source,
                layer=name,
            )
    for fed in layer.inputs.values():
        if isinstance(fed, NormalisedWeights):
            yield from _weight_faults(name, fed.weights)
        elif not isinstance(fed, Identity):
            shape = fed.values.shape
            if isinstance(fed, DenseWeights) and (len(shape) < 2 or max(shape[2:], default=1) > 1):
                yield Fault(
                    f"layer {name}: weights of shape {shape} are not those of a fully connected "
                    "layer",
                    "shape",
                    value=shape,
                    layer=name,
                )
            else:
                yield from _weight_faults(name, fed)


def _weight_faults(name: str, weights: Weights) -> Iterator[Fault]:
    """Yield the faults in the weights of the layer `name`."""
    if isinstance(weights, DenseWeights) and weights.mask is not None:
        pruned = weights.values.ravel()[weights.mask.ravel() == 0]
        if nonzero := int(np.count_nonzero(pruned)):
            yield Fault(
                f"layer {name}: {nonzero} pruned connections have a weight other than 0",
                "mismatch",
                value=nonzero,
                layer=name,
            )
    if broken := int(np.count_nonzero(~np.isfinite(weights.values))):
        yield Fault(
            f"layer {name}: {broken} weights are NaN or infinite",
            "not-finite",
            value=broken,
            layer=name,
        )


def _lower_layer(layer: TrainedLayer, steps: int | None) -> Layer:
    weights = _plain_weights(layer)
    every = np.concatenate([one.values.ravel() for one in weights.values()])
    neuron, rounding = _RULES[type(layer.neuron)](layer.neuron, every, steps)
    inputs = (Input(source, _connections(one, rounding)) for source, one in weights.items())
    return Layer(layer.name, tuple(inputs), neuron)


def _plain_weights(layer: TrainedLayer) -> dict[str, Weights]:
    """Return source -> weights of a layer, without normalised weights and identities."""
    return {
        source: one
        for source, one in layer.inputs.items()
        if isinstance(one, (DenseWeights, SparseWeights))
    }


def _connections(weights: Weights, rounding: Rounding) -> Matrix:
    """Return the existing connections with integer weights."""
    integers = rounding(weights.values)
    if isinstance(weights, SparseWeights):
        return Matrix(weights.n_post, weights.n_pre, weights.starts, weights.pre, integers)
    mask = None if weights.mask is None else weights.mask.reshape(weights.n_post, weights.n_pre)
    return Matrix.from_dense(integers.reshape(weights.n_post, weights.n_pre), mask)
