from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.devices import Device, load_device
from esl_lava.errors import ConfigError, LimitError
from esl_lava.mapping import CoreMap, map_network
from esl_lava.mapping.placement import RESOURCES
from esl_lava.mapping.placer import stored_bits
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Layer,
    Matrix,
    Network,
)
from tests.faults import check as check_fault
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate.networks import Case, cases


def chip(**limits: object) -> Device:
    """Return a chip with small limits. `limits` may also hold `packing` and `cores`."""
    source = {"kind": "specified", "source": "s"}
    given: dict[str, Any] = {
        **{"cores": 4, "neurons": 64, "input_axons": 100, "output_axons": 200},
        **{"synapse_words": 200, "synapse_formats": 9, "words_per_axon": 90},
        **limits,
    }
    packing = given.pop("packing", "nengo-loihi")
    word_bits = 32 if packing == "netx" else 64
    return Device.model_validate(
        {
            **{"name": "small", "title": "t", "maker": "m"},
            "capacity": {
                **{"packing": packing, "word_bits": word_bits, "weight_bits": [1, 2, 4, 8, 16]},
                **{name: {"value": value, **source} for name, value in given.items()},
            },
        }
    )


def random(shape: tuple[int, int], density: float, seed: int = 0) -> Matrix:
    """Return a matrix with a share `density` of even weights of both signs, none of them 0."""
    rng = np.random.default_rng(seed)
    size = shape[0] * shape[1]
    mask = np.zeros(size, bool)
    mask[rng.permutation(size)[: round(density * size)]] = True
    weights = 2 * rng.integers(1, 127, size) * rng.choice((-1, 1), size)
    return Matrix.from_dense(np.where(mask, weights, 0).reshape(shape), mask.reshape(shape))


SPIKING = Cuba(4096, 2048, 64)


def layer(name: str, part: Matrix, neuron: Cuba = SPIKING, **more: Any) -> Layer:
    return a_layer(name, part, neuron, **more)


