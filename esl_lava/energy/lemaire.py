"""Operations and memory accesses of a layer, after Lemaire et al. 2022.

Equations of E. Lemaire et al., "An Analytical Estimation of Spiking Neural Networks Energy
Efficiency" (arXiv 2210.13107), as their laboratory's code has them (qualia-plugin-snn,
`postprocessing/EnergyEstimationMetric.py`); equation numbers are those its docstrings name.
An access costs by the size of the memory it hits; an operation by its kind.

Departures, of which `DENSE` takes back the first:
- A spike costs the synapses it really crosses (SOPs), not Nout or Cout x K of them, and
  weights are stored without zeros and with an index each, where that is cheaper.
- Accumulations of a fully connected layer are theta_in x Nout + T x Nout + theta_out; the
  paper's Eq. 2.4 counts them Nin times and leaves out the reset (the code's authors say so).
- Addressing is theta_in x Nout (Eq. 17.2) and theta_in x Cout x K (Eq. 16.3); their code
  computes something smaller in both cases.
- Operations on a bias are counted where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from esl_lava.counts import Counts, LayerCounts, LayerDetail
from esl_lava.devices import Device
from esl_lava.errors import ConfigError, DataError

DENSE = "dense"
SPARSE = "sparse"


@dataclass(frozen=True)
class Load:
    """A layer, and what a mean sample does to it.

    Attributes:
        layer, detail: counts of a run.
        samples: of that run.
        steps: T.
    """

    layer: LayerCounts
    detail: LayerDetail
    samples: int
    steps: int

    @property
    def in_spikes(self) -> float:
        """theta_in, summed over T."""
        return self.detail.in_spikes / self.samples

    @property
    def out_spikes(self) -> float:
        """theta_out, summed over T."""
        return self.layer.spikes / self.samples

    @property
    def index_bits(self) -> int:
        """Bits of the index beside a weight stored alone."""
        return max(1, math.ceil(math.log2(self.detail.targets)))


@dataclass(frozen=True)
class LayerEnergy:
    """Joules of a layer for one sample.

    Attributes:
        name: the layer's.
        weights, potential, bias, io: accesses to these memories; io are inputs and outputs.
        operations, addressing: arithmetic.
        storage: "dense" or "sparse", how weights are stored.
        extrapolated: whether a memory is larger than its price is known for.
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
        """All parts together, in joules."""
        memory = self.weights + self.potential + self.bias + self.io
        return memory + self.operations + self.addressing


def loads(counts: Counts) -> list[Load]:
    """The load of every layer.

    Raises:
        DataError: without the details that `energy.detail.detailed` finds.
    """
    if len(counts.details) != len(counts.layers):
        raise DataError("memory cannot be charged: the counts carry no details of the layers")
    return [
        Load(layer, detail, counts.samples, counts.steps)
        for layer, detail in zip(counts.layers, counts.details)
    ]


def ann(load: Load, device: Device) -> LayerEnergy:
    """A dense layer of the same shape in an artificial network: one pass, no zeros skipped.

    Inputs are read Nin times (Eq. 4), or once for every product of a convolution (Eq. 3),
    weights once for every product (Eq. 6), outputs written once (Eq. 11, 12).

    Args:
        load: of which only sizes count.
        device: charged for memory.
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
    """A layer of a spiking network, event by event.

    Args:
        load: of a mean sample.
        device: charged for memory.
        storage: "dense": every position is stored and a spike reads all of its row, zeros
            too (the authors' setting); "sparse": weights that are not 0, with an index each;
            None: the cheaper of the two.

    Raises:
        ConfigError: for another storage, or a device that is not charged for memory.
    """
    if storage is None:
        return min((snn(load, device, way) for way in (SPARSE, DENSE)), key=lambda e: e.total)
    if storage not in (DENSE, SPARSE):
        raise ConfigError(f"storage {storage!r} is not {DENSE} or {SPARSE}")
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
    # Read and written for every synaptic operation and at every step (Eq. 9, 10, 14, 15).
    potentials = 2 * (events + every_step)
    accumulations = events + biases + load.out_spikes
    return LayerEnergy(
        name=layer.name,
        weights=bank.access(events, stored, width),
        potential=bank.access(potentials, bank.bits * layer.neurons),
        bias=bank.access(biases, bank.bits * (layer.neurons if detail.bias else 0)),
        io=bank.access(load.in_spikes + load.out_spikes, 0),  # through a FIFO of size 0
        operations=bank.operations(every_step if detail.leaky else 0, accumulations),
        addressing=bank.operations(2 * load.in_spikes if detail.convolution else 0, events),
        storage=storage,
        extrapolated=bank.extrapolates(max(stored, bank.bits * layer.neurons)),
    )


class _Bank:
    """Prices of a device charged for memory, in joules."""

    def __init__(self, device: Device) -> None:
        if device.memory is None:
            raise ConfigError(f"device {device.name} states no price of memory accesses")
        self._memory = device.memory
        self._add = device.event("add").value
        self._multiply = device.event("multiply").value
        self.bits = device.memory.value_bits

    def access(self, values: float, memory_bits: float, width: int | None = None) -> float:
        """Moving `values` values of `width` bits from or to a memory of so many bits."""
        return self._memory.picojoules(values, width or self.bits, memory_bits) / 1e12

    def operations(self, macs: float, accumulations: float) -> float:
        """Multiply-accumulates and accumulations."""
        return (macs * (self._multiply + self._add) + accumulations * self._add) / 1e12

    def extrapolates(self, memory_bits: float) -> bool:
        """Whether a memory is larger than the price of an access is known for."""
        return memory_bits > 8 * self._memory.known_to_bytes
