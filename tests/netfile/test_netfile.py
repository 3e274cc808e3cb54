"""A network can be read from its file unchanged, and no file can do harm."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava import netfile
from esl_lava.chip import NEVER
from esl_lava.errors import FileError, LimitError
from esl_lava.experiments.integers import compare_integers
from esl_lava.netfile import reader, safe, writer
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Matrix,
    Network,
)
from tests.faults import check, refused
from tests.graphs import a_layer, a_network
from tests.netfile.networks import assert_same, random_network
from tests.simulate.networks import Case, cases

LIF = Cuba(current_decay=4000, voltage_decay=2048, threshold=64)
PROVENANCE = {"config": 'seed = 1\n[data]\nname = "digits"\n', "source_sha256": "00" * 32}


def example() -> Network:
    """Return 5-6-3: masks, connections of weight 0, an unconnected neuron, biases, a readout."""
    random = np.random.default_rng(0)
    mask = random.random((6, 5)) < 0.6
    weights = 2 * random.integers(-128, 128, (6, 5)) * mask
    weights[0], mask[0] = 0, [True, False, True, False, True]
    weights[3], mask[3] = 0, False
    hidden = a_layer("hidden1", Matrix.from_dense(weights, mask), LIF, [0, 1, -2, 900, -4000, 7])
    readout = Matrix.from_dense(random.integers(-9, 9, (3, 6)))
    return a_network((hidden, a_layer("readout", readout, INTEGRATOR)), 8, PROVENANCE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.h5"


@pytest.fixture
def written(path):
    netfile.write(example(), path)
    return path


def refusal(path: Path, code: str | None = None, **expected: object) -> str:
    """Assert that the file is refused for one fault, check its fields, and return its sentence."""
    with pytest.raises(FileError) as caught:
        netfile.read(path)
    (fault,) = caught.value.faults
    check(fault, fault.code if code is None else code, file=path, **expected)
    return fault.sentence


# --- Writing and reading. ------------------------------------------------------------------

names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=9)
int32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def networks(draw):
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=4))
    titles = draw(st.lists(names, min_size=3, max_size=3, unique=True))
    layers = []
    for index, (n_pre, n_post) in enumerate(pairwise(widths)):
        shape = (n_post, n_pre)
        mask = draw(hnp.arrays(bool, shape))
        values = draw(st.sampled_from([st.integers(-2, 2), st.integers(-256, 254), int32]))
        weights = draw(hnp.arrays(np.int32, shape, elements=values)) * mask
        last = index == len(widths) - 2
        decay = st.integers(0, 4096)
        neuron = Cuba(draw(decay), draw(decay), draw(st.integers(1, NEVER - 1 + last)))
        bias = draw(st.none() | hnp.arrays(np.int32, n_post, elements=int32))
        layers.append(a_layer(titles[index], Matrix.from_dense(weights, mask), neuron, bias))
    facts = st.dictionaries(names.filter(lambda n: n not in ("", ".") and "/" not in n), names)
    return a_network(layers, draw(st.none() | st.integers(1, 2**63 - 1)), draw(facts))


@pytest.mark.slow
@given(network=networks())
def test_networks_come_back(network, path):
    netfile.write(network, path)
    again = netfile.read(path)
    assert_same(again, network)
    assert netfile.digest(again) == netfile.digest(network)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_networks_of_every_kind_come_back(seed, path):
    """The networks mix convolutions, recurrence, delays, skips, injected and graded input."""
    network = random_network(seed)
    netfile.write(network, path)
    again = netfile.read(path)
    assert_same(again, network)
    before = path.read_bytes()
    netfile.write(again, path)
    assert path.read_bytes() == before


def test_masks_come_back_with_connections_of_weight_zero(written):
    mask = netfile.read(written).layers[0].inputs[0].connections
    assert mask.synapses < mask.count < mask.possible
    assert_same(netfile.read(written), example())


@pytest.mark.parametrize("zeros", [[], [0], [29], [0, 29], [13, 14], range(30)])
def test_zero_connections_at_the_edges(path, zeros):
    weights, mask = np.ones((6, 5), int), np.ones((6, 5), bool)
    weights.ravel()[list(zeros)] = 0
    mask.ravel()[7] = False
    weights.ravel()[7] = 0
    network = a_network((a_layer("a", Matrix.from_dense(weights, mask), LIF),))
    netfile.write(network, path)
    assert_same(netfile.read(path), network)


def test_a_layer_without_connections_or_weights(path):
    for mask in (np.zeros((2, 3), bool), np.ones((2, 3), bool)):
        network = a_network((a_layer("a", Matrix.from_dense(mask * 0, mask), LIF),))
        netfile.write(network, path)
        assert_same(netfile.read(path), network)


def test_steps_may_be_absent(path):
    network = a_network(example().layers)
    netfile.write(network, path)
    assert netfile.read(path).steps is None
    assert dict(netfile.read(path).provenance) == {}


# --- The bytes. ----------------------------------------------------------------------------


@pytest.mark.slow
def test_bytes_depend_on_the_network_only(tmp_path):
    facts = list(PROVENANCE.items())
    other_order = a_network(example().layers, 8, dict(reversed(facts)))
    files = [tmp_path / name for name in ("net.h5", "a-much-longer-name.net", "x")]
    for file, network in zip(files, (example(), example(), other_order)):
        netfile.write(network, file)
        time.sleep(1.1 if file is files[0] else 0)  # a time stamp in the file would differ
    assert len({file.read_bytes() for file in files}) == 1
    netfile.write(netfile.read(files[0]), files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_integers_in_the_smallest_type(path):
    def stored(weights, bias=None):
        layer = a_layer("a", Matrix.from_dense([weights]), LIF, bias)
        netfile.write(a_network((layer,)), path)
        with h5py.File(path) as file:
            group = file["layer/0"]
            assert group["weight"][()].tolist() == [weights]
            return group["weight"].dtype, group["bias"].dtype if bias is not None else None

    assert stored([-9, 100], [3])[0] == np.int8
    assert stored([0, 254])[0] == np.uint8
    assert stored([-256, 254])[0] == np.int16
    assert stored([0, 65535])[0] == np.uint16
    assert stored([-1, 65535])[0] == np.int32
    assert stored([-(2**31), 2**31 - 1])[0] == np.int32
    assert stored([1, 2], [-4000])[1] == np.int16


def test_everything_netx_reads_is_an_integer(written):
    """Lava hangs on decays and thresholds stored as floats."""
    with h5py.File(written) as file:
        for block in file["layer"].values():
            for key in ("weight", "shape", "neuron/iDecay", "neuron/vDecay", "neuron/vThMant"):
                assert block[key].dtype.kind in "iu", key
            assert block["type"][0] == b"dense"
        assert file["layer/0/bias"].dtype.kind == "i"
        assert file["layer/0/weight"].compression == "gzip"


def test_the_digest_covers_everything():
    network = example()
    hidden, readout = network.layers
    c = hidden.inputs[0].connections
    mask = c.mask()
    mask[3, 3] = True
    weights = c.dense()
    weights[0, 0] = 2

    def hidden_as(name="hidden1", connections=c, neuron=LIF, bias=hidden.bias):
        return a_network(
            (a_layer(name, connections, neuron, bias), readout), network.steps, PROVENANCE
        )

    facts = [
        {},
        {"a": "b=c"},
        {"a=b": "c"},
        {"ab": "c"},
        {"a": "bc"},
        {"steps=8": "c"},
        {"a": "b", "c": "d"},
        {"a": "bcd"},
    ]
    variants = [
        network,
        hidden_as(name="hidden"),
        hidden_as(connections=Matrix.from_dense(c.dense(), mask)),
        hidden_as(connections=Matrix.from_dense(weights, c.mask())),
        hidden_as(neuron=Cuba(4001, 2048, 64)),
        hidden_as(neuron=Cuba(4000, 2049, 64)),
        hidden_as(neuron=Cuba(4000, 2048, 65)),
        hidden_as(bias=None),
        hidden_as(bias=np.zeros(6, int)),
        a_network(network.layers, 9, PROVENANCE),
        a_network(network.layers, None, PROVENANCE),
        *(a_network(network.layers, 8, f) for f in facts),
    ]
    assert len({netfile.digest(n) for n in variants}) == len(variants)
    assert netfile.digest(hidden_as()) == netfile.digest(network)


def test_the_digest_covers_every_feature():
    kernel = np.ones((2, 1, 2, 2), int)
    kernel[0, 0, 0, 0] = 0
    square = Matrix.from_dense(np.ones((8, 8), int))
    convolutions = [
        Convolution(kernel, (1, 3, 3)),
        Convolution(kernel, (1, 3, 3), allowed=kernel != 0),
        Convolution(2 * kernel, (1, 3, 3)),
        Convolution(kernel, (1, 5, 5), stride=(2, 3)),
        Convolution(kernel, (1, 5, 5), stride=(3, 2)),
        Convolution(kernel, (1, 1, 1), padding=(1, 1)),
        Convolution(kernel, (1, 5, 4), dilation=(3, 2)),
        Convolution(kernel, (2, 3, 3), groups=2),
    ]
    neuron_parameters = [
        Cuba(1, 2, 3),
        Cuba([1] * 2, 2, 3),
        Cuba([1] * 8, 2, 3),
        Cuba(1, [2] * 8, 3),
        Cuba(1, 2, [3] * 8),
    ]
    first = a_layer("a", convolutions[0], LIF)
    variants = [a_network((a_layer("a", part, LIF),)) for part in convolutions]
    variants += [
        a_network((a_layer("a", convolutions[0], neuron),)) for neuron in neuron_parameters
    ]
    variants += [
        a_network((first,), input_range=(-1, 1)),
        a_network((first,), input_range=(-3, 3)),
        a_network((first,), input_range=(-4, 3)),
        a_network((first,), input_range=(0, 3)),
        a_network((a_layer("a", convolutions[0], LIF, delays=[0] * 8),)),
        a_network((a_layer("a", convolutions[0], LIF, delays=[1] * 8),)),
        a_network((a_layer("a", convolutions[0], LIF, bias=[1] * 8),)),
        a_network((a_layer("a", convolutions[0], LIF, recurrent=square),)),
        a_network((a_layer("a", Injection((8,)), LIF),)),
        a_network((a_layer("a", Injection((2, 2, 2)), LIF),)),
        a_network((first, a_layer("b", square, LIF))),
        a_network((first, a_layer("b", square, LIF, recurrent=square))),
        a_network((first, a_layer("b", square, LIF, skips=[Input("a", square)]))),
        a_network((first, a_layer("b", square, LIF, skips=[Input("a", square)] * 2))),
        a_network(
            (a_layer("a", square, LIF), a_layer("b", square, LIF, skips=[Input("a", square)]))
        ),
        a_network(
            (
                a_layer("a", square, LIF),
                a_layer("b", square, LIF, skips=[Input("input", square)]),
            )
        ),
    ]
    assert len({netfile.digest(network) for network in variants}) == len(variants)


# --- Writing is all or nothing. ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["fsync", "interrupt", "replace"])
def test_a_failed_write_leaves_the_old_file(failing, written, monkeypatch):
    before = written.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt if failing == "interrupt" else OSError(28, "No space left")

    owner, name = (Path, "replace") if failing == "replace" else (os, "fsync")
    monkeypatch.setattr(owner, name, fail)
    other = a_network(example().layers, 9)
    with pytest.raises((FileError, KeyboardInterrupt)) as caught:
        netfile.write(other, written)
    monkeypatch.undo()
    if failing != "interrupt":
        assert "net.h5: cannot be written: No space left" in str(caught.value)
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == ["net.h5"]


@pytest.mark.parametrize(
    ("name", "facts", "code"),
    [
        ("a\0b", {}, "type"),
        ("a", {"a": "b\0c"}, "type"),
        ("a", {"": "b"}, "type"),
        ("a", {"a/b": "c"}, "type"),
        ("a", {".": "c"}, "type"),
        ("a", {"a": "\ud800"}, "type"),
        ("\ud800", {}, "type"),
        ("a", {"a": "x" * (safe.MAX_TEXT + 1)}, "too-large"),
        ("a", {"a": "x" * safe.MAX_TEXT, "b": "x"}, "too-large"),
        ("a", {str(n): "" for n in range(writer.MAX_TEXTS + 1)}, "too-large"),
    ],
    ids=range(10),
)
def test_texts_that_could_not_be_read_back_are_not_written(path, name, facts, code):
    layer = a_layer(name, example().layers[0].inputs[0].connections, LIF)
    with refused(FileError, code, file=path):
        netfile.write(a_network((layer,), provenance=facts), path)
    assert os.listdir(path.parent) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "none" / "net.h5", Path("/"), Path(".")):
        with pytest.raises(FileError):
            netfile.write(example(), place)
    assert os.listdir(tmp_path) == ["folder"]


def test_too_large_for_dense_matrices(path):
    side = 1 << 14
    empty = Matrix(side, side, np.zeros(side + 1, int), np.empty(0, int), np.empty(0, int))
    layers = (a_layer("a", empty, LIF), a_layer("b", empty, LIF))
    excess = {"value": 2 * side**2, "limit": side**2, "layer": "a"}
    with refused(LimitError, "limit", **excess):
        netfile.write(a_network(layers), path)
    recurrent = a_layer("a", empty, LIF, recurrent=empty)
    with refused(LimitError, "limit", **excess):
        netfile.write(a_network((recurrent,)), path)
    assert not path.exists()


def test_a_recurrent_kernel_is_refused_and_its_matrix_is_not(path):
    """The file can hold only a matrix: a kernel would be read as another network."""
    kernel = Convolution(np.full((2, 2, 1, 1), 2), (2, 3, 3))
    maps = Convolution(np.full((2, 1, 3, 3), 2), (1, 3, 3), padding=(1, 1))
    network = a_network((a_layer("a", maps, LIF, recurrent=kernel),))
    with refused(LimitError, "unsupported", layer="a"):
        netfile.write(network, path)
    assert not path.exists()
    network = a_network((a_layer("a", maps, LIF, recurrent=kernel.unrolled()),))
    netfile.write(network, path)
    assert_same(netfile.read(path), network)


@pytest.mark.slow
def test_more_neurons_or_layers_than_are_read(path):
    one = Matrix.from_dense([[2]])
    wide = a_network((a_layer("a", Convolution([[[[1]]]], (1, 1 << 12, (1 << 11) + 1)), LIF),))
    deep = a_network([a_layer(f"{i}", one, LIF) for i in range(writer.MAX_LAYERS + 1)])
    for network, number, limit in ((wide, 16785408, 1 << 24), (deep, 10001, 10000)):
        with refused(LimitError, "limit", value=number, limit=limit):
            netfile.write(network, path)
        assert not path.exists()


# --- Refused: changed content. -------------------------------------------------------------


def rewrite(path: Path, name: str, value, **options) -> None:
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file.create_dataset(name, data=value, **options)


def foreign(path: Path) -> None:
    """Remove our group from the file, so that it is like the file of another program."""
    with h5py.File(path, "r+") as file:
        del file["esl_lava"], file["layer"].attrs["esl_lava"]


def test_a_file_that_is_exchanged_while_it_is_opened(written, monkeypatch):
    """The file that was looked at is read, or none."""
    other = written.parent / "other"
    netfile.write(a_network((a_layer("other", Matrix.from_dense([[2, -4]]), LIF),)), other)

    def exchange(*arguments, **more):
        other.replace(written)
        return h5py_file(*arguments, **more)

    h5py_file = h5py.File
    monkeypatch.setattr(h5py, "File", exchange)
    refusal(written, "damaged")
    monkeypatch.undo()
    assert netfile.read(written).layers[0].name == "other"


def test_a_machine_without_proc(written, monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: not str(path).startswith("/proc"))
    assert netfile.read(written).layers[0].name == "hidden1"


def test_our_group_is_missed(written):
    with h5py.File(written, "r+") as file:
        file.move("esl_lava", "esl_lavb")
    refusal(written, "damaged", key="esl_lava")
    with h5py.File(written, "r+") as file:
        del file["layer"].attrs["esl_lava"]
    assert netfile.read(written).layers[0].name == "layer0"


def change(path: Path, name: str, index, by: int = 1) -> None:
    with h5py.File(path, "r+") as file:
        file[name][index] = file[name][index] + by


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("layer/0/weight", (1, np.s_[:])),
        ("layer/1/weight", (0, 0)),
        ("layer/0/bias", 2),
        ("layer/0/neuron/iDecay", ()),
        ("layer/0/neuron/vDecay", ()),
        ("layer/0/neuron/vThMant", ()),
    ],
)
def test_changed_values_do_not_match_the_digest(written, name, index):
    change(written, name, index)
    refusal(written, "damaged", key="digest")


def test_changed_facts_do_not_match_the_digest(written):
    with h5py.File(written, "r+") as file:
        file["esl_lava"].attrs["steps"] = 9
    refusal(written, "damaged", key="digest")
    netfile.write(example(), written)
    with h5py.File(written, "r+") as file:
        del file["esl_lava/provenance/config"]
    refusal(written, "damaged", key="digest")
    netfile.write(example(), written)
    rewrite(written, "esl_lava/layer/0/zero_connections", np.array([0, 2]))
    refusal(written, "damaged", key="digest")


IGNORED = {"inChannels", "outChannels", "kernelSize", "inFeatures", "outFeatures"}
"""Datasets that netx does not use either. The reader needs only `outFeatures` of a skip."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 11, 51])
def test_any_changed_number_is_noticed(seed, path):
    """In networks with every feature, the reader notices a change of any dataset."""
    netfile.write(random_network(seed), path)
    whole = path.read_bytes()
    is_boolean = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                is_boolean.update({name: item.dtype.kind == "b"})
                if (isinstance(item, h5py.Dataset) and item.dtype.kind in "iub" and item.size)
                else None
            )
        )
        flat = [name for name in file["layer"] if file["layer"][name]["type"][0] == b"flatten"]
    checked = 0
    for name, boolean in is_boolean.items():
        folder, _, key = name.rpartition("/")
        if folder in {f"layer/{index}" for index in flat}:
            continue
        if key in IGNORED and not (key == "outFeatures" and "skip" in name):
            continue
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            values = np.array(file[name][()])
            first = values[(0,) * values.ndim]
            # Downwards, because all thresholds from NEVER on mean the same.
            values[(0,) * values.ndim] = not first if boolean else first - 1 if first > 0 else 1
            del file[name]
            file[name] = values
        refusal(path)
        checked += 1
    assert checked > 20


