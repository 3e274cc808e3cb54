"""The result of every simulator, and the counts that follow from recorded spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array, Bytes, Int32s, Ints
from esl_lava.arrivals import count_by_steps_left, crossed, fan_out
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE, STATE_LIMIT, STATE_SHIFT
from esl_lava.counts import Counts, LayerCounts
from esl_lava.errors import DataError, shorten
from esl_lava.network import INPUT, Layer, Network

Names = tuple[str, ...] | str | None
NO_DECISION = -1
"""The class of a sample without a decision."""
Progress = Callable[[int, int], None]
"""A function that is called with the numbers of finished samples and of all samples."""


class Overflows(NamedTuple):
    """How often the numbers of a layer left their range in a run, over neurons and steps.

    Attributes:
        u_wraps: updates in which u wrapped around.
        v_clips: updates in which v was clipped.
        sum_wraps: sums of a convolution that wrapped around at 24 bits, before they reached u.
    """

    u_wraps: int
    v_clips: int
    sum_wraps: int


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a run, without latencies: index t is the sample's own step t.

    Attributes:
        spikes: layer name -> (samples, T, neurons) uint8, for each recorded layer.
        readout: (samples, T, classes) int32, the readout's v after each step, in units of 2**-6
            weights; None if the last layer fires.
        decisions: (samples,) int64 class of each sample, or `NO_DECISION`; see `decide`.
        counts: spikes, synaptic operations and neuron updates of each layer.
        fired: firing layer -> (neurons,) int64, the spikes of each neuron in all samples.
        overflows: layer name -> overflows of the layer. It is empty if the backend cannot count
            them.
        u, v: layer name -> (samples, T, neurons) int32 after each step, for each layer whose
            states are kept. v is 0 if the neuron has just fired.
    """

    spikes: Mapping[str, Bytes]
    readout: Int32s | None
    decisions: Ints
    counts: Counts
    fired: Mapping[str, Ints] = field(default_factory=dict)
    overflows: Mapping[str, Overflows] = field(default_factory=dict)
    u: Mapping[str, Int32s] = field(default_factory=dict)
    v: Mapping[str, Int32s] = field(default_factory=dict)


def checked_input(network: Network, spikes: npt.ArrayLike) -> Array:
    """Return spikes as a C-contiguous array (samples, T, inputs).

    `shape_fault` says which further axes are possible.

    Returns:
        uint8 of zeros and ones, or int32 if the network takes graded spikes.

    Raises:
        DataError: if the shape, the type or a value does not fit the network.
    """
    array = np.asarray(spikes)
    if array.ndim < 3:
        raise DataError(
            f"spikes need shape (samples, T, inputs), not {shorten(array.shape)}",
            "shape",
            key="spikes",
            value=array.shape,
        )
    if array.dtype.kind not in "iub":
        raise DataError(
            f"spikes need an integer type, not {array.dtype}",
            "type",
            key="spikes",
            value=str(array.dtype),
        )
    samples, steps = array.shape[:2]
    if samples < 1 or steps < 1:
        raise DataError(
            f"spikes of shape {shorten(array.shape)} hold no sample or no step",
            "shape",
            key="spikes",
            value=array.shape,
        )
    inputs = int(np.prod(array.shape[2:]))
    if inputs != network.inputs:
        raise DataError(
            f"spikes have {inputs} values in a step, but the network has {network.inputs} inputs",
            "mismatch",
            key="spikes",
            value=inputs,
            limit=network.inputs,
        )
    if fault := shape_fault(network, array.shape):
        raise DataError(
            fault, "shape", key="spikes", value=array.shape[2:], limit=network.input_shape
        )
    if network.steps is not None and steps != network.steps:
        raise DataError(
            f"spikes have {steps} steps, but the network takes {network.steps} steps",
            "mismatch",
            key="spikes",
            value=steps,
            limit=network.steps,
        )
    least, most = network.input_range
    low, high = int(array.min()), int(array.max())
    if low < least or high > most:
        binary = network.input_range == SPIKE_RANGE
        allowed = "0 or 1" if binary else f"integers in {least}..{most}"
        value, limit = (low, least) if low < least else (high, most)
        raise DataError(
            f"spikes must be {allowed}, but one value is {value}",
            "range",
            key="spikes",
            value=value,
            limit=limit,
        )
    dtype = np.int32 if network.message_bits else np.uint8
    return np.ascontiguousarray(array.reshape(samples, steps, inputs), dtype)


