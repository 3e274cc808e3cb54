"""What a run costs on devices, and what the devices state of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from esl_lava.devices import DenseOperation, Device
from esl_lava.energy import EnergyBreakdown
from esl_lava.energy.training import TrainingCost
from esl_lava.results.evaluation import NetworkRun
from esl_lava.values import OPTIONAL, Keys, keys

PARTS = ("synapses", "neurons", "spikes", "messages", "static")
"""What an energy is made of: attributes of `EnergyBreakdown`."""


@dataclass(frozen=True)
class Price:
    """One network on one device.

    Attributes:
        device: the device with its sources.
        measured: joules per sample from the operations really executed.
        by_connections: joules by the paper's convention, one operation per connection;
            None for a device charged for memory, of which it knows nothing.
        as_ann: joules of a dense network of the same shape that runs once, where the
            device multiplies.
    """

    KEYS: ClassVar[Keys] = keys(
        "joules_per_sample=measured.total joules_span=measured.span "
        "joules_by_connections=by_connections joules_as_ann=as_ann parts "
        "charged=measured.used measured.remarks sources"
    )

    device: Device
    measured: EnergyBreakdown
    by_connections: float | None
    as_ann: float | None

    @property
    def parts(self) -> dict[str, float]:
        """Part -> joules per sample."""
        return {part: getattr(self.measured, part) for part in PARTS}

    @property
    def sources(self) -> dict[str, str]:
        """Energy key -> where its constant comes from."""
        return {key: constant.source for key, constant in self.device.constants.items()}


@dataclass(frozen=True)
class Disagreement:
    """What the files of one chip say together.

    Attributes:
        chip: what they are about.
        devices: their names.
        least, most: joules per sample, spans included.
    """

    chip: str
    devices: tuple[str, ...]
    least: float
    most: float


@dataclass(frozen=True, eq=False)
class Bill:
    """A run and what it costs.

    Attributes:
        run: the network and its evaluation.
        devices: name -> price there.
        disagreements: among them.
        neurobench: name -> NeuroBench's metric; None where inputs are graded.
        training: what the training took, where that was asked for.
    """

    KEYS: ClassVar[Keys] = keys("*=run devices disagreements neurobench training")

    run: NetworkRun
    devices: Mapping[str, Price]
    disagreements: tuple[Disagreement, ...]
    neurobench: Mapping[str, float] | None = field(default=None, metadata=OPTIONAL)
    training: TrainingCost | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Stated:
    """A number a device file states.

    Attributes:
        key: where it stands in the file.
        value: with its unit.
        kind, operating_point, source: as the file says; a limit has no operating point.
    """

    key: str
    value: str
    kind: str
    operating_point: str
    source: str


FEATURES = ("shared_axons",)
"""Keys of a `[capacity]` that say whether the chip can do something."""


def stated(device: Device) -> list[Stated]:
    """Everything a device file states, in the file's order."""
    found = []
    for key, constant in device.constants.items():
        value = f"{constant.joules(1) * 1e12:,.6g} pJ"
        if isinstance(constant, DenseOperation):
            value += (
                f" = {constant.watts:g} W / {constant.peak_ops_per_second:.4g} op/s, "
                f"{constant.ops_per_connection} op, {100 * constant.utilisation:g} % of the peak"
            )
        elif constant.least < constant.most:
            value += f" ({constant.least:g} to {constant.most:g})"
        found.append(_sourced(f"energy.{key}", value, constant))
    if device.memory is not None:
        price = device.memory
        line = f"{price.pj:g} pJ + {price.pj_per_bit:g} pJ/bit" if price.pj is not None else ""
        points = ", ".join(
            f"{pj:g} pJ at {size:,.0f} bytes"
            for size, pj in zip(price.at_bytes or (), price.pj_at or ())
        )
        found.append(_sourced("memory", f"{line or points} an access", price))
    if device.static is not None:
        power = device.static
        found.append(_sourced("static", f"{power.watts:g} W per {power.per}", power))
    for key, time in device.time:
        if time is not None:
            found.append(_sourced(f"time.{key}", f"{time.value:g} ns", time))
    if device.capacity is not None:
        for key, limit in device.capacity:
            if hasattr(limit, "source"):
                said = ("no", "yes")[limit.value] if key in FEATURES else f"{limit.value:,}"
                found.append(_sourced(f"capacity.{key}", said, limit))
    return found


def energies(device: Device) -> list[Stated]:
    """What energies a device file states."""
    return [one for one in stated(device) if one.key.startswith(("energy", "mem"))]


def _sourced(key: str, value: str, constant: object) -> Stated:
    said = (str(getattr(constant, name, "")) for name in ("kind", "operating_point", "source"))
    return Stated(key, value, *said)


@dataclass(frozen=True)
class DeviceFacts:
    """A device and everything its file states."""

    KEYS: ClassVar[Keys] = keys(
        "device.title device.maker device.process device.chip device.charges device.notes "
        "constants file=device"
    )

    device: Device

    @property
    def constants(self) -> dict[str, Stated]:
        """Key in the file -> what it states."""
        return {one.key: one for one in stated(self.device)}
