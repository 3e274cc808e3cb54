"""The data sets that esl-lava knows: what each one holds, where it lies, and how to get it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from esl_lava.data.catalogue import NAMES
from esl_lava.data.config import OWN
from esl_lava.data.folders import DATA_VARIABLE, cache_folder, own_path

BUILT_IN = "comes with esl-lava"


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from.

    Attributes:
        contents: what its samples are, in a few words.
        places: files or folders in the folder `ESL_LAVA_DATA`; any one of them is enough. Empty
            for a set that needs no file.
        how: how to get it.
        cached: place in the user's cache where a download of esl-lava lies; empty if esl-lava does
            not download it.
    """

    contents: str
    places: tuple[str, ...]
    how: str
    cached: str = ""


_CIFAR = "from https://www.cs.toronto.edu/~kriz/cifar.html"
_TONIC = "download it with tonic (pip install 'esl-lava[events]') into ESL_LAVA_DATA"

ORIGINS: Mapping[str, Origin] = MappingProxyType(
    {
        "digits": Origin("8 x 8 images of 10 digits", (), BUILT_IN),
        "mnist": Origin(
            "28 x 28 images of 10 digits",
            ("mnist",),
            "esl-lava downloads it at the first use, or put its four IDX files into mnist/",
            "MNIST/raw",
        ),
        "cifar10": Origin(
            "32 x 32 colour images of 10 classes",
            ("cifar10",),
            f"put the 'CIFAR-10 python version' into cifar10/, {_CIFAR}",
        ),
        "cifar10_subset": Origin(
            "a part of CIFAR-10 as arrays",
            ("cifar10/cifar10_lossless_subset.npz",),
            "put cifar10_lossless_subset.npz into cifar10/: x_train, y_train, x_test, y_test",
        ),
        "cifar100": Origin(
            "32 x 32 colour images of 100 classes",
            ("cifar100",),
            f"put the 'CIFAR-100 python version' into cifar100/, {_CIFAR}",
        ),
        "nmnist": Origin(
            "34 x 34 recordings of 10 digits",
            ("nmnist", "NMNIST"),
            "put the folders Train and Test into nmnist/, from "
            "https://www.garrickorchard.com/datasets/n-mnist",
        ),
        "nmnist_subset": Origin(
            "1,100 recordings of N-MNIST",
            ("nmnist_small.tar.gz",),
            "put nmnist_small.tar.gz into ESL_LAVA_DATA",
        ),
        "dvs_cifar10": Origin(
            "128 x 128 recordings of 10 classes",
            ("dvs_cifar10", "CIFAR10DVS"),
            "put a folder of .aedat files for each class into dvs_cifar10/, from "
            "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        ),
        "dvs_cifar10_tet": Origin(
            "the same recordings, split as TET does",
            ("dvs_cifar10", "CIFAR10DVS"),
            "as dvs_cifar10",
        ),
        "dvs_gesture": Origin("128 x 128 recordings of 11 gestures", ("DVSGesture",), _TONIC),
        "shd": Origin("spikes of 700 channels, 20 spoken digits", ("SHD",), _TONIC),
        "moving_digits": Origin("34 x 34 recordings of a modelled camera", (), BUILT_IN),
        OWN: Origin("your own samples", (), "--data-folder or --data-module (docs/data.md)"),
    }
)
"""Name of a data set -> its origin."""


@dataclass(frozen=True)
class Listing:
    """One data set on this machine.

    Attributes:
        name: the value of `data.name`.
        contents: what its samples are.
        available: whether it can be loaded, as far as its place says. Its files are not read.
        place: its file or folder; None if it is not found, or if the set needs none.
        how: how to get it.
    """

    name: str
    contents: str
    available: bool
    place: str | None
    how: str


def list_data_sets() -> list[Listing]:
    """Look up every data set, in the order of the catalogue."""
    return [_look_up(name, ORIGINS[name]) for name in NAMES]


def data_folder() -> str | None:
    """Return the value of `ESL_LAVA_DATA`, or None where it is not set."""
    return os.environ.get(DATA_VARIABLE) or None


def _look_up(name: str, origin: Origin) -> Listing:
    place = next((path for part in origin.places if (path := own_path(part))), None)
    if place is None and origin.cached:
        cached = cache_folder() / origin.cached
        place = cached if _holds_files(cached) else None
    available = place is not None or not origin.places
    shown = None if place is None else str(place)
    return Listing(name, origin.contents, available, shown, origin.how)


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
