import json
from typing import Any

import numpy as np
import pytest

from esl_lava.counts import Counts
from esl_lava.devices import device_names, load_device, with_utilisation
from esl_lava.energy import EnergyBreakdown
from esl_lava.energy.training import TrainedLayer, TrainingSchedule, training_cost
from esl_lava.mapping import layer_bounds, map_network, step_nanoseconds, traffic
from esl_lava.network import INPUT, Input
from esl_lava.report import hardware
from esl_lava.results.mapped import Flow, MappedNetwork
from esl_lava.results.price import DeviceFacts, Disagreement, Price, device_numbers
from esl_lava.values import as_values
from tests.graphs import a_network
from tests.mapping.test_partition import chip as small
from tests.mapping.test_partition import layer, paper, random
from tests.report.test_tables import cells, text


def words(shown: str) -> str:
    return " ".join(shown.split())


@pytest.mark.parametrize("name", device_names())
def test_everything_a_file_states_is_listed_with_its_source(name: str) -> None:
    device = load_device(name)
    shown = words(text(hardware.render_device(device), 400))
    for one in device_numbers(device):
        assert words(f"{one.key} {one.value} {one.kind} {one.operating_point}") in shown
        assert words(one.source) in shown
    for note in device.notes:
        assert words(note) in shown
    facts = DeviceFacts(device)
    assert {f"energy.{key}" for key in device.constants} <= set(facts.constants)
    document = as_values(facts)
    assert json.loads(json.dumps(document)) == document


def test_values_show_how_they_came_about() -> None:
    gpu = with_utilisation(load_device("v100_pcie"), 0.1)
    (operation,) = device_numbers(gpu)
    assert operation.value == "357.143 pJ = 250 W / 1.4e+13 op/s, 2 op, 10 % of the peak"
    values = {one.key: one.value for one in device_numbers(load_device("loihi1_sanafe"))}
    assert values["energy.sop"] == "33.6 pJ (24 to 35.5)"
    assert values["static"] == "0.104 W per chip"
    assert values["time.step"] == "600 ns"
    limits = {one.key: one.value for one in device_numbers(load_device("loihi1"))}
    assert limits["capacity.synapse_words"] == "16,384"
    prices = {one.key: one.value for one in device_numbers(load_device("lemaire_int32"))}
    assert prices["memory"] == "13.2 pJ + 1.09e-05 pJ/bit per access"
    points = {one.key: one.value for one in device_numbers(load_device("lemaire_int32_piecewise"))}
    assert points["memory"].startswith("0 pJ at 0 bytes, 10 pJ at 8,192 bytes")


def test_the_overview_names_the_main_constant_or_that_there_is_none() -> None:
    devices = [load_device(name) for name in ("cpu_i7_4960x", "loihi2", "rolls")]
    lines = [cells(line) for line in text(hardware.render_overview(devices), 150).splitlines()]
    assert any(line[:1] == ["cpu_i7_4960x"] and "mac 8,600 pJ" in line for line in lines)
    assert any(line[:1] == ["loihi2"] and line[-2:] == ["nothing", "unknown"] for line in lines)
    assert any(line[:1] == ["rolls"] and "sop 0.077 pJ" in line for line in lines)


@pytest.mark.slow
def test_a_core_map_shows_cores_formats_limits_and_what_would_help() -> None:
    found = map_network(paper(1.0), load_device("loihi1"), packed="nengo-loihi")
    shown = text(hardware.render_core_map(found))
    lines = [cells(line) for line in shown.splitlines()]
    assert "7 cores, 1 of loihi1 (packing nengo-loihi)" in shown
    assert "hidden 800 627,200 627,200 100.00 % 8 6 dense synapse words" in words(shown)
    assert ["hidden", "dense", "89,376", "6", "-"] in lines
    assert ["hidden", "sparse", "156,800", "10", "52.94 %"] in lines
    assert (
        "on 5 cores the fullest core would need 18,032 synapse words of 16,384; 710 neurons or"
        in words(shown)
    )
    assert "14,896" in shown
    assert "16,384" in shown


