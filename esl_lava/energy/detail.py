"""What a network and its spikes add to the counts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.chip import DECAY_UNITY
from esl_lava.counts import Counts, LayerDetail
from esl_lava.network import INPUT, Connections, Convolution, Injection, Layer, Network, ends, parts

BLOCK = 1 << 22
"""Entries of a dense pattern looked at at a time."""


def detailed(network: Network, counts: Counts) -> Counts:
    """Counts with the details that follow from the network alone.

    Args:
        network: the one that was run.
        counts: of its run.
    """
    spikes = {INPUT: counts.input_spikes} | {layer.name: layer.spikes for layer in counts.layers}
    details = []
    for index, (layer, counted) in enumerate(zip(network.layers, counts.layers)):
        sources = [end.source for end in ends(network, index) if end.source != layer.name]
        coming = sum(spikes[source] for source in sources) + counted.returned
        details.append(_detail(layer, coming))
    return replace(counts, details=tuple(details))


def with_activity(counts: Counts, active: Mapping[str, int]) -> Counts:
    """Detailed counts with the active updates per layer, of the same samples.

    Args:
        counts: as `detailed` returns them.
        active: layer name -> as `active_updates` returns them, summed over samples.
    """
    details = tuple(
        replace(detail, active_updates=active[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details)


def with_messages(counts: Counts, messages: Mapping[str, int]) -> Counts:
    """Detailed counts with the messages per layer, of the same samples.

    Args:
        counts: as `detailed` returns them.
        messages: layer name, and `network.INPUT` -> spikes times destination cores.
    """
    details = tuple(
        replace(detail, messages=messages[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details, input_messages=messages[INPUT])


def active_updates(
    network: Network, inputs: npt.NDArray[Any], spikes: Mapping[str, npt.NDArray[Any]]
) -> dict[str, int]:
    """Neuron updates in which at least one synaptic operation arrived at the neuron.

    Args:
        network: the one that was run.
        inputs: (samples, T, inputs) integers; what is not 0 is a spike.
        spikes: layer name -> (samples, T, neurons), all firing layers.

    Returns:
        Layer name -> updates, summed over samples and steps.
    """
    found = {}
    silent = {layer.name for layer in network.layers if not layer.neuron.fires}
    for index, layer in enumerate(network.layers):
        reached: npt.NDArray[np.bool_] | None = None
        for source, part, late in ends(network, index):
            if isinstance(part, Injection) or source in silent:
                continue
            given = inputs if source == INPUT else spikes[source]
            samples, steps = given.shape[:2]
            active = given.reshape(samples * steps, -1) != 0
            crossing = _reached(part, active).reshape(samples, steps, -1)
            arriving = _arriving(crossing, np.broadcast_to(late, layer.neurons))
            reached = arriving if reached is None else reached | arriving
        found[layer.name] = 0 if reached is None else int(np.count_nonzero(reached))
    return found


def _detail(layer: Layer, in_spikes: int) -> LayerDetail:
    brought = parts(layer)
    main = layer.connections
    convolution = isinstance(main, Convolution)
    targets = layer.neurons
    if isinstance(main, Convolution):
        targets = main.kernel.shape[0] // main.groups * int(np.prod(main.kernel.shape[2:]))
    decays = np.asarray(layer.neuron.voltage_decay), np.asarray(layer.neuron.current_decay)
    leaky = bool((decays[0] > 0).any() or (decays[1] < DECAY_UNITY).any())
    return LayerDetail(
        inputs=sum(part.n_pre for part in brought),
        nonzero=sum(part.nonzero for part in brought),
        targets=targets,
        in_spikes=in_spikes,
        convolution=convolution,
        bias=layer.bias is not None,
        leaky=leaky,
    )


def _arriving(
    crossing: npt.NDArray[np.bool_], late: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """(samples, T, n) what arrives in each step, of what sets out to neurons in each.

    Args:
        crossing: (samples, T, n).
        late: (n,) steps that it takes; what takes too many never arrives.
    """
    steps = crossing.shape[1]
    found = np.zeros_like(crossing)
    for delay in np.unique(late):
        if delay < steps:
            there = late == delay
            found[:, delay:, there] = crossing[:, : steps - delay, there]
    return found


def _reached(
    part: Connections | Convolution, active: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """(n, n_post) whether a spike of (n, n_pre) crosses a synapse to each neuron."""
    if isinstance(part, Convolution):
        return _reached_by_kernel(part, active)
    found = np.empty((len(active), part.n_post), bool)
    spikes = active.astype(np.float32)
    rows = max(1, BLOCK // part.n_pre)
    for first in range(0, part.n_post, rows):
        last = min(first + rows, part.n_post)
        begin, end = part.indptr[first], part.indptr[last]
        pattern = np.zeros((last - first, part.n_pre), np.float32)
        post = np.repeat(np.arange(last - first), np.diff(part.indptr[first : last + 1]))
        pattern[post, part.indices[begin:end]] = part.weights[begin:end] != 0
        # Sums of ones are exact in float32 below 2**24, and never 0 by rounding.
        found[:, first:last] = spikes @ pattern.T > 0
    return found


def _reached_by_kernel(part: Convolution, active: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    channels, rows, columns = part.out_shape
    share = part.kernel.shape[1]
    pad_y, pad_x = part.padding
    maps = np.pad(
        active.reshape(-1, *part.in_shape).astype(np.float32),
        ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)),
    )
    found = np.zeros((len(maps), channels, rows, columns), bool)
    outputs = channels // part.groups
    for group in range(part.groups):
        own = slice(group * outputs, (group + 1) * outputs)
        seen = maps[:, group * share : (group + 1) * share]
        for ky in range(part.kernel.shape[2]):
            for kx in range(part.kernel.shape[3]):
                pattern = (part.kernel[own, :, ky, kx] != 0).astype(np.float32)
                y, x = ky * part.dilation[0], kx * part.dilation[1]
                window = seen[
                    :,
                    :,
                    y : y + (rows - 1) * part.stride[0] + 1 : part.stride[0],
                    x : x + (columns - 1) * part.stride[1] + 1 : part.stride[1],
                ]
                found[:, own] |= np.einsum("oc,ncyx->noyx", pattern, window, optimize=True) > 0
    return found.reshape(len(maps), -1)
