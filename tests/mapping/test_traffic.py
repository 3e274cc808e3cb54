from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from esl_lava.arrivals import count_by_steps_left, longest_delay
from esl_lava.devices import Device, load_device
from esl_lava.errors import DataError, LimitError
from esl_lava.mapping import layer_bounds, map_network, step_nanoseconds, traffic
from esl_lava.mapping.regions import maps
from esl_lava.network import INPUT, INTEGRATOR, Convolution, Injection, Input, Matrix, Network
from esl_lava.simulate import simulate
from tests.faults import refused
from tests.graphs import a_layer, a_network, ends, with_further
from tests.mapping.test_partition import chip, layer, random
from tests.simulate.networks import Case, cases


def totals(network: Network, inputs: Any) -> tuple[Any, Any]:
    """Return the counts of a run and its spikes."""
    result = simulate(network, inputs, record="all")
    return result.counts, {INPUT: inputs != 0, **result.spikes}


@pytest.mark.slow
@given(cases())
@settings(max_examples=15, deadline=None)
def test_traffic_of_any_network_is_that_of_its_spikes(case: Case) -> None:
    inputs = case.inputs.reshape(*case.inputs.shape[:2], -1)
    counts, spikes = totals(case.network, inputs)
    try:
        found_map = map_network(case.network, chip(neurons=5, cores=3, synapse_words=2000))
    except LimitError:
        return
    rows = longest_delay(case.network) + 1
    left = {name: count_by_steps_left(s.sum(axis=0), rows) for name, s in spikes.items()}
    found = traffic(found_map, left, inputs.shape[0] * inputs.shape[1])
    assert found.sops.sum() == counts.sops
    assert found.spikes.sum() == counts.spikes
    expected = np.zeros_like(found.messages)
    home = {INPUT: np.full(case.network.inputs, found_map.cores)}
    for each, place in zip(case.network.layers, found_map.layers):
        home[each.name] = np.zeros(each.neurons, int)
        for core in place.cores:
            home[each.name][core.region.members(each.shape)] = core.number
    for each, place in zip(case.network.layers, found_map.layers):
        crossing: dict[tuple[int, int, str], Any] = {}
        for source, part, late in ends(each):
            if isinstance(part, Injection) or source not in spikes:
                continue
            there = part.unrolled().dense() != 0
            for t in range(inputs.shape[1]):
                in_time = t + np.broadcast_to(late, each.neurons) < inputs.shape[1]
                for core in place.cores:
                    members = core.region.members(each.shape)
                    reaching = there[members][in_time[members]].any(axis=0)
                    if isinstance(part, Convolution) and maps(each.shape) == part.out_shape:
                        reaching = populations(reaching, part, home[source])
                    key = t, core.number, source
                    crossing[key] = crossing.get(key, False) | reaching
        for (t, number, source), senders in crossing.items():
            sent = spikes[source][:, t].sum(axis=0)
            np.add.at(expected[:, number], home[source][senders], sent[senders])
    assert found.messages.tolist() == expected.tolist()
    assert sum(found.sent.values()) == found.messages.sum()


def populations(crossing: Any, part: Convolution, home: Any) -> Any:
    """Return whether any neuron of the same place and core crosses a synapse."""
    places = np.arange(part.n_pre) % (part.in_shape[1] * part.in_shape[2])
    together = {(p, h) for p, h in zip(places[crossing], home[crossing])}
    return np.array([(p, h) in together for p, h in zip(places, home)])


def pair() -> tuple[Any, dict[str, Any]]:
    """Map five inputs to six neurons in one core, to eight in two cores; spikes of ten steps."""
    network = a_network((layer("a", random((6, 5), 1.0)), layer("b", random((8, 6), 1.0))))
    found = map_network(network, chip(neurons=6, synapse_words=14))
    spikes = {
        INPUT: np.array([[10, 0, 0, 4, 0]]),
        "a": np.array([[1, 2, 3, 0, 0, 0]]),
        "b": np.array([[5, 0, 0, 0, 0, 0, 0, 7]]),
    }
    return found, spikes


def test_traffic_by_hand() -> None:
    found_map, spikes = pair()
    found = traffic(found_map, spikes, 10)
    assert found.messages.tolist() == [[0, 6, 6], [0, 0, 0], [0, 0, 0], [14, 0, 0]]
    assert found.sops.tolist() == [84, 24, 24]
    assert found.spikes.tolist() == [6, 5, 7]
    assert found.sent == {INPUT: 14, "a": 12, "b": 0}
    with refused(DataError, "missing", key="spikes", value="a", layer="b"):
        traffic(found_map, {INPUT: spikes[INPUT]}, 10)


