"""The configuration section `[sparsity]`. It names rules of the tables in this package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from esl_lava.tomlfile import FieldError, Fraction, TomlTable


class Sparsity(TomlTable):
    """The number of weights in the sparse layers, and the rules that rewire them."""

    density: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Density of the sparse layers together: number of weights divided by number of "
        "positions.",
    )
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Erdos-Renyi parameter eps of Eq. 1: a layer of n inputs and m outputs gets "
        "the density eps (n + m) / (n m), at most 1. It is given in place of density.",
    )
    densities: dict[str, Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]] | None = Field(
        None,
        description="Density of each sparse layer by name, for example "
        "{hidden1 = 0.05, hidden2 = 0.2}. It is given in place of density.",
    )
    distribution: Literal["er", "erk", "uniform"] = Field(
        "er",
        description="Rule that distributes density over the sparse layers. er: densities in "
        "proportion to (n + m) / (n m) as in Eq. 1, for n inputs and m outputs, or channels of a "
        "convolution. erk: in a convolution with kernels of r rows and c columns, in proportion to "
        "(n + m + r + c) / (n m r c) instead. uniform: the same density in every layer.",
    )
    keep_dense: Annotated[tuple[str, ...], Strict(False)] = Field(
        ("readout",),
        description="Names of the layers that stay dense. The default is the readout, as in the "
        "paper; in a convolutional network it is the first layer with weights and the readout, or "
        "only the readout if a single layer with weights precedes it. Pools have no weights, and a "
        "residual block has several layers with weights.",
    )
    prune: Literal["set", "magnitude", "global_magnitude"] = Field(
        "set",
        description="Rule that chooses the weights to prune, always those closest to 0. set: the "
        "same share of the positive and of the negative weights. magnitude: the smallest |weight| "
        "of each layer. global_magnitude: the smallest |weight| of all sparse layers together.",
    )
    growth: Literal["random", "random_unfired", "gradient", "momentum"] = Field(
        "random",
        description="Rule that chooses the weights to grow. random: uniformly at random. "
        "random_unfired: at random, but a position that was never a connection has priority over "
        "one that was. gradient: the largest |gradient|. momentum: the largest |m| / (sqrt(v) + "
        "eps) of Adam's moments m and v.",
    )
    redistribution: Literal["none", "momentum", "magnitude", "nonzero"] = Field(
        "none",
        description="Rule that distributes the grown weights over the layers. none: each layer "
        "grows as many as it pruned. momentum: in proportion to the mean |m| / (sqrt(v) + eps) of "
        "a layer's weights, with Adam's moments m and v. magnitude: in proportion to their mean "
        "|weight|. nonzero: in proportion to the number of weights that are not 0.",
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description="Schedule of the share of weights that an update moves, which is to prune "
        "them and to grow as many. cosine: the share falls from alpha to 0 as in Eq. 2. constant: "
        "it stays alpha until end.",
    )
    alpha: Fraction = Field(
        0.3, description="Share alpha of the weights that an update moves at the start (Eq. 2)."
    )
    t_iter: Annotated[int, Field(ge=1)] = Field(
        200, description="Number T_iter of optimiser steps between two updates of the masks."
    )
    end: Fraction = Field(
        0.75,
        description="Share of the training steps after which no update changes the masks (T_end in "
        "Eq. 2 of the paper). The pruning at the end of sparsity.dense_epochs is not an update.",
    )
    dense_epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Number of epochs of dense training at the start. After them every sparse "
        "layer keeps only its largest |weights|, as many as its density allows. 0 trains sparse "
        "from scratch.",
    )

    @model_validator(mode="after")
    def _check_budget(self) -> Sparsity:
        keys = [
            f"sparsity.{name}"
            for name in ("density", "eps", "densities")
            if getattr(self, name) is not None
        ]
        if len(keys) != 1:
            raise FieldError(
                "exactly one of sparsity.density, sparsity.eps and sparsity.densities is needed; "
                + (f"the configuration has {' and '.join(keys)}" if keys else "none is given"),
                "conflict" if keys else "missing",
                key=keys[0] if keys else "sparsity.density",
            )
        return self
