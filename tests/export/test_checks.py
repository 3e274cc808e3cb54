import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.errors import LimitError
from esl_lava.export import check, unbounded_layers
from esl_lava.export.checks import NETX_RULES, RULES, StateBound, state_bound
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    NEVER,
    Connections,
    Convolution,
    Cuba,
    Injection,
    Layer,
    Network,
    Skip,
)
from esl_lava.simulate import simulate
from tests.netfile.networks import random_network
from tests.simulate import reference

NEURON = Cuba(4096, 2048, 64)


def layer(weights, bias=None, neuron=NEURON, name="hidden", mask=None) -> Layer:
    return Layer(name, Connections.from_dense(np.array(weights), mask), neuron, bias)


def violations(*layers: Layer) -> tuple[str, ...]:
    with pytest.raises(LimitError) as caught:
        check(Network(layers))
    assert str(caught.value) == "\n".join(caught.value.violations)
    return caught.value.violations


PASSING = {
    "whole range": ([[-256, 254]], None),
    "odd weights of both signs": ([[-255, 253, 0]], None),
    "positive only": ([[0, 1, 254]], None),
    "negative only, not a power of two": ([[-254, -2]], None),
    "negative and zero, not a power of two": ([[-100, 0]], None),
    "a single synapse": ([[0, 2], [0, 0]], None),
    "whole range of biases": ([[2], [2]], [-4096, 4095]),
    "biases of zero": ([[2], [2]], [0, 0]),
}


@pytest.mark.parametrize(("weights", "bias"), PASSING.values(), ids=PASSING)
def test_passes(weights, bias):
    check(Network((layer(weights, bias),)))


VIOLATING = {
    "has_synapses": ([[0, 0]], None, "every weight is 0, which netx cannot load"),
    "weights_fit_eight_bits": (
        [[-2, 256, 255], [-258, 600, -900]],
        None,
        "weight -900 is outside -256..254 (5 such weights)",
    ),
    "weights_survive_lava": (
        [[-32, -10], [0, -64]],
        None,
        "weight -64 (neuron 1, input 1) would count as -63 in Lava (1 such weights); "
        "a weight of each sign in the layer avoids it",
    ),
    "bias_fits_thirteen_bits": (
        [[2], [2], [2]],
        [4096, -5213, 4095],
        "bias -5213 is outside -4096..4095 (13-bit mantissa)",
    ),
}


BY_LAYER = [rule for rule in (*RULES, *NETX_RULES) if rule.__name__ in VIOLATING]


@pytest.mark.parametrize("rule", BY_LAYER, ids=lambda rule: rule.__name__)
def test_every_rule_is_violated_alone(rule):
    weights, bias, sentence = VIOLATING[rule.__name__]
    assert violations(layer(weights, bias)) == (f"layer 0 (hidden): {sentence}",)
    assert list(rule(layer(weights, bias))) == [sentence]


def convolution(kernel, in_shape=(1, 4, 4), **geometry) -> Layer:
    return Layer("maps", Convolution(kernel, in_shape, **geometry), NEURON)


def with_parts(recurrent, skip) -> tuple[Layer, Layer]:
    """Two layers of two neurons: one of synapses [[2, -2], [2, 2]], one with more parts."""
    first = layer([[2, -2], [2, 2]], name="first")
    more = Connections.from_dense(recurrent)
    skips = () if skip is None else (Skip("first", Connections.from_dense(skip)),)
    return first, Layer("second", first.connections, NEURON, recurrent=more, skips=skips)


@pytest.mark.parametrize(
    "one",
    [
        convolution([[[[-256, 254]]]]),
        convolution([[[[-64, 0]]]]),  # netx gets such matrices wrong, but no kernel
        convolution([[[[0]]]]),
        convolution(np.ones((1, 1, 127, 1), int), (1, 127, 200), stride=(1, 127)),
        Layer("in", Injection((3,)), NEURON, bias=[-4096, 0, 4095]),
    ],
)
def test_other_layers_that_pass(one):
    check(Network((one,)))


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (convolution([[[[2, 256]]]]), "weight 256 is outside -256..254 (1 such weights)"),
        (convolution(np.ones((1, 1, 128, 1), int), (1, 128, 2)), "kernel 128 exceeds 127"),
        (convolution([[[[2]]]], (1, 1, 200), stride=(1, 128)), "stride 128 exceeds 127"),
        (convolution([[[[2]]]], padding=(0, 128)), "padding 128 exceeds 127"),
        (convolution([[[[2]]]], dilation=(128, 1)), "dilation 128 exceeds 127"),
        (convolution([[[[2]]]] * 128, (128, 1, 1), groups=128), "groups 128 exceeds 127"),
        (Layer("in", Injection((2,)), NEURON, bias=[0, 4096]), "bias 4096 is outside"),
    ],
)
def test_other_layers_that_do_not(one, sentence):
    (violation,) = violations(one)
    assert f"layer 0 ({one.name}): {sentence}" in violation


