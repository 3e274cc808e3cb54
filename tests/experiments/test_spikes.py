from pathlib import Path

import h5py
import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.chip import LAVA_BIAS_RANGE
from esl_lava.errors import ConfigError, DataError, FileError
from esl_lava.experiments.spikes import (
    Layout,
    driven,
    parse_shape,
    read_network,
    read_spikes,
    refuse_others_options,
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
    found = read_spikes(network, path, layout=Layout(axes))
    assert (len(found), found.steps, found.shape) == (5, 6, (2, 3, 4))
    some = found.choose(slice(1, 4)).spikes()
    np.testing.assert_array_equal(some, SPIKES[1:4].reshape(3, 6, 24))


def test_what_says_its_shape_needs_no_letters(path: Path) -> None:
    np.save(path, SPIKES)
    np.testing.assert_array_equal(read_spikes(MAPS, path).spikes(), SPIKES.reshape(5, 6, 24))


@pytest.mark.parametrize("network", [MAPS, FULL])
def test_axes_that_could_be_in_another_order_are_refused(network: Network, path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    with pytest.raises(DataError, match=r"are \(3, 4, 2\) at a step; .*; --axes says which axis"):
        read_spikes(network, path)


def test_letters_of_another_shape_are_refused(path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    with pytest.raises(DataError, match=r"are \(3, 4, 2\) at a step; .* row and column$"):
        read_spikes(MAPS, path, layout=Layout("NTCHW"))


def test_a_default_means_at_most_as_many_as_there_are(path: Path) -> None:
    np.save(path, SPIKES)
    assert len(read_spikes(MAPS, path, most=3)) == 3
    assert len(read_spikes(MAPS, path, most=100)) == 5
    assert len(read_spikes(MAPS, path, 4, most=3)) == 4
    with pytest.raises(DataError, match=r"cannot take 6 samples of .*, which has 5"):
        read_spikes(MAPS, path, 6, most=100)


def test_a_sample_without_a_step_is_refused(path: Path) -> None:
    np.save(path, SPIKES[:, :0])
    with pytest.raises(DataError, match=r"shape \(5, 0, 2, 3, 4\) hold no step"):
        read_spikes(MAPS, path)


def test_labels_are_classes_of_the_network(path: Path, tmp_path: Path) -> None:
    np.save(path, SPIKES[:3])
    labels = tmp_path / "labels.npy"
    assert read_spikes(FULL, path, layout=Layout("NTCHW")).labels is None
    np.save(labels, np.array([0, 2, 1], np.uint8))
    found = read_spikes(FULL, path, 2, labels=labels, layout=Layout("NTCHW"))
    assert found.labels is not None
    assert (found.labels.tolist(), found.classes) == ([0, 2], 3)
    assert found.labels.dtype == np.int64
    np.save(labels, np.array([0, 2, 1, 1]))
    with pytest.raises(DataError, match=r"labels need shape \(3,\), .* not \(4,\)"):
        read_spikes(MAPS, path, labels=labels)
    for given, said in (([1, 3, 2], "label 3 of sample 1"), ([0, 1, -1], "label -1 of sample 2")):
        np.save(labels, np.array(given))
        with pytest.raises(DataError, match=f"{said} is no class of the network, which has 0..2"):
            read_spikes(FULL, path, labels=labels, layout=Layout("NTCHW"))


def test_names_of_data() -> None:
    assert spikes_file("some/spikes.npy") == Path("some/spikes.npy")
    for name in (None, "digits", "mnist", "mnits"):  # the last is a data set's, if any's
        assert spikes_file(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("spikes.npz", "spikes.npz: an archive of arrays; spikes need a .npy file of one"),
        ("spikes.NPY", r"spikes.NPY: .* known by its ending: \.npy, in small letters"),
        (
            "spikes.csv",
            r"spikes.csv: neither a \.npy file of spikes nor a data set",
        ),
        ("some/spikes", r"some/spikes: neither a \.npy file"),
        ("spikes.npy.gz", "spikes.npy.gz: neither"),
    ],
)
def test_other_files_have_their_own_sentence(name: str, said: str) -> None:
    with pytest.raises(DataError, match=f"^{said}"):
        spikes_file(name)


def test_options_belong_to_files_or_data_sets() -> None:
    file = Path("a.npy")
    none = {"encoder": None, "steps": None, "layout": Layout(), "labels": None}
    for given in ({"layout": Layout("NTC")}, {"labels": file}, {"layout": Layout(drive=True)}):
        refuse_others_options("a.npy", file, **{**none, **given})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"belongs to --data FILE\.npy"):
            refuse_others_options("digits", None, **{**none, **given})  # type: ignore[arg-type]
    for own in ({"encoder": "rate"}, {"steps": 3}):
        refuse_others_options("digits", None, **{**none, **own})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"a\.npy holds spikes"):
            refuse_others_options("a.npy", file, **{**none, **own})  # type: ignore[arg-type]


