import json
import math
from pathlib import Path

import numpy as np
import pytest

from esl_lava.devices import device_names, load_device
from esl_lava.energy import add_details, as_ann, by_connections, per_sample
from esl_lava.errors import ConfigError, DataError, FileError, UserError
from esl_lava.experiments.price import (
    DEFAULT_DEVICES,
    PriceTerms,
    cost_of_training,
    disagreements,
    parse_constants,
    price,
)
from esl_lava.network import Cuba, Matrix, Network
from esl_lava.simulate import Result, simulate
from esl_lava.values import as_values
from tests.conftest import TinyRun
from tests.faults import refused
from tests.graphs import a_layer, a_network

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
    return a_network((a_layer("only", Matrix.from_dense(weights, mask), Cuba(4096, 2048, 2)),))


@pytest.fixture(scope="module")
def result(network: Network) -> Result:
    return simulate(network, np.random.default_rng(2).integers(0, 2, (7, 4, 6)))


def test_prices_are_those_of_the_energy_package(network: Network, result: Result) -> None:
    assert result.counts.sops > 0
    counts = add_details(network, result.counts)
    names = tuple(name for name in device_names() if load_device(name).charges is not None)
    prices = price(network, result.counts, names)
    assert tuple(prices) == names
    for name, priced in prices.items():
        device = load_device(name)
        assert priced.device == device
        assert priced.measured == per_sample(counts, device)
        assert priced.as_ann == as_ann(counts, device)
        if device.charges == "memory":
            assert priced.by_connections is None
        else:
            assert priced.by_connections == by_connections(network.connections, device)


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_a_chip_without_energy_needs_constants(network: Network, result: Result, name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name}"):
        price(network, result.counts, [name])
    (priced,) = price(network, result.counts, [name], PriceTerms(constants={"sop": 2.0})).values()
    assert priced.measured.total == result.counts.sops * 2 / 1e12 / 7
    assert priced.measured.used == ("sop",)


def test_terms_replace_values_of_device_files(network: Network, result: Result) -> None:
    plain = price(network, result.counts, ["a100_sxm4"])["a100_sxm4"].measured.total
    terms = PriceTerms(utilisation=0.5, flops_per_mac=1)
    assert price(network, result.counts, ["a100_sxm4"], terms)["a100_sxm4"].measured.total == plain
    static = PriceTerms(step_seconds=1e-3, chips=3)
    prices = price(network, result.counts, ["loihi1_sanafe", "rolls"], static)
    assert prices["loihi1_sanafe"].measured.static == pytest.approx(0.104 * 3 * 4 * 1e-3)
    assert prices["rolls"].measured.static == 0
    assert prices["rolls"].measured.remarks == (
        "its static power is unknown, so the energy leaves it out",
    )


@pytest.mark.parametrize(
    ("terms", "device", "key", "value"),
    [
        (PriceTerms(utilisation=0.5), "rolls", "--utilisation", 0.5),
        (PriceTerms(flops_per_mac=2), "cpu_i7_4960x", "--flops-per-mac", 2),
        (PriceTerms(constants={"sop": 1.0}), "v100_paper", "--constant", {"sop": 1.0}),
        (PriceTerms(step_seconds=1.0), "rolls", "--step-seconds", 1.0),
    ],
)
def test_terms_without_effect_are_refused(
    network: Network, result: Result, terms: PriceTerms, device: str, key: str, value: object
) -> None:
    with refused(ConfigError, "conflict", key=key, value=value) as caught:
        price(network, result.counts, [device], terms)
    assert device in str(caught.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1.1e9, 1e308, math.inf, -math.inf, math.nan])
def test_an_impossible_step_is_refused(seconds: float) -> None:
    with refused(ConfigError, "range", key="--step-seconds", limit=1e9) as caught:
        PriceTerms(step_seconds=seconds)
    assert str(caught.value.faults[0].value) == str(seconds)  # nan is not equal to itself


def test_constants_are_read_from_key_and_picojoules() -> None:
    assert parse_constants(["sop=23.6", "spike = 2"]) == {"sop": 23.6, "spike": 2.0}
    for text in ("sop", "sop=", "sop=many", "==", "sop=nan", "sop=-inf", "sop=1e400"):
        with refused(ConfigError, "type", key="--constant", value=text):
            parse_constants([text])


