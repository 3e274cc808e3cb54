from pathlib import Path

import numpy as np
import pytest

from esl_lava.errors import ConfigError, DataError
from esl_lava.experiments.spikes import (
    read_labels,
    read_spikes,
    refuse_others_options,
    spikes_file,
)
from esl_lava.network import INTEGRATOR, Connections, Convolution, Layer, Network

MAPS = Network((Layer("maps", Convolution(np.full((2, 2, 1, 1), 2), (2, 3, 4)), INTEGRATOR),))
FULL = Network((Layer("full", Connections.from_dense(np.ones((3, 24), int)), INTEGRATOR),))
SPIKES = np.random.default_rng(0).integers(0, 2, (5, 6, 2, 3, 4), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spikes.npy"


@pytest.mark.parametrize("network", [MAPS, FULL])
@pytest.mark.parametrize("axes", ["NTCHW", "NTHWC", "NCHWT"])
def test_spikes_are_flat_in_the_networks_order(network: Network, axes: str, path: Path) -> None:
    np.save(path, np.einsum(f"ntchw->{axes.lower()}", SPIKES))
    found = read_spikes(network, path, axes=axes)
    assert (found.samples, found.steps) == (5, 6)
    np.testing.assert_array_equal(found(slice(1, 4)), SPIKES[1:4].reshape(3, 6, 24))


def test_what_says_its_shape_needs_no_letters(path: Path) -> None:
    np.save(path, SPIKES)
    np.testing.assert_array_equal(read_spikes(MAPS, path)(slice(0, 5)), SPIKES.reshape(5, 6, 24))


@pytest.mark.parametrize("network", [MAPS, FULL])
def test_axes_that_could_be_in_another_order_are_refused(network: Network, path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    with pytest.raises(DataError, match=r"are \(3, 4, 2\) at a step; .*; --axes says which axis"):
        read_spikes(network, path)


def test_letters_of_another_shape_are_refused(path: Path) -> None:
    np.save(path, SPIKES.transpose(0, 1, 3, 4, 2))
    with pytest.raises(DataError, match=r"are \(3, 4, 2\) at a step; .* row and column$"):
        read_spikes(MAPS, path, axes="NTCHW")


def test_a_default_means_at_most_as_many_as_there_are(path: Path) -> None:
    np.save(path, SPIKES)
    assert read_spikes(MAPS, path, most=3).samples == 3
    assert read_spikes(MAPS, path, most=100).samples == 5
    assert read_spikes(MAPS, path, 4, most=3).samples == 4
    with pytest.raises(DataError, match=r"cannot take 6 samples of .*, which has 5"):
        read_spikes(MAPS, path, 6, most=100)


def test_a_sample_without_a_step_is_refused(path: Path) -> None:
    np.save(path, SPIKES[:, :0])
    with pytest.raises(DataError, match=r"shape \(5, 0, 2, 3, 4\) hold no step"):
        read_spikes(MAPS, path)


def test_labels_are_classes_of_the_network(path: Path) -> None:
    np.save(path, np.array([0, 2, 1]))
    assert read_labels(FULL, path, 3).tolist() == [0, 2, 1]
    with pytest.raises(DataError, match=r"labels need shape \(4,\), .* not \(3,\)"):
        read_labels(FULL, path, 4)
    for labels, said in (([1, 3, 2], "label 3 of sample 1"), ([0, 1, -1], "label -1 of sample 2")):
        np.save(path, np.array(labels))
        with pytest.raises(DataError, match=f"{said} is no class of the network, which has 0..2"):
            read_labels(FULL, path, 3)


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
    none = {"encoder": None, "steps": None, "axes": None, "labels": None}
    for given in ({"axes": "NTC"}, {"labels": file}):
        refuse_others_options("a.npy", file, **{**none, **given})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"belongs to --data FILE\.npy"):
            refuse_others_options("digits", None, **{**none, **given})  # type: ignore[arg-type]
    for given in ({"encoder": "rate"}, {"steps": 3}):  # type: ignore[dict-item]
        refuse_others_options("digits", None, **{**none, **given})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"a\.npy holds spikes"):
            refuse_others_options("a.npy", file, **{**none, **given})  # type: ignore[arg-type]
