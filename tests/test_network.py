import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.chip import MAX_REFRACTORY, NEVER
from esl_lava.counts import Counts, LayerCounts
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Layer,
    Matrix,
    Network,
)
from tests.graphs import a_layer, a_network
from tests.netfile.networks import assert_same, random_convolution, random_network

LIF = Cuba(current_decay=4096, voltage_decay=2048, threshold=64)


def layer(name="a", n_post=2, n_pre=3, neuron=LIF, bias=None):
    return a_layer(name, Matrix.from_dense(np.ones((n_post, n_pre), int)), neuron, bias)


def connections(indptr=(0, 2, 2, 3), indices=(0, 3, 1), weights=(5, 0, -7), n_post=3, n_pre=4):
    return Matrix(n_post, n_pre, indptr, indices, weights)


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


@st.composite
def masked(draw):
    shape = draw(shapes)
    mask = draw(hnp.arrays(bool, shape))
    # Few different values make connections of weight 0 common.
    weights = draw(hnp.arrays(np.int32, shape, elements=st.integers(-2, 2)))
    return weights * mask, mask


@pytest.mark.slow
@given(masked())
def test_dense_and_mask_come_back(case):
    weights, mask = case
    c = Matrix.from_dense(weights, mask)
    assert np.array_equal(c.dense(), weights)
    assert np.array_equal(c.mask(), mask)
    assert (c.n_post, c.n_pre) == weights.shape
    assert c.possible == weights.size
    assert c.count == mask.sum()
    assert c.synapses == np.count_nonzero(weights)
    assert np.array_equal(c.fan_out(), np.count_nonzero(weights, axis=0))
    assert c.fan_out().shape == (c.n_pre,)
    assert np.array_equal(c.rows(), np.nonzero(mask)[0])
    again = Matrix(c.n_post, c.n_pre, c.indptr, c.indices, c.weights)
    assert np.array_equal(again.dense(), weights)
    assert np.array_equal(again.mask(), mask)


@pytest.mark.slow
@given(masked(), st.data())
def test_any_disorder_within_a_row_is_refused(case, data):
    weights, mask = case
    c = Matrix.from_dense(weights, mask)
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
            Matrix(c.n_post, c.n_pre, c.indptr, indices, c.weights)


def test_rows_may_start_anywhere():
    # Index 0 after index 3 begins a new row. Rows at both ends and between are empty.
    c = Matrix(5, 4, [0, 0, 2, 2, 3, 3], [1, 3, 0], [4, 5, 6])
    assert c.rows().tolist() == [1, 1, 3]
    assert c.dense().tolist() == [[0] * 4, [0, 4, 0, 5], [0] * 4, [6, 0, 0, 0], [0] * 4]


def test_a_layer_without_connections():
    c = Matrix.from_dense(np.zeros((2, 3), int), np.zeros((2, 3), bool))
    assert (c.count, c.synapses, c.possible) == (0, 0, 6)
    assert not c.dense().any()
    assert not c.mask().any()
    assert c.fan_out().tolist() == [0, 0, 0]
    assert a_network((a_layer("a", c, LIF),)).density == 0


def test_without_a_mask_zeros_are_connections():
    c = Matrix.from_dense([[0, 1], [0, 0]])
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
        {"indptr": (0, 2**63 - 1, -(2**63), 3)},  # differences of these numbers wrap around
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
        Matrix.from_dense([1, 2])
    with pytest.raises(ValueError, match=r"the mask has shape \(1, 3\)"):
        Matrix.from_dense([[1, 2]], [[True, True, True]])
    with pytest.raises(ValueError, match="outside the mask"):
        Matrix.from_dense([[1, 2]], [[True, False]])
    with pytest.raises(ValueError, match="empty"):
        Matrix.from_dense(np.zeros((0, 3), int))
    with pytest.raises(TypeError):
        Matrix.from_dense([[1.0]])


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
    network = a_network((layer(),), 8, {"a": "b"})
    for thing, name in (
        (network, "steps"),
        (network.layers[0], "bias"),
        (network.layers[0].inputs[0].connections, "weights"),
        (LIF, "threshold"),
    ):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)
    with pytest.raises(TypeError):
        network.provenance["a"] = "c"


