"""The list of data sets: complete, and true about what is there."""

from __future__ import annotations

import pytest

from esl_lava.data import inventory
from esl_lava.data.catalogue import NAMES, load
from esl_lava.data.config import Encoding
from esl_lava.errors import UserError


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """A machine without any data set."""
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    monkeypatch.setattr(inventory, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path


def listing(name: str) -> inventory.Listing:
    return next(one for one in inventory.list_data_sets() if one.name == name)


def test_every_data_set_is_listed_in_order() -> None:
    assert tuple(inventory.ORIGINS) == NAMES
    assert [one.name for one in inventory.list_data_sets()] == list(NAMES)


def test_only_what_needs_no_file_is_there_without_a_folder(empty) -> None:
    available = [one.name for one in inventory.list_data_sets() if one.available]
    assert available == ["digits", "moving_digits", "own"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "own"])
def test_what_is_not_available_cannot_be_loaded(
    empty, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "mnist" or listing(name).available:
        return  # mnist would be downloaded
    frames = name in ("nmnist", "nmnist_subset", "dvs_cifar10", "dvs_cifar10_tet", "dvs_gesture")
    encoding = Encoding(kind="frames", steps=4) if frames or name == "shd" else None
    with pytest.raises(UserError):
        load(name, "test", encoding)


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name, origin in inventory.ORIGINS.items() for place in origin.places],
)
def test_each_place_is_found(empty, name: str, place: str) -> None:
    assert not listing(name).available
    path = empty / place
    path.parent.mkdir(exist_ok=True)
    if path.suffix:
        path.write_bytes(b"")
    else:
        path.mkdir()
    assert listing(name).available
    assert listing(name).place == str(path)


def test_a_download_is_found_in_the_cache(empty) -> None:
    folder = empty / "cache" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    assert not listing("mnist").available
    (folder / "train-images-idx3-ubyte").write_bytes(b"")
    assert listing("mnist").place == str(folder)


def test_the_folder_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", "/somewhere")
    assert inventory.data_folder() == "/somewhere"
    monkeypatch.setenv("ESL_LAVA_DATA", "")
    assert inventory.data_folder() is None