def test_injected_input_is_a_bias():
    one = Layer("in", Injection((3,)), NEURON)
    check(Network((one,), input_bits=12))
    check(Network((layer([[2, -2]]),), input_bits=13))
    with pytest.raises(LimitError, match=r"layer 0 \(in\): injected input of 13 bits exceeds 12"):
        check(Network((one,), input_bits=13))


def test_recurrent_weights_and_those_of_skips():
    check(Network(with_parts([[2, 0], [0, 254]], [[-64, 0], [0, 0]])))
    assert violations(*with_parts([[300, 2], [2, -2]], [[2, 2], [900, -300]])) == (
        "layer 1 (second): recurrent weight 300 is outside -256..254 (1 such weights)",
        "layer 1 (second): weight of the skip from first 900 is outside -256..254 (2 such weights)",
    )
    # netx shifts both matrices by what the larger weights allow ...
    first = layer([[2, -2]] * 2, name="first")
    weights = Connections.from_dense([[-256, 0], [0, 0]])
    second = Layer("second", weights, NEURON, recurrent=Connections.from_dense([[2, 2]] * 2))
    # ... and Lava judges each by its own sign.
    assert violations(first, second) == (
        "layer 1 (second): weight -256 (neuron 0, input 0) would count as -255 in Lava "
        "(1 such weights); a weight of each sign in the layer avoids it",
    )


def test_what_only_netx_does_is_no_matter_where_netx_does_not_load():
    zeros = Connections.from_dense([[0, 0]] * 2)
    first = layer([[2, -2]] * 2, name="first")
    one = Layer("second", zeros, NEURON)
    assert violations(first, one) == (
        "layer 1 (second): every weight is 0, which netx cannot load",
    )
    check(Network((first, Layer("second", zeros, NEURON, skips=[Skip("first", zeros)]))))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([[255]], "weight 255 is outside"),
        ([[-257, 2]], "weight -257 is outside"),
        ([[-1, 0]], "weight -1 (neuron 0, input 0) would count as -0.5 in Lava"),
        ([[-256, -2]], "weight -256 (neuron 0, input 0) would count as -254 in Lava"),
        ([[-2, -129, 0]], "weight -2 (neuron 0, input 0) would count as 0 in Lava (2 such"),
    ],
)
def test_weights_just_beyond_a_limit(weights, sentence):
    (violation,) = violations(layer(weights))
    assert sentence in violation


def test_a_missing_connection_counts_as_zero_in_lava():
    mask = np.array([[True, False]])
    (violation,) = violations(layer([[-64, 0]], mask=mask))
    assert "weight -64 (neuron 0, input 0) would count as -32" in violation


def test_bias_just_beyond_a_limit():
    for bias in (4096, -4097):
        assert f"bias {bias} is outside" in violations(layer([[2]], [bias]))[0]


def test_all_violations_of_all_layers_are_reported():
    found = violations(
        layer([[300, 2], [2, 2]], [9000, 0], name="first"),
        layer([[2, 2], [2, -2]], name="second"),
        layer([[0, 0], [0, 0]], [0, -5000], name="third"),
        layer([[-2, 0]], None, INTEGRATOR, name="readout"),
    )
    assert found == (
        "layer 0 (first): weight 300 is outside -256..254 (1 such weights)",
        "layer 0 (first): bias 9000 is outside -4096..4095 (13-bit mantissa)",
        "layer 2 (third): bias -5000 is outside -4096..4095 (13-bit mantissa)",
        "layer 2 (third): every weight is 0, which netx cannot load",
        "layer 3 (readout): weight -2 (neuron 0, input 0) would count as -1 in Lava "
        "(1 such weights); a weight of each sign in the layer avoids it",
    )


