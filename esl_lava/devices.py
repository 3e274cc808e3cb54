"""Reader of the device files `hw_configs/NAME.toml`: energies, times and capacity of a device.

A device file states constants (energy, time, static power), each with its kind, operating point
and source, and limits, each with its kind and source. A constant that the file omits is unknown and
has no default. A computation that is impossible without it is refused; otherwise its cost is left
out of the total.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from esl_lava import tomlfile
from esl_lava.errors import ConfigError, FileError, shorten
from esl_lava.tomlfile import FieldError, TomlTable

CHARGED_KEYS: Mapping[str, tuple[str, ...]] = {
    "events": ("sop", "neuron_update", "neuron_update_inactive", "spike", "message", "mac"),
    "dense": ("operation", "mac", "neuron_update"),
    "memory": ("add", "multiply"),
}
"""Way of charging -> the keys of `[energy]` that apply to it."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
MOST = 1e30
"""The largest number in a device file, and the most pJ of an event or operation.

The limit keeps products with counts finite.
"""

Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
# TOML gives lists, and strict tuples refuse lists.
_Points = Annotated[tuple[Annotated[float, Field(ge=0, le=1e18)], ...], Field(strict=False)]
Count = Annotated[int, Field(gt=0, le=1 << 40)]


class _SourcedTable(TomlTable):
    """Base of the constants: their kind, operating point and source.

    Attributes:
        kind: measured on the device; simulated before the device existed; peak figures of its
            maker; fitted to other figures; nominal, as its maker states it; analytical, from a
            model; reported by others who do not state its origin; assumed by the user.
        operating_point: voltage, activity, rate or format for which the constant holds.
        source: the publication, and the texts through which we know it.
    """

    kind: Literal[
        "measured",
        "simulated",
        "peak",
        "fitted",
        "nominal",
        "analytical",
        "reported",
        "assumed",
    ]
    operating_point: Text
    source: Text


class EventEnergy(_SourcedTable):
    """Energy of one event (a synaptic operation, a neuron update, a spike).

    Attributes:
        value: energy of one event, in `unit`.
        low, high: the least and the most that sources or formats state, if they disagree.
    """

    value: Positive
    low: Positive | None = None
    high: Positive | None = None
    unit: Literal["pJ"]

    def check(self, key: str) -> None:
        """Check that the range from `low` to `high` holds the value.

        Raises:
            FieldError: naming the key under which the constant stands.
        """
        if not self.least <= self.value <= self.most:
            raise FieldError(
                f"{key}.value {self.value} is outside the range from low {self.least} to high "
                f"{self.most}",
                "range",
                key=f"{key}.value",
                value=self.value,
                limit=self.most if self.value > self.most else self.least,
            )

    @property
    def least(self) -> float:
        """`low`, or the value if the file states no `low`, in pJ."""
        return self.value if self.low is None else self.low

    @property
    def most(self) -> float:
        """`high`, or the value if the file states no `high`, in pJ."""
        return self.value if self.high is None else self.high

    def joules(self, events: int) -> float:
        """Return the energy of `events` events in joules."""
        return events * self.value / 1e12


class DenseOperation(_SourcedTable):
    """Energy of one operation of a machine that draws its rated power.

    Attributes:
        watts: power drawn at the peak rate.
        peak_ops_per_second: operations per second at the peak.
        ops_per_connection: operations charged for a connection: 1 as in Table 1 of
            ESL-SNNs, or 2 if a multiply-add counts as two operations.
        utilisation: share of the peak rate that is reached, above 0 and at most 1, the best case.
    """

    watts: Positive
    peak_ops_per_second: Positive
    ops_per_connection: Annotated[int, Field(ge=1, le=2)]
    utilisation: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0

    def check(self, key: str) -> None:
        """Check that the energy of an operation is at most `MOST` pJ.

        Raises:
            FieldError: naming the key under which the constant stands.
        """
        rate = self.peak_ops_per_second * self.utilisation  # the product of small numbers may be 0
        if 1e12 * self.watts > MOST * rate:
            raise FieldError(
                f"{key}: {self.watts} W divided by {rate} operations per second (peak rate times "
                f"utilisation) is more than {MOST} pJ an operation",
                "range",
                key=key,
                value=1e12 * self.watts / rate if rate else math.inf,
                limit=MOST,
            )

    def joules(self, connections: int) -> float:
        """Return the energy of executing `connections` connections once, in joules."""
        rate = self.peak_ops_per_second * self.utilisation
        return connections * self.ops_per_connection * self.watts / rate


Constant = EventEnergy | DenseOperation


