"""The section of a configuration about connections, whose rules are those of this room's tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from esl_lava.tomlfile import Fraction, TomlTable


class Sparsity(TomlTable):
    """Which connections exist and how they are rewired."""

    density: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="connections over positions of the sparse layers together"
    )
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Erdos-Renyi parameter of Eq. 1, in place of density"
    )
    densities: dict[str, Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]] | None = Field(
        None,
        description="in place of density, one for each sparse layer by name: "
        "{hidden1 = 0.05, hidden2 = 0.2}",
    )
    distribution: Literal["er", "erk", "uniform"] = Field(
        "er",
        description="how density is shared between layers: er as Eq. 1 scales, erk with the "
        "kernel's lengths too, uniform alike",
    )
    keep_dense: Annotated[tuple[str, ...], Strict(False)] = Field(
        ("readout",),
        description="layers that keep every connection (the paper's classifier; where nothing is "
        "said of a convolutional network its first layer too)",
    )
    prune: Literal["set", "magnitude", "global_magnitude"] = Field(
        "set",
        description="which connections go, of those closest to 0: set takes from positive and "
        "negative ones alike, magnitude ranks a layer, global_magnitude the whole network",
    )
    growth: Literal["random", "random_unfired", "gradient", "momentum"] = Field(
        "random",
        description="which connections come: random; random_unfired, those never active first; "
        "those of the largest gradient or momentum of the optimiser",
    )
    redistribution: Literal["none", "momentum", "magnitude", "nonzero"] = Field(
        "none",
        description="how layers share what is grown: none, each regrows its own; in proportion "
        "to the mean momentum or magnitude of its weights, or to how many are not 0",
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="how alpha falls: cosine as Eq. 2, or not at all until end"
    )
    alpha: Fraction = Field(0.3, description="share of the connections moved at first (Eq. 2)")
    t_iter: Annotated[int, Field(ge=1)] = Field(
        200, description="T_iter, optimiser steps between two updates of the masks"
    )
    end: Fraction = Field(
        0.75, description="share of the training's steps after which masks stay (T_end, Eq. 2)"
    )
    dense_epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="epochs trained dense at first, after which every sparse layer keeps its "
        "largest weights; 0 is sparse from scratch",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Sparsity:
        budgets = (self.density, self.eps, self.densities)
        if sum(budget is not None for budget in budgets) != 1:
            raise ValueError(
                "exactly one of sparsity.density, sparsity.eps and sparsity.densities is needed"
            )
        return self