def paper(density: float) -> Network:
    hidden = layer("hidden", random((800, 784), density))
    return a_network((hidden, layer("readout", random((10, 800), 1.0), INTEGRATOR)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("density", "cores", "form"),
    [(1.0, 6, "dense"), (0.5, 6, None), (0.3, 4, "sparse"), (95_040 / 627_200, 2, "sparse")],
)
def test_784_to_800_on_loihi_1_by_nengo_lohis_rule(
    density: float, cores: int, form: str | None
) -> None:
    found = map_network(paper(density), load_device("loihi1"), packed="nengo-loihi")
    hidden = found.layers[0]
    assert len(hidden.cores) == cores
    assert hidden.weight_bits == 8
    assert form in (None, hidden.form)
    assert hidden.words["dense"][1] == 6
    assert hidden.binding == "synapse_words"
    assert hidden.density == pytest.approx(density, abs=1e-6)
    assert hidden.fit is not None
    if density == 1.0:
        assert hidden.fit.width == 5 * 142  # at most 142 neurons fit a core


@pytest.mark.slow
def test_784_to_800_on_loihi_2() -> None:
    dense = map_network(paper(1.0), load_device("loihi2")).layers[0]
    assert (len(dense.cores), dense.form) == (15, "dense")
    assert dense.fit is not None
    assert dense.fit.width == 14 * 56  # 784 * (14 + 1) words; 57 neurons take 784 * 16
    sparse = map_network(paper(0.1515), load_device("loihi2")).layers[0]
    assert (len(sparse.cores), sparse.form) == (5, "sparse")


@pytest.mark.slow
def test_run_length_saves_what_indices_cost() -> None:
    hidden = map_network(paper(0.3), load_device("loihi1")).layers[0]
    assert hidden.form == "runlength"
    assert {form: cores for form, (_, cores) in hidden.words.items()} == {
        **{"runlength": 4, "sparse": 5},
        "dense": 6,
    }


def check(network: Network, found: CoreMap) -> None:
    """Assert that every neuron lies in one core, every limit holds, and cores are in order."""
    numbers = [core.number for place in found.layers for core in place.cores]
    assert numbers == list(range(found.cores))
    assert {each.name for each in network.layers} <= {place.name for place in found.layers}
    chips = [core.chip for place in found.layers for core in place.cores]
    assert chips == sorted(chips)
    assert set(chips) == set(range(found.chips))
    for each, place in zip(found.network.layers, found.layers):
        members = [core.region.members(each.shape) for core in place.cores]
        assert sorted(np.concatenate(members)) == list(range(each.neurons))
        for core in place.cores:
            for name, limit in found.limits.items():
                assert core.used[name] <= limit, (place.name, name)
            assert core.used["neurons"] == core.region.neurons
        for name, (used, limit) in found.utilisation(place).items():
            assert used <= limit
            most, binding_limit = found.utilisation(place)[place.binding]
            assert used / limit <= most / binding_limit, name


@pytest.mark.slow
@given(cases(), st.sampled_from(("nengo-loihi", "nxtf", "netx")), st.data())
@settings(max_examples=15, deadline=None)
def test_limits_hold_in_every_core_of_any_network(
    case: Case, packing: str, data: st.DataObject
) -> None:
    device = chip(
        packing=packing,
        cores=data.draw(st.integers(1, 5)),
        neurons=data.draw(st.integers(2, 20)),
        output_axons=data.draw(st.integers(20, 60)),
        synapse_words=data.draw(st.integers(20, 120)),
        input_axons=data.draw(st.integers(3, 100)),
        shared_axons=data.draw(st.booleans()),
        **data.draw(st.sampled_from(({}, {"graded_spikes": 24}))),
    )
    try:
        found = map_network(case.network, device)
    except LimitError as error:
        (fault,) = error.faults
        check_fault(fault, "limit")
        assert fault.layer in {each.name for each in case.network.layers}
        assert isinstance(fault.value, int)
        assert isinstance(fault.limit, int)
        assert fault.value > fault.limit
        return
    check(case.network, found)
    placed = {place.name: place for place in found.layers}
    for each in case.network.layers:
        spread = placed[each.name].spread
        holding = placed[each.name if spread is None or not spread.layer else spread.layer]
        assert holding.connections == sum(kind.count for kind in each.wiring)
        assert holding.weights >= sum(kind.stored for kind in each.wiring)


def test_output_axons_count_destination_cores_and_chips() -> None:
    # Each of the 6 neurons sends to both cores, which hold 4 neurons each.
    hidden, behind = random((6, 5), 1.0), random((8, 6), 1.0)
    network = a_network((layer("a", hidden), layer("b", behind)))
    near = map_network(network, chip(neurons=6, packing="nxtf", synapse_words=14, cores=8))
    first, second = near.layers
    assert [len(first.cores), len(second.cores)] == [1, 2]
    assert first.cores[0].used["output_axons"] == 12
    # The last two cores fill a chip of their own: one more entry for each of them.
    far = map_network(network, chip(neurons=6, packing="nxtf", synapse_words=14, cores=2))
    assert far.layers[0].cores[0].used["output_axons"] == 24
    assert (far.chips, far.layers[0].cores[0].chip) == (2, 0)
    assert {core.chip for core in far.layers[1].cores} == {1}
    assert all(core.used["output_axons"] == 0 for core in far.layers[1].cores)


def test_a_sparse_neuron_sends_only_where_it_has_synapses() -> None:
    block = np.kron(np.eye(2, dtype=np.int32), np.ones((4, 3), np.int32)) * 2
    network = a_network(
        (layer("a", random((6, 5), 1.0)), layer("b", Matrix.from_dense(block, block != 0)))
    )
    found = map_network(network, chip(neurons=4, synapse_words=100))
    assert len(found.layers[1].cores) == 2
    assert sum(core.used["output_axons"] for core in found.layers[0].cores) == 6
    assert [core.used["input_axons"] for core in found.layers[1].cores] == [3, 3]


def test_recurrence_takes_axons_of_its_own_cores() -> None:
    part = random((6, 5), 1.0)
    alone = a_network((layer("a", part),))
    looped = a_network((layer("a", part, recurrent=random((6, 6), 1.0)),))
    (used,) = (core.used for core in map_network(alone, chip()).layers[0].cores)
    (more,) = (core.used for core in map_network(looped, chip()).layers[0].cores)
    assert (used["output_axons"], more["output_axons"]) == (0, 6)
    assert (used["input_axons"], more["input_axons"]) == (5, 11)
    assert (used["synapse_formats"], more["synapse_formats"]) == (1, 2)


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        ([2, -2], 1),  # +1 and -1 share a power of two: two's complement of one bit has -1 only
        ([4, -8], 2),
        ([254, -256], 8),
        ([1, 0], 1),
        ([255], 8),
        ([-255], 8),
        ([3, -4], 4),
        ([0], 1),
    ],
)
def test_weights_are_stored_without_their_common_power_of_two(
    weights: list[int], bits: int
) -> None:
    capacity = chip().capacity
    assert capacity is not None
    part = Matrix.from_dense(np.array([weights], np.int32))
    expected = 2 if weights == [2, -2] else bits
    assert stored_bits(layer("a", part), capacity) == expected


