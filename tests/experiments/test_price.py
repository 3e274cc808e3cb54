import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from esl_lava.devices import device_names, load_device
from esl_lava.energy import as_ann, by_connections, detailed, per_sample
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


def test_prices_are_the_energy_rooms(network: Network, result: Result) -> None:
    assert result.counts.sops > 0
    counts = detailed(network, result.counts)
    names = tuple(name for name in device_names() if load_device(name).charges is not None)
    prices = price(network, result.counts, names)
    assert tuple(prices) == names
    for name, found in prices.items():
        device = load_device(name)
        assert found.device == device
        assert found.measured == per_sample(counts, device)
        assert found.as_ann == as_ann(counts, device)
        if device.charges == "memory":
            assert found.by_connections is None
        else:
            assert found.by_connections == by_connections(network.connections, device)


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_a_chip_without_energy_is_refused_until_it_is_given(
    network: Network, result: Result, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"device {name} states no constant"):
        price(network, result.counts, [name])
    (found,) = price(network, result.counts, [name], PriceTerms(constants={"sop": 2.0})).values()
    assert found.measured.total == result.counts.sops * 2 / 1e12 / 7
    assert found.measured.used == ("sop",)


def test_terms_are_the_users(network: Network, result: Result) -> None:
    plain = price(network, result.counts, ["a100_sxm4"])["a100_sxm4"].measured.total
    terms = PriceTerms(utilisation=0.5, flops_per_mac=1)
    assert price(network, result.counts, ["a100_sxm4"], terms)["a100_sxm4"].measured.total == plain
    static = PriceTerms(step_seconds=1e-3, chips=3)
    prices = price(network, result.counts, ["loihi1_sanafe", "rolls"], static)
    assert prices["loihi1_sanafe"].measured.static == pytest.approx(0.104 * 3 * 4 * 1e-3)
    assert prices["rolls"].measured.static == 0
    assert prices["rolls"].measured.remarks == ("its static power is unknown and not charged",)


@pytest.mark.parametrize(
    ("terms", "devices", "said"),
    [
        (
            PriceTerms(utilisation=0.5),
            ["rolls"],
            "--utilisation says nothing here: no device of rolls",
        ),
        (PriceTerms(flops_per_mac=2), ["cpu_i7_4960x"], "--flops-per-mac says nothing here"),
        (PriceTerms(constants={"sop": 1.0}), ["v100_paper"], "--constant says nothing here"),
        (PriceTerms(step_seconds=1.0), ["rolls"], "--step-seconds says nothing here"),
    ],
)
def test_terms_that_would_be_ignored_are_refused(
    network: Network, result: Result, terms: PriceTerms, devices: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        price(network, result.counts, devices, terms)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1.1e9, 1e308, math.inf, -math.inf, math.nan])
def test_a_step_takes_a_time_that_can_be(seconds: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"a step of {seconds} s: a step takes")):
        PriceTerms(step_seconds=seconds)


def test_constants_are_read_from_key_and_picojoules() -> None:
    assert parse_constants(["sop=23.6", "spike = 2"]) == {"sop": 23.6, "spike": 2.0}
    for text in ("sop", "sop=", "sop=many", "==", "sop=nan", "sop=-inf", "sop=1e400"):
        with pytest.raises(ConfigError, match="is not KEY=PICOJOULES"):
            parse_constants([text])


def test_files_of_one_chip_are_held_against_each_other(network: Network, result: Result) -> None:
    prices = price(network, result.counts, ["truenorth_best", "truenorth_paper", "rolls"])
    (found,) = disagreements(prices)
    assert (found.chip, found.devices) == ("TrueNorth", ("truenorth_best", "truenorth_paper"))
    assert found.least == prices["truenorth_best"].measured.total
    assert found.most == prices["truenorth_paper"].measured.total
    (alone,) = disagreements(price(network, result.counts, ["truenorth_measured"]))
    assert alone.least < alone.most


def test_the_cost_of_a_training_is_that_of_its_records(tiny: TinyRun) -> None:
    from esl_lava import netfile

    net = netfile.read(tiny.net)
    inputs = np.random.default_rng(3).integers(0, 2, (5, 4, net.inputs))
    counts = simulate(net, inputs).counts
    cost = cost_of_training(tiny.model, net, counts)
    updates = json.loads((tiny.path / "updates.json").read_text())
    connections = net.connections
    # 1,296 of 1,440 samples are trained on, four epochs of four steps, 13 batches each.
    assert cost.sparse.operations["forward"] == pytest.approx(connections * 1296 * 4 * 4)
    assert cost.sparse.operations["update"] == pytest.approx(12 * connections * 13 * 4)
    grown = sum(layer["grown"] for u in updates for layer in u["layers"].values())
    rewired = sum(layer["connections"] for layer in updates[0]["layers"].values())
    assert cost.sparse.operations["evolution"] == pytest.approx(rewired * len(updates) + grown)
    possible = sum(layer.possible for layer in counts.layers)
    assert cost.dense.operations["forward"] == possible * 1296 * 4 * 4
    assert cost.operations_ratio < 0.7


def test_a_training_of_another_network_or_a_damaged_record_is_refused(
    tiny: TinyRun, network: Network, result: Result, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"has layers .*, the network only"):
        cost_of_training(tiny.model, network, result.counts)
    from esl_lava import netfile

    net = netfile.read(tiny.net)
    counts = simulate(net, np.zeros((1, 4, net.inputs), np.uint8)).counts
    model = tmp_path / "model.pt"
    model.write_bytes(tiny.model.read_bytes())
    with pytest.raises(FileError, match=r"updates\.json: cannot be read"):
        cost_of_training(model, net, counts)
    for text in ("{", "[1]", "{}x", '[{"layers": {"hidden1": {}}}]', '[{"layers": 3}]'):
        (tmp_path / "updates.json").write_text(text)
        with pytest.raises(FileError, match="is not a record of updates of masks"):
            cost_of_training(model, net, counts)


def test_the_defaults_are_those_of_the_paper_and_loihi(network: Network, result: Result) -> None:
    assert set(DEFAULT_DEVICES) <= set(device_names())
    assert {"truenorth_paper", "v100_paper"} < set(DEFAULT_DEVICES)
    prices = price(network, result.counts, DEFAULT_DEVICES)
    values = {name: as_values(found) for name, found in prices.items()}
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
