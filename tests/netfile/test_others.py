"""Files from lava-dl or written by hand are read as netx reads them, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.chip import NEVER
from esl_lava.errors import FileError
from esl_lava.network import Convolution, Cuba, Injection, Matrix
from tests.faults import check, refused
from tests.graphs import a_network
from tests.simulate import reference

RNG = np.random.default_rng(0)
KERNEL = 2 * RNG.integers(-9, 9, (4, 1, 3, 2)).astype(np.float32)
WEIGHT = 2 * RNG.integers(-9, 9, (5, 24)).astype(np.float32)
SQUARE = 2 * RNG.integers(-9, 9, (5, 5)).astype(np.float32)
NEURON = {"neuron/type": "LOIHI", "neuron/iDecay": 1024, "neuron/vDecay": 2048} | {
    "neuron/vThMant": 80,
    "neuron/refDelay": 1,
    "neuron/wgtExp": 0,
    "neuron/theta": 5120,
    "neuron/tauRho": 0.1,
}
CONV = {
    "type": np.array([b"conv"]),
    "shape": [4, 3, 2],
    "weight": KERNEL,
    "stride": [1, 2],
    "padding": [0, 0],
    "dilation": [1, 1],
    "groups": 2,
    **NEURON,
}
LAYERS: list[dict[str, Any]] = [
    {"type": np.array([b"input"]), "shape": [2, 5, 5]},
    CONV,
    {"type": np.array([b"flatten"]), "shape": [24]},
    {"type": np.array([b"dense"]), "shape": [5, 1, 1], "weight": WEIGHT, **NEURON},
    {"type": np.array([b"dense_rec"]), "shape": [5], "weight": SQUARE, "weight_rec": SQUARE}
    | NEURON,
]


def written(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the file of `LAYERS`, with datasets changed, added or (None) left out."""
    changes = changes or {}
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(LAYERS):
            file.create_group(f"layer/{index}")
            for key, value in layer.items():
                if f"{index}/{key}" not in changes:
                    file[f"layer/{index}/{key}"] = value
        for name, value in changes.items():
            if value is not None:
                file[f"layer/{name}"] = value
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.h5"


def test_every_kind_of_layer(path: Path) -> None:
    network = netfile.read(written(path))
    conv, dense, recurrent = network.layers
    assert [layer.name for layer in network.layers] == ["layer1", "layer3", "layer4"]
    assert isinstance(conv.inputs[0].connections, Convolution)
    assert np.array_equal(conv.inputs[0].connections.kernel, KERNEL)
    assert conv.inputs[0].connections.in_shape == (2, 5, 5)
    assert (conv.inputs[0].connections.stride, conv.inputs[0].connections.groups) == ((1, 2), 2)
    assert np.array_equal(conv.inputs[0].connections.mask(), KERNEL != 0)
    assert conv.neuron == Cuba(1024, 2048, 80)
    assert isinstance(dense.inputs[0].connections, Matrix)
    assert np.array_equal(dense.inputs[0].connections.dense(), WEIGHT)
    assert recurrent.recurrent is not None
    assert np.array_equal(recurrent.recurrent.connections.unrolled().dense(), SQUARE)
    assert (network.input_range, network.steps) == ((0, 1), None)
    assert not network.provenance


