"""Our simulator: the integer network's own arithmetic, layer by layer, in numba.

A layer runs over whole samples, all steps, before the next begins: what it needs are the
spikes of earlier layers, whose later steps do not depend on it. Spikes pass between layers
as bytes; feature maps keep their channels together there (`synapses.map_order`). Samples
run in chunks, one for each thread at a time.
Arithmetic is Lava's: int32, which wraps around, with the sums of a convolution in 24 bits.
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
from esl_lava.simulate.result import Result, decide, decisive, layer_sizes
from esl_lava.simulate.synapses import LANES, Synapses, outgoing, place_order

CHUNK_BYTES = 4 << 20
"""Samples run in chunks of about this much memory, so that a processor's cache holds it."""

THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at run time
"""Chunks that run at the same time: one on each processor, unless NUMBA_NUM_THREADS is set."""

CONV_LIMIT = 1 << 23
"""The sums of a convolution wrap around beyond -2**23..2**23 - 1."""

LARGEST_DRIVE = 1 << 24
"""A bias beyond this clips v whatever u is, so no larger one need be kept."""

_NONE = np.empty(0, np.uint32)
_NO_TRACE = np.empty((0, 0, 0), np.int32)


@dataclass(eq=False)
class _Part:
    """An input of a layer that comes through synapses.

    Attributes:
        source: whose spikes it brings.
        synapses: through which.
        kinds: the kernels that can sum them.
        place: where among their sums those of the layer's neurons are, if elsewhere.
        delays: (neurons,) steps by which each sum is late, if any is.
    """

    source: str
    synapses: Synapses
    kinds: tuple[str, ...]
    place: Ints | None
    delays: Int32s | None


class _Prepared:
    """A layer as the kernels want it.

    Attributes:
        parts: its inputs through synapses; the recurrent one is apart.
        injected: whose values go to its membranes, None where nobody's do.
        order: None where its neurons are in order, else the neuron at each place.
        sizes: its counts when it has done nothing.
        item, unit: bytes of its sums, and what they are multiples of.
    """

    def __init__(self, layer: Layer, orders: Mapping[str, Ints | None], graded: bool) -> None:
        self.layer = layer
        self.sizes = layer_sizes(layer)
        self.order = place_order(layer.inputs[0].connections)
        place: slice | Ints = slice(None) if self.order is None else self.order
        self.parts: list[_Part] = []
        self.injected: Input | None = None
        for given in layer.feeding:
            if given.connections.injects:
                self.injected = given
                continue
            synapses = Synapses(given.connections, orders[given.source], layer.late(given))
            valued = graded and given.source == INPUT
            kinds = ("scattered",) if valued else synapses.kinds()
            moved = _between(synapses.order, self.order)
            # A copy: numba would compile anew for what cannot be written.
            delays = None if given.delays is None else given.delays[place].copy()
            self.parts.append(_Part(given.source, synapses, kinds, moved, delays))
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
        """(..., neurons) values in the order of neurons."""
        if self.order is None:
            return values
        channels, rows, columns = self.layer.shape
        maps = values.reshape(*values.shape[:-1], rows, columns, channels)
        return np.moveaxis(maps, -1, -3).reshape(values.shape)


def _between(source: Ints | None, target: Ints | None) -> Ints | None:
    """Where in the order `source` the neurons of the order `target` are; None if there."""
    if source is None and target is None:
        return None
    size = len(source if source is not None else target)  # type: ignore[arg-type]
    places = np.arange(size) if source is None else np.argsort(source)
    found = places if target is None else places[target]
    return None if np.array_equal(found, np.arange(size)) else found


def _drive(bias: Ints) -> Int32s:
    return (bias.clip(-LARGEST_DRIVE, LARGEST_DRIVE) << STATE_SHIFT).astype(np.int32)


_prepared: WeakKeyDictionary[Network, list[_Prepared]] = WeakKeyDictionary()


def prepare(network: Network) -> list[_Prepared]:
    """The network laid out for the kernels; kept as long as the network is."""
    if network not in _prepared:
        orders: dict[str, Ints | None] = {INPUT: None}
        layers = []
        for layer in network.layers:
            layers.append(_Prepared(layer, orders, network.message_bits > 0))
            orders[layer.name] = layers[-1].order
        _prepared[network] = layers
    return _prepared[network]


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
) -> Result:
    """Simulate samples from rest; arguments as of every backend's `run` (`simulate`)."""
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
            np.zeros((len(layers), 5), np.int64),
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
            # The results are waited for: map cancels what is left when one fails.
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
                for prepared, (spikes, _, _, sops, returned) in zip(layers, totals)
            ),
        ),
        fired={
            prepared.layer.name: prepared.in_order(np.sum(spikes, axis=0))
            for prepared, spikes in zip(layers, zip(*(worker.fired for worker in workers)))
            if prepared.layer.neuron.fires
        },
        overflows={
            prepared.layer.name: (wraps, clips)
            for prepared, (_, wraps, clips, *_) in zip(layers, totals)
        },
        u=kept["u"],
        v={name: kept["v"][name] for name in states},
    )