class EnergyTable(TomlTable):
    """The `[energy]` table. A constant that it omits is unknown.

    Attributes:
        sop: one synaptic operation: a spike crossing a synapse (an accumulation).
        neuron_update: one neuron advanced by one step; an active neuron if the file states
            `neuron_update_inactive`.
        neuron_update_inactive: one neuron advanced by a step in which no spike reached it.
        spike: one spike emitted by a neuron.
        message: one spike sent to one destination core.
        operation: one operation of a dense machine, from power and rate.
        mac: one multiply-accumulate.
        add, multiply: one addition, one multiplication (`charges = "memory"`).
    """

    sop: EventEnergy | None = None
    neuron_update: EventEnergy | None = None
    neuron_update_inactive: EventEnergy | None = None
    spike: EventEnergy | None = None
    message: EventEnergy | None = None
    operation: DenseOperation | None = None
    mac: EventEnergy | None = None
    add: EventEnergy | None = None
    multiply: EventEnergy | None = None

    @field_validator("*")
    @classmethod
    def _numbers_fit_together(
        cls, constant: Constant | None, info: ValidationInfo
    ) -> Constant | None:
        if constant is not None:
            constant.check(f"energy.{info.field_name}")
        return constant


class MemoryPrice(_SourcedTable):
    """Energy of one access to a memory, as a function of the size of that memory.

    The function is either a line, `pj + pj_per_bit * (bits of the memory)`, or consists of straight
    lines between points (`at_bytes`, `pj_at`) and is constant outside them.

    Attributes:
        value_bits: bits of a weight, a potential, a bias and an input.
        pj, pj_per_bit: the coefficients of the line.
        at_bytes, pj_at: sizes of memories in bytes, ascending, and the pJ of an access to
            each.
        access_bits: bits that an access moves; if absent, one access moves one value of any width.
        known_to_bytes: size of the largest memory on which the figures are based.
    """

    value_bits: Annotated[int, Field(ge=1, le=64)]
    pj: Positive | None = None
    pj_per_bit: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    at_bytes: _Points | None = None
    pj_at: _Points | None = None
    access_bits: Count | None = None
    known_to_bytes: Count

    @model_validator(mode="after")
    def _one_form(self) -> MemoryPrice:
        line = (self.pj is not None, self.pj_per_bit is not None)
        points = (self.at_bytes is not None, self.pj_at is not None)
        if (line, points) not in (((True, True), (False, False)), ((False, False), (True, True))):
            raise FieldError(
                "memory: give either pj and pj_per_bit, or at_bytes and pj_at",
                "conflict",
                key="memory",
            )
        if self.at_bytes is not None and self.pj_at is not None:
            ascending = all(a < b for a, b in itertools.pairwise(self.at_bytes))
            if len(self.at_bytes) != len(self.pj_at) or not self.at_bytes or not ascending:
                raise FieldError(
                    f"memory.at_bytes = {shorten(list(self.at_bytes))}: the sizes must ascend, and "
                    "each needs one value of memory.pj_at",
                    "range",
                    key="memory.at_bytes",
                    value=list(self.at_bytes),
                )
        return self

    def picojoules(self, values: float, bits: int, memory_bits: float) -> float:
        """Return the pJ of moving values to or from a memory.

        Args:
            values: number of values.
            bits: bits of a value.
            memory_bits: size of the memory in bits.
        """
        accesses = values
        if self.access_bits is not None:
            accesses = values / max(1, self.access_bits // bits)
            accesses *= max(1, math.ceil(bits / self.access_bits))
        return accesses * self._access(memory_bits)

    def _access(self, memory_bits: float) -> float:
        """Return the pJ of one access to a memory of this size."""
        if self.pj is not None and self.pj_per_bit is not None:
            return self.pj + self.pj_per_bit * memory_bits
        assert self.at_bytes is not None
        assert self.pj_at is not None
        size = memory_bits / 8
        points = list(zip(self.at_bytes, self.pj_at))
        if size <= points[0][0]:
            return points[0][1]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            if size <= x1:
                return y0 + (y1 - y0) * (size - x0) / (x1 - x0)
        return points[-1][1]


class StaticPower(_SourcedTable):
    """Power that each chip, or each core, draws independently of its activity."""

    watts: Positive
    per: Literal["chip", "core"]


class EventTime(_SourcedTable):
    """Time of one event on one core."""

    value: Positive
    unit: Literal["ns"]


class TimeTable(TomlTable):
    """The `[time]` table: times of a core for the events of `[energy]`.

    Attributes:
        sop, neuron_update, spike: times of the same events as in `[energy]`.
        message_in, message_out: one message received, one sent to a destination core.
        step: synchronisation of the cores, which every time step takes.
    """

    sop: EventTime | None = None
    neuron_update: EventTime | None = None
    spike: EventTime | None = None
    message_in: EventTime | None = None
    message_out: EventTime | None = None
    step: EventTime | None = None


class Limit(TomlTable):
    """A limit of a chip.

    Attributes:
        value: the largest number or size.
        kind: "specified" by the maker, "compiler" if a compiler enforces or enforced it,
            "reported" if others state it.
        source: the publication, and the texts through which we know it.
    """

    value: Count
    kind: Literal["specified", "compiler", "reported"]
    source: Text


class Feature(TomlTable):
    """A feature that a chip has or does not have.

    Attributes:
        value: whether the chip has the feature.
        kind, source: as in `Limit`.
    """

    value: bool
    kind: Literal["specified", "compiler", "reported"]
    source: Text


class Capacity(TomlTable):
    """The `[capacity]` table: the limits of a chip and of its cores.

    Attributes:
        packing: way of packing synapses into memory, a name of `mapping.packing.PACKINGS`.
        weight_bits: widths of weights that can be stored, sign included, ascending.
        word_bits: bits of a word of synapse memory.
        cores: cores per chip.
        neurons, input_axons, output_axons, synapse_words: limits per core.
        synapse_formats: kinds of lists of synapses per core.
        neuron_groups: groups of neurons with common parameters per core.
        words_per_axon: words of the list of synapses of one input axon.
        shared_axons: whether several neurons may send to one input axon of a core, and several
            axons may name one list of synapses; if absent, each neuron has its own axon and list.
        graded_spikes: bits of the value that a spike carries, sign included; if absent, spikes
            carry no value.
    """

    packing: Text
    weight_bits: Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(strict=False)]
    word_bits: Annotated[int, Field(ge=1, le=1024)]
    cores: Limit
    neurons: Limit
    input_axons: Limit
    output_axons: Limit
    synapse_words: Limit
    synapse_formats: Limit | None = None
    neuron_groups: Limit | None = None
    words_per_axon: Limit | None = None
    shared_axons: Feature | None = None
    graded_spikes: Limit | None = None


