from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings

from esl_lava.energy import active_updates, add_details, with_activity, with_messages
from esl_lava.network import INPUT, Cuba, Injection, Matrix, Network
from esl_lava.simulate import simulate
from tests.graphs import a_layer, a_network, ends
from tests.simulate.networks import Case, cases


def pattern(part: Any) -> np.ndarray[Any, Any]:
    """(n_post, n_pre) synapses between two neurons."""
    if isinstance(part, Injection):
        return np.zeros((part.n_post, part.n_pre), bool)
    return part.unrolled().dense() != 0


def by_hand(network: Network, inputs: Any, spikes: Any) -> dict[str, int]:
    """Count active updates sample by sample, step by step, neuron by neuron."""
    found = {}
    for layer in network.layers:
        number = 0
        for sample in range(len(inputs)):
            for t in range(inputs.shape[1]):
                reached = np.zeros(layer.neurons, np.int64)
                for source, part, late in ends(layer):
                    given = inputs if source == INPUT else spikes.get(source)
                    if given is None:
                        continue
                    sent = np.broadcast_to(t - late, layer.neurons)  # when it set out
                    for delay in np.unique(sent[sent >= 0]):
                        there = sent == delay
                        active = given[sample, delay].ravel() != 0
                        reached[there] += pattern(part)[there] @ active
                number += int(np.count_nonzero(reached))
        found[layer.name] = number
    return found


@pytest.mark.slow
@drawn(cases())
@settings(max_examples=25, deadline=None)
def test_active_updates_are_those_a_synaptic_operation_reached(case: Case) -> None:
    result = simulate(case.network, case.inputs, record="all")
    found = active_updates(case.network, case.inputs, result.spikes)
    assert found == by_hand(case.network, case.inputs, result.spikes)


@pytest.mark.slow
@drawn(cases())
@settings(max_examples=25, deadline=None)
def test_details_of_any_network(case: Case) -> None:
    counts = simulate(case.network, case.inputs).counts
    found = add_details(case.network, counts)
    assert found.layers == counts.layers
    for index, (layer, detail) in enumerate(zip(case.network.layers, found.details)):
        brought = [end.connections for end in ends(layer)]
        assert detail.inputs == sum(part.n_pre for part in brought)
        assert detail.nonzero == sum(part.nonzero for part in brought)
        # What is there cannot exceed what could be.
        counted = counts.layers[index]
        assert counted.synapses == sum(int(part.fan_out().sum()) for part in brought)
        assert counted.synapses <= counted.connections <= counted.possible_connections
        assert detail.nonzero <= counted.weights <= counted.possible
        assert detail.bias == (layer.bias is not None)
        assert detail.active_updates is None
    assert found.active_updates is None
    assert found.messages is None


def test_spikes_that_come_back_are_not_those_of_the_last_step() -> None:
    layer = a_layer(
        "own",
        Matrix.from_dense(np.full((2, 3), 40)),
        Cuba(4096, 4096, 30),
        recurrent=Matrix.from_dense([[2, 2], [0, 2]]),
    )
    inputs = np.zeros((2, 4, 3), np.uint8)
    inputs[0, [0, 3]] = 1  # both neurons fire in the first step and in the last
    inputs[1, 3, 0] = 1
    network = a_network((layer,))
    counts = simulate(network, inputs).counts
    assert (counts.spikes, counts.layers[0].returned) == (2 + 2 + 2, 2)
    assert counts.sops == 7 * 2 + 2 + 1
    (detail,) = add_details(network, counts).details
    assert detail.in_spikes == 7 + 2


def test_activity_and_messages_are_filled_in_by_layer() -> None:
    from tests.energy.neurobench_cases import mlp

    network, inputs = mlp()
    counts = add_details(network, simulate(network, inputs).counts)
    names = [layer.name for layer in network.layers]
    counts = with_activity(counts, dict(zip(names, (5, 6, 7))))
    assert counts.active_updates == 18
    assert counts.messages is None
    counts = with_messages(counts, {INPUT: 9, **dict(zip(names, (1, 2, 0)))})
    assert (counts.messages, counts.input_messages) == (3, 9)
    with pytest.raises(KeyError):
        with_activity(counts, {})
