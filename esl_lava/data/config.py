"""The sections of a configuration about samples: which, and how they become spikes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from esl_lava.chip import SPIKE_RANGE
from esl_lava.tomlfile import TomlTable

DIRECT_BITS = 5
"""Bits of a pixel in direct coding, where the configuration does not say it."""


class Data(TomlTable):
    """Where samples come from."""

    name: Literal["digits", "mnist", "cifar10", "cifar10_subset", "cifar100"] = Field(
        "digits", description="data set"
    )
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.1,
        description="share of the training split held back to choose the epoch that is kept; "
        "0 keeps the last epoch",
    )


class Encoding(TomlTable):
    """How a sample becomes binary spikes, or graded input."""

    kind: Literal["rate", "latency", "constant", "two_times", "direct"] = Field(
        "rate",
        description="rate: integrate-and-fire on the pixel; latency: one spike, earlier the "
        "brighter; constant: pixels of at least half scale spike at every step; two_times: "
        "every pixel spikes once, of at least half scale at step 0, else at 2/3 of steps; "
        "direct: the pixel itself at every step, as a signed integer of encoding.bits bits",
    )
    steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="T, the number of steps a sample is presented"
    )
    bits: Annotated[int, Field(ge=2, le=8)] | None = Field(
        None,
        description=f"of direct coding alone, {DIRECT_BITS} where nothing is said: a pixel becomes "
        "(pixel >> (8 - bits)) - 2^(bits - 1), for 5 bits -16..15",
    )

    @property
    def input_range(self) -> tuple[int, int]:
        """The least and the largest value that it gives a network's input at one step."""
        if self.bits is None:
            return SPIKE_RANGE
        half = 1 << (self.bits - 1)
        return -half, half - 1

    @model_validator(mode="before")
    @classmethod
    def _bits_are_written_out(cls, values: object) -> object:
        """What a run writes down says how many bits there were."""
        if isinstance(values, dict) and values.get("kind") == "direct":
            return {**values, "bits": DIRECT_BITS if (b := values.get("bits")) is None else b}
        return values

    @model_validator(mode="after")
    def _bits_are_of_direct_coding(self) -> Encoding:
        if self.kind != "direct" and self.bits is not None:
            raise ValueError(
                f"encoding.bits {self.bits}: encoding.kind {self.kind!r} makes binary spikes, "
                "only 'direct' has bits"
            )
        return self
