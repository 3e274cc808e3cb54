import pytest

from esl_lava.counts import Counts, LayerCounts
from esl_lava.devices import Device, load_device
from esl_lava.energy import EnergyBreakdown, by_connections, per_sample
from esl_lava.errors import ConfigError, DataError

# 3-4-2 for two samples of five steps. The device constants below are small integers and
# the samples a power of two, so that hand-computed joules are exact.
COUNTS = Counts(
    samples=2,
    steps=5,
    input_spikes=1000,
    layers=(
        LayerCounts("hidden", 4, 12, 6, 5, sops=14, neuron_updates=40, spikes=10),
        LayerCounts("readout", 2, 8, 8, 8, sops=16, neuron_updates=20, spikes=0),
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
    message = rf"device poor states no constant energy\.{unknown}"
    with pytest.raises(ConfigError, match=message):
        per_sample(COUNTS, poor)
    with pytest.raises(ConfigError, match=message):
        by_connections(10, poor)


def test_counts_of_no_sample_refuse() -> None:
    with pytest.raises(DataError, match="at least 1 sample, not 0"):
        per_sample(Counts(0, 5, 0, ()), load_device("truenorth_measured"))