def test_provenance_is_a_copy():
    facts = {"a": "b"}
    network = a_network((layer(),), provenance=facts)
    facts["a"] = "c"
    assert network.provenance == {"a": "b"}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_for_other_processes_are_read_only_too(again):
    network = a_network((layer(bias=[1, 2]), layer("b", 4, 2, INTEGRATOR)), 8, {"a": "b"})
    other = again(network)
    assert (other.steps, other.provenance) == (8, {"a": "b"})
    for before, after in zip(network.layers, other.layers):
        assert (before.name, before.neuron) == (after.name, after.neuron)
        (one,), (same,) = before.wiring, after.wiring
        assert np.array_equal(one.unrolled().dense(), same.unrolled().dense())
        assert not same.weights.flags.writeable
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
    first = a_layer("a", connections(), LIF)
    network = a_network([first, layer("b", 2, 3, INTEGRATOR)])
    assert isinstance(network.layers, tuple)
    assert (network.inputs, network.connections, network.synapses) == (4, 9, 8)
    assert network.density == 9 / 18
    assert network.readout is network.layers[1]
    assert network.steps is None
    assert a_network((first,)).readout is None


def test_the_shape_of_the_input_is_what_the_first_layer_says():
    maps = Convolution(np.ones((1, 2, 1, 1), int), (2, 3, 4))
    for connections, shape in (
        (maps, (2, 3, 4)),
        (Injection((2, 3, 4)), (2, 3, 4)),
        (Injection((5,)), (5,)),
        (Matrix.from_dense(np.ones((2, 24), int)), (24,)),
    ):
        network = a_network((a_layer("first", connections, Cuba(0, 0, 1)),))
        assert network.input_shape == shape


@pytest.mark.parametrize(
    ("layers", "steps", "message"),
    [
        ((), None, "at least one layer"),
        ((layer("a"), layer("a", 4, 2)), None, "source of the same name"),
        (
            (layer("a"), layer("b", 4, 3)),
            None,
            "layer b expects 3 inputs from a, which has 2 neurons",
        ),
        (
            (layer("a", neuron=INTEGRATOR), layer("b", 4, 2)),
            None,
            "layer a never fires but feeds layer b",
        ),
        ((layer("a"),), 0, "steps 0: "),
        ((layer("a"),), -3, "steps -3: "),
    ],
)
def test_networks_that_do_not_fit_together(layers, steps, message):
    with pytest.raises(ValueError, match=message):
        a_network(layers, steps)


def test_steps_are_an_integer():
    with pytest.raises(TypeError):
        a_network((layer(),), 1.5)


def test_counts_sum_their_layers():
    rows = [
        LayerCounts(
            "a",
            neurons=4,
            possible=20,
            weights=9,
            possible_connections=20,
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
            weights=8,
            possible_connections=80,
            connections=72,
            synapses=45,
            sops=11,
            neuron_updates=20,
            spikes=0,
        ),
    ]
    counts = Counts(samples=2, steps=5, input_spikes=17, layers=tuple(rows))
    assert (counts.sops, counts.neuron_updates, counts.spikes) == (81, 60, 3)
    assert counts.possible_connections == 100
    assert [row.density for row in rows] == [9 / 20, 1]
    assert replace(rows[0], possible=0, weights=0).density == 0


# --- Convolutions. -------------------------------------------------------------------------


def any_convolution(seed: int) -> Convolution:
    rng = np.random.default_rng(seed)
    return random_convolution(rng, tuple(rng.integers(1, 7, 3).tolist()))


@pytest.mark.parametrize("seed", range(60))
def test_a_convolution_is_torchs(seed):
    """Compare with conv2d for any geometry; whole numbers are exact in float64."""
    import torch

    c = any_convolution(seed)
    x = np.random.default_rng(seed + 1).integers(-3, 4, (4, *c.in_shape))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(),
        torch.tensor(c.kernel).double(),
        stride=c.stride,
        padding=c.padding,
        dilation=c.dilation,
        groups=c.groups,
    ).numpy()
    assert expected.shape[1:] == c.out_shape
    assert (c.n_pre, c.n_post) == (x[0].size, expected[0].size)
    ours = x.reshape(4, -1) @ c.unrolled().dense().T
    assert np.array_equal(ours, expected.reshape(4, -1))