@pytest.mark.slow
@pytest.mark.parametrize("to", [b"conv", b"dense", b"input", b"flatten", b"pool"])
def test_what_netx_must_refuse_cannot_be_called_otherwise(to, path):
    network = next(n for n in map(random_network, range(99)) if netfile.netx_refusals(n))
    netfile.write(network, path)
    with h5py.File(path, "r+") as file:
        index = next(i for i in file["layer"] if file["layer"][i]["type"][0] == b"concat")
        file[f"layer/{index}/type"][0] = to
    refusal(path)


def test_the_untouched_foreign_file_is_read(written):
    foreign(written)
    network = netfile.read(written)
    dense = [layer.inputs[0].connections.dense().tolist() for layer in network.layers]
    assert dense == [layer.inputs[0].connections.dense().tolist() for layer in example().layers]


NETX_FAULTS = [
    ("layer/0/type", np.bytes_("conv"), "missing", "--input-shape"),
    ("layer/0/type", np.array([b"dense_rec"]), "missing", "weight_rec"),
    *(
        ("layer/0/type", np.bytes_(kind), "unsupported", "type")
        for kind in ("pool", "convT", "unpool", "average", "concat", "dense_comp", "esl_lava")
    ),
    ("layer/0/type", np.array([b"dense", b"dense"]), "too-large", "type"),
    ("layer/0/type", np.array([], "S5"), "type", "type"),
    ("layer/0/type", 5, "type", "type"),
    ("layer/0/type", np.bytes_(b"\xff"), "damaged", None),
    ("layer/0/type", None, "missing", "type"),
    ("layer/0/weight", None, "missing", "weight"),
    ("layer/0/shape", None, "missing", "shape"),
    ("layer/0/neuron/iDecay", None, "missing", "iDecay"),
    ("layer/0/neuron/vThMant", None, "missing", "vThMant"),
    ("layer/0/neuron/type", None, "missing", "type"),
    ("layer/0/neuron/type", "SDNN", "unsupported", "type"),
    ("layer/0/neuron", 5, "type", "neuron"),
    ("layer/0", 5, "type", "0"),
    ("layer/0", None, "missing", "0"),
    ("layer", 5, "type", "layer"),
    ("layer", None, "missing", "layer"),
    ("layer/0/delay", np.arange(5.0), "shape", "delay"),
    ("layer/0/delay", np.full(6, 0.5), "type", "delay"),
    ("layer/0/delay", np.arange(6) + 60, "damaged", None),
    ("layer/0/delay", -1, "damaged", None),
    ("layer/0/weight_rec", np.zeros((6, 6)), "conflict", "weight_rec"),
    ("layer/1/type", np.bytes_("input"), "unsupported", "type"),
    ("layer/0/neuron/gradedSpike", True, "unsupported", "gradedSpike"),
    ("layer/0/neuron/weight_exp", 2, "unsupported", "weight_exp"),
    ("layer/0/neuron/wgtExp", 2, "unsupported", "wgtExp"),
    ("layer/0/neuron/refDelay", 3, "unsupported", "refDelay"),
    ("layer/0/neuron/messageBits", 0, "unsupported", "messageBits"),
    ("layer/0/neuron/iDecay", 2000.0, "type", "iDecay"),
    ("layer/0/neuron/vThMant", np.float32(64), "type", "vThMant"),
    ("layer/0/neuron/iDecay", True, "type", "iDecay"),
    ("layer/0/neuron/iDecay", 4097, "damaged", None),
    ("layer/0/neuron/iDecay", -1, "damaged", None),
    ("layer/0/neuron/vDecay", 2**62, "damaged", None),
    ("layer/0/neuron/vThMant", 0, "damaged", None),
    ("layer/0/neuron/vThMant", 2**19 + 1, "damaged", None),
    ("layer/0/neuron/vThMant", [64] * 5, "shape", "vThMant"),
    ("layer/0/neuron/vThMant", [[64] * 6], "shape", "vThMant"),
    ("layer/0/neuron/vThMant", [64] * 7, "too-large", "vThMant"),
    ("layer/0/neuron/vThMant", h5py.Empty("i8"), "type", "vThMant"),
    ("layer/0/weight", np.full((6, 5), 0.5), "type", "weight"),
    ("layer/0/weight", np.full((6, 5), np.nan), "type", "weight"),
    ("layer/0/weight", np.full((6, 5), np.inf, "f4"), "type", "weight"),
    ("layer/0/weight", np.full((6, 5), 2.0**31), "type", "weight"),
    ("layer/0/weight", np.full((6, 5), 2**31), "damaged", None),
    ("layer/0/weight", np.full((6, 5), 2**64 - 1, "u8"), "damaged", None),
    ("layer/0/weight", np.zeros((6, 5), "c8"), "type", "weight"),
    ("layer/0/weight", np.zeros((6, 5), "S3"), "type", "weight"),
    ("layer/0/weight", np.zeros((6, 5), [("a", "i4")]), "type", "weight"),
    ("layer/0/weight", np.zeros((6, 5), np.longdouble), "type", "weight"),
    ("layer/0/weight", np.zeros(31, int), "shape", "weight"),
    ("layer/0/weight", np.zeros((0, 5), int), "shape", "weight"),
    ("layer/0/shape", [4], "shape", "weight"),
    ("layer/0/shape", [0], "range", "shape"),
    ("layer/0/shape", [-6, -1], "range", "shape"),
    ("layer/0/shape", [2**62, 2**62], "shape", "weight"),
    ("layer/0/shape", [6.0], "type", "shape"),
    ("layer/0/shape", [1] * 9, "too-large", "shape"),
    ("layer/0/shape", [3], "shape", "weight"),
    ("layer/1/weight", np.ones((3, 2)), "damaged", None),
    ("layer/1/weight", np.ones((3, 6, 1)), "shape", "weight"),
    ("layer/0/bias", [1.5] * 6, "type", "bias"),
    ("layer/0/bias", [1] * 5, "shape", "bias"),
    ("layer/0/bias", np.ones((6, 1)), "shape", "bias"),
    ("layer/0/bias", "text", "type", "bias"),
    ("layer/2/type", "dense", "missing", "shape"),
    ("layer/x", 5, "missing", "2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value", "code", "key"), NETX_FAULTS)