def states(one: Layer, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u and v before any reset, (T, neurons), in unlimited range; inputs (T, n_pre)."""
    weights = one.connections.dense().astype(object)
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
# 2**17 << 6 is where u wraps.
WIDE = st.one_of(st.integers(-(1 << 17) - 3, (1 << 17) + 3), st.sampled_from([-(1 << 17), 1 << 17]))


@st.composite
def layers(draw, values=USUAL):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    weights = draw(hnp.arrays(np.int32, shape, elements=values))
    biases = draw(st.none() | hnp.arrays(np.int32, shape[0], elements=values))
    threshold = draw(st.one_of(st.integers(1, 400), st.just(NEVER)))
    return layer(weights, biases, Cuba(draw(DECAYS), draw(DECAYS), threshold))


@settings(max_examples=150, deadline=None)
@given(layers(), st.data())
def test_no_input_leaves_the_bound(one, data):
    steps = data.draw(st.integers(1, 12))
    bound = state_bound(one, steps)
    inputs = hnp.arrays(np.uint8, (steps, one.connections.n_pre), elements=st.integers(0, 1))
    assert inside(bound, *states(one, data.draw(inputs)))


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
    # v grows by 80, 60, 40, 20 and fires; the growing current then pulls it down from 0.
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
    # Inputs 0 and 2 are the highest of neuron 0; no input reaches its lowest alone: -30.
    assert bound.u[1] == u_rows[0, :, 0].max()
    assert bound.v[1] == v_rows[0, :, 0].max()
    assert bound.u[0] == u_rows[1, :, 1].min()
    assert bound.v[0] == v_rows[1, :, 1].min()


def test_bounds_by_hand():
    # Two steps; v may be 64 * 10 (not above the threshold) plus 64 * 15 at the most.
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


@settings(max_examples=60, deadline=None)
@given(layers(WIDE), st.data())
def test_safe_layers_never_overflow_in_the_simulator(one, data):
    steps = data.draw(st.integers(1, 5))
    network = Network((one,))
    inputs = hnp.arrays(np.uint8, (1, steps, network.inputs), elements=st.integers(0, 1))
    overflows = simulate(network, data.draw(inputs)).overflows
    if unbounded_layers(network, steps) == ():
        assert overflows == {"hidden": (0, 0)}


def test_unbounded_layers():
    strong = np.full((2, 400), 254)
    network = Network(
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


def test_bounds_over_very_many_steps_do_not_overflow_themselves():
    one = layer([[254] * 100_000, [-256] * 100_000], [4095, -4096], Cuba(0, 0, NEVER))
    bound = state_bound(one, 3000)
    assert bound.v == (-(1 << 40), 1 << 40)
    assert not bound.safe


@pytest.mark.parametrize("seed", range(40))
def test_no_network_leaves_its_bounds(seed):
    drawn = random_network(seed)
    network = Network(drawn.layers, None, {}, drawn.input_bits % 4)
    rng = np.random.default_rng(seed)
    most = max(1, (1 << network.input_bits) - 1)
    low = -most if network.input_bits else 0
    inputs = rng.integers(low, most + 1, (1, 64, network.inputs))
    trace = reference.simulate(network, inputs)
    source = INPUT
    for one in network.layers:
        bound = state_bound(one, 64, source, network.input_bits)
        if bound.safe:
            assert trace.overflows[one.name] == (0, 0)
            # v is 0 where a neuron has just fired, so it may only fall short of the bound.
            assert inside(bound, trace.u[one.name], trace.v[one.name])
        source = one.name


def test_bounds_of_convolutions_by_hand():
    kernel = [[[[1, -2]], [[4, 0]]], [[[8, 16]], [[0, -32]]]]  # two channels of sums -2..5, -32..24
    bias = np.repeat([3, -3], 4)
    one = Layer("a", Convolution(kernel, (2, 2, 3)), Cuba(4096, [4096, 0], NEVER), bias)
    assert state_bound(one, 1) == StateBound((-32 * 64, 24 * 64), (-35 * 64, 21 * 64))
    assert state_bound(one, 2) == StateBound((-32 * 64, 24 * 64), (-70 * 64, 42 * 64))
    # Graded input of either sign, up to 3: channel 0 may sum to 7 * 3, channel 1 to 56 * 3.
    graded = state_bound(one, 1, INPUT, 2)
    assert graded == StateBound((-168 * 64, 168 * 64), (-171 * 64, 165 * 64))
    assert state_bound(one, 1, "layer0", 2) == state_bound(one, 1)
    more = Layer("a", one.connections, one.neuron, bias, skips=[Skip(INPUT, one.connections)])
    assert state_bound(more, 1, INPUT, 0).u == (-64 * 64, 48 * 64)
    assert state_bound(more, 1, "layer0", 2).u == ((-168 - 32) * 64, (168 + 24) * 64)


def test_bounds_of_recurrent_and_injected_layers_by_hand():
    recurrent = Connections.from_dense([[0, -7], [5, 0]])
    one = Layer("a", Connections.from_dense([[2], [-3]]), Cuba(4096, 4096, 9), recurrent=recurrent)
    assert state_bound(one, 3) == StateBound((-7 * 64, 5 * 64), (-7 * 64, 5 * 64))
    injected = Layer("a", Injection((2,)), Cuba(0, 4096, [9, NEVER]), bias=[0, 100])
    assert state_bound(injected, 5) == StateBound((0, 0), (-64, 101 * 64))
    assert state_bound(injected, 5, INPUT, 12) == StateBound((0, 0), (-4095 * 64, 4195 * 64))


def test_a_neuron_that_never_fires_keeps_what_others_lose():
    weights = Connections.from_dense([[10], [10]])
    one = Layer("a", weights, Cuba(4096, 0, [5, NEVER]))
    assert state_bound(one, 7).v == (0, 70 * 64)


def test_wide_convolutions_are_bounded_in_no_time():
    kernel = np.full((64, 64, 3, 3), 254)
    bias = np.repeat(np.arange(64), 224 * 224)
    one = Layer("a", Convolution(kernel, (64, 226, 226)), Cuba(4096, 4096, 9), bias)
    assert state_bound(one, 1).v[1] == (64 * 9 * 254 + 63) * 64
