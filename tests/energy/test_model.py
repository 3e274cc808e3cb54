from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esl_lava.counts import AddedCounts, Counts, LayerCounts, LayerDetail
from esl_lava.devices import Device, load_device, with_constants
from esl_lava.energy import EnergyBreakdown, as_ann, by_connections, per_sample
from esl_lava.errors import ConfigError, DataError
from esl_lava.network import INTEGRATOR, Convolution, Cuba, Matrix, Network
from esl_lava.simulate import simulate
from tests.faults import refused
from tests.graphs import a_layer, a_network

# 3-4-2 for two samples of five steps. The device constants below are small integers and
# the samples a power of two, so that hand-computed joules are exact.
COUNTS = Counts(
    samples=2,
    steps=5,
    input_spikes=1000,
    layers=(
        LayerCounts("hidden", 4, 12, 6, 12, 6, 5, sops=14, neuron_updates=40, spikes=10),
        LayerCounts("readout", 2, 8, 8, 8, 8, 8, sops=16, neuron_updates=20, spikes=0),
    ),
)


def device(**energy: object) -> Device:
    charges = "dense" if "operation" in energy else "events"
    return Device.model_validate(
        {"name": "mine", "title": "t", "maker": "m", "charges": charges, "energy": energy}
    )


def pj(value: float) -> dict[str, object]:
    return {
        "value": value,
        "unit": "pJ",
        "kind": "measured",
        "operating_point": "1 V",
        "source": "s",
    }


def peak(ops_per_connection: int) -> dict[str, object]:
    return {
        "watts": 3.0,
        "peak_ops_per_second": 1e12,
        "ops_per_connection": ops_per_connection,
        "kind": "peak",
        "operating_point": "peak",
        "source": "s",
    }


def test_events_are_charged_where_the_device_knows_their_constant() -> None:
    full = device(sop=pj(2), neuron_update=pj(3), spike=pj(7))
    assert per_sample(COUNTS, full) == EnergyBreakdown(
        device="mine",
        synapses=30e-12,  # 30 SOPs x 2 pJ / 2 samples
        neurons=90e-12,  # 60 updates x 3 pJ / 2 samples
        spikes=35e-12,  # 10 spikes x 7 pJ / 2 samples; the 1000 input spikes are not charged
        used=("sop", "neuron_update", "spike"),
    )


def test_the_total_is_the_sum_of_the_parts() -> None:
    assert EnergyBreakdown("mine", 1.0, 2.0, 4.0, ()).total == 7.0


def test_a_whole_chip_constant_is_charged_alone() -> None:
    energy = per_sample(COUNTS, device(sop=pj(2)))
    assert energy == EnergyBreakdown("mine", 30e-12, 0.0, 0.0, ("sop",))


def test_a_dense_machine_pays_for_every_possible_connection_at_every_step() -> None:
    # 20 possible connections x 5 steps x 1 or 2 operations x 3 pJ
    once = per_sample(COUNTS, device(operation=peak(1)))
    assert once == EnergyBreakdown("mine", 300e-12, 0.0, 0.0, ("operation",))
    assert per_sample(COUNTS, device(operation=peak(2))).total == 600e-12


def test_a_bundled_chip_by_hand() -> None:
    energy = per_sample(COUNTS, load_device("loihi1_davies2018"))
    assert energy.synapses == 30 * 23.6 / 1e12 / 2
    assert energy.neurons == 60 * 81 / 1e12 / 2
    assert energy.spikes == 10 * 1.7 / 1e12 / 2


def test_by_connections_charges_each_connection_once() -> None:
    assert by_connections(500, device(sop=pj(2), neuron_update=pj(3))) == 1e-9
    assert by_connections(1000, device(operation=peak(1))) == 3e-9
    assert by_connections(1000, device(operation=peak(2))) == 6e-9


@pytest.mark.parametrize(
    ("charges", "energy", "unknown"),
    [("events", {"spike": pj(1)}, "sop"), ("events", {}, "sop"), ("dense", {}, "operation")],
)
def test_an_unknown_constant_refuses(charges: str, energy: dict[str, object], unknown: str) -> None:
    poor = Device.model_validate(
        {"name": "poor", "title": "t", "maker": "m", "charges": charges, "energy": energy}
    )
    message = rf"poor.* energy\.{unknown}"
    with pytest.raises(ConfigError, match=message):
        per_sample(COUNTS, poor)
    with pytest.raises(ConfigError, match=message):
        by_connections(10, poor)


