"""Layers whose neurons have a larger fan-in than a core holds, in parts.

A neuron's synapses lie on its own core: what arrives there is what it adds up. Two ways lead past
that, which give the same integers:

- *by the host*: a readout that only sums, without a decay, lies on several cores, each with a part
  of its fan-in. The host, which reads its potentials anyway, adds them.
- *by neurons*: further neurons, each with a part of the fan-in of one neuron, send the sum of a
  step as a graded spike (as Lava's `GradedVec`), which their neuron takes with a weight of 1, one
  step later. It needs spikes that carry a value: Loihi 2.

Binary spikes cannot carry a sum: on Loihi 1 a layer that fires has no such way.
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
"""Positions of a layer's kernels in parts, at most: a quarter of a gigabyte."""

SUMMING = Cuba(current_decay=DECAY_UNITY, voltage_decay=DECAY_UNITY, threshold=1)
"""Stands for a neuron that sends the sum of its input: it forgets everything in each step."""


def host_fault(layer: Layer) -> str | None:
    """Why the host cannot add the parts of a layer, or None."""
    neuron = layer.neuron
    if neuron.fires:
        return "its neurons fire"
    if np.any(np.asarray(neuron.voltage_decay) > 0) or not np.all(
        np.isin(neuron.current_decay, (0, DECAY_UNITY))
    ):
        return "its neurons decay, which rounds"
    return _structure_fault(layer)


def neurons_fault(layer: Layer, network: Network, bits: int | None) -> str | None:
    """Why no further neurons can sum for a layer, or None.

    Args:
        layer: of the network.
        network: says how large inputs are.
        bits: of the value that a spike carries, its sign included, or None.
    """
    if bits is None:
        return "spikes of this chip carry no sums"
    most = largest_sum(layer, network)
    if most.bit_length() >= bits:  # a device file may say any number of bits
        return f"a sum may reach {most:,}, more than a spike of {bits} bits carries"
    return _structure_fault(layer)


def _structure_fault(layer: Layer) -> str | None:
    if layer.recurrent is not None:
        return "its neurons are recurrent"
    if any(kind.injects for kind in layer.wiring):
        return "its input is injected"
    return None


def largest_sum(layer: Layer, network: Network) -> int:
    """What the weighted input of a neuron, or of any part of it, cannot exceed in a step."""
    low = high = 0
    for given in layer.inputs:
        negative, positive = given.connections.signed_sums()
        least, most = network.input_range if given.source == INPUT else SPIKE_RANGE
        up, down = max(most, 0), max(-least, 0)
        low += int((down * positive - up * negative).max())
        high += int((up * positive - down * negative).max())
    return max(low, high)


def host_is_proven(layer: Layer, network: Network) -> bool:
    """Whether the steps and weights exclude that any part's v leaves its range."""
    if network.steps is None:
        return False
    bias = 0 if layer.bias is None else int(np.abs(layer.bias.astype(np.int64)).max())
    held = network.steps if np.any(np.asarray(layer.neuron.current_decay) == 0) else 1
    return network.steps * (held * largest_sum(layer, network) + bias) < NEVER


def fan_in(layer: Layer) -> int:
    """Synapses of the neuron that has most, at most."""
    return sum(int(synapses_of_outputs(kind).max()) for kind in layer.wiring)


