"""Compare counts with those of neurobench 2.3.0 for the same integer networks and spikes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esl_lava.energy import add_details
from esl_lava.energy.neurobench import (
    SynapticOperations,
    activation_sparsity,
    connection_sparsity,
    footprint,
    metrics,
    synaptic_operations,
)
from esl_lava.errors import DataError
from esl_lava.network import INTEGRATOR
from esl_lava.simulate import Result, simulate
from esl_lava.simulate.result import count
from tests.energy.neurobench_cases import CASES, conv, delayed, graded, mlp
from tests.faults import refused
from tests.graphs import a_network

THEIRS = json.loads((Path(__file__).parent / "neurobench.json").read_text())
"""Case -> name -> figure, written by `python -m tests.benchmarks.neurobench`."""


@pytest.mark.parametrize("case", CASES)
def test_counts_are_neurobenchs(case: str) -> None:
    network, inputs = CASES[case]()
    result: Result = simulate(network, inputs)
    counts = add_details(network, result.counts)
    for layer in counts.layers[:-1]:
        assert 0 < layer.spikes < layer.neuron_updates
        assert layer.synapses < layer.connections
    theirs = THEIRS[case]
    ours = synaptic_operations(network, counts, inputs)
    assert ours == SynapticOperations(
        theirs["Effective_MACs"], theirs["Effective_ACs"], theirs["Dense"]
    )
    assert (ours.effective_macs > 0) == case.startswith("graded")
    assert 0 < ours.effective_acs < ours.dense
    assert activation_sparsity(network, counts) == theirs["ActivationSparsity"]
    assert connection_sparsity(network) == theirs["ConnectionSparsity"]
    assert 2 * footprint(network) == theirs["Footprint"]  # theirs holds float64


def test_metrics_of_spikes_need_no_inputs_and_of_graded_ones_do() -> None:
    for case in ("mlp", "conv", "recurrent", "delayed", "skipped"):
        network, inputs = CASES[case]()
        counts = simulate(network, inputs).counts
        found = metrics(network, counts)
        theirs = THEIRS[case]
        assert found["effective_acs"] == theirs["Effective_ACs"]
        assert (found["effective_macs"], found["dense"]) == (0, theirs["Dense"])
        assert found["footprint"] == theirs["Footprint"] / 2
        assert found["connection_sparsity"] == theirs["ConnectionSparsity"]
        assert found["activation_sparsity"] == activation_sparsity(network, counts)
    network, inputs = graded()
    with refused(DataError, "missing", key="inputs"):
        metrics(network, simulate(network, inputs).counts)


def test_a_delay_behind_the_weights_hides_what_never_arrives() -> None:
    """There neurobench counts what is sent, and so what no neuron receives in its sample."""
    network, inputs = delayed()
    counts = simulate(network, inputs).counts
    before, behind = THEIRS["delayed"], THEIRS["delayed behind the weights"]
    assert counts.sops / counts.samples == before["Effective_ACs"] < behind["Effective_ACs"]
    assert before["Dense"] == behind["Dense"]
    at_once = a_network(
        tuple(
            replace(layer, inputs=tuple(replace(one, delays=None) for one in layer.inputs))
            for layer in network.layers
        )
    )
    spikes = simulate(network, inputs, record="all").spikes
    assert count(at_once, inputs, spikes).sops / counts.samples == behind["Effective_ACs"]


def test_inputs_have_to_be_those_of_the_run() -> None:
    network, inputs = mlp()
    counts = simulate(network, inputs).counts
    with refused(DataError, "mismatch", key="inputs", value=(5, 7), limit=(6, 7)):
        synaptic_operations(network, counts, inputs[:5])


def test_a_bias_of_its_own_for_each_neuron_takes_its_own_bytes() -> None:
    network, _ = conv()
    first = network.layers[0]
    shared = np.repeat(np.arange(6), first.neurons // 6)
    with_bias = replace(network, layers=(replace(first, bias=shared), *network.layers[1:]))
    assert footprint(with_bias) - footprint(network) == 6 * 4
    own = np.arange(first.neurons)
    with_bias = replace(network, layers=(replace(first, bias=own), *network.layers[1:]))
    assert footprint(with_bias) - footprint(network) == first.neurons * 4


def test_a_network_that_never_fires_has_no_activations() -> None:
    network, inputs = mlp()
    only = a_network((replace(network.layers[0], neuron=INTEGRATOR),))
    assert activation_sparsity(only, simulate(only, inputs).counts) == 0.0
