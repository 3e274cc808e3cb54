"""Files that lava-dl's own `export_hdf5` writes run on every backend or are refused.

The reference is SLAYER's forward pass of the exported blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from esl_lava import netfile
from esl_lava.errors import FileError
from esl_lava.experiments.spikes import apply_input_block
from esl_lava.network import Network
from esl_lava.simulate import lava_cpu, simulate
from tests.faults import refused

pytestmark = pytest.mark.slow

STEPS, SAMPLES = 9, 2
NEURON = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.5}
KEPT = {"delay_shift": False}
MAPS = (2, 7, 6)


def _cuba() -> Any:
    from esl_lava.engines.slayer import slayer

    return slayer.block.cuba


def neuron(**changes: Any) -> dict[str, Any]:
    """Return new parameters: SLAYER's blocks write into the dictionary of their caller."""
    return {**NEURON, **changes}


def _norm(name: str) -> Any:
    from esl_lava.engines.slayer import slayer

    return getattr(slayer.neuron.norm, name)


def dense(n_pre: int, n_post: int, parameters: Any = None, **options: Any) -> Any:
    return _cuba().Dense(parameters or neuron(), n_pre, n_post, **KEPT, **options)


def conv(channels: int, outputs: int, kernel: Any, **options: Any) -> Any:
    parameters = options.pop("parameters", None) or neuron()
    return _cuba().Conv(parameters, channels, outputs, kernel, **KEPT, **options)


def source() -> Any:
    return _cuba().Input(None, **KEPT)


def flatten() -> Any:
    return _cuba().Flatten()


def delayed(block: Any, delays: list[float], shape: tuple[int, ...] = (12,)) -> Any:
    """Return the block with delays; it learns their number in a first pass."""
    import torch

    block(torch.zeros(1, *shape, 2))
    block.delay.delay.data = torch.tensor(delays).reshape(block.delay.delay.shape)
    return block


def masked(block: Any) -> Any:
    import torch

    block.synapse.weight.data *= torch.rand(block.synapse.weight.shape) < 0.3
    return block


def weights(block: Any, values: Any) -> Any:
    import torch

    tensor = torch.tensor(values, dtype=torch.float32)
    block.synapse.weight.data = tensor.reshape(block.synapse.weight.shape)
    return block


@dataclass(frozen=True)
class Export:
    """Blocks that lava-dl exports.

    Attributes:
        blocks: returns the blocks.
        shape: of the input.
        refused: the (code, key, layer) of our refusal; None if the file runs.
        scaled: whether the weights are multiplied by 3 before the export.
        values: whether the input block takes values other than 0 and 1.
        normed: whether norms learn the subtracted mean in passes before the compared pass.
            Recurrent blocks would keep their state from one pass to the next.
        input_shape: the shape that the reader gets if the file does not hold it.
    """

    blocks: Callable[[], list[Any]]
    shape: tuple[int, ...] = (12,)
    refused: tuple[str, str | None, str] | None = None
    scaled: bool = True
    values: bool = False
    normed: bool = False
    input_shape: tuple[int, int, int] | None = None


