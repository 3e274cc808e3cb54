"""The typed reader of `hw_configs/NAME.toml`: what a device charges, holds and takes.

A device file states constants (energy, time, static power) and limits, each with its
kind, operating point and source. What a file does not state is unknown, and what needs it
refuses; no constant has a default.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from esl_lava import tomlfile
from esl_lava.errors import ConfigError, FileError
from esl_lava.tomlfile import TomlTable

CHARGED_KEYS: Mapping[str, tuple[str, ...]] = {
    "events": ("sop", "neuron_update", "neuron_update_inactive", "spike", "message", "mac"),
    "dense": ("operation", "mac", "neuron_update"),
    "memory": ("add", "multiply"),
}
"""The energy keys that each way of charging knows."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
MOST = 1e30
"""The largest number a device file may state, and the most pJ of an event or operation: what keeps
products with counts finite."""

Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
# TOML gives lists, and strict tuples refuse lists.
_Points = Annotated[tuple[Annotated[float, Field(ge=0, le=1e18)], ...], Field(strict=False)]
Count = Annotated[int, Field(gt=0, le=1 << 40)]


class _Sourced(TomlTable):
    """What every constant carries besides its numbers.

    Attributes:
        kind: measured on the device; simulated before it existed; peak figures of its maker;
            fitted to other figures; nominal, as its maker states it; analytical, from a model;
            reported by others who do not say how it came about; assumed by the user.
        operating_point: voltage, activity, rate or format it holds for.
        source: where it is published, and through whom we know it.
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


class EventEnergy(_Sourced):
    """Energy of one event (a synaptic operation, a neuron update, a spike).

    Attributes:
        value: energy of one event.
        low, high: least and most that sources or formats give, where they disagree.
    """

    value: Positive
    low: Positive | None = None
    high: Positive | None = None
    unit: Literal["pJ"]

    @model_validator(mode="after")
    def _range_holds_the_value(self) -> EventEnergy:
        if not self.least <= self.value <= self.most:
            raise PydanticCustomError(
                "range",
                "value {value} is outside low {low} to high {high}",
                {"value": self.value, "low": self.least, "high": self.most},
            )
        return self

    @property
    def least(self) -> float:
        """`low`, or the value where none is stated, in pJ."""
        return self.value if self.low is None else self.low

    @property
    def most(self) -> float:
        """`high`, or the value where none is stated, in pJ."""
        return self.value if self.high is None else self.high

    def joules(self, events: int) -> float:
        """Energy of `events` events in joules."""
        return events * self.value / 1e12


class DenseOperation(_Sourced):
    """Energy of one operation of a machine that draws its rated power.

    Attributes:
        watts: power drawn at that rate.
        peak_ops_per_second: operations per second.
        ops_per_connection: operations charged for a connection: 1 as in Table 1 of
            ESL-SNNs, or 2 where a multiply-add is two operations.
        utilisation: share of the peak rate that is reached, 0..1; 1 is the best case.
    """

    watts: Positive
    peak_ops_per_second: Positive
    ops_per_connection: Annotated[int, Field(ge=1, le=2)]
    utilisation: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _an_operation_is_finite(self) -> DenseOperation:
        rate = self.peak_ops_per_second * self.utilisation  # may be 0, as products can be
        if 1e12 * self.watts > MOST * rate:
            raise PydanticCustomError(
                "operation",
                "{watts} W at {rate} operations per second, utilisation included, are more than "
                "{most} pJ an operation",
                {"watts": self.watts, "rate": rate, "most": MOST},
            )
        return self

    def joules(self, connections: int) -> float:
        """Energy of executing `connections` connections once, in joules."""
        rate = self.peak_ops_per_second * self.utilisation
        return connections * self.ops_per_connection * self.watts / rate


Constant = EventEnergy | DenseOperation


class EnergyTable(TomlTable):
    """The `[energy]` table; an absent constant is unknown.

    Attributes:
        sop: one synaptic operation: a spike crossing a synapse (an accumulation).
        neuron_update: one neuron advanced by one step; an active one, where inactive ones
            have a constant of their own.
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


