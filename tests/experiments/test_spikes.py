from pathlib import Path

import h5py
import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.chip import LAVA_BIAS_RANGE
from esl_lava.data.catalogue import NAMES
from esl_lava.errors import ConfigError, DataError, FileError
from esl_lava.experiments.spikes import (
    Layout,
    apply_input_block,
    parse_shape,
    read_network,
    read_spikes,
    refuse_unrelated_options,
    spikes_file,
    without_transform,
)
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Matrix,
    Network,
)
from tests.faults import refused
from tests.graphs import a_layer, a_network

MAPS = a_network((a_layer("maps", Convolution(np.full((2, 2, 1, 1), 2), (2, 3, 4)), INTEGRATOR),))
FULL = a_network((a_layer("full", Matrix.from_dense(np.ones((3, 24), int)), INTEGRATOR),))
SPIKES = np.random.default_rng(0).integers(0, 2, (5, 6, 2, 3, 4), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spikes.npy"


@pytest.mark.parametrize("network", [MAPS, FULL])
@pytest.mark.parametrize("axes", ["NTCHW", "NTHWC", "NCHWT"])
def test_spikes_are_flat_in_the_networks_order(network: Network, axes: str, path: Path) -> None:
    np.save(path, np.einsum(f"ntchw->{axes.lower()}", SPIKES))
    spikes_read = read_spikes(network, path, layout=Layout(axes))
    assert (len(spikes_read), spikes_read.steps, spikes_read.shape) == (5, 6, (2, 3, 4))
    some = spikes_read.choose(slice(1, 4)).spikes()
    np.testing.assert_array_equal(some, SPIKES[1:4].reshape(3, 6, 24))


def test_an_array_with_the_shape_of_the_input_needs_no_letters(path: Path) -> None:
    np.save(path, SPIKES)
    np.testing.assert_array_equal(read_spikes(MAPS, path).spikes(), SPIKES.reshape(5, 6, 24))


@pytest.mark.parametrize("network", [MAPS, FULL])
def test_axes_of_another_order_are_refused(network: Network, path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    expected = {"value": (5, 6, 3, 4, 2), "limit": network.input_shape, "file": path}
    with refused(DataError, "shape", **expected) as caught:
        read_spikes(network, path)
    assert "--axes" in str(caught.value)


def test_letters_of_another_shape_are_refused(path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    expected = {"value": (5, 6, 3, 4, 2), "limit": (2, 3, 4), "file": path}
    with refused(DataError, "shape", **expected) as caught:
        read_spikes(MAPS, path, layout=Layout("NTCHW"))
    assert "--axes" not in str(caught.value)


def test_a_default_may_exceed_the_number_of_samples(path: Path) -> None:
    np.save(path, SPIKES)
    assert len(read_spikes(MAPS, path, most=3)) == 3
    assert len(read_spikes(MAPS, path, most=100)) == 5
    assert len(read_spikes(MAPS, path, 4, most=3)) == 4
    with pytest.raises(DataError, match=r"6[^0-9].*5"):
        read_spikes(MAPS, path, 6, most=100)


def test_a_sample_without_a_step_is_refused(path: Path) -> None:
    np.save(path, SPIKES[:, :0])
    with refused(DataError, "shape", value=(5, 0, 2, 3, 4), file=path):
        read_spikes(MAPS, path)


def test_labels_are_classes_of_the_network(path: Path, tmp_path: Path) -> None:
    np.save(path, SPIKES[:3])
    labels = tmp_path / "labels.npy"
    assert read_spikes(FULL, path, layout=Layout("NTCHW")).labels is None
    np.save(labels, np.array([0, 2, 1], np.uint8))
    spikes_read = read_spikes(FULL, path, 2, labels=labels, layout=Layout("NTCHW"))
    assert spikes_read.labels is not None
    assert (spikes_read.labels.tolist(), spikes_read.classes) == ([0, 2], 3)
    assert spikes_read.labels.dtype == np.int64
    np.save(labels, np.array([0, 2, 1, 1]))
    with refused(DataError, "shape", key="labels", value=(4,), limit=(3,), file=labels):
        read_spikes(MAPS, path, labels=labels)
    for values, wrong, sample in (([1, 3, 2], 3, 1), ([0, 1, -1], -1, 2)):
        np.save(labels, np.array(values))
        expected = {"key": "labels", "value": wrong, "limit": 2, "file": labels}
        with refused(DataError, "range", **expected) as caught:
            read_spikes(FULL, path, labels=labels, layout=Layout("NTCHW"))
        assert f"sample {sample}" in str(caught.value)


def test_only_a_npy_file_is_a_file_of_spikes() -> None:
    assert spikes_file("some/spikes.npy") == Path("some/spikes.npy")
    for name in (None, "digits", "mnist", "mnits"):  # the last may be a mistyped data set
        assert spikes_file(name) is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("spikes.npz", "type"),
        ("spikes.NPY", "type"),
        ("spikes.csv", "unknown"),
        ("some/spikes", "unknown"),
        ("spikes.npy.gz", "unknown"),
    ],
)
def test_other_files_are_refused(name: str, code: str) -> None:
    with refused(DataError, code, key="--data", value=name) as caught:
        spikes_file(name)
    assert ".npy" in str(caught.value)


def test_every_data_set_is_named() -> None:
    with refused(DataError, "unknown", key="--data", value="nmnist.csv", limit=", ".join(NAMES)):
        spikes_file("nmnist.csv")


def test_options_apply_to_files_or_to_data_sets() -> None:
    file = Path("a.npy")
    none = {"encoder": None, "steps": None, "layout": Layout(), "labels": None}
    for option, key, value in (
        ({"layout": Layout("NTC")}, "--axes", "NTC"),
        ({"labels": file}, "--labels", file),
        ({"layout": Layout(drive=True)}, "--drive", None),
    ):
        refuse_unrelated_options("a.npy", file, **{**none, **option})  # type: ignore[arg-type]
        with refused(ConfigError, "conflict", key=key, value=value):
            refuse_unrelated_options("digits", None, **{**none, **option})  # type: ignore[arg-type]
    for name, setting in (("encoder", "rate"), ("steps", 3)):
        arguments = {**none, name: setting}
        refuse_unrelated_options("digits", None, **arguments)  # type: ignore[arg-type]
        with refused(ConfigError, "conflict", key=f"--{name}", value=setting):
            refuse_unrelated_options("a.npy", file, **arguments)  # type: ignore[arg-type]


def test_the_shape_of_the_input_comes_from_file_data_or_user(tmp_path: Path) -> None:
    written, foreign, spikes = (tmp_path / name for name in ("net.h5", "theirs.net", "x.npy"))
    netfile.write(MAPS, written)
    with h5py.File(foreign, "w") as file:  # begins with a convolution
        for key, value in {
            "type": np.bytes_("conv"),
            "shape": [2, 3, 4],
            "weight": np.array([[2, -2], [4, 2]]).reshape(2, 2, 1, 1),
            **dict.fromkeys(("stride", "dilation", "groups"), 1),
            "padding": 0,
            **{f"neuron/{key}": 64 for key in ("iDecay", "vDecay", "vThMant")},
            "neuron/type": np.bytes_("CUBA"),
        }.items():
            file[f"layer/0/{key}"] = value
    np.save(spikes, SPIKES.transpose(0, 2, 3, 4, 1))
    with pytest.raises(FileError, match="--input-shape"):
        read_network(foreign, None)
    for network in (
        read_network(foreign, None, Layout(input_shape=(2, 3, 4))),
        read_network(foreign, spikes, Layout("NCHWT")),
        read_network(written, None, Layout(input_shape=(2, 3, 4))),
        read_network(written, spikes),  # the file has a shape, so that of the data is ignored
    ):
        assert network.input_shape == (2, 3, 4)
    expected = {"key": "--input-shape", "value": (2, 4, 3), "limit": (2, 3, 4), "file": written}
    with refused(ConfigError, "mismatch", **expected):
        read_network(written, None, Layout(input_shape=(2, 4, 3)))


@pytest.mark.parametrize(
    "text", ["2,3", "2,3,0", "2,3,4,5", "2;3;4", "a,b,c", "-2,3,4", "", "1.5,2,3"]
)
def test_a_text_that_is_no_shape_is_refused(text: str) -> None:
    assert parse_shape("2, 34,34") == (2, 34, 34)
    with refused(ConfigError, "type", key="--input-shape", value=text):
        parse_shape(text)


def block(provenance: dict[str, str]) -> Network:
    """Return a network that is an input block."""
    layers = (a_layer("in", Injection((2,)), Cuba(4096, 4096, 50)),)
    return a_network(layers, None, provenance, LAVA_BIAS_RANGE)


def test_an_input_block_scales_and_shifts_what_a_file_holds(path: Path) -> None:
    np.save(path, np.array([[[1, 0], [-4, 3]]]))
    scaling = block({"input_weight": "48", "input_bias": "8"})
    spikes_read = read_spikes(scaling, path).spikes()
    assert apply_input_block(scaling, spikes_read).tolist() == [[[56, 8], [-184, 152]]]
    for plain in (without_transform(scaling), block({})):
        assert apply_input_block(plain, spikes_read).tolist() == [[[1, 0], [-4, 3]]]
    for value in (4, -5):
        np.save(path, np.array([[[1, value]]]))
        with refused(DataError, "range", value=value, limit=3 if value > 3 else -4) as caught:
            apply_input_block(scaling, read_spikes(scaling, path).spikes())
        assert "--drive" in str(caught.value)


def test_only_an_input_block_has_a_drive(tmp_path: Path) -> None:
    netfile.write(FULL, tmp_path / "net.h5")
    with refused(ConfigError, "conflict", key="--drive", file=tmp_path / "net.h5"):
        read_network(tmp_path / "net.h5", None, Layout(drive=True))


@pytest.mark.parametrize("text", ["many", "1.5", "", "9" * 5000])
def test_a_weight_that_is_no_number_is_refused(text: str, path: Path) -> None:
    np.save(path, np.array([[[1, 0]]]))
    for provenance, key, value in (
        ({"input_weight": text, "input_bias": "0"}, "input_weight", text),
        ({"input_weight": "1"}, "input_bias", ""),
    ):
        network = block(provenance)
        with refused(DataError, "type", key=key, value=value):
            apply_input_block(network, read_spikes(network, path).spikes())