def _chunk(layers: list[_Prepared], samples: int, steps: int) -> int:
    """How many samples to run at a time: as memory says, but all lanes of a vector."""
    bytes_each = sum(p.layer.neurons for p in layers) + max(p.width * p.item for p in layers)
    fitting = CHUNK_BYTES // (steps * bytes_each)
    return min(-(-samples // THREADS), max(fitting, -(-LANES // steps)))


@dataclass(eq=False)
class _Worker:
    """What runs chunks, one after the other, in memory of its own.

    Attributes:
        layers, inputs: all of them, and of all samples.
        kept: "spikes", "u" and "v" -> layer name -> (samples, T, neurons), to be filled.
        decisions: (samples,), to be filled.
        totals: (layers, 5) int64, what each layer did so far: spikes, wraps of u, clips
            of v, synaptic operations, spikes that came back to it.
        fired: for each layer (neurons,) int64, what each neuron fired so far; as they lie in
            the kernels' order.
        input_spikes: that arrived so far.
        memory: see `_scratch`.
        arriving, spikes: source -> (n, T, neurons) of the present chunk, and how many.
    """

    layers: list[_Prepared]
    inputs: Array
    kept: Mapping[str, Mapping[str, Array]]
    decisions: Ints
    totals: Ints
    fired: Sequence[Ints]
    input_spikes: int = 0
    memory: dict[str, Array] = field(default_factory=dict)
    arriving: dict[str, Array] = field(default_factory=dict)
    spikes: dict[str, int] = field(default_factory=dict)

    def run(self, here: slice) -> None:
        """Run the samples `here` through all layers."""
        inputs = self.inputs[here]
        if not inputs.flags.writeable:  # numba would compile anew
            inputs = inputs.copy()
        self.arriving = {INPUT: inputs}
        # numpy counts booleans much faster.
        counted = inputs.view(bool) if inputs.dtype == np.uint8 else inputs
        self.spikes = {INPUT: int(np.count_nonzero(counted))}
        self.input_spikes += self.spikes[INPUT]
        for prepared, total, fired in zip(self.layers, self.totals, self.fired):
            name, before = prepared.layer.name, int(total[0])
            outputs = self._layer(prepared, here, total, fired)
            self.arriving[name] = outputs["spikes"]
            self.spikes[name] = int(total[0]) - before
        ordered = {what: prepared.in_order(values) for what, values in outputs.items()}
        self.decisions[here] = decide(prepared.layer, **ordered)

    def _layer(
        self, prepared: _Prepared, here: slice, total: Ints, fired: Ints
    ) -> dict[str, Array]:
        """Spikes of a layer for the samples `here`, and u and v where somebody needs them."""
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
            needed += decisive(prepared.layer, shape[1])
        outputs = {}
        for what, kept in self.kept.items():
            dtype = np.uint8 if what == "spikes" else np.int32
            if name in kept and prepared.order is None:
                outputs[what] = kept[name][here]
            elif name in kept or what in needed:
                outputs[what] = self._scratch(f"{what} of {name}", shape, dtype)
        run_neurons(
            sums,
            STATE_SHIFT + prepared.unit - 1,  # a unit is 1 or 2, no or one bit more
            injected,
            *prepared.neuron,
            prepared.layer.neuron.refractory,
            *prepared.recurrent,
            outputs["spikes"],
            outputs.get("u", _NO_TRACE),
            outputs.get("v", _NO_TRACE),
            total,
            fired,
        )
        if prepared.order is not None:
            for what, kept in self.kept.items():
                if name in kept:
                    kept[name][here] = prepared.in_order(outputs[what])
        return outputs

    def _sums(self, prepared: _Prepared, total: Ints) -> Array:
        """(samples, T, width) weighted input of a layer, but for the recurrent one."""
        shape = (*self.arriving[INPUT].shape[:2], prepared.width)
        sample_steps = shape[0] * shape[1]
        sums = self._scratch("sums", shape, np.int16 if prepared.item == 2 else np.int32)
        if not prepared.parts:
            sums[:] = 0
        neurons = prepared.layer.neurons
        for index, part in enumerate(prepared.parts):
            own = self._scratch("further", shape, sums.dtype.type) if index else sums
            coming = self.arriving[part.source]
            rate = self.spikes[part.source] / sample_steps
            kind = part.synapses.cheapest(part.kinds, own.itemsize, rate, sample_steps)
            total[3] += part.synapses.add(kind, coming, own)
            if part.synapses.connections.shares:
                total[1] += _wrap(own[:, :, :neurons], part.synapses.bound, coming)
            if part.place is not None:
                own[:, :, :neurons] = own[:, :, part.place]
            if part.delays is not None:
                delay(own, part.delays)
            if index:
                sums[:, :, :neurons] += own[:, :, :neurons]
        return sums

    def _scratch(self, what: str, shape: tuple[int, ...], dtype: type) -> Array:
        """An array in this worker's memory; one of the same name before is overwritten."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if what not in self.memory or self.memory[what].size < size:
            self.memory[what] = np.empty(size, np.uint8)
        return self.memory[what][:size].view(dtype).reshape(shape)


def _wrap(sums: Array, bound: int, coming: Array) -> int:
    """Wrap the sums of a convolution around at 24 bits, in place; how many were."""
    if coming.dtype != np.uint8:
        bound *= int(np.abs(coming.astype(np.int64)).max())
    if bound < CONV_LIMIT:
        return 0
    wrapped = (sums << 8) >> 8
    changed = int((wrapped != sums).sum())
    sums[:] = wrapped
    return changed
