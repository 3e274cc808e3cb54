import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.counts import AddedCounts
from esl_lava.devices import load_device
from esl_lava.energy import active_updates, per_sample
from esl_lava.errors import ConfigError
from esl_lava.experiments import activity
from esl_lava.experiments import evaluate as evaluations
from esl_lava.experiments.evaluate import (
    encoding_of,
    evaluate,
    load_samples,
    measure,
    read_inputs,
)
from esl_lava.network import INPUT
from esl_lava.simulate import simulate
from esl_lava.values import as_values


@pytest.fixture(scope="module")
def run(tiny: Any) -> tuple[Any, Any, Any]:
    network = netfile.read(tiny.net)
    return network, load_samples(network, "digits", "test", 20), encoding_of(network)


@pytest.mark.parametrize("portion", [64 << 20, 4 * 64 * 4 * 7])
def test_activity_is_that_of_the_recorded_spikes(
    run: Any, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    network, data, encoding = run
    monkeypatch.setattr(evaluations, "ENCODED_BYTES", portion)
    measured = measure(network, data, encoding)
    inputs = data.spikes(encoding)
    whole = simulate(network, inputs, record="all")
    assert measured.counts.layers == whole.counts.layers
    assert measured.counts.layers == evaluate(network, data, encoding).result.counts.layers
    active = active_updates(network, inputs, whole.spikes)
    assert measured.counts.active_updates == sum(active.values())
    assert measured.spikes[INPUT].tolist() == [np.count_nonzero(inputs, axis=(0, 1)).tolist()]
    for name, spikes in whole.spikes.items():
        assert measured.spikes[name].tolist() == [spikes.sum(axis=(0, 1)).tolist()]


def test_a_mapped_network_has_the_messages_between_cores(run: Any) -> None:
    network, data, encoding = run
    measured = measure(network, data, encoding)
    mapped = activity.place(network, "loihi1", activity=measured)
    assert mapped.flow is not None
    sent = mapped.flow.traffic.sent
    assert mapped.flow.counts.messages == sum(n for name, n in sent.items() if name != INPUT)
    assert mapped.flow.counts.input_messages == sent[INPUT]
    assert mapped.flow.step_nanoseconds is not None
    assert mapped.flow.step_nanoseconds > 600
    values: Any = as_values(mapped)
    assert json.loads(json.dumps(values))["cores"] == mapped.core_map.cores
    assert values["samples"] == 20
    assert [bound["layer"] for bound in values["bounds"]] == ["hidden1", "hidden2", "readout"]
    flow = np.array(values["traffic_per_step"])
    assert flow.shape == (values["cores"] + 1, values["cores"])
    per_sample = flow.sum() * encoding.steps
    assert per_sample == pytest.approx(sum(values["messages_per_sample"].values()))


@pytest.mark.slow
def test_messages_of_a_spread_fan_in_are_counted(run: Any, tmp_path: Path) -> None:
    network, data, encoding = run
    chip = resources.files("esl_lava.hw_configs").joinpath("loihi2.toml").read_text()
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(chip.replace("input_axons]\nvalue = 16000", "input_axons]\nvalue = 12"))
    measured = measure(network, data, encoding)
    mapped = activity.place(network, narrow, activity=measured)
    flow = mapped.flow
    assert flow is not None
    spreads = {place.name: place.spread for place in mapped.core_map.layers if place.spread}
    assert "hidden1.sums" in mapped.core_map.sums
    steps = 20 * encoding.steps
    added = flow.counts.added
    assert added.neuron_updates == steps * sum(spread.neurons for spread in spreads.values())
    messages = steps * sum(spread.messages for spread in spreads.values())
    assert added.messages == messages  # each sum goes to one core
    assert added.sops == added.spikes == messages
    assert flow.counts.sops == measured.counts.sops
    assert sum(flow.traffic.sops) == measured.counts.sops + messages
    assert sum(flow.messages_per_sample.values()) * 20 == pytest.approx(flow.traffic.messages.sum())
    price = load_device("loihi1_sanafe")
    plain = activity.place(network, "loihi2", activity=measured).flow
    assert plain is not None
    assert plain.counts.added == AddedCounts()
    more = per_sample(flow.counts, price), per_sample(plain.counts, price)
    assert more[0].synapses - more[1].synapses == pytest.approx(messages / 20 * 33.6e-12)


def test_a_mapped_network_without_activity_has_only_its_cores(run: Any) -> None:
    network, *_ = run
    values: Any = as_values(activity.place(network, "loihi2", packing="netx"))
    assert "bounds" not in values
    assert values["packing"] == "netx"
    for layer in values["layers"]:
        assert layer["cores"] == len(layer["regions"])
        assert layer["format"] in layer["by_format"]
    with pytest.raises(ConfigError, match="loihi3"):
        activity.place(network, "loihi3")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)])
def test_a_file_of_spikes_gives_the_activity_of_its_samples(
    run: Any, tiny: Any, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    network, data, encoding = run
    path = tmp_path / "spikes.npy"
    np.save(path, data.spikes(encoding).reshape(len(data), encoding.steps, *shape))
    same, some, none = read_inputs(tiny.net, str(path), samples=12)
    assert none is None
    measured = measure(same, some, none)
    expected = measure(network, data.take(12), encoding)
    assert measured.counts == expected.counts
    assert {name: n.tolist() for name, n in measured.spikes.items()} == {
        name: n.tolist() for name, n in expected.spikes.items()
    }
