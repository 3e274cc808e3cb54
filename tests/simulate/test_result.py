import numpy as np
import pytest
from hypothesis import given, settings

from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images
from esl_lava.errors import BackendError, DataError
from esl_lava.experiments import evaluate
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Matrix,
)
from esl_lava.simulate import BACKENDS, simulate
from esl_lava.simulate.result import (
    checked_input,
    chosen_layers,
    count,
    decide,
    deciding_states,
    join_results,
    sops_by_sample,
)
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate.networks import cases

NETWORK = a_network(
    (
        a_layer("hidden", Matrix.from_dense(np.full((3, 6), 4)), Cuba(4096, 0, 10)),
        a_layer("readout", Matrix.from_dense([[2, 0, -2], [2, 2, 2]]), INTEGRATOR),
    ),
    steps=5,
)
ONES = np.ones((2, 5, 6), np.uint8)


@pytest.mark.parametrize(
    ("spikes", "code", "fields"),
    [
        (np.ones((5, 6), int), "shape", {"value": (5, 6)}),
        (np.float32(ONES), "type", {"value": "float32"}),
        (ONES.astype(complex), "type", {"value": "complex128"}),
        (ONES.astype(object), "type", {"value": "object"}),
        (ONES.astype(str), "type", {"value": "<U3"}),
        (3, "shape", {"value": ()}),
        (ONES[:0], "shape", {"value": (0, 5, 6)}),
        (ONES[:, :0], "shape", {"value": (2, 0, 6)}),
        (ONES[:, :, :0], "mismatch", {"value": 0, "limit": 6}),
        (ONES[:, :, :5], "mismatch", {"value": 5, "limit": 6}),
        (ONES[:, :4], "mismatch", {"value": 4, "limit": 5}),
        (2 * ONES, "range", {"value": 2, "limit": 1}),
        (-ONES.astype(np.int8), "range", {"value": -1, "limit": 0}),
        # 256 is 0 as uint8.
        (np.where(np.arange(6) == 3, 256, ONES.astype(int)), "range", {"value": 256, "limit": 1}),
        (ONES.astype(np.uint64) << np.uint64(63), "range", {"value": 1 << 63, "limit": 1}),
    ],
)
def test_unusable_spikes(spikes, code, fields):
    with refused(DataError, code, key="spikes", **fields):
        checked_input(NETWORK, spikes)
    with refused(DataError, code, key="spikes", **fields):
        simulate(NETWORK, spikes)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.uint64])
def test_any_integer_type(dtype):
    spikes = np.random.default_rng(0).integers(0, 2, (2, 5, 6)).astype(dtype)
    checked = checked_input(NETWORK, spikes)
    assert checked.dtype == np.uint8
    np.testing.assert_array_equal(checked, spikes)


def test_lists_and_strided_views():
    np.testing.assert_array_equal(checked_input(NETWORK, ONES.tolist()), ONES)
    spikes = np.random.default_rng(0).integers(0, 2, (6, 5, 2), np.uint8)
    checked = checked_input(NETWORK, spikes.T)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, spikes.T)


def test_a_network_without_steps_takes_any_number():
    network = a_network(NETWORK.layers)
    assert simulate(network, ONES[:, :2]).readout.shape == (2, 2, 2)


def test_further_axes_are_flattened_in_c_order():
    spikes = np.random.default_rng(1).integers(0, 2, (4, 5, 1, 2, 3), np.uint8)
    spatial = simulate(NETWORK, spikes, record="all")
    flat = simulate(NETWORK, spikes.reshape(4, 5, 6), record="all")
    np.testing.assert_array_equal(spatial.spikes["hidden"], flat.spikes["hidden"])
    assert spatial.counts == flat.counts


MAPS = a_network(
    (a_layer("conv", Convolution(np.full((1, 2, 1, 1), 2), (2, 3, 4)), Cuba(4096, 4096, 1)),)
)
DRIVEN = a_network((a_layer("in", Injection((2, 3, 4)), Cuba(4096, 4096, 1)),))
FULL = a_network((a_layer("full", Matrix.from_dense(np.eye(24, dtype=int)), Cuba(0, 0, 1)),))


@pytest.mark.parametrize("network", [MAPS, DRIVEN, FULL])
def test_the_shape_of_inputs_is_held_against_the_networks(network):
    spikes = np.random.default_rng(2).integers(0, 2, (3, 5, 2, 3, 4), np.uint8)
    flat = simulate(network, spikes.reshape(3, 5, 24), record="all")
    several = {(3, 4, 2): spikes.transpose(0, 1, 3, 4, 2), (4, 6): spikes.reshape(3, 5, 4, 6)}
    if network is FULL:  # which takes rows and columns, but cannot tell three axes apart
        several[2, 3, 4] = spikes
        image = simulate(network, several.pop((4, 6)), record="all")
        np.testing.assert_array_equal(image.spikes["full"], flat.spikes["full"])
        takes = "the network takes 24 inputs on one axis"
    else:
        shaped = simulate(network, spikes, record="all")
        for name, found in shaped.spikes.items():
            np.testing.assert_array_equal(found, flat.spikes[name])
        takes = "the axes (2, 3, 4) (channels, rows, columns), or 24 inputs on one axis"
    for axes, wrong in several.items():
        limit = network.input_shape
        with refused(DataError, "shape", key="spikes", value=axes, limit=limit) as caught:
            simulate(network, wrong)
        assert takes in str(caught.value)