def test_unusable_layers_are_refused_with_their_reason(written, name, value, code, key):
    foreign(written)
    rewrite(written, name, value)
    if name.startswith("layer/0/"):
        refusal(written, code, key=key, layer="layer0")
    else:
        refusal(written, code, key=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "code", "key"),
    [
        ("esl_lava", 5, "type", "esl_lava"),
        ("esl_lava/layer", None, "missing", "layer"),
        ("esl_lava/layer/1", None, "missing", "1"),
        ("esl_lava/layer/1/zero_connections", None, "missing", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [-1], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [3, 0], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [3, -1, 3], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [30], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [10**9, -(10**9)], "damaged", "zero_connections"),
        (
            "esl_lava/layer/0/zero_connections",
            np.array([2**64 - 1], "u8"),
            "damaged",
            "zero_connections",
        ),
        ("esl_lava/layer/0/zero_connections", [[0]], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [15, 15], "damaged", "zero_connections"),
        ("esl_lava/layer/1/zero_connections", [0], "damaged", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", np.zeros(31, int), "too-large", "zero_connections"),
        ("esl_lava/layer/0/zero_connections", [0.5], "type", "zero_connections"),
        ("esl_lava/provenance", 5, "type", "provenance"),
        ("esl_lava/provenance/config", 5, "type", "config"),
        ("esl_lava/provenance/more/config", "a", "type", "more"),
    ],
)
def test_our_own_group_is_checked_too(written, name, value, code, key):
    rewrite(written, name, value)
    refusal(written, code, key=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "key", "value", "code", "fields"),
    [
        ("esl_lava", "format_version", 1, "unsupported", {"value": 1, "limit": 2}),
        ("esl_lava", "format_version", None, "missing", {}),
        ("esl_lava", "format_version", "1", "type", {}),
        ("esl_lava", "format_version", [1, 1], "type", {}),
        ("esl_lava", "format_version", 1.0, "type", {}),
        ("esl_lava", "digest", None, "missing", {}),
        ("esl_lava", "digest", "of variable length", "type", {}),
        ("esl_lava", "digest", np.bytes_("0" * 64), "damaged", {}),
        ("esl_lava", "steps", 0, "damaged", {"key": None}),
        ("esl_lava", "steps", -1, "damaged", {"key": None}),
        ("esl_lava", "steps", 8.0, "type", {}),
        ("esl_lava", "steps", h5py.Empty("i8"), "type", {}),
        ("esl_lava", "input_bits", None, "missing", {}),
        ("esl_lava", "input_bits", -1, "range", {"value": -1}),
        ("esl_lava", "input_bits", 25, "range", {"value": 25, "limit": 24}),
        ("esl_lava", "input_bits", 1 << 62, "range", {"value": 1 << 62}),
        ("esl_lava", "input_bits", 3, "damaged", {"key": "digest"}),
        ("esl_lava/layer/0", "type", None, "missing", {}),
        ("esl_lava/layer/0", "type", np.bytes_("flatten"), "unsupported", {"value": "flatten"}),
        ("esl_lava/layer/0", "name", None, "missing", {}),
        ("esl_lava/layer/0", "name", 5, "type", {}),
        ("esl_lava/layer/0", "name", np.bytes_(b"\xff"), "damaged", {"key": None}),
        ("esl_lava/layer/0", "name", np.bytes_("readout"), "damaged", {"key": None}),
    ],
)
def test_our_own_attributes_are_checked_too(written, group, key, value, code, fields):
    with h5py.File(written, "r+") as file:
        del file[group].attrs[key]
        if value is not None:
            file[group].attrs[key] = value
    refusal(written, code, **{"key": key, **fields})


