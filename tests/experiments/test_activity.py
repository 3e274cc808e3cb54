import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.counts import Added
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
    found = measure(network, data, encoding)
    inputs = data.spikes(encoding)
    whole = simulate(network, inputs, record="all")
    assert found.counts.layers == whole.counts.layers
    assert found.counts.layers == evaluate(network, data, encoding).result.counts.layers
    active = active_updates(network, inputs, whole.spikes)
    assert found.counts.active_updates == sum(active.values())
    assert found.spikes[INPUT].tolist() == [np.count_nonzero(inputs, axis=(0, 1)).tolist()]
    for name, spikes in whole.spikes.items():
        assert found.spikes[name].tolist() == [spikes.sum(axis=(0, 1)).tolist()]


def test_a_placed_network_says_what_flows(run: Any) -> None:
    network, data, encoding = run
    seen = measure(network, data, encoding)
    found = activity.place(network, "loihi1", activity=seen)
    assert found.flow is not None
    sent = found.flow.traffic.sent
    assert found.flow.counts.messages == sum(n for name, n in sent.items() if name != INPUT)
    assert found.flow.counts.input_messages == sent[INPUT]
    assert found.flow.step_nanoseconds is not None
    assert found.flow.step_nanoseconds > 600
    values: Any = as_values(found)
    assert json.loads(json.dumps(values))["cores"] == found.core_map.cores
    assert values["samples"] == 20
    assert [bound["layer"] for bound in values["bounds"]] == ["hidden1", "hidden2", "readout"]
    flow = np.array(values["traffic_per_step"])
    assert flow.shape == (values["cores"] + 1, values["cores"])
    per_sample = flow.sum() * encoding.steps
    assert per_sample == pytest.approx(sum(values["messages_per_sample"].values()))


def test_what_a_spread_fan_in_sends_is_counted(run: Any, tmp_path: Path) -> None:
    network, data, encoding = run
    chip = resources.files("esl_lava.hw_configs").joinpath("loihi2.toml").read_text()
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(chip.replace("input_axons]\nvalue = 16000", "input_axons]\nvalue = 12"))
    seen = measure(network, data, encoding)
    found = activity.place(network, narrow, activity=seen)
    flow = found.flow
    assert flow is not None
    spreads = {place.name: place.spread for place in found.core_map.layers if place.spread}
    assert "hidden1.sums" in found.core_map.sums
    steps = 20 * encoding.steps
    added = flow.counts.added
    assert added.neuron_updates == steps * sum(spread.neurons for spread in spreads.values())
    messages = steps * sum(spread.messages for spread in spreads.values())
    assert added.messages == messages  # each sum goes to one core
    assert added.sops == added.spikes == messages
    assert flow.counts.sops == seen.counts.sops
    assert sum(flow.traffic.sops) == seen.counts.sops + messages
    assert sum(flow.messages_per_sample.values()) * 20 == pytest.approx(flow.traffic.messages.sum())
    price = load_device("loihi1_sanafe")
    plain = activity.place(network, "loihi2", activity=seen).flow
    assert plain is not None
    assert plain.counts.added == Added()
    more = per_sample(flow.counts, price), per_sample(plain.counts, price)
    assert more[0].synapses - more[1].synapses == pytest.approx(messages / 20 * 33.6e-12)


def test_a_placed_network_without_activity_says_where_it_lies(run: Any) -> None:
    network, *_ = run
    values: Any = as_values(activity.place(network, "loihi2", packing="netx"))
    assert "bounds" not in values
    assert values["packing"] == "netx"
    for layer in values["layers"]:
        assert layer["cores"] == len(layer["regions"])
        assert layer["format"] in layer["by_format"]
    with pytest.raises(ConfigError, match="unknown device 'loihi3'"):
        activity.place(network, "loihi3")


@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)])
def test_a_file_of_spikes_is_measured_as_its_samples_are(
    run: Any, tiny: Any, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    network, data, encoding = run
    path = tmp_path / "spikes.npy"
    np.save(path, data.spikes(encoding).reshape(len(data), encoding.steps, *shape))
    same, some, none = read_inputs(tiny.net, str(path), samples=12)
    assert none is None
    found = measure(same, some, none)
    expected = measure(network, data.take(12), encoding)
    assert found.counts == expected.counts
    assert {name: n.tolist() for name, n in found.spikes.items()} == {
        name: n.tolist() for name, n in expected.spikes.items()
    }
