"""Operations and memory accesses of a layer, after Lemaire et al. 2022.

The equations are those of E. Lemaire et al., "An Analytical Estimation of Spiking Neural Networks
Energy Efficiency" (arXiv 2210.13107), as implemented in the code of their laboratory
(qualia-plugin-snn, `postprocessing/EnergyEstimationMetric.py`). The equation numbers are those in
the docstrings of that code. The cost of a memory access depends on the size of the memory, and the
cost of an operation depends on its kind.

This module differs from that code in four points. Storage `DENSE` restores the first:
- A spike costs the synapses that it really crosses (SOPs), not Nout or Cout x K synapses. Weights
  are stored without zeros and with an index each, if this is cheaper.
- The accumulations of a fully connected layer are theta_in x Nout + T x Nout + theta_out. Eq. 2.4
  of the paper counts them Nin times and omits the reset, as the authors of the code state.
- Addressing is theta_in x Nout (Eq. 17.2) and theta_in x Cout x K (Eq. 16.3). The code computes a
  smaller number in both cases.
- Operations on a bias are counted only if the layer has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from esl_lava.counts import Counts, LayerCounts, LayerDetail
from esl_lava.devices import Device
from esl_lava.errors import ConfigError, DataError, shorten

DENSE = "dense"
SPARSE = "sparse"


@dataclass(frozen=True)
class Load:
    """The counts of a layer, and the numbers of a mean sample that follow from them.

    Attributes:
        layer, detail: counts of the layer in a run.
        samples: number of samples of that run.
        steps: T, the steps of a sample.
    """

    layer: LayerCounts
    detail: LayerDetail
    samples: int
    steps: int

    @property
    def in_spikes(self) -> float:
        """theta_in: input spikes of a mean sample, summed over T."""
        return self.detail.in_spikes / self.samples

    @property
    def out_spikes(self) -> float:
        """theta_out: output spikes of a mean sample, summed over T."""
        return self.layer.spikes / self.samples

    @property
    def index_bits(self) -> int:
        """Bits of the index that sparse storage keeps with each weight."""
        return max(1, math.ceil(math.log2(self.detail.targets)))


@dataclass(frozen=True)
class LayerEnergy:
    """The energy of a layer for one sample, in joules.

    Attributes:
        name: name of the layer.
        weights, potential, bias, io: energy of accesses to these memories; io is the memory of
            inputs and outputs.
        operations, addressing: energy of computing the neurons and synapses, and the addresses.
        storage: "dense" or "sparse", how weights are stored.
        extrapolated: whether a memory is larger than the largest one with a known price.
    """

    name: str
    weights: float
    potential: float
    bias: float
    io: float
    operations: float
    addressing: float
    storage: str
    extrapolated: bool

    @property
    def total(self) -> float:
        """Sum of all parts, in joules."""
        memory = self.weights + self.potential + self.bias + self.io
        return memory + self.operations + self.addressing


def loads(counts: Counts) -> list[Load]:
    """Return the load of every layer.

    Raises:
        DataError: if the counts lack the details that `energy.detail.add_details` adds.
    """
    if len(counts.details) != len(counts.layers):
        raise DataError(
            "counts: the details of the layers, which a memory model needs, are missing",
            "missing",
            key="counts",
        )
    return [
        Load(layer, detail, counts.samples, counts.steps)
        for layer, detail in zip(counts.layers, counts.details)
    ]


def ann(load: Load, device: Device) -> LayerEnergy:
    """Compute the energy of a dense artificial layer of the same shape in one pass.

    No zeros are skipped. Inputs are read Nin times (Eq. 4), or once for every product of a
    convolution (Eq. 3). Weights are read once for every product (Eq. 6). Outputs are written once
    (Eq. 11, 12).

    Args:
        load: the layer, of which only the sizes count.
        device: a device that is charged for memory.

    Raises:
        ConfigError: if the device is not charged for memory, or states no `add` or `multiply`.
    """
    bank = _Bank(device)
    layer, detail = load.layer, load.detail
    neurons, macs = layer.neurons, layer.possible_connections
    reads = macs if detail.convolution else detail.inputs
    addresses = detail.inputs + neurons + detail.targets if detail.convolution else macs
    biases = neurons if detail.bias else 0
    return LayerEnergy(
        name=layer.name,
        weights=bank.access(macs, bank.bits * detail.positions),
        potential=0.0,
        bias=bank.access(biases, bank.bits * biases),
        io=bank.access(reads, bank.bits * detail.inputs)
        + bank.access(neurons, bank.bits * neurons),
        operations=bank.operations(macs, biases),
        addressing=bank.operations(0, addresses),
        storage=DENSE,
        extrapolated=bank.extrapolates(bank.bits * max(detail.positions, detail.inputs, neurons)),
    )


def snn(load: Load, device: Device, storage: str | None = None) -> LayerEnergy:
    """Compute the energy of a spiking layer from its events.

    Args:
        load: the load of a mean sample.
        device: a device that is charged for memory.
        storage: "dense" stores every position, and a spike reads its whole row with zeros (the
            authors' setting); "sparse" stores the weights that are not 0, with an index each;
            None takes the cheaper of the two.

    Raises:
        ConfigError: if the storage is another, or the device is not charged for memory or states
            no `add` or `multiply`.
    """
    if storage is None:
        return min((snn(load, device, way) for way in (SPARSE, DENSE)), key=lambda e: e.total)
    if storage not in (DENSE, SPARSE):
        raise ConfigError(
            f"storage {shorten(storage)} is unknown; the known storages are {DENSE} and {SPARSE}",
            "unknown",
            key="storage",
            value=storage,
            limit=f"{DENSE}, {SPARSE}",
        )
    bank = _Bank(device)
    layer, detail = load.layer, load.detail
    if storage == SPARSE:
        events, width = layer.sops / load.samples, bank.bits + load.index_bits
        stored = width * detail.nonzero
    else:
        events, width = load.in_spikes * detail.targets, bank.bits
        stored = width * detail.positions
    every_step = load.steps * layer.neurons
    biases = every_step if detail.bias else 0
    # Potentials are read and written in every synaptic operation and step (Eq. 9, 10, 14, 15).
    potentials = 2 * (events + every_step)
    accumulations = events + biases + load.out_spikes
    return LayerEnergy(
        name=layer.name,
        weights=bank.access(events, stored, width),
        potential=bank.access(potentials, bank.bits * layer.neurons),
        bias=bank.access(biases, bank.bits * (layer.neurons if detail.bias else 0)),
        io=bank.access(load.in_spikes + load.out_spikes, 0),  # a FIFO of size 0
        operations=bank.operations(every_step if detail.leaky else 0, accumulations),
        addressing=bank.operations(2 * load.in_spikes if detail.convolution else 0, events),
        storage=storage,
        extrapolated=bank.extrapolates(max(stored, bank.bits * layer.neurons)),
    )


class _Bank:
    """Prices, in joules, of a device that is charged for memory."""

    def __init__(self, device: Device) -> None:
        if device.memory is None:
            raise ConfigError(
                f"device {device.name} states no [memory] prices, which this model needs",
                "unsupported",
                key="memory",
                value=device.name,
            )
        self._memory = device.memory
        self._add = device.event("add").value
        self._multiply = device.event("multiply").value
        self.bits = device.memory.value_bits

    def access(self, values: float, memory_bits: float, width: int | None = None) -> float:
        """Return the cost to move `values` values of `width` bits from or to a memory."""
        return self._memory.picojoules(values, width or self.bits, memory_bits) / 1e12

    def operations(self, macs: float, accumulations: float) -> float:
        """Return the cost of multiply-accumulates and accumulations."""
        return (macs * (self._multiply + self._add) + accumulations * self._add) / 1e12

    def extrapolates(self, memory_bits: float) -> bool:
        """Return whether a memory is larger than the largest one with a known price."""
        return memory_bits > 8 * self._memory.known_to_bytes
