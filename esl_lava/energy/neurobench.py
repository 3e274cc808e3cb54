"""Compute the complexity metrics of NeuroBench from counts and networks of esl-lava.

The definitions are those of neurobench 2.3.0 (Yik et al., "NeuroBench", Nature Communications 2025;
`neurobench/metrics/`). A test compares the results with that package on the same networks and
data. The metrics are independent of hardware: effective operations omit all zeros, and the
footprint includes all zeros.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from esl_lava.arrays import Array
from esl_lava.arrivals import count_by_steps_left, crossed, fan_out
from esl_lava.counts import Counts
from esl_lava.errors import DataError
from esl_lava.network import INPUT, Network


@dataclass(frozen=True)
class SynapticOperations:
    """The operations of a mean sample, summed over steps, without operations on a bias.

    Attributes:
        effective_macs: products of non-zero inputs and non-zero weights, in the steps in which
            the network's input is graded.
        effective_acs: the same number in the other steps, and for the spikes of layers.
        dense: operations of all inputs and weights, zeros included.
    """

    effective_macs: float
    effective_acs: float
    dense: float


def synaptic_operations(
    network: Network, counts: Counts, inputs: Array | None = None
) -> SynapticOperations:
    """Compute NeuroBench's `synaptic_operations`. One step of all samples is one call.

    The values of the inputs in each call decide whether inputs are graded, as in NeuroBench.
    NeuroBench counts the inputs of a torch layer. If a delay lies in front of the layer that
    weights its spikes, it counts the spikes that arrive within the sample, as this function does.
    If the delay lies behind that layer, it counts all spikes that are sent.

    Args:
        network: the network that was run.
        counts: counts of its run on `inputs`.
        inputs: (samples, T, inputs) integers. They are needed if the network takes graded inputs.

    Raises:
        DataError: if `inputs` are missing, or have another number of samples or steps than the
            run.
    """
    if inputs is None:
        if network.message_bits:
            raise DataError(
                "inputs: the values of graded inputs decide the kind of operation, but are missing",
                "missing",
                key="inputs",
            )
        inputs = np.zeros((counts.samples, counts.steps, 0), np.uint8)
    values = np.asarray(inputs)
    values = values.reshape(*values.shape[:2], int(np.prod(values.shape[2:])))
    if values.shape[:2] != (counts.samples, counts.steps):
        raise DataError(
            f"inputs: {values.shape[0]} samples of {values.shape[1]} steps do not match the counts "
            f"of {counts.samples} samples of {counts.steps} steps",
            "mismatch",
            key="inputs",
            value=values.shape[:2],
            limit=(counts.samples, counts.steps),
        )
    macs = 0
    graded = np.any(np.abs(values.astype(np.int64)) > 1, axis=(0, 2))
    active = np.count_nonzero(values, axis=0) * graded[:, None]  # (T, n)
    for layer in network.layers:
        for incoming in layer.inputs:
            if incoming.source == INPUT and graded.any():
                synapses = fan_out(incoming.connections, layer.late(incoming))
                macs += int(crossed(count_by_steps_left(active, len(synapses)), synapses))
    return SynapticOperations(
        effective_macs=macs / counts.samples,
        effective_acs=(counts.sops - macs) / counts.samples,
        dense=float(counts.possible_connections * counts.steps),
    )


def metrics(network: Network, counts: Counts) -> dict[str, float]:
    """Compute all metrics of a network with binary inputs, under NeuroBench's names.

    Raises:
        DataError: if the network takes graded inputs.
    """
    return {
        "footprint": footprint(network),
        "connection_sparsity": connection_sparsity(network),
        "activation_sparsity": activation_sparsity(network, counts),
        **asdict(synaptic_operations(network, counts)),
    }


def activation_sparsity(network: Network, counts: Counts) -> float:
    """Compute the share of outputs of firing layers, over all steps and samples, without a spike.

    It is 0 if no layer fires.
    """
    firing = {layer.name for layer in network.layers if layer.neuron.fires}
    layers = [layer for layer in counts.layers if layer.name in firing]
    outputs = sum(layer.neuron_updates for layer in layers)
    if outputs == 0:
        return 0.0
    return (outputs - sum(layer.spikes for layer in layers)) / outputs


def connection_sparsity(network: Network) -> float:
    """Compute the share of positions whose weight is 0 or pruned, to four decimals.

    A position of a kernel counts once. The division is in float32, as in NeuroBench.
    """
    possible = sum(kind.possible for kind in network.wiring)
    if possible == 0:
        return 0.0
    zeros = possible - sum(kind.nonzero for kind in network.wiring)
    return round(float(np.float32(zeros) / np.float32(possible)), 4)


def footprint(network: Network) -> int:
    """Compute the bytes of the weights at all positions, zeros included, and of all biases.

    Each value has 4 bytes, as float32 in PyTorch. A layer has one bias for each neuron, or one for
    each channel if all neurons of a channel have the same bias.
    """
    values = sum(kind.possible for kind in network.wiring)
    for layer in network.layers:
        if layer.bias is not None:
            channels = layer.bias.reshape(layer.shape[0], -1)
            shared = (channels == channels[:, :1]).all()
            values += len(channels) if shared else layer.neurons
    return 4 * values
