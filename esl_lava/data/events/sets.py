"""Data sets of recordings, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from esl_lava.data.events import aedat, atis, dvs_cifar10, moving, nmnist, tonic_sets
from esl_lava.data.events.eventset import EventSet

EVENT_LOADERS: Mapping[str, EventSet] = MappingProxyType(
    {
        "nmnist": EventSet(atis.SIDE, atis.SIDE, nmnist.DIGITS, nmnist.find_whole),
        "nmnist_subset": EventSet(atis.SIDE, atis.SIDE, nmnist.DIGITS, nmnist.find_subset),
        "dvs_cifar10": EventSet(
            aedat.SIDE, aedat.SIDE, len(dvs_cifar10.CLASSES), dvs_cifar10.find_fixed
        ),
        "dvs_cifar10_tet": EventSet(
            aedat.SIDE, aedat.SIDE, len(dvs_cifar10.CLASSES), dvs_cifar10.find_tet
        ),
        "dvs_gesture": EventSet(
            128, 128, 11, partial(tonic_sets.find, "dvs_gesture", tonic_sets.GESTURE)
        ),
        "shd": EventSet(1, 700, 20, partial(tonic_sets.find, "shd", tonic_sets.SHD), polarities=1),
        "moving_digits": EventSet(moving.SIDE, moving.SIDE, nmnist.DIGITS, moving.find_moving),
    }
)
"""Name of a data set of recordings -> the data set."""
