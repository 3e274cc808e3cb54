"""Split the fan-in of a layer into parts if a neuron's fan-in exceeds a core.

The synapses of a neuron lie on the neuron's own core. There are two ways to spread them over
several cores. Both give the same integers (on the host: if no v clips):

- *by the host*: a readout that only sums, without decay, lies on several cores, each with a part
  of the fan-in. The host reads its potentials in any case, and adds them.
- *by neurons*: added neurons sum a part each of the fan-in of one neuron. They send the sum of a
  step as a graded spike (as Lava's `GradedVec`). The neuron receives it with a weight of 1, one
  step later. This needs spikes that carry a value: Loihi 2.

Binary spikes cannot carry a sum. On Loihi 1 a layer that fires cannot be spread.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.chip import DECAY_UNITY, NEVER, SPIKE_RANGE
from esl_lava.mapping.regions import maps
from esl_lava.mapping.synapse_lists import distinct_lists, first_equal, synapses_of_outputs
from esl_lava.network import (
    INPUT,
    PARAMETERS,
    Connections,
    Convolution,
    Cuba,
    Input,
    Layer,
    Matrix,
    Network,
)

LARGEST = 1 << 26
"""The most positions of a layer's kernels in parts: a quarter of a gigabyte."""

SUMMING = Cuba(current_decay=DECAY_UNITY, voltage_decay=DECAY_UNITY, threshold=1)
"""Model of a neuron that sends the sum of its input of a step. It keeps no state."""


def host_fault(layer: Layer) -> str | None:
    """Return why the host cannot add the parts of a layer, or None if it can."""
    neuron = layer.neuron
    if neuron.fires:
        return "its neurons fire"
    if np.any(np.asarray(neuron.voltage_decay) > 0) or not np.all(
        np.isin(neuron.current_decay, (0, DECAY_UNITY))
    ):
        return "its neurons decay with rounding"
    return _structure_fault(layer)


def neurons_fault(layer: Layer, network: Network, bits: int | None) -> str | None:
    """Return why neurons that sum parts of the fan-in cannot be added, or None if they can.

    Args:
        layer: a layer of the network.
        network: the network, which gives the range of inputs.
        bits: bits of the value that a spike carries, with its sign; None if it carries none.
    """
    if bits is None:
        return "spikes of this chip carry no value"
    most = largest_sum(layer, network)
    if most.bit_length() >= bits:  # a device file may say any number of bits
        return f"a sum may reach {most:,}, which a spike of {bits} bits cannot carry"
    return _structure_fault(layer)


def _structure_fault(layer: Layer) -> str | None:
    """Return why the inputs of a layer cannot be split, or None if they can."""
    if layer.recurrent is not None:
        return "its neurons are recurrent"
    if any(kind.injects for kind in layer.wiring):
        return "its input is injected"
    return None


def largest_sum(layer: Layer, network: Network) -> int:
    """Return an upper bound of |weighted input| of a neuron, or a part of its input, in a step."""
    low = high = 0
    for incoming in layer.inputs:
        negative, positive = incoming.connections.signed_sums()
        least, most = network.input_range if incoming.source == INPUT else SPIKE_RANGE
        up, down = max(most, 0), max(-least, 0)
        low += int((down * positive - up * negative).max())
        high += int((up * positive - down * negative).max())
    return max(low, high)


def host_is_proven(layer: Layer, network: Network) -> bool:
    """Return whether steps and weights prove that the v of every part stays in its range."""
    if network.steps is None:
        return False
    bias = 0 if layer.bias is None else int(np.abs(layer.bias.astype(np.int64)).max())
    summed = network.steps if np.any(np.asarray(layer.neuron.current_decay) == 0) else 1
    return network.steps * (summed * largest_sum(layer, network) + bias) < NEVER


def fan_in(layer: Layer) -> int:
    """Return an upper bound of the synapses of the neuron with the most synapses."""
    return sum(int(synapses_of_outputs(kind).max()) for kind in layer.wiring)


