"""esl-lava's simulator: the exact arithmetic of the integer network in numba kernels.

A layer runs over all steps of its samples before the next layer begins. This is possible because
a layer needs only the spikes of earlier layers, and these never depend on it. Spikes pass between
layers as bytes. In feature maps the channels of a place lie together (`synapses.place_order`).
Samples run in chunks, one chunk for each thread at a time. The arithmetic is Lava's: int32 that
wraps around, with the sums of a convolution in 24 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numba
import numpy as np

from esl_lava.arrays import Array, Int32s, Ints
from esl_lava.chip import DECAY_UNITY, STATE_SHIFT
from esl_lava.counts import Counts
from esl_lava.kernels.cuba import run_neurons
from esl_lava.kernels.synapses import delay
from esl_lava.network import INPUT, Input, Layer, Network
from esl_lava.simulate.result import Overflows, Result, decide, deciding_states, layer_sizes
from esl_lava.simulate.synapses import LANES, Synapses, outgoing, place_order

CHUNK_BYTES = 4 << 20
"""A chunk of samples takes about this much memory, so that it fits a processor's cache."""

THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at run time
"""Number of concurrent chunks: one for each processor, unless NUMBA_NUM_THREADS is set."""

CONV_LIMIT = 1 << 23
"""The sums of a convolution wrap around outside -2**23..2**23 - 1."""

LARGEST_DRIVE = 1 << 24
"""A larger bias clips v for every u, so biases are limited to this size."""

_NONE = np.empty(0, np.uint32)
_NO_TRACE = np.empty((0, 0, 0), np.int32)


@dataclass(eq=False)
class _Part:
    """An input of a layer through synapses.

    Attributes:
        source: name of the source of its spikes.
        synapses: the synapses, laid out for the kernels.
        kinds: names of the kernels that can sum these synapses.
        place: the place of each neuron's sum among the sums, or None if they have the same order.
        delays: (neurons,) delay of each sum in steps, or None.
    """

    source: str
    synapses: Synapses
    kinds: tuple[str, ...]
    place: Ints | None
    delays: Int32s | None


class _PreparedLayer:
    """A layer with its data laid out for the kernels.

    Attributes:
        parts: its inputs through synapses, without the recurrent one.
        injected: the input whose values are injected into its membranes, or None.
        order: the neuron at each place, or None if the neurons are in order.
        sizes: its counts before a run.
        item: bytes of one of its sums.
        unit: the unit in which its sums are stored: 2 if they are stored halved, else 1.
    """

    def __init__(self, layer: Layer, orders: Mapping[str, Ints | None], graded: bool) -> None:
        self.layer = layer
        self.sizes = layer_sizes(layer)
        self.order = place_order(layer.inputs[0].connections)
        place: slice | Ints = slice(None) if self.order is None else self.order
        self.parts: list[_Part] = []
        self.injected: Input | None = None
        for incoming in layer.feedforward_inputs:
            if incoming.connections.injects:
                self.injected = incoming
                continue
            synapses = Synapses(incoming.connections, orders[incoming.source], layer.late(incoming))
            valued = graded and incoming.source == INPUT
            kinds = ("scattered",) if valued else synapses.kinds()
            moved = _between(synapses.order, self.order)
            # Copy, because numba would compile again for a read-only array.
            delays = None if incoming.delays is None else incoming.delays[place].copy()
            self.parts.append(_Part(incoming.source, synapses, kinds, moved, delays))
        valued = graded and any(part.source == INPUT for part in self.parts)
        plain = len(layer.inputs) == 1 and self.injected is None and not valued
        small = plain and self.parts[0].synapses.exact16
        self.item = 2 if small else 4
        self.unit = self.parts[0].synapses.unit if small else 1
        self.bias = np.zeros(layer.neurons, np.int64)
        if layer.bias is not None:
            self.bias[:] = layer.bias[place]
        keep_current, keep_voltage = (
            (DECAY_UNITY - layer.parameter(name)[place]).astype(np.uint32)
            for name in ("current_decay", "voltage_decay")
        )
        threshold = (layer.parameter("threshold")[place] << STATE_SHIFT).astype(np.int32)
        self.neuron = (keep_current, keep_voltage, threshold, _drive(self.bias))
        self.recurrent: tuple[Array, Array, Array] = (_NONE, _NONE, _NO_TRACE.ravel())
        if layer.recurrent is not None:
            self.recurrent = outgoing(layer.recurrent.connections.unrolled(), self.order)
        self.width = max([p.synapses.width for p in self.parts], default=layer.neurons)

    def in_order(self, values: Array) -> Array:
        """Return (..., neurons) values in the order of neurons."""
        if self.order is None:
            return values
        channels, rows, columns = self.layer.shape
        maps = values.reshape(*values.shape[:-1], rows, columns, channels)
        return np.moveaxis(maps, -1, -3).reshape(values.shape)


