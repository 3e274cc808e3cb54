"""The sections of a configuration about samples: which, and how they become spikes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esl_lava.tomlfile import TomlTable


class Data(TomlTable):
    """Where samples come from."""

    name: Literal["digits", "mnist"] = Field("digits", description="data set")
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.1,
        description="share of the training split held back to choose the epoch that is kept; "
        "0 keeps the last epoch",
    )


class Encoding(TomlTable):
    """How a sample becomes binary spikes."""

    kind: Literal["rate", "latency", "constant", "two_times"] = Field(
        "rate",
        description="rate: integrate-and-fire on the pixel; latency: one spike, earlier the "
        "brighter; constant: pixels of at least half scale spike at every step; two_times: "
        "every pixel spikes once, of at least half scale at step 0, else at 2/3 of steps",
    )
    steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="T, the number of steps a sample is presented"
    )