class Device(TomlTable):
    """A device file.

    Attributes:
        name: identifier; a bundled file carries it as its file name.
        title: one line for people.
        maker: maker of the chip.
        process: semiconductor process, or None if unknown.
        chip: name of the chip; several files may describe one chip with different figures.
        charges: "events": energy is charged for each event (an event-driven chip);
            "dense": for every possible connection in every step, whether or not a
            spike arrives; "memory": for operations and for every access to memory; None:
            no energy is known.
        notes: what the constants include, leave out or assume.
        energy: constants of energy.
        memory: price of memory accesses, if `charges` is "memory".
        static: power drawn at all times; it is charged only on request.
        time: constants of time.
        capacity: limits of the chip; if absent, no network can be mapped to it.
    """

    name: Text
    title: Text
    maker: Text
    process: Text | None = None
    chip: Text | None = None
    charges: Literal["events", "dense", "memory"] | None = None
    notes: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    energy: EnergyTable = EnergyTable()
    memory: MemoryPrice | None = None
    static: StaticPower | None = None
    time: TimeTable = TimeTable()
    capacity: Capacity | None = None

    @model_validator(mode="after")
    def _constants_fit_the_charges(self) -> Device:
        if self.charges is None:
            if self.constants:
                raise FieldError(
                    "charges is missing: a file with constants in [energy] needs "
                    'charges = "events", "dense" or "memory" before its first table',
                    "missing",
                    key="charges",
                    limit=tuple(CHARGED_KEYS),
                )
            return self
        known = CHARGED_KEYS[self.charges]
        for key in self.constants:
            if key not in known:
                raise FieldError(
                    f'energy.{key} does not apply to charges = "{self.charges}" '
                    f"(constants that apply: {', '.join(known)})",
                    "conflict",
                    key=f"energy.{key}",
                    limit=known,
                )
        if {"operation", "mac"} <= self.constants.keys() and self.charges == "dense":
            raise FieldError(
                'energy.operation and energy.mac exclude each other with charges = "dense"',
                "conflict",
                key="energy.operation",
            )
        if (self.memory is not None) != (self.charges == "memory"):
            raise FieldError(
                'charges = "memory" and the table [memory] require each other',
                "conflict",
                key="memory",
            )
        return self

    @property
    def constants(self) -> dict[str, Constant]:
        """Energy key -> constant, for the constants that the file states."""
        return {key: constant for key, constant in self.energy if constant is not None}

    def constant(self, key: str) -> Constant:
        """Return the constant under `energy.key`.

        Raises:
            ConfigError: when the file does not state the constant.
        """
        if key not in self.constants:
            by_events = self.charges in (None, "events")
            option = f"the option --constant {key}=PICOJOULES or " if by_events else ""
            others = ", ".join(_stating(key, self.chip))
            raise ConfigError(
                f"device {self.name} states no constant energy.{key}: it is unknown; "
                + (f"use another device of {self.chip} ({others}), or " if others else "")
                + f"give it with {option}a device file of your own",
                "missing",
                key=f"energy.{key}",
                limit=others or None,
            )
        return self.constants[key]

    def event(self, key: str) -> EventEnergy:
        """Return the constant of one event under `energy.key`.

        Raises:
            ConfigError: when the file does not state the constant, or the constant is not the
                energy of an event.
        """
        constant = self.constant(key)
        if not isinstance(constant, EventEnergy):
            raise ConfigError(
                f"device {self.name}: energy.{key} is not the energy of an event",
                "type",
                key=f"energy.{key}",
            )
        return constant


