"""Compute the energy of an evaluated network on devices, and the cost of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from esl_lava.counts import Counts
from esl_lava.data.own import OwnData
from esl_lava.devices import Device, load_device, with_constants, with_utilisation
from esl_lava.energy import add_details, as_ann, by_connections, per_sample
from esl_lava.energy.training import TrainedLayer, TrainingCost, TrainingSchedule, training_cost
from esl_lava.errors import ConfigError, DataError, shorten
from esl_lava.experiments.rundir import RunDirectory, read_updates
from esl_lava.network import INPUT, Input, Layer, Network
from esl_lava.results.price import Disagreement, Price
from esl_lava.results.training import read_history

LONGEST_STEP = 1e9
"""Longest step in seconds, more than thirty years. The static energy of a step stays finite."""

DEFAULT_DEVICES = ("truenorth_paper", "v100_paper", "loihi1_davies2018", "loihi1_sanafe")


@dataclass(frozen=True)
class PriceTerms:
    """Values of the user that replace those of device files.

    Attributes:
        constants: energy key -> pJ, for event-driven devices and devices without energy constants.
        utilisation: share of the peak rate that a dense device reaches.
        flops_per_mac: operations of a dense device per connection.
        step_seconds: duration of a step, for which the energy includes static power. None leaves
            static power out.
        chips, cores: number of chips and cores that draw static power.

    Raises:
        ConfigError: if `step_seconds` is not above 0, or exceeds `LONGEST_STEP`.
    """

    constants: Mapping[str, float] = field(default_factory=dict)
    utilisation: float | None = None
    flops_per_mac: int | None = None
    step_seconds: float | None = None
    chips: int = 1
    cores: int = 1

    def __post_init__(self) -> None:
        seconds = self.step_seconds
        if seconds is not None and not 0 < seconds <= LONGEST_STEP:
            raise ConfigError(
                f"--step-seconds {seconds}: must be above 0 and at most {LONGEST_STEP:g}",
                "range",
                key="--step-seconds",
                value=seconds,
                limit=LONGEST_STEP,
            )


def price(
    network: Network, counts: Counts, devices: Sequence[str], terms: PriceTerms | None = None
) -> Mapping[str, Price]:
    """Compute the energy of a run on devices.

    Args:
        network: the network that was run.
        counts: counts of the run; missing details are computed from the network.
        devices: names of devices, or paths of TOML files.
        terms: values that replace those of the device files.

    Raises:
        UserError: if a device is unknown or lacks a necessary constant, two different devices have
            the same name, or a value of `terms` applies to none of the devices.
    """
    terms = terms or PriceTerms()
    counts = counts if counts.details else add_details(network, counts)
    seconds = None if terms.step_seconds is None else terms.step_seconds * counts.steps
    loaded = [(name, load_device(name)) for name in devices]
    _refuse_unused(terms, [device for _, device in loaded])
    priced: dict[str, Price] = {}
    for name, file_device in loaded:
        device = with_utilisation(file_device, terms.utilisation, terms.flops_per_mac)
        if terms.constants and device.charges in (None, "events"):
            device = with_constants(device, terms.constants)
        if device.name in priced and priced[device.name].device != device:
            raise ConfigError(
                f"--device {name}: another device with the name {device.name} has other constants",
                "conflict",
                key="--device",
                value=name,
            )
        charged = seconds if device.static is not None else None
        measured = per_sample(counts, device, seconds=charged, chips=terms.chips, cores=terms.cores)
        if seconds != charged:
            remarks = (
                *measured.remarks,
                "its static power is unknown, so the energy leaves it out",
            )
            measured = replace(measured, remarks=remarks)
        priced[device.name] = Price(
            device,
            measured,
            None if device.charges == "memory" else by_connections(network.connections, device),
            as_ann(counts, device),
        )
    return priced


def _refuse_unused(terms: PriceTerms, devices: Sequence[Device]) -> None:
    """Refuse options that apply to none of the devices.

    Raises:
        ConfigError: if there is such an option.
    """
    dense = any(device.energy.operation is not None for device in devices)
    events = any(device.charges in (None, "events") for device in devices)
    static = any(device.static is not None for device in devices)
    for option, value, used, feature in (
        ("--utilisation", terms.utilisation, dense, "has a peak rate"),
        ("--flops-per-mac", terms.flops_per_mac, dense, "has a peak rate"),
        ("--constant", terms.constants or None, events, "charges events"),
        ("--step-seconds", terms.step_seconds, static, "states static power"),
    ):
        if value is not None and not used:
            names = ", ".join(device.name for device in devices)
            raise ConfigError(
                f"{option} has no effect: none of the devices {names} {feature}",
                "conflict",
                key=option,
                value=value,
            )


def disagreements(prices: Mapping[str, Price]) -> tuple[Disagreement, ...]:
    """Return the chips for which device files, or sources in one file, give different joules."""
    chips: dict[str, list[Price]] = {}
    for one in prices.values():
        if one.device.chip is not None:
            chips.setdefault(one.device.chip, []).append(one)
    differing = []
    for chip, of_chip in chips.items():
        spans = [p.measured.span or (p.measured.total, p.measured.total) for p in of_chip]
        least, most = min(low for low, _ in spans), max(high for _, high in spans)
        if least < most:
            names = tuple(p.device.name for p in of_chip)
            differing.append(Disagreement(chip, names, least, most))
    return tuple(differing)


def _trained_inputs(layer: Layer) -> list[tuple[str, Input]]:
    """Return the inputs of a layer that have trained weights, with the names of the weights."""
    named = [(one.origin.name if one.origin else layer.name, one) for one in layer.inputs]
    return [(name, one) for name, one in named if name]


def parse_constants(texts: Sequence[str]) -> dict[str, float]:
    """Parse texts "key=pJ" and return energy key -> pJ.

    Raises:
        ConfigError: if a text has another form, or its number is not finite.
    """
    constants = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or not math.isfinite(number):
            raise ConfigError(
                f"--constant {shorten(text)}: must be KEY=PICOJOULES with a finite number, for "
                "example sop=23.6",
                "not-finite" if equals else "type",
                key="--constant",
                value=text,
            )
        constants[key.strip()] = number
    return constants


def cost_of_training(
    model: Path, network: Network, counts: Counts, own: OwnData | None = None
) -> TrainingCost:
    """Compute the cost of the training of a network, and of the same training with dense layers.

    Args:
        model: the finished `model.pt`; `updates.json` is read from the same directory.
        network: the network that was exported from the model.
        counts: counts of a run of the network. Its spike rates are used for the training.
        own: the source of the training samples, if they were the user's own.

    Raises:
        FileError, DataError: if files are missing, damaged or from another network.
    """
    from esl_lava.data.catalogue import load_configured
    from esl_lava.data.datasets import split_validation
    from esl_lava.models.stored import load_model

    saved, config = load_model(model)
    data = load_configured(config.data, "train", config.encoding, own)
    kept, _ = split_validation(data, config.data.validation, config.seed)
    updates = read_updates(RunDirectory(model.parent).updates)
    history = read_history(saved.history)
    names = [name for layer in network.layers for name, _ in _trained_inputs(layer)]
    for epoch in history:
        if sorted(epoch.densities) != sorted(names):
            theirs, ours = ", ".join(sorted(epoch.densities)), ", ".join(sorted(names))
            raise DataError(
                f"{model} has the layers {theirs}, but the network has {ours}",
                "mismatch",
                value=theirs,
                limit=ours,
                file=model,
            )
    runs = counts.samples * counts.steps
    spikes = {INPUT: counts.input_spikes} | {layer.name: layer.spikes for layer in counts.layers}
    layers = [
        TrainedLayer(
            name=name,
            neurons=layer.neurons,
            positions=one.positions,
            # A pool sums its squares before the weights apply.
            possible_connections=one.connections.possible_connections
            * one.positions
            // max(1, one.connections.possible),
            rate=spikes[one.source] / (runs * one.connections.n_pre),
            densities=[epoch.densities[name] for epoch in history],
            moved=sum(u.layers[name].grown for u in updates if name in u.layers),
        )
        for layer in network.layers
        for name, one in _trained_inputs(layer)
    ]
    schedule = TrainingSchedule(
        samples=len(kept),
        batch=config.training.batch_size,
        steps=config.encoding.steps,
        updates=len(updates),
        growth=config.sparsity.growth,
    )
    return training_cost(layers, schedule)