@pytest.mark.slow
def test_a_core_map_says_how_a_fan_in_is_spread_and_what_waits() -> None:
    last = layer("b", random((4, 3), 1.0), skips=(Input(INPUT, random((4, 10), 1.0)),))
    network = a_network((layer("a", random((3, 10), 1.0)), last))
    found = map_network(network, small(input_axons=6, graded_spikes=24))
    shown = words(text(hardware.render_core_map(found), 400))
    spread = {place.name: place.spread for place in found.layers}
    assert spread["a"] is not None
    assert f"- a: {spread['a'].said} - b: " in shown
    assert "b.sums (2)" in shown
    document: Any = as_values(MappedNetwork(found))
    assert json.loads(json.dumps(document)) == document
    (a,) = [one for one in document["layers"] if one["name"] == "a"]
    assert a["spread"]["parts"] == 2
    assert a["spread"]["said"] == spread["a"].said
    assert document["remarks"] == found.remarks
    assert f"a: {spread['a'].said}" in found.remarks


def test_a_chip_of_binary_spikes_says_what_its_host_must_do_with_pixels() -> None:
    part = random((3, 10), 1.0)
    layers = (layer("a", part), layer("b", random((4, 3), 1.0)))
    pixels = a_network(layers, input_range=(-16, 15))
    (remark,) = map_network(pixels, small()).remarks
    assert "-16 to 15" in remark
    assert not map_network(pixels, small(graded_spikes=24)).remarks
    assert not map_network(a_network(layers), small()).remarks


@pytest.mark.slow
@pytest.mark.parametrize(("chip", "said"), [("loihi1", "at least"), ("loihi2", "is unknown")])
def test_bounds_are_shown_where_times_are_known(chip: str, said: str) -> None:
    network, device = paper(0.15), load_device(chip)
    found = map_network(network, device)
    spikes = {INPUT: np.ones((1, 784), np.int64), "hidden": np.ones((1, 800), np.int64)}
    sent = traffic(found, spikes, 10)
    bounds = layer_bounds(found, sent, device, 10)
    counts = Counts(samples=1, steps=10, input_spikes=784, layers=())
    flow = Flow(counts, sent, bounds, step_nanoseconds(bounds, device))
    shown = text(hardware.render_flow(flow))
    assert said in shown
    (line,) = (line.split() for line in shown.splitlines() if line.split()[:1] == ["readout"])
    assert line[-1] == "0.0"
    assert line[-2] == (bounds[1].state or "unknown")


def test_a_training_is_shown_beside_its_dense_twin() -> None:
    layer = TrainedLayer("a", 10, 200, 200, 0.25, [0.5], moved=5)
    cost = training_cost([layer], TrainingSchedule(100, 10, 4, 2, "random"))
    shown = text(hardware.render_training(cost))
    lines = [cells(line) for line in shown.splitlines()]
    assert [line for line in lines if line[:1] == ["forward"]] == [
        ["forward", "4.00E+04", "1.00E+04", "8.00E+04", "5.20E+04", "5.20E+04"]
    ]
    document = as_values(cost)
    assert document["operations_ratio"] == cost.operations_ratio
    assert json.loads(json.dumps(document)) == document


def test_parts_spans_and_remarks_of_energies() -> None:
    found = EnergyBreakdown(
        *("chip", 1e-6, 2e-6, 0.0, ("sop",)), span=(1e-6, 4e-6), remarks=("mind this",)
    )
    priced = Price(load_device("rolls"), found, 1e-6, None)
    shown = text(hardware.render_parts({"chip": priced}))
    # A part without a charge has no column.
    lines = [cells(line) for line in shown.splitlines()]
    assert ["device", "synapses", "neurons", "least", "most"] in lines
    assert ["chip", "1.00E-06", "2.00E-06", "1.00E-06", "4.00E-06"] in lines
    assert "- chip: mind this" in shown
    plain = EnergyBreakdown(*("gpu", 3e-6, 0.0, 0.0, ("operation",)))
    both = {"chip": priced, "gpu": Price(load_device("rolls"), plain, 1e-6, 5e-6)}
    lines = [cells(line) for line in text(hardware.render_parts(both)).splitlines()]
    assert ["device", "synapses", "neurons", "least", "most", "as an ANN"] in lines
    assert ["chip", "1.00E-06", "2.00E-06", "1.00E-06", "4.00E-06", "-"] in lines
    assert ["gpu", "3.00E-06", "-", "-", "-", "5.00E-06"] in lines
    said = hardware.render_disagreement(Disagreement("Loihi 1", ("a", "b"), 1e-6, 2e-6))
    assert all(part in str(said) for part in ("Loihi 1", "1.00E-06 to 2.00E-06 J", "a, b"))
