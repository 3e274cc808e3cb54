"""The energy of a run on devices, and the numbers that device files contain."""

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
"""The parts of an energy: attributes of `EnergyBreakdown`."""


@dataclass(frozen=True)
class Price:
    """The energy of one network on one device.

    Attributes:
        device: the device, with the sources of its constants.
        measured: joules per sample, from the operations that were counted.
        by_connections: joules by the paper's convention, one operation per connection; None for a
            device whose energy is a memory model, to which the convention does not apply.
        as_ann: joules of one pass of a dense network of the same shape; None if the device does
            not multiply.
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
        """Part of the energy -> joules per sample."""
        return {part: getattr(self.measured, part) for part in PARTS}

    @property
    def sources(self) -> dict[str, str]:
        """Energy key -> source of its constant."""
        return {key: constant.source for key, constant in self.device.constants.items()}


@dataclass(frozen=True)
class Disagreement:
    """A chip for which device files, or sources in one file, give different joules.

    Attributes:
        chip: name of the chip.
        devices: names of the device files.
        least, most: smallest and largest joules per sample, including the span of each file.
    """

    chip: str
    devices: tuple[str, ...]
    least: float
    most: float


@dataclass(frozen=True, eq=False)
class Bill:
    """A run and its energy on all devices.

    Attributes:
        run: the network and its evaluation.
        devices: device name -> energy on this device.
        disagreements: chips for which device files, or sources in one file, give different joules.
        neurobench: name -> NeuroBench metric; None if inputs are graded.
        training: cost of the training; None if it was not requested.
    """

    KEYS: ClassVar[Keys] = keys("*=run devices disagreements neurobench training")

    run: NetworkRun
    devices: Mapping[str, Price]
    disagreements: tuple[Disagreement, ...]
    neurobench: Mapping[str, float] | None = field(default=None, metadata=OPTIONAL)
    training: TrainingCost | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class DeviceNumber:
    """A number in a device file.

    Attributes:
        key: key of the number in the file.
        value: the number with its unit, as text.
        kind, operating_point, source: texts of the file; a limit has no operating point.
    """

    key: str
    value: str
    kind: str
    operating_point: str
    source: str


FEATURES = ("shared_axons",)
"""Keys of `[capacity]` that are yes or no: the chip has this feature or not."""


def device_numbers(device: Device) -> list[DeviceNumber]:
    """Return all numbers of a device file, in the order of the file."""
    numbers = []
    for key, constant in device.constants.items():
        value = f"{constant.joules(1) * 1e12:,.6g} pJ"
        if isinstance(constant, DenseOperation):
            value += (
                f" = {constant.watts:g} W / {constant.peak_ops_per_second:.4g} op/s, "
                f"{constant.ops_per_connection} op, {100 * constant.utilisation:g} % of the peak"
            )
        elif constant.least < constant.most:
            value += f" ({constant.least:g} to {constant.most:g})"
        numbers.append(_number(f"energy.{key}", value, constant))
    if device.memory is not None:
        memory = device.memory
        line = f"{memory.pj:g} pJ + {memory.pj_per_bit:g} pJ/bit" if memory.pj is not None else ""
        points = ", ".join(
            f"{pj:g} pJ at {size:,.0f} bytes"
            for size, pj in zip(memory.at_bytes or (), memory.pj_at or ())
        )
        numbers.append(_number("memory", f"{line or points} per access", memory))
    if device.static is not None:
        power = device.static
        numbers.append(_number("static", f"{power.watts:g} W per {power.per}", power))
    for key, time in device.time:
        if time is not None:
            numbers.append(_number(f"time.{key}", f"{time.value:g} ns", time))
    if device.capacity is not None:
        for key, limit in device.capacity:
            if hasattr(limit, "source"):
                value = ("no", "yes")[limit.value] if key in FEATURES else f"{limit.value:,}"
                numbers.append(_number(f"capacity.{key}", value, limit))
    return numbers


def energies(device: Device) -> list[DeviceNumber]:
    """Return the energy numbers of a device file."""
    return [number for number in device_numbers(device) if number.key.startswith(("energy", "mem"))]


def _number(key: str, value: str, constant: object) -> DeviceNumber:
    """Return a number of a device file with the texts that stand beside it."""
    texts = (str(getattr(constant, name, "")) for name in ("kind", "operating_point", "source"))
    return DeviceNumber(key, value, *texts)


@dataclass(frozen=True)
class DeviceFacts:
    """A device and all numbers of its file."""

    KEYS: ClassVar[Keys] = keys(
        "device.title device.maker device.process device.chip device.charges device.notes "
        "constants file=device"
    )

    device: Device

    @property
    def constants(self) -> dict[str, DeviceNumber]:
        """Key in the file -> the number."""
        return {number.key: number for number in device_numbers(self.device)}