def _between(source: Ints | None, target: Ints | None) -> Ints | None:
    """Return the place in order `source` of each neuron of order `target`; None if equal."""
    if source is None and target is None:
        return None
    size = len(source if source is not None else target)  # type: ignore[arg-type]
    places = np.arange(size) if source is None else np.argsort(source)
    moved = places if target is None else places[target]
    return None if np.array_equal(moved, np.arange(size)) else moved


def _drive(bias: Ints) -> Int32s:
    return (bias.clip(-LARGEST_DRIVE, LARGEST_DRIVE) << STATE_SHIFT).astype(np.int32)


_prepared: WeakKeyDictionary[Network, list[_PreparedLayer]] = WeakKeyDictionary()


def prepare(network: Network) -> list[_PreparedLayer]:
    """Lay out a network for the kernels. The result is kept as long as the network exists."""
    if network not in _prepared:
        orders: dict[str, Ints | None] = {INPUT: None}
        layers = []
        for layer in network.layers:
            layers.append(_PreparedLayer(layer, orders, network.message_bits > 0))
            orders[layer.name] = layers[-1].order
        _prepared[network] = layers
    return _prepared[network]


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
) -> Result:
    """Simulate samples. Every sample starts from rest. `simulate` describes the arguments."""
    layers = prepare(network)
    samples, steps = inputs.shape[:2]
    sizes = {layer.name: layer.neurons for layer in network.layers}

    def empty(names: Iterable[str], dtype: type) -> dict[str, Array]:
        return {name: np.empty((samples, steps, sizes[name]), dtype) for name in names}

    last = () if network.readout is None else (network.readout.name,)
    kept = {
        "spikes": empty(record, np.uint8),
        "u": empty(states, np.int32),
        "v": empty({*states, *last}, np.int32),
    }
    decisions = np.empty(samples, np.int64)
    size = _chunk(layers, samples, steps)
    chunks = [slice(n, min(n + size, samples)) for n in range(0, samples, size)]
    workers = [
        _Worker(
            layers,
            inputs,
            kept,
            decisions,
            np.zeros((len(layers), 6), np.int64),
            [np.zeros(prepared.layer.neurons, np.int64) for prepared in layers],
        )
        for _ in range(min(THREADS, len(chunks)))
    ]
    if len(workers) == 1:
        for chunk in chunks:
            workers[0].run(chunk)
    else:
        idle = workers.copy()

        def run_in_thread(chunk: slice) -> None:
            worker = idle.pop()
            worker.run(chunk)
            idle.append(worker)

        with ThreadPoolExecutor(len(workers)) as pool:
            # Wait for the results: map cancels the remaining chunks when one fails.
            list(pool.map(run_in_thread, chunks))
    totals = np.sum([worker.totals for worker in workers], axis=0).tolist()
    return Result(
        spikes=kept["spikes"],
        readout=kept["v"][last[0]] if last else None,
        decisions=decisions,
        counts=Counts(
            samples,
            steps,
            sum(worker.input_spikes for worker in workers),
            tuple(
                replace(
                    prepared.sizes,
                    sops=sops,
                    neuron_updates=prepared.layer.neurons * steps * samples,
                    spikes=spikes,
                    returned=returned,
                )
                for prepared, (spikes, _, _, sops, returned, _) in zip(layers, totals)
            ),
        ),
        fired={
            prepared.layer.name: prepared.in_order(np.sum(spikes, axis=0))
            for prepared, spikes in zip(layers, zip(*(worker.fired for worker in workers)))
            if prepared.layer.neuron.fires
        },
        overflows={
            prepared.layer.name: Overflows(u_wraps, v_clips, sum_wraps)
            for prepared, (_, u_wraps, v_clips, _, _, sum_wraps) in zip(layers, totals)
        },
        u=kept["u"],
        v={name: kept["v"][name] for name in states},
    )


