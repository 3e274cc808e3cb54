import numpy as np
import pytest

from esl_lava.errors import BackendError, DataError
from esl_lava.network import INTEGRATOR, Connections, Cuba, Layer, Network
from esl_lava.simulate import BACKENDS, simulate
from esl_lava.simulate.result import checked_input, count, decide, recorded_layers

NETWORK = Network(
    (
        Layer("hidden", Connections.from_dense(np.full((3, 6), 4)), Cuba(4096, 0, 10)),
        Layer("readout", Connections.from_dense([[2, 0, -2], [2, 2, 2]]), INTEGRATOR),
    ),
    steps=5,
)
ONES = np.ones((2, 5, 6), np.uint8)


@pytest.mark.parametrize(
    ("spikes", "sentence"),
    [
        (
            np.ones((5, 6), int),
            r"shape \(samples, T, inputs\) and integer type, not \(5, 6\) int64",
        ),
        (np.float32(ONES), r"not \(2, 5, 6\) float32"),
        (ONES.astype(complex), "complex128"),
        (ONES.astype(object), "object"),
        (ONES.astype(str), "<U"),
        (3, r"not \(\) int64"),
        (ONES[:0], r"shape \(0, 5, 6\) hold no sample"),
        (ONES[:, :0], r"shape \(2, 0, 6\) hold no sample or no step"),
        (ONES[:, :, :0], "0 channels, the network has 6 inputs"),
        (ONES[:, :, :5], "5 channels, the network has 6 inputs"),
        (ONES[:, :4], "4 steps, the network is presented 5"),
        (2 * ONES, "0 or 1, found 2"),
        (-ONES.astype(np.int8), "0 or 1, found -1"),
        (np.where(np.arange(6) == 3, 256, ONES.astype(int)), "found 256"),  # 0 as uint8
        (ONES.astype(np.uint64) << np.uint64(63), f"found {1 << 63}"),
    ],
)
def test_unusable_spikes(spikes, sentence):
    with pytest.raises(DataError, match=sentence):
        checked_input(NETWORK, spikes)
    with pytest.raises(DataError, match=sentence):
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
    network = Network(NETWORK.layers)
    assert simulate(network, ONES[:, :2]).readout.shape == (2, 2, 2)


def test_further_axes_are_flattened_in_c_order():
    spikes = np.random.default_rng(1).integers(0, 2, (4, 5, 1, 2, 3), np.uint8)
    spatial = simulate(NETWORK, spikes, record="all")
    flat = simulate(NETWORK, spikes.reshape(4, 5, 6), record="all")
    np.testing.assert_array_equal(spatial.spikes["hidden"], flat.spikes["hidden"])
    assert spatial.counts == flat.counts


def test_unknown_backend():
    assert BACKENDS == ("exact", "lava")
    with pytest.raises(BackendError, match="unknown backend 'loihi'; there are exact, lava"):
        simulate(NETWORK, ONES, backend="loihi")


def test_recorded_layers():
    assert recorded_layers(NETWORK, None) == ()
    assert recorded_layers(NETWORK, "all") == ("hidden",)
    assert recorded_layers(NETWORK, "hidden") == ("hidden",)
    assert recorded_layers(NETWORK, ["hidden"]) == ("hidden",)  # type: ignore[arg-type]
    for name in ("readout", "hidde"):
        sentence = f"no firing layer '{name}' to record; there are hidden"
        with pytest.raises(DataError, match=sentence):
            simulate(NETWORK, ONES, record=(name,))


def test_decide():
    readout = np.array([[[9, 0, 0], [1, 5, 5]], [[0, 0, 0], [-3, -3, -4]]], np.int32)
    assert decide(readout, None).tolist() == [1, 0]
    # 300 spikes overflow uint8: class 0 would have 44.
    spikes = np.zeros((1, 300, 2), np.uint8)
    spikes[:, :, 0] = 1
    spikes[:, :100, 1] = 1
    assert decide(None, spikes).tolist() == [0]


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


def test_count_needs_every_firing_layer():
    with pytest.raises(KeyError, match="hidden"):
        count(NETWORK, ONES, {})
