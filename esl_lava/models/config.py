"""The section of a configuration about the network, one for each kind of it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from esl_lava.chip import DECAY_UNITY, WEIGHT_SCALE
from esl_lava.data.config import Encoding
from esl_lava.errors import ConfigError, shorten
from esl_lava.tomlfile import Fraction, Positive, TomlTable
from esl_lava.topology import (
    FULLY_CONNECTED,
    MAX_LAYERS,
    MAX_WIDTH,
    NAMED,
    READOUT,
    Shape,
    Topology,
    check_notation,
    describe,
    narrow,
    scale_widths,
    width_of,
)
from esl_lava.training.config import Training

MAX_TIME_CONSTANTS = 20
"""How long a sample of single spikes may last: times enter sums as their exponentials."""


def _as_notation(value: object) -> object:
    """What TOML took `layers=800` or `layers=1200-10-12` on a command line for, as text again."""
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 32
    return str(value) if number or type(value) is datetime.date else value


class _Network(TomlTable):
    """What networks of every kind have."""

    tokens: ClassVar[tuple[str, ...]] = FULLY_CONNECTED
    """The kinds of layers that there may be."""

    named: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Notations that have a name."""

    kind: str
    layers: Annotated[str, BeforeValidator(_as_notation)] = Field(
        "128",
        description="the layers between input and readout, in order: 800-400 are two fully "
        "connected ones of 800 and 400 neurons",
    )

    @classmethod
    def kept_dense(cls, layers: object) -> tuple[str, ...]:
        """Names of the layers that keep every connection where nobody says which."""
        return (READOUT,)

    @field_validator("layers")
    @classmethod
    def _layers_are_known(cls, layers: str) -> str:
        try:
            check_notation(cls.named.get(layers, layers), cls.tokens)
        except ConfigError as error:
            raise ValueError(f"model.layers: {error}") from None
        return layers

    @property
    def notation(self) -> str:
        """The layers between input and readout, each written out."""
        return self.layers

    def describe(self, input_shape: Shape, classes: int) -> Topology:
        """The network's layers on data of that shape."""
        return describe(self.notation, input_shape, classes, self.tokens)

    def narrowed(self, width: int) -> Mapping[str, object]:
        """The fields of a network like this whose widest layer has `width` neurons or channels."""
        return {"layers": narrow(self.notation, width)}

    def check_beside(self, encoding: Encoding, training: Training) -> None:
        """Refuse other sections that this kind of network cannot have beside it.

        Raises:
            ValueError: naming key, value and what is needed.
        """
        if training.device == "cuda":
            raise ValueError(
                f"training.device cuda: a {self.kind} network is trained on the CPU; cuda serves "
                "convolutional ones"
            )


class MultiSpike(_Network):
    """CUBA layers whose neurons fire any number of times, and an integrator to read."""

    kind: Literal["multi_spike"] = Field(
        "multi_spike",
        description="CUBA hidden layers that fire any number of times, and a non-spiking "
        "integrator to read",
    )
    current_decay: Fraction = Field(
        1.0, description="share of the synaptic current lost per step; 1 is no synaptic filter"
    )
    voltage_decay: Fraction = Field(
        0.5, description="share of the membrane potential lost per step; 0.5 is tau = 0.5 (Eq. 7)"
    )
    threshold: Annotated[float, Field(ge=1 / WEIGHT_SCALE, lt=2048, allow_inf_nan=False)] = Field(
        1.0, description="firing threshold, in units of the weights; a multiple of 1/64"
    )
    tau_grad: Positive = Field(
        0.5,
        description="width tau of the surrogate gradient scale / (2 tau) exp(-|v - threshold| / "
        "tau), in units of the weights",
    )
    scale_grad: Positive = Field(1.0, description="scale of the surrogate gradient")
    weight_scale: Positive = Field(
        1.0,
        description="factor on the initial weights of the hidden layers, besides 1/sqrt(density)",
    )

    @field_validator("threshold")
    @classmethod
    def _threshold_is_on_the_grid(cls, threshold: float) -> float:
        if (threshold * WEIGHT_SCALE) % 1:
            raise ValueError(
                f"model.threshold {threshold} is not a multiple of 1/{WEIGHT_SCALE}, "
                "so the chip could not hold it"
            )
        return threshold


class SingleSpike(_Network):
    """Layers whose neurons fire at most once; the class that fires first is the answer."""

    kind: Literal["single_spike"] = Field(
        "single_spike",
        description="every neuron fires at most once (Eq. 3), the first of the readout decides",
    )
    current_decay: Fraction = Field(
        description=f"share of the synaptic current lost per step, {1 / DECAY_UNITY:.5f} to "
        f"{1 - 1 / DECAY_UNITY:.5f}"
    )
    weight_scale: Positive = Field(
        1.0,
        description="factor on the initial weights of the hidden layers, besides 1/density",
    )

    @field_validator("current_decay")
    @classmethod
    def _current_decays(cls, decay: float) -> float:
        if not 0.5 / DECAY_UNITY < decay < 1 - 0.5 / DECAY_UNITY:
            raise ValueError(
                f"model.current_decay {decay}: a single_spike network needs a "
                f"decaying current, {1 / DECAY_UNITY:.5f} to {1 - 1 / DECAY_UNITY:.5f}"
            )
        return decay

    def check_beside(self, encoding: Encoding, training: Training) -> None:
        """Refuse inputs that spike again, the engines of SLAYER's blocks, and endless samples.

        Raises:
            ValueError: naming key, value and what is needed.
        """
        super().check_beside(encoding, training)
        once = ("latency", "two_times")
        if encoding.kind not in once:
            raise ValueError(
                f"encoding.kind {encoding.kind}: a single_spike network needs inputs that "
                f"spike at most once, {' or '.join(once)}"
            )
        if training.engine != "fused":
            raise ValueError(
                f"training.engine {training.engine} means nothing to a single_spike network: "
                "its passes are its own"
            )
        if training.tet_lambda:
            raise ValueError(
                f"training.tet_lambda {training.tet_lambda} means nothing to a single_spike "
                "network: its loss is Eq. 6"
            )
        duration = -encoding.steps * math.log1p(-self.current_decay)
        if duration > MAX_TIME_CONSTANTS:
            raise ValueError(
                f"encoding.steps {encoding.steps} with model.current_decay "
                f"{self.current_decay} last {duration:.1f} time constants of the current, "
                f"a single_spike network {MAX_TIME_CONSTANTS} at most: smaller steps or fewer"
            )


