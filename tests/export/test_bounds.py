from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.chip import NEVER
from esl_lava.export import unbounded_layers
from esl_lava.export.bounds import StateBound, state_bound
from esl_lava.network import INPUT, Convolution, Cuba, Injection, Input, Layer, Matrix
from esl_lava.simulate import simulate
from tests.graphs import a_layer, a_network, matrix
from tests.netfile.networks import random_network
from tests.simulate import reference

NEURON = Cuba(4096, 2048, 64)


def fed_by(one: Layer, source: str) -> Layer:
    """Return the layer with another source of its first input."""
    first, *further = one.inputs
    return replace(one, inputs=(replace(first, source=source), *further))


def layer(weights, bias=None, neuron=NEURON, name="hidden", mask=None) -> Layer:
    return a_layer(name, Matrix.from_dense(np.array(weights), mask), neuron, bias)


def states(one: Layer, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, neurons) u and v before any reset, in unlimited range; inputs are (T, n_pre)."""
    weights = matrix(one).dense().astype(object)
    bias = np.zeros(one.neurons, int) if one.bias is None else one.bias
    u = v = np.zeros(one.neurons, object)
    all_u, all_v = [], []

    def kept(x, decay):
        product = x * (4096 - decay)
        return np.sign(product) * (abs(product) // 4096)

    for step in inputs:
        u = kept(u, one.neuron.current_decay) + (weights @ step.astype(object)) * 64
        v = kept(v, one.neuron.voltage_decay) + u + bias.astype(object) * 64
        all_u.append(u)
        all_v.append(v)
        v = np.where(v > one.neuron.threshold * 64, 0, v) if one.neuron.fires else v
    return np.array(all_u), np.array(all_v)


def inside(bound: StateBound, u: np.ndarray, v: np.ndarray) -> bool:
    return all(
        low <= values.min() and values.max() <= high
        for (low, high), values in ((bound.u, u), (bound.v, v))
    )


DECAYS = st.one_of(st.sampled_from([0, 1, 100, 4096]), st.integers(0, 4096))


USUAL = st.integers(-128, 127)
# u wraps at 2**17 << 6.
WIDE = st.one_of(st.integers(-(1 << 17) - 3, (1 << 17) + 3), st.sampled_from([-(1 << 17), 1 << 17]))


@st.composite
def layers(draw, values=USUAL):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    weights = draw(hnp.arrays(np.int32, shape, elements=values))
    biases = draw(st.none() | hnp.arrays(np.int32, shape[0], elements=values))
    threshold = draw(st.one_of(st.integers(1, 400), st.just(NEVER)))
    return layer(weights, biases, Cuba(draw(DECAYS), draw(DECAYS), threshold))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(layers(), st.data())
def test_no_input_leaves_the_bound(one, data):
    steps = data.draw(st.integers(1, 12))
    bound = state_bound(one, steps)
    inputs = hnp.arrays(
        np.uint8, (steps, one.inputs[0].connections.n_pre), elements=st.integers(0, 1)
    )
    assert inside(bound, *states(one, data.draw(inputs)))


@pytest.mark.slow
def test_no_input_of_all_short_ones_leaves_the_bound():
    # Small enough to try every input: 2 channels, 5 steps.
    every = ((np.arange(1 << 10)[:, None] >> np.arange(10)) & 1).reshape(-1, 5, 2)
    rng = np.random.default_rng(0)
    for _ in range(4):
        one = layer(
            rng.integers(-100, 101, (1, 2)),
            rng.integers(-150, 151, 1),
            Cuba(*rng.integers(0, 4097, 2), rng.integers(1, 200)),
        )
        bound = state_bound(one, 5)
        assert all(inside(bound, *states(one, inputs)) for inputs in every)


def test_a_fired_neuron_restarts_below_what_a_positive_bias_would_have_left():
    # v grows by 80, 60, 40 and 20, and the neuron fires. Then the growing current pulls v below 0.
    one = layer([[-20]], [100], Cuba(0, 0, 199))
    _, v = states(one, np.ones((12, 1), int))
    assert state_bound(one, 12).v[0] == v.min() == -560 * 64


@pytest.mark.parametrize("current_decay", [0, 1000, 4096])
@pytest.mark.parametrize("voltage_decay", [0, 77, 4096])
def test_the_worst_input_reaches_the_bound(current_decay, voltage_decay):
    one = layer([[100, -30, 7], [-90, 0, 50]], None, Cuba(current_decay, voltage_decay, NEVER))
    bound = state_bound(one, 9)
    u, v = zip(*(states(one, np.tile(worst, (9, 1))) for worst in ([1, 0, 1], [1, 1, 0])))
    u_rows, v_rows = np.array(u), np.array(v)
    # Inputs 0 and 2 give the highest input of neuron 0. Its lowest, -30, is not tested.
    assert bound.u[1] == u_rows[0, :, 0].max()
    assert bound.v[1] == v_rows[0, :, 0].max()
    assert bound.u[0] == u_rows[1, :, 1].min()
    assert bound.v[0] == v_rows[1, :, 1].min()


def test_bounds_by_hand():
    # After two steps, v is at most 64 * 10 (not above the threshold) plus 64 * 15.
    one = layer([[10, 5, -3]], None, Cuba(4096, 0, 10))
    assert state_bound(one, 1) == StateBound((-3 * 64, 15 * 64), (-3 * 64, 15 * 64))
    assert state_bound(one, 2) == StateBound((-3 * 64, 15 * 64), (-6 * 64, 25 * 64))
    assert state_bound(one, 9) == StateBound((-3 * 64, 15 * 64), (-27 * 64, 25 * 64))
    biased = layer([[10, 5, -3]], [2], Cuba(4096, 4096, 10))
    assert state_bound(biased, 5) == StateBound((-3 * 64, 15 * 64), (-64, 17 * 64))
    without = layer([[0]], None, NEURON, mask=[[False]])
    assert state_bound(without, 3) == StateBound((0, 0), (0, 0))


EDGE = 1 << 23


@pytest.mark.parametrize(
    ("u", "v", "safe"),
    [
        ((1 - EDGE, EDGE), (1 - EDGE, EDGE - 1), True),
        ((-EDGE, 0), (0, 0), False),
        ((0, EDGE + 1), (0, 0), False),
        ((0, 0), (-EDGE, 0), False),
        ((0, 0), (0, EDGE), False),
    ],
)
def test_safe_ends_where_u_wraps_and_v_clips(u, v, safe):
    assert StateBound(u, v).safe is safe


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(layers(WIDE), st.data())
def test_safe_layers_never_overflow_in_the_simulator(one, data):
    steps = data.draw(st.integers(1, 5))
    network = a_network((one,))
    inputs = hnp.arrays(np.uint8, (1, steps, network.inputs), elements=st.integers(0, 1))
    overflows = simulate(network, data.draw(inputs)).overflows
    if unbounded_layers(network, steps) == ():
        assert overflows == {"hidden": (0, 0, 0)}


@pytest.mark.slow
def test_unbounded_layers():
    strong = np.full((2, 400), 254)
    network = a_network(
        (
            layer([[254] * 10] * 400, name="small"),
            layer(strong, name="current", neuron=Cuba(2000, 4096, 64)),
            layer([[-256, 254]], name="voltage", neuron=Cuba(4096, 0, NEVER)),
        )
    )
    assert unbounded_layers(network, 1) == ()
    assert unbounded_layers(network, 2) == ("current",)
    # -256 * 64 a step: 511 steps stay above -2**23.
    assert unbounded_layers(network, 511) == ("current",)
    assert unbounded_layers(network, 512) == ("current", "voltage")


@pytest.mark.slow
def test_bounds_over_very_many_steps_do_not_overflow_themselves():
    one = layer([[254] * 100_000, [-256] * 100_000], [4095, -4096], Cuba(0, 0, NEVER))
    bound = state_bound(one, 3000)
    assert bound.v == (-(1 << 40), 1 << 40)
    assert not bound.safe


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_no_network_leaves_its_bounds(seed):
    drawn = random_network(seed)
    rng = np.random.default_rng(seed)
    low, high = ((0, 1), (-7, 7), (-4, 3), (0, 5), (-2, 0))[seed % 5]
    network = a_network(drawn.layers, None, {}, (low, high))
    inputs = rng.integers(low, high + 1, (1, 64, network.inputs))
    trace = reference.simulate(network, inputs)
    for one in network.layers:
        bound = state_bound(one, 64, network.input_range)
        if bound.safe:
            assert trace.overflows[one.name] == (0, 0, 0)
            # v is 0 where a neuron has just fired, so it may only fall short of the bound.
            assert inside(bound, trace.u[one.name], trace.v[one.name])


def test_bounds_of_convolutions_by_hand():
    kernel = [[[[1, -2]], [[4, 0]]], [[[8, 16]], [[0, -32]]]]  # two channels of sums -2..5, -32..24
    bias = np.repeat([3, -3], 4)
    one = a_layer("a", Convolution(kernel, (2, 2, 3)), Cuba(4096, [4096, 0], NEVER), bias)
    assert state_bound(one, 1) == StateBound((-32 * 64, 24 * 64), (-35 * 64, 21 * 64))
    assert state_bound(one, 2) == StateBound((-32 * 64, 24 * 64), (-70 * 64, 42 * 64))
    # Graded input of either sign, up to 3: channel 0 may sum to 7 * 3, channel 1 to 56 * 3.
    even = (-3, 3)
    graded = state_bound(one, 1, even)
    assert graded == StateBound((-168 * 64, 168 * 64), (-171 * 64, 165 * 64))
    # Pixels of -4..3: channel 1 may sum to 24 * -4 - 32 * 3 and to 24 * 3 + 32 * 4.
    pixels = state_bound(one, 1, (-4, 3))
    assert pixels == StateBound((-192 * 64, 200 * 64), (-195 * 64, 197 * 64))
    assert state_bound(one, 1, (0, 3)).u == (-96 * 64, 72 * 64)
    assert state_bound(fed_by(one, "layer0"), 1, even) == state_bound(one, 1)
    more = replace(one, inputs=(*one.inputs, Input(INPUT, one.inputs[0].connections)), bias=bias)
    assert state_bound(more, 1).u == (-64 * 64, 48 * 64)
    assert state_bound(fed_by(more, "layer0"), 1, even).u == ((-168 - 32) * 64, (168 + 24) * 64)


def test_bounds_of_recurrent_and_injected_layers_by_hand():
    recurrent = Matrix.from_dense([[0, -7], [5, 0]])
    one = a_layer("a", Matrix.from_dense([[2], [-3]]), Cuba(4096, 4096, 9), recurrent=recurrent)
    assert state_bound(one, 3) == StateBound((-7 * 64, 5 * 64), (-7 * 64, 5 * 64))
    injected = a_layer("a", Injection((2,)), Cuba(0, 4096, [9, NEVER]), bias=[0, 100])
    assert state_bound(injected, 5) == StateBound((0, 0), (0, 101 * 64))
    assert state_bound(injected, 5, (-4095, 4095)) == StateBound((0, 0), (-4095 * 64, 4195 * 64))


def test_a_neuron_that_never_fires_keeps_what_others_lose():
    weights = Matrix.from_dense([[10], [10]])
    one = a_layer("a", weights, Cuba(4096, 0, [5, NEVER]))
    assert state_bound(one, 7).v == (0, 70 * 64)


@pytest.mark.slow
def test_wide_convolutions_are_bounded_in_no_time():
    kernel = np.full((64, 64, 3, 3), 254)
    bias = np.repeat(np.arange(64), 224 * 224)
    one = a_layer("a", Convolution(kernel, (64, 226, 226)), Cuba(4096, 4096, 9), bias)
    assert state_bound(one, 1).v[1] == (64 * 9 * 254 + 63) * 64
