"""The exact simulator against its own equations, written again in plain Python integers."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.network import INTEGRATOR, NEVER, Connections, Cuba, Layer, Network
from esl_lava.simulate import exact, simulate
from esl_lava.simulate.result import count

SEVERAL = settings(max_examples=100, deadline=None)
INT32 = np.iinfo(np.int32)


def trunc(x: int) -> int:
    return (abs(x) >> 12) * (1 if x >= 0 else -1)


def reference_neuron(neuron: Cuba, bias: int, arriving: list[int]) -> tuple:
    """Spikes, v after each step, wraps and clips of one neuron given its summed weights."""
    u = v = wraps = clips = 0
    spikes, voltages = [], []
    for a in arriving:
        u = trunc(u * (4096 - neuron.current_decay)) + a * 64
        if u > 2**23:
            u, wraps = u - 2**24, wraps + 1
        elif u <= -(2**23):
            u, wraps = u + 2**24, wraps + 1
        v = trunc(v * (4096 - neuron.voltage_decay)) + u + bias * 64
        if abs(v) > 2**23 - 1:
            v, clips = (2**23 - 1 if v > 0 else 1 - 2**23), clips + 1
        spikes.append(int(v > neuron.threshold * 64))
        if spikes[-1]:
            v = 0
        voltages.append(v)
    return spikes, voltages, wraps, clips


def reference(network: Network, inputs: np.ndarray) -> tuple[dict, dict, dict, dict]:
    """Spikes, voltages, (wraps, clips) and synaptic operations of each layer, by name."""
    spikes, voltages, overflows, sops = {}, {}, {}, {}
    arriving = inputs.tolist()
    for layer in network.layers:
        weights = layer.connections.dense().tolist()
        bias = [0] * layer.neurons if layer.bias is None else layer.bias.tolist()
        emitted, voltage = [], []
        wraps = clips = operations = 0
        for sample in arriving:
            neurons = []
            for j in range(layer.neurons):
                sums = [sum(w for w, s in zip(weights[j], step) if s) for step in sample]
                neurons.append(reference_neuron(layer.neuron, bias[j], sums))
                wraps += neurons[-1][2]
                clips += neurons[-1][3]
                operations += sum(w != 0 for step in sample for w, s in zip(weights[j], step) if s)
            emitted.append([list(step) for step in zip(*(n[0] for n in neurons))])
            voltage.append([list(step) for step in zip(*(n[1] for n in neurons))])
        spikes[layer.name], voltages[layer.name] = np.array(emitted), np.array(voltage)
        overflows[layer.name], sops[layer.name] = (wraps, clips), operations
        arriving = emitted
    return spikes, voltages, overflows, sops


def check_against_reference(network: Network, inputs: np.ndarray) -> None:
    result = simulate(network, inputs, record="all")
    spikes, voltages, overflows, sops = reference(network, inputs)
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    assert list(result.spikes) == firing
    for name in firing:
        assert result.spikes[name].dtype == np.uint8
        np.testing.assert_array_equal(result.spikes[name], spikes[name])
    last = network.layers[-1].name
    if network.readout is None:
        assert result.readout is None
        score = spikes[last].sum(axis=1)
    else:
        assert result.readout is not None
        assert result.readout.dtype == np.int32
        np.testing.assert_array_equal(result.readout, voltages[last])
        score = voltages[last][:, -1]
    assert result.decisions.tolist() == [row.tolist().index(row.max()) for row in score]
    assert result.overflows == overflows
    assert {layer.name: layer.sops for layer in result.counts.layers} == sops
    assert result.counts == count(network, inputs, result.spikes)


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
    neuron = Cuba(draw(DECAYS), draw(DECAYS), draw(THRESHOLDS) if fires else NEVER)
    bias = draw(st.none() | hnp.arrays(np.int32, n_post, elements=BIASES))
    return Layer(name, Connections.from_dense(np.where(mask, weights, 0), mask), neuron, bias)


@st.composite
def networks(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    last = len(sizes) - 2
    firing = draw(st.booleans())
    return Network(
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


@SEVERAL
@given(runs())
def test_equals_the_equations(run):
    check_against_reference(*run)


def single(weights, neuron: Cuba, bias=None, mask=None) -> Network:
    return Network((Layer("only", Connections.from_dense(weights, mask), neuron, bias),))


def test_u_wraps_and_v_clips_as_in_lava():
    # 8388608 = 131072 << 6 stays, one weight unit more wraps; so does -131072 << 6.
    neuron = Cuba(4096, 4096, NEVER)
    network = single([[131072], [131073], [-131071], [-131072], [-131073]], neuron)
    result = simulate(network, np.ones((1, 1, 1), np.uint8))
    assert result.readout is not None
    v = [2**23 - 1, 64 - 2**23, 64 - 2**23, 2**23 - 1, 2**23 - 64]
    assert result.readout[0, 0].tolist() == v
    assert result.overflows == {"only": (3, 2)}
    check_against_reference(network, np.ones((2, 5, 1), np.uint8))
    # One state unit inside the clip, and on it.
    network = single([[131071]] * 2 + [[-131071]] * 2, neuron, [0, 1, 0, -1])
    result = simulate(network, np.ones((1, 1, 1), np.uint8))
    assert result.readout is not None
    assert result.readout[0, 0].tolist() == [2**23 - 64, 2**23 - 1, 64 - 2**23, 1 - 2**23]
    assert result.overflows == {"only": (0, 2)}


def test_u_wraps_only_once():
    network = single([[INT32.max], [INT32.min]], Cuba(4096, 4096, NEVER - 1))
    result = simulate(network, np.ones((1, 3, 1), np.uint8), record="all")
    assert result.overflows == {"only": (6, 6)}
    assert result.spikes["only"][0].tolist() == [[1, 0]] * 3


@pytest.mark.parametrize("decay", [0, 4096])
def test_extreme_weights_for_many_steps_do_not_overflow_the_kernel(decay):
    weights = np.full((2, 6), INT32.max)
    weights[1] = INT32.min
    network = single(weights, Cuba(decay, 0, 1000), [INT32.max, INT32.min])
    check_against_reference(network, np.ones((1, 60, 6), np.uint8))


def test_extreme_biases_do_not_overflow():
    network = single([[2], [2]], Cuba(4096, 4096, NEVER), [1 << 26, INT32.min])
    check_against_reference(network, np.zeros((1, 2, 1), np.uint8))


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
    network = Network(
        (
            Layer("sparse", Connections.from_dense(weights, weights != 0), Cuba(4096, 0, 3)),
            Layer(
                "none", Connections.from_dense(np.zeros((2, 3), int), np.zeros((2, 3))), INTEGRATOR
            ),
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


def larger() -> tuple[Network, np.ndarray]:
    rng = np.random.default_rng(5)

    def connections(n_post: int, n_pre: int, density: float) -> Connections:
        mask = rng.random((n_post, n_pre)) < density
        return Connections.from_dense(
            np.where(mask, 2 * rng.integers(-60, 64, mask.shape), 0), mask
        )

    network = Network(
        (
            Layer("a", connections(50, 40, 0.3), Cuba(1000, 200, 90), rng.integers(-20, 25, 50)),
            Layer("b", connections(30, 50, 0.2), Cuba(4096, 2048, 64)),
            Layer("c", connections(10, 30, 1.0), INTEGRATOR),
        )
    )
    return network, (rng.random((23, 9, 40)) < 0.3).astype(np.uint8)


def assert_same(one, other) -> None:
    assert list(one.spikes) == list(other.spikes)
    for name, spikes in one.spikes.items():
        np.testing.assert_array_equal(spikes, other.spikes[name])
    np.testing.assert_array_equal(one.readout, other.readout)
    np.testing.assert_array_equal(one.decisions, other.decisions)
    assert one.counts == other.counts
    assert one.overflows == other.overflows


def test_a_larger_network_equals_the_equations():
    network, inputs = larger()
    check_against_reference(network, inputs)
    assert all(layer.spikes > 100 for layer in simulate(network, inputs).counts.layers[:2])


# Chunks of 1 sample, and of 4: 50 neurons are the widest layer, 23 samples leave a rest.
@pytest.mark.parametrize("chunk_bytes", [1, 4 * 8 * 9 * 50])
@pytest.mark.parametrize("firing", [False, True])
def test_chunks_change_nothing(monkeypatch, chunk_bytes, firing):
    network, inputs = larger()
    if firing:
        last = replace(network.layers[-1], neuron=Cuba(4096, 100, 70))
        network = Network((*network.layers[:-1], last))
    whole = simulate(network, inputs, record="all")
    sizes = []
    run_layer = exact.run_layer

    def noting(arriving, *args):
        sizes.append(len(arriving))
        run_layer(arriving, *args)

    monkeypatch.setattr(exact, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(exact, "run_layer", noting)
    assert_same(simulate(network, inputs, record="all"), whole)
    assert set(sizes) == ({1} if chunk_bytes == 1 else {4, 3})


def test_threads_change_nothing():
    network, inputs = larger()
    whole = simulate(network, inputs, record="all")
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert_same(simulate(network, inputs, record="all"), whole)
    finally:
        numba.set_num_threads(before)


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


def test_the_kernel_leaves_torchs_threads_alone() -> None:
    # A training after a simulation would otherwise differ in its last bits.
    script = (
        "import numpy as np, torch\n"
        "from esl_lava.network import Connections, Cuba, Layer, Network\n"
        "from esl_lava.simulate import simulate\n"
        "layer = Layer('a', Connections.from_dense(np.array([[2, -4]])), Cuba(4096, 0, 1))\n"
        "simulate(Network((layer,)), np.ones((2, 4, 2), np.uint8))\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_simulations_in_several_threads_do_not_meet() -> None:
    rng = np.random.default_rng(5)
    layer = Layer(
        "a", Connections.from_dense(2 * rng.integers(-60, 60, (30, 20))), Cuba(4096, 0, 9)
    )
    network = Network((layer,))
    inputs = (rng.random((50, 6, 20)) < 0.3).astype(np.uint8)
    expected = simulate(network, inputs, record="all").spikes["a"]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: simulate(network, inputs, record="all"), range(20)))
    for result in results:
        np.testing.assert_array_equal(result.spikes["a"], expected)
