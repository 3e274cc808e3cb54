"""The complexity metrics of NeuroBench, from our counts and networks.

Definitions of neurobench 2.3.0 (Yik et al., "NeuroBench", Nature Communications 2025;
`neurobench/metrics/`); a test compares them with that package on the same networks and data.
They are independent of hardware: all zeros are left out of effective operations, and all
kept in the footprint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from esl_lava.arrays import Array
from esl_lava.arrivals import by_steps_left, crossed, fan_out
from esl_lava.counts import Counts
from esl_lava.errors import DataError
from esl_lava.network import INPUT, Network


@dataclass(frozen=True)
class SynapticOperations:
    """Operations of a mean sample, summed over steps; those of a bias are not counted.

    Attributes:
        effective_macs: non-zero inputs times non-zero weights, where inputs are graded.
        effective_acs: the same where they are -1, 0 and 1.
        dense: of all inputs and weights, zero or not.
    """

    effective_macs: float
    effective_acs: float
    dense: float


def synaptic_operations(
    network: Network, counts: Counts, inputs: Array | None = None
) -> SynapticOperations:
    """NeuroBench's `synaptic_operations`, a step of all samples being one call.

    Whether inputs are graded is decided by their values in each call, as there. NeuroBench
    counts what goes into a torch layer: where a delay stands before the layer that weighs its
    spikes, what arrives within the sample, as we do; where it stands behind, all that is sent.

    Args:
        network: the one that was run.
        counts: of its run on `inputs`.
        inputs: (samples, T, inputs) integers; needed where the network takes graded ones.

    Raises:
        DataError: when `inputs` are not those that were counted, or missing.
    """
    if inputs is None:
        if network.message_bits:
            raise DataError("operations on graded inputs are told apart by their values: give them")
        inputs = np.zeros((counts.samples, counts.steps, 0), np.uint8)
    given = np.asarray(inputs)
    given = given.reshape(*given.shape[:2], int(np.prod(given.shape[2:])))
    if given.shape[:2] != (counts.samples, counts.steps):
        raise DataError(
            f"inputs of {given.shape[0]} samples and {given.shape[1]} steps are not those of a "
            f"run of {counts.samples} and {counts.steps}"
        )
    macs = 0
    graded = np.any(np.abs(given.astype(np.int64)) > 1, axis=(0, 2))
    active = np.count_nonzero(given, axis=0) * graded[:, None]  # (T, n)
    for layer in network.layers:
        for coming in layer.inputs:
            if coming.source == INPUT and graded.any():
                synapses = fan_out(coming.connections, layer.late(coming))
                macs += int(crossed(by_steps_left(active, len(synapses)), synapses))
    return SynapticOperations(
        effective_macs=macs / counts.samples,
        effective_acs=(counts.sops - macs) / counts.samples,
        dense=float(counts.possible_connections * counts.steps),
    )


def metrics(network: Network, counts: Counts) -> dict[str, float]:
    """All metrics of a network of spikes, under NeuroBench's names.

    Raises:
        DataError: for a network of graded inputs, as `synaptic_operations`.
    """
    return {
        "footprint": footprint(network),
        "connection_sparsity": connection_sparsity(network),
        "activation_sparsity": activation_sparsity(network, counts),
        **asdict(synaptic_operations(network, counts)),
    }


def activation_sparsity(network: Network, counts: Counts) -> float:
    """Share of neurons' outputs, over all steps and samples, that are no spike.

    Of layers that fire; 0 where there is none.
    """
    firing = {layer.name for layer in network.layers if layer.neuron.fires}
    layers = [layer for layer in counts.layers if layer.name in firing]
    outputs = sum(layer.neuron_updates for layer in layers)
    if outputs == 0:
        return 0.0
    return (outputs - sum(layer.spikes for layer in layers)) / outputs


def connection_sparsity(network: Network) -> float:
    """Share of weights that are 0, of a shared kernel each once, to four decimals.

    NeuroBench divides in float32; so does this.
    """
    possible = sum(kind.possible for kind in network.wiring)
    if possible == 0:
        return 0.0
    zeros = possible - sum(kind.nonzero for kind in network.wiring)
    return round(float(np.float32(zeros) / np.float32(possible)), 4)


def footprint(network: Network) -> int:
    """Bytes of all weights, zeros included, and of all biases, 4 each as float32 of PyTorch.

    A bias is one value for each neuron, or for each channel where those of a channel are
    the same.
    """
    values = sum(kind.possible for kind in network.wiring)
    for layer in network.layers:
        if layer.bias is not None:
            channels = layer.bias.reshape(layer.shape[0], -1)
            shared = (channels == channels[:, :1]).all()
            values += len(channels) if shared else layer.neurons
    return 4 * values
