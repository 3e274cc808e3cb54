"""Integer networks are compared: one test for each kind of integer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.experiments.integers import compare_integers
from esl_lava.network import INPUT, Convolution, Cuba, Injection, Input, Matrix, Network
from tests.graphs import a_layer, a_network
from tests.simulate.networks import Case, cases

MAPS = Convolution(np.arange(1, 9).reshape(2, 1, 2, 2), (1, 3, 3))
NEURON = Cuba(1024, 2048, 80)


def network(connections: Any = MAPS, **parts: Any) -> Network:
    return a_network((a_layer("maps", connections, NEURON, **parts),), 4)


def sentences(expected: Network, found: Network) -> list[str]:
    return [str(difference) for difference in compare_integers(expected, found).differences]


def test_a_weight_of_a_kernel() -> None:
    kernel = MAPS.kernel.copy()
    kernel[1, 0, 0, 1] = -6
    comparison = compare_integers(network(), network(replace(MAPS, kernel=kernel)))
    assert comparison.total == 1
    # 8 weights, five values for each of 8 neurons, and one refractory period.
    assert comparison.compared == 8 + 5 * 8 + 1
    assert str(comparison.differences[0]) == (
        "layer maps: weight of place (1, 0, 0, 1) of the kernel is -6 in the file, 6 in the model"
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            replace(MAPS, padding=(1, 1), stride=(2, 2)),
            "shape of connections is a kernel (2, 1, 2, 2) over (1, 3, 3) stride (2, 2) padding (1",
        ),
        (
            MAPS.unrolled(),
            "shape of connections is 9 to 8 neurons in the file, a kernel (2, 1, 2, 2)",
        ),
    ],
)
def test_another_stride_or_form(found: Any, sentence: str) -> None:
    assert sentence in sentences(network(), network(found))[0]


def test_zeros_equal_missing_arrays() -> None:
    zeros = np.zeros(8, int)
    assert sentences(network(), network(bias=zeros, delays=zeros)) == []
    assert sentences(network(bias=zeros), network()) == []
    assert sentences(network(), replace(network(), steps=None)) == []


def test_recurrence_and_skips() -> None:
    square = Matrix.from_dense(2 * np.eye(8, dtype=int), np.eye(8, dtype=bool))
    other = Matrix.from_dense(4 * np.eye(8, dtype=int), np.eye(8, dtype=bool))
    assert sentences(network(recurrent=square), network(recurrent=other)) == [
        "layer maps: recurrent weight of neuron 0, input 0 is 4 in the file, 2 in the model "
        "(8 such differences)"
    ]
    assert sentences(network(recurrent=square), network()) == [
        "layer maps: shape of recurrent connections is absent in the file, 8 to 8 neurons in the "
        "model (8 such differences)"
    ]
    skips = [
        network(skips=(Input(INPUT, kernel),))
        for kernel in (MAPS, replace(MAPS, kernel=-MAPS.kernel))
    ]
    assert sentences(*skips)[0].startswith(
        "layer maps: weight of skip 0 from input of place (0, 0, 0, 0) of the kernel is -1 in"
    )


def test_layers_of_another_network_are_refused() -> None:
    other = a_network((a_layer("other", MAPS, NEURON),))
    with pytest.raises(ValueError, match=r"found has .*other.*, but expected has .*maps"):
        compare_integers(network(), other)


def test_injection() -> None:
    assert sentences(network(Injection((8,))), network(Injection((8,)))) == []
    assert "injection into (8,) in the file" in sentences(network(), network(Injection((8,))))[0]


@pytest.mark.slow
@given(cases(), st.integers(0, 2**32))
def test_any_one_integer_changed_is_found(case: Case, seed: int) -> None:
    """A network equals itself, but not a network in which an array has another number."""
    rng = np.random.default_rng(seed)
    network = case.network
    assert compare_integers(network, network).total == 0
    index = int(rng.integers(len(network.layers)))
    layer = network.layers[index]
    bias = np.zeros(layer.neurons, int) if layer.bias is None else layer.bias.copy()
    bias[rng.integers(layer.neurons)] ^= 1
    changed = [replace(layer, bias=bias)]
    first, *further = layer.inputs
    if isinstance(first.connections, Matrix) and first.connections.count:
        weights = first.connections.weights.copy()
        weights[rng.integers(weights.size)] ^= 1
        first = replace(first, connections=replace(first.connections, weights=weights))
        changed.append(replace(layer, inputs=(first, *further)))
    changed.append(
        replace(layer, neuron=replace(layer.neuron, refractory=layer.neuron.refractory + 1))
    )
    for other in changed:
        layers = list(network.layers)
        layers[index] = other
        assert compare_integers(network, replace(network, layers=tuple(layers))).total == 1
