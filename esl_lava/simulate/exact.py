"""Our simulator: the integer network's own arithmetic, layer by layer, in numba."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esl_lava.counts import Counts, LayerCounts
from esl_lava.kernels import LOCK
from esl_lava.kernels.cuba import run_layer
from esl_lava.network import DECAY_UNITY, STATE_SHIFT, Layer, Network
from esl_lava.simulate.result import (
    Result,
    Spikes,
    decide,
    layer_counts,
)

CHUNK_BYTES = 64 << 20
"""Samples run in chunks whose spikes and voltages fit this, whatever their number."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A layer with its synapses by input neuron, as the kernel wants them."""

    layer: Layer
    starts: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32]
    bias: npt.NDArray[np.int64]

    @staticmethod
    def of(layer: Layer) -> _Prepared:
        c = layer.connections
        present = c.weights != 0
        pre = c.indices[present]
        order = np.argsort(pre, kind="stable")
        starts = np.zeros(c.n_pre + 1, np.int64)
        np.cumsum(np.bincount(pre, minlength=c.n_pre), out=starts[1:])
        bias = np.zeros(layer.neurons, np.int64)
        if layer.bias is not None:
            bias[:] = layer.bias.astype(np.int64) << STATE_SHIFT
        return _Prepared(
            layer,
            starts,
            c.rows()[present][order].astype(np.int32),
            c.weights[present][order],
            bias,
        )


def run(network: Network, inputs: Spikes, record: tuple[str, ...]) -> Result:
    """Simulate samples from rest.

    Args:
        inputs: (samples, T, inputs) uint8 of 0 and 1 (`result.checked_input`).
        record: names of firing layers whose spikes to keep.
    """
    samples, steps = inputs.shape[:2]
    layers = [_Prepared.of(layer) for layer in network.layers]
    kept = {
        layer.name: np.empty((samples, steps, layer.neurons), np.uint8)
        for layer in network.layers
        if layer.name in record
    }
    last = network.layers[-1]
    readout = None
    if network.readout is not None:
        readout = np.empty((samples, steps, last.neurons), np.int32)
    decisions = np.empty(samples, np.int64)
    totals = np.zeros((len(layers), 4), np.int64)  # sops, spikes, wraps, clips
    widest = max(network.inputs, *(layer.neurons for layer in network.layers))
    chunk = max(1, CHUNK_BYTES // (8 * steps * widest))
    for first in range(0, samples, chunk):
        here = slice(first, min(first + chunk, samples))
        arriving = inputs[here]
        for row, prepared in enumerate(layers):
            name = prepared.layer.name
            spikes, voltage = _run_layer(prepared, arriving, totals[row])
            if name in kept:
                kept[name][here] = spikes
            if prepared.layer is network.readout and readout is not None:
                readout[here] = voltage
            arriving = spikes
        decisions[here] = decide(None if readout is None else readout[here], arriving)
    counts = Counts(
        samples,
        steps,
        int(inputs.sum(dtype=np.int64)),
        tuple(_counts(p.layer, samples, steps, row) for p, row in zip(layers, totals)),
    )
    overflows = {p.layer.name: (int(row[2]), int(row[3])) for p, row in zip(layers, totals)}
    return Result(kept, readout, decisions, counts, overflows)


def _run_layer(
    prepared: _Prepared, arriving: Spikes, totals: npt.NDArray[np.int64]
) -> tuple[Spikes, npt.NDArray[np.int32]]:
    """Spikes, and voltages of a layer that never fires; adds to its totals."""
    layer = prepared.layer
    samples, steps = arriving.shape[:2]
    spikes = np.empty((samples, steps, layer.neurons), np.uint8)
    traced = (0, 0, 0) if layer.neuron.fires else spikes.shape
    voltage = np.empty(traced, np.int32)
    sops = np.empty(samples, np.int64)
    overflows = np.empty((samples, 2), np.int64)
    with LOCK:
        run_layer(
            arriving,
            prepared.starts,
            prepared.targets,
            prepared.weights,
            DECAY_UNITY - layer.neuron.current_decay,
            DECAY_UNITY - layer.neuron.voltage_decay,
            layer.neuron.threshold << STATE_SHIFT,
            prepared.bias,
            spikes,
            voltage,
            sops,
            overflows,
        )
    totals[0] += sops.sum()
    totals[1] += spikes.sum(dtype=np.int64)
    totals[2:] += overflows.sum(axis=0)
    return spikes, voltage


def _counts(layer: Layer, samples: int, steps: int, totals: npt.NDArray[np.int64]) -> LayerCounts:
    return layer_counts(
        layer, samples=samples, steps=steps, sops=int(totals[0]), spikes=int(totals[1])
    )
