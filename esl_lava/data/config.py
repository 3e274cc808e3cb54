"""The sections of a configuration about samples: which, and how they become spikes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from esl_lava.chip import SPIKE_RANGE
from esl_lava.errors import shorten
from esl_lava.tomlfile import TomlTable

EventSetName = Literal[
    "nmnist",
    "nmnist_subset",
    "dvs_cifar10",
    "dvs_cifar10_tet",
    "dvs_gesture",
    "shd",
    "moving_digits",
]
EVENT_SETS: tuple[str, ...] = get_args(EventSetName)
"""Data sets whose samples are recordings of an event camera: they become frames."""

OWN = "own"
"""Name of what is no data set that we know, but the user's own samples."""

OF_FRAMES = ("split", "crop", "side", "skip_damaged")
"""Fields of an encoding that say how recordings become frames."""

DIRECT_BITS = 5
"""Bits of a pixel in direct coding, where the configuration does not say it."""


class Data(TomlTable):
    """Where samples come from."""

    name: Literal[
        "digits",
        "mnist",
        "cifar10",
        "cifar10_subset",
        "cifar100",
        EventSetName,
        "own",
    ] = Field("digits", description="data set; own: arrays of the user's, see folder")
    folder: str | None = Field(
        None,
        description="of own alone: the folder that holds train.npz and test.npz, each of arrays "
        "samples and labels, or train_samples.npy, train_labels.npy and the same of test; where "
        "nothing is said, whoever trains gives the samples",
    )
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.1,
        description="share of the training split held back to choose the epoch that is kept; "
        "0 keeps the last epoch",
    )

    @model_validator(mode="after")
    def _only_own_samples_lie_in_a_folder(self) -> Data:
        if self.folder is not None and self.name != OWN:
            raise ValueError(
                f"data.folder {shorten(self.folder)}: data.name is {self.name!r}, only {OWN!r} has "
                "a folder"
            )
        return self


class Encoding(TomlTable):
    """How a sample becomes binary spikes, or graded input."""

    kind: Literal["rate", "latency", "constant", "two_times", "direct", "frames"] = Field(
        "rate",
        description="rate: integrate-and-fire on the pixel; latency: one spike, earlier the "
        "brighter; constant: pixels of at least half scale spike at every step; two_times: "
        "every pixel spikes once, of at least half scale at step 0, else at 2/3 of steps; "
        "direct: the pixel itself at every step, as a signed integer of encoding.bits bits; "
        "frames: the events of each of T portions of a recording, by polarity and pixel, or own "
        "samples of T frames as they are",
    )
    steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="T, the number of steps a sample is presented"
    )
    bits: Annotated[int, Field(ge=2, le=8)] | None = Field(
        None,
        description=f"of direct coding, {DIRECT_BITS} where nothing is said: a pixel becomes "
        "(pixel >> (8 - bits)) - 2^(bits - 1), for 5 bits -16..15; of frames: events are counted "
        "up to 2^bits - 1, and where nothing is said frames are binary",
    )
    split: Literal["time", "number"] | None = Field(
        None,
        description="of frames alone, time where nothing is said: portions of a recording are of "
        "one duration (time) or of one number of events (number)",
    )
    crop: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        None,
        description="of frames alone: pixels left out along each border of the sensor, 0 where "
        "nothing is said",
    )
    side: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="of frames alone: rows and columns of a frame, into which the sensor's pixels "
        "are put together; all of them where nothing is said; a single row of sensors stays one",
    )
    skip_damaged: bool | None = Field(
        None,
        description="of frames alone: whether damaged recordings are left out, with a warning; "
        "where nothing is said they are refused",
    )

    @property
    def input_range(self) -> tuple[int, int]:
        """The least and the largest value that it gives a network's input at one step."""
        if self.bits is None:
            return SPIKE_RANGE
        if self.kind == "frames":
            return 0, (1 << self.bits) - 1
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def refuse_making_of_frames(self) -> None:
        """Refuse what says how frames are made: own samples are frames already, or pictures.

        Raises:
            ValueError: with the field and its value.
        """
        for name in OF_FRAMES:
            value = getattr(self, name)
            if self.kind == "frames" and value != _DEFAULTS["frames"].get(name):
                raise ValueError(
                    f"encoding.{name} {value!r}: data.name {OWN!r} holds frames, which are taken "
                    "as they are"
                )

    @model_validator(mode="before")
    @classmethod
    def _defaults_are_written_out(cls, values: object) -> object:
        """What a run writes down says what a kind took where nothing was said."""
        if not isinstance(values, dict):
            return values
        defaults = _DEFAULTS.get(str(values.get("kind")), {})
        return {**values, **{k: v for k, v in defaults.items() if values.get(k) is None}}

    @model_validator(mode="after")
    def _fields_are_of_their_kind(self) -> Encoding:
        if self.kind not in ("direct", "frames") and self.bits is not None:
            raise ValueError(
                f"encoding.bits {self.bits}: encoding.kind {self.kind!r} makes binary spikes, "
                "only 'direct' and 'frames' have bits"
            )
        for name in OF_FRAMES:
            value = getattr(self, name)
            if self.kind != "frames" and value is not None:
                raise ValueError(f"encoding.{name} {value!r}: only encoding.kind 'frames' has it")
        return self


_DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "direct": {"bits": DIRECT_BITS},
        "frames": {"split": "time", "crop": 0, "skip_damaged": False},
    }
)
"""Kind of encoding -> its fields' values where nothing is said."""
