"""What every simulator returns, and the counts that follow from recorded spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array, Bytes, Int32s, Ints
from esl_lava.arrivals import by_steps_left, crossed, fan_out
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE, STATE_LIMIT, STATE_SHIFT
from esl_lava.counts import Counts, LayerCounts
from esl_lava.errors import DataError
from esl_lava.network import INPUT, Layer, Network

Names = tuple[str, ...] | str | None
NO_DECISION = -1
"""The class of a sample that nothing decides."""
Progress = Callable[[int, int], None]
"""Called with the numbers of samples finished and of all."""


@dataclass(frozen=True, eq=False)
class Result:
    """A run of a network, latencies hidden: index t is the sample's own step t.

    Attributes:
        spikes: layer name -> (samples, T, neurons) uint8, for each recorded layer.
        readout: (samples, T, classes) int32, the integrator's v after each step (weights
            times 2**6), or None where the last layer fires.
        decisions: (samples,) int64 classes, or `NO_DECISION`; see `decide`.
        counts: spikes, synaptic operations and neuron updates per layer.
        fired: firing layer -> (neurons,) int64, the spikes of each neuron in all samples.
        overflows: layer name -> (wraps of u, clips of v); empty where the backend cannot
            tell.
        u, v: layer name -> (samples, T, neurons) int32 after each step, for each layer
            whose states were asked for; v is 0 where the neuron has just fired.
    """

    spikes: Mapping[str, Bytes]
    readout: Int32s | None
    decisions: Ints
    counts: Counts
    fired: Mapping[str, Ints] = field(default_factory=dict)
    overflows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    u: Mapping[str, Int32s] = field(default_factory=dict)
    v: Mapping[str, Int32s] = field(default_factory=dict)


def checked_input(network: Network, spikes: npt.ArrayLike) -> Array:
    """`spikes` as (samples, T, inputs), C-contiguous; for further axes see `misplaced`.

    Returns:
        uint8 of zeros and ones or, where the network takes graded spikes, int32.

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
    if fault := misplaced(network, array.shape):
        raise DataError(fault)
    if network.steps is not None and steps != network.steps:
        raise DataError(f"spikes have {steps} steps, the network is presented {network.steps}")
    least, most = network.input_range
    low, high = int(array.min()), int(array.max())
    if low < least or high > most:
        binary = network.input_range == SPIKE_RANGE
        allowed = "0 or 1" if binary else f"integers in {least}..{most}"
        raise DataError(f"spikes must be {allowed}, found {low if low < least else high}")
    dtype = np.int32 if network.message_bits else np.uint8
    return np.ascontiguousarray(array.reshape(samples, steps, inputs), dtype)


def misplaced(network: Network, shape: tuple[int, ...]) -> str | None:
    """Why axes of spikes cannot be told to be where the network has its own; None if they can.

    Right is (samples, T, inputs), where inputs are counted in C order: channel, row, column.
    With further axes,

    - what a convolution or an input block takes has to have its shape: channels, rows, columns;
    - a fully connected layer knows no shape. It takes axes of which at most two are longer
      than 1: rows and columns, of one channel, whatever the place of that. With three there
      would be several orders, all of one size.

    Args:
        network: which takes `network.inputs` of them.
        shape: (samples, T, ...) of spikes.

    Returns:
        A sentence with the shape found and the shape taken.
    """
    found, taken = shape[2:], network.input_shape
    if len(found) == 1 or found == taken:
        return None
    if len(taken) == 1 and sum(length > 1 for length in found) <= 2:
        return None
    known = "" if len(taken) == 1 else f"{taken} (channels, rows, columns), or "
    return (
        f"spikes of shape {shape} are {found} at a step; the network takes {known}"
        f"{network.inputs} inputs in one axis, counted by channel, row and column"
    )


def chosen_layers(network: Network, names: Names, firing: bool = False) -> tuple[str, ...]:
    """Names of layers, or of firing ones alone: "all", None (none), or given names.

    Raises:
        DataError: for a name that is no such layer of the network.
    """
    if names is None:
        return ()
    known = tuple(layer.name for layer in network.layers if layer.neuron.fires or not firing)
    if names == "all":
        return known
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in known:
            what = "firing layer" if firing else "layer"
            raise DataError(f"no {what} {name!r} to record; there are {', '.join(known)}")
    return chosen


