from pathlib import Path

import numpy as np
import pytest

from esl_lava.devices import device_names, load_device
from esl_lava.energy import by_connections, per_sample
from esl_lava.errors import ConfigError, UserError
from esl_lava.experiments.price import DEFAULT_DEVICES, device_values, price
from esl_lava.network import Connections, Cuba, Layer, Network
from esl_lava.simulate import Result, simulate

CUSTOM = """\
name = "mine"
title = "of mine"
maker = "me"
charges = "events"

[energy.sop]
value = {picojoules}
unit = "pJ"
kind = "measured"
operating_point = "1 V"
source = "a table"
"""


@pytest.fixture(scope="module")
def network() -> Network:
    weights = np.random.default_rng(1).integers(-3, 4, (5, 6)) * 2
    mask = weights != 0
    mask[0, 0] = True
    return Network((Layer("only", Connections.from_dense(weights, mask), Cuba(4096, 2048, 2)),))


@pytest.fixture(scope="module")
def result(network: Network) -> Result:
    return simulate(network, np.random.default_rng(2).integers(0, 2, (7, 4, 6)))


def test_prices_are_the_energy_rooms(network: Network, result: Result) -> None:
    assert result.counts.sops > 0
    prices = price(network, result.counts, device_names())
    assert tuple(prices) == device_names()
    for name, found in prices.items():
        device = load_device(name)
        assert found.device == device
        assert found.measured == per_sample(result.counts, device)
        assert found.by_connections == by_connections(network.connections, device)


def test_the_defaults_are_those_of_the_paper_and_loihi(network: Network, result: Result) -> None:
    assert set(DEFAULT_DEVICES) <= set(device_names())
    assert {"truenorth_paper", "v100_paper"} < set(DEFAULT_DEVICES)
    values = device_values(price(network, result.counts, DEFAULT_DEVICES))
    assert tuple(values) == DEFAULT_DEVICES
    sanafe = load_device("loihi1_sanafe")
    assert values["loihi1_sanafe"] == {
        "joules_per_sample": per_sample(result.counts, sanafe).total,
        "joules_by_connections": by_connections(network.connections, sanafe),
        "charged": ["sop", "neuron_update", "spike"],
        "sources": {key: constant.source for key, constant in sanafe.constants.items()},
    }


def test_a_device_may_be_a_file(network: Network, result: Result, tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(CUSTOM.format(picojoules=2))
    (found,) = price(network, result.counts, [str(path)]).values()
    assert found.measured.total == result.counts.sops * 2 / 1e12 / 7
    with pytest.raises(UserError, match="unknown device 'abacus'"):
        price(network, result.counts, ["abacus"])


def test_no_device_hides_another(network: Network, result: Result, tmp_path: Path) -> None:
    for name, picojoules in (("a.toml", 2), ("b.toml", 3)):
        (tmp_path / name).write_text(CUSTOM.format(picojoules=picojoules))
    a, b = str(tmp_path / "a.toml"), str(tmp_path / "b.toml")
    assert list(price(network, result.counts, [a, a])) == ["mine"]
    with pytest.raises(ConfigError, match=r"b\.toml: another device is already called mine"):
        price(network, result.counts, [a, b])
