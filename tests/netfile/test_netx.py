"""Plain netx reads the same network from our files or raises an error; never another network.

netx runs in a separate process, because importing Lava changes multiprocessing permanently.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from esl_lava import netfile
from esl_lava.network import Convolution, Injection, Layer, Matrix
from tests.netfile.networks import random_network

pytestmark = pytest.mark.slow

SAYS_ALL = [random_network(seed, netx=True) for seed in range(30)]
BEYOND = [
    network
    for network in (random_network(seed) for seed in range(40))
    if netfile.netx_refusals(network)
]

NETX = """
import sys
from pathlib import Path
import numpy as np
import esl_lava  # repairs Lava
from lava.lib.dl.netx.hdf5 import Network
from lava.proc.conv.utils import conv

folder = Path(sys.argv[1])
inputs = np.load(folder / "inputs.npz")

def answer(network, name):
    net = Network(net_config=str(folder / f"{name}.h5"), reset_interval=8, reset_offset=1)
    for index, layer in enumerate(net.layers):
        neuron, values = layer.neuron, {}
        values |= {key: getattr(neuron, key).init for key in ("du", "dv", "vth")}
        values["bias"] = neuron.bias_mant.init
        values["exponent"] = neuron.bias_exp.init
        values["shape"] = layer.out.shape
        if hasattr(layer, "synapse"):
            values |= drive(layer.synapse, inputs[f"{name} {index}"])
        if hasattr(layer, "synapse_rec"):
            sums_of_recurrent = drive(layer.synapse_rec, inputs[f"{name} {index} rec"])
            values |= {f"rec_{key}": value for key, value in sums_of_recurrent.items()}
        answers.update({f"{name} {index} {key}": value for key, value in values.items()})
    answers[f"{name} layers"] = len(net.layers)

def drive(s, spikes):
    '''Return the sums of the synapses for these spikes, and the delays.'''
    if type(s).__name__ == "Conv":
        geometry = [getattr(s, k).init for k in ("kernel_size", "stride", "padding", "dilation")]
        x = spikes.reshape(s.input_shape[::-1]).transpose(2, 1, 0)
        return {"sums": conv(x, s.weight.init, *geometry, s.groups.init)}
    weights = s.weights.init * 2.0 ** s.proc_params.get("weight_exp")
    delays = {"delays": s.delays.init} if hasattr(s, "delays") else {}
    return {"sums": weights @ spikes} | delays

answers = {}
for file in sorted(folder.glob("says*.h5")):
    answer(Network, file.stem)
for file in sorted(folder.glob("beyond*.h5")):
    try:
        Network(net_config=str(file))
        answers[file.stem] = "it loads"
    except NotImplementedError as error:
        answers[file.stem] = str(error)
np.savez(folder / "answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def input_spikes() -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    inputs = {}
    for n, network in enumerate(SAYS_ALL):
        for index, layer in enumerate(network.layers):
            inputs[f"says{n} {index}"] = rng.integers(0, 2, layer.inputs[0].connections.n_pre)
            inputs[f"says{n} {index} rec"] = rng.integers(0, 2, layer.neurons)
    return inputs


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, input_spikes: dict[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    """The results of netx for every file, from one process, because its import takes seconds."""
    folder: Path = tmp_path_factory.mktemp("netx")
    for n, network in enumerate(SAYS_ALL):
        netfile.write(network, folder / f"says{n}.h5")
    for n, network in enumerate(BEYOND):
        netfile.write(network, folder / f"beyond{n}.h5")
    np.savez(folder / "inputs.npz", **input_spikes)
    process = subprocess.run(
        [sys.executable, "-c", NETX, folder], capture_output=True, text=True, timeout=580
    )
    assert process.returncode == 0, process.stderr
    with np.load(folder / "answers.npz") as stored:
        return dict(stored)


def in_our_order(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return (neurons,) values from values that broadcast to Lava's (columns, rows, channels)."""
    return np.broadcast_to(values, shape[::-1]).transpose().ravel()


@pytest.mark.slow
@pytest.mark.parametrize("n", range(len(SAYS_ALL)))
def test_what_netx_can_express_means_the_same_there(
    n: int, answers: dict[str, Any], input_spikes: dict[str, npt.NDArray[Any]]
) -> None:
    network = SAYS_ALL[n]
    assert netfile.netx_refusals(network) == ()
    assert answers[f"says{n} layers"] == len(network.layers)
    for index, layer in enumerate(network.layers):
        prefix = f"says{n} {index} "
        values = {
            key.removeprefix(prefix): a for key, a in answers.items() if key.startswith(prefix)
        }
        assert tuple(values["shape"]) == layer.shape[::-1]
        for key, name in (("dv", "voltage_decay"), ("vth", "threshold")):
            assert np.array_equal(in_our_order(values[key], layer.shape), layer.parameter(name))
        current = in_our_order(values["du"].astype(int) + 1, layer.shape)
        assert np.array_equal(current, layer.parameter("current_decay"))
        bias = np.zeros(layer.neurons, int) if layer.bias is None else layer.bias
        assert np.array_equal(in_our_order(values["bias"], layer.shape), bias)
        assert values["exponent"] == 6
        if isinstance(layer.inputs[0].connections, Injection):
            assert "sums" not in values
            continue
        weights = layer.inputs[0].connections.unrolled().dense()
        sums = in_our_order(values["sums"], layer.shape)
        assert np.array_equal(sums, weights @ input_spikes[f"says{n} {index}"])
        assert ("delays" in values) == (layer.inputs[0].delays is not None)
        if layer.inputs[0].delays is not None:
            assert (values["delays"] == layer.inputs[0].delays[:, None]).all()
        assert ("rec_sums" in values) == (layer.recurrent is not None)
        if layer.recurrent is not None:
            sums_of_recurrent = (
                layer.recurrent.connections.unrolled().dense()
                @ input_spikes[f"says{n} {index} rec"]
            )
            assert np.array_equal(values["rec_sums"], sums_of_recurrent)


def test_these_networks_have_everything_netx_has() -> None:
    layers = [layer for network in SAYS_ALL for layer in network.layers]
    main = [layer.inputs[0].connections for layer in layers]
    for kind in (Matrix, Convolution, Injection):
        assert any(isinstance(part, kind) for part in main)
    assert any(isinstance(part, Convolution) and part.groups > 1 for part in main)
    for parts in (
        [layer.bias for layer in layers],
        [layer.inputs[0].delays for layer in layers],
        [layer.recurrent for layer in layers],
    ):
        assert any(one is not None for one in parts)
    maps = [layer for layer in layers if len(layer.shape) == 3 and layer.neurons != layer.shape[0]]
    for per in ("neurons", "channels"):
        sizes = {np.size(layer.neuron.current_decay) == _number(layer, per) for layer in maps}
        assert True in sizes


def _number(layer: Layer, per: str) -> int:
    return layer.neurons if per == "neurons" else layer.shape[0]


@pytest.mark.parametrize("n", range(len(BEYOND)))
def test_what_netx_cannot_express_is_refused_there(n: int, answers: dict[str, Any]) -> None:
    assert str(answers[f"beyond{n}"]) == "concat is not implemented."


def test_reasons_why_netx_refuses() -> None:
    reasons = {
        reason.partition(": netx has no ")[2].partition(" of (")[0]
        for network in BEYOND
        for reason in netfile.netx_refusals(network)
    }
    assert reasons == {
        "connections from layers other than the one before",
        "recurrent connections in a layer of feature maps or injected input",
        "delays in a layer of feature maps or injected input",
        "delays in a recurrent layer",
        "bias beside injected input",
        "convolution",
        "refractory period",
    }