def of_inputs(ends: tuple[int, int]) -> Network:
    return a_network((a_layer("a", Matrix.from_dense([[2, -4]]), LIF),), input_range=ends)


@pytest.mark.parametrize(
    ("bits", "ends", "digest"),
    [
        (0, (0, 1), "9abca6562a46498ac5e92d54b31b9c0e9e817775c01cf2a358688cbf9e2cd9d0"),
        (1, (-1, 1), "5c6919b3cb760f3bdc08760ad61c466856452c0662851ee53c4d30cb1f3f2c13"),
        (3, (-7, 7), "46b0a3d7e939f0df466af1f9cbc52b7aa24e031032f0960bcf5fa734c5d06b3a"),
        (
            24,
            (1 - (1 << 24), (1 << 24) - 1),
            "1e6274e3c5399950c5a547a71c6005a0fd5c03cec7345b2f34db81699e28c6f2",
        ),
    ],
)
def test_bits_of_inputs_mean_what_they_meant(path, bits, ends, digest):
    """The digests are those of an older revision, which knew no other ranges."""
    network = of_inputs(ends)
    assert netfile.digest(network) == digest
    netfile.write(network, path)
    with h5py.File(path) as file:
        assert file["esl_lava"].attrs["input_bits"] == bits
        assert "input_low" not in file["esl_lava"].attrs
    assert_same(netfile.read(path), network)