def test_weights_too_wide_are_refused_by_layer() -> None:
    wide = layer("deep", Matrix.from_dense(np.array([[257, -300]], np.int32)))
    with refused(LimitError, "limit", layer="deep", key="weights", value=10, limit=8):
        map_network(a_network((wide,)), load_device("loihi1"))


def test_delays_take_bits_of_every_synapse() -> None:
    part = random((8, 20), 1.0)
    plain = map_network(a_network((layer("a", part),)), chip()).layers[0]
    late = layer("a", part, delays=np.full(8, 9, np.int32))
    slow = map_network(a_network((late,)), chip()).layers[0]
    assert slow.weight_bits == plain.weight_bits == 8
    assert (plain.words["dense"][0], slow.words["dense"][0]) == (20 * 2, 20 * 2)
    many = layer("a", part, delays=np.full(8, 62, np.int32))
    assert map_network(a_network((many,)), chip()).layers[0].words["dense"][0] == 20 * 2
    assert map_network(a_network((many,)), chip()).layers[0].words["sparse"][0] == 20 * 3


def test_injected_input_takes_neurons_only() -> None:
    network = a_network(
        (
            a_layer("image", Injection((10,)), Cuba(4096, 4096, 1)),
            layer("a", random((4, 10), 1.0)),
        ),
        input_range=(-255, 255),
    )
    used = map_network(network, chip()).layers[0].cores[0].used
    assert [used[name] for name in RESOURCES[:5]] == [10, 0, 10, 0, 0]


def test_a_population_has_its_entries_in_common() -> None:
    """A place of two channels has two entries for each target core, three if it is remote."""
    shape = (2, 4, 4)
    first = Convolution(np.full((2, 1, 1, 1), 2), (1, 4, 4))
    second = Convolution(np.full((3, 2, 1, 1), 2), shape)
    network = a_network((layer("a", first), layer("b", second)))
    near = map_network(network, chip(neurons=32, packing="nxtf", cores=8))
    assert [len(place.cores) for place in near.layers] == [1, 2]
    # Columns 0 and 1 send to one core, columns 2 and 3 to the other.
    assert near.layers[0].cores[0].used["output_axons"] == 16 * 2
    far = map_network(network, chip(neurons=32, packing="nxtf", cores=2))
    assert far.layers[0].cores[0].used["output_axons"] == 16 * 3
    # Through a matrix every neuron has entries of its own.
    matrix = a_network((layer("a", first), layer("b", second.unrolled())))
    alone = map_network(matrix, chip(neurons=32, packing="nxtf", cores=8))
    assert [len(place.cores) for place in alone.layers] == [1, 2]
    assert alone.layers[0].cores[0].used["output_axons"] == 32 * 2


@pytest.mark.parametrize(
    ("limits", "resource", "used"),
    [
        ({"input_axons": 4}, "input axons", 5),
        ({"synapse_words": 4, "words_per_axon": 1}, "synapse words", 5),
        ({"output_axons": 1}, "output axons", 2),
    ],
)
def test_what_never_fits_is_named(limits: dict[str, int], resource: str, used: int) -> None:
    network = a_network((layer("a", random((6, 5), 1.0)), layer("b", random((8, 6), 1.0))))
    given = {"neurons": 6, **limits}
    if "output_axons" in limits:
        given["neurons"] = 4
    if "input_axons" in limits:
        network = a_network(network.layers[:1])
    if "synapse_words" in limits:
        network = a_network(network.layers[:1])
    limit = next(iter(limits.values()))
    with refused(LimitError, "limit", layer="a", key=resource, value=used, limit=limit):
        map_network(network, chip(**given))