def with_constants(device: Device, picojoules: Mapping[str, float]) -> Device:
    """Return the device with a user's own energies per event, which replace or add constants.

    Args:
        device: the device, which is not changed.
        picojoules: energy key of `CHARGED_KEYS` -> pJ of one event.

    Raises:
        ConfigError: for a key that does not apply to the device, or a value out of range.
    """
    constants = {
        key: {
            "value": value,
            "unit": "pJ",
            "kind": "assumed",
            "operating_point": "not stated",
            "source": "Given by the user.",
        }
        for key, value in picojoules.items()
    }
    content = device.model_dump(exclude_none=True)
    content["charges"] = device.charges or "events"
    content["energy"] = {**content["energy"], **constants}
    return _changed(device, content)


def with_utilisation(
    device: Device, utilisation: float | None = None, ops_per_connection: int | None = None
) -> Device:
    """Return a dense device with another utilisation or other operations per connection.

    A device without `energy.operation` is returned unchanged.

    Raises:
        ConfigError: for a value out of range.
    """
    options = {"utilisation": utilisation, "ops_per_connection": ops_per_connection}
    options = {key: value for key, value in options.items() if value is not None}
    if device.energy.operation is None or not options:
        return device
    content = device.model_dump(exclude_none=True)
    content["energy"]["operation"].update(options)
    return _changed(device, content)


def device_names() -> tuple[str, ...]:
    """Return the names of the bundled devices, sorted."""
    files = (file.name for file in _bundled().iterdir())
    return tuple(sorted(name[:-5] for name in files if name.endswith(".toml")))


def _stating(key: str, chip: str | None) -> list[str]:
    """Return the names of the package's devices of a chip that state the constant `energy.key`."""
    devices = map(load_device, device_names() if chip is not None else ())
    return [device.name for device in devices if device.chip == chip and key in device.constants]


def load_device(name_or_path: str | Path) -> Device:
    """Read a bundled device by name, or a device file by a path that ends in `.toml`.

    Raises:
        ConfigError: for an unknown device name, an unknown or missing key, keys that exclude each
            other, a value out of range, or a text that is not TOML.
        FileError: when the file is missing, unreadable, or larger than a TOML file may be.
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        return _parse(Path(name), name)
    names = device_names()
    if name not in names:
        raise ConfigError(
            f"unknown device {name!r}{_nearest(name, names)} "
            f"(known: {', '.join(names)}; or a path that ends in .toml)",
            "unknown",
            value=name,
            limit=names,
        )
    return _parse(_bundled() / f"{name}.toml", name)


def _bundled() -> Traversable:
    return resources.files("esl_lava.hw_configs")


def _parse(file: Traversable, where: str) -> Device:
    try:
        # A pipe or a device could block or never end.
        if not file.is_file():
            raise FileError(
                f"{where}: no such file, or not a regular file", "not-found", file=where
            )
    except OSError as error:
        raise FileError(
            f"{where}: cannot be read ({error.strerror})", "unreadable", file=where
        ) from None
    content = tomlfile.parse(tomlfile.read_text(file, where), where)
    try:
        return tomlfile.validate(Device, content, _known)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.in_file(where)) from None


def _changed(device: Device, content: Mapping[str, object]) -> Device:
    """Return the device with the changed content of its file."""
    try:
        return tomlfile.validate(Device, content, _known)
    except tomlfile.Faults as error:
        raise ConfigError.of(
            [
                replace(fault, sentence=f"device {device.name}: {fault.sentence}")
                for fault in error.faults
            ]
        ) from None


def _known(key: str, table: type[TomlTable]) -> str:
    """Name the key of the table that is nearest to an unknown one, and all keys of the table."""
    known = list(table.model_fields)
    return f"{_nearest(key.rpartition('.')[2], known)} (known: {', '.join(known)})"


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' or an empty text. The cutoff lets "v100" find "v100_paper"."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {matches[0]}?" if matches else ""