@pytest.mark.parametrize("ends", [(-16, 15), (0, 2), (-1, 0), (-15, 16), (0, (1 << 24) - 1)])
def test_other_ranges_of_inputs_come_back(path, ends):
    netfile.write(of_inputs(ends), path)
    with h5py.File(path) as file:
        assert "input_bits" not in file["esl_lava"].attrs  # which would mean another range
    assert netfile.read(path).input_range == ends


@pytest.mark.parametrize(
    ("key", "value", "code", "named"),
    [
        ("input_low", None, "missing", "input_bits"),
        ("input_high", None, "missing", "input_high"),
        ("input_low", -15, "damaged", "digest"),
        ("input_high", 16, "damaged", "digest"),
        ("input_low", 1, "damaged", None),
        ("input_low", -16.0, "type", "input_low"),
    ],
)
def test_ranges_of_inputs_are_checked(path, key, value, code, named):
    netfile.write(of_inputs((-16, 15)), path)
    with h5py.File(path, "r+") as file:
        del file["esl_lava"].attrs[key]
        if value is not None:
            file["esl_lava"].attrs[key] = value
    refusal(path, code, key=named)


def test_numbers_of_layers(written, path):
    with h5py.File(path, "w") as file:
        file.create_group("layer")
    refusal(path, "range", value=0)


