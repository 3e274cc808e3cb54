"""The configuration of an experiment: one tree of models, TOML in and TOML out.

Every field is documented here, once; `esl train --help-config` prints these texts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from esl_lava.chip import DECAY_UNITY
from esl_lava.errors import ConfigError, FileError

MAX_TIME_CONSTANTS = 20
"""How long a sample of single spikes may last: times enter sums as their exponentials."""

MAX_CONFIG_BYTES = 1 << 20
MAX_FAULTS = 20
MAX_SHOWN = 60
"""Characters of a key or value that an error shows."""

_TOML_MESSAGES = {
    "model_type": "Input should be a table",
    "tuple_type": "Input should be an array",
}
"""pydantic's fault type -> what to say instead of its Python words."""

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    """A table of the configuration: immutable, unknown keys refused.

    TOML has types, so "8" or true is no number and 1.0 no integer; an integer is a float,
    and an array (marked `Strict(False)`) is a tuple.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(_Section):
    """Where samples come from."""

    name: Literal["digits", "mnist"] = Field("digits", description="data set")
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.1,
        description="share of the training split held back to choose the epoch that is kept; "
        "0 keeps the last epoch",
    )


class Encoding(_Section):
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


class Model(_Section):
    """The spiking network."""

    kind: Literal["multi_spike", "single_spike"] = Field(
        "multi_spike",
        description="multi_spike: CUBA hidden layers that fire any number of times, and a "
        "non-spiking integrator to read; single_spike: every neuron fires at most once (Eq. 3), "
        "the first of the readout decides",
    )
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...],
        Strict(False),
        Field(min_length=1, max_length=64),
    ] = Field((128,), description="neurons of each hidden layer")
    current_decay: Fraction = Field(
        1.0, description="share of the synaptic current lost per step; 1 is no synaptic filter"
    )
    voltage_decay: Fraction = Field(
        0.5, description="share of the membrane potential lost per step; 0.5 is tau = 0.5 (Eq. 7)"
    )
    threshold: Annotated[float, Field(ge=1 / 64, lt=2048, allow_inf_nan=False)] = Field(
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
        description="factor on the initial weights of the hidden layers, besides 1/sqrt(density) "
        "(single_spike: 1/density)",
    )

    @model_validator(mode="after")
    def _threshold_is_on_the_grid(self) -> Model:
        if (self.threshold * 64) % 1:
            raise ValueError(
                f"model.threshold {self.threshold} is not a multiple of 1/64, "
                "so the chip could not hold it"
            )
        return self

    @model_validator(mode="after")
    def _single_spikes_have_one_neuron(self) -> Model:
        if self.kind != "single_spike":
            return self
        if not 0.5 / DECAY_UNITY < self.current_decay < 1 - 0.5 / DECAY_UNITY:
            raise ValueError(
                f"model.current_decay {self.current_decay}: a single_spike network needs a "
                f"decaying current, {1 / DECAY_UNITY:.5f} to {1 - 1 / DECAY_UNITY:.5f}"
            )
        for name, needed in (("voltage_decay", 0.0), ("threshold", 1.0)):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"model.{name} {getattr(self, name)}: a single_spike network has {needed}"
                )
        for name in ("tau_grad", "scale_grad"):
            if getattr(self, name) != Model.model_fields[name].default:
                raise ValueError(
                    f"model.{name} means nothing to a single_spike network: its gradient is exact"
                )
        return self


class Sparsity(_Section):
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
        ("readout",), description="layers that keep every connection (the paper's classifier)"
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


class Training(_Section):
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
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        100, description="samples per optimiser step; a last partial batch is used too"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        0.001, description="Adam's at the start"
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


class Experiment(_Section):
    """Everything a run depends on, besides the data and the versions."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        1, description="of weights, masks, shuffling and the validation split"
    )
    data: Data = Data()
    encoding: Encoding = Encoding()
    model: Model = Model()
    sparsity: Sparsity
    training: Training = Training()

    @model_validator(mode="after")
    def _one_spike_per_input(self) -> Experiment:
        once = ("latency", "two_times")
        if self.model.kind == "single_spike" and self.encoding.kind not in once:
            raise ValueError(
                f"encoding.kind {self.encoding.kind}: a single_spike network needs inputs that "
                f"spike at most once, {' or '.join(once)}"
            )
        return self

    @model_validator(mode="after")
    def _engines_are_slayers(self) -> Experiment:
        if self.model.kind == "single_spike" and self.training.engine != "fused":
            raise ValueError(
                f"training.engine {self.training.engine} means nothing to a single_spike network: "
                "its passes are its own"
            )
        return self

    @model_validator(mode="after")
    def _times_are_floats(self) -> Experiment:
        if self.model.kind != "single_spike":
            return self
        duration = -self.encoding.steps * math.log1p(-self.model.current_decay)
        if duration > MAX_TIME_CONSTANTS:
            raise ValueError(
                f"encoding.steps {self.encoding.steps} with model.current_decay "
                f"{self.model.current_decay} last {duration:.1f} time constants of the current, "
                f"a single_spike network {MAX_TIME_CONSTANTS} at most: smaller steps or fewer"
            )
        return self

    @model_validator(mode="after")
    def _sparse_in_the_end(self) -> Experiment:
        dense, epochs = self.sparsity.dense_epochs, self.training.epochs
        if dense >= epochs:
            raise ValueError(
                f"sparsity.dense_epochs {dense} is not below training.epochs {epochs}: "
                "the network would never become sparse"
            )
        return self


