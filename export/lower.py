"""From trained layers to the integer network: one rule per quantity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Array, Int32s
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE, WEIGHT_SCALE
from esl_lava.errors import LimitError
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
"""Trained weights -> integers."""


def integer_weights(weights: Array) -> Int32s:
    """Even integers in -256..254: round(w * 32), half to even, times 2.

    The rule of lava-dl 0.6.0, `slayer/neuron/base.py`, quantize_8bit, which the forward
    pass applies at every step of the training.
    """
    with np.errstate(over="ignore"):  # an infinity is clipped as any large number
        halves = np.rint(weights * weights.dtype.type(WEIGHT_SCALE / 2)).clip(-128, 127)
    integers: Int32s = (2 * halves).astype(np.int32)
    return integers


def integer_decay(decay: float) -> int:
    """A fraction lost per step as a 12-bit integer, 0..4096 (SLAYER's cx_current_decay)."""
    return round(decay * DECAY_UNITY)


def integer_threshold(threshold: float) -> int:
    """The threshold mantissa, in units of the integer weights."""
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
    """Weights scaled so that the largest just fits eight bits, and the threshold alike.

    Neurons are refractory for the rest of the sample.
    """
    if steps is None:
        raise ValueError("neurons that fire once need the number of steps of a sample")
    decay = integer_decay(neuron.current_decay)
    threshold = grid_threshold(weights, decay)
    lowered = Cuba(decay, 0, threshold, refractory=max(1, steps - 1))
    return lowered, partial(grid_weights, decay=decay, threshold=threshold)


_RULES: Mapping[type[Neuron], Callable[..., tuple[Cuba, Rounding]]] = MappingProxyType(
    {CubaNeuron: _cuba, OneSpikeNeuron: _one_spike, ReadoutNeuron: _readout}
)
"""Type of neuron -> (neuron, all weights of its layer, T) -> the chip's, and its rounding."""


def lower(
    layers: Sequence[TrainedLayer],
    *,
    steps: int | None = None,
    provenance: Mapping[str, str] | None = None,
    input_range: tuple[int, int] = SPIKE_RANGE,
) -> Network:
    """The integer network that trained layers stand for.

    Args:
        layers: in order; not changed.
        steps: T the network is presented a sample; neurons that fire once need it.
        provenance: text facts to carry along.
        input_range: the least and the largest value of an input at one step; normalised layers
            were trained on fractions of it (`folding.span_of`).

    Raises:
        LimitError: naming all layers that the integer network cannot express, and those whose
            weights are not finite, or not 0 where pruned.
        ValueError: where neurons fire once, or layers are normalised, and nobody says in how many
            steps.
    """
    known = [INPUT]
    faults = []
    for layer in layers:
        faults += [f"layer {layer.name}: {fault}" for fault in _faults(layer, known)]
        known.append(layer.name)
    if faults:
        raise LimitError(faults)
    lowered = tuple(
        normalised.lowered(layer, steps, input_range)
        if isinstance(layer.neuron, normalised.NEURONS)
        else _lowered(layer, steps)
        for layer in layers
    )
    return Network(lowered, steps, provenance or {}, input_range)


def _faults(layer: TrainedLayer, known: Collection[str]) -> Iterator[str]:
    """What of a layer cannot be expressed or is unsound, a clause each."""
    if isinstance(layer.neuron, normalised.NEURONS):
        yield from normalised.faults(layer)
    elif type(layer.neuron) not in _RULES:
        yield f"neurons of type {type(layer.neuron).__name__} have no integers"
    elif len(_plain(layer)) < len(layer.inputs):
        yield f"neurons of type {type(layer.neuron).__name__} take plain weights only"
    for source in layer.inputs:
        if source not in known:
            yield f"it is fed by {source}, which is not before it"
    for fed in layer.inputs.values():
        if isinstance(fed, NormalisedWeights):
            yield from _weight_faults(fed.weights)
        elif not isinstance(fed, Identity):
            shape = fed.values.shape
            if isinstance(fed, DenseWeights) and (len(shape) < 2 or max(shape[2:], default=1) > 1):
                yield f"a weight of shape {shape} is not of a fully connected layer"
            else:
                yield from _weight_faults(fed)


def _weight_faults(weights: Weights) -> Iterator[str]:
    if isinstance(weights, DenseWeights) and weights.mask is not None:
        pruned = weights.values.ravel()[weights.mask.ravel() == 0]
        if stray := int(np.count_nonzero(pruned)):
            yield f"{stray} pruned connections have a weight other than 0"
    if broken := np.count_nonzero(~np.isfinite(weights.values)):
        yield f"{broken} weights are NaN or infinite"


def _lowered(layer: TrainedLayer, steps: int | None) -> Layer:
    weights = _plain(layer)
    every = np.concatenate([one.values.ravel() for one in weights.values()])
    neuron, rounding = _RULES[type(layer.neuron)](layer.neuron, every, steps)
    inputs = (Input(source, _connections(one, rounding)) for source, one in weights.items())
    return Layer(layer.name, tuple(inputs), neuron)


def _plain(layer: TrainedLayer) -> dict[str, Weights]:
    """What feeds a layer, and its weights, without normalisations and identities."""
    return {
        source: one
        for source, one in layer.inputs.items()
        if isinstance(one, (DenseWeights, SparseWeights))
    }


def _connections(weights: Weights, rounding: Rounding) -> Matrix:
    """The existing connections with integer weights."""
    integers = rounding(weights.values)
    if isinstance(weights, SparseWeights):
        return Matrix(weights.n_post, weights.n_pre, weights.starts, weights.pre, integers)
    mask = None if weights.mask is None else weights.mask.reshape(weights.n_post, weights.n_pre)
    return Matrix.from_dense(integers.reshape(weights.n_post, weights.n_pre), mask)
