"""Two integer networks, integer by integer: what a file holds against what a model lowers to.

Spikes alone are no proof. A weight that no sample of a comparison reaches, or a threshold that
none of them comes near, changes no spike there, and the network all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from esl_lava.arrays import Array
from esl_lava.network import PARAMETERS, Input, Layer, Network, Origin
from esl_lava.results.verification import IntegerComparison, IntegerDifference


def compare_integers(expected: Network, found: Network) -> IntegerComparison:
    """Compare every integer that has a meaning to a simulator or a chip.

    What one network leaves out and the other holds as zeros, a bias or delays, is the same.
    A file may leave open how many steps a sample is presented.

    Args:
        expected: what a model lowers to.
        found: what its file says; with layers of the same names and sizes.

    Raises:
        ValueError: where it has other layers.
    """
    if _layers(expected) != _layers(found):
        raise ValueError(f"layers {_layers(found)} are not {_layers(expected)}")
    differences = []
    for what, due, said in (
        ("number of steps", expected.steps, found.steps or expected.steps),
        ("range of inputs", _ends(expected), _ends(found)),
    ):
        if due != said:
            differences.append(IntegerDifference(None, what, 1, "", due, said))
    compared = 0
    for ours, theirs in zip(expected.layers, found.layers):
        mine, other = _named(ours), _named(theirs)
        for name in dict.fromkeys([*mine, *other]):
            differences += _compare_inputs(ours.name, name, mine.get(name), other.get(name))
        values, others = _of_neurons(ours), _of_neurons(theirs)
        for quantity in dict.fromkeys([*values, *others]):
            nothing = np.zeros(ours.neurons, np.int64)
            pair = values.get(quantity, nothing), others.get(quantity, nothing)
            differences += _compare_values(ours.name, quantity, *pair)
        compared += sum(kind.stored for kind in ours.wiring)
        compared += sum(value.size for value in values.values())
    return IntegerComparison(compared, tuple(differences))


def _ends(network: Network) -> str:
    low, high = network.input_range
    return f"{low}..{high}"


def _layers(network: Network) -> list[tuple[str, int]]:
    return [(layer.name, layer.neurons) for layer in network.layers]


def _named(layer: Layer) -> dict[str, Input]:
    """What a sentence calls a weight of them -> the inputs of a layer."""
    named = {"weight": layer.inputs[0]}
    if layer.recurrent is not None:
        named["recurrent weight"] = layer.recurrent
    for number, given in enumerate(layer.feeding[1:]):
        named[f"weight of skip {number} from {given.source}"] = given
    return named


def _of_neurons(layer: Layer) -> dict[str, Array]:
    """What neurons have, (neurons,) integers each."""
    nothing = np.zeros(layer.neurons, np.int64)
    values = {
        **{name: layer.parameter(name) for name in PARAMETERS},
        "refractory period": np.array([layer.neuron.refractory]),
        "bias": nothing if layer.bias is None else layer.bias,
        "delay": nothing,
    }
    for name, given in _named(layer).items():
        if given.delays is not None:
            values[name.replace("weight", "delay", 1)] = given.delays
    return values


def _compare_values(
    layer: str, quantity: str, expected: Array, found: Array
) -> Iterator[IntegerDifference]:
    different = np.flatnonzero(expected != found)
    if different.size:
        at = different[0]
        place = f"neuron {at}" if expected.size > 1 else ""
        values = int(expected[at]), int(found[at])
        yield IntegerDifference(layer, quantity, different.size, place, *values)


def _made_of(origin: Origin | None) -> str:
    if origin is None:
        return "the weights themselves"
    return f"{origin.weights} weights of {origin.positions} of {origin.name or 'none'}"


def _compare_inputs(
    layer: str, name: str, expected: Input | None, found: Input | None
) -> Iterator[IntegerDifference]:
    """Where connections exist in one of them only, and where their weights differ."""
    shapes = _geometry(expected), _geometry(found)
    if expected is None or found is None or shapes[0] != shapes[1]:
        there = [one.connections.stored for one in (expected, found) if one is not None]
        kind = name.replace("weight", "connections", 1)
        yield IntegerDifference(layer, f"shape of {kind}", max(1, *there), "", *shapes)
        return
    if expected.origin != found.origin:
        made = (_made_of(one.origin) for one in (expected, found))
        yield IntegerDifference(layer, f"what was trained of the {name}", 1, "", *made)
    if expected.source != found.source:
        sources = expected.source, found.source
        yield IntegerDifference(layer, f"source of the {name}", 1, "", *sources)
    ours, theirs = expected.connections, found.connections
    places, others = ours.positions(), theirs.positions()
    alone = np.setxor1d(places, others, assume_unique=True)
    if alone.size:
        kind = name.replace("weight", "connection", 1)
        exists = bool(np.isin(alone[0], places)), bool(np.isin(alone[0], others))
        words = ["present" if here else "absent" for here in exists]
        yield IntegerDifference(layer, kind, alone.size, ours.place(alone[0]), *words)
    _, mine, other = np.intersect1d(places, others, assume_unique=True, return_indices=True)
    different = np.flatnonzero(ours.weights[mine] != theirs.weights[other])
    if different.size:
        at = different[0]
        values = int(ours.weights[mine[at]]), int(theirs.weights[other[at]])
        place = ours.place(places[mine[at]])
        yield IntegerDifference(layer, name, different.size, place, *values)


def _geometry(given: Input | None) -> str:
    """What connects which shapes, in words."""
    return "absent" if given is None else given.connections.geometry()