def test_unknown_backend():
    assert BACKENDS == ("exact", "lava", "lava-models", "loihi2")
    with refused(BackendError, "unknown", key="backend", value="loihi", limit=", ".join(BACKENDS)):
        simulate(NETWORK, ONES, backend="loihi")


def test_recorded_layers():
    assert chosen_layers(NETWORK, None, firing=True) == ()
    assert chosen_layers(NETWORK, "all", firing=True) == ("hidden",)
    assert chosen_layers(NETWORK, "hidden", firing=True) == ("hidden",)
    assert chosen_layers(NETWORK, ["hidden"], firing=True) == ("hidden",)
    for name in ("readout", "hidde"):
        with refused(DataError, "unknown", key="record", value=name, limit="hidden"):
            simulate(NETWORK, ONES, record=(name,))


def test_traced_layers():
    assert chosen_layers(NETWORK, None) == ()
    assert chosen_layers(NETWORK, "all") == ("hidden", "readout")
    assert chosen_layers(NETWORK, ("readout",)) == ("readout",)
    with refused(DataError, "unknown", key="states", value="out", limit="hidden, readout"):
        simulate(NETWORK, ONES, states="out")


@pytest.mark.parametrize("ends", [(-7, 7), (-16, 15), (0, 3), (-5, 0)])
def test_graded_spikes_are_checked_against_their_range(ends: tuple[int, int]) -> None:
    graded = a_network(NETWORK.layers, 5, input_range=ends)
    low, high = ends
    spikes = np.where(np.arange(6) == 2, low, high * ONES.astype(np.int64))
    checked = checked_input(graded, spikes)
    assert checked.dtype == np.int32
    np.testing.assert_array_equal(checked, spikes)
    for value, limit in ((low - 1, low), (high + 1, high)):
        with refused(DataError, "range", key="spikes", value=value, limit=limit):
            checked_input(graded, value * ONES.astype(np.int64))


def test_pixels_that_repeat_in_memory_are_laid_out() -> None:
    pixels = np.arange(-3, 3, dtype=np.int8)
    repeated = np.broadcast_to(pixels, (2, 5, 6))
    checked = checked_input(a_network(NETWORK.layers, 5, input_range=(-4, 3)), repeated)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, repeated)


def test_a_pause_to_the_end_makes_the_first_spike_decide():
    for refractory, expected in ((62, [2, 2, 2, 0]), (0, [0, 0, 0, 0])):
        last = a_layer("a", Matrix.from_dense([[1]]), Cuba(4096, 0, 5, refractory))
        assert [len(deciding_states(last, steps)) for steps in (1, 2, 63, 64)] == expected


def test_decide():
    readout = np.array([[[9, 0, 0], [1, 5, 5]], [[0, 0, 0], [-3, -3, -4]]], np.int32)
    assert decide(NETWORK.layers[1], None, v=readout).tolist() == [1, 0]
    # 300 spikes overflow uint8: class 0 would have 44.
    spikes = np.zeros((1, 300, 2), np.uint8)
    spikes[:, :, 0] = 1
    spikes[:, :100, 1] = 1
    firing = a_layer("a", Matrix.from_dense([[2], [2]]), Cuba(4096, 0, 10))
    assert decide(firing, spikes).tolist() == [0]
    # A membrane clips at 2**23 - 1, which u can exceed by one: a tie, for the lower class.
    once = a_layer("a", Matrix.from_dense([[2], [2]]), Cuba(0, 0, 10, refractory=4))
    u = np.array([[[(1 << 23) - 1, 1 << 23], [0, 0]]], np.int32)
    first = np.array([[[1, 1], [0, 0]]], np.uint8)
    assert decide(once, first, u, np.zeros_like(u)).tolist() == [0]


def test_operations_by_sample():
    inputs = np.zeros((2, 5, 6), np.uint8)
    inputs[0, :, 0] = 1
    hidden = np.zeros((2, 5, 3), np.uint8)
    hidden[1, 2] = 1
    hidden[1, 3, 1] = 1
    # Each input reaches 3 neurons; neurons reach 2, 1 and 2 classes.
    assert sops_by_sample(NETWORK, inputs, {"hidden": hidden}).tolist() == [5 * 3, 2 + 1 + 2 + 1]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cases())
def test_operations_by_sample_are_those_of_the_run(case):
    result = simulate(case.network, case.inputs, record="all")
    by_sample = sops_by_sample(case.network, case.inputs, result.spikes)
    assert by_sample.sum() == result.counts.sops
    alone = simulate(case.network, case.inputs[-1:])
    assert by_sample[-1] == alone.counts.sops