class MemoryPrice(_Sourced):
    """Energy of one access to a memory, from the size of that memory.

    Either a line, `pj + pj_per_bit * bits`, or the straight lines between points
    (`at_bytes`, `pj_at`), flat beyond the last.

    Attributes:
        value_bits: bits of a weight, a potential, a bias and an input.
        pj, pj_per_bit: the line.
        at_bytes, pj_at: sizes of memories in bytes, ascending, and the pJ of an access to
            each.
        access_bits: bits an access moves; absent, one access moves one value of any width.
        known_to_bytes: largest memory the figures rest on.
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
            raise PydanticCustomError(
                "one_form", "give either pj and pj_per_bit, or at_bytes and pj_at"
            )
        if self.at_bytes is not None and self.pj_at is not None:
            ascending = all(a < b for a, b in zip(self.at_bytes, self.at_bytes[1:]))
            if len(self.at_bytes) != len(self.pj_at) or not self.at_bytes or not ascending:
                raise PydanticCustomError("points", "at_bytes must ascend, with one pj_at for each")
        return self

    def picojoules(self, values: float, bits: int, memory_bits: float) -> float:
        """Energy of moving `values` values of `bits` bits, from a memory of `memory_bits`."""
        accesses = values
        if self.access_bits is not None:
            accesses = values / max(1, self.access_bits // bits)
            accesses *= max(1, math.ceil(bits / self.access_bits))
        return accesses * self._access(memory_bits)

    def _access(self, memory_bits: float) -> float:
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


class StaticPower(_Sourced):
    """Power that each chip, or each core, draws whatever it does."""

    watts: Positive
    per: Literal["chip", "core"]


class EventTime(_Sourced):
    """Time of one event on one core."""

    value: Positive
    unit: Literal["ns"]


class TimeTable(TomlTable):
    """The `[time]` table: how long a core takes for events as in `[energy]`, where known.

    Attributes:
        message_in, message_out: one message received, one sent to a destination core.
        step: of a time step whatever happens: the cores' synchronisation.
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
        value: how many, or how much.
        kind: "specified" by the maker, "compiler" where a compiler enforces or enforced
            it, "reported" where others say so.
        source: where it is published, and through whom we know it.
    """

    value: Count
    kind: Literal["specified", "compiler", "reported"]
    source: Text


class Feature(TomlTable):
    """What a chip can do, or cannot.

    Attributes:
        value: whether it can.
        kind, source: as of a `Limit`.
    """

    value: bool
    kind: Literal["specified", "compiler", "reported"]
    source: Text


class Capacity(TomlTable):
    """The `[capacity]` table: what a chip holds.

    Attributes:
        packing: how synapses are packed into memory, a name of `mapping.packing.PACKINGS`.
        weight_bits: widths of weights that can be stored, sign included, ascending.
        cores: per chip.
        word_bits: of a word of synapse memory.
        neurons, input_axons, output_axons, synapse_words: per core.
        synapse_formats: kinds of lists per core.
        neuron_groups: per core, each of neurons with parameters in common.
        words_per_axon: of one input axon's list of synapses.
        shared_axons: whether several neurons may send to one input axon of a core, and axons
            name one list of synapses; absent: each neuron has its own.
        graded_spikes: bits of the value that a spike carries, its sign included; absent: a
            spike carries none.
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
        maker: who makes the chip.
        process: semiconductor process, or None where unknown.
        chip: what the figures are about; files of one chip disagree with one another.
        charges: "events": energy is spent on what happens (an event-driven chip);
            "dense": on every possible connection at every step, whether or not a
            spike arrives; "memory": on operations and on every access to memory; None:
            no energy is known.
        notes: what the constants include, leave out or assume.
        energy: the constants.
        memory: price of memory accesses, where `charges` is "memory".
        static: power drawn whatever happens, not charged unless asked for.
        time: how long a core takes.
        capacity: what the chip holds; absent, nothing can be mapped to it.
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
    def _charges_what_it_states(self) -> Device:
        if self.charges is None:
            if self.constants:
                raise PydanticCustomError(
                    "charges", "charges is missing: energy constants need events, dense or memory"
                )
            return self
        known = CHARGED_KEYS[self.charges]
        for key in self.constants:
            if key not in known:
                raise PydanticCustomError(
                    "not_charged",
                    'energy.{key} means nothing with charges = "{charges}" (known: {known})',
                    {"key": key, "charges": self.charges, "known": ", ".join(known)},
                )
        if {"operation", "mac"} <= self.constants.keys() and self.charges == "dense":
            raise PydanticCustomError("both", "energy.operation and energy.mac exclude each other")
        if (self.memory is not None) != (self.charges == "memory"):
            raise PydanticCustomError("memory", 'charges = "memory" and [memory] go together')
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
            raise ConfigError(
                f"device {self.name} states no constant energy.{key}: it is unknown; give your "
                f"own (--constant {key}=PICOJOULES, or a device file of yours)"
            )
        return self.constants[key]

    def event(self, key: str) -> EventEnergy:
        """The constant of one event under `energy.key`.

        Raises:
            ConfigError: where the file does not state it.
        """
        constant = self.constant(key)
        if not isinstance(constant, EventEnergy):
            raise ConfigError(f"device {self.name}: energy.{key} is not the energy of an event")
        return constant


