"""What every simulator returns, and the counts that follow from recorded spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from esl_lava.counts import Counts, LayerCounts
from esl_lava.errors import DataError
from esl_lava.network import Layer, Network

Spikes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Result:
    """A run of a network, latencies hidden: index t is the sample's own step t.

    Attributes:
        spikes: layer name -> (samples, T, neurons) uint8, for each recorded layer.
        readout: (samples, T, classes) int32, the integrator's v after each step (weights
            times 2**6), or None where the last layer fires.
        decisions: (samples,) int64: argmax of the final sum, or of the last layer's spike
            counts where it fires; ties go to the lower class.
        counts: spikes, synaptic operations and neuron updates per layer.
        overflows: layer name -> (wraps of u, clips of v); empty where the backend cannot
            tell.
    """

    spikes: Mapping[str, Spikes]
    readout: npt.NDArray[np.int32] | None
    decisions: npt.NDArray[np.int64]
    counts: Counts
    overflows: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def checked_input(network: Network, spikes: npt.ArrayLike) -> Spikes:
    """`spikes` as (samples, T, inputs) uint8 of zeros and ones, C-contiguous.

    Raises:
        DataError: naming the shape, type or value that does not fit.
    """
    array = np.asarray(spikes)
    if array.ndim < 3 or array.dtype.kind not in "iub":
        raise DataError(
            f"spikes need shape (samples, T, inputs) and integer type, "
            f"not {array.shape} {array.dtype}"
        )
    samples, steps = array.shape[:2]
    if samples < 1 or steps < 1:
        raise DataError(f"spikes of shape {array.shape} hold no sample or no step")
    inputs = int(np.prod(array.shape[2:]))
    if inputs != network.inputs:
        raise DataError(f"spikes have {inputs} channels, the network has {network.inputs} inputs")
    if network.steps is not None and steps != network.steps:
        raise DataError(f"spikes have {steps} steps, the network is presented {network.steps}")
    if array.dtype != bool:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 1:
            raise DataError(f"spikes must be 0 or 1, found {low if low < 0 else high}")
    return np.ascontiguousarray(array.reshape(samples, steps, inputs), np.uint8)


def recorded_layers(network: Network, record: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """Names of the firing layers to record: "all", None (none), or given names.

    Raises:
        DataError: for a name that is no firing layer of the network.
    """
    firing = tuple(layer.name for layer in network.layers if layer.neuron.fires)
    if record is None:
        return ()
    if record == "all":
        return firing
    names = (record,) if isinstance(record, str) else tuple(record)
    for name in names:
        if name not in firing:
            raise DataError(f"no firing layer {name!r} to record; there are {', '.join(firing)}")
    return names


def decide(readout: npt.NDArray[np.int32] | None, last: Spikes | None) -> npt.NDArray[np.int64]:
    """Class per sample from the readout's final sum, else from the last layer's spikes."""
    if readout is not None:
        return readout[:, -1].argmax(axis=1)
    assert last is not None
    return last.sum(axis=1, dtype=np.int64).argmax(axis=1)


def layer_counts(layer: Layer, *, samples: int, steps: int, sops: int, spikes: int) -> LayerCounts:
    """The counts of one layer, its sizes filled in."""
    return LayerCounts(
        name=layer.name,
        neurons=layer.neurons,
        possible=layer.connections.possible,
        connections=layer.connections.count,
        synapses=layer.connections.synapses,
        sops=sops,
        neuron_updates=layer.neurons * steps * samples,
        spikes=spikes,
    )


def count(network: Network, inputs: Spikes, spikes: Mapping[str, Spikes]) -> Counts:
    """Counts from the spikes of every firing layer: each spike crosses its fan-out.

    Args:
        inputs: (samples, T, inputs) uint8.
        spikes: as `Result.spikes`, all firing layers present.
    """
    samples, steps = inputs.shape[:2]
    layers = []
    arriving = inputs
    for layer in network.layers:
        per_input = arriving.sum(axis=(0, 1), dtype=np.int64)
        emitted = spikes[layer.name] if layer.neuron.fires else None
        layers.append(
            layer_counts(
                layer,
                samples=samples,
                steps=steps,
                sops=int(per_input @ layer.connections.fan_out()),
                spikes=0 if emitted is None else int(emitted.sum(dtype=np.int64)),
            )
        )
        if emitted is not None:
            arriving = emitted
    return Counts(samples, steps, int(inputs.sum(dtype=np.int64)), tuple(layers))
