import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.arrays import Array
from esl_lava.errors import LimitError
from esl_lava.experiments.firing_times import exact_steps
from esl_lava.export import lower
from esl_lava.export.time_grid import (
    firing_band,
    grid_threshold,
    grid_weights,
    truncation_bound,
    unit_weights,
)
from esl_lava.models.one_spike import SingleSpikeMLP, first_spikes
from esl_lava.network import Cuba, Matrix, Network
from esl_lava.simulate import simulate
from esl_lava.simulate.result import sops_by_sample
from esl_lava.topology import describe
from esl_lava.trained import DenseWeights, OneSpikeNeuron, TrainedLayer
from tests.faults import check, refused
from tests.graphs import a_layer, a_network

HALVING = 2048
"""The decay of a current that halves in each step, so that a step lasts ln 2 time constants."""


def model(inputs: int, *weights: list[list[float]]) -> SingleSpikeMLP:
    """Return a network with these weights, (n_post, n_pre) of each layer."""
    network = SingleSpikeMLP(
        describe("-".join(str(len(w)) for w in weights[:-1]), (inputs,), len(weights[-1]))
    )
    for name, values in zip(network.topology.names, weights):
        network.get_submodule(name).weight.data = torch.tensor(values)
    return network


def lowered_once(
    network: SingleSpikeMLP, decay: float, steps: int, masks: Mapping[str, Array] | None = None
) -> Network:
    layers = []
    for spec in network.topology.layers:
        values = network.get_submodule(spec.name).weight.detach().numpy()
        weights = DenseWeights(values, (masks or {}).get(spec.name))
        layers.append(TrainedLayer(spec.name, {spec.source: weights}, OneSpikeNeuron(decay)))
    return lower(layers, steps=steps)


def test_thresholds_and_weights_by_hand() -> None:
    # With a scale of 254 / 0.5 a weight of 0.5 becomes 254; a threshold of 1, divided by
    # 1 - a = 1/2, becomes 2 * 508.
    weights = np.array([0.5, -0.25, 0.001, 0.0], np.float32)
    assert grid_threshold(weights, HALVING) == 1016
    assert grid_weights(weights, HALVING, 1016).tolist() == [254, -128, 0, 0]  # -127 to even
    # A negative weight may reach 256.
    assert grid_threshold(np.array([0.25, -0.5], np.float32), HALVING) == 1024
    assert grid_weights(np.array([-0.5], np.float32), HALVING, 1024).tolist() == [-256]
    # Tiny weights, and weights of 0, give the largest threshold.
    assert grid_threshold(np.array([1e-6], np.float32), HALVING) == (1 << 17) - 1
    assert grid_threshold(np.zeros(3, np.float32), HALVING) == (1 << 17) - 1
    assert grid_threshold(np.array([1e9], np.float32), HALVING) == 1


