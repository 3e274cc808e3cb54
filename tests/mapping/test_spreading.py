import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.devices import load_device
from esl_lava.errors import LimitError
from esl_lava.mapping import map_network, spreading
from esl_lava.network import INTEGRATOR, Convolution, Cuba, Input, Layer, Matrix, Network
from esl_lava.simulate import simulate
from tests.convnets import resnet19, vggsnn
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.mapping.test_partition import SPIKING, check, chip, layer, random
from tests.simulate.networks import Case, cases


def dense(part: Any) -> Any:
    return part.unrolled().dense()


@pytest.mark.slow
@given(cases(), st.data())
@settings(max_examples=40, deadline=None)
def test_parts_hold_every_synapse_once_and_add_up(case: Case, data: st.DataObject) -> None:
    for one in case.network.layers:
        if spreading.neurons_fault(one, case.network, 32) is not None:
            continue
        parts = data.draw(st.integers(1, min(4, spreading.most_parts(one))))
        sums, joined = spreading.by_neurons(one, parts, "sums")
        assert sums.neurons == parts * one.neurons
        assert (joined.neuron, joined.shape) == (one.neuron, one.shape)
        join = dense(joined.inputs[0].connections)
        assert np.unique(join).tolist() in ([0, 1], [1])
        assert join.sum() == parts * one.neurons
        for given_input, cut in zip(one.inputs, sums.inputs):
            assert given_input.source == cut.source
            whole, in_parts = dense(given_input.connections), dense(cut.connections)
            assert (join @ in_parts).tolist() == whole.tolist()
            assert np.count_nonzero(in_parts) == np.count_nonzero(whole)
            for name in ("stored", "count", "synapses", "nonzero"):
                found = getattr(cut.connections, name)
                assert found == getattr(given_input.connections, name), name