def most_parts(layer: Layer) -> int:
    """Parts that a fan-in can have at most: of channels in front of a kernel, else of inputs.

    Kernels in parts are as many times as large: no larger ones are tried than `LARGEST`.
    """
    kernels = sum(
        kind.possible * kind.groups for kind in layer.wiring if isinstance(kind, Convolution)
    )
    units = sum(len(_of_units(kind)) for kind in layer.wiring)
    return min(units, LARGEST // kernels) if kernels else units


def unlike(layer: Layer) -> float:
    """The share of its inputs, or of its kernel's positions, that a spiking pool would leave.

    Those of a folded pool have the same weights; where several inputs feed the layer, all count.
    """
    if len(layer.inputs) > 1:
        return 1.0
    kind = layer.inputs[0].connections
    if isinstance(kind, Convolution):
        along = [len(set(first_equal(kind.kernel, axis))) for axis in (2, 3)]
        return math.prod(along) / math.prod(kind.kernel.shape[2:])
    matrix = kind.unrolled()
    there = matrix.weights != 0
    pre, post, weights = matrix.indices[there], matrix.rows()[there], matrix.weights[there]
    order = np.lexsort((post, pre))
    owner = np.cumsum(np.diff(pre[order], prepend=-1) > 0) - 1
    return float(distinct_lists(owner, post[order], weights[order]).mean())


def on_the_host(layer: Layer, parts: int) -> Layer:
    """A layer that lies on several cores, part by part; a neuron's bias is in the first.

    Neurons are counted (part, neuron), where there are maps (part, channel, row, column).
    """
    bias = layer.bias
    if bias is not None:
        bias = np.concatenate([bias, np.zeros((parts - 1) * layer.neurons, np.int32)])
    return Layer(layer.name, _in_parts(layer, parts), _repeated(layer.neuron, parts), bias)


def by_neurons(layer: Layer, parts: int, name: str) -> tuple[Layer, Layer]:
    """A layer of further neurons called `name`, counted as in `on_the_host`, and the layer."""
    sums = Layer(name, _in_parts(layer, parts), SUMMING)
    wide, rows, columns = maps(layer.shape)
    weights = np.tile(np.eye(wide, dtype=np.int32), parts)
    join: Connections = Matrix.from_dense(weights, weights != 0)
    if len(layer.shape) == 3:
        kernel = weights[:, :, None, None]
        join = Convolution(kernel, (parts * wide, rows, columns), allowed=kernel != 0)
    return sums, replace(layer, inputs=(Input(name, join),))


def _repeated(neuron: Cuba, parts: int) -> Cuba:
    """Parameters of every neuron, or channel, once for each part."""
    lists: dict[str, Any] = {
        name: np.tile(value, parts)
        for name in PARAMETERS
        if np.ndim(value := getattr(neuron, name))
    }
    return replace(neuron, **lists)


def _in_parts(layer: Layer, parts: int) -> tuple[Input, ...]:
    """The inputs onto (part, neuron): each part meets a range of channels, or of inputs.

    All inputs together are cut where about as many synapses lie in each part.
    """
    loads = [_of_units(kind) for kind in layer.wiring]
    before = np.cumsum(np.concatenate([[0], *loads]))
    cuts = np.searchsorted(before, before[-1] * np.arange(1, parts) / parts)
    bounds = np.concatenate([[0], cuts, [len(before) - 1]])
    inputs, first = [], 0
    for given, load in zip(layer.inputs, loads):
        ranges = np.clip(bounds - first, 0, len(load)).tolist()
        pairs = list(pairwise(ranges))
        delays = None if given.delays is None else np.tile(given.delays, parts)
        inputs.append(Input(given.source, _cut(given.connections, pairs), delays))
        first += len(load)
    return tuple(inputs)


def _of_units(kind: Connections) -> Ints:
    """Weights that are not 0 of each input channel of a kernel, or of each input."""
    if not isinstance(kind, Convolution):
        return kind.fan_out()
    used = np.count_nonzero(kind.kernel, axis=(2, 3)).reshape(kind.groups, -1, kind.kernel.shape[1])
    return np.asarray(used.sum(axis=1)).ravel()


def _cut(kind: Connections, ranges: list[tuple[int, int]]) -> Connections:
    """Connections onto (range, output), of the inputs or channels of each range alone."""
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
    """(outputs, input channels, rows, columns) of a kernel, or a mask, in groups."""
    each, share = len(part) // groups, part.shape[1]
    whole = np.zeros((len(part), groups * share, *part.shape[2:]), part.dtype)
    for group in range(groups):
        rows, columns = (slice(group * n, (group + 1) * n) for n in (each, share))
        whole[rows, columns] = part[rows]
    return whole