def _chunk(layers: list[_PreparedLayer], samples: int, steps: int) -> int:
    """Return the number of samples of a chunk: as many as its memory holds, at least a full vector.

    It is never more than an equal share for each thread.
    """
    bytes_each = sum(p.layer.neurons for p in layers) + max(p.width * p.item for p in layers)
    fitting = CHUNK_BYTES // (steps * bytes_each)
    return min(-(-samples // THREADS), max(fitting, -(-LANES // steps)))


@dataclass(eq=False)
class _Worker:
    """A worker that runs chunks one after the other in memory of its own.

    Attributes:
        layers: all layers of the network.
        inputs: the inputs of all samples.
        kept: "spikes", "u" and "v" -> layer name -> (samples, T, neurons) array to fill.
        decisions: (samples,) array to fill.
        totals: (layers, 6) int64, the sums of each layer so far: the five of
            `kernels.cuba.run_neurons`, and the wrapped sums of convolutions.
        fired: for each layer (neurons,) int64, the number of spikes of each neuron so far. The
            neurons are in the order `_PreparedLayer.order`.
        input_spikes: number of input spikes so far.
        memory: arrays that `_scratch` reuses.
        arriving: source -> (n, T, neurons) spikes of the current chunk.
        spikes: source -> number of spikes of the current chunk.
    """

    layers: list[_PreparedLayer]
    inputs: Array
    kept: Mapping[str, Mapping[str, Array]]
    decisions: Ints
    totals: Ints
    fired: Sequence[Ints]
    input_spikes: int = 0
    memory: dict[str, Array] = field(default_factory=dict)
    arriving: dict[str, Array] = field(default_factory=dict)
    spikes: dict[str, int] = field(default_factory=dict)

    def run(self, chunk: slice) -> None:
        """Run the samples `chunk` through all layers."""
        inputs = self.inputs[chunk]
        if not inputs.flags.writeable:  # numba would compile again for a read-only array
            inputs = inputs.copy()
        self.arriving = {INPUT: inputs}
        # numpy counts booleans much faster than integers.
        counted = inputs.view(bool) if inputs.dtype == np.uint8 else inputs
        self.spikes = {INPUT: int(np.count_nonzero(counted))}
        self.input_spikes += self.spikes[INPUT]
        for prepared, total, fired in zip(self.layers, self.totals, self.fired):
            name, before = prepared.layer.name, int(total[0])
            outputs = self._layer(prepared, chunk, total, fired)
            self.arriving[name] = outputs["spikes"]
            self.spikes[name] = int(total[0]) - before
        ordered = {kind: prepared.in_order(values) for kind, values in outputs.items()}
        self.decisions[chunk] = decide(prepared.layer, **ordered)

    def _layer(
        self, prepared: _PreparedLayer, chunk: slice, total: Ints, fired: Ints
    ) -> dict[str, Array]:
        """Return the spikes of a layer for the samples `chunk`, and u and v if they are needed."""
        name = prepared.layer.name
        shape = (*self.arriving[INPUT].shape[:2], prepared.layer.neurons)
        sums = self._sums(prepared, total)
        injected = _NO_TRACE
        if prepared.injected is not None:
            injected = self.arriving[prepared.injected.source].astype(np.int32)
            if prepared.injected.delays is not None:
                delay(injected, prepared.injected.delays.copy())
            injected = _drive(prepared.bias + injected)
        needed = ["spikes"]
        if prepared is self.layers[-1]:
            needed += deciding_states(prepared.layer, shape[1])
        outputs = {}
        for kind, kept in self.kept.items():
            dtype = np.uint8 if kind == "spikes" else np.int32
            if name in kept and prepared.order is None:
                outputs[kind] = kept[name][chunk]
            elif name in kept or kind in needed:
                outputs[kind] = self._scratch(f"{kind} of {name}", shape, dtype)
        run_neurons(
            sums,
            STATE_SHIFT + prepared.unit - 1,  # unit 1 needs no further bit, unit 2 needs one
            injected,
            *prepared.neuron,
            prepared.layer.neuron.refractory,
            *prepared.recurrent,
            outputs["spikes"],
            outputs.get("u", _NO_TRACE),
            outputs.get("v", _NO_TRACE),
            total[:5],
            fired,
        )
        if prepared.order is not None:
            for kind, kept in self.kept.items():
                if name in kept:
                    kept[name][chunk] = prepared.in_order(outputs[kind])
        return outputs

    def _sums(self, prepared: _PreparedLayer, total: Ints) -> Array:
        """Return the (samples, T, width) weighted input of a layer, without the recurrent one."""
        shape = (*self.arriving[INPUT].shape[:2], prepared.width)
        sample_steps = shape[0] * shape[1]
        sums = self._scratch("sums", shape, np.int16 if prepared.item == 2 else np.int32)
        if not prepared.parts:
            sums[:] = 0
        neurons = prepared.layer.neurons
        for index, part in enumerate(prepared.parts):
            own = self._scratch("further", shape, sums.dtype.type) if index else sums
            incoming = self.arriving[part.source]
            rate = self.spikes[part.source] / sample_steps
            kind = part.synapses.cheapest(part.kinds, own.itemsize, rate, sample_steps)
            total[3] += part.synapses.add(kind, incoming, own)
            if part.synapses.connections.shares:
                total[5] += _wrap(own[:, :, :neurons], part.synapses.bound, incoming)
            if part.place is not None:
                own[:, :, :neurons] = own[:, :, part.place]
            if part.delays is not None:
                delay(own, part.delays)
            if index:
                sums[:, :, :neurons] += own[:, :, :neurons]
        return sums

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: type) -> Array:
        """Return an array in this worker's memory. It overwrites the last one of this name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self.memory or self.memory[name].size < size:
            self.memory[name] = np.empty(size, np.uint8)
        return self.memory[name][:size].view(dtype).reshape(shape)


def _wrap(sums: Array, bound: int, incoming: Array) -> int:
    """Wrap the sums of a convolution around at 24 bits in place, and count the wrapped sums."""
    if incoming.dtype != np.uint8:
        bound *= int(np.abs(incoming.astype(np.int64)).max())
    if bound < CONV_LIMIT:
        return 0
    wrapped = (sums << 8) >> 8
    changed = int((wrapped != sums).sum())
    sums[:] = wrapped
    return changed
