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

from esl_lava.counts import Counts
from esl_lava.devices import Device, MemoryPrice
from esl_lava.errors import ConfigError, DataError

DENSE = "dense"
SPARSE = "sparse"


@dataclass(frozen=True)
class Load:
    """What one sample does to one layer.

    Attributes:
        name: the layer's.
        inputs, neurons: sizes of its input and output maps.
        macs: multiply-accumulates of one dense pass.
        positions: of the matrix or kernel: weights that are stored where zeros are too.
        nonzero: weights that are not 0.
        targets: positions a stored weight of one input can name.
        steps: T.
        in_spikes, out_spikes: theta_in, theta_out, summed over T.
        sops: synaptic operations: spikes times existing synapses.
        dense_sops: spikes times the synapses there would be if nothing were pruned.
        convolution, bias, leaky: what kind of layer it is.
    """

    name: str
    inputs: int
    neurons: int
    macs: int
    positions: int
    nonzero: int
    targets: int
    steps: int
    in_spikes: float
    out_spikes: float
    sops: float
    dense_sops: float
    convolution: bool = False
    bias: bool = True
    leaky: bool = False

    @property
    def index_bits(self) -> int:
        """Bits of the index beside a weight stored alone."""
        return max(1, math.ceil(math.log2(self.targets)))


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
    """One sample's mean load of every layer.

    Args:
        counts: with details (`energy.detail.detailed`).

    Raises:
        DataError: without them.
    """
    if len(counts.details) != len(counts.layers):
        raise DataError("memory cannot be charged: the counts carry no details of the layers")
    found = []
    for layer, detail in zip(counts.layers, counts.details):
        rate = detail.in_spikes / counts.samples
        found.append(
            Load(
                name=layer.name,
                inputs=detail.inputs,
                neurons=layer.neurons,
                macs=layer.possible_connections,
                positions=layer.possible,
                nonzero=detail.nonzero,
                targets=detail.targets,
                steps=counts.steps,
                in_spikes=rate,
                out_spikes=layer.spikes / counts.samples,
                sops=layer.sops / counts.samples,
                dense_sops=rate * detail.targets,
                convolution=detail.convolution,
                bias=detail.bias,
                leaky=detail.leaky,
            )
        )
    return found


def ann(load: Load, device: Device) -> LayerEnergy:
    """A dense layer of the same shape in an artificial network: one pass, no zeros skipped.

    Inputs are read Nin times (Eq. 4), or once for every product of a convolution (Eq. 3),
    weights once for every product (Eq. 6), outputs written once (Eq. 11, 12).

    Args:
        load: of which only sizes count.
        device: charged for memory.
    """
    bank = _Bank(device)
    reads = load.macs if load.convolution else load.inputs
    addresses = float(load.macs)
    if load.convolution:
        addresses = load.inputs + load.neurons + load.targets
    biases = load.neurons if load.bias else 0
    return LayerEnergy(
        name=load.name,
        weights=bank.access(load.macs, bank.bits * load.positions),
        potential=0.0,
        bias=bank.access(biases, bank.bits * biases),
        io=bank.access(reads, bank.bits * load.inputs)
        + bank.access(load.neurons, bank.bits * load.neurons),
        operations=bank.operations(load.macs, biases),
        addressing=bank.operations(0, addresses),
        storage=DENSE,
        extrapolated=bank.extrapolates(bank.bits * max(load.positions, load.inputs, load.neurons)),
    )


def snn(load: Load, device: Device, storage: str | None = None) -> LayerEnergy:
    """A layer of a spiking network, event by event.

    Args:
        load: of one sample.
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
    events = load.sops if storage == SPARSE else load.dense_sops
    width = bank.bits + (load.index_bits if storage == SPARSE else 0)
    stored = width * (load.nonzero if storage == SPARSE else load.positions)
    every_step = load.steps * load.neurons
    biases = every_step if load.bias else 0
    # Read and written for every synaptic operation and at every step (Eq. 9, 10, 14, 15).
    potentials = 2 * (events + every_step)
    accumulations = events + biases + load.out_spikes
    return LayerEnergy(
        name=load.name,
        weights=bank.access(events, stored, width),
        potential=bank.access(potentials, bank.bits * load.neurons),
        bias=bank.access(biases, bank.bits * (load.neurons if load.bias else 0)),
        io=bank.access(load.in_spikes + load.out_spikes, 0),  # through a FIFO of size 0
        operations=bank.operations(every_step if load.leaky else 0, accumulations),
        addressing=bank.operations(2 * load.in_spikes if load.convolution else 0, events),
        storage=storage,
        extrapolated=bank.extrapolates(max(stored, bank.bits * load.neurons)),
    )


class _Bank:
    """Prices of a device charged for memory, in joules."""

    def __init__(self, device: Device) -> None:
        if device.memory is None:
            raise ConfigError(f"device {device.name} states no price of memory accesses")
        self._memory: MemoryPrice = device.memory
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
