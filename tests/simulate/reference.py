"""A slow reference of the integer network in plain numpy, for comparison with the simulators.

It runs one step at a time, layer by layer, with one sum for each synapse matrix. Values are int64,
reduced to the widths in which lava-nc 0.10.0 stores them. Sums of a convolution wrap to 24 bits
(`lava/proc/conv/models.py`, PyConvModelFixed: `signed_clamp`). All other sums and u wrap to 32 bits
(`lava/proc/dense/models.py`, `lava/proc/lif/models.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.network import INPUT, Connections, Convolution, Injection, Layer, Network

Array = npt.NDArray[Any]


def wrapped(values: Array, bits: int) -> Array:
    """Wrap values to signed integers of `bits` bits, as hardware does."""
    half = 1 << (bits - 1)
    return (values + half) % (2 * half) - half


def trunc(values: Array) -> Array:
    """Divide values by 4096, rounded toward zero."""
    return np.sign(values) * (np.abs(values) >> 12)


def matrix(connections: Connections) -> Array:
    """Return the (n_post, n_pre) int64 weights."""
    return connections.unrolled().dense().astype(np.int64)


@dataclass(eq=False)
class Trace:
    """The values of a reference run by layer name. Arrays are (samples, T, neurons)."""

    spikes: dict[str, Array] = field(default_factory=dict)
    u: dict[str, Array] = field(default_factory=dict)
    v: dict[str, Array] = field(default_factory=dict)
    membrane: dict[str, Array] = field(default_factory=dict)  # v before it is reset
    sops: dict[str, int] = field(default_factory=dict)
    overflows: dict[str, tuple[int, int, int]] = field(default_factory=dict)


def simulate(network: Network, inputs: Array) -> Trace:
    """Run (samples, T, inputs) integers through a network, each sample from rest."""
    trace = Trace()
    for layer in network.layers:
        shape = (*inputs.shape[:2], layer.neurons)
        for kept in (trace.spikes, trace.u, trace.v, trace.membrane):
            kept[layer.name] = np.zeros(shape, np.int64)
        trace.sops[layer.name] = 0
        trace.overflows[layer.name] = (0, 0, 0)
    for sample in range(len(inputs)):
        arriving = {INPUT: inputs[sample].astype(np.int64)}
        for layer in network.layers:
            arriving[layer.name] = _layer(layer, arriving, trace, sample)
    return trace


def _layer(layer: Layer, arriving: dict[str, Array], trace: Trace, sample: int) -> Array:
    """Run one layer over the steps of one sample, and return its spikes (T, neurons)."""
    steps = len(arriving[INPUT])
    injected = np.zeros((steps, layer.neurons), np.int64)
    sums = []
    crossed = wraps = clips = wrapped_sums = 0
    recurrent = np.zeros((layer.neurons, layer.neurons), np.int64)
    for incoming in layer.inputs:
        connections, delays = incoming.connections, incoming.delays
        if incoming.source == layer.name:
            recurrent = matrix(connections)
            continue
        active = arriving[incoming.source]
        if isinstance(connections, Injection):
            injected = late(active, delays)
            continue
        weights = matrix(connections)
        a = active @ weights.T
        crossed += int(late((active != 0) @ (weights != 0).T.astype(np.int64), delays).sum())
        if isinstance(connections, Convolution):
            wrapped_sums += int((wrapped(a, 24) != wrapped(a, 32)).sum())
            a = wrapped(a, 24)
        sums.append(late(wrapped(a, 32), delays))
    bias = np.zeros(layer.neurons, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    keep_u, keep_v = (4096 - layer.parameter(n) for n in ("current_decay", "voltage_decay"))
    threshold = layer.parameter("threshold") << 6
    u, v, s, waiting = np.zeros((4, layer.neurons), np.int64)
    for t in range(steps):
        a = recurrent @ s + sum(part[t] for part in sums)
        u = wrapped(trunc(u * keep_u) + wrapped(a << 6, 32), 32)
        above, below = u > 2**23, u <= -(2**23)
        u = wrapped(u - (above.astype(np.int64) << 24) + (below.astype(np.int64) << 24), 32)
        # A bias of this size clips v at once. The simulator clips the bias in the same way.
        drive = np.clip(bias + injected[t], -(2**24), 2**24)
        v = wrapped(trunc(v * keep_v) + u + (drive << 6), 32)
        wraps += int(above.sum() + below.sum())
        clips += int((np.abs(v[waiting == 0]) > 2**23 - 1).sum())
        v = np.where(waiting > 0, 0, np.clip(v, 1 - 2**23, 2**23 - 1))
        trace.membrane[layer.name][sample, t] = v
        s = (v > threshold).astype(np.int64)
        v = np.where(s, 0, v)
        waiting = np.where(s, layer.neuron.refractory, np.maximum(waiting - 1, 0))
        if t + 1 < steps:  # a spike of the last step arrives after the sample
            crossed += int(s @ (recurrent != 0).sum(axis=0))
        trace.spikes[layer.name][sample, t] = s
        trace.u[layer.name][sample, t] = u
        trace.v[layer.name][sample, t] = v
    trace.sops[layer.name] += crossed
    u_wraps, v_clips, sum_wraps = trace.overflows[layer.name]
    trace.overflows[layer.name] = (u_wraps + wraps, v_clips + clips, sum_wraps + wrapped_sums)
    return trace.spikes[layer.name][sample]


def decision(network: Network, trace: Trace, sample: int) -> int:
    """Return the class of a sample, or -1 without a decision."""
    last = network.layers[-1]
    spikes = trace.spikes[last.name][sample]
    steps = len(spikes)
    if not last.neuron.fires:
        score = trace.v[last.name][sample, -1].tolist()
        return score.index(max(score))
    if isinstance(last.inputs[0].connections, Injection) or last.neuron.refractory < max(
        1, steps - 1
    ):
        score = spikes.sum(axis=0).tolist()
        return score.index(max(score))
    for t in range(steps):
        fired = np.flatnonzero(spikes[t])
        if len(fired):
            membranes = trace.membrane[last.name][sample, t, fired].tolist()
            return int(fired[membranes.index(max(membranes))])
    return -1


def late(values: Array, delays: Array | None) -> Array:
    """Return (T, n) values, with each column later by its delay."""
    if delays is None:
        return values
    shifted = np.zeros_like(values)
    for j, d in enumerate(delays):
        shifted[d:, j] = values[: max(0, len(values) - d), j]
    return shifted
