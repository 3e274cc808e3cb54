"""The configuration sections `[data]` and `[encoding]`: the samples and how they become spikes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from esl_lava.chip import SPIKE_RANGE
from esl_lava.errors import shorten
from esl_lava.tomlfile import FieldError, TomlTable

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
"""Data sets whose samples are recordings of an event sensor. They are encoded as frames."""

OWN = "own"
"""The `data.name` of the user's own samples."""

FRAME_FIELDS = ("split", "crop", "side", "skip_damaged")
"""Fields of `[encoding]` that describe how recordings become frames."""

DIRECT_BITS = 5
"""Default number of bits of a pixel in direct coding."""


class Data(TomlTable):
    """The data set and its validation split."""

    name: Literal[
        "digits",
        "mnist",
        "cifar10",
        "cifar10_subset",
        "cifar100",
        EventSetName,
        "own",
    ] = Field(
        "digits",
        description="Name of the data set. own: the user's own samples, which data.folder holds.",
    )
    folder: str | None = Field(
        None,
        description='Folder of the user\'s own samples; only data.name = "own" has one. The '
        "folder holds train.npz and test.npz, each with the arrays samples and labels, or "
        "train_samples.npy, train_labels.npy, test_samples.npy and test_labels.npy. Without "
        "a folder, the samples come from the function that the option --data-module names, or in "
        "Python from the argument own.",
    )
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.1,
        description="Share of the training split that is held out for validation. The epoch with "
        "the best validation accuracy is kept, apart from epochs of a dense start "
        "(sparsity.dense_epochs). 0 keeps the last epoch.",
    )

    @model_validator(mode="after")
    def _check_folder(self) -> Data:
        if self.folder is not None and self.name != OWN:
            raise FieldError(
                f"data.folder {shorten(self.folder)}: data.name is {self.name!r}, and only "
                f"{OWN!r} has a folder",
                "conflict",
                key="data.folder",
                value=self.folder,
            )
        return self


class Encoding(TomlTable):
    """The encoding of a sample as binary spikes or as graded input."""

    kind: Literal["rate", "latency", "constant", "two_times", "direct", "frames"] = Field(
        "rate",
        description="Encoding of a sample. rate: a pixel drives an integrate-and-fire neuron, "
        "whose spikes are the input. latency: a pixel above 0 spikes once, and a brighter pixel "
        "spikes earlier. constant: a pixel of "
        "at least half the full scale spikes at every step. two_times: every pixel spikes once, "
        "at step 0 if it has at least half the full scale, otherwise at 2/3 of the steps. direct: "
        "a pixel is the input at every step, as a signed integer of encoding.bits bits. frames: a "
        "recording is split into T frames of events by polarity and pixel; own samples of T "
        "frames are used unchanged.",
    )
    steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="Number of time steps T for which a sample is presented."
    )
    bits: Annotated[int, Field(ge=2, le=8)] | None = Field(
        None,
        description="Number of bits of an input value. Only the kinds direct and frames use this "
        "key. direct: a pixel becomes (pixel >> (8 - bits)) - 2^(bits - 1), which is -16..15 for 5 "
        f"bits; the default is {DIRECT_BITS}. frames: a value counts up to 2^bits - 1 events, and "
        "further events are dropped; by default a value is 1 if there is an event, otherwise 0.",
    )
    split: Literal["time", "number"] | None = Field(
        None,
        description="Rule that splits a recording into frames. Only the kind frames uses this "
        "key. time (the default): all frames have the same duration. number: all frames have the "
        "same number of events, counted before encoding.crop. The last frame takes the remainder.",
    )
    crop: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        None,
        description="Number of pixels that are cut off at each border of the sensor. Only the kind "
        "frames uses this key. The default is 0.",
    )
    side: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Side of a square frame in pixels. The pixels of the sensor that encoding.crop "
        "leaves are merged into it. Only the kind frames uses this key. By default a frame has all "
        "pixels that encoding.crop leaves. A sensor of a single row stays a single row.",
    )
    skip_damaged: bool | None = Field(
        None,
        description="Whether damaged recordings are left out with a warning. Only the kind frames "
        "uses this key. By default a damaged recording is an error.",
    )

    @property
    def input_range(self) -> tuple[int, int]:
        """The smallest and the largest value of a network's input at one step."""
        if self.bits is None:
            return SPIKE_RANGE
        if self.kind == "frames":
            return 0, (1 << self.bits) - 1
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def check_own_samples(self) -> None:
        """Check that no field describes how to make frames of the user's own samples.

        The user's own samples are frames already, or images.

        Raises:
            FieldError: with the field and its value.
        """
        for name in FRAME_FIELDS:
            value, default = getattr(self, name), _DEFAULTS["frames"].get(name)
            if self.kind == "frames" and value != default:
                raise FieldError(
                    f"encoding.{name} {value!r}: data.name {OWN!r} does not use the key, because "
                    "the user's own frames are used unchanged",
                    "conflict",
                    key=f"encoding.{name}",
                    value=value,
                    limit=default,
                )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: object) -> object:
        """Fill in the defaults of the kind, so that a run records the values it used."""
        if not isinstance(values, dict):
            return values
        defaults = _DEFAULTS.get(str(values.get("kind")), {})
        return {**values, **{k: v for k, v in defaults.items() if values.get(k) is None}}

    @model_validator(mode="after")
    def _check_kind(self) -> Encoding:
        if self.kind not in ("direct", "frames") and self.bits is not None:
            raise FieldError(
                f"encoding.bits {self.bits}: encoding.kind {self.kind!r} makes binary spikes, and "
                "only 'direct' and 'frames' have bits",
                "conflict",
                key="encoding.bits",
                value=self.bits,
            )
        for name in FRAME_FIELDS:
            value = getattr(self, name)
            if self.kind != "frames" and value is not None:
                raise FieldError(
                    f"encoding.{name} {value!r}: only encoding.kind 'frames' has this field, and "
                    f"the kind is {self.kind!r}",
                    "conflict",
                    key=f"encoding.{name}",
                    value=value,
                )
        return self


_DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "direct": {"bits": DIRECT_BITS},
        "frames": {"split": "time", "crop": 0, "skip_damaged": False},
    }
)
"""Kind of encoding -> default values of its fields."""
