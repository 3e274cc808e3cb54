"""Read and run the networks of lava-dl's wheel, and compare the results with its recordings.

No test here is skipped: a lava-dl without these files is not the version that we support.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from esl_lava import netfile
from esl_lava.arrivals import longest_delay
from esl_lava.chip import NEVER
from esl_lava.data.datasets import load
from esl_lava.errors import FileError
from esl_lava.network import Cuba, Injection
from esl_lava.simulate import simulate
from tests.faults import refused
from tests.lava_networks import FOLDER
from tests.mnist import needs_mnist
from tests.netfile.networks import assert_same

MNIST = FOLDER / "mnist.net"
TINY = FOLDER / "tiny.net"
NTIDIGITS = FOLDER / "gts/ntidigits/ntidigits.net"
PILOTNET = FOLDER / "gts/pilotnet_lif/network.net"


def recorded(path: Path) -> npt.NDArray[np.int64]:
    """Return a recording, which holds whole numbers whatever its type."""
    values = np.load(path, allow_pickle=False)
    assert (values == values.astype(np.int64)).all()
    return values.astype(np.int64)


def by_neuron(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (T, neurons) in our order from Lava's (columns, rows, channels, T) or (neurons, T)."""
    return values.transpose(*range(values.ndim - 1)[::-1], -1).reshape(-1, values.shape[-1]).T


@pytest.mark.slow
@needs_mnist
def test_mnist_net_reads_mnist() -> None:
    """98.9 % of the first 1,000 test images are classified, as by v of the last layer in Lava."""
    network = netfile.read(MNIST)
    assert dict(network.provenance) == {"input_weight": "76", "input_bias": "64"}
    assert [layer.neurons for layer in network.layers] == [784, 512, 512, 10]
    assert isinstance(network.layers[0].inputs[0].connections, Injection)
    assert network.readout is not None
    assert network.readout.neuron == Cuba(0, 4096, NEVER)
    images = load("mnist", "test").take(1000)
    driven = (76 * (2 * (images.images / 255) - 1) + 64).astype(np.int32)
    assert (driven.min(), driven.max()) == (-12, 140)
    inputs = np.repeat(driven[:, None], 16, axis=1)
    result = simulate(network, inputs)
    assert (result.decisions == images.labels).sum() == 989


def test_tiny_net_makes_the_recorded_spikes() -> None:
    """The kernels of the convolutions have five axes. The recording is one step ahead."""
    network = netfile.read(TINY)
    driven = by_neuron(recorded(FOLDER / "gts/tinynet/input_bias.npy")[..., None])
    truth = recorded(FOLDER / "gts/tinynet/output.npy")[0].reshape(36, 16).T
    result = simulate(network, np.repeat(driven[None], 15, axis=1), record="layer2")
    assert truth.any()
    assert np.array_equal(result.spikes["layer2"][0], truth[1:])


def test_ntidigits_makes_the_recorded_spikes() -> None:
    """There are 3,000 steps and delays of up to 62 steps. The recording is four steps late."""
    network = netfile.read(NTIDIGITS, layers=5)
    assert longest_delay(network) > 60
    inputs = recorded(FOLDER / "gts/ntidigits/input.npy").T
    truth = recorded(FOLDER / "gts/ntidigits/output.npy").T
    last = network.layers[-1].name
    spikes = simulate(network, inputs[None], record=last).spikes[last][0]
    assert truth.sum() > 1000
    assert np.array_equal(spikes[:-4], truth[4:])


RECORDED = ["input", *(f"conv-{i}" for i in range(5)), *(f"fc-{i}" for i in range(3))]


@pytest.mark.slow
def test_pilotnet_has_the_recorded_spikes_and_states() -> None:
    """In Lava, layer i of nine processes step t of a sample at step t + i, of 16 steps."""
    folder = PILOTNET.parent
    network = netfile.read(PILOTNET)
    assert len(network.layers) == len(RECORDED) + 1
    driven = by_neuron(recorded(folder / "image.npy")[..., None])
    names = tuple(layer.name for layer in network.layers[: len(RECORDED)])
    result = simulate(network, np.repeat(driven[None], 16, axis=1), record=names, states=names[1:])
    for late, (name, stem) in enumerate(zip(names, RECORDED)):
        steps = slice(late, 16)
        spikes = by_neuron(recorded(folder / f"{stem}.npy"))[steps]
        ours = result.spikes[name][0, : 16 - late]
        assert spikes.any(), name
        assert np.array_equal(ours, spikes), name
        if late:
            u = by_neuron(recorded(folder / f"{stem}-u.npy"))[steps]
            v = by_neuron(recorded(folder / f"{stem}-v.npy"))[steps]
            assert np.array_equal(result.u[name][0, : 16 - late], u), name
            # The recording holds v before the reset.
            silent = ours == 0
            assert np.array_equal(result.v[name][0, : 16 - late][silent], v[silent]), name


def test_a_network_with_a_block_netx_does_not_know() -> None:
    with refused(
        FileError, "unsupported", key="type", value="average", file=NTIDIGITS, layer="layer5"
    ):
        netfile.read(NTIDIGITS)
    for layers in (0, -1, 7):
        with refused(FileError, "range", key="layers", value=layers, limit=6, file=NTIDIGITS):
            netfile.read(NTIDIGITS, layers=layers)
    with refused(FileError, "missing", file=NTIDIGITS):
        netfile.read(NTIDIGITS, layers=2)
    assert [layer.name for layer in netfile.read(NTIDIGITS, layers=4).layers] == [
        "layer2",
        "layer3",
    ]


@pytest.mark.parametrize("name", ["network.net", "square_network.net"])
def test_sigma_delta_networks_are_refused(name: str) -> None:
    with refused(FileError, "unsupported", key="type", value="SDNN", layer="layer0"):
        netfile.read(FOLDER / "gts/pilotnet_sdnn" / name)


@pytest.mark.slow
@pytest.mark.parametrize("file", [MNIST, TINY, PILOTNET], ids=lambda file: file.parent.name)
def test_what_was_read_comes_back_from_our_own_file(file: Path, tmp_path: Path) -> None:
    network = netfile.read(file)
    netfile.write(network, tmp_path / "net.h5")
    assert_same(netfile.read(tmp_path / "net.h5"), network)
    assert netfile.netx_refusals(network) == ()


def test_without_the_shape_of_its_input_a_convolution_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    shutil.copy(TINY, path)
    with h5py.File(path, "r+") as file:
        del file["layer/0"]
        file.move("layer/1", "layer/0")
        file.move("layer/2", "layer/1")
    with refused(FileError, "missing", key="--input-shape", layer="layer0"):
        netfile.read(path)
