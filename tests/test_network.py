import copy
import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.counts import Counts, LayerCounts
from esl_lava.network import INTEGRATOR, NEVER, Connections, Cuba, Layer, Network

LIF = Cuba(current_decay=4096, voltage_decay=2048, threshold=64)


def layer(name="a", n_post=2, n_pre=3, neuron=LIF, bias=None):
    return Layer(name, Connections.from_dense(np.ones((n_post, n_pre), int)), neuron, bias)


def connections(indptr=(0, 2, 2, 3), indices=(0, 3, 1), weights=(5, 0, -7), n_post=3, n_pre=4):
    return Connections(n_post, n_pre, indptr, indices, weights)


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


@st.composite
def masked(draw):
    shape = draw(shapes)
    mask = draw(hnp.arrays(bool, shape))
    # Few values, so that connections of weight 0 are common.
    weights = draw(hnp.arrays(np.int32, shape, elements=st.integers(-2, 2)))
    return weights * mask, mask


@given(masked())
def test_dense_and_mask_come_back(given_):
    weights, mask = given_
    c = Connections.from_dense(weights, mask)
    assert np.array_equal(c.dense(), weights)
    assert np.array_equal(c.mask(), mask)
    assert (c.n_post, c.n_pre) == weights.shape
    assert c.possible == weights.size
    assert c.count == mask.sum()
    assert c.synapses == np.count_nonzero(weights)
    assert np.array_equal(c.fan_out(), np.count_nonzero(weights, axis=0))
    assert c.fan_out().shape == (c.n_pre,)
    assert np.array_equal(c.rows(), np.nonzero(mask)[0])
    again = Connections(c.n_post, c.n_pre, c.indptr, c.indices, c.weights)
    assert np.array_equal(again.dense(), weights)
    assert np.array_equal(again.mask(), mask)


@given(masked(), st.data())
def test_any_disorder_within_a_row_is_refused(given_, data):
    weights, mask = given_
    c = Connections.from_dense(weights, mask)
    rows = c.rows().tolist()
    neighbours = [i for i in range(len(rows) - 1) if rows[i] == rows[i + 1]]
    assume(neighbours)
    first = data.draw(st.sampled_from(neighbours))
    swapped = c.indices.copy()
    swapped[[first, first + 1]] = swapped[[first + 1, first]]
    doubled = c.indices.copy()
    doubled[first] = doubled[first + 1]
    for indices in (swapped, doubled):
        with pytest.raises(ValueError, match="strictly ascending"):
            Connections(c.n_post, c.n_pre, c.indptr, indices, c.weights)


def test_rows_may_start_anywhere():
    # Index 3 then 0: a new row, not a disorder; empty rows at either end and between.
    c = Connections(5, 4, [0, 0, 2, 2, 3, 3], [1, 3, 0], [4, 5, 6])
    assert c.rows().tolist() == [1, 1, 3]
    assert c.dense().tolist() == [[0] * 4, [0, 4, 0, 5], [0] * 4, [6, 0, 0, 0], [0] * 4]


def test_a_layer_without_connections():
    c = Connections.from_dense(np.zeros((2, 3), int), np.zeros((2, 3), bool))
    assert (c.count, c.synapses, c.possible) == (0, 0, 6)
    assert not c.dense().any()
    assert not c.mask().any()
    assert c.fan_out().tolist() == [0, 0, 0]
    assert Network((Layer("a", c, LIF),)).density == 0


def test_without_a_mask_zeros_are_connections():
    c = Connections.from_dense([[0, 1], [0, 0]])
    assert (c.count, c.synapses) == (4, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"n_post": 2},
        {"n_post": 0, "indptr": (0,), "indices": np.empty(0, int), "weights": np.empty(0, int)},
        {"n_pre": 0},
        {"n_pre": 3},
        {"indptr": (1, 2, 2, 3)},
        {"indptr": (0, 2, 1, 3)},
        {"indptr": (0, 2, 2, 4)},
        {"indptr": (0, 2, 3)},
        {"indptr": ((0, 2, 2, 3),)},
        {"indptr": (0, 2**63 - 1, -(2**63), 3)},  # the differences of these wrap around
        {"indices": (0, -1, 1)},
        {"indices": (0, 4, 1)},
        {"indices": (0, 2**31, 1)},
        {"indices": (0, 3)},
        {"weights": (5, 0)},
        {"weights": (5, 0, 2**31)},
        {"weights": (5, 0, -(2**31) - 1)},
        {"weights": ((5, 0, -7),)},
    ],
)
def test_arrays_that_describe_no_matrix_are_refused(change):
    with pytest.raises(ValueError, match=r"\w"):
        connections(**change)


def test_extreme_weights_are_kept():
    assert connections(weights=(2**31 - 1, -(2**31), 0)).dense().min() == -(2**31)


@pytest.mark.parametrize(
    "change", [{"weights": (5.0, 0.0, 1.0)}, {"indices": ("0", "3", "1")}, {"n_pre": 4.0}]
)
def test_only_integers(change):
    with pytest.raises(TypeError):
        connections(**change)