def with_constants(device: Device, picojoules: Mapping[str, float]) -> Device:
    """The device with a user's own energies per event, in place of or beside its own.

    Args:
        device: not changed.
        picojoules: energy key of `CHARGED_KEYS` -> pJ of one event.

    Raises:
        ConfigError: for a key the device cannot be charged by, or a value out of range.
    """
    given = {
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
    content["energy"] = {**content["energy"], **given}
    return _validated(content, f"device {device.name}")


def with_utilisation(
    device: Device, utilisation: float | None = None, ops_per_connection: int | None = None
) -> Device:
    """A dense device at another share of its peak, or another convention of operations.

    A device without `energy.operation` is returned as it is.

    Raises:
        ConfigError: for a value out of range.
    """
    given = {"utilisation": utilisation, "ops_per_connection": ops_per_connection}
    given = {key: value for key, value in given.items() if value is not None}
    if device.energy.operation is None or not given:
        return device
    content = device.model_dump(exclude_none=True)
    content["energy"]["operation"].update(given)
    return _validated(content, f"device {device.name}")


def device_names() -> tuple[str, ...]:
    """Names of the bundled devices, sorted."""
    files = (file.name for file in _bundled().iterdir())
    return tuple(sorted(name[:-5] for name in files if name.endswith(".toml")))


def load_device(name_or_path: str | Path) -> Device:
    """Read a bundled device by name, or a device file by a path that ends in `.toml`.

    Raises:
        ConfigError: on an unknown device name, an unknown or missing key, a value out of
            range, or what is no TOML.
        FileError: when the file is missing, unreadable, or larger than a TOML file may be.
    """
    wanted = str(name_or_path)
    if wanted.endswith(".toml"):
        return _parse(Path(wanted), wanted)
    names = device_names()
    if wanted not in names:
        raise ConfigError(
            f"unknown device {wanted!r}{_nearest(wanted, names)} "
            f"(known: {', '.join(names)}; or a path that ends in .toml)"
        )
    return _parse(_bundled() / f"{wanted}.toml", wanted)


def _bundled() -> Traversable:
    return resources.files("esl_lava.hw_configs")


def _parse(file: Traversable, where: str) -> Device:
    try:
        # A pipe or a device could block or never end.
        if not file.is_file():
            raise FileError(f"{where}: no such file, or not a regular one")
    except OSError as error:
        raise FileError(f"{where}: cannot be read ({error.strerror})") from None
    return _validated(tomlfile.parse(tomlfile.read_text(file, where), where), where)


def _validated(content: Mapping[str, object], where: str) -> Device:
    try:
        return tomlfile.validate(Device, content, _known)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.located(where)) from None


def _known(key: str, table: type[TomlTable]) -> str:
    """The nearest key of the table that an unknown one stands in, and all there are."""
    known = list(table.model_fields)
    return f"{_nearest(key.rpartition('.')[2], known)} (known: {', '.join(known)})"


def _nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' or nothing. The cutoff lets "v100" find "v100_paper"."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {matches[0]}?" if matches else ""