def test_a_neuron_fires_at_the_step_its_exact_time_falls_into() -> None:
    # Eq. 5 for a weight of 1.5: z = 1.5 / 0.5 = 3, t = ln 3 = 1.58 steps, the second step;
    # for 1.25: z = 5, t = 2.32 steps, the third; for 0.9 never.
    lowered = lowered_once(model(1, [[1.5], [1.25], [0.9]], [[1.0, 1.0, 1.0]]), 0.5, 6)
    hidden, readout = lowered.layers
    assert hidden.neuron == Cuba(
        HALVING, 0, grid_threshold(np.array([1.5], np.float32), HALVING), 5
    )
    inputs = np.zeros((2, 6, 1), np.uint8)
    inputs[0, 0] = inputs[1, 2] = 1
    spikes = simulate(lowered, inputs, record="all").spikes
    assert first_spikes(spikes["hidden1"]).tolist() == [[1, 2, 6], [3, 4, 6]]
    assert spikes["hidden1"].sum(axis=1).max() == 1
    np.testing.assert_array_equal(exact_steps(hidden, 1, inputs), first_spikes(spikes["hidden1"]))
    # The readout sums 1 (1 - 2^-n) twice: from steps 1 and 2, at the exact time
    # z = (2^(1+1) + 2^(2+1)) / (2 - 1) = 12 = 2^3.58, less its place 2: step 2.
    assert first_spikes(spikes["readout"]).tolist() == [[2], [4]]
    assert exact_steps(readout, 2, spikes["hidden1"]).tolist() == [[2], [4]]


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4095), st.sampled_from([1e-8, 0.01, 1.0, 1e6]))
def test_weights_of_the_grid_are_rounded_as_torch_does(seed: int, decay: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    weights = (scale * rng.normal(0, 1, 300)).astype(np.float32)
    threshold = grid_threshold(weights, decay)
    halves = torch.round(torch.from_numpy(weights).double() * (threshold * decay / 4096 / 2))
    expected = (2 * halves.clamp(-128, 127)).numpy().astype(np.int32)
    np.testing.assert_array_equal(grid_weights(weights, decay, threshold), expected)


@st.composite
def grids(draw: st.DrawFn) -> tuple[Network, np.ndarray]:
    """Return two layers of random weights on a random grid, and inputs of at most one spike."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.integers(1, 30)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    steps = draw(st.sampled_from([2, 5, 20, 63]))
    decay = draw(st.sampled_from([1, 40, 171, 500, 2048, 4095])) / 4096
    scale = draw(st.sampled_from([0.5, 2.0, 8.0]))
    weights = [
        (scale * rng.normal(0.5, 1.0, (n_post, n_pre)) / math.sqrt(n_pre)).tolist()
        for n_pre, n_post in itertools.pairwise(sizes)
    ]
    network = lowered_once(model(sizes[0], *weights), decay, steps)
    first = rng.integers(0, steps + 1, (4, sizes[0]))
    return network, (np.arange(steps)[:, None] == first[:, None]).astype(np.uint8)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(grids())
def test_steps_and_exact_times_lie_within_the_bound(case: tuple[Network, np.ndarray]) -> None:
    network, inputs = case
    result = simulate(network, inputs, record="all")
    arriving = inputs
    for place, layer in enumerate(network.layers, 1):
        fired = first_spikes(result.spikes[layer.name])
        earliest, latest = firing_band(layer, arriving)
        exact = exact_steps(layer, place, arriving)
        clipped = sum(result.overflows[layer.name])  # no bound covers clipping
        assert clipped or ((earliest <= fired) & (fired <= latest)).all()
        assert ((earliest <= exact) & (exact <= latest)).all()
        assert result.spikes[layer.name].sum(axis=1).max() <= 1
        arriving = result.spikes[layer.name]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(grids())
def test_no_sample_takes_more_operations_than_there_are_connections(
    case: tuple[Network, np.ndarray],
) -> None:
    network, inputs = case
    spikes = simulate(network, inputs, record="all").spikes
    assert sops_by_sample(network, inputs, spikes).max() <= network.connections


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4095), st.integers(1, 63), st.integers(0, 2**32))
def test_truncation_is_bounded(decay: int, steps: int, seed: int) -> None:
    """v of the chip is compared with v of the same current without rounding."""
    rng = np.random.default_rng(seed)
    weights = 2 * rng.integers(-127, 128, (3, 8))
    never = Cuba(decay, 0, 1 << 17, refractory=1)
    layer = a_layer("a", Matrix.from_dense(weights), never)
    inputs = (rng.random((2, steps, 8)) < 0.05).astype(np.uint8)
    simulated = simulate(a_network((layer,)), inputs, states="a").v["a"]
    u, v = np.zeros((2, 2, 3))
    bound = truncation_bound(decay, steps)
    for n in range(steps):
        u = u * (4096 - decay) / 4096 + 64 * (inputs[:, n] @ weights.T)
        v = v + u
        assert (np.abs(simulated[:, n] - v) <= bound[n] + 1e-6).all()  # for the rounding of float64


def test_the_weights_of_the_grid_are_those_of_training_rounded() -> None:
    rng = np.random.default_rng(0)
    trained = rng.normal(0, 0.2, (5, 9)).astype(np.float32)
    network = lowered_once(model(9, trained.tolist(), [[1.0] * 5]), 0.05, 40)
    step = 2 / (int(network.layers[0].neuron.threshold) * round(0.05 * 4096) / 4096)
    assert np.abs(unit_weights(network.layers[0]) - trained).max() <= step / 2 + 1e-12
    assert np.abs(network.layers[0].inputs[0].connections.dense()).max() >= 252  # type: ignore[union-attr]


def test_what_is_no_number_and_what_is_pruned_but_not_zero_is_refused() -> None:
    broken = model(2, [[math.nan, 1.0]], [[math.inf]])
    with pytest.raises(LimitError) as caught:
        lowered_once(broken, 0.5, 6)
    for fault, name in zip(caught.value.faults, ("hidden1", "readout"), strict=True):
        check(fault, "not-finite", value=1, layer=name)
    stray = {"hidden1": np.array([[True, False]])}
    with refused(LimitError, "mismatch", value=1, layer="hidden1"):
        lowered_once(model(2, [[1.0, 1.0]], [[1.0]]), 0.5, 6, stray)
