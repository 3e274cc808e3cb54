from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esl_lava import modelfile, netfile
from esl_lava.experiments import export
from esl_lava.experiments.evaluate import encoding_of, load_samples
from esl_lava.experiments.firing_times import compare
from esl_lava.experiments.verify import verify
from esl_lava.models.reference import TimeReference
from esl_lava.models.restore import restore
from esl_lava.network import Network
from esl_lava.simulate import simulate
from tests.graphs import matrix, with_first

pytestmark = pytest.mark.slow


def changed(network: Network, layer: int, factor: int) -> Network:
    """Return the network with another threshold in one layer."""
    layers = list(network.layers)
    neuron = layers[layer].neuron
    threshold = int(neuron.threshold) * factor // 100
    layers[layer] = replace(layers[layer], neuron=replace(neuron, threshold=threshold))
    return replace(network, layers=tuple(layers))


Case = tuple[TimeReference, Network, np.ndarray]


@pytest.fixture
def case(tiny_once: Any) -> Case:
    """The firing times of training, the integer network of the model, and spikes of samples."""
    network = netfile.read(tiny_once.net)
    data = load_samples(network, "digits", "test", 40)
    model = restore(modelfile.read(tiny_once.model))
    spikes = data.spikes(encoding_of(network))
    trained = model.reference(spikes, network)
    assert isinstance(trained, TimeReference)
    return trained, network, spikes


def test_chip_and_training_agree_within_the_bound(
    case: Case,
) -> None:
    reference, network, spikes = case
    comparison = compare(reference, network, spikes, simulate(network, spikes, record="all").spikes)
    assert (comparison.outside, comparison.first) == (0, None)
    assert [layer.layer for layer in comparison.layers] == ["hidden1", "hidden2", "readout"]
    for layer in comparison.layers:
        assert layer.fired > 100
        assert layer.furthest <= 1
        assert layer.moved < 0.1 * layer.fired
        assert layer.drift < 1.5


def test_a_difference_beyond_truncation_is_named(
    case: Case,
) -> None:
    reference, network, spikes = case
    layers = simulate(changed(network, 1, 120), spikes, record="all").spikes
    comparison = compare(reference, network, spikes, layers)
    assert comparison.outside > 0
    assert comparison.first is not None
    assert comparison.first.layer == "hidden2"
    assert not comparison.first.earliest <= comparison.first.found <= comparison.first.latest
    assert comparison.first.earliest <= comparison.first.exact <= comparison.first.latest
    for part in (
        "layer hidden2",
        f"neuron {comparison.first.neuron}",
        f"step {comparison.first.found}",
    ):
        assert part in str(comparison.first)


@pytest.mark.slow
def test_verify_proves_it_on_every_backend(tiny_once: Any) -> None:
    comparison = verify(tiny_once.model, tiny_once.net, samples=6)
    assert comparison.differences == {"training": 0, "lava-models": 0, "lava": 0}
    assert (comparison.total, comparison.first, comparison.reference) == (0, None, "training")
    assert comparison.spikes > 100
    assert len(comparison.times) == 3


@pytest.mark.slow
def test_verify_finds_another_weight(tiny_once: Any, tmp_path: Any) -> None:
    network = netfile.read(tiny_once.net)
    layer = network.layers[0]
    weights = matrix(layer).weights.copy()
    weights[weights > 100] -= 60  # neurons with smaller weights fire later
    connections = replace(matrix(layer), weights=weights)
    slower = with_first(layer, connections=connections)
    other = replace(network, layers=(slower, *network.layers[1:]))
    netfile.write(other, tmp_path / "net.h5")
    comparison = verify(tiny_once.model, tmp_path / "net.h5", samples=6, backends=("exact",))
    different = int((weights != matrix(layer).weights).sum())
    assert comparison.integers.total == different
    assert comparison.sentences()[0].endswith(f"({different} such differences)")
    # Neurons also fire at other times than those of the model.
    assert comparison.differences["training"] > 0


def test_a_sample_too_long_for_loihi_1_is_a_warning(
    tiny_once: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(export, "LOIHI1_REFRACTORY", 19)
    network = export.lower_model(tiny_once.model)
    assert {layer.neuron.refractory for layer in network.layers} == {20}
    assert "20 steps, but Loihi 1 supports only 19" in caplog.text
