"""Joules of an evaluated network on described devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esl_lava.counts import Counts
from esl_lava.devices import Device, load_device
from esl_lava.energy import EnergyBreakdown, by_connections, per_sample
from esl_lava.errors import ConfigError
from esl_lava.network import Network

DEFAULT_DEVICES = ("truenorth_paper", "v100_paper", "loihi1_davies2018", "loihi1_sanafe")


@dataclass(frozen=True)
class Price:
    """One network on one device.

    Attributes:
        device: the device with its sources.
        measured: joules per sample from the operations really executed.
        by_connections: joules by the paper's convention, one operation per connection.
    """

    device: Device
    measured: EnergyBreakdown
    by_connections: float


def price(network: Network, counts: Counts, devices: Sequence[str]) -> Mapping[str, Price]:
    """Price counts on devices given by name or by path of a TOML file.

    Raises:
        UserError: for an unknown device, one that lacks a needed constant, or two different
            ones of the same name.
    """
    priced: dict[str, Price] = {}
    for name in devices:
        device = load_device(name)
        if device.name in priced and priced[device.name].device != device:
            raise ConfigError(f"{name}: another device is already called {device.name}")
        priced[device.name] = Price(
            device, per_sample(counts, device), by_connections(network.connections, device)
        )
    return priced


def device_values(prices: Mapping[str, Price]) -> dict[str, dict[str, Any]]:
    """Device name -> its joules, what they are made of, and the constants' sources."""
    return {
        name: {
            "joules_per_sample": priced.measured.total,
            "joules_by_connections": priced.by_connections,
            "charged": list(priced.measured.used),
            "sources": {key: constant.source for key, constant in priced.device.constants.items()},
        }
        for name, priced in prices.items()
    }
