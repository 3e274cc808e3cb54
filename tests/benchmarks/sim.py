"""The exact simulator against Lava's CPU simulator: sample-steps per second of both.

Lava runs one sample after the other in a fresh process, netx in fixed point, without sinks;
what counts is `run` once everything is built, loaded and started. Ours is one call of
`simulate` on plain arrays once a first call has laid out the network; finding the spikes
in its input, and its counts, are included.

`python -m tests.benchmarks.sim FILE INPUTS STEPS SPARSE DRIVEN` is the process for Lava.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava import netfile
from esl_lava.network import INTEGRATOR, Convolution, Cuba, Injection, Matrix, Network
from esl_lava.simulate import simulate
from tests.graphs import a_layer, a_network
from tests.lava_networks import FOLDER

ROUNDS = 3
REPEATS = 3
"""Times ours is run in a round; the median counts."""

CHANNELS = (2, 64, 128, 256, 256, 512, 512, 512, 512)
SIDE = 48


def speedups() -> Iterator[tuple[str, list[float]]]:
    """Lava's seconds per sample-step over ours, by network and size of batch."""
    yield from _mlp()
    yield from _vgg()
    yield from _pilotnet()


def _mlp() -> Iterator[tuple[str, list[float]]]:
    """784-800-10, hidden density 0.16, T = 32, a tenth of the inputs active."""
    rng = np.random.default_rng(0)
    hidden = Matrix.from_dense(*_thinned(rng, (800, 784), 0.16))
    readout = Matrix.from_dense(2 * rng.integers(-60, 61, (10, 800)))
    network = a_network(
        (
            a_layer("hidden", hidden, Cuba(4096, 2048, 200)),
            a_layer("readout", readout, INTEGRATOR),
        )
    )
    spikes = (rng.random((1000, 32, 784)) < 0.1).astype(np.uint8)
    _check_activity(network, spikes[:20])
    ratios: dict[str, list[float]] = {
        "batch.vs_lava_sparse": [],
        "batch.vs_lava_dense": [],
        "single.vs_lava_sparse": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.h5"
        netfile.write(network, path)
        for _ in range(ROUNDS):
            sparse = _lava(path, spikes, 500, sparse=True)
            batch = _ours(network, spikes)
            single = _ours(network, spikes[:1], calls=100)
            dense = _lava(path, spikes, 500)
            ratios["batch.vs_lava_sparse"].append(sparse / batch)
            ratios["batch.vs_lava_dense"].append(dense / batch)
            ratios["single.vs_lava_sparse"].append(sparse / single)
    for name, values in ratios.items():
        yield f"sim.mlp.{name}", values


def _vgg() -> Iterator[tuple[str, list[float]]]:
    """Eight 3 x 3 convolutions at 48 x 48, every second of stride 2, density 0.1."""
    rng = np.random.default_rng(0)
    shape = (CHANNELS[0], SIDE, SIDE)
    layers = []
    for index, (n_pre, n_post) in enumerate(itertools.pairwise(CHANNELS)):
        kernel, allowed = _thinned(rng, (n_post, n_pre, 3, 3), 0.1)
        stride = 1 + index % 2
        conv = Convolution(kernel, shape, (stride, stride), (1, 1), allowed=allowed)
        # With 0.6 of how wide the sum of its input spreads, about a fifth of the neurons spike.
        width = np.sqrt(0.2 * np.square(kernel.astype(float)).sum() / n_post)
        layers.append(a_layer(f"conv{index}", conv, Cuba(4096, 2048, max(1, int(0.6 * width)))))
        shape = conv.out_shape
    network = a_network(tuple(layers))
    spikes = (rng.random((32, 4, network.inputs)) < 0.2).astype(np.uint8)
    _check_activity(network, spikes[:2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.h5"
        netfile.write(network, path)
        inputs = spikes.reshape(*spikes.shape[:2], *network.input_shape)
        ratios = [
            _lava(path, inputs.transpose(0, 1, 4, 3, 2), 2) / _ours(network, spikes)
            for _ in range(ROUNDS)
        ]
    yield "sim.vgg48.batch.vs_lava", ratios


def _pilotnet() -> Iterator[tuple[str, list[float]]]:
    """The network of a steering car that lava-dl's wheel carries, its input layer included."""
    path = FOLDER / "gts/pilotnet_lif/network.net"
    image = np.load(path.parent / "image.npy")
    network = netfile.read(path)
    assert isinstance(network.layers[0].inputs[0].connections, Injection)
    network = replace(network, steps=None)
    frame = image.transpose(2, 1, 0).ravel()  # netx has (x, y, channel)
    inputs = np.broadcast_to(frame, (32, 16, frame.size))
    ratios = [_lava(path, image, 32, driven=True) / _ours(network, inputs) for _ in range(ROUNDS)]
    yield "sim.pilotnet.batch.vs_lava", ratios


def _thinned(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> Any:
    """Even weights of both signs, and the mask of where they are."""
    mask = rng.random(shape) < density
    return np.where(mask, 2 * rng.integers(-60, 61, shape), 0), mask


def _check_activity(network: Network, spikes: Any) -> None:
    """A network without activity would be quick to run."""
    counts = simulate(network, spikes).counts
    for layer in counts.layers[: -1 if network.readout is not None else None]:
        rate = layer.spikes / layer.neuron_updates
        assert 0.01 < rate < 0.5, f"{layer.name}: {rate:.3f} spikes per neuron and step"


def _ours(network: Network, spikes: Any, calls: int = 1) -> float:
    """Seconds per sample-step."""
    simulate(network, spikes[:2])
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            simulate(network, spikes)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[REPEATS // 2] / (calls * spikes.shape[0] * spikes.shape[1])


def _lava(path: Path, inputs: Any, steps: int, sparse: bool = False, driven: bool = False) -> float:
    """Seconds per step, measured in a process of its own.

    Args:
        path: a netx file.
        inputs: (samples, T, *shape) spikes or, where `driven`, the biases of the neurons
            of an input layer; in netx's order of axes.
        steps: to measure, after a first one.
        sparse: as netx's `sparse_fc_layer`.
        driven: whether the network begins with neurons.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "inputs.npy"
        np.save(given, inputs)
        command = [sys.executable, "-m", __name__, str(path), str(given), str(steps)]
        done = subprocess.run(
            [*command, str(int(sparse)), str(int(driven))],
            capture_output=True,
            text=True,
            timeout=1800,
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def _lava_worker(path: str, given: str, steps: int, sparse: bool, driven: bool) -> None:
    from lava.lib.dl import netx
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io import source as lava_source

    inputs = np.load(given)
    net = netx.hdf5.Network(net_config=path, sparse_fc_layer=sparse)
    if driven:
        net.in_layer.neuron.bias_mant.init = inputs
    else:
        data = inputs.reshape(-1, *inputs.shape[2:])[: steps + 1]
        source = lava_source.RingBuffer(data=np.moveaxis(data, 0, -1).astype(np.int32))
        source.s_out.connect(net.inp)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    net.run(condition=RunSteps(num_steps=1), run_cfg=config)
    start = time.perf_counter()
    net.run(condition=RunSteps(num_steps=steps), run_cfg=config)
    seconds = time.perf_counter() - start
    net.stop()
    print(seconds / steps, flush=True)


if __name__ == "__main__":
    _lava_worker(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1", sys.argv[5] == "1")