@pytest.mark.slow
@given(cases(), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_the_host_adds_what_the_readout_held(case: Case, parts: int) -> None:
    readout = case.network.readout
    if readout is None or spreading.host_fault(readout) is not None:
        return
    if parts > spreading.most_parts(readout):
        return
    steps = case.inputs.shape[1]
    timed = replace(case.network, steps=steps)
    spread = replace(timed, layers=(*timed.layers[:-1], spreading.on_the_host(readout, parts)))
    whole = simulate(timed, case.inputs).readout
    found = simulate(spread, case.inputs).readout
    assert whole is not None
    assert found is not None
    added = found.reshape(*whole.shape[:2], parts, -1).astype(np.int64).sum(axis=2)
    if spreading.host_is_proven(readout, timed):
        assert added.tolist() == whole.reshape(added.shape).tolist()


def test_parts_that_are_proven_add_up_to_the_readout() -> None:
    """With a bias, delays and decays of 0 or 1 the sums of the host are the same integers."""
    rng = np.random.default_rng(1)
    for current_decay in (0, 4096):
        weights = rng.integers(-100, 100, (3, 12))
        neuron = replace(INTEGRATOR, current_decay=current_decay)
        one = a_layer(
            "readout", Matrix.from_dense(weights), neuron, bias=[5, -7, 0], delays=[0, 2, 1]
        )
        network = Network((one,), steps=6)
        assert spreading.host_is_proven(one, network)
        spread = Network((spreading.on_the_host(one, 3),), steps=6)
        spikes = rng.integers(0, 2, (4, 6, 12))
        whole, parts = (simulate(each, spikes).readout for each in (network, spread))
        assert whole is not None
        assert parts is not None
        assert whole.any()
        assert parts.reshape(4, 6, 3, 3).sum(axis=2).tolist() == whole.tolist()
    large = replace(network, steps=1 << 14)
    assert not spreading.host_is_proven(one, large)
    assert not spreading.host_is_proven(one, replace(network, steps=None))


@pytest.mark.parametrize(
    ("input_range", "most"),
    [
        ((0, 1), 12),  # 5 + 7, of neuron 1
        ((0, 3), 36),
        ((-16, 15), 2 * 15 + 12 * 16),  # neuron 1 at -16, -16 and 15
    ],
)
def test_the_largest_sum_is_of_inputs_at_their_ends(
    input_range: tuple[int, int], most: int
) -> None:
    """Neuron 0 has the weights -9 and 0, neuron 1 has 5, 7 and -2. Every part counts alone."""
    weights = np.array([[-9, 0, 0], [5, 7, -2]])
    one = layer("a", Matrix.from_dense(weights, weights != 0))
    assert spreading.largest_sum(one, Network((one,), input_range=input_range)) == most


def test_a_spike_may_have_any_number_of_bits() -> None:
    """A sum of 12 takes four bits and a sign. A device file may state a trillion bits."""
    weights = np.array([[5, 7, -2]])
    one = layer("a", Matrix.from_dense(weights, weights != 0))
    network = Network((one,))
    for bits, fits in ((4, False), (5, True), (1 << 40, True)):
        assert (spreading.neurons_fault(one, network, bits) is None) == fits


def toy(**limits: object) -> Any:
    return chip(neurons=20, cores=16, **limits)


def test_a_readout_just_over_the_limit_lies_on_two_cores() -> None:
    """Ten inputs to three neurons, six input axons per core: each core has five inputs."""
    network = a_network((layer("readout", random((3, 10), 1.0), INTEGRATOR),), steps=4)
    found = map_network(network, toy(input_axons=6))
    check(network, found)
    (place,) = found.layers
    assert [core.used["input_axons"] for core in place.cores] == [5, 5]
    assert [core.region.channels for core in place.cores] == [(0, 3), (3, 6)]
    spread = place.spread
    assert spread is not None
    assert (spread.by, spread.parts, spread.fan_in) == ("host", 2, 10)
    assert (spread.resource, spread.used, spread.limit) == ("input_axons", 10, 6)
    assert (spread.neurons, spread.messages, spread.steps, spread.layer) == (3, 0, 0, None)
    assert spread.proven
    assert spread.said == (
        "a fan-in of up to 10 is spread over 2 parts, because one neuron alone on a core would "
        "take 10 input axons, more than the limit of 6: each neuron lies on the chip 2 times (3 "
        "added neurons), and the host adds the 2 potentials of each neuron; this adds no message "
        "and no step"
    )
    # With ten input axons per core the readout fits without spreading.
    assert map_network(network, toy(input_axons=10)).layers[0].spread is None


def test_a_readout_is_spread_where_that_takes_fewer_cores() -> None:
    """20 words: 20 lists of 8 x 6 + 10 bits take one each, 10 lists of 13 neurons two."""
    network = a_network((layer("readout", random((13, 20), 1.0), INTEGRATOR),), steps=1 << 14)
    (place,) = map_network(network, toy(synapse_words=20)).layers
    assert len(place.cores) == 2
    spread = place.spread
    assert spread is not None
    assert (spread.parts, spread.unspread, spread.resource, spread.proven) == (2, 3, None, False)
    assert "because the layer takes 3 cores otherwise" in spread.said
    assert spread.said.endswith("; exact where no potential clips")


def test_neurons_sum_for_one_that_fires_where_spikes_carry_a_value() -> None:
    network = a_network((layer("a", random((3, 10), 1.0)), layer("b", random((4, 3), 1.0))))
    found = map_network(network, toy(input_axons=6, graded_spikes=24))
    check(network, found)
    sums, a, b = found.layers
    assert [place.name for place in found.layers] == ["a.sums", "a", "b"]
    assert found.sums == ("a.sums",)
    assert [core.used["input_axons"] for core in sums.cores] == [5, 5]
    assert (sums.neurons, sums.connections, sums.density) == (6, 30, 1.0)
    (core,) = a.cores
    assert (core.used["input_axons"], core.used["neurons"], a.weight_bits) == (6, 3, 1)
    # Every sum is sent to its neuron, and every neuron of a sends to the core of b.
    assert [core.used["output_axons"] for core in (*sums.cores, core)] == [3, 3, 3]
    spread = a.spread
    assert spread is not None
    assert (spread.by, spread.parts, spread.layer) == ("neurons", 2, "a.sums")
    assert (spread.neurons, spread.messages, spread.steps, spread.proven) == (6, 6, 1, True)
    assert spread.said == (
        "a fan-in of up to 10 is spread over 2 parts, because one neuron alone on a core would "
        "take 10 input axons, more than the limit of 6: each neuron receives the sums of 2 added "
        "neurons as graded spikes (layer a.sums, 6 added neurons); this adds at most 6 messages in "
        "a step and 1 step of latency; netx cannot build such a layer"
    )
    assert b.spread is None


def test_a_kernel_is_spread_over_its_input_channels() -> None:
    """Six channels of 3 x 3 positions have 54 lists, of two words each, and a core has 70 words."""
    kernel = Convolution(np.full((2, 6, 3, 3), 2), (6, 4, 4), padding=(1, 1))
    network = a_network((layer("conv", kernel),))
    found = map_network(network, chip(packing="netx", synapse_words=70, graded_spikes=24, cores=99))
    check(network, found)
    sums, conv = found.layers
    assert conv.spread is not None
    # The lists take 108 words. Parts of three channels take 54.
    assert (conv.spread.resource, conv.spread.used) == ("synapse_words", 108)
    assert (conv.spread.parts, sums.neurons) == (2, 64)
    assert {core.used["synapse_words"] for core in sums.cores} == {54}
    assert sums.connections == kernel.count
    assert conv.connections == 64


@pytest.mark.parametrize(
    ("changes", "limits", "used", "reasons", "density"),
    [
        ({}, {}, 10, "its neurons fire and spikes of this chip carry no value", 0.6),
        (
            {"recurrent": random((3, 3), 1.0)},
            {"graded_spikes": 24},
            *(13, "its neurons fire and its neurons are recurrent", 0.46),
        ),
        (
            {},
            {"graded_spikes": 9},
            10,
            "its neurons fire and a sum may reach {most}, which a spike of 9 bits cannot carry",
            0.6,
        ),
        (
            {"neuron": Cuba(4096, 2048, 1 << 17)},
            {},
            10,
            "its neurons decay with rounding and spikes of this chip carry no value",
            0.6,
        ),
    ],
)
def test_what_cannot_be_spread_is_refused_with_what_would_fit(
    changes: dict[str, Any], limits: dict[str, object], used: int, reasons: str, density: float
) -> None:
    given_layer = {"neuron": SPIKING, **changes}
    network = a_network((layer("a", random((3, 10), 1.0), **given_layer),))
    with refused(LimitError, "limit", layer="a", key="input axons", value=used, limit=6) as caught:
        map_network(network, toy(input_axons=6, **limits))
    weights = np.sort(network.first.unrolled().dense(), axis=1)
    most = max(weights.clip(0).sum(axis=1).max(), -weights.clip(None, 0).sum(axis=1).min())
    assert f"because {reasons.format(most=most)}; " in str(caught.value)
    assert str(caught.value).endswith(f" a density of at most about {density} would fit")


def test_a_pool_of_neurons_is_named_where_it_would_fit() -> None:
    """A folded 2 x 2 pool: 24 inputs have the weights of 6."""
    sums = np.arange(2, 2 + 12).reshape(2, 6)
    network = a_network((layer("a", Matrix.from_dense(sums.repeat(4, axis=1))),))
    with pytest.raises(LimitError) as caught:
        map_network(network, toy(input_axons=10))
    assert str(caught.value).endswith(
        "a density of at most about 0.41 or a spiking pool in front of it (which leaves about 6 "
        "input axons) would fit"
    )
    # If axons are shared, the six lists take six axons.
    (place,) = map_network(network, toy(input_axons=10, shared_axons=True)).layers
    assert [core.used["input_axons"] for core in place.cores] == [6]


def test_the_density_that_is_named_fits() -> None:
    device = toy(input_axons=30)
    for seed in range(5):
        full = a_network((layer("a", random((4, 80), 1.0, seed)),))
        with pytest.raises(LimitError) as caught:
            map_network(full, device)
        named = re.search(r"at most about ([\d.]+) would", str(caught.value))
        assert named is not None
        rows = np.zeros((4, 80), np.int32)
        rows[:, : int(float(named[1]) * 80)] = 2
        fits = a_network((layer("a", Matrix.from_dense(rows, rows != 0)),))
        assert map_network(fits, device).cores


def test_a_name_that_is_taken_is_made_another() -> None:
    layers: tuple[Layer, ...] = (
        layer("a.sums", random((9, 2), 1.0)),
        layer("a", random((2, 9), 1.0)),
    )
    found = map_network(a_network(layers), toy(input_axons=5, graded_spikes=24))
    assert [place.name for place in found.layers] == ["a.sums", "a.sums_", "a"]


@pytest.mark.slow
def test_what_skips_a_layer_that_others_sum_for_waits_a_step_more() -> None:
    wide = random((4, 12), 1.0)
    skip = Input("a", Matrix.from_dense(np.eye(2, 12, dtype=np.int32), np.eye(2, 12) > 0))
    last = layer("c", random((2, 4), 1.0), skips=(skip,))
    network = a_network((layer("a", random((12, 2), 1.0)), layer("b", wide), last))
    plain = map_network(network, toy(input_axons=16, graded_spikes=24)).layers
    spread = map_network(network, toy(input_axons=8, graded_spikes=24)).layers
    assert [(place.name, place.waits) for place in plain] == [("a", 0), ("b", 0), ("c", 1)]
    assert [(place.name, place.waits) for place in spread] == [
        *(("a", 0), ("b.sums", 0), ("b", 0)),
        ("c", 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
@pytest.mark.parametrize("network", [vggsnn(0.1, width=0.25), resnet19(0.1, width=0.5)])
def test_convolutional_networks_lie_within_every_limit(name: str, network: Network) -> None:
    check(network, map_network(network, load_device(name)))