def test_too_few_chips_are_named() -> None:
    device = chip(neurons=4, cores=2)
    network = a_network((layer("a", random((6, 5), 1.0)), layer("b", random((8, 6), 1.0))))
    assert map_network(network, device, chips=2).cores == 4
    with refused(LimitError, "limit", key="chips", value=4, limit=2, layer="a") as caught:
        map_network(network, device, chips=1)
    assert "2 cores" in str(caught.value)


def test_a_chip_without_capacity_or_with_other_words_is_refused() -> None:
    network = a_network((layer("a", random((6, 5), 1.0)),))
    with refused(ConfigError, "unsupported", key="capacity", value="rolls"):
        map_network(network, load_device("rolls"))
    with refused(ConfigError, "conflict", key="packing", value=32, limit=64) as caught:
        map_network(network, load_device("loihi1"), packed="netx")
    assert "loihi1" in str(caught.value)


@pytest.mark.slow
def test_the_width_that_would_save_a_core_does() -> None:
    network = paper(0.3)
    device = load_device("loihi1")
    hidden = map_network(network, device).layers[0]
    assert hidden.fit is not None
    assert hidden.fit.used > hidden.fit.limit
    width = hidden.fit.width
    assert width is not None
    dense = network.first.unrolled().dense()[:width]
    narrow = a_layer("hidden1", Matrix.from_dense(dense, dense != 0), SPIKING)
    assert len(map_network(a_network((narrow,)), device).layers[0].cores) <= hidden.fit.cores + 1
    assert hidden.fit.density is not None
    thin = map_network(paper(hidden.fit.density * 0.95), device).layers[0]
    assert len(thin.cores) <= hidden.fit.cores


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "packing"), [(1100, "nxtf"), (3000, "nxtf"), (5000, "nengo-loihi")]
)
def test_a_layer_wider_than_an_index_says_what_would_save_a_core(width: int, packing: str) -> None:
    network = a_network((layer("wide", random((width, 20), 0.5)),))
    (found,) = map_network(network, load_device("loihi1"), packed=packing).layers
    assert len(found.cores) == -(-width // 1024)
    assert found.fit is not None
    assert (found.fit.resource, found.fit.limit) == ("neurons", 1024)
    assert found.fit.used == -(-width // found.fit.cores)
    assert found.fit.width == 1024 * found.fit.cores


def convolutions(side: int, channels: tuple[int, ...]) -> Network:
    """3 x 3 convolutions of density 0.1, an average over 2 x 2 behind every second one."""
    rng = np.random.default_rng(0)
    shape: Any = (2, side, side)
    layers: list[Layer] = []
    for index, wide in enumerate(channels):
        kernel = 2 * rng.integers(1, 127, (wide, shape[0], 3, 3))
        kernel = np.where(rng.random(kernel.shape) < 0.1, kernel, 0)
        layers.append(a_layer(f"conv{index}", Convolution(kernel, shape, padding=(1, 1)), SPIKING))
        shape = layers[-1].shape
        if index % 2:
            kernel = np.full((wide, 1, 2, 2), 16)
            part = Convolution(kernel, shape, stride=(2, 2), groups=wide)
            layers.append(a_layer(f"pool{index}", part, SPIKING))
            shape = layers[-1].shape
    return a_network(tuple(layers))


@pytest.mark.slow
def test_deep_convolutions_lie_as_when_every_region_was_tried() -> None:
    """Cores and words that the search found before it skipped regions of one kind.

    The four positions of a pool have one weight: a chip that shares lists stores a fourth.
    """
    device = load_device("loihi1")
    assert device.capacity is not None
    own = device.capacity.model_copy(update={"shared_axons": None})
    for capacity, pools in ((device.capacity, (240, 128)), (own, (960, 512))):
        chosen = device.model_copy(update={"capacity": capacity})
        found = map_network(convolutions(20, (32, 48, 64, 64)), chosen)
        assert [
            (place.form, len(place.cores), place.words[place.form][0]) for place in found.layers
        ] == [
            ("runlength", 14, 1766),
            ("runlength", 20, 24736),
            ("sparse", 5, pools[0]),
            ("sparse", 7, 9433),
            ("sparse", 7, 13035),
            ("sparse", 2, pools[1]),
        ]
