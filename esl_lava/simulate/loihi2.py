"""Run a network on Loihi 2 through Lava's extension for it. UNTESTED ON SILICON.

Only Intel distributes the extension (lava-loihi), and it was not available when this module was
written. The module is tested up to its calls into the extension, with replacements for the
extension's modules. It follows netx's hardware tutorials (lava-dl, `tutorials/lava/lib/dl/netx`:
oxford, pilotnet_snn, yolo_kp):

- plain netx builds the network, and `Loihi2HwCfg` chooses the models for neurocores;
- embedded adapters carry spikes from the host to the chip and back;
- probes of the extension read u and v on the chip;
- loggers of the extension measure time, power and activity as callbacks of the run.

lava-dl's own hardware test of the pilotnet network, driven through an adapter, expects the values
of the CPU simulator at the same step. This module therefore assumes that samples can follow each
other without a gap, with the resets of `lava_worker`. The buffers of recurrent and delayed synapses
cannot be cleared on the chip between samples, so such layers are refused.

Lava runs in the calling process here, because the extension's probes and loggers live in it.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array, Int32s
from esl_lava.errors import BackendError, Fault, shorten
from esl_lava.network import Layer, Network
from esl_lava.simulate.result import Result, by_neuron, count, decide

LOGGERS = {
    "power": "Loihi2Power",
    "time": "Loihi2ExecutionTime",
    "memory": "Loihi2Memory",
    "activity": "Loihi2Activity",
}
"""Quantity -> the class of `lava.utils.loihi2_profiler` that measures it."""


@dataclass(frozen=True)
class Board:
    """The location of the chip.

    Attributes:
        address: network address of a board's host; None if SLURM finds the board.
        partition, board: names of SLURM's partition or board; None if any will do.
        generation: generation of the chip, a name of `lava.utils.loihi.ChipGeneration`.
    """

    address: str | None = None
    partition: str | None = None
    board: str | None = None
    generation: str = "N3B3"


@dataclass(frozen=True, eq=False)
class Measurements:
    """The measurements of the extension's loggers.

    Attributes:
        steps: number of steps of the run, with the latency of the layers.
        loggers: name in `LOGGERS` -> the logger. The extension defines its attributes. The
            tutorials read `avg_time_per_step` (microseconds), `total_power` and `vdd_power` (series
            in watts), `spikes_in` and `syn_ops`.
    """

    steps: int
    loggers: Mapping[str, Any] = field(default_factory=dict)


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    *,
    board: Board | None = None,
) -> Result:
    """Run samples on a chip, as `measure` does, but measure nothing."""
    return measure(network, inputs, record, states, board, ())[0]


def measure(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    board: Board | None = None,
    quantities: tuple[str, ...] = tuple(LOGGERS),
) -> tuple[Result, Measurements]:
    """Run samples on a chip without a gap between them, and measure the run.

    Args:
        network: a network that netx can express, without recurrent, delayed or injected layers.
        inputs, record, states: as in every backend's `run` (`simulate`).
        board: the location of the chip. The default is SLURM's first board.
        quantities: names in `LOGGERS` to measure. Measuring slows a run.

    Raises:
        BackendError: if the extension is not installed or fails, the chip cannot run the network,
            a quantity or the chip's generation is unknown, or the board cannot be reached.
    """
    faults = [
        Fault(f"Loihi 2 cannot run this network: {reason}", "unsupported")
        for reason in netfile.netx_refusals(network)
    ]
    faults += filter(None, map(_layer_fault, network.layers))
    if faults:
        raise BackendError.of(faults)
    for name in quantities:
        if name not in LOGGERS:
            names = ", ".join(LOGGERS)
            raise BackendError(
                f"quantities: {shorten(name)} cannot be measured; the known ones are {names}",
                "unknown",
                key="quantities",
                value=name,
                limit=names,
            )
    _connect_board(board or Board())
    with tempfile.TemporaryDirectory(prefix="esl-loihi2-") as folder:
        path = Path(folder) / "net.h5"
        netfile.write(network, path)
        try:
            return _run(path, network, inputs, record, states, quantities)
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise BackendError(f"Loihi 2 failed: {cause}", "failed") from error


def _layer_fault(layer: Layer) -> Fault | None:
    """Return why the chip cannot run a network with this layer, or None."""
    first = layer.inputs[0]
    reason = None
    if first.connections.injects:
        reason = "the host would have to write injected input step by step"
    elif layer.recurrent is not None:
        reason = "recurrent synapses cannot be cleared on the chip between samples"
    elif first.delays is not None:
        reason = "synapses with delays cannot be cleared on the chip between samples"
    if reason is None:
        return None
    sentence = f"Loihi 2 cannot run this network: layer {layer.name}: {reason}"
    return Fault(sentence, "unsupported", layer=layer.name)


def _connect_board(board: Board) -> None:
    """Give the extension the location of the chip.

    Raises:
        BackendError: if the extension is not installed, the generation is unknown, or the board
            cannot be reached.
    """
    try:
        loihi = importlib.import_module("lava.utils.loihi")
        installed = loihi.is_installed()
    except ImportError:
        installed = False
    if not installed:
        raise BackendError(
            "Loihi 2 needs Lava's extension lava-loihi (from Intel's Neuromorphic Research "
            "Community), which is not installed",
            "package",
            value="lava-loihi",
        )
    try:
        generation = loihi.ChipGeneration[board.generation]
        if board.address is not None:
            loihi.use_ethernet_host(board.address, loihi_gen=generation)
        else:
            loihi.use_slurm_host(board.partition, board.board, loihi_gen=generation)
    except KeyError:
        known = ", ".join(chip.name for chip in loihi.ChipGeneration)
        raise BackendError(
            f"unknown generation {shorten(board.generation)} of Loihi; the known ones are {known}",
            "unknown",
            key="generation",
            value=board.generation,
            limit=known,
        ) from None
    except (ValueError, ImportError) as error:
        cause = " ".join(str(error).split())
        raise BackendError(
            f"no board with Loihi 2 can be reached: {cause}",
            "not-found",
            key="board",
            value=board.address or board.board or board.partition,
        ) from error


def _run(
    path: Path,
    network: Network,
    inputs: Array,
    record: tuple[str, ...],
    states: tuple[str, ...],
    quantities: tuple[str, ...],
) -> tuple[Result, Measurements]:
    """Build the network from its file, run it on the chip, and read its results."""
    from lava.lib.dl import netx
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2HwCfg
    from lava.proc.embedded_io.spike import NxToPyAdapter, PyToN3ConvAdapter, PyToNxAdapter
    from lava.proc.io import sink, source
    from lava.utils import loihi2_profiler
    from lava.utils.loihi2_state_probes import StateProbe

    samples, steps = inputs.shape[:2]
    total = samples * steps + len(network.layers)
    net = netx.hdf5.Network(
        net_config=str(path),
        input_message_bits=network.message_bits,
        reset_interval=steps,
        reset_offset=1,
    )
    adapter = (PyToN3ConvAdapter if network.first.shares else PyToNxAdapter)(
        shape=net.inp.shape, num_message_bits=network.message_bits
    )
    player = source.RingBuffer(data=_ring_buffer(inputs, net.inp.shape, total))
    player.s_out.connect(adapter.inp)
    adapter.out.connect(net.inp)
    sinks = {}
    for layer, block in zip(network.layers, net.layers):
        if layer.neuron.fires:
            shape = block.out.shape
            back = NxToPyAdapter(shape=shape)
            block.out.connect(back.inp)
            sinks[layer.name] = sink.RingBuffer(shape=shape, buffer=total)
            back.out.connect(sinks[layer.name].a_in)
    probes = {
        (name, layer.name): StateProbe(getattr(block.neuron, name))
        for layer, block in zip(network.layers, net.layers)
        for name in ("u", "v")
        if layer.name in states or (name == "v" and layer is network.readout)
    }
    loggers = {}
    for name in quantities:
        options = {"num_steps": total} if name == "power" else {}
        loggers[name] = getattr(loihi2_profiler, LOGGERS[name])(**options)
    config = Loihi2HwCfg(callback_fxs=[*probes.values(), *loggers.values()])
    try:
        net.run(condition=RunSteps(num_steps=total), run_cfg=config)
        recorded = {name: buffer.data.get() for name, buffer in sinks.items()}
    finally:
        net.stop()

    index = {layer.name: number for number, layer in enumerate(network.layers)}

    def presented(values: Array, name: str, dtype: type) -> Array:
        """Return (samples, T, neurons) of (*shape, steps). Layer i is late by i + 1 steps."""
        late = index[name] + 1
        kept = np.asarray(values).T[late : late + samples * steps]  # maps: (step, c, h, w)
        return kept.astype(dtype).reshape(samples, steps, -1)

    def probed(name: str, layer: str) -> Array:
        series = np.asarray(probes[name, layer].time_series)
        shape = net.layers[index[layer]].out.shape
        return presented(series.reshape(*shape, -1), layer, np.int32)

    spikes = {name: presented(values, name, np.uint8) for name, values in recorded.items()}
    last = network.layers[-1]
    readout = probed("v", last.name) if network.readout is not None else None
    result = Result(
        spikes={name: spikes[name] for name in record},
        readout=readout,
        decisions=decide(last, spikes.get(last.name), v=readout),
        counts=count(network, inputs, spikes),
        fired=by_neuron(spikes),
        u={name: probed("u", name) for name in states},
        v={name: probed("v", name) for name in states},
    )
    return result, Measurements(total, loggers)


def _ring_buffer(inputs: Array, shape: tuple[int, ...], total: int) -> Int32s:
    """Return (*shape, total) values for a ring buffer, with maps as (columns, rows, channels)."""
    data = np.zeros((total, *shape[::-1]), np.int32)
    data[: inputs.shape[0] * inputs.shape[1]] = inputs.reshape(-1, *shape[::-1])
    return data.T