# --- Refused: links out of the file, and huge sizes. ---------------------------------------


def test_no_hdf5_file(path):
    for content in (b"", b"\x89HDF", b"PK\x03\x04" * 100, bytes(4096)):
        path.write_bytes(content)
        refusal(path, "damaged")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4096))
    refusal(path, "damaged")
    path.unlink()
    refusal(path, "not-found")
    path.mkdir()
    refusal(path, "unreadable")


def test_one_delay_holds_for_every_neuron_of_feature_maps(tmp_path):
    kernel = Convolution(np.full((2, 1, 1, 1), 2), (1, 3, 4))
    network = a_network((a_layer("maps", kernel, LIF, delays=[5] * 24),))
    path = tmp_path / "net.h5"
    netfile.write(network, path)
    rewrite(path, "layer/1/delay", 5)
    assert_same(netfile.read(path), network)
    rewrite(path, "layer/1/delay", np.full(24, 5))
    message = refusal(path, "shape", key="delay", limit=(4, 3, 2))
    assert "(4, 3, 2), one value for each neuron, or (2,), one for each channel" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "layer",
        "layer/0",
        "layer/0/type",
        "layer/0/weight",
        "layer/0/bias",
        "layer/0/delay",
        "layer/0/weight_rec",
        "layer/0/neuron",
        "layer/0/neuron/type",
        "layer/0/neuron/iDecay",
        "layer/0/neuron/gradedSpike",
        "layer/0/neuron/messageBits",
        "esl_lava",
        "esl_lava/layer",
        "esl_lava/layer/0",
        "esl_lava/layer/0/zero_connections",
        "esl_lava/layer/0/skip",
        "esl_lava/provenance",
        "esl_lava/provenance/config",
    ],
)
@pytest.mark.parametrize("kind", ["soft", "dangling", "external", "dangling external"])
def test_links(written, tmp_path, name, kind, monkeypatch):
    other = tmp_path / "other.h5"
    shutil.copy(written, other)
    link = {
        "soft": h5py.SoftLink("/elsewhere"),
        "dangling": h5py.SoftLink("/nowhere"),
        "external": h5py.ExternalLink("other.h5", name),
        "dangling external": h5py.ExternalLink("nowhere.h5", name),
    }[kind]
    with h5py.File(written, "r+") as file:
        if name in file:
            file.move(name, "elsewhere")
        file[name] = link
    # The reader must not try to open the other file: the sentence would be another one.
    message = refusal(written)
    assert "missing or a link" in message or "supported" in message