EXPORTS = {
    "dense": Export(lambda: [dense(12, 9), dense(9, 5)]),
    "dense, pruned": Export(lambda: [masked(dense(12, 9)), masked(dense(9, 7))]),
    "dense, weight norm": Export(lambda: [dense(12, 9, weight_norm=True), dense(9, 5)]),
    "dense, batch norm": Export(
        lambda: [dense(12, 9, neuron(norm=_norm("MeanOnlyBatchNorm"))), dense(9, 5)],
        normed=True,
    ),
    "dense, parameters per neuron": Export(
        lambda: [dense(12, 9, neuron(shared_param=False)), dense(9, 5)]
    ),
    "dense, another scale": Export(lambda: [dense(12, 9, neuron(scale=32)), dense(9, 5)]),
    "dense, dropout": Export(lambda: [dense(12, 9, neuron(dropout=_dropout())), dense(9, 5)]),
    "dense, delays": Export(
        lambda: [delayed(dense(12, 5, delay=True), [0.0, 1.5, 2, 4, 0]), dense(5, 5)]
    ),
    "dense, delays and batch norm": Export(
        lambda: [
            delayed(
                dense(12, 5, neuron(norm=_norm("MeanOnlyBatchNorm")), delay=True), [0.0, 1, 2, 4, 0]
            )
        ],
        normed=True,
        refused=("conflict", "delay", "layer0"),
    ),
    "conv, stride and padding": Export(
        lambda: [source(), conv(2, 4, (3, 2), stride=(1, 2), padding=(1, 0))], MAPS
    ),
    "conv, dilation": Export(lambda: [source(), conv(2, 3, 2, dilation=(2, 1))], MAPS),
    "conv, groups": Export(lambda: [source(), conv(2, 4, 3, groups=2, padding=1)], MAPS),
    "conv, norms": Export(
        lambda: [
            source(),
            conv(2, 3, 3, weight_norm=True),
            conv(3, 3, 2, parameters=neuron(norm=_norm("MeanOnlyBatchNorm"))),
        ],
        MAPS,
        normed=True,
    ),
    "conv, then dense": Export(
        lambda: [source(), conv(2, 3, 3, stride=2), flatten(), dense(18, 5)], MAPS
    ),
    "conv without an input block": Export(lambda: [conv(2, 3, 3)], MAPS, input_shape=MAPS),
    "conv without an input block, nor a shape": Export(
        lambda: [conv(2, 3, 3)],
        MAPS,
        refused=("missing", "--input-shape", "layer0"),
    ),
    "conv, delays": Export(
        lambda: [source(), delayed(conv(2, 3, 3, delay=True), [0.0, 1, 2], MAPS)],
        MAPS,
        refused=("unsupported", "delay", "layer1"),
    ),
    "recurrent": Export(lambda: [_cuba().Recurrent(neuron(), 12, 6, **KEPT), dense(6, 5)]),
    "recurrent, weight norm": Export(
        lambda: [_cuba().Recurrent(neuron(), 12, 6, weight_norm=True, **KEPT)]
    ),
    "recurrent, delays": Export(
        lambda: [_cuba().Recurrent(neuron(), 12, 6, delay=True, **KEPT)],
        refused=("unsupported", "delay", "layer0"),
    ),
    "input block": Export(
        lambda: [
            _cuba().Input(neuron(current_decay=1.0), weight=0.75, bias=0.125, **KEPT),
            dense(12, 5),
        ],
        values=True,
    ),
    "input block of maps": Export(
        lambda: [
            _cuba().Input(neuron(current_decay=1.0), weight=1.5, bias=-0.25, **KEPT),
            conv(2, 3, 3),
        ],
        MAPS,
        values=True,
    ),
    "input block with a current": Export(
        lambda: [_cuba().Input(neuron(), weight=0.75, bias=0.125, **KEPT), dense(12, 5)],
        refused=("unsupported", "iDecay", "layer0"),
    ),
    "affine": Export(lambda: [dense(12, 9), _cuba().Affine(neuron(), 9, 3, dynamics=False)]),
    "affine with dynamics": Export(
        lambda: [dense(12, 9), _cuba().Affine(neuron(), 9, 3, dynamics=True)]
    ),
    "graded spikes": Export(
        lambda: [dense(12, 5, neuron(graded_spike=True))],
        refused=("unsupported", "gradedSpike", "layer0"),
    ),
    "batch norm of scale": Export(
        lambda: [dense(12, 5, neuron(norm=_norm("WgtScaleBatchNorm")), weight_scale=20)],
        normed=True,
        refused=("unsupported", "weight_exp", "layer0"),
    ),
    "winners take all": Export(
        lambda: [_cuba().KWTA(neuron(), 12, 6, num_winners=2, **KEPT)],
        refused=("unsupported", None, "layer0"),
    ),
    "pooling": Export(
        lambda: [source(), conv(2, 3, 3), _cuba().Pool(neuron(), 2, **KEPT)],
        MAPS,
        refused=("unsupported", "type", "layer2"),
    ),
    "weights of zero": Export(
        lambda: [weights(dense(12, 2), np.zeros((2, 12)))],
        refused=("limit", "weight", "layer0"),
    ),
    "no positive weight": Export(
        lambda: [weights(dense(2, 2), [[-2, 0], [-1, 0]])],
        (2,),
        refused=("limit", "weight", "layer0"),
        scaled=False,
    ),
}


def _dropout() -> Any:
    from esl_lava.engines.slayer import slayer

    return slayer.neuron.Dropout(p=0.3)


def exported(case: Export, path: Path) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """Write the file; return the input (samples, T, ...) and SLAYER's output of each block."""
    import torch

    torch.manual_seed(1)
    blocks = case.blocks()
    shape = (SAMPLES, *case.shape, STEPS)
    x = torch.randint(-4, 4, shape) if case.values else torch.rand(shape) < 0.5
    x = x.float()
    outputs: list[Any] = []
    with torch.no_grad():
        for block in blocks:
            for name in ("synapse", "input_synapse", "recurrent_synapse"):
                synapse = getattr(block, name, None)
                if synapse is not None and case.scaled and not hasattr(synapse, "weight_v"):
                    synapse.weight.mul_(3)
        for _ in range(3 * case.normed):
            y = x
            for block in blocks:
                y = block(y)
        outputs, y = [], x
        for block in blocks:
            y = block.eval()(y)
            outputs.append(y)
    with h5py.File(path, "w") as file:
        for index, block in enumerate(blocks):
            block.export_hdf5(file.create_group(f"layer/{index}"))
    return x.movedim(-1, 1).long().numpy(), outputs


def flat(values: Any) -> npt.NDArray[Any]:
    """Return SLAYER's (samples, ..., T) values as (samples, T, neurons)."""
    return values.flatten(1, -2).swapaxes(1, 2).double().numpy()


def check(network: Network, result: Any, outputs: list[Any]) -> None:
    for layer in network.layers:
        theirs = flat(outputs[int(layer.name.removeprefix("layer"))])
        if layer.neuron.fires:
            assert 0 < np.count_nonzero(theirs) < theirs.size, "nothing to compare"
            assert np.array_equal(result.spikes[layer.name] != 0, theirs != 0), layer.name
        elif layer.neuron.voltage_decay == 4096:  # without dynamics, v is the sum of inputs
            assert np.array_equal(result.readout, 4096 * theirs.cumsum(axis=1))


@pytest.mark.parametrize("case", EXPORTS.values(), ids=EXPORTS)
def test_runs_as_slayer_on_every_backend_or_is_refused(case: Export, tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    x, outputs = exported(case, path)
    if case.refused is not None:
        code, key, layer = case.refused
        with refused(FileError, code, key=key, file=path, layer=layer):
            netfile.read(path, input_shape=case.input_shape)
        return
    network = netfile.read(path, input_shape=case.input_shape)
    inputs = apply_input_block(network, x.reshape(SAMPLES, STEPS, -1))
    for backend in ("exact", "lava-models"):
        check(network, simulate(network, inputs, backend, record="all"), outputs)
    record = tuple(layer.name for layer in network.layers if layer.neuron.fires)
    check(network, lava_cpu.run(network, inputs, record, path=path), outputs)
