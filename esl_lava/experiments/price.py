"""Joules of an evaluated network on described devices, and what its training took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from esl_lava.counts import Counts
from esl_lava.data.own import Own
from esl_lava.devices import Device, load_device, with_constants, with_utilisation
from esl_lava.energy import as_ann, by_connections, detailed, per_sample
from esl_lava.energy.training import TrainedLayer, TrainingCost, TrainingSchedule, training_cost
from esl_lava.errors import ConfigError, DataError
from esl_lava.experiments.rundir import RunDirectory, read_updates
from esl_lava.network import INPUT, Input, Layer, Network
from esl_lava.results.price import Disagreement, Price
from esl_lava.results.training import read_history

LONGEST_STEP = 1e9
"""Seconds; more than thirty years. What a device may draw in that time is still finite."""

DEFAULT_DEVICES = ("truenorth_paper", "v100_paper", "loihi1_davies2018", "loihi1_sanafe")


@dataclass(frozen=True)
class PriceTerms:
    """What a user says about devices, over what their files say.

    Attributes:
        constants: energy key -> pJ, for event-driven devices and those without energy.
        utilisation: share of its peak that a dense device reaches.
        flops_per_mac: operations a dense device is charged for a connection.
        step_seconds: a step takes; static power is charged for it, else not at all.
        chips, cores: that draw static power.

    Raises:
        ConfigError: for a time that is none, or longer than `LONGEST_STEP`.
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
                f"a step of {seconds} s: a step takes more than 0 s and at most {LONGEST_STEP:g} s"
            )


def price(
    network: Network, counts: Counts, devices: Sequence[str], terms: PriceTerms | None = None
) -> Mapping[str, Price]:
    """Price counts on devices given by name or by path of a TOML file.

    Args:
        network: the one that was run.
        counts: of its run; details are filled in where they are missing.
        devices: names or paths.
        terms: what the user says over the files.

    Raises:
        UserError: for an unknown device, one that lacks a needed constant, or two different
            ones of the same name.
    """
    terms = terms or PriceTerms()
    counts = counts if counts.details else detailed(network, counts)
    seconds = None if terms.step_seconds is None else terms.step_seconds * counts.steps
    loaded = [(name, load_device(name)) for name in devices]
    _refuse_unused(terms, [device for _, device in loaded])
    priced: dict[str, Price] = {}
    for name, stated in loaded:
        device = with_utilisation(stated, terms.utilisation, terms.flops_per_mac)
        if terms.constants and device.charges in (None, "events"):
            device = with_constants(device, terms.constants)
        if device.name in priced and priced[device.name].device != device:
            raise ConfigError(f"{name}: another device is already called {device.name}")
        waits = seconds if device.static is not None else None
        measured = per_sample(counts, device, seconds=waits, chips=terms.chips, cores=terms.cores)
        if seconds != waits:
            said = (*measured.remarks, "its static power is unknown and not charged")
            measured = replace(measured, remarks=said)
        priced[device.name] = Price(
            device,
            measured,
            None if device.charges == "memory" else by_connections(network.connections, device),
            as_ann(counts, device),
        )
    return priced


def _refuse_unused(terms: PriceTerms, devices: Sequence[Device]) -> None:
    """Refuse what the user says about devices of which there are none, with a ConfigError."""
    dense = any(device.energy.operation is not None for device in devices)
    events = any(device.charges in (None, "events") for device in devices)
    static = any(device.static is not None for device in devices)
    for option, given, used, what in (
        ("--utilisation", terms.utilisation, dense, "has a peak rate"),
        ("--flops-per-mac", terms.flops_per_mac, dense, "has a peak rate"),
        ("--constant", terms.constants or None, events, "is charged by events"),
        ("--step-seconds", terms.step_seconds, static, "states its static power"),
    ):
        if given is not None and not used:
            names = ", ".join(device.name for device in devices)
            raise ConfigError(f"{option} says nothing here: no device of {names} {what}")


def disagreements(prices: Mapping[str, Price]) -> tuple[Disagreement, ...]:
    """Chips on which the priced files differ, or a file's own sources do."""
    chips: dict[str, list[Price]] = {}
    for priced in prices.values():
        if priced.device.chip is not None:
            chips.setdefault(priced.device.chip, []).append(priced)
    found = []
    for chip, together in chips.items():
        spans = [p.measured.span or (p.measured.total, p.measured.total) for p in together]
        least, most = min(low for low, _ in spans), max(high for _, high in spans)
        if least < most:
            names = tuple(p.device.name for p in together)
            found.append(Disagreement(chip, names, least, most))
    return tuple(found)


def _trained(layer: Layer) -> list[tuple[str, Input]]:
    """Names of the weights that were trained for a layer, and what they became."""
    named = [(given.origin.name if given.origin else layer.name, given) for given in layer.inputs]
    return [(name, given) for name, given in named if name]


def parse_constants(texts: Sequence[str]) -> dict[str, float]:
    """Energy key -> pJ, from texts "key=pJ".

    Raises:
        ConfigError: for a text that is not of that form, or a number that is not finite.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        found[key.strip()] = number
        if not equals or not math.isfinite(number):
            raise ConfigError(f"--constant {text!r} is not KEY=PICOJOULES, such as sop=23.6")
    return found


def cost_of_training(
    model: Path, network: Network, counts: Counts, own: Own | None = None
) -> TrainingCost:
    """What the training of a network took, and its dense twin's.

    Args:
        model: the finished model.pt; `updates.json` is read beside it.
        network: exported from it.
        counts: of a run of it, whose rates of spikes stand for those of the training.
        own: where the training's samples come from, where these were the user's own.

    Raises:
        FileError, DataError: when files are missing, damaged or of another network.
    """
    from esl_lava.data.catalogue import samples_of
    from esl_lava.data.datasets import split_validation
    from esl_lava.models.stored import load_model

    saved, config = load_model(model)
    data = samples_of(config.data, "train", config.encoding, own)
    kept, _ = split_validation(data, config.data.validation, config.seed)
    updates = read_updates(RunDirectory(model.parent).updates)
    history = read_history(saved.history)
    names = [name for layer in network.layers for name, _ in _trained(layer)]
    for epoch in history:
        if sorted(epoch.densities) != sorted(names):
            raise DataError(
                f"{model} has layers {', '.join(sorted(epoch.densities))}, "
                f"the network {', '.join(sorted(names))}"
            )
    runs = counts.samples * counts.steps
    spikes = {INPUT: counts.input_spikes} | {layer.name: layer.spikes for layer in counts.layers}
    layers = [
        TrainedLayer(
            name=name,
            neurons=layer.neurons,
            positions=given.positions,
            # Squares of a pool are summed before anything is weighed.
            possible_connections=given.connections.possible_connections
            * given.positions
            // max(1, given.connections.possible),
            rate=spikes[given.source] / (runs * given.connections.n_pre),
            densities=[epoch.densities[name] for epoch in history],
            moved=sum(u.layers[name].grown for u in updates if name in u.layers),
        )
        for layer in network.layers
        for name, given in _trained(layer)
    ]
    schedule = TrainingSchedule(
        samples=len(kept),
        batch=config.training.batch_size,
        steps=config.encoding.steps,
        updates=len(updates),
        growth=config.sparsity.growth,
    )
    return training_cost(layers, schedule)