class Convolutional(_Network):
    """Convolutions and dense layers behind batch normalisations, and an integrator to read."""

    tokens: ClassVar[tuple[str, ...]] = ("dense", "conv", "residual", "pool", "global_pool")
    named: ClassVar[Mapping[str, str]] = NAMED

    kind: Literal["convolutional"] = Field(
        "convolutional",
        description="convolutions and fully connected layers whose input is normalised over "
        "batch and time, and a non-spiking integrator to read",
    )
    layers: Annotated[str, BeforeValidator(_as_notation)] = Field(
        "16C3-AP2-32C3-AP2",
        description="the layers between input and readout, in order: 16C3 is a convolution of "
        "16 kernels of 3 x 3 (16C3S2 with stride 2), R32 a residual block of two of 32 (R32S2 with "
        "stride 2), AP2 an average pool, GAP one of whole maps, 100 a fully connected layer; or a "
        f"name: {', '.join(NAMED)}",
    )
    width: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = Field(
        1.0, description="factor on the number of channels or neurons of every layer"
    )
    thresholds: Literal["layer", "channel"] = Field(
        "layer",
        description="which neurons share an integer threshold: those of a layer, or of a channel",
    )
    voltage_decay: Annotated[float, Field(ge=1 / DECAY_UNITY, le=1, allow_inf_nan=False)] = Field(
        0.5, description="share of the membrane potential lost per step; 0.5 is tau = 0.5 (Eq. 7)"
    )
    tau_grad: Positive = Field(
        0.5,
        description="width tau of the surrogate gradient scale / (2 tau) exp(-|v - 1| / tau), in "
        "thresholds",
    )
    scale_grad: Positive = Field(1.0, description="scale of the surrogate gradient")
    weight_scale: Positive = Field(
        1.0,
        description="factor on the initial weights of the hidden layers, besides 1/sqrt(density)",
    )

    @classmethod
    def kept_dense(cls, layers: object) -> tuple[str, ...]:
        """The first layer, where it is not the only one before the readout, and the readout."""
        tokens = cls.named.get(str(layers), str(layers)).split("-")
        wide = [token for token in tokens if width_of(token)]
        if len(wide) < 2 and not "".join(wide).startswith("R"):
            return (READOUT,)
        return ("hidden1" if wide[0].isdigit() else "conv1", READOUT)

    @property
    def held_decay(self) -> float:
        """The voltage decay as the chip holds it, in 1/4096."""
        return round(self.voltage_decay * DECAY_UNITY) / DECAY_UNITY

    @property
    def notation(self) -> str:
        """The layers between input and readout, each written out in its width."""
        return scale_widths(self.named.get(self.layers, self.layers), self.width)

    def narrowed(self, width: int) -> Mapping[str, object]:
        """The fields of a network like this whose widest layer has `width` neurons or channels."""
        return {**super().narrowed(width), "width": 1.0}

    def check_beside(self, encoding: Encoding, training: Training) -> None:
        """Refuse an engine that has no normalised layers, and one that a GPU has not.

        Raises:
            ValueError: naming key, value and what is needed.
        """
        if training.engine == "slayer":
            raise ValueError(
                "training.engine slayer: a convolutional network is trained by fused, sparse or "
                "auto; evaluation compares it with stock SLAYER"
            )
        if training.device == "cuda" and training.engine != "fused":
            raise ValueError(
                f"training.engine {training.engine} computes on the CPU; training.device cuda "
                "needs fused"
            )


NETWORKS: Mapping[str, type[MultiSpike | SingleSpike | Convolutional]] = MappingProxyType(
    {"multi_spike": MultiSpike, "single_spike": SingleSpike, "convolutional": Convolutional}
)
"""The section of each kind of network."""


def as_layers(hidden: object) -> str | None:
    """The notation of a list of the hidden layers' neurons; None where it is no such list."""
    if not isinstance(hidden, list) or not 1 <= len(hidden) <= MAX_LAYERS:
        return None
    if not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in hidden):
        return None
    return "-".join(map(str, hidden))


def _with_kind(values: object) -> object:
    """A table with its kind; one that still speaks of hidden widths is told how to."""
    if not isinstance(values, dict):
        return values
    if "hidden" in values:
        layers = as_layers(values["hidden"]) or "800-400"
        raise ValueError(f'model.hidden: hidden layers are written model.layers = "{layers}"')
    kind = values.get("kind", "multi_spike")
    if not isinstance(kind, str) or kind not in NETWORKS:
        known = " or ".join(map(repr, NETWORKS))
        raise ValueError(f"model.kind = {shorten(kind)}: input should be {known}")
    return {**values, "kind": kind}


Model = Annotated[
    Annotated[MultiSpike | SingleSpike | Convolutional, Field(discriminator="kind")],
    BeforeValidator(_with_kind),
]
"""The section, of the kind that its `kind` names."""