def test_from_dense_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shape \(outputs, inputs\)"):
        Connections.from_dense([1, 2])
    with pytest.raises(ValueError, match=r"mask of shape \(1, 3\)"):
        Connections.from_dense([[1, 2]], [[True, True, True]])
    with pytest.raises(ValueError, match="outside the mask"):
        Connections.from_dense([[1, 2]], [[True, False]])
    with pytest.raises(ValueError, match="empty"):
        Connections.from_dense(np.zeros((0, 3), int))
    with pytest.raises(TypeError):
        Connections.from_dense([[1.0]])


def test_arrays_are_copied_and_read_only():
    weights = np.array([5, 0, -7])
    bias = np.array([1, 2])
    c = connections(weights=weights)
    with_bias = layer(bias=bias)
    weights[:] = 9
    bias[:] = 9
    assert c.weights.tolist() == [5, 0, -7]
    assert with_bias.bias.tolist() == [1, 2]
    for array in (c.indptr, c.indices, c.weights, with_bias.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert (c.indptr.dtype, c.indices.dtype, c.weights.dtype) == (np.int64, np.int32, np.int32)
    assert with_bias.bias.dtype == np.int32


def test_nothing_can_be_reassigned():
    network = Network((layer(),), 8, {"a": "b"})
    for thing, name in (
        (network, "steps"),
        (network.layers[0], "bias"),
        (network.layers[0].connections, "weights"),
        (LIF, "threshold"),
    ):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)
    with pytest.raises(TypeError):
        network.provenance["a"] = "c"


def test_provenance_is_a_copy():
    facts = {"a": "b"}
    network = Network((layer(),), provenance=facts)
    facts["a"] = "c"
    assert network.provenance == {"a": "b"}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_for_other_processes_are_read_only_too(again):
    network = Network((layer(bias=[1, 2]), layer("b", 4, 2, INTEGRATOR)), 8, {"a": "b"})
    other = again(network)
    assert (other.steps, other.provenance) == (8, {"a": "b"})
    for before, after in zip(network.layers, other.layers):
        assert (before.name, before.neuron) == (after.name, after.neuron)
        assert np.array_equal(before.connections.dense(), after.connections.dense())
        assert not after.connections.weights.flags.writeable
    assert other.layers[0].bias.tolist() == [1, 2]
    assert not other.layers[0].bias.flags.writeable


def test_cuba_limits():
    for decay in (0, 4096):
        Cuba(decay, decay, 1)
    assert Cuba(0, 0, NEVER - 1).fires
    assert not Cuba(0, 0, NEVER).fires
    assert not INTEGRATOR.fires
    for decay in (-1, 4097):
        with pytest.raises(ValueError, match=rf"current_decay {decay} is outside 0..4096"):
            Cuba(decay, 0, 1)
        with pytest.raises(ValueError, match=rf"voltage_decay {decay} is outside 0..4096"):
            Cuba(0, decay, 1)
    for threshold in (0, -5, NEVER + 1):
        with pytest.raises(ValueError, match=rf"threshold {threshold} is outside 1..131072"):
            Cuba(0, 0, threshold)
    with pytest.raises(TypeError):
        Cuba(0.5, 0, 1)
    assert type(Cuba(np.int16(3), 0, 1).current_decay) is int


def test_bias_needs_one_value_per_neuron():
    with pytest.raises(ValueError, match=r"layer a: bias of shape \(3,\)"):
        layer(bias=[1, 2, 3])
    with pytest.raises(ValueError, match=r"layer a: bias of shape \(\)"):
        layer(bias=1)
    with pytest.raises(ValueError, match="int32"):
        layer(bias=[1, 2**40])


def test_network_sums_its_layers():
    first = Layer("a", connections(), LIF)
    network = Network([first, layer("b", 2, 3, INTEGRATOR)])
    assert isinstance(network.layers, tuple)
    assert (network.inputs, network.connections, network.synapses) == (4, 9, 8)
    assert network.density == 9 / 18
    assert network.readout is network.layers[1]
    assert network.steps is None
    assert Network((first,)).readout is None


@pytest.mark.parametrize(
    ("layers", "steps", "message"),
    [
        ((), None, "at least one layer"),
        ((layer("a"), layer("a", 4, 2)), None, "not unique: a, a"),
        ((layer("a"), layer("b", 4, 3)), None, "layer b expects 3 inputs, layer a has 2"),
        (
            (layer("a", neuron=INTEGRATOR), layer("b", 4, 2)),
            None,
            "layer a never fires but feeds layer b",
        ),
        ((layer("a"),), 0, "0 steps"),
        ((layer("a"),), -3, "-3 steps"),
    ],
)
def test_networks_that_do_not_fit_together(layers, steps, message):
    with pytest.raises(ValueError, match=message):
        Network(layers, steps)


def test_steps_are_an_integer():
    with pytest.raises(TypeError):
        Network((layer(),), 1.5)


def test_counts_sum_their_layers():
    rows = [
        LayerCounts(
            "a",
            neurons=4,
            possible=20,
            connections=9,
            synapses=8,
            sops=70,
            neuron_updates=40,
            spikes=3,
        ),
        LayerCounts(
            "b",
            neurons=2,
            possible=8,
            connections=8,
            synapses=5,
            sops=11,
            neuron_updates=20,
            spikes=0,
        ),
    ]
    counts = Counts(samples=2, steps=5, input_spikes=17, layers=tuple(rows))
    assert (counts.sops, counts.neuron_updates, counts.spikes) == (81, 60, 3)
    assert (counts.connections, counts.possible) == (17, 28)