def shape_fault(network: Network, shape: tuple[int, ...]) -> str | None:
    """Return why the axes of spikes do not fit the network, or None if they do.

    The shape (samples, T, inputs) always fits. Its inputs are in C order: channel, row, column.
    Further axes have these rules:

    - A convolution or an input block takes axes of its own shape: channels, rows, columns.
    - A fully connected layer has no shape. It takes axes of which at most two are longer than 1:
      the rows and columns of one channel. Three longer axes could have several orders.

    Args:
        network: the network that takes the spikes.
        shape: (samples, T, ...) shape of the spikes, with `network.inputs` inputs.

    Returns:
        A sentence with the shape of the spikes and the shape that the network takes, or None.
    """
    axes, expected = shape[2:], network.input_shape
    if len(axes) == 1 or axes == expected:
        return None
    if len(expected) == 1 and sum(length > 1 for length in axes) <= 2:
        return None
    maps = "" if len(expected) == 1 else f"the axes {expected} (channels, rows, columns), or "
    return (
        f"spikes of shape {shape} have the axes {axes} in a step, but the network takes {maps}"
        f"{network.inputs} inputs on one axis in the order channel, row, column"
    )


def chosen_layers(network: Network, names: Names, firing: bool = False) -> tuple[str, ...]:
    """Return the names of the layers to keep.

    Args:
        network: the network of the layers.
        names: names, "all", or None for no layer.
        firing: whether only firing layers are allowed.

    Raises:
        DataError: if a name is not that of an allowed layer.
    """
    if names is None:
        return ()
    known = tuple(layer.name for layer in network.layers if layer.neuron.fires or not firing)
    if names == "all":
        return known
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in known:
            key, kind = ("record", "firing layer") if firing else ("states", "layer")
            raise DataError(
                f"{key}: the network has no {kind} {shorten(name)}; its {kind}s: "
                f"{', '.join(known) or 'none'}",
                "unknown",
                key=key,
                value=name,
                limit=", ".join(known),
            )
    return chosen


def deciding_states(last: Layer, steps: int) -> tuple[str, ...]:
    """Return which of "u" and "v" of the last layer `decide` needs for samples of `steps` steps."""
    if not last.neuron.fires:
        return ("v",)
    # Whether the pause after a spike lasts to the end of the sample.
    once = last.neuron.refractory >= max(1, steps - 1)
    return ("u", "v") if once and not last.inputs[0].connections.injects else ()


def decide(
    last: Layer, spikes: Bytes | None, u: Int32s | None = None, v: Int32s | None = None
) -> Ints:
    """Return the class of each sample, or -1 without a decision.

    - If the last layer never fires, the largest final v decides.
    - If its neurons can fire only once in a sample, the first spike decides. Of several spikes in
      one step, that of the highest potential before the reset decides. Without a spike there is no
      decision.
    - If its neurons can fire more often, or take injected input, the most spikes decide.

    A remaining tie goes to the lower class.

    Args:
        last: the network's last layer.
        spikes: (samples, T, neurons) spikes of this layer, if it can fire.
        u, v: (samples, T, neurons) states of this layer, as `deciding_states` requires.
    """
    if not last.neuron.fires:
        assert v is not None
        return v[:, -1].argmax(axis=1)
    assert spikes is not None
    if not deciding_states(last, spikes.shape[1]):
        return spikes.sum(axis=1, dtype=np.int64).argmax(axis=1)
    assert u is not None
    assert v is not None
    first = spikes.argmax(axis=1)  # the step of the spike, 0 without a spike
    rows, neurons = np.indices(first.shape)
    before = np.where(first > 0, v[rows, first - 1, neurons], 0).astype(np.int64)
    kept = before * (DECAY_UNITY - last.parameter("voltage_decay"))
    membrane = np.sign(kept) * (np.abs(kept) >> 12) + u[rows, first, neurons]
    if last.bias is not None:
        membrane += last.bias.astype(np.int64) << STATE_SHIFT
    membrane = membrane.clip(1 - STATE_LIMIT, STATE_LIMIT - 1)  # v clips here
    fired = np.any(spikes, axis=1)
    step = np.where(fired, first, spikes.shape[1])
    leading = fired & (step == step.min(axis=1, keepdims=True))
    decisions = np.where(leading, membrane, -STATE_LIMIT).argmax(axis=1)
    return np.where(fired.any(axis=1), decisions, NO_DECISION)