def test_device_files_of_one_chip_are_compared(network: Network, result: Result) -> None:
    prices = price(network, result.counts, ["truenorth_best", "truenorth_paper", "rolls"])
    (priced,) = disagreements(prices)
    assert (priced.chip, priced.devices) == ("TrueNorth", ("truenorth_best", "truenorth_paper"))
    assert priced.least == prices["truenorth_best"].measured.total
    assert priced.most == prices["truenorth_paper"].measured.total
    (single,) = disagreements(price(network, result.counts, ["truenorth_measured"]))
    assert single.least < single.most  # its own sources differ


def test_the_cost_of_a_training_follows_from_its_records(tiny: TinyRun) -> None:
    from esl_lava import netfile

    net = netfile.read(tiny.net)
    inputs = np.random.default_rng(3).integers(0, 2, (5, 4, net.inputs))
    counts = simulate(net, inputs).counts
    cost = cost_of_training(tiny.model, net, counts)
    updates = json.loads((tiny.path / "updates.json").read_text())
    connections = net.connections
    # The training has 1,296 of 1,440 samples, four epochs of 13 batches, and four steps.
    assert cost.sparse.operations["forward"] == pytest.approx(connections * 1296 * 4 * 4)
    assert cost.sparse.operations["update"] == pytest.approx(12 * connections * 13 * 4)
    grown = sum(layer["grown"] for u in updates for layer in u["layers"].values())
    rewired = sum(layer["connections"] for layer in updates[0]["layers"].values())
    assert cost.sparse.operations["evolution"] == pytest.approx(rewired * len(updates) + grown)
    possible = sum(layer.possible for layer in counts.layers)
    assert cost.dense.operations["forward"] == possible * 1296 * 4 * 4
    assert cost.operations_ratio < 0.7


def test_another_network_or_damaged_updates_are_refused(
    tiny: TinyRun, network: Network, result: Result, tmp_path: Path
) -> None:
    expected = {"value": "hidden1, hidden2, readout", "limit": "only", "file": tiny.model}
    with refused(DataError, "mismatch", **expected):
        cost_of_training(tiny.model, network, result.counts)
    from esl_lava import netfile

    net = netfile.read(tiny.net)
    counts = simulate(net, np.zeros((1, 4, net.inputs), np.uint8)).counts
    model = tmp_path / "model.pt"
    model.write_bytes(tiny.model.read_bytes())
    updates = tmp_path / "updates.json"
    with refused(FileError, "not-found", file=updates):
        cost_of_training(model, net, counts)
    for text in ("{", "[1]", "{}x", '[{"layers": {"hidden1": {}}}]', '[{"layers": 3}]'):
        updates.write_text(text)
        with refused(FileError, "damaged", file=updates):
            cost_of_training(model, net, counts)


def test_the_defaults_are_those_of_the_paper_and_loihi(network: Network, result: Result) -> None:
    assert set(DEFAULT_DEVICES) <= set(device_names())
    assert {"truenorth_paper", "v100_paper"} < set(DEFAULT_DEVICES)
    prices = price(network, result.counts, DEFAULT_DEVICES)
    values = {name: as_values(priced) for name, priced in prices.items()}
    assert tuple(values) == DEFAULT_DEVICES
    sanafe = load_device("loihi1_sanafe")
    assert values["loihi1_sanafe"] == {
        "joules_per_sample": per_sample(result.counts, sanafe).total,
        "joules_span": list(per_sample(result.counts, sanafe).span or ()),
        "joules_by_connections": by_connections(network.connections, sanafe),
        "joules_as_ann": None,
        "parts": {
            part: getattr(per_sample(result.counts, sanafe), part)
            for part in ("synapses", "neurons", "spikes", "messages", "static")
        },
        "remarks": [],
        "charged": ["sop", "neuron_update", "spike"],
        "sources": {key: constant.source for key, constant in sanafe.constants.items()},
    }


def test_a_device_may_be_a_file(network: Network, result: Result, tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(CUSTOM.format(picojoules=2))
    (priced,) = price(network, result.counts, [str(path)]).values()
    assert priced.measured.total == result.counts.sops * 2 / 1e12 / 7
    with pytest.raises(UserError, match="abacus"):
        price(network, result.counts, ["abacus"])


def test_two_devices_with_one_name_are_refused(
    network: Network, result: Result, tmp_path: Path
) -> None:
    for name, picojoules in (("a.toml", 2), ("b.toml", 3)):
        (tmp_path / name).write_text(CUSTOM.format(picojoules=picojoules))
    a, b = str(tmp_path / "a.toml"), str(tmp_path / "b.toml")
    assert list(price(network, result.counts, [a, a])) == ["mine"]
    with refused(ConfigError, "conflict", key="--device", value=b) as caught:
        price(network, result.counts, [a, b])
    assert "mine" in str(caught.value)