SAME = {
    "old weights of five dimensions": {"1/weight": KERNEL[..., None]},
    "old weights of one dimension": {"3/weight": WEIGHT.ravel()},
    "old recurrent weights": {"4/weight": SQUARE.ravel(), "4/weight_rec": SQUARE.ravel()},
    "one number of padding": {"1/padding": 0},
    "a padding of one": {"1/padding": [0]},
    "unused delays of a convolution": {"1/delay": np.zeros(4, np.float32)},
    "a parameter in a list": {"1/neuron/iDecay": [1024], "3/neuron/vDecay": [2048]},
    "other spelling": {"1/neuron/type": "CUBA", "1/type": "conv", "3/neuron/gradedSpike": False},
    "narrow thresholds that fit": {"1/neuron/vThMant": np.int16(80), "3/neuron/vThMant": [80]},
    "a narrow list that fits": {"1/neuron/vThMant": np.array([80], np.int16)},
    "integers": {"1/weight": KERNEL.astype(np.int16), "3/weight": WEIGHT.astype(np.int64)},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_spellings_of_the_same(changes: dict[str, Any], path: Path, tmp_path: Path) -> None:
    first = netfile.read(written(tmp_path / "first.h5"))
    assert netfile.digest(netfile.read(written(path, changes))) == netfile.digest(first)


def changed_layer(path: Path, changes: dict[str, Any], index: int) -> Any:
    return netfile.read(written(path, changes)).layers[index]


@pytest.mark.slow
def test_what_belongs_to_neurons(path: Path) -> None:
    """Feature maps have a value per channel, or (columns, rows, channels) in Lava's order."""
    channels = changed_layer(path, {"1/bias": np.arange(4.0), "1/neuron/vDecay": [1, 2, 3, 4]}, 0)
    assert channels.bias.tolist() == np.repeat(np.arange(4), 6).tolist()
    assert channels.parameter("voltage_decay").tolist() == np.repeat([1, 2, 3, 4], 6).tolist()
    each = np.arange(24).reshape(4, 3, 2)
    ours = changed_layer(path, {"1/bias": each.T, "1/neuron/vThMant": each.T + 1}, 0)
    assert ours.bias.tolist() == list(range(24))
    assert ours.parameter("threshold").tolist() == list(range(1, 25))
    dense = changed_layer(path, {"3/bias": np.arange(5.0), "3/neuron/iDecay": range(5)}, 1)
    assert list(dense.bias) == [0, 1, 2, 3, 4]
    late = changed_layer(path, {"3/delay": np.arange(5.0)}, 1)
    assert list(late.inputs[0].delays) == [0, 1, 2, 3, 4]
    either = {"3/bias": np.array([0.0, 7, 0, 0, 7]), "3/delay": np.array([3.0, 0, 0, 9, 0])}
    assert list(changed_layer(path, either, 1).inputs[0].delays) == [3, 0, 0, 9, 0]
    assert dense.parameter("current_decay").tolist() == [0, 1, 2, 3, 4]
    assert changed_layer(path, {"3/delay": 7}, 1).inputs[0].delays.tolist() == [7] * 5


def test_a_layer_without_neuron(path: Path) -> None:
    left_out = {f"4/{key}": None for key in NEURON}
    assert changed_layer(path, left_out, 2).neuron == Cuba(0, 4096, NEVER)
    # In SLAYER's Affine block with dynamics, the largest number of 18 bits means never.
    assert changed_layer(path, {"4/neuron/vThMant": 2**18 - 1}, 2).neuron.threshold == NEVER


INPUT_BLOCK = {f"0/{key}": value for key, value in NEURON.items()} | {"0/neuron/iDecay": 4096}


def test_an_input_block(path: Path) -> None:
    """The host drives the block through its bias; the file holds the scale."""
    network = netfile.read(written(path, INPUT_BLOCK | {"0/weight": 36.0, "0/bias": [34.0]}))
    assert network.layers[0].inputs[0].connections == Injection((2, 5, 5))
    assert network.layers[0].bias is None
    assert dict(network.provenance) == {"input_weight": "36", "input_bias": "34"}
    assert network.input_range == (-32768, 32767)
    assert len(network.layers) == 4
    plain = netfile.read(written(path, INPUT_BLOCK))
    assert dict(plain.provenance) == {"input_weight": "64", "input_bias": "0"}


REFUSED = [
    (INPUT_BLOCK | {"0/neuron/iDecay": 1024}, 0, "unsupported", "iDecay", 1024),
    ({"1/weight": 200 * KERNEL}, 1, "limit", "weight", None),
    ({"1/bias": np.array([0, 5000, 0, 0])}, 1, "limit", "bias", 5000),
    (
        {"1/padding": [128, 0], "1/dilation": [126, 1], "1/stride": [4, 2]},
        1,
        "limit",
        "padding",
        128,
    ),
    ({"3/weight": np.where(np.max(WEIGHT) == WEIGHT, 300, WEIGHT)}, 3, "limit", "weight", 300),
    ({"3/weight": -64 * np.eye(5, 24)}, 3, "limit", "weight", -64),
    ({"3/weight": 0 * WEIGHT}, 3, "limit", "weight", 0),
    ({"3/bias": np.eye(5)[1], "3/delay": 2 * np.eye(5)[1]}, 3, "conflict", "delay", 2),
    ({"0/shape": np.array([2, 5, 5], np.uint8)}, 0, "type", "shape", None),
    ({"3/shape": np.array([5], np.uint64)}, 3, "type", "shape", None),
    ({"3/neuron/iDecay": np.uint64(7)}, 3, "type", "iDecay", None),
    ({"3/neuron/vDecay": np.zeros(5, np.uint64)}, 3, "type", "vDecay", None),
    ({"3/neuron/vThMant": np.full(5, 100, np.uint8)}, 3, "limit", "vThMant", 100),
    ({"1/neuron/vThMant": np.full(4, 600, np.int16)}, 1, "limit", "vThMant", 600),
    ({"3/neuron/iDecay": np.uint8(7)}, 3, "type", "iDecay", None),
    ({"3/neuron/vDecay": np.ones(5, np.int8)}, 3, "type", "vDecay", None),
    ({"1/neuron/vThMant": np.uint8(80)}, 1, "limit", "vThMant", 80),
    ({"1/shape": [4, 3, 3]}, 1, "mismatch", "shape", (4, 3, 3)),
    ({"0/shape": [2, 5]}, 1, "damaged", None, None),
    ({"0/shape": [3, 5, 5]}, 1, "damaged", None, None),
    ({"0/shape": [2, 1 << 14, 1 << 14]}, 0, "too-large", "shape", (2, 1 << 14, 1 << 14)),
    ({"1/padding": [1 << 62, 1 << 62]}, 1, "mismatch", "shape", (4, 3, 2)),
    (
        {"1/padding": [1 << 20, 1 << 20], "1/shape": [4, 2097155, 1048578]},
        1,
        "too-large",
        "shape",
        (4, 2097155, 1048578),
    ),
    ({"1/weight": KERNEL[:, :, 0]}, 1, "damaged", None, None),
    ({"1/weight": np.stack([KERNEL] * 2, -1)}, 1, "damaged", None, None),
    ({"1/groups": [2]}, 1, "shape", "groups", (1,)),
    ({"1/groups": 2.0}, 1, "type", "groups", None),
    ({"1/stride": [1, 2, 1]}, 1, "too-large", "stride", (3,)),
    ({"1/stride": [1.0, 2.0]}, 1, "type", "stride", None),
    ({"1/stride": None}, 1, "missing", "stride", None),
    ({"1/stride": np.array([], int)}, 1, "shape", "stride", None),
    ({"1/stride": [0, 1]}, 1, "damaged", None, None),
    ({"1/bias": np.ones(3)}, 1, "shape", "bias", (3,)),
    ({"1/bias": np.ones(24)}, 1, "shape", "bias", (24,)),
    ({"1/bias": np.ones((4, 3, 2))}, 1, "shape", "bias", (4, 3, 2)),
    ({"1/delay": np.ones(4)}, 1, "unsupported", "delay", None),
    ({"1/weight_rec": SQUARE}, 1, "conflict", "weight_rec", None),
    ({f"1/{key}": None for key in NEURON}, 1, "missing", "neuron", None),
    ({"2/type": None, "2/shape": None}, 2, "unsupported", None, None),
    ({"2/type": "pool"}, 2, "unsupported", "type", "pool"),
    ({"4/weight_rec": None}, 4, "missing", "weight_rec", None),
    ({"4/weight_rec": SQUARE[:, :4]}, 4, "shape", "weight_rec", (5, 4)),
    ({"4/delay": np.zeros(5)}, 4, "unsupported", "delay", None),
    ({"3/type": "dense_comp"}, 3, "unsupported", "type", "dense_comp"),
    ({"3/weight": None, "3/weight/imag": WEIGHT}, 3, "unsupported", "weight", None),
    ({"4/neuron/type": "RF"}, 4, "unsupported", "type", "RF"),
    ({"1/neuron/iDecay": 1024.0}, 1, "type", "iDecay", None),
    ({"1/neuron/iDecay": [1] * 3}, 1, "shape", "iDecay", (3,)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "index", "code", "key", "value"), REFUSED)
def test_refused_with_layer_and_reason(
    changes: dict[str, Any], index: int, code: str, key: str | None, value: object, path: Path
) -> None:
    expected = {} if value is None else {"value": value}
    with refused(FileError, code, key=key, file=path, layer=f"layer{index}", **expected) as caught:
        netfile.read(written(path, changes))
    assert str(caught.value).startswith(f"{path}: layer layer{index}: ")


def test_feature_maps_reach_a_dense_layer_through_flatten_only(path: Path) -> None:
    with h5py.File(written(path), "r+") as file:
        del file["layer/2"]
        for index in (2, 3):
            file.move(f"layer/{index + 1}", f"layer/{index}")
    with refused(FileError, "unsupported", file=path, layer="layer2") as caught:
        netfile.read(path)
    assert "without a 'flatten' layer" in str(caught.value)
    with h5py.File(written(path), "r+") as file:
        file.move("layer/4", "layer/5")
        file.copy("layer/2", "layer/4")  # one flatten too many
    with refused(FileError, "unsupported", file=path, layer="layer5") as caught:
        netfile.read(path)
    assert "through a 'flatten' layer" in str(caught.value)


def test_all_faults_of_all_layers_are_reported(path: Path) -> None:
    with pytest.raises(FileError) as caught:
        netfile.read(written(path, {"3/weight": 0 * WEIGHT, "4/bias": np.full(5, 5000)}))
    for fault, (layer, key) in zip(
        caught.value.faults, (("layer3", "weight"), ("layer4", "bias")), strict=True
    ):
        check(fault, "limit", file=path, layer=layer, key=key)


def test_the_shape_of_the_input(path: Path) -> None:
    """A file that begins with a convolution need not hold the shape; netx allows that too."""
    with h5py.File(written(path), "r+") as file:
        del file["layer/0"]
        for index in range(4):
            file.move(f"layer/{index + 1}", f"layer/{index}")
    with refused(FileError, "missing", key="--input-shape", file=path, layer="layer0"):
        netfile.read(path)
    network = netfile.read(path, input_shape=(2, 5, 5))
    assert network.layers[0].inputs[0].connections.in_shape == (2, 5, 5)
    with refused(FileError, "mismatch", key="shape", value=(4, 3, 2), limit=(4, 4, 2)):
        netfile.read(path, input_shape=(2, 6, 5))
    # If the file holds the shape, the argument is ignored.
    assert netfile.read(written(path), input_shape=(2, 5, 6)).input_shape == (2, 5, 5)


def test_read_only_the_first_layers(path: Path) -> None:
    names = [layer.name for layer in netfile.read(written(path), layers=4).layers]
    assert names == ["layer1", "layer3"]
    # This also works for our own files. `layers` counts groups as netx does, and the digest of the
    # whole file is checked.
    network = netfile.read(path)
    netfile.write(a_network(network.layers, 7, {"a": "b"}), path)
    first = netfile.read(path, layers=2)
    assert [layer.name for layer in first.layers] == ["layer1"]
    assert (first.steps, dict(first.provenance)) == (7, {"a": "b"})
    with h5py.File(path, "r+") as file:
        file["layer/4/neuron/vThMant"][()] = 81
    with refused(FileError, "damaged", key="digest", file=path):
        netfile.read(path, layers=2)


def test_what_slayer_itself_exports(path: Path) -> None:
    """The spikes of SLAYER's blocks are those of the network in their file."""
    import torch

    from esl_lava.engines.slayer import slayer

    neuron = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.5}
    torch.manual_seed(0)
    cuba = slayer.block.cuba
    options = {"delay_shift": False}
    blocks = [
        cuba.Input(None, **options),
        cuba.Conv(dict(neuron), 2, 4, (3, 2), (1, 2), (1, 0), (2, 1), 2, **options),
        cuba.Flatten(),
        cuba.Dense(dict(neuron), 32, 7, delay=True, **options),
        cuba.Recurrent(dict(neuron), 7, 6, **options),
        cuba.Affine(dict(neuron), 6, 3, dynamics=False),
    ]
    with torch.no_grad():
        for block in blocks:
            for synapse in ("synapse", "input_synapse", "recurrent_synapse"):
                if hasattr(block, synapse):
                    getattr(block, synapse).weight.mul_(3)
        spikes = (torch.rand(3, 2, 6, 5, 12) < 0.4).float()
        blocks[3](torch.zeros(3, 32, 12))  # the block learns its number of delays
        delays = torch.tensor([0.0, 1.5, 2, 3, 4, 5, 0])
        blocks[3].delay.delay.data = delays.reshape(blocks[3].delay.delay.shape)
        outputs, x = [], spikes
        for block in blocks:
            x = block(x)
            outputs.append(x)
    with h5py.File(path, "w") as file:
        for index, block in enumerate(blocks):
            block.export_hdf5(file.create_group(f"layer/{index}"))
    network = netfile.read(path)
    assert [layer.name for layer in network.layers] == ["layer1", "layer3", "layer4", "layer5"]
    assert network.layers[1].inputs[0].delays is not None
    assert network.layers[1].inputs[0].delays.tolist() == [0, 1, 2, 3, 4, 5, 0]
    trace = reference.simulate(network, spikes.flatten(1, -2).swapaxes(1, 2).int().numpy())
    for index in (1, 3, 4):
        theirs = outputs[index].bool().flatten(1, -2).swapaxes(1, 2).numpy()
        assert theirs.any()
        assert np.array_equal(trace.spikes[f"layer{index}"] != 0, theirs), index
    running = (64 * outputs[5]).cumsum(-1).swapaxes(1, 2).numpy()
    assert np.array_equal(trace.v["layer5"], 64 * running)