def test_count_from_spikes():
    inputs = np.zeros((2, 5, 6), np.uint8)
    inputs[0, :, 0] = 1
    hidden = np.zeros((2, 5, 3), np.uint8)
    hidden[1, 2] = 1
    hidden[1, 3, 1] = 1
    counts = count(NETWORK, inputs, {"hidden": hidden})
    first, last = counts.layers
    assert (counts.samples, counts.steps, counts.input_spikes) == (2, 5, 5)
    assert (first.sops, first.spikes, first.neuron_updates) == (5 * 3, 4, 30)
    # Fan-outs 2, 1 (the other connection has weight 0) and 2.
    assert (last.sops, last.spikes, last.neuron_updates) == (2 + 1 + 2 + 1, 0, 20)
    assert (counts.sops, counts.spikes) == (21, 4)


def test_count_of_recurrent_synapses_and_skips():
    recurrent = Matrix.from_dense([[2, 0], [2, 2]])
    skip = Input("input", Matrix.from_dense([[2, 2, 0], [0, 0, 0]]))
    first = Matrix.from_dense([[2, 2, 2], [0, 2, 0]])
    layer = a_layer("only", first, Cuba(4096, 0, 10), recurrent=recurrent, skips=(skip,))
    inputs = np.array([[[5, 0, 0], [0, -3, 1]]])
    spikes = np.array([[[1, 0], [1, 1]]], np.uint8)
    counts = count(a_network((layer,), input_range=(-3, 5)), inputs, {"only": spikes})
    # Fan-outs of inputs 1, 2, 1 and by the skip 1, 1, 0; of neurons 2, 1. The two spikes of
    # the last step would come back when the sample is over.
    assert counts.input_spikes == 3
    assert counts.sops == (1 + 2 + 1) + (1 + 1) + 2
    assert (counts.layers[0].spikes, counts.layers[0].returned) == (3, 1)
    assert (counts.layers[0].possible, counts.layers[0].connections) == (6 + 4 + 6, 6 + 4 + 6)
    assert counts.layers[0].synapses == 4 + 3 + 2


def test_count_of_delayed_synapses():
    """A spike that would arrive after the sample's last step crosses no synapse."""
    connections = Matrix.from_dense([[2, 2], [2, 0], [2, 2]])
    layer = a_layer("only", connections, INTEGRATOR, delays=[0, 1, 9])
    network = a_network((layer,))
    inputs = np.array([[[1, 0], [0, 0], [1, 1]], [[1, 1], [1, 1], [0, 0]]], np.uint8)
    # With two steps left 2 synapses of the first input and 1 of the second are in time, with
    # one left the same, with none 1 of either.
    assert sops_by_sample(network, inputs, {}).tolist() == [2 + (1 + 1), 2 * (2 + 1)]
    for counts in (count(network, inputs, {}), simulate(network, inputs).counts):
        assert counts.sops == 4 + 6


@pytest.mark.parametrize("lots", [(5,), (2, 3), (1, 1, 3)])
def test_joined_lots_are_one_run(lots):
    spikes = np.random.default_rng(2).integers(0, 2, (5, 5, 6)).astype(np.uint8)
    whole = simulate(NETWORK, spikes, record="all", states="all")
    parts = np.split(spikes, np.cumsum(lots)[:-1])
    lots_run = [simulate(NETWORK, part, record="all", states="all") for part in parts]
    together = join_results(lots_run)
    assert together.counts == whole.counts
    assert together.overflows == whole.overflows
    np.testing.assert_array_equal(together.decisions, whole.decisions)
    np.testing.assert_array_equal(together.readout, whole.readout)
    for what in ("spikes", "u", "v"):
        kept, expected = getattr(together, what), getattr(whole, what)
        assert list(kept) == list(expected)
        for name in kept:
            np.testing.assert_array_equal(kept[name], expected[name])


def test_an_evaluation_in_portions_is_one_run(monkeypatch):
    images = np.random.default_rng(3).integers(0, 256, (7, 6)).astype(np.uint8)
    data = Images("seven", images, np.array([0, 1, 1, 0, 1, 0, 0]), 2, (2, 3))
    whole = evaluate.evaluate(NETWORK, data, Encoding(steps=5))
    sizes = []

    def noting(network, spikes, backend, record):
        sizes.append(len(spikes))
        return simulate(network, spikes, backend, record)

    monkeypatch.setattr(evaluate, "ENCODED_BYTES", 3 * 5 * 6)
    monkeypatch.setattr(evaluate, "simulate", noting)
    portions = evaluate.evaluate(NETWORK, data, Encoding(steps=5))
    assert sizes == [3, 3, 1]
    assert portions.accuracy == whole.accuracy
    assert portions.result.counts == whole.result.counts
    np.testing.assert_array_equal(portions.result.readout, whole.result.readout)


def test_count_needs_every_firing_layer():
    with pytest.raises(KeyError, match="hidden"):
        count(NETWORK, ONES, {})
