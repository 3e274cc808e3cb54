from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings

from esl_lava.energy import active_updates, detailed, with_activity, with_messages
from esl_lava.energy.detail import dense_fan_out, ends
from esl_lava.network import INPUT, Connections, Convolution, Injection, Network
from esl_lava.simulate import simulate
from tests.simulate.networks import Case, cases


def pattern(part: Any) -> np.ndarray[Any, Any]:
    """(n_post, n_pre) synapses between two neurons."""
    if isinstance(part, Injection):
        return np.zeros((part.n_post, part.n_pre), bool)
    return part.unrolled().dense() != 0


def by_hand(network: Network, inputs: Any, spikes: Any) -> dict[str, int]:
    """Active updates, sample by sample, step by step, neuron by neuron."""
    found = {}
    for index, layer in enumerate(network.layers):
        number = 0
        for sample in range(len(inputs)):
            for t in range(inputs.shape[1]):
                reached = np.zeros(layer.neurons, np.int64)
                for source, part in ends(network, index):
                    own = source == layer.name
                    given = inputs if source == INPUT else spikes.get(source)
                    if given is None or (own and t == 0):
                        continue
                    reached += pattern(part) @ (given[sample, t - own].ravel() != 0)
                number += np.count_nonzero(reached)
        found[layer.name] = number
    return found


@drawn(cases())
@settings(max_examples=25, deadline=None)
def test_active_updates_are_those_a_synaptic_operation_reached(case: Case) -> None:
    result = simulate(case.network, case.inputs, record="all")
    found = active_updates(case.network, case.inputs, result.spikes)
    assert found == by_hand(case.network, case.inputs, result.spikes)


@drawn(cases())
@settings(max_examples=25, deadline=None)
def test_details_of_any_network(case: Case) -> None:
    counts = simulate(case.network, case.inputs).counts
    found = detailed(case.network, counts)
    assert found.layers == counts.layers
    for index, (layer, detail) in enumerate(zip(case.network.layers, found.details)):
        brought = [part for _, part in ends(case.network, index)]
        assert detail.inputs == sum(part.n_pre for part in brought)
        # What is there cannot exceed what could be.
        assert detail.dense_synapses >= sum(int(part.fan_out().sum()) for part in brought)
        assert detail.bias == (layer.bias is not None)
        assert detail.active_updates is None
    assert found.active_updates is None
    assert found.messages is None


def test_dense_fan_out_of_a_kernel_counts_where_it_slides() -> None:
    kernel = np.zeros((2, 1, 3, 3), np.int32)
    part = Convolution(kernel, (1, 3, 3), padding=(1, 1))
    assert dense_fan_out(part).reshape(3, 3).tolist() == [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
    full = Connections.from_dense(np.zeros((2, 3), np.int32))
    assert dense_fan_out(full).tolist() == [2, 2, 2]
    assert dense_fan_out(Injection((4,))).tolist() == [0, 0, 0, 0]


def test_activity_and_messages_are_filled_in_by_layer() -> None:
    from tests.energy.test_neurobench import mlp

    network, inputs = mlp()
    counts = detailed(network, simulate(network, inputs).counts)
    names = [layer.name for layer in network.layers]
    counts = with_activity(counts, dict(zip(names, (5, 6, 7))))
    assert counts.active_updates == 18
    assert counts.messages is None
    counts = with_messages(counts, {INPUT: 9, **dict(zip(names, (1, 2, 0)))})
    assert (counts.messages, counts.input_messages) == (3, 9)
    with pytest.raises(KeyError):
        with_activity(counts, {})
