"""Spike counts of neurons, checked by hand and against recorded spikes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

from esl_lava.network import INTEGRATOR, Convolution, Cuba, Injection, Matrix, Network
from esl_lava.results.firing import LayerFiring, firing_of, layer_firing, remarks
from esl_lava.simulate import simulate
from esl_lava.values import as_values
from tests.graphs import a_layer, a_network
from tests.simulate.networks import Case, cases


def three(pause: int = 0) -> Network:
    """Return a layer of three neurons: silent, always firing, and following the input."""
    layer = a_layer(
        "three", Matrix.from_dense([[-2], [2], [20]]), Cuba(4096, 4096, 10, pause), [0, 40, 0]
    )
    return a_network((layer, a_layer("sum", Matrix.from_dense([[2, 2, 2]]), INTEGRATOR)))


INPUTS = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.uint8)[:, :, None]


def test_three_neurons_by_hand() -> None:
    result = simulate(three(), INPUTS)
    assert {name: fired.tolist() for name, fired in result.fired.items()} == {"three": [0, 8, 4]}
    (found,) = firing_of(three(), result)  # the readout does not fire and has no entry
    assert found == LayerFiring("three", 3, 2, 4, spikes=12, largest=8, silent=1, saturated=1)
    assert json.loads(json.dumps(as_values(found))) == {
        "layer": "three",
        "neurons": 3,
        "silent": 1,
        "saturated": 1,
        "rate": 12 / (3 * 2 * 4),
        "largest_rate": 1.0,
        "spikes_per_sample": 6.0,
    }


@pytest.mark.parametrize(
    ("pause", "fired", "saturated"),
    [
        (1, [0, 4, 3], 1),  # at steps 1 and 3, as often as possible
        (2, [0, 4, 3], 1),  # at steps 1 and 4
        (3, [0, 2, 2], None),  # it can fire only once in a sample
        (9, [0, 2, 2], None),
    ],
)
def test_neurons_that_pause(pause: int, fired: list[int], saturated: int | None) -> None:
    result = simulate(three(pause), INPUTS)
    assert result.fired["three"].tolist() == fired
    (found,) = firing_of(three(pause), result)
    assert (found.silent, found.saturated) == (1, saturated)
    assert as_values(found)["saturated"] == saturated  # the key exists even if the value is None


def test_saturation_in_a_single_step_needs_no_refractory_period() -> None:
    fired = np.array([0, 2])
    assert layer_firing("a", fired, 2, 1).saturated == 1
    assert layer_firing("a", fired, 2, 1, refractory=1).saturated is None


def test_counts_above_255_are_exact() -> None:
    """A count is larger than a byte can hold, within one sample and over several."""
    inputs = np.zeros((3, 300, 1), np.uint8)
    inputs[1, 5:] = 1
    inputs[2] = 1
    assert simulate(three(), inputs).fired["three"].tolist() == [0, 900, 595]
    assert simulate(three(), inputs[:1, :255]).fired["three"].tolist() == [0, 255, 0]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cases())
def test_equal_to_recorded_spikes(case: Case) -> None:
    network = case.network
    spikes = simulate(network, case.inputs, record="all").spikes
    result = simulate(network, case.inputs)  # nothing is recorded
    found = firing_of(network, result)
    assert [one.layer for one in found] == list(spikes) == list(result.fired)
    for one in found:
        own = spikes[one.layer]
        (layer,) = (layer for layer in network.layers if layer.name == one.layer)
        samples, steps, neurons = own.shape
        most = len(range(0, steps, layer.neuron.refractory + 1))
        assert (one.neurons, one.samples, one.steps) == (neurons, samples, steps)
        assert one.spikes == own.sum(dtype=int)
        assert one.silent == sum(not own[:, :, n].any() for n in range(neurons))
        if layer.neuron.refractory and most == 1:
            assert one.saturated is None
        else:
            full = [(own[:, :, n].sum(axis=1) == most).all() for n in range(neurons)]
            assert one.saturated == sum(full)
        assert one.largest == max(int(own[:, :, n].sum()) for n in range(neurons))
        assert one.rate == own.sum(dtype=int) / own.size
        assert one.largest_rate == one.largest / (samples * steps)
        assert one.spikes_per_sample == own.sum(dtype=int) / samples
        if len(layer.shape) == 3:
            maps = own.reshape(samples, steps, *layer.shape)
            dark = [not maps[:, :, channel].any() for channel in range(layer.shape[0])]
            assert one.silent_maps == sum(dark)
        else:
            assert one.silent_maps is None


def kernels() -> Network:
    """Return an input block, two feature maps of 2 x 2 neurons and a layer of two neurons."""
    convolution = Convolution(np.full((2, 1, 1, 1), 2), (1, 2, 2))
    return a_network(
        (
            a_layer("in", Injection((1, 2, 2)), Cuba(4096, 4096, 5)),
            a_layer("conv", convolution, Cuba(4096, 4096, 1)),
            a_layer("full", Matrix.from_dense(np.full((2, 8), 2)), Cuba(4096, 4096, 1)),
        ),
        input_range=(0, 255),
    )


def sentences(by_layer: dict[str, list[int]]) -> list[str]:
    """Return the remarks for a run of two samples of four steps."""
    firing = [
        layer_firing(name, np.array(fired), 2, 4, maps={"in": 1, "conv": 2}.get(name, 0))
        for name, fired in by_layer.items()
    ]
    return remarks(kernels(), firing)


def test_remarks() -> None:
    assert sentences({"in": [1] * 4, "conv": [7] * 8, "full": [1, 2]}) == []
    assert sentences({"in": [0, 0, 0, 0], "conv": [0, 1, 1, 1, 1, 1, 1, 8], "full": [0, 1]}) == [
        "layer in: 100 % of its neurons never fire: their updates cost energy but have no effect",
        "layer conv: 12 % of its neurons never fire: their updates cost energy but have no effect",
        "layer conv: 12 % of its neurons fire as often as they can in every sample: their spikes "
        "cost energy but carry no information",
        "layer full: 50 % of its neurons never fire: their weights cost memory but have no effect",
    ]
    assert sentences({"conv": [0, 0, 0, 0, 0, 1, 1, 1], "full": [8, 8]}) == [
        "layer conv: 62 % of its neurons never fire, and 1 of its 2 feature maps never fire at "
        "all: the kernels of these maps cost memory but have no effect",
        "layer full: 100 % of its neurons fire as often as they can in every sample: their spikes "
        "cost energy but carry no information",
    ]


def test_a_small_share_is_not_remarked_on() -> None:
    tenth, fewer = [0] + [1] * 9, [0] + [1] * 10
    assert len(sentences({"full": tenth})) == 1
    assert sentences({"full": fewer}) == []
    assert sentences({"full": [0] * 999 + [1]})[0].startswith("layer full: 99 % of its neurons")