def layer_sizes(layer: Layer) -> LayerCounts:
    """Return the counts of a layer before a run."""
    wiring = layer.wiring
    return LayerCounts(
        name=layer.name,
        neurons=layer.neurons,
        possible=sum(incoming.positions for incoming in layer.inputs),
        weights=sum(incoming.weights for incoming in layer.inputs),
        possible_connections=sum(part.possible_connections for part in wiring),
        connections=sum(part.count for part in wiring),
        synapses=sum(part.synapses for part in wiring),
        sops=0,
        neuron_updates=0,
        spikes=0,
    )


def sops_by_sample(network: Network, inputs: Array, spikes: Mapping[str, Bytes]) -> Ints:
    """Count the synaptic operations of each sample, (samples,), from spikes.

    Args:
        network: the network that was run.
        inputs: (samples, T, inputs) integers. Every value that is not 0 is a spike.
        spikes: spikes of all firing layers, as `Result.spikes`.
    """
    active = {INPUT: inputs != 0, **spikes}
    total = np.zeros(len(inputs), np.int64)
    for layer in network.layers:
        total += _sops(layer, active)
    return total


def _sops(layer: Layer, active: Mapping[str, Array]) -> Ints:
    """Count the synaptic operations of a layer, (...,), from (..., T, n) spikes of its sources."""
    total = np.zeros((), np.int64)
    for incoming in layer.inputs:
        if incoming.source in active:
            synapses = fan_out(incoming.connections, layer.late(incoming))
            arriving = count_by_steps_left(active[incoming.source], len(synapses))
            total = total + crossed(arriving, synapses)
    return total


def count(network: Network, inputs: Array, spikes: Mapping[str, Bytes]) -> Counts:
    """Return the counts of a run from the spikes of every firing layer.

    The arguments are those of `sops_by_sample`.
    """
    samples, steps = inputs.shape[:2]
    active = {INPUT: np.count_nonzero(inputs, axis=0)}  # (T, n), all samples together
    layers = []
    for layer in network.layers:
        active[layer.name] = np.zeros((steps, layer.neurons), np.int64)
        if layer.neuron.fires:
            active[layer.name] = spikes[layer.name].sum(axis=0, dtype=np.int64)
        emitted = active[layer.name].sum(axis=1)
        layers.append(
            replace(
                layer_sizes(layer),
                neuron_updates=layer.neurons * steps * samples,
                sops=int(_sops(layer, active)),
                spikes=int(emitted.sum()),
                returned=0 if layer.recurrent is None else int(emitted[:-1].sum()),
            )
        )
    return Counts(samples, steps, int(active[INPUT].sum()), tuple(layers))


def by_neuron(spikes: Mapping[str, Bytes]) -> dict[str, Ints]:
    """Return layer name -> (neurons,) sums of the (samples, T, neurons) spikes of each layer."""
    return {name: fired.sum(axis=(0, 1), dtype=np.int64) for name, fired in spikes.items()}


def join_results(results: Sequence[Result]) -> Result:
    """Join the results of several portions of samples into one result, in their order.

    All results must have the same network, the same steps and the same recorded layers.
    """
    first = results[0]
    if len(results) == 1:
        return first
    layers = tuple(
        replace(
            same[0],
            sops=sum(layer.sops for layer in same),
            neuron_updates=sum(layer.neuron_updates for layer in same),
            spikes=sum(layer.spikes for layer in same),
            returned=sum(layer.returned for layer in same),
        )
        for same in zip(*(result.counts.layers for result in results))
    )

    def whole(field_name: str) -> dict[str, Array]:
        kept = [getattr(result, field_name) for result in results]
        return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}

    return Result(
        spikes=whole("spikes"),
        readout=None
        if first.readout is None
        else np.concatenate([r.readout for r in results if r.readout is not None]),
        decisions=np.concatenate([result.decisions for result in results]),
        counts=Counts(
            sum(result.counts.samples for result in results),
            first.counts.steps,
            sum(result.counts.input_spikes for result in results),
            layers,
        ),
        fired={
            name: np.sum([result.fired[name] for result in results], axis=0) for name in first.fired
        },
        overflows={
            name: Overflows(*map(sum, zip(*(result.overflows[name] for result in results))))
            for name in first.overflows
        },
        u=whole("u"),
        v=whole("v"),
    )