def test_two_inputs_from_one_source_share_their_messages() -> None:
    first = Matrix.from_dense([[2, 0, 2], [2, 0, 0]])
    second = Matrix.from_dense([[4, 4, 0], [0, 0, 0]])
    both = with_further(a_layer("only", first, INTEGRATOR), Input(INPUT, second))
    found = map_network(a_network((both,)), chip(neurons=1))
    sent = traffic(found, {INPUT: np.array([[5, 7, 11]])}, 23)
    assert sent.messages.tolist() == [[0, 0], [0, 0], [5 + 7 + 11, 5]]
    assert sent.sops.tolist() == [2 * 5 + 7 + 11, 5]


def test_what_arrives_after_the_last_step_is_no_message() -> None:
    one = Matrix.from_dense([[2], [2]])
    layer = a_layer("only", one, INTEGRATOR, delays=[0, 2])
    network = a_network((layer,))
    found = map_network(network, chip(neurons=1))
    assert found.cores == 2
    sent = np.array([[5], [7], [11]])  # with no, one and at least two steps left
    assert traffic(found, {INPUT: sent}, 23).messages.tolist() == [[0, 0], [0, 0], [23, 11]]
    with refused(DataError, "shape", key="spikes", value=1, limit=3, layer="only"):
        traffic(found, {INPUT: sent[:1]}, 23)


def timed(**nanoseconds: float) -> Device:
    sourced = {"unit": "ns", "kind": "measured", "operating_point": "o", "source": "s"}
    content = chip().model_dump(exclude_none=True)
    times = {key: {"value": value, **sourced} for key, value in nanoseconds.items()}
    return Device.model_validate({**content, "time": times})


def test_floors_by_hand() -> None:
    found_map, spikes = pair()
    found = traffic(found_map, spikes, 10)
    device = timed(sop=2.0, neuron_update=1.0, spike=10.0, message_in=3.0, message_out=1.0, step=5)
    first, second = layer_bounds(found_map, found, device, steps=10)
    assert first.nanoseconds == pytest.approx(
        {"memory": 2 * 8.4, "compute": 6 + 10 * 0.6, "traffic": 3 * 1.4 + 1.2}
    )
    assert (first.core, first.state) == (0, "memory")
    assert second.nanoseconds == pytest.approx({"memory": 4.8, "compute": 11.0, "traffic": 1.8})
    assert (second.core, second.state) == (2, "compute")  # seven spikes, not five
    assert second.load["spike"] == 0.7
    assert first.floor == pytest.approx(16.8)
    assert step_nanoseconds((first, second), device) == pytest.approx(21.8)
    jammed = timed(sop=0.1, message_in=30.0)
    assert [b.state for b in layer_bounds(found_map, found, jammed, 10)] == ["traffic"] * 2
    assert step_nanoseconds(layer_bounds(found_map, found, jammed, 10), jammed) == 42.0


def test_without_times_there_are_loads_but_no_floors() -> None:
    found_map, spikes = pair()
    device = load_device("loihi2")
    bounds = layer_bounds(found_map, traffic(found_map, spikes, 10), device, 10)
    assert [bound.floor for bound in bounds] == [None, None]
    assert bounds[1].load == {
        **{"sop": 2.4, "neuron_update": 4.0, "spike": 0.7},
        **{"message_in": 0.6, "message_out": 0.0},
    }
    assert bounds[1].core is None
    assert step_nanoseconds(bounds, device) is None


def test_sums_are_sent_in_every_step_at_most() -> None:
    """Ten inputs to three neurons: two cores of sums take five inputs each, in seven steps."""
    network = a_network((layer("a", random((3, 10), 1.0)), layer("b", random((4, 3), 1.0))))
    found_map = map_network(network, chip(input_axons=6, graded_spikes=24))
    sums, a, b = found_map.layers
    assert [len(place.cores) for place in (sums, a, b)] == [2, 1, 1]
    spikes = {INPUT: np.array([[4, 0, 0, 0, 0, 0, 0, 0, 0, 1]]), "a": np.array([[0, 2, 0]])}
    found = traffic(found_map, spikes, steps=7)
    # Every input has three synapses in one core of sums. Each sum has one synapse.
    assert found.sops.tolist() == [4 * 3, 1 * 3, 6 * 7, 2 * 4]
    assert found.spikes.tolist() == [3 * 7, 3 * 7, 2, 0]
    assert found.sent == {INPUT: 5, "a.sums": 6 * 7, "a": 2, "b": 0}
    assert found.messages[0].tolist() == [0, 0, 3 * 7, 0]