@pytest.mark.slow
def test_linked_files_are_not_even_opened(written, tmp_path):
    """A reader would wait for ever for a named pipe, and a device could do worse."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("layer/0/bias", "esl_lava", "layer/0/neuron"):
        with h5py.File(written, "r+") as file:
            if name in file:
                del file[name]
            file[name] = h5py.ExternalLink("pipe", "/x")
        code = "import pathlib, sys, esl_lava.netfile as n; n.read(pathlib.Path(sys.argv[1]))"
        process = subprocess.run(
            [sys.executable, "-c", code, str(written)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "missing or a link" in process.stderr
        netfile.write(example(), written)


def test_external_storage(written, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(1000))
    with h5py.File(written, "r+") as file:
        del file["layer/0/weight"]
        external = [(str(tmp_path / "raw"), 0, 240)]
        file.create_dataset("layer/0/weight", (6, 5), "i8", external=external)
    refusal(written, "type", key="weight")


def test_virtual_datasets(written, tmp_path):
    layout = h5py.VirtualLayout((6, 5), "i8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(6, 5))
    with h5py.File(written, "r+") as file:
        del file["layer/0/weight"]
        file.create_virtual_dataset("layer/0/weight", layout)
    refusal(written, "type", key="weight")


def peak() -> int:
    """Return the peak memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