def test_the_shape_of_the_input_is_the_files_the_datas_or_the_users(tmp_path: Path) -> None:
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
    with pytest.raises(
        FileError, match=r"does not say what shape its input has; give --input-shape"
    ):
        read_network(foreign, None)
    for network in (
        read_network(foreign, None, Layout(input_shape=(2, 3, 4))),
        read_network(foreign, spikes, Layout("NCHWT")),
        read_network(written, None, Layout(input_shape=(2, 3, 4))),
        read_network(written, spikes),  # says it itself, whatever the axes of the data
    ):
        assert network.input_shape == (2, 3, 4)
    with pytest.raises(ConfigError, match=r"--input-shape 2,4,3: .* takes input of \(2, 3, 4\)"):
        read_network(written, None, Layout(input_shape=(2, 4, 3)))


@pytest.mark.parametrize(
    "words", ["2,3", "2,3,0", "2,3,4,5", "2;3;4", "a,b,c", "-2,3,4", "", "1.5,2,3"]
)
def test_shapes_that_are_none(words: str) -> None:
    assert parse_shape("2, 34,34") == (2, 34, 34)
    with pytest.raises(ConfigError, match=f"--input-shape {words}: needs channels, rows and col"):
        parse_shape(words)


def block(facts: dict[str, str]) -> Network:
    """A network whose first layer is an input block."""
    layers = (a_layer("in", Injection((2,)), Cuba(4096, 4096, 50)),)
    return a_network(layers, None, facts, LAVA_BIAS_RANGE)


def test_an_input_block_scales_and_shifts_what_a_file_holds(path: Path) -> None:
    np.save(path, np.array([[[1, 0], [-4, 3]]]))
    scaling = block({"input_weight": "48", "input_bias": "8"})
    found = read_spikes(scaling, path).spikes()
    assert driven(scaling, found).tolist() == [[[56, 8], [-184, 152]]]
    for plain in (without_transform(scaling), block({})):
        assert driven(plain, found).tolist() == [[[1, 0], [-4, 3]]]
    for value in (4, -5):
        np.save(path, np.array([[[1, value]]]))
        with pytest.raises(
            DataError, match=rf"whole numbers in -4\.\.3.*found {value}; with --drive"
        ):
            driven(scaling, read_spikes(scaling, path).spikes())


def test_only_an_input_block_has_a_drive(tmp_path: Path) -> None:
    netfile.write(FULL, tmp_path / "net.h5")
    with pytest.raises(ConfigError, match=r"--drive: .*net\.h5 does not begin with an input block"):
        read_network(tmp_path / "net.h5", None, Layout(drive=True))


@pytest.mark.parametrize("said", ["many", "1.5", "", "9" * 5000])
def test_a_weight_that_a_stranger_wrote_is_a_number_or_refused(said: str, path: Path) -> None:
    np.save(path, np.array([[[1, 0]]]))
    for facts in ({"input_weight": said, "input_bias": "0"}, {"input_weight": "1"}):
        with pytest.raises(DataError, match="the network's file says input_"):
            driven(block(facts), read_spikes(block(facts), path).spikes())
