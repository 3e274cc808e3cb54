import numpy as np
import pytest

from esl_lava.errors import Fault, LimitError
from esl_lava.netfile import check
from esl_lava.netfile.limits import NETX_RULES, RULES
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Layer,
    Matrix,
)
from tests import faults
from tests.faults import refused
from tests.graphs import a_layer, a_network

NEURON = Cuba(4096, 2048, 64)


def layer(weights, bias=None, neuron=NEURON, name="hidden", mask=None) -> Layer:
    return a_layer(name, Matrix.from_dense(np.array(weights), mask), neuron, bias)


def faults_of(*layers: Layer) -> tuple[Fault, ...]:
    with pytest.raises(LimitError) as caught:
        check(a_network(layers))
    assert str(caught.value) == "\n".join(fault.sentence for fault in caught.value.faults)
    return caught.value.faults


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
    check(a_network((layer(weights, bias),)))


VIOLATING = {
    "has_synapses": ([[0, 0]], None, "weight", 0, None, "every weight is 0"),
    "weights_fit_eight_bits": (
        [[-2, 256, 255], [-258, 600, -900]],
        None,
        "weight",
        -900,
        -256,
        "(5 weights are outside)",
    ),
    "weights_survive_lava": (
        [[-32, -10], [0, -64]],
        None,
        "weight",
        -64,
        None,
        "(neuron 1, input 1) would become -63 in Lava (1 weight is changed)",
    ),
    "bias_fits_thirteen_bits": ([[2], [2], [2]], [4096, -5213, 4095], "bias", -5213, -4096, ""),
}


BY_LAYER = [rule for rule in (*RULES, *NETX_RULES) if rule.__name__ in VIOLATING]


@pytest.mark.parametrize("rule", BY_LAYER, ids=lambda rule: rule.__name__)
def test_every_rule_is_violated_alone(rule):
    weights, bias, key, value, limit, detail = VIOLATING[rule.__name__]
    (fault,) = faults_of(layer(weights, bias))
    faults.check(fault, "limit", key=key, value=value, limit=limit, layer="hidden")
    assert detail in fault.sentence
    assert list(rule(layer(weights, bias))) == [fault]


def convolution(kernel, in_shape=(1, 4, 4), **geometry) -> Layer:
    return a_layer("maps", Convolution(kernel, in_shape, **geometry), NEURON)


def with_parts(recurrent, skip) -> tuple[Layer, Layer]:
    """Return two layers of weights [[2, -2], [2, 2]]; the second has more inputs."""
    first = layer([[2, -2], [2, 2]], name="first")
    more = Matrix.from_dense(recurrent)
    skips = () if skip is None else (Input("first", Matrix.from_dense(skip)),)
    return first, a_layer(
        "second", first.inputs[0].connections, NEURON, recurrent=more, skips=skips
    )


@pytest.mark.parametrize(
    "one",
    [
        convolution([[[[-256, 254]]]]),
        convolution([[[[-64, 0]]]]),  # netx changes such matrices, but not kernels
        convolution([[[[0]]]]),
        convolution(np.ones((1, 1, 127, 1), int), (1, 127, 200), stride=(1, 127)),
        a_layer("in", Injection((3,)), NEURON, bias=[-4096, 0, 4095]),
    ],
)
def test_other_layers_that_pass(one):
    check(a_network((one,)))


@pytest.mark.parametrize(
    ("one", "key", "value", "limit"),
    [
        (convolution([[[[2, 256]]]]), "weight", 256, 254),
        (convolution(np.ones((1, 1, 128, 1), int), (1, 128, 2)), "kernel", 128, 127),
        (convolution([[[[2]]]], (1, 1, 200), stride=(1, 128)), "stride", 128, 127),
        (convolution([[[[2]]]], padding=(0, 128)), "padding", 128, 127),
        (convolution([[[[2]]]], dilation=(128, 1)), "dilation", 128, 127),
        (convolution([[[[2]]]] * 128, (128, 1, 1), groups=128), "groups", 128, 127),
        (a_layer("in", Injection((2,)), NEURON, bias=[0, 4096]), "bias", 4096, 4095),
    ],
)
def test_other_layers_that_do_not(one, key, value, limit):
    (fault,) = faults_of(one)
    faults.check(fault, "limit", key=key, value=value, limit=limit, layer=one.name)


