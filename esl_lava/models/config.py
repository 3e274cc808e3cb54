"""The configuration section `[model]`: one table for each kind of network."""

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
from esl_lava.tomlfile import FieldError, Fraction, Positive, TomlTable
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
"""Longest sample of a single_spike network, in time constants of its synaptic current.

The sums of the network contain exponentials of the spike times."""


def _restore_notation(value: object) -> object:
    """Return the value of `model.layers` as text; a value of another type is returned unchanged.

    On a command line TOML reads 800 as a number and 1200-10-12 as a date.
    """
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 32
    return str(value) if number or type(value) is datetime.date else value


class _Network(TomlTable):
    """The fields and checks of every kind of network."""

    tokens: ClassVar[tuple[str, ...]] = FULLY_CONNECTED
    """Kinds of layers that the network may have."""

    named: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Name -> notation of a network that has a name."""

    kind: str
    layers: Annotated[str, BeforeValidator(_restore_notation)] = Field(
        "128",
        description="Layers between the input and the readout, in order: 800-400 is two fully "
        "connected layers of 800 and 400 neurons.",
    )

    @classmethod
    def default_dense_layers(cls, layers: object) -> tuple[str, ...]:
        """Return the default of `sparsity.keep_dense`."""
        return (READOUT,)

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: str) -> str:
        try:
            check_notation(cls.named.get(layers, layers), cls.tokens)
        except ConfigError as error:
            fault = error.faults[0]
            prefix = "" if fault.key == "model.layers" else "model.layers: "
            raise FieldError(
                prefix + fault.sentence,
                fault.code,
                key="model.layers",
                value=layers if fault.value is None else fault.value,
                limit=fault.limit,
            ) from None
        return layers

    @property
    def notation(self) -> str:
        """The notation of the layers between the input and the readout."""
        return self.layers

    def describe(self, input_shape: Shape, classes: int) -> Topology:
        """Return the topology of the network for data of that shape."""
        return describe(self.notation, input_shape, classes, self.tokens)

    def narrowed(self, width: int) -> Mapping[str, object]:
        """Return the changed fields of a network whose widest layer has `width` neurons.

        In a convolution `width` is the number of channels.
        """
        return {"layers": narrow(self.notation, width)}

    def check_sections(self, encoding: Encoding, training: Training) -> None:
        """Check that the other sections suit this kind of network.

        Raises:
            FieldError: with key, value and the values that are allowed.
        """
        if training.device == "cuda":
            raise FieldError(
                f"training.device cuda: a {self.kind} network trains on the CPU; only a "
                "convolutional network trains on a GPU",
                "unsupported",
                key="training.device",
                value="cuda",
                limit="cpu",
            )


class MultiSpike(_Network):
    """A network of CUBA neurons that fire any number of times, with an integrator as readout."""

    kind: Literal["multi_spike"] = Field(
        "multi_spike",
        description="Kind of network. multi_spike: the hidden layers have CUBA neurons that fire "
        "any number of times, and the readout is an integrator that does not spike.",
    )
    current_decay: Fraction = Field(
        1.0,
        description="Share of the synaptic current that is lost per step. 1 means no synaptic "
        "filter.",
    )
    voltage_decay: Fraction = Field(
        0.5,
        description="Share of the membrane potential that is lost per step. The tau of Eq. 7 in "
        "the ESL-SNNs paper is the share that stays: 1 minus this value.",
    )
    threshold: Annotated[float, Field(ge=1 / WEIGHT_SCALE, lt=2048, allow_inf_nan=False)] = Field(
        1.0, description="Firing threshold in units of the weights, a multiple of 1/64."
    )
    tau_grad: Positive = Field(
        0.5,
        description="Width tau of the surrogate gradient, in units of the weights. The gradient at "
        "the potential v is scale_grad / (2 tau) * exp(-|v - threshold| / tau).",
    )
    scale_grad: Positive = Field(1.0, description="Scale of the surrogate gradient.")
    weight_scale: Positive = Field(
        1.0,
        description="Factor that multiplies the initial weights of the hidden layers. "
        "1/sqrt(density of the layer) multiplies them as well.",
    )

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, threshold: float) -> float:
        if (threshold * WEIGHT_SCALE) % 1:
            raise FieldError(
                f"model.threshold {threshold} is not a multiple of 1/{WEIGHT_SCALE}, "
                "so the chip cannot store it",
                "range",
                key="model.threshold",
                value=threshold,
                limit=f"multiple of 1/{WEIGHT_SCALE}",
            )
        return threshold


class SingleSpike(_Network):
    """A network whose neurons fire at most once. The class that fires first is the decision."""

    kind: Literal["single_spike"] = Field(
        "single_spike",
        description="Kind of network. single_spike: every neuron (Eq. 3 in the ESL-SNNs paper) "
        "fires at most once, and the readout neuron that fires first is the decision.",
    )
    current_decay: Fraction = Field(
        description="Share of the synaptic current that is lost per step, from "
        f"{1 / DECAY_UNITY:.5f} to {1 - 1 / DECAY_UNITY:.5f}."
    )
    weight_scale: Positive = Field(
        1.0,
        description="Factor that multiplies the initial weights of the hidden layers. "
        "1/(density of the layer) multiplies them as well.",
    )

    @field_validator("current_decay")
    @classmethod
    def _check_current_decay(cls, decay: float) -> float:
        if not 0.5 / DECAY_UNITY < decay < 1 - 0.5 / DECAY_UNITY:
            limit = f"{1 / DECAY_UNITY:.5f} to {1 - 1 / DECAY_UNITY:.5f}"
            raise FieldError(
                f"model.current_decay {decay}: a single_spike network needs a current that "
                f"decays, {limit}",
                "range",
                key="model.current_decay",
                value=decay,
                limit=limit,
            )
        return decay

    def check_sections(self, encoding: Encoding, training: Training) -> None:
        """Check that inputs spike once, that no engine is chosen, and that samples are short.

        Raises:
            FieldError: with key, value and the values that are allowed.
        """
        super().check_sections(encoding, training)
        kinds = ("latency", "two_times")
        if encoding.kind not in kinds:
            raise FieldError(
                f"encoding.kind {encoding.kind}: a single_spike network needs inputs that "
                f"spike at most once, {' or '.join(kinds)}",
                "conflict",
                key="encoding.kind",
                value=encoding.kind,
                limit=kinds,
            )
        if training.engine != "fused":
            raise FieldError(
                f"training.engine {training.engine}: a single_spike network has an engine of its "
                "own; leave the value fused",
                "conflict",
                key="training.engine",
                value=training.engine,
                limit="fused",
            )
        if training.tet_lambda:
            raise FieldError(
                f"training.tet_lambda {training.tet_lambda}: the loss of a single_spike network "
                "is Eq. 6, which has no tet_lambda; leave the value 0",
                "conflict",
                key="training.tet_lambda",
                value=training.tet_lambda,
                limit=0,
            )
        duration = -encoding.steps * math.log1p(-self.current_decay)
        if duration > MAX_TIME_CONSTANTS:
            raise FieldError(
                f"encoding.steps {encoding.steps} with model.current_decay {self.current_decay}: "
                f"a sample lasts {duration:.1f} time constants of the current, and a single_spike "
                f"network allows {MAX_TIME_CONSTANTS}; reduce encoding.steps or "
                "model.current_decay",
                "conflict",
                key="encoding.steps",
                value=encoding.steps,
                limit=math.floor(MAX_TIME_CONSTANTS / -math.log1p(-self.current_decay)),
            )


class Convolutional(_Network):
    """A network of convolutions and fully connected layers.

    The weighted sums that drive the neurons are normalised over the batch, but not those of the
    readout.
    """

    tokens: ClassVar[tuple[str, ...]] = ("dense", "conv", "residual", "pool", "global_pool")
    named: ClassVar[Mapping[str, str]] = NAMED

    kind: Literal["convolutional"] = Field(
        "convolutional",
        description="Kind of network. convolutional: the weighted sums of every convolution and "
        "fully connected layer are normalised over batch and time before they drive the neurons. "
        "The readout is an integrator: it does not spike, and its sums are not normalised.",
    )
    layers: Annotated[str, BeforeValidator(_restore_notation)] = Field(
        "16C3-AP2-32C3-AP2",
        description="Layers between the input and the readout, in order, with - between them. "
        "16C3: a convolution of 16 kernels of 3 x 3 (16C3S2: with stride 2). R32: a residual block "
        "of two convolutions of 32 kernels (R32S2: with stride 2). AP2: an average pool of 2 x 2. "
        "GAP: an average pool over the whole map. 100: a fully connected layer of 100 neurons. Or "
        f"the name of a network: {', '.join(NAMED)}.",
    )
    width: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = Field(
        1.0,
        description="Factor that multiplies the number of channels or neurons of every layer "
        "before the readout. The product is rounded to an integer, at least 1.",
    )
    thresholds: Literal["layer", "channel"] = Field(
        "layer",
        description="Group of neurons that share an integer threshold. layer: all neurons of a "
        "layer. channel: all neurons of a channel.",
    )
    voltage_decay: Annotated[float, Field(ge=1 / DECAY_UNITY, le=1, allow_inf_nan=False)] = Field(
        0.5,
        description="Share of the membrane potential that is lost per step. The tau of Eq. 7 in "
        "the ESL-SNNs paper is the share that stays: 1 minus this value.",
    )
    tau_grad: Positive = Field(
        0.5,
        description="Width tau of the surrogate gradient, in units of the threshold. The gradient "
        "at the potential v is scale_grad / (2 tau) * exp(-|v - 1| / tau).",
    )
    scale_grad: Positive = Field(1.0, description="Scale of the surrogate gradient.")
    weight_scale: Positive = Field(
        1.0,
        description="Factor that multiplies the initial weights of the hidden layers. "
        "1/sqrt(density of the layer) multiplies them as well.",
    )

    @classmethod
    def default_dense_layers(cls, layers: object) -> tuple[str, ...]:
        """Return the readout, and the first layer unless it is the only one before the readout."""
        tokens = cls.named.get(str(layers), str(layers)).split("-")
        wide = [token for token in tokens if width_of(token)]
        if len(wide) < 2 and not "".join(wide).startswith("R"):
            return (READOUT,)
        return ("hidden1" if wide[0].isdigit() else "conv1", READOUT)

    @property
    def chip_decay(self) -> float:
        """The voltage decay rounded to the 1/4096 grid of the chip."""
        return round(self.voltage_decay * DECAY_UNITY) / DECAY_UNITY

    @property
    def notation(self) -> str:
        """The notation of the layers between the input and the readout, with their final widths."""
        return scale_widths(self.named.get(self.layers, self.layers), self.width)

    def narrowed(self, width: int) -> Mapping[str, object]:
        """Return the changed fields of a network whose widest layer has that `width`."""
        return {**super().narrowed(width), "width": 1.0}

    def check_sections(self, encoding: Encoding, training: Training) -> None:
        """Check that the engine has normalised layers and runs on the device.

        Raises:
            FieldError: with key, value and the values that are allowed.
        """
        if training.engine == "slayer":
            raise FieldError(
                "training.engine slayer: a convolutional network trains with the engine fused, "
                "sparse or auto; esl verify compares the trained network with stock SLAYER",
                "conflict",
                key="training.engine",
                value="slayer",
                limit=("fused", "sparse", "auto"),
            )
        if training.device == "cuda" and training.engine != "fused":
            raise FieldError(
                f"training.engine {training.engine} runs on the CPU only; training.device cuda "
                "needs the engine fused",
                "conflict",
                key="training.engine",
                value=training.engine,
                limit="fused",
            )


NETWORKS: Mapping[str, type[MultiSpike | SingleSpike | Convolutional]] = MappingProxyType(
    {"multi_spike": MultiSpike, "single_spike": SingleSpike, "convolutional": Convolutional}
)
"""Kind of network -> its table."""


def to_notation(hidden: object) -> str | None:
    """Return the notation of a list of hidden widths; None if the value is not such a list."""
    if not isinstance(hidden, list) or not 1 <= len(hidden) <= MAX_LAYERS:
        return None
    if not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in hidden):
        return None
    return "-".join(map(str, hidden))


def _fill_in_kind(values: object) -> object:
    """Return the table with its kind; refuse the former key `hidden` and explain the new key."""
    if not isinstance(values, dict):
        return values
    if "hidden" in values:
        layers = to_notation(values["hidden"])
        written = f' = "{layers}"' if layers else ', for example "800-400" for 800 and 400 neurons'
        raise FieldError(
            f"model.hidden is not a key; write the hidden layers as model.layers{written}",
            "unknown",
            key="model.hidden",
            value=values["hidden"],
        )
    kind = values.get("kind", "multi_spike")
    if not isinstance(kind, str) or kind not in NETWORKS:
        kinds = ", ".join(map(repr, NETWORKS))
        raise FieldError(
            f"model.kind = {shorten(kind)}: the kind is one of {kinds}",
            "unknown",
            key="model.kind",
            value=kind,
            limit=tuple(NETWORKS),
        )
    return {**values, "kind": kind}


Model = Annotated[
    Annotated[MultiSpike | SingleSpike | Convolutional, Field(discriminator="kind")],
    BeforeValidator(_fill_in_kind),
]
"""The section `[model]`: the table that its field `kind` selects."""