def from_mapping(values: Mapping[str, Any]) -> Experiment:
    """Validate nested plain values.

    Raises:
        ConfigError: one sentence per fault, with key, value and limit; an unknown key
            comes with the nearest known one.
    """
    try:
        return Experiment.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error))) from None
    except (ValueError, RecursionError):  # pydantic's own, not about a key
        raise ConfigError("a number of thousands of digits, or tables nested as deeply") from None


def from_toml(text: str, origin: str = "configuration") -> Experiment:
    """Parse and validate TOML; `origin` names it in errors.

    Raises:
        ConfigError: on a syntax error (with its place) or a fault `from_mapping` names.
    """
    try:
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: tables are nested too deeply") from None
    except ValueError:
        raise ConfigError(f"{origin}: a number of thousands of digits") from None
    try:
        return from_mapping(values)
    except ConfigError as error:
        located = [f"{origin}: {line}" for line in str(error).split("\n")]
        raise ConfigError("\n".join(located)) from None


def read_toml(path: Path) -> Experiment:
    """The experiment in a TOML file of at most 1 MiB.

    Raises:
        FileError: when the file cannot be read or is too large.
        ConfigError: as `from_toml`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise FileError(f"{path}: larger than the limit of {MAX_CONFIG_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text at byte {error.start}") from None
    return from_toml(text, str(path))


def to_toml(experiment: Experiment) -> str:
    """The experiment as TOML, defaults written out, absent values left out."""
    return tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))


def override(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """The experiment with dotted keys replaced, e.g. {"training.epochs": 5}.

    Setting one of `sparsity.density`, `sparsity.eps` and `sparsity.densities` (or a key in
    it) removes the others.

    Raises:
        ConfigError: as `from_mapping`.
    """
    values = experiment.model_dump(mode="json", exclude_none=True)
    budgets = {"density", "eps", "densities"}
    for key in settings:
        section, chosen, *_ = [*key.split("."), ""]
        if section == "sparsity" and chosen in budgets:
            for rival in budgets - {chosen}:
                values["sparsity"].pop(rival, None)
    for key, value in settings.items():
        *tables, last = key.split(".")
        table: Any = values
        for name in tables:
            table = table.setdefault(name, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {'.'.join(tables)} is a value, not a table")
        table[last] = value
    return from_mapping(values)


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value (a bare word counts as a string) -> (key, value).

    Raises:
        ConfigError: when there is no '='.
    """
    key, separator, raw = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"setting {text!r} is not of the form key=value")
    try:
        parsed = tomli.loads(f"value = {raw}")
    except (ValueError, RecursionError):  # no TOML, or an integer of thousands of digits
        parsed = {}
    value = parsed["value"] if parsed.keys() == {"value"} else raw.strip()
    return key.strip(), value


def documentation() -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, description) of every field, in order."""
    yield from _documented(Experiment, "")


def _documented(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type(BaseModel)):  # tuple[int, ...] too is a `type`
            yield from _documented(kind, f"{prefix}{name}.")
        else:
            default = field.get_default()
            if isinstance(default, tuple):
                default = list(default)
            yield (
                f"{prefix}{name}",
                "" if default is None else str(default),
                field.description or "",
            )


def _sentences(error: ValidationError) -> Iterator[str]:
    """One sentence per fault pydantic found, at most MAX_FAULTS."""
    faults = error.errors()
    inner = {fault["loc"][:end] for fault in faults for end in range(len(fault["loc"]))}
    # An array whose items are at fault is also said to have too few.
    faults = [fault for fault in faults if fault["loc"] not in inner]
    for fault in faults[:MAX_FAULTS]:
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = _nearest(key)
            shown = key if key.isprintable() and len(key) <= MAX_SHOWN else _shortened(key)
            yield f"unknown key {shown}" + (f"; did you mean {near}?" if near else "")
        elif fault["type"] == "value_error":
            yield str(fault["ctx"]["error"])
        elif fault["type"] == "missing":
            yield f"{key} is missing"
        else:
            message = _TOML_MESSAGES.get(fault["type"], fault["msg"])
            message = message[0].lower() + message[1:]
            yield f"{key} = {_shortened(fault['input'])}: {message}"
    if len(faults) > MAX_FAULTS:
        yield f"and {len(faults) - MAX_FAULTS} more faults"


def _nearest(key: str) -> str | None:
    """The known key or table whose last part is most like that of `key`."""
    known = [name for name, _, _ in documentation()]
    known += sorted({name.partition(".")[0] for name in known})
    by_last = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key.rpartition(".")[2], by_last, n=1)
    return by_last[near[0]] if near else None


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of nested tables
        return f"({type(value).__name__})"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