HUGE = {
    "a terabyte of zeros, compressed": {"shape": (1 << 20, 1 << 20), "compression": "gzip"},
    "a terabyte never stored": {"shape": (1 << 40,), "chunks": (1 << 20,)},
    "within the limit, but never stored": {"shape": (1 << 14, 1 << 14), "chunks": (1 << 10,) * 2},
    "within the limit, not in one piece": {"shape": (1 << 14, 1 << 14), "chunks": (4, 4)},
    "within the limit, beyond the file": {"shape": (1 << 14, 1 << 14)},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(
    "name",
    [
        "layer/0/weight",
        "layer/0/bias",
        "layer/0/shape",
        "layer/0/neuron/iDecay",
        "esl_lava/layer/0/zero_connections",
    ],
)
def test_huge_shapes_allocate_nothing(written, name, options):
    with h5py.File(written, "r+") as file:
        del file[name]
        file.create_dataset(name, dtype="i1", **options)
    before = peak()
    start = time.perf_counter()
    refusal(written)
    assert time.perf_counter() - start < 10
    assert peak() - before < 50


def test_layers_share_one_budget(path, monkeypatch):
    """The file has many large, well compressed matrices."""
    monkeypatch.setattr(reader, "MAX_POSITIONS", 4 << 12)
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"] = "dense"
        layer["shape"] = [64]
        layer.create_dataset("weight", data=np.zeros((64, 64), np.int8), compression="gzip")
        for index in range(1, 9):
            file.copy(layer, f"layer/{index}")
    refusal(path, "too-large", key="weight", value=(64, 64), limit=0, layer="layer4")


def test_chains_of_compression(written):
    """Deflate compresses to a thousandth, and two passes of it to a millionth."""
    with h5py.File(written, "r+") as file:
        del file["layer/0/weight"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((6, 5))
        creation.set_deflate(9)
        creation.set_deflate(9)
        space = h5py.h5s.create_simple((6, 5))
        dataset = h5py.h5d.create(
            file["layer/0"].id, b"weight", h5py.h5t.NATIVE_INT8, space, dcpl=creation
        )
        raw = zlib.compress(zlib.compress(bytes(30)))
        dataset.write_direct_chunk((0, 0), raw)
    assert "filters [1, 1]" in refusal(written, "unsupported", key="weight")


def test_other_filters(written):
    rewrite(written, "layer/0/weight", np.zeros((6, 5), int), chunks=(6, 5), compression="lzf")
    assert "filters [32000]" in refusal(written, "unsupported", key="weight")


def test_texts_of_claimed_length(written):
    """HDF5 allocates the length that a text of variable length claims before it reads the text."""
    rewrite(written, "layer/0/neuron/type", "CUBA")  # of variable length, as lava-dl writes it
    foreign(written)
    assert netfile.read(written).layers[0].neuron == LIF
    with h5py.File(written) as file:
        place = file["layer/0/neuron/type"].id.get_offset()
    raw = bytearray(written.read_bytes())
    assert raw[place : place + 4] == b"\x04\0\0\0"
    raw[place : place + 4] = b"\xff\xff\xff\xf0"
    written.write_bytes(raw)
    before = peak()
    refusal(written, "too-large", key="type")
    assert peak() - before < 50


def test_wide_texts(written):
    with h5py.File(written, "r+") as file:
        del file["layer/0/type"]
        kind = h5py.string_dtype("utf-8", 1 << 30)
        file.create_dataset("layer/0/type", (1,), kind, chunks=(1,), compression="gzip")
    before = peak()
    refusal(written, "type", key="type", value=1 << 30, limit=safe.MAX_TEXT)
    assert peak() - before < 50


def test_other_things_of_variable_length(written):
    """One flipped bit turns a text into a list. Reading this list crashes the HDF5 library."""
    rewrite(written, "layer/0/neuron/type", None)
    with h5py.File(written, "r+") as file:
        file.create_dataset("layer/0/neuron/type", (), h5py.vlen_dtype(np.int8))
        file["layer/0/neuron/type"][()] = np.arange(3, dtype=np.int8)
    refusal(written, "type", key="type")
    rewrite(written, "layer/0/neuron/type", None)
    with h5py.File(written, "r+") as file:
        file["layer/0/neuron"].create_dataset("type", data=file["layer"].ref)
    refusal(written, "type", key="type")


@pytest.mark.slow
def test_many_links_to_one_text(written):
    with h5py.File(written, "r+") as file:
        facts = file["esl_lava/provenance"]
        text = np.array(b"x" * 100_000, h5py.string_dtype("utf-8", 100_000))
        facts["long"] = text
        for index in range(50):
            facts[f"again{index}"] = facts["long"]
    refusal(written, "unsupported")
    netfile.write(example(), written)
    with h5py.File(written, "r+") as file:
        facts = file["esl_lava/provenance"]
        for index in range(50):
            facts[f"long{index}"] = text
    refusal(written, "too-large", key="provenance", limit=safe.MAX_TEXT)
    with h5py.File(written, "r+") as file:
        facts = file["esl_lava/provenance"]
        for index in range(reader.MAX_TEXTS):
            facts[f"more{index}"] = facts["config"]
    refusal(written, "too-large", key="provenance", limit=reader.MAX_TEXTS)


# --- Refused: damaged files. ---------------------------------------------------------------


def test_truncated_files(written):
    raw = written.read_bytes()
    for length in {*range(0, len(raw), 509), *range(0, 64, 7), len(raw) - 1}:
        written.write_bytes(raw[:length])
        refusal(written)


changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4
)


ANYTHING = random_network(11)  # convolutions, recurrence, delays, biases, a skip


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
@given(changes=changes)
def test_damaged_files(tmp_path, ours, changes):
    """Our file is read unchanged or refused. Others' files have no digest, but do no harm."""
    source, path = tmp_path / "source.h5", tmp_path / "net.h5"
    if not source.exists():
        netfile.write(ANYTHING if ours else example(), source)
        if not ours:
            rewrite(source, "layer/0/neuron/type", "CUBA")
            foreign(source)
    raw = bytearray(source.read_bytes())
    for place, difference in changes:
        raw[int(place * len(raw))] ^= difference
    path.write_bytes(raw)
    with contextlib.suppress(FileError):
        network = netfile.read(path)
        if ours and network.provenance:
            assert_same(network, ANYTHING)


@pytest.mark.slow
@given(cases())
@settings(max_examples=60, deadline=None)
def test_any_network_comes_back_from_its_file(tmp_path_factory, case: Case) -> None:
    """The networks include any source, and delays of any input."""
    path = tmp_path_factory.mktemp("any") / "net.h5"
    netfile.write(case.network, path)
    network = netfile.read(path)
    assert netfile.digest(network) == netfile.digest(case.network)
    for ours, theirs in zip(case.network.layers, network.layers):
        assert sorted(one.source for one in ours.inputs) == sorted(
            one.source for one in theirs.inputs
        )
    assert compare_integers(case.network, network).total == 0