@pytest.mark.parametrize("seed", range(60))
def test_connections_of_a_convolution(seed):
    c = any_convolution(seed)
    unrolled = c.unrolled()
    assert np.array_equal(c.fan_out(), unrolled.fan_out())
    onto = np.random.default_rng(seed + 2).random(c.n_post) < 0.5
    assert np.array_equal(c.fan_out(onto), unrolled.fan_out(onto))
    assert np.array_equal(unrolled.fan_out(onto), (unrolled.dense() != 0)[onto].sum(axis=0))
    # Each weight counts once; each place where it meets an input is a connection.
    assert c.possible == c.kernel.size
    assert c.stored == c.mask().sum() >= c.nonzero == np.count_nonzero(c.kernel)
    assert (c.count, c.synapses) == (unrolled.count, unrolled.synapses)
    whole = replace(c, kernel=np.ones_like(c.kernel), allowed=None)
    assert c.possible_connections == whole.unrolled().count == whole.count
    # An allowed weight makes its connections even if it is 0.
    everywhere = Convolution(
        np.asarray(c.mask(), np.int32),
        c.in_shape,
        c.stride,
        c.padding,
        c.dilation,
        c.groups,
        c.allowed,
    ).unrolled()
    assert np.array_equal(everywhere.mask(), unrolled.mask())
    assert np.array_equal(everywhere.dense() != 0, unrolled.mask())


KERNEL = np.ones((4, 1, 3, 2), int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_shape": (3, 5, 5)}, "does not fit 3 input channels"),
        ({"groups": 3}, "in 3 groups does not fit 2 input channels"),
        ({"groups": 0}, "in 0 groups does not fit"),
        ({"groups": 1}, "in 1 groups does not fit 2 input channels"),
        ({"in_shape": (2, 2, 5)}, r"larger than its input \(2, 2, 5\) with padding"),
        ({"in_shape": (2, 5)}, "is not 3 numbers"),
        ({"in_shape": (2, 5, 0)}, "at least 1"),
        ({"stride": (0, 1)}, r"stride \(0, 1\) is not 2 numbers of at least 1"),
        ({"stride": (1, 1, 1)}, "is not 2 numbers"),
        ({"padding": (-1, 0)}, r"padding \(-1, 0\) is not 2 numbers of at least 0"),
        ({"dilation": (1, 0)}, r"dilation \(1, 0\) is not"),
        ({"dilation": (3, 1)}, r"dilation \(3, 1\) is larger than its input"),
        ({"kernel": KERNEL[0]}, "is not one of four lengths"),
        ({"kernel": KERNEL[:0]}, "is not one of four lengths"),
        ({"kernel": KERNEL * 2**31}, "values outside the range"),
        ({"allowed": KERNEL[:1] != 0}, "the mask has shape"),
        ({"allowed": KERNEL == 0}, "outside the mask is not zero"),
    ],
)
def test_convolutions_that_do_not_fit_together(change, message):
    arguments = {"kernel": KERNEL, "in_shape": (2, 5, 5), "groups": 2, **change}
    with pytest.raises(ValueError, match=message):
        Convolution(**arguments)


