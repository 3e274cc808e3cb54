"""Compare the exact simulator with its equations, written again in plain numpy."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.chip import NEVER
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Matrix,
    Network,
)
from esl_lava.simulate import exact, simulate, synapses
from esl_lava.simulate.result import count
from esl_lava.simulate.synapses import Synapses
from tests.graphs import a_layer, a_network
from tests.simulate import reference
from tests.simulate.networks import cases

SEVERAL = settings(max_examples=100, deadline=None)
INT32 = np.iinfo(np.int32)


def check_against_reference(network: Network, inputs: np.ndarray) -> None:
    result = simulate(network, inputs, record="all", states="all")
    expected = reference.simulate(network, inputs)
    names = [layer.name for layer in network.layers]
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    assert list(result.spikes) == firing
    assert list(result.u) == list(result.v) == names
    for found, wanted, dtype in (
        (result.spikes, expected.spikes, np.uint8),
        (result.u, expected.u, np.int32),
        (result.v, expected.v, np.int32),
    ):
        for name, values in found.items():
            assert values.dtype == dtype
            np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    last = network.layers[-1].name
    if network.readout is None:
        assert result.readout is None
    else:
        assert result.readout is not None
        assert result.readout.dtype == np.int32
        np.testing.assert_array_equal(result.readout, expected.v[last])
    decisions = [reference.decision(network, expected, n) for n in range(len(inputs))]
    assert result.decisions.tolist() == decisions
    assert result.overflows == expected.overflows
    assert {layer.name: layer.sops for layer in result.counts.layers} == expected.sops
    assert result.counts == count(network, inputs, result.spikes)


@pytest.mark.slow
@SEVERAL
@given(cases())
def test_equals_the_equations(case):
    check_against_reference(case.network, case.inputs)


EVEN = st.integers(-128, 127).map(lambda half: 2 * half)
WEIGHTS = st.one_of(
    EVEN,
    EVEN,
    st.just(0),
    st.integers(-(1 << 18), 1 << 18),  # one to three of these wrap u and clip v
    st.sampled_from([INT32.min, INT32.max]),
)
DECAYS = st.one_of(st.sampled_from([0, 1, 4095, 4096]), st.integers(0, 4096))
THRESHOLDS = st.one_of(st.integers(1, 300), st.sampled_from([1, NEVER - 1]))
BIASES = st.one_of(st.integers(-300, 300), st.integers(-(1 << 18), 1 << 18))


@st.composite
def layers(draw, name: str, n_pre: int, n_post: int, fires: bool):
    mask = draw(hnp.arrays(bool, (n_post, n_pre)) | st.just(np.ones((n_post, n_pre), bool)))
    weights = draw(hnp.arrays(np.int32, (n_post, n_pre), elements=WEIGHTS))
    threshold = draw(THRESHOLDS) if fires else NEVER
    neuron = Cuba(draw(DECAYS), draw(DECAYS), threshold, draw(st.sampled_from([0, 0, 1, 2, 9])))
    bias = draw(st.none() | hnp.arrays(np.int32, n_post, elements=BIASES))
    return a_layer(name, Matrix.from_dense(np.where(mask, weights, 0), mask), neuron, bias)


@st.composite
def networks(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    last = len(sizes) - 2
    firing = draw(st.booleans())
    return a_network(
        tuple(
            draw(layers(f"l{i}", n_pre, n_post, i < last or firing))
            for i, (n_pre, n_post) in enumerate(pairwise(sizes))
        )
    )


@st.composite
def runs(draw):
    network = draw(networks())
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)), network.inputs)
    return network, draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))


@pytest.mark.slow
@SEVERAL
@given(runs())
def test_equals_the_equations_where_numbers_overflow(run):
    check_against_reference(*run)


def single(weights, neuron: Cuba, bias=None, mask=None) -> Network:
    return a_network((a_layer("only", Matrix.from_dense(weights, mask), neuron, bias),))


def test_u_wraps_and_v_clips_as_in_lava():
    # 8388608 = 131072 << 6 stays, one weight unit more wraps; so does -131072 << 6.
    neuron = Cuba(4096, 4096, NEVER)
    network = single([[131072], [131073], [-131071], [-131072], [-131073]], neuron)
    result = simulate(network, np.ones((1, 1, 1), np.uint8))
    assert result.readout is not None
    v = [2**23 - 1, 64 - 2**23, 64 - 2**23, 2**23 - 1, 2**23 - 64]
    assert result.readout[0, 0].tolist() == v
    assert result.overflows == {"only": (3, 2, 0)}
    check_against_reference(network, np.ones((2, 5, 1), np.uint8))
    # One state unit inside the clip, and on it.
    network = single([[131071]] * 2 + [[-131071]] * 2, neuron, [0, 1, 0, -1])
    result = simulate(network, np.ones((1, 1, 1), np.uint8))
    assert result.readout is not None
    assert result.readout[0, 0].tolist() == [2**23 - 64, 2**23 - 1, 64 - 2**23, 1 - 2**23]
    assert result.overflows == {"only": (0, 2, 0)}


def test_u_wraps_only_once():
    network = single([[1 << 19], [-(1 << 19)]], Cuba(4096, 4096, NEVER - 1))
    result = simulate(network, np.ones((1, 3, 1), np.uint8), record="all", states="all")
    assert result.u["only"][0].tolist() == [[1 << 24, -(1 << 24)]] * 3
    assert result.overflows == {"only": (6, 6, 0)}
    assert result.spikes["only"][0].tolist() == [[1, 0]] * 3


def test_sums_beyond_32_bits_wrap_around_as_lavas():
    network = single([[INT32.max], [1 << 25]], Cuba(4096, 4096, NEVER))
    result = simulate(network, np.ones((1, 1, 1), np.uint8), states="all")
    # 2**37 - 64 is -64; 2**31 is -2**31, which then wraps u the other way.
    assert result.u["only"][0, 0].tolist() == [-64, (1 << 24) - (1 << 31)]


def test_the_sums_of_a_convolution_wrap_around_at_24_bits():
    kernel = np.array([(1 << 23) - 1, 1 << 23, (1 << 24) + 5, -(1 << 23) - 1]).reshape(4, 1, 1, 1)
    network = a_network((a_layer("only", Convolution(kernel, (1, 1, 1)), Cuba(4096, 4096, NEVER)),))
    result = simulate(network, np.ones((1, 1, 1), np.uint8), states="all")
    # They become 2**23 - 1, -2**23, 5 and 2**23 - 1; then u wraps, but only once.
    once = ((1 << 23) - 1) * 64 - (1 << 24)
    assert result.u["only"][0, 0].tolist() == [once, (1 << 24) - (1 << 29), 5 * 64, once]
    assert result.overflows["only"] == (3, 3, 3)
    check_against_reference(network, np.ones((2, 2, 1), np.uint8))


@pytest.mark.parametrize("decay", [0, 4096])
def test_extreme_weights_for_many_steps(decay):
    weights = np.full((2, 6), INT32.max)
    weights[1] = INT32.min
    network = single(weights, Cuba(decay, 0, 1000), [INT32.max, INT32.min])
    check_against_reference(network, np.ones((1, 60, 6), np.uint8))


def test_extreme_biases_do_not_overflow():
    network = single([[2], [2]], Cuba(4096, 4096, NEVER), [1 << 26, INT32.min])
    result = simulate(network, np.zeros((1, 2, 1), np.uint8))
    assert result.readout is not None
    assert result.readout[0].tolist() == [[2**23 - 1, 1 - 2**23]] * 2
    check_against_reference(network, np.zeros((1, 2, 1), np.uint8))


def test_graded_spikes():
    skip = Input(INPUT, Matrix.from_dense([[0, 1], [0, 0]]))
    main = Matrix.from_dense([[2, -4], [1, 0]])
    layer = a_layer("only", main, Cuba(4096, 4096, 10), skips=(skip,))
    network = a_network((layer,), input_range=(-7, 7))
    inputs = np.array([[[7, -3], [0, -1], [-7, 0]]])
    result = simulate(network, inputs, states="all", record="all")
    # 14 + 12 - 3 and 7; 4 - 1; -14 and -7.
    assert (result.u["only"][0] // 64).tolist() == [[23, 7], [3, 0], [-14, -7]]
    assert result.spikes["only"][0].tolist() == [[1, 0], [0, 0], [0, 0]]
    # What is not 0 is one message, whatever its size: two cross 2 + 0 synapses, two 1 + 1.
    assert result.counts.input_spikes == 4
    assert result.counts.sops == 8
    check_against_reference(network, inputs)


def test_injected_input_does_not_pass_through_u():
    layer = a_layer("only", Injection((2,)), Cuba(0, 0, 6), [1, 0], [0, 1])
    network = a_network((layer,), input_range=(0, 5))
    result = simulate(network, [[[2, 5], [3, 2], [0, 0]]], record="all", states="all")
    assert not result.u["only"].any()
    # 3, then 3 + 4 fires; the second is late by a step: 0, 5, then 5 + 2 fires.
    assert (result.v["only"][0] // 64).tolist() == [[3, 0], [0, 5], [1, 0]]
    assert result.spikes["only"][0].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert result.counts.sops == 0


def test_recurrent_spikes_arrive_a_step_later():
    layer = a_layer(
        "only",
        Matrix.from_dense([[2], [0]]),
        Cuba(4096, 4096, 1),
        recurrent=Matrix.from_dense([[0, 0], [3, -1]]),
    )
    result = simulate(a_network((layer,)), [[[1], [0], [0], [0]]], record="all", states="all")
    assert result.spikes["only"][0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert (result.u["only"][0] // 64).tolist() == [[2, 0], [0, 3], [0, -1], [0, 0]]
    assert result.counts.sops == 1 + 1 + 1


def test_delays_hold_back_what_is_fed_forward_only():
    layer = a_layer(
        "only",
        Matrix.from_dense([[1], [1], [1]]),
        Cuba(4096, 0, NEVER),
        bias=[10, 10, 10],
        delays=[0, 2, 62],
        skips=(Input(INPUT, Matrix.from_dense([[0], [100], [0]])),),
    )
    result = simulate(a_network((layer,)), [[[1], [0], [0], [0]]], states="all")
    assert result.counts.sops == 2 + 1  # what is 62 steps late never arrives
    assert (result.u["only"][0] // 64).tolist() == [[1, 100, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert (result.v["only"][0] // 64).tolist() == [
        [11, 110, 10],
        [21, 120, 20],
        [31, 131, 30],
        [41, 141, 40],
    ]


def test_neurons_of_feature_maps_are_counted_channel_by_channel():
    # A kernel of one weight: each output is its input times 2, in channel 1 times 4.
    conv = Convolution([[[[2]]], [[[4]]]], (1, 2, 3))
    network = a_network((a_layer("only", conv, Cuba(4096, 4096, NEVER)),))
    result = simulate(network, [[[1, 0, 0, 0, 1, 1]]], states="all")
    assert (result.u["only"].ravel() // 64).tolist() == [2, 0, 0, 0, 2, 2, 4, 0, 0, 0, 4, 4]
    assert result.readout is not None
    assert result.decisions.tolist() == [6]


def test_recurrent_synapses_name_neurons_of_feature_maps_channel_by_channel():
    # Two channels copy the input; the first column of channel 0 silences its second one.
    silencing = np.zeros((4, 4), int)
    silencing[1, 0] = -200
    layer = a_layer(
        "only",
        Convolution([[[[2]]], [[[2]]]], (1, 1, 2)),
        Cuba(4096, 4096, 1),
        recurrent=Matrix.from_dense(silencing),
    )
    result = simulate(a_network((layer,)), np.ones((1, 3, 1, 1, 2), int), record="all")
    assert result.spikes["only"][0].tolist() == [[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]]


def test_threshold_is_strict_and_only_v_is_reset():
    network = single([[64]], Cuba(0, 0, 64))
    result = simulate(network, np.array([[[1], [0], [0], [0]]]), record="all")
    # u stays 64: v is 64 (not above the threshold), 128 (fires), 64, 128 (fires).
    assert result.spikes["only"].ravel().tolist() == [0, 1, 0, 1]


def test_decay_rounds_toward_zero_for_both_signs():
    network = single([[1], [-1]], Cuba(1, 4096, NEVER))
    result = simulate(network, np.array([[[1], [0], [0]]]))
    assert result.readout is not None
    assert result.readout[0].tolist() == [[64, -64], [63, -63], [62, -62]]


def test_rows_and_columns_without_connections():
    weights = np.array([[0, 0, 0], [0, 4, 0], [0, 0, 0]])
    network = a_network(
        (
            a_layer("sparse", Matrix.from_dense(weights, weights != 0), Cuba(4096, 0, 3)),
            a_layer("none", Matrix.from_dense(np.zeros((2, 3), int), np.zeros((2, 3))), INTEGRATOR),
        )
    )
    inputs = np.ones((2, 3, 3), np.uint8)
    check_against_reference(network, inputs)
    counts = simulate(network, inputs).counts
    assert [layer.sops for layer in counts.layers] == [6, 0]
    assert [layer.connections for layer in counts.layers] == [1, 0]


def test_a_connection_of_weight_zero_is_no_synapse_and_costs_nothing():
    mask = np.array([[True, True, False], [True, False, False]])
    network = single([[2, 0, 0], [0, 0, 0]], INTEGRATOR, mask=mask)
    counts = simulate(network, np.ones((4, 5, 3), np.uint8)).counts
    (layer,) = counts.layers
    assert (layer.possible, layer.connections, layer.synapses) == (6, 3, 1)
    assert (counts.samples, counts.steps, counts.input_spikes) == (4, 5, 60)
    assert (layer.sops, layer.neuron_updates, layer.spikes) == (20, 40, 0)


def test_ties_go_to_the_lower_class():
    inputs = np.ones((3, 4, 1), np.uint8)
    for neuron in (INTEGRATOR, Cuba(4096, 4096, 1)):
        network = single([[2], [6], [6], [6]], neuron)
        expected = 1 if network.readout else 0  # all four fire at every step
        assert simulate(network, inputs).decisions.tolist() == [expected] * 3
    silent = single([[-2], [-2]], Cuba(4096, 4096, 1))
    assert simulate(silent, inputs).decisions.tolist() == [0] * 3


def test_the_readout_decides_by_its_last_step():
    network = single([[6, -8], [2, 2]], INTEGRATOR)
    result = simulate(network, np.array([[[1, 0], [0, 1]]]))
    assert result.readout is not None
    assert result.readout[0].tolist() == [[6 * 64, 2 * 64], [-2 * 64, 4 * 64]]
    assert result.decisions.tolist() == [1]


def test_a_pause_after_a_spike():
    """u goes on, v stays 0, so does a wrap of u; v is not clipped while it is held."""
    layer = a_layer("a", Matrix.from_dense([[100]]), Cuba(0, 0, 50, refractory=2))
    result = simulate(a_network((layer,)), np.ones((1, 7, 1), np.uint8), record="a", states="a")
    assert result.spikes["a"][0, :, 0].tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert result.u["a"][0, :, 0].tolist() == [6400 * n for n in range(1, 8)]
    assert result.v["a"].max() == 0


def test_the_first_spike_decides_and_then_the_highest_membrane():
    def decided(*rows: list[int], bias: list[int] | None = None) -> list[int]:
        """Of classes 0, 1 and 2, which inputs bring v as given, one sample a row."""
        weights = Matrix.from_dense(np.eye(3, dtype=int) * 2)
        neurons = Cuba(4096, 0, 20, refractory=3)
        network = a_network((a_layer("out", weights, neurons, bias),), input_range=(0, 255))
        steps = np.array(rows).reshape(len(rows), -1, 3)
        return simulate(network, steps // 2).decisions.tolist()

    nothing = [0, 0, 0]
    # The last fires first; 1 fires with more than 0 at one step; nobody does.
    assert decided([0, 8, 30, 90, 90, 0], [30, 32, 0, *nothing], [4, 4, 4, *nothing]) == [2, 1, -1]
    # A tie in both goes to the lower class; what v held before counts.
    assert decided([0, 30, 30, *nothing], [10, 18, 0, 20, 16, 0]) == [1, 1]
    assert decided([30, 28, 0, *nothing], bias=[0, 3, 0]) == [1]


def larger() -> tuple[Network, np.ndarray]:
    rng = np.random.default_rng(5)

    def connections(n_post: int, n_pre: int, density: float) -> Matrix:
        mask = rng.random((n_post, n_pre)) < density
        return Matrix.from_dense(np.where(mask, 2 * rng.integers(-60, 64, mask.shape), 0), mask)

    network = a_network(
        (
            a_layer("a", connections(50, 40, 0.3), Cuba(1000, 200, 90), rng.integers(-20, 25, 50)),
            a_layer("b", connections(30, 50, 0.2), Cuba(4096, 2048, 64)),
            a_layer("c", connections(10, 30, 1.0), INTEGRATOR),
        )
    )
    return network, (rng.random((23, 9, 40)) < 0.3).astype(np.uint8)


def assert_same(one, other) -> None:
    assert list(one.spikes) == list(other.spikes)
    for name, spikes in one.spikes.items():
        np.testing.assert_array_equal(spikes, other.spikes[name])
    for values, others in ((one.u, other.u), (one.v, other.v), (one.fired, other.fired)):
        assert list(values) == list(others)
        for name in values:
            np.testing.assert_array_equal(values[name], others[name])
    np.testing.assert_array_equal(one.readout, other.readout)
    np.testing.assert_array_equal(one.decisions, other.decisions)
    assert one.counts == other.counts
    assert one.overflows == other.overflows


def test_a_larger_network_equals_the_equations():
    network, inputs = larger()
    check_against_reference(network, inputs)
    assert all(layer.spikes > 100 for layer in simulate(network, inputs).counts.layers[:2])


@pytest.mark.parametrize("size", [1, 4])  # 23 samples leave a rest
@pytest.mark.parametrize("firing", [False, True])
def test_chunks_change_nothing(monkeypatch, size, firing):
    network, inputs = larger()
    if firing:
        last = replace(network.layers[-1], neuron=Cuba(4096, 100, 70))
        network = a_network((*network.layers[:-1], last))
    whole = simulate(network, inputs, record="all", states="all")
    sizes = []
    run_neurons = exact.run_neurons

    def noting(sums, *args):
        sizes.append(len(sums))
        run_neurons(sums, *args)

    monkeypatch.setattr(exact, "_chunk", lambda *_: size)
    monkeypatch.setattr(exact, "run_neurons", noting)
    assert_same(simulate(network, inputs, record="all", states="all"), whole)
    assert set(sizes) == ({1} if size == 1 else {4, 3})


def test_chunks_are_as_large_as_memory_says(monkeypatch):
    network, _ = larger()
    layers = exact.prepare(network)
    # The spikes of 90 neurons, and sums of int16 for 50, padded to 64.
    each = 7 * (90 + 2 * 64)
    monkeypatch.setattr(exact, "CHUNK_BYTES", 11 * each)
    monkeypatch.setattr(exact, "THREADS", 3)
    assert exact._chunk(layers, 100, 7) == 11
    assert exact._chunk(layers, 5, 7) == 2  # no thread is left without
    assert exact._chunk(layers, 100, 7000) == 1
    monkeypatch.setattr(exact, "CHUNK_BYTES", 0)
    assert exact._chunk(layers, 100, 7) == 3  # 16 sample-steps fill a vector


def spatial() -> tuple[Network, np.ndarray]:
    rng = np.random.default_rng(6)

    def weights(*shape: int) -> np.ndarray:
        return 2 * rng.integers(-60, 64, shape) * (rng.random(shape) < 0.6)

    conv = Convolution(weights(6, 2, 3, 4), (4, 9, 8), (2, 1), (1, 2), (2, 1), groups=2)
    second = Convolution(weights(3, 6, 2, 2), conv.out_shape)
    head = Matrix.from_dense(weights(20, second.n_post))
    skip = Input("conv", Matrix.from_dense(weights(20, conv.n_post)))
    decays = np.array([1000, 4096, 0, 300, 20, 4000])
    delays = np.arange(conv.n_post) % 4
    network = a_network(
        (
            a_layer("conv", conv, Cuba(decays, 200, decays + 1), delays=delays),
            a_layer("second", second, Cuba(4096, 2048, 64)),
            a_layer("head", head, Cuba(4096, 2048, 64), delays=np.arange(20) % 3, skips=(skip,)),
        )
    )
    return network, (rng.random((7, 9, network.inputs)) < 0.3).astype(np.uint8)


@pytest.mark.slow
def test_a_larger_network_of_maps_equals_the_equations():
    network, inputs = spatial()
    check_against_reference(network, inputs)
    assert all(layer.spikes > 100 for layer in simulate(network, inputs).counts.layers)


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("kind", list(synapses.KERNELS))
@pytest.mark.parametrize("make", [larger, spatial])
def test_every_kernel_and_width_gives_the_same(monkeypatch, kind, small, make):
    network, inputs = make()
    whole = simulate(network, inputs, record="all", states="all")
    forced = a_network(network.layers)
    monkeypatch.setattr(Synapses, "cost", lambda self, name, *_: name != kind)
    if not small:
        monkeypatch.setattr(synapses, "INT16_BOUND", 0)
    layers = exact.prepare(forced)
    kinds = {kind for layer in layers for part in layer.parts for kind in part.kinds}
    assert kind in kinds or (make, kind) == (larger, "runs")
    widths = {2} if make is larger else {2, 4}
    assert {layer.item for layer in layers} == (widths if small else {4})
    assert_same(simulate(forced, inputs, record="all", states="all"), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("density", "active", "sample_steps", "full", "maps"),
    [
        (1, 0.1, 1000, "rows", "runs"),
        (0.16, 0.3, 1000, "rows", "lanes"),
        (0.05, 0.5, 1000, "lanes", "lanes"),
        (0.05, 0.5, 1, "rows", "scattered"),
        (0.002, 0.1, 1000, "scattered", "scattered"),
    ],
)
def test_the_kernel_is_chosen_by_what_it_costs(density, active, sample_steps, full, maps):
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return 2 * rng.integers(1, 60, shape) * (rng.random(shape) < density)

    for connections, expected in (
        (Matrix.from_dense(weights(800, 784)), full),
        (Convolution(weights(64, 64, 3, 3), (64, 20, 20)), maps),
    ):
        chosen = Synapses(connections, None)
        spikes = active * connections.n_pre
        size = 2 if chosen.exact16 else 4
        cost = {kind: chosen.cost(kind, size, spikes, sample_steps) for kind in chosen.kinds()}
        assert min(cost, key=lambda kind: cost[kind]) == expected


def test_int16_is_used_only_where_no_sum_can_leave_it():
    for weights, small, unit in (
        ([[32767]], True, 1),
        ([[32767, -1]], False, 1),
        ([[65534]], True, 2),
        ([[65532, 4]], False, 2),
    ):
        chosen = Synapses(Matrix.from_dense(weights), None)
        assert (chosen.exact16, chosen.unit) == (small, unit)
        ones = np.ones((1, 2, len(weights[0])), np.uint8)
        check_against_reference(single(weights, Cuba(4096, 0, NEVER)), ones)


@pytest.mark.slow
def test_what_is_prepared_goes_with_the_network():
    network, inputs = larger()
    simulate(network, inputs)
    first = exact.prepare(network)
    simulate(network, inputs)
    assert exact.prepare(network) is first
    gone = weakref.ref(first[0])
    del network, first
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(monkeypatch, threads):
    network, inputs = larger()
    whole = simulate(network, inputs, record="all", states="all")
    seen = set()
    together = threading.Barrier(threads)

    def noting(*args):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            together.wait()  # or one thread could do the work of all
        return run_neurons(*args)

    run_neurons = exact.run_neurons
    monkeypatch.setattr(exact, "run_neurons", noting)
    monkeypatch.setattr(exact, "THREADS", threads)
    monkeypatch.setattr(exact, "_chunk", lambda *_: 2)
    assert_same(simulate(network, inputs, record="all", states="all"), whole)
    assert len(seen) == threads


def test_a_failure_in_one_thread_ends_the_others(monkeypatch):
    network, inputs = larger()
    started = []

    def failing(*args):
        started.append(args)
        raise MemoryError("no memory")

    monkeypatch.setattr(exact, "run_neurons", failing)
    monkeypatch.setattr(exact, "THREADS", 2)
    monkeypatch.setattr(exact, "_chunk", lambda *_: 1)
    with pytest.raises(MemoryError, match="no memory"):
        simulate(network, inputs)
    assert len(started) < len(inputs)


def test_samples_do_not_know_of_each_other():
    network, inputs = larger()
    whole = simulate(network, inputs, record="all")
    for k in (0, 7, 22):
        alone = simulate(network, inputs[k : k + 1], record="all")
        np.testing.assert_array_equal(alone.spikes["b"][0], whole.spikes["b"][k])
        np.testing.assert_array_equal(alone.readout[0], whole.readout[k])


def test_only_what_is_asked_for_is_recorded_and_nothing_else_changes():
    network, inputs = larger()
    whole = simulate(network, inputs, record="all")
    for record, kept in ((None, []), ("b", ["b"]), (("b",), ["b"]), (["b", "a"], ["a", "b"])):
        some = simulate(network, inputs, record=record)
        assert sorted(some.spikes) == kept
        for name in kept:
            np.testing.assert_array_equal(some.spikes[name], whole.spikes[name])
        assert_same(replace(some, spikes=whole.spikes), whole)


def test_the_input_is_neither_changed_nor_needed_writable():
    network, inputs = larger()
    before = inputs.copy()
    writable = simulate(network, inputs, record="all")
    inputs.flags.writeable = False
    assert_same(simulate(network, inputs, record="all"), writable)
    np.testing.assert_array_equal(inputs, before)


@pytest.mark.slow
def test_the_kernel_leaves_torchs_threads_alone() -> None:
    # A training after a simulation would otherwise differ in its last bits.
    script = (
        "import numpy as np, torch\n"
        "from esl_lava.network import Cuba, Input, Layer, Matrix, Network\n"
        "from esl_lava.simulate import simulate\n"
        "one = Input('input', Matrix.from_dense(np.array([[2, -4]])))\n"
        "simulate(Network((Layer('a', (one,), Cuba(4096, 0, 1)),)), np.ones((2, 4, 2), np.uint8))\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_simulations_in_several_threads_do_not_meet() -> None:
    rng = np.random.default_rng(5)
    layer = a_layer("a", Matrix.from_dense(2 * rng.integers(-60, 60, (30, 20))), Cuba(4096, 0, 9))
    network = a_network((layer,))
    inputs = (rng.random((50, 6, 20)) < 0.3).astype(np.uint8)
    expected = simulate(network, inputs, record="all").spikes["a"]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: simulate(network, inputs, record="all"), range(20)))
    for result in results:
        np.testing.assert_array_equal(result.spikes["a"], expected)
