"""The typed reader of `hw_configs/NAME.toml`: what a device charges for what a network does.

A device file states constants, each with its kind, operating point and source. What a
file does not state is unknown, and what needs it refuses; no constant has a default.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, get_args

import tomli
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from esl_lava.errors import ConfigError, FileError

SIZE_LIMIT = 1 << 20
"""A device file may have at most this many bytes."""

CHARGED_KEYS: Mapping[str, tuple[str, ...]] = {
    "events": ("sop", "neuron_update", "spike"),
    "dense": ("operation",),
}
"""The energy keys that each way of charging knows."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# The upper limit keeps products with counts finite.
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]

_IN_TOML = {"model_type": "should be a table", "tuple_type": "should be a list"}
"""Pydantic speaks of Python types where a user wrote TOML."""


class _Table(BaseModel):
    """A table of a device file: immutable, no unknown keys, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Sourced(_Table):
    """What every constant carries besides its numbers."""

    kind: Literal["measured", "simulated", "peak", "fitted"]
    operating_point: Text
    source: Text


class EventEnergy(_Sourced):
    """Energy of one event (a synaptic operation, a neuron update, a spike).

    Attributes:
        value: energy of one event in `unit`.
        unit: "pJ".
        kind: how the value came about.
        operating_point: voltage, activity or format it holds for.
        source: where it is published, and through whom we know it.
    """

    value: Positive
    unit: Literal["pJ"]

    def joules(self, events: int) -> float:
        """Energy of `events` events in joules."""
        return events * self.value / 1e12


class DenseOperation(_Sourced):
    """Energy of one operation of a machine that runs at its peak rate.

    Attributes:
        watts: power drawn at that rate.
        peak_ops_per_second: operations per second.
        ops_per_connection: operations charged for a connection: 1 as in Table 1 of
            ESL-SNNs, or 2 where a multiply-add is two operations.
        kind: how the values came about.
        operating_point: what the power and the rate hold for.
        source: where they are published.
    """

    watts: Positive
    peak_ops_per_second: Positive
    ops_per_connection: Annotated[int, Field(ge=1, le=2)]

    def joules(self, connections: int) -> float:
        """Energy of executing `connections` connections once, in joules."""
        return connections * self.ops_per_connection * self.watts / self.peak_ops_per_second


Constant = EventEnergy | DenseOperation


class EnergyTable(_Table):
    """The `[energy]` table; an absent constant is unknown.

    Attributes:
        sop: one synaptic operation: a spike crossing a synapse.
        neuron_update: one neuron advanced by one step.
        spike: one spike emitted by a neuron.
        operation: one operation of a dense machine.
    """

    sop: EventEnergy | None = None
    neuron_update: EventEnergy | None = None
    spike: EventEnergy | None = None
    operation: DenseOperation | None = None


class Device(_Table):
    """A device file.

    Attributes:
        name: identifier; a bundled file carries it as its file name.
        title: one line for people.
        maker: who makes the chip.
        process: semiconductor process, or None where unknown.
        charges: "events": energy is spent on what happens (an event-driven chip);
            "dense": on every possible connection at every step, whether or not a
            spike arrives.
        notes: what the constants include, leave out or assume.
        energy: the constants.
    """

    name: Text
    title: Text
    maker: Text
    process: Text | None = None
    charges: Literal["events", "dense"]
    # TOML gives a list, and a strict tuple refuses lists.
    notes: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    energy: EnergyTable

    @model_validator(mode="after")
    def _charges_what_it_states(self) -> Device:
        known = CHARGED_KEYS[self.charges]
        for key in self.constants:
            if key not in known:
                raise PydanticCustomError(
                    "not_charged",
                    'energy.{key} means nothing with charges = "{charges}" (known: {known})',
                    {"key": key, "charges": self.charges, "known": ", ".join(known)},
                )
        return self

    @property
    def constants(self) -> dict[str, Constant]:
        """The constants the file states, by energy key."""
        return {key: constant for key, constant in self.energy if constant is not None}

    def constant(self, key: str) -> Constant:
        """The constant under `energy.key`.

        Raises:
            ConfigError: where the file does not state it.
        """
        if key not in self.constants:
            raise ConfigError(f"device {self.name} states no constant energy.{key}: it is unknown")
        return self.constants[key]


def device_names() -> tuple[str, ...]:
    """Names of the bundled devices, sorted."""
    files = (file.name for file in _bundled().iterdir())
    return tuple(sorted(name[:-5] for name in files if name.endswith(".toml")))


def load_device(name_or_path: str | Path) -> Device:
    """Read a bundled device by name, or a device file by a path that ends in `.toml`.

    Raises:
        ConfigError: on an unknown device name, an unknown or missing key, or a value
            out of range.
        FileError: when the file is missing, unreadable, not TOML, or has more than
            `SIZE_LIMIT` bytes.
    """
    wanted = str(name_or_path)
    if wanted.endswith(".toml"):
        return _parse(_read(Path(wanted), wanted), wanted)
    names = device_names()
    if wanted not in names:
        raise ConfigError(
            f"unknown device {wanted!r}{_nearest(wanted, names)} "
            f"(known: {', '.join(names)}; or a path that ends in .toml)"
        )
    return _parse(_read(_bundled() / f"{wanted}.toml", wanted), wanted)


def _bundled() -> Traversable:
    return resources.files("esl_lava.hw_configs")


def _read(file: Traversable, where: str) -> str:
    """The text of a file of at most `SIZE_LIMIT` bytes."""
    try:
        # A pipe or a device could block or never end.
        if not file.is_file():
            raise FileError(f"{where}: no such file, or not a regular one")
        with file.open("rb") as stream:
            data = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise FileError(f"{where}: cannot be read ({error.strerror})") from error
    if len(data) > SIZE_LIMIT:
        raise FileError(f"{where}: larger than the {SIZE_LIMIT} bytes a device file may have")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{where}: not UTF-8 text (byte {error.start})") from error


def _parse(text: str, where: str) -> Device:
    try:
        content = tomli.loads(text)
    except ValueError as error:  # also an integer with too many digits
        raise FileError(f"{where}: not valid TOML: {error}") from error
    except RecursionError:
        raise FileError(f"{where}: not valid TOML: nested too deeply") from None
    try:
        return Device.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(map(_sentence, error.errors()))}") from error


def _sentence(error: ErrorDetails) -> str:
    """One error of a device file in words: the key, its value and what is allowed."""
    *table, last = ("", *map(str, error["loc"]))
    key = ".".join((*table[1:], last))
    message = _IN_TOML.get(error["type"], error["msg"])
    if error["type"] == "extra_forbidden":
        known = _keys(table[1:])
        return f"unknown key {key}{_nearest(last, known)} (known: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{key} is missing"
    if not key:
        return message
    return f"{key} = {reprlib.repr(error['input'])}: {message[0].lower()}{message[1:]}"


def _keys(table: Iterable[str]) -> list[str]:
    """The keys that the table at this place of a device file may have."""
    model: type[BaseModel] = Device
    for key in table:
        annotation = model.model_fields[key].annotation
        choices = (annotation, *get_args(annotation))
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' or nothing. The cutoff lets "v100" find "v100_paper"."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {matches[0]}?" if matches else ""