def test_convolutions_take_only_integers_and_keep_their_own():
    for change in ({"kernel": KERNEL * 1.0}, {"groups": 2.0}, {"stride": (1.0, 1)}):
        with pytest.raises(TypeError):
            Convolution(**{"kernel": KERNEL, "in_shape": (2, 5, 5), "groups": 2, **change})
    kernel = KERNEL.copy()
    c = Convolution(kernel, (2, 5, 5), groups=2)
    kernel[:] = 7
    assert c.kernel.max() == 1
    assert c.mask().all()
    for array in (c.kernel, c.mask()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# --- Other parts of layers. ----------------------------------------------------------------


def test_injection():
    one = Injection((np.int64(2), 3, 4))
    assert (one.n_pre, one.n_post, one.count, one.synapses, one.possible) == (24, 24, 0, 0, 0)
    assert (one.stored, one.nonzero, one.possible_connections) == (0, 0, 0)
    assert not one.fan_out().any()
    assert one == Injection((2, 3, 4)) != Injection((24,))
    for shape in ((), (2, 3), (0,), (1, 1, 1, 1), (-2,)):
        with pytest.raises(ValueError, match=r"is neither \(neurons,\) nor"):
            Injection(shape)
    with pytest.raises(TypeError):
        Injection((2.0,))


def test_parameters_for_each_neuron_or_channel():
    maps = Convolution(np.ones((2, 1, 1, 1), int), (1, 2, 3))
    one = a_layer("a", maps, Cuba([1, 2], range(12), 7))
    assert one.parameter("current_decay").tolist() == [1] * 6 + [2] * 6
    assert one.parameter("voltage_decay").tolist() == list(range(12))
    assert one.parameter("threshold").tolist() == [7] * 12
    assert one.shape == (2, 2, 3)
    with pytest.raises(
        ValueError, match="layer a: threshold has 3 values, but the layer has 12 neurons"
    ):
        a_layer("a", maps, Cuba(1, 1, [1, 2, 3]))
    with pytest.raises(ValueError, match="current_decay 4097 is outside"):
        Cuba([0, 4097], 0, 1)
    with pytest.raises(ValueError, match="neither one integer nor a list"):
        Cuba([[1]], 0, 1)
    with pytest.raises(ValueError, match="neither one integer nor a list"):
        Cuba(np.empty(0, int), 0, 1)
    assert Cuba(0, 0, [5, NEVER]).fires
    assert not Cuba(0, 0, [NEVER, NEVER]).fires


def test_neurons_are_equal_by_value():
    assert Cuba([1, 2], 3, 4) == Cuba(np.array([1, 2]), 3, 4)
    assert Cuba([1, 2], 3, 4) != Cuba([1, 3], 3, 4)
    assert Cuba([1, 1], 3, 4) != Cuba(1, 3, 4)
    assert Cuba(1, 2, 3) == Cuba(1, 2, 3) != Cuba(1, 2, 4)
    assert Cuba(1, 2, 3) != (1, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delays": [1]}, r"delays of shape \(1,\) is not one value for each of 2"),
        ({"delays": [0, 63]}, "delay 63 is outside 0..62"),
        ({"delays": [-1, 0]}, "delay -1 is outside"),
        (
            {"recurrent": Matrix.from_dense([[1, 1]])},
            "its recurrent connections have 1 outputs, but the layer has 2",
        ),
        (
            {"recurrent": Matrix.from_dense([[1]] * 2)},
            "its recurrent connections have 1 inputs, but the layer has 2",
        ),
        (
            {"skips": [Input(INPUT, Matrix.from_dense([[1, 1, 1]]))]},
            "its skip connections from input have 1 outputs, but the layer has 2 neurons",
        ),
    ],
)
def test_layers_that_do_not_fit_together(change, message):
    with pytest.raises(ValueError, match=f"layer a: {message}"):
        a_layer("a", Matrix.from_dense(np.ones((2, 3), int)), LIF, **change)


def skipping(source, n_pre, name="b"):
    skip = Input(source, Matrix.from_dense(np.ones((4, n_pre), int)))
    return a_layer(name, Matrix.from_dense(np.ones((4, 2), int)), LIF, skips=[skip])


SPIKES = (0, 1)


@pytest.mark.parametrize(
    ("layers", "ends", "message"),
    [
        ((layer("a"), skipping("c", 4)), SPIKES, "layer b: its source 'c' is not the network's"),
        (
            (layer("a"), skipping("a", 3)),
            SPIKES,
            "layer b expects 3 inputs from a, which has 2 neurons",
        ),
        (
            (layer("a"), skipping(INPUT, 2)),
            SPIKES,
            "layer b expects 2 inputs from input, which has 3",
        ),
        ((layer("a"), a_layer("b", Injection((2,)), LIF)), SPIKES, "layer b takes injected input"),
        ((layer("a"),), (0, 1 << 24), "input_range 0..16777216: it must contain 0 and another"),
        ((layer("a"),), (-(1 << 24), 0), "and lie within -16777215..16777215"),
        ((layer("a"),), (1, 3), "input_range 1..3: "),
        ((layer("a"),), (-3, -1), "input_range -3..-1: "),
        ((layer("a"),), (0, 0), "input_range 0..0: "),
        ((layer("a"),), (0,), "not enough values"),
    ],
)
def test_skips_and_inputs_that_do_not_fit(layers, ends, message):
    with pytest.raises(ValueError, match=message):
        a_network(layers, input_range=ends)