def decisive(last: Layer, steps: int) -> tuple[str, ...]:
    """Which of "u" and "v" of the last layer `decide` needs, for samples of `steps`."""
    if not last.neuron.fires:
        return ("v",)
    # The pause after a spike lasts to the end of any sample.
    once = last.neuron.refractory >= max(1, steps - 1)
    return ("u", "v") if once and not last.inputs[0].connections.injects else ()


def decide(
    last: Layer, spikes: Bytes | None, u: Int32s | None = None, v: Int32s | None = None
) -> Ints:
    """Class per sample, -1 where there is none.

    A last layer that never fires decides by its final v. Where neurons can fire only once in
    a sample, the first spike decides, of several in one step that of the highest membrane;
    no spike is no decision. Otherwise the numbers of spikes do. What is still a tie goes to
    the lower class.

    Args:
        last: the network's last layer.
        spikes: (samples, T, neurons) of it, if it can fire.
        u, v: of it, of the same shape, as `decisive` says.
    """
    if not last.neuron.fires:
        assert v is not None
        return v[:, -1].argmax(axis=1)
    assert spikes is not None
    if not decisive(last, spikes.shape[1]):
        return spikes.sum(axis=1, dtype=np.int64).argmax(axis=1)
    assert u is not None
    assert v is not None
    first = spikes.argmax(axis=1)  # the step of the spike, 0 where there is none
    rows, neurons = np.indices(first.shape)
    before = np.where(first > 0, v[rows, first - 1, neurons], 0).astype(np.int64)
    kept = before * (DECAY_UNITY - last.parameter("voltage_decay"))
    membrane = np.sign(kept) * (np.abs(kept) >> 12) + u[rows, first, neurons]
    if last.bias is not None:
        membrane += last.bias.astype(np.int64) << STATE_SHIFT
    membrane = membrane.clip(1 - STATE_LIMIT, STATE_LIMIT - 1)  # where v clips
    fired = np.any(spikes, axis=1)
    step = np.where(fired, first, spikes.shape[1])
    leading = fired & (step == step.min(axis=1, keepdims=True))
    decisions = np.where(leading, membrane, -STATE_LIMIT).argmax(axis=1)
    return np.where(fired.any(axis=1), decisions, NO_DECISION)


def layer_sizes(layer: Layer) -> LayerCounts:
    """The counts of a layer that has done nothing."""
    brought = layer.wiring
    return LayerCounts(
        name=layer.name,
        neurons=layer.neurons,
        possible=sum(given.positions for given in layer.inputs),
        weights=sum(given.weights for given in layer.inputs),
        possible_connections=sum(part.possible_connections for part in brought),
        connections=sum(part.count for part in brought),
        synapses=sum(part.synapses for part in brought),
        sops=0,
        neuron_updates=0,
        spikes=0,
    )


def sops_by_sample(network: Network, inputs: Array, spikes: Mapping[str, Bytes]) -> Ints:
    """(samples,) synaptic operations of each, from the spikes of every firing layer.

    Args:
        network: whose they are.
        inputs: (samples, T, inputs) integers; what is not 0 is a spike.
        spikes: as `Result.spikes`, all firing layers present.
    """
    active = {INPUT: inputs != 0, **spikes}
    total = np.zeros(len(inputs), np.int64)
    for layer in network.layers:
        total += _sops(layer, active)
    return total


def _sops(layer: Layer, active: Mapping[str, Array]) -> Ints:
    """(...) synaptic operations of a layer, from (..., T, n) spikes of all that fire."""
    total = np.zeros((), np.int64)
    for given in layer.inputs:
        if given.source in active:
            synapses = fan_out(given.connections, layer.late(given))
            arriving = by_steps_left(active[given.source], len(synapses))
            total = total + crossed(arriving, synapses)
    return total


def count(network: Network, inputs: Array, spikes: Mapping[str, Bytes]) -> Counts:
    """Counts from the spikes of every firing layer: each crosses the synapses it arrives at.

    Arguments are as for `sops_by_sample`.
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
    """Layer name -> (neurons,) spikes of each neuron, of (samples, T, neurons) of each layer."""
    return {name: fired.sum(axis=(0, 1), dtype=np.int64) for name, fired in spikes.items()}


def joined(results: Sequence[Result]) -> Result:
    """The runs of several lots of samples as one run of all, in their order.

    All have to be of the same network, with the same steps and the same things kept.
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

    def whole(what: str) -> dict[str, Array]:
        kept = [getattr(result, what) for result in results]
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
            name: tuple(map(sum, zip(*(result.overflows[name] for result in results))))  # type: ignore[misc]
            for name in first.overflows
        },
        u=whole("u"),
        v=whole("v"),
    )
