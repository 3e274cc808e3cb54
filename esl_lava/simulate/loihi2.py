"""Loihi 2, through Lava's extension for it. UNTESTED ON SILICON.

The extension (lava-loihi) is Intel's to give and not at hand where this was written, so
what follows is tested up to the calls into it, with stand-ins for its modules. It does
what netx's hardware tutorials do (lava-dl, `tutorials/lava/lib/dl/netx`: oxford,
pilotnet_snn, yolo_kp):

- plain netx builds the network; `Loihi2HwCfg` chooses the models for neurocores;
- embedded adapters carry spikes from the host onto the chip and back;
- probes of the extension read u and v on the chip;
- its loggers measure time, power and activity as callbacks of the run.

lava-dl's own hardware test of the pilotnet network, driven through an adapter, expects
the values that the CPU simulator has at the same step. So samples are taken to stream back
to back with the resets of `lava_worker`; what leaks between samples of recurrent and
delayed layers cannot be cleared on the chip, and such layers are refused.

Lava runs in the calling process here: the extension's probes and loggers are objects of it.
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
from esl_lava.errors import BackendError
from esl_lava.network import Layer, Network
from esl_lava.simulate.result import Result, by_neuron, count, decide

LOGGERS = {
    "power": "Loihi2Power",
    "time": "Loihi2ExecutionTime",
    "memory": "Loihi2Memory",
    "activity": "Loihi2Activity",
}
"""What can be measured, and the class of `lava.utils.loihi2_profiler` that measures it."""


@dataclass(frozen=True)
class Board:
    """Where the chip is.

    Attributes:
        address: of a board's host on the network; None where SLURM finds one.
        partition, board: of SLURM's, one of them or neither.
        generation: of the chip, a name of `lava.utils.loihi.ChipGeneration`.
    """

    address: str | None = None
    partition: str | None = None
    board: str | None = None
    generation: str = "N3B3"


@dataclass(frozen=True, eq=False)
class Measurements:
    """What the extension's loggers found.

    Attributes:
        steps: of the run, the latency of the layers included.
        loggers: name of `LOGGERS` -> the logger. What it knows are attributes that the
            extension defines; the tutorials read `avg_time_per_step` (microseconds),
            `total_power` and `vdd_power` (watts, series), `spikes_in` and `syn_ops`.
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
    """Run samples on a chip; see `measure`."""
    return measure(network, inputs, record, states, board, ())[0]


def measure(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    board: Board | None = None,
    wanted: tuple[str, ...] = tuple(LOGGERS),
) -> tuple[Result, Measurements]:
    """Run samples on a chip, back to back, and measure on the way.

    Args:
        network: in netx's reach, without recurrent, delayed or injected layers.
        inputs, record, states: as every backend's `run` (`simulate`).
        board: where the chip is; by default the first that SLURM has.
        wanted: what to measure, of `LOGGERS`; measuring slows a run.

    Raises:
        BackendError: without the extension, when the network cannot be expressed, the
            board is out of reach or the extension fails.
    """
    reasons = [*netfile.beyond_netx(network), *filter(None, map(_refusal, network.layers))]
    if reasons:
        raise BackendError(f"Loihi 2 cannot run this network: {'; '.join(reasons)}")
    for name in wanted:
        if name not in LOGGERS:
            raise BackendError(f"nothing measures {name!r}; there are {', '.join(LOGGERS)}")
    _reach(board or Board())
    with tempfile.TemporaryDirectory(prefix="esl-loihi2-") as folder:
        path = Path(folder) / "net.h5"
        netfile.write(network, path)
        try:
            return _run(path, network, inputs, record, states, wanted)
        except Exception as error:
            raise BackendError(f"Loihi 2 failed: {type(error).__name__}: {error}") from error


def _refusal(layer: Layer) -> str | None:
    """Why a layer cannot run on the chip with samples back to back, or None."""
    first = layer.inputs[0]
    if first.connections.injects:
        return f"layer {layer.name}: injected input is written by the host, step by step"
    for what, present in (("recurrent", layer.recurrent), ("delayed", first.delays)):
        if present is not None:
            return (
                f"layer {layer.name}: what is under way in {what} synapses on the chip "
                "cannot be cleared between samples"
            )
    return None


def _reach(board: Board) -> None:
    """Tell the extension where the chip is.

    Raises:
        BackendError: without the extension, or when there is no such board.
    """
    try:
        loihi = importlib.import_module("lava.utils.loihi")
        installed = loihi.is_installed()
    except ImportError:
        installed = False
    if not installed:
        raise BackendError(
            "Loihi 2 needs Lava's extension for it (lava-loihi, from Intel's Neuromorphic "
            "Research Community), which is not installed"
        )
    try:
        generation = loihi.ChipGeneration[board.generation]
        if board.address is not None:
            loihi.use_ethernet_host(board.address, loihi_gen=generation)
        else:
            loihi.use_slurm_host(board.partition, board.board, loihi_gen=generation)
    except KeyError:
        known = ", ".join(chip.name for chip in loihi.ChipGeneration)
        raise BackendError(f"no Loihi generation {board.generation!r}; there are {known}") from None
    except (ValueError, ImportError) as error:
        raise BackendError(f"no Loihi 2 board: {error}") from error


def _run(
    path: Path,
    network: Network,
    inputs: Array,
    record: tuple[str, ...],
    states: tuple[str, ...],
    wanted: tuple[str, ...],
) -> tuple[Result, Measurements]:
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
    player = source.RingBuffer(data=_played(inputs, net.inp.shape, total))
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
    for name in wanted:
        options = {"num_steps": total} if name == "power" else {}
        loggers[name] = getattr(loihi2_profiler, LOGGERS[name])(**options)
    config = Loihi2HwCfg(callback_fxs=[*probes.values(), *loggers.values()])
    try:
        net.run(condition=RunSteps(num_steps=total), run_cfg=config)
        seen = {name: buffer.data.get() for name, buffer in sinks.items()}
    finally:
        net.stop()

    index = {layer.name: number for number, layer in enumerate(network.layers)}

    def presented(values: Array, name: str, dtype: type) -> Array:
        """(samples, T, neurons) of (*shape, steps): layer i is late by i + 1 steps."""
        late = index[name] + 1
        kept = np.asarray(values).T[late : late + samples * steps]  # maps: (step, c, h, w)
        return kept.astype(dtype).reshape(samples, steps, -1)

    def probed(name: str, layer: str) -> Array:
        series = np.asarray(probes[name, layer].time_series)
        shape = net.layers[index[layer]].out.shape
        return presented(series.reshape(*shape, -1), layer, np.int32)

    spikes = {name: presented(values, name, np.uint8) for name, values in seen.items()}
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


def _played(inputs: Array, shape: tuple[int, ...], total: int) -> Int32s:
    """(*shape, total) values for a ring buffer; maps are (columns, rows, channels) in Lava."""
    data = np.zeros((total, *shape[::-1]), np.int32)
    data[: inputs.shape[0] * inputs.shape[1]] = inputs.reshape(-1, *shape[::-1])
    return data.T