def test_a_network_counts_all_its_parts():
    recurrent = Matrix.from_dense(np.ones((2, 2), int))
    maps = Convolution([[[[1, 0]]]], (1, 1, 3))
    first = a_layer("a", maps, LIF, recurrent=recurrent)
    network = a_network((first, skipping(INPUT, 3)))
    assert [part.possible for part in first.wiring] == [2, 4]
    # Each of the kernel's two weights meets an input at two places; one weight is 0.
    assert network.weights == 2 + 4 + 8 + 12
    assert (network.connections, network.synapses) == (4 + 4 + 8 + 12, 2 + 4 + 8 + 12)
    assert network.density == 1
    assert network.inputs == 3


@pytest.mark.parametrize("again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_everything_is_copied_for_other_processes(again):
    for seed in range(12):
        network = random_network(seed)
        other = again(network)
        assert_same(other, network)
        for part in other.wiring:
            array = getattr(part, "kernel", getattr(part, "indices", None))
            assert array is None or not array.flags.writeable


def test_refractory_periods() -> None:
    neuron = Cuba(4096, 0, 5, refractory=62)
    assert Cuba(4096, 0, 5) != neuron == pickle.loads(pickle.dumps(neuron))
    for wrong in (-1, MAX_REFRACTORY + 1):
        with pytest.raises(ValueError, match=f"refractory {wrong} is outside 0..{MAX_REFRACTORY}"):
            Cuba(4096, 0, 5, wrong)
    with pytest.raises(TypeError):
        Cuba(4096, 0, 5, 2.5)  # type: ignore[arg-type]


def test_inputs_that_a_layer_cannot_have() -> None:
    square = Matrix.from_dense(np.ones((2, 2), int))
    first, own = Input(INPUT, square), Input("a", square)
    for inputs, message in (
        ((), "first input is missing, or"),
        ((own, first), "first input is missing, or"),
        ((first, own, own), "2 of its inputs are recurrent: at most 1"),
        ((first, Input("a", square, [1, 1])), "recurrent connections must not have delays"),  # type: ignore[arg-type]
        ((first, Input(INPUT, Injection((2,)))), "injected input has to be its first input"),
        ((first, Input(INPUT, square, [0, 63])), "delay 63 is outside 0..62"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=f"layer a: .*{message}"):
            Layer("a", inputs, LIF)


def test_a_layer_that_never_fires_feeds_no_other() -> None:
    square = Matrix.from_dense(np.ones((2, 2), int))
    silent = Layer("a", (Input(INPUT, square),), INTEGRATOR)
    other = Layer("b", (Input("a", square),), LIF)
    with pytest.raises(ValueError, match="layer a never fires but feeds layer b"):
        Network((silent, other))


def test_delays_and_names_of_all_inputs() -> None:
    square = Matrix.from_dense(np.ones((2, 2), int))
    late = Input(INPUT, square, np.array([3, 0], np.int32))
    layer = Layer("a", (Input(INPUT, square), late, Input("a", square)), LIF)
    steps = [np.ravel(layer.late(part)).tolist() for part in layer.inputs]
    assert steps == [[0], [3, 0], [1]]
    assert [name for name, _ in layer.named()] == [
        "weight",
        "weight of the skip from input",
        "recurrent weight",
    ]


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_spikes_reach_the_same_outputs_for_any_block(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esl_lava.connections.BLOCK", block)
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (5, 3))
    active = rng.random((4, 3)) < 0.5
    expected = (active[:, None] & (weights != 0)).any(axis=2)
    np.testing.assert_array_equal(Matrix.from_dense(weights).reached(active), expected)