def test_counts_of_no_sample_refuse() -> None:
    with refused(DataError, "range", key="samples", value=0, limit=1):
        per_sample(Counts(0, 5, 0, ()), load_device("truenorth_measured"))


def with_details(counts: Counts) -> Counts:
    first = LayerDetail(3, 12, 5, 4, 1000, False, True, False, active_updates=30, messages=8)
    second = LayerDetail(4, 8, 8, 6, 10, True, False, True, active_updates=15, messages=0)
    return replace(counts, details=(first, second), input_messages=12)


def test_active_and_inactive_updates_and_messages_are_charged_where_they_were_counted() -> None:
    full = device(
        sop=pj(2), neuron_update=pj(3), neuron_update_inactive=pj(1), spike=pj(7), message=pj(5)
    )
    assert per_sample(with_details(COUNTS), full) == EnergyBreakdown(
        device="mine",
        synapses=30e-12,
        neurons=75e-12,  # 45 active x 3 pJ + 15 inactive x 1 pJ, / 2 samples
        spikes=35e-12,
        messages=50e-12,  # (8 + 12) x 5 pJ / 2 samples
        used=("sop", "neuron_update", "neuron_update_inactive", "spike", "message"),
    )


def test_what_a_mapping_adds_is_charged() -> None:
    full = device(
        sop=pj(2), neuron_update=pj(3), neuron_update_inactive=pj(1), spike=pj(7), message=pj(5)
    )
    counts = replace(with_details(COUNTS), added=AddedCounts(4, 6, 8, 10))
    more, plain = per_sample(counts, full), per_sample(with_details(COUNTS), full)
    parts = ("synapses", "neurons", "spikes", "messages")
    # 4 x 2, 6 active x 3, 8 x 7 and 10 x 5 pJ in two samples.
    assert [getattr(more, part) - getattr(plain, part) for part in parts] == pytest.approx(
        [4e-12, 9e-12, 28e-12, 25e-12]
    )
    # Without details messages are not charged, theirs neither.
    assert per_sample(replace(COUNTS, added=AddedCounts(messages=9)), full) == per_sample(
        COUNTS, full
    )


def test_uncounted_updates_may_all_have_been_inactive() -> None:
    found = per_sample(COUNTS, device(sop=pj(2), neuron_update=pj(3), neuron_update_inactive=pj(1)))
    assert found.used == ("sop", "neuron_update")
    assert found.neurons == 90e-12
    assert found.span == pytest.approx((60e-12, 120e-12))


def test_a_span_is_of_the_sources() -> None:
    found = per_sample(COUNTS, device(sop={**pj(2), "low": 1.0, "high": 4.0}, spike=pj(8)))
    assert found.total == pytest.approx(70e-12)
    assert found.span == pytest.approx((55e-12, 100e-12))


def test_static_power_is_charged_for_a_time_that_is_named() -> None:
    stated = {**STATIC, "per": "core"}
    chip = Device.model_validate({**device(sop=pj(2)).model_dump(), "static": stated})
    assert per_sample(COUNTS, chip).static == 0.0
    found = per_sample(COUNTS, chip, seconds=0.5, cores=3, chips=7)
    assert found.static == 0.25 * 0.5 * 3
    assert found.total == 30e-12 + 0.375
    ranged = device(sop={**pj(2), "high": 4.0}).model_dump()
    whole = Device.model_validate({**ranged, "static": {**STATIC, "per": "chip"}})
    found = per_sample(COUNTS, whole, seconds=2.0, chips=2)
    assert found.span == (1.0 + 30e-12, 1.0 + 60e-12)
    with refused(ConfigError, "unsupported", key="static", value="mine"):
        per_sample(COUNTS, device(sop=pj(2)), seconds=1.0)


def test_a_dense_machine_pays_for_a_kernel_wherever_it_slides() -> None:
    slid = replace(COUNTS.layers[1], possible_connections=20)  # a kernel of 8 positions
    counts = replace(COUNTS, layers=(COUNTS.layers[0], slid))
    # 12 + 20 connections x 5 steps x 3 pJ
    assert per_sample(counts, device(operation=peak(1))).total == 480e-12
    assert as_ann(counts, device(operation=peak(2))) == 32 * 6e-12
    assert as_ann(COUNTS, device(operation=peak(1))) == 60e-12


