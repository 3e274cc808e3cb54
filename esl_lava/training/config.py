"""The section of a configuration about the optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esl_lava.tomlfile import TomlTable


class Training(TomlTable):
    """The optimisation: Adam, cosine decay to 0.

    The loss is TET's (Eq. 10), or Eq. 6 where neurons fire once.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="passes over the data")
    engine: Literal["fused", "slayer", "sparse", "auto"] = Field(
        "fused",
        description="what computes the steps, with equal spikes: fused, SLAYER's blocks by faster "
        "kernels; slayer, as they are; sparse, storing only connections of the layers made sparse; "
        "auto, fused or sparse for each layer by its density and size",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="where the steps are computed: cuda, a GPU, serves convolutional networks; "
        "auto takes it for these where there is one",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        100, description="samples per optimiser step; a last partial batch is used too"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        0.001, description="Adam's at the start"
    )
    tet_lambda: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0,
        description="lambda of TET's loss, the share of the mean squared distance of O(t) from "
        "the threshold; the rest is Eq. 10",
    )
    gradient_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="largest Euclidean norm of the gradient of all connections together, above "
        "which every gradient is scaled down by one factor; what the masks exclude does not count, "
        "in any engine; 0 sets no limit",
    )
    shift: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="pixels by which every training image is moved at random, up or down and "
        "left or right, anew in each epoch; 0 trains on the images as they are",
    )
    log: Literal["none", "tensorboard"] = Field(
        "none",
        description="Scalars of every epoch beside esl-lava's own record: tensorboard writes them "
        "into the folder tensorboard of the run.",
    )
    flip: bool = Field(
        False,
        description="whether every training image is mirrored, left to right, with a chance of one "
        "half, anew in each epoch",
    )
