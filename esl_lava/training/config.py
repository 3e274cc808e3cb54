"""The configuration section `[training]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esl_lava.tomlfile import TomlTable


class Training(TomlTable):
    """The optimisation: Adam, with a learning rate that falls to 0 on a cosine.

    The loss is the TET loss (Eq. 10), or Eq. 6 for neurons that fire once.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        10, description="Number of passes over the training data."
    )
    engine: Literal["fused", "slayer", "sparse", "auto"] = Field(
        "fused",
        description="Engine that computes the training steps. All engines give the same spikes for "
        "the same weights; trained weights differ by rounding. fused: faster kernels for SLAYER's "
        "blocks. slayer: the blocks of stock SLAYER. sparse: sparse layers store only the weights "
        "that their masks allow. auto: chooses fused or sparse for each layer by its density and "
        "size.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Device that computes the training steps. cuda: a GPU, for convolutional "
        "networks with the engine fused only. auto: a GPU for such a network if there is one, "
        "otherwise the CPU.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        100,
        description="Number of samples in an optimiser step. The last batch of an epoch may be "
        "smaller.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        0.001, description="Learning rate of Adam at the start. It falls to 0 along a cosine."
    )
    tet_lambda: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0,
        description="Weight lambda of a second term of the TET loss: the mean squared distance "
        "between the readout's output O(t) and the threshold. Eq. 10 has the weight 1 - lambda.",
    )
    gradient_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Largest Euclidean norm of the gradient of all weights that the masks allow, "
        "taken together. Above it, one factor scales all gradients down. 0 sets no limit.",
    )
    shift: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="Largest shift of a training sample in pixels. Every image, or all frames of a "
        "recording alike, are shifted vertically and horizontally by random whole numbers, drawn "
        "anew in each epoch. 0 does not shift the samples.",
    )
    log: Literal["none", "tensorboard"] = Field(
        "none",
        description="Second log of the numbers of every epoch, besides esl-lava's own record. "
        "none: no second log. tensorboard: files for TensorBoard, in the folder tensorboard of the "
        "run.",
    )
    flip: bool = Field(
        False,
        description="Whether every training sample (an image, or all frames of a recording) is "
        "mirrored left to right with probability 1/2, drawn anew in each epoch.",
    )