def most_parts(layer: Layer) -> int:
    """Return the most parts that a fan-in can have: its input channels, or inputs of a matrix.

    A kernel in n parts is n times as large. Its size is limited to `LARGEST`.
    """
    kernels = sum(
        kind.possible * kind.groups for kind in layer.wiring if isinstance(kind, Convolution)
    )
    units = sum(len(_unit_loads(kind)) for kind in layer.wiring)
    return min(units, LARGEST // kernels) if kernels else units


def unlike(layer: Layer) -> float:
    """Return the share of inputs, or kernel positions, that a spiking pool in front would leave.

    Those with equal weights count once, because the inputs of a folded pool have equal weights. The
    share is 1 if the layer has several inputs.
    """
    if len(layer.inputs) > 1:
        return 1.0
    kind = layer.inputs[0].connections
    if isinstance(kind, Convolution):
        along = [len(set(first_equal(kind.kernel, axis))) for axis in (2, 3)]
        return math.prod(along) / math.prod(kind.kernel.shape[2:])
    matrix = kind.unrolled()
    present = matrix.weights != 0
    pre, post = matrix.indices[present], matrix.rows()[present]
    weights = matrix.weights[present]
    order = np.lexsort((post, pre))
    owner = np.cumsum(np.diff(pre[order], prepend=-1) > 0) - 1
    return float(distinct_lists(owner, post[order], weights[order]).mean())


def on_the_host(layer: Layer, parts: int) -> Layer:
    """Return a layer with one copy of its neurons for each part of its fan-in.

    The neurons have the order (part, neuron), or (part, channel, row, column) in feature maps. The
    first copy has the bias.
    """
    bias = layer.bias
    if bias is not None:
        bias = np.concatenate([bias, np.zeros((parts - 1) * layer.neurons, np.int32)])
    return Layer(layer.name, _in_parts(layer, parts), _repeated(layer.neuron, parts), bias)


def by_neurons(layer: Layer, parts: int, name: str) -> tuple[Layer, Layer]:
    """Return a layer of sums called `name`, ordered as in `on_the_host`, and the layer it feeds."""
    sums = Layer(name, _in_parts(layer, parts), SUMMING)
    wide, rows, columns = maps(layer.shape)
    weights = np.tile(np.eye(wide, dtype=np.int32), parts)
    join: Connections = Matrix.from_dense(weights, weights != 0)
    if len(layer.shape) == 3:
        kernel = weights[:, :, None, None]
        join = Convolution(kernel, (parts * wide, rows, columns), allowed=kernel != 0)
    return sums, replace(layer, inputs=(Input(name, join),))


def _repeated(neuron: Cuba, parts: int) -> Cuba:
    """Return the parameters of every neuron, or channel, repeated for each part."""
    lists: dict[str, Any] = {
        name: np.tile(value, parts)
        for name in PARAMETERS
        if np.ndim(value := getattr(neuron, name))
    }
    return replace(neuron, **lists)


def _in_parts(layer: Layer, parts: int) -> tuple[Input, ...]:
    """Return the inputs of a layer of neurons (part, neuron).

    Each part has a range of the input channels, or of the inputs of a matrix.

    The cuts give each part about the same number of synapses, summed over all inputs.
    """
    loads = [_unit_loads(kind) for kind in layer.wiring]
    before = np.cumsum(np.concatenate([[0], *loads]))
    cuts = np.searchsorted(before, before[-1] * np.arange(1, parts) / parts)
    bounds = np.concatenate([[0], cuts, [len(before) - 1]])
    inputs, first = [], 0
    for incoming, load in zip(layer.inputs, loads):
        ranges = np.clip(bounds - first, 0, len(load)).tolist()
        pairs = list(pairwise(ranges))
        delays = None if incoming.delays is None else np.tile(incoming.delays, parts)
        inputs.append(Input(incoming.source, _cut(incoming.connections, pairs), delays))
        first += len(load)
    return tuple(inputs)


def _unit_loads(kind: Connections) -> Ints:
    """Count the weights that are not 0 for each input channel of a kernel or input of a matrix."""
    if not isinstance(kind, Convolution):
        return kind.fan_out()
    used = np.count_nonzero(kind.kernel, axis=(2, 3)).reshape(kind.groups, -1, kind.kernel.shape[1])
    return np.asarray(used.sum(axis=1)).ravel()


def _cut(kind: Connections, ranges: list[tuple[int, int]]) -> Connections:
    """Return connections onto (range, output), each with the inputs or channels of its range."""
    if isinstance(kind, Convolution):
        return _cut_kernel(kind, ranges)
    matrix = kind.unrolled()
    parts = len(ranges)
    part = np.searchsorted([high for _, high in ranges], matrix.indices, side="right")
    order = np.argsort(part.astype(np.uint16 if parts < 1 << 16 else np.int64), kind="stable")
    sizes = np.bincount(part * matrix.n_post + matrix.rows(), minlength=parts * matrix.n_post)
    return Matrix(
        parts * matrix.n_post,
        matrix.n_pre,
        np.concatenate([[0], np.cumsum(sizes)]),
        matrix.indices[order],
        matrix.weights[order],
    )


def _cut_kernel(kind: Convolution, ranges: list[tuple[int, int]]) -> Convolution:
    """Return a kernel onto (range, channel), each with the input channels of its range."""
    kernel, allowed = (_ungrouped(part, kind.groups) for part in (kind.kernel, kind.mask()))
    inside = np.zeros((len(ranges), 1, kernel.shape[1], 1, 1), bool)
    for one, (low, high) in zip(inside, ranges):
        one[:, low:high] = True
    shape = (-1, *kernel.shape[1:])
    return replace(
        kind,
        kernel=(kernel * inside).reshape(shape),
        allowed=(allowed * inside).reshape(shape),
        groups=1,
    )


def _ungrouped(part: Array, groups: int) -> Array:
    """Return (outputs, all input channels, rows, columns) of a grouped kernel, or its mask."""
    each, share = len(part) // groups, part.shape[1]
    whole = np.zeros((len(part), groups * share, *part.shape[2:]), part.dtype)
    for group in range(groups):
        rows, columns = (slice(group * n, (group + 1) * n) for n in (each, share))
        whole[rows, columns] = part[rows]
    return whole