def test_injected_input_is_a_bias():
    one = a_layer("in", Injection((3,)), NEURON)
    check(a_network((one,), input_range=(-4096, 4095)))
    check(a_network((layer([[2, -2]]),), input_range=(-4097, 4096)))
    for low, high, value, limit in ((-4097, 0, -4097, -4096), (0, 4096, 4096, 4095)):
        with refused(LimitError, "limit", key="input", layer="in", value=value, limit=limit):
            check(a_network((one,), input_range=(low, high)))


def test_recurrent_weights_and_those_of_skips():
    check(a_network(with_parts([[2, 0], [0, 254]], [[-64, 0], [0, 0]])))
    skip, recurrent = faults_of(*with_parts([[300, 2], [2, -2]], [[2, 2], [900, -300]]))
    faults.check(skip, "limit", key="weight", value=900, limit=254, layer="second")
    assert "weight of the skip from first 900" in skip.sentence
    assert "(2 weights are outside)" in skip.sentence
    faults.check(recurrent, "limit", key="weight", value=300, limit=254, layer="second")
    assert "recurrent weight 300" in recurrent.sentence
    # netx shifts both matrices as far as the larger weights allow ...
    first = layer([[2, -2]] * 2, name="first")
    weights = Matrix.from_dense([[-256, 0], [0, 0]])
    second = a_layer("second", weights, NEURON, recurrent=Matrix.from_dense([[2, 2]] * 2))
    # ... and Lava determines the sign of each matrix alone.
    (fault,) = faults_of(first, second)
    faults.check(fault, "limit", key="weight", value=-256, layer="second")
    assert "(neuron 0, input 0) would become -255 in Lava (1 weight is changed)" in fault.sentence


def test_what_only_netx_does_is_no_matter_where_netx_does_not_load():
    zeros = Matrix.from_dense([[0, 0]] * 2)
    first = layer([[2, -2]] * 2, name="first")
    one = a_layer("second", zeros, NEURON)
    (fault,) = faults_of(first, one)
    faults.check(fault, "limit", key="weight", value=0, layer="second")
    check(a_network((first, a_layer("second", zeros, NEURON, skips=[Input("first", zeros)]))))


@pytest.mark.parametrize(
    ("weights", "value", "detail"),
    [
        ([[255]], 255, "(1 weight is outside)"),
        ([[-257, 2]], -257, "(1 weight is outside)"),
        ([[-1, 0]], -1, "(neuron 0, input 0) would become -0.5 in Lava"),
        ([[-256, -2]], -256, "(neuron 0, input 0) would become -254 in Lava"),
        ([[-2, -129, 0]], -2, "would become 0 in Lava (2 weights are changed)"),
    ],
)
def test_weights_just_beyond_a_limit(weights, value, detail):
    (fault,) = faults_of(layer(weights))
    faults.check(fault, "limit", key="weight", value=value, layer="hidden")
    assert detail in fault.sentence


def test_a_missing_connection_counts_as_zero_in_lava():
    mask = np.array([[True, False]])
    (fault,) = faults_of(layer([[-64, 0]], mask=mask))
    faults.check(fault, "limit", key="weight", value=-64)
    assert "would become -32 in Lava" in fault.sentence


def test_bias_just_beyond_a_limit():
    for bias, limit in ((4096, 4095), (-4097, -4096)):
        faults.check(faults_of(layer([[2]], [bias]))[0], "limit", value=bias, limit=limit)


def test_all_violations_of_all_layers_are_reported():
    every_fault = faults_of(
        layer([[300, 2], [2, 2]], [9000, 0], name="first"),
        layer([[2, 2], [2, -2]], name="second"),
        layer([[0, 0], [0, 0]], [0, -5000], name="third"),
        layer([[-2, 0]], None, INTEGRATOR, name="readout"),
    )
    assert [(fault.layer, fault.key, fault.value, fault.limit) for fault in every_fault] == [
        ("first", "weight", 300, 254),
        ("first", "bias", 9000, 4095),
        ("third", "bias", -5000, -4096),
        ("third", "weight", 0, None),
        ("readout", "weight", -2, None),
    ]
    for fault in every_fault:
        faults.check(fault, "limit")
