import math

import pytest

from esl_lava.data.catalogue import NAMES, load, shape_and_classes
from esl_lava.data.config import Encoding
from esl_lava.errors import DataError
from tests.faults import refused

FRAMES = Encoding(kind="frames", steps=2, crop=1)


@pytest.mark.parametrize(("name", "nearest"), [("mnits", "mnist"), ("Digit", "digits")])
def test_unknown_names_are_refused_with_the_nearest(name: str, nearest: str) -> None:
    with refused(DataError, "unknown", key="data set", value=name, limit=NAMES) as caught:
        load(name, "train")
    assert str(caught.value).endswith(f"'{nearest}'")


@pytest.mark.parametrize("name", ["spikes.npy", "folder/digits"])
def test_names_of_files_are_no_data_sets(name: str) -> None:
    with refused(DataError, "unknown", key="data set", value=name) as caught:
        load(name, "test")
    assert "file" in str(caught.value)


def test_unknown_splits_are_refused() -> None:
    for name in ("digits", "nmnist"):
        with refused(DataError, "unknown", key="split", value="all", limit=("train", "test")):
            load(name, "all", FRAMES)


@pytest.mark.parametrize("encoding", [None, Encoding()])
def test_recordings_need_frames(encoding: Encoding | None) -> None:
    with refused(DataError, "conflict", key="encoding.kind", limit="frames"):
        load("nmnist", "test", encoding)


def test_images_are_loaded_whatever_the_encoding() -> None:
    digits = load("digits", "test", Encoding(steps=3))
    assert (digits.name, digits.split, len(digits)) == ("digits", "test", 357)
    assert digits.shape == shape_and_classes("digits", Encoding())[0]


def test_shapes_of_frames_follow_the_encoding() -> None:
    assert shape_and_classes("nmnist", FRAMES) == ((2, 32, 32), 10)
    smaller = Encoding(kind="frames", steps=2, side=16)
    assert math.prod(shape_and_classes("nmnist_subset", smaller)[0]) == 512
    with refused(DataError, "range", key="side", value=64, limit=34):
        shape_and_classes("nmnist", Encoding(kind="frames", side=64))