def slid(density: float) -> tuple[Network, np.ndarray[Any, Any]]:
    """A kernel of 2 -> 8 maps of 48 x 48 before a readout; neurons and inputs fire once."""
    rng = np.random.default_rng(1)
    kernel = 2 * rng.integers(1, 20, (8, 2, 3, 3))
    mask = rng.random(kernel.shape) < density
    conv = Convolution(kernel * mask, (2, 48, 48), padding=(1, 1), allowed=mask)
    readout = Matrix.from_dense(2 * rng.integers(1, 20, (3, conv.n_post)))
    layers = (
        a_layer("conv", conv, Cuba(4096, 0, 1, refractory=9)),
        a_layer("r", readout, INTEGRATOR),
    )
    inputs = np.zeros((2, 5, conv.n_pre), np.uint8)
    inputs[np.arange(2)[:, None], rng.integers(0, 5, (2, conv.n_pre)), np.arange(conv.n_pre)] = 1
    return a_network(layers), inputs


def test_the_paper_counts_connections_between_neurons_of_a_convolution_too() -> None:
    network, inputs = slid(1.0)
    counts = simulate(network, inputs).counts
    conv, readout = counts.layers
    # 46 x 46 neurons see nine pixels of a map, 4 x 46 at the border six, the corners four.
    assert (conv.weights, conv.connections) == (144, 8 * 2 * (46 * 46 * 9 + 4 * 46 * 6 + 4 * 4))
    assert (conv.connections, readout.connections) == (322_624, 3 * 8 * 48 * 48)
    assert network.connections == counts.possible_connections
    # Both columns speak of the same: a dense network is as expensive in either.
    multiplying = device(operation=peak(1))
    assert by_connections(network.connections, multiplying) == as_ann(counts, multiplying)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_connections_bound_the_operations_where_everything_fires_at_most_once(
    density: float,
) -> None:
    network, inputs = slid(density)
    counts = simulate(network, inputs).counts
    event = device(sop=pj(2))
    assert 0 < per_sample(counts, event).total <= by_connections(network.connections, event)
    # Every input fires once, so that each of its connections is crossed.
    assert counts.layers[0].sops == 2 * counts.layers[0].connections
    assert counts.layers[0].spikes <= 2 * counts.layers[0].neurons


def test_a_processor_pays_for_products_and_neurons() -> None:
    slow = Device.model_validate(
        {
            **{"name": "cpu", "title": "t", "maker": "m", "charges": "dense"},
            "energy": {"mac": pj(10), "neuron_update": pj(3)},
        }
    )
    found = per_sample(COUNTS, slow)
    assert (found.synapses, found.neurons) == (1e-9, 90e-12)
    assert set(found.used) == {"mac", "neuron_update"}
    assert as_ann(COUNTS, slow) == pytest.approx(20 * 10e-12)
    assert by_connections(10, slow) == 1e-10


def test_an_event_driven_chip_has_no_dense_network_unless_it_multiplies() -> None:
    assert as_ann(COUNTS, device(sop=pj(1))) is None
    assert as_ann(COUNTS, device(sop=pj(1), mac=pj(4))) == 80e-12


def test_loihi_2_refuses_joules_until_it_is_given_constants() -> None:
    chip = load_device("loihi2")
    for ask in (lambda: per_sample(COUNTS, chip), lambda: by_connections(10, chip)):
        with pytest.raises(ConfigError, match=r"loihi2.* energy\.sop"):
            ask()
    assert per_sample(COUNTS, with_constants(chip, {"sop": 2.0})).total == 30e-12


def test_memory_cannot_be_charged_without_details_nor_by_connections() -> None:
    chip = load_device("lemaire_int32")
    with refused(DataError, "missing", key="counts"):
        per_sample(COUNTS, chip)
    with refused(ConfigError, "unsupported", key="charges", value="memory"):
        by_connections(10, chip)


STATIC = {"watts": 0.25, "kind": "measured", "operating_point": "idle", "source": "s"}
