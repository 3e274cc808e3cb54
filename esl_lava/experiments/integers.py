"""Compare all integers of two networks: that of a file, and that of its model.

Equal spikes alone are no proof. A weight that no compared sample reaches, or a threshold that no
compared sample comes near, can differ without any different spike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from esl_lava.arrays import Array
from esl_lava.network import PARAMETERS, Input, Layer, Network, Origin
from esl_lava.results.verification import IntegerComparison, IntegerDifference


def compare_integers(expected: Network, found: Network) -> IntegerComparison:
    """Compare every integer that affects a simulator or a chip.

    A missing bias or delay equals zeros. A file may leave the number of steps open.

    Args:
        expected: the integer network of a model.
        found: the network of a file, with layers of the same names and sizes.

    Raises:
        ValueError: if names or sizes of layers differ.
    """
    if _layers(expected) != _layers(found):
        raise ValueError(
            f"found has the layers {_layers(found)}, but expected has {_layers(expected)}"
        )
    differences = []
    for quantity, ours, theirs in (
        ("number of steps", expected.steps, found.steps or expected.steps),
        ("range of inputs", _input_range(expected), _input_range(found)),
    ):
        if ours != theirs:
            differences.append(IntegerDifference(None, quantity, 1, "", ours, theirs))
    compared = 0
    for layer, other in zip(expected.layers, found.layers):
        inputs, other_inputs = _named_inputs(layer), _named_inputs(other)
        for name in dict.fromkeys([*inputs, *other_inputs]):
            pair = inputs.get(name), other_inputs.get(name)
            differences += _compare_inputs(layer.name, name, *pair)
        values, other_values = _neuron_values(layer), _neuron_values(other)
        zeros = np.zeros(layer.neurons, np.int64)
        for quantity in dict.fromkeys([*values, *other_values]):
            arrays = values.get(quantity, zeros), other_values.get(quantity, zeros)
            differences += _compare_values(layer.name, quantity, *arrays)
        compared += sum(kind.stored for kind in layer.wiring)
        compared += sum(value.size for value in values.values())
    return IntegerComparison(compared, tuple(differences))


def _input_range(network: Network) -> str:
    low, high = network.input_range
    return f"{low}..{high}"


def _layers(network: Network) -> list[tuple[str, int]]:
    """Return the names and sizes of the layers."""
    return [(layer.name, layer.neurons) for layer in network.layers]


def _named_inputs(layer: Layer) -> dict[str, Input]:
    """Return the inputs of a layer. The keys name the weights of an input in sentences."""
    named = {"weight": layer.inputs[0]}
    if layer.recurrent is not None:
        named["recurrent weight"] = layer.recurrent
    for number, skip in enumerate(layer.feedforward_inputs[1:]):
        named[f"weight of skip {number} from {skip.source}"] = skip
    return named


def _neuron_values(layer: Layer) -> dict[str, Array]:
    """Return quantity -> its integers: (neurons,), or (1,) for the refractory period."""
    zeros = np.zeros(layer.neurons, np.int64)
    values = {
        **{name: layer.parameter(name) for name in PARAMETERS},
        "refractory period": np.array([layer.neuron.refractory]),
        "bias": zeros if layer.bias is None else layer.bias,
        "delay": zeros,
    }
    for name, one in _named_inputs(layer).items():
        if one.delays is not None:
            values[name.replace("weight", "delay", 1)] = one.delays
    return values


def _compare_values(
    layer: str, quantity: str, expected: Array, found: Array
) -> Iterator[IntegerDifference]:
    """Yield the difference of two arrays, if they differ."""
    different = np.flatnonzero(expected != found)
    if different.size:
        at = different[0]
        place = f"neuron {at}" if expected.size > 1 else ""
        values = int(expected[at]), int(found[at])
        yield IntegerDifference(layer, quantity, different.size, place, *values)


def _describe_origin(origin: Origin | None) -> str:
    if origin is None:
        return "its own weights"
    layer = origin.name or "no trained layer"
    return f"{origin.weights} weights in {origin.positions} positions of {layer}"


def _compare_inputs(
    layer: str, name: str, expected: Input | None, found: Input | None
) -> Iterator[IntegerDifference]:
    """Yield the differences of two inputs: shapes, origins, sources, connections and weights."""
    shapes = _geometry(expected), _geometry(found)
    if expected is None or found is None or shapes[0] != shapes[1]:
        counts = [one.connections.stored for one in (expected, found) if one is not None]
        kind = name.replace("weight", "connections", 1)
        yield IntegerDifference(layer, f"shape of {kind}", max(1, *counts), "", *shapes)
        return
    if expected.origin != found.origin:
        origins = (_describe_origin(one.origin) for one in (expected, found))
        yield IntegerDifference(layer, f"origin of the {name}", 1, "", *origins)
    if expected.source != found.source:
        sources = expected.source, found.source
        yield IntegerDifference(layer, f"source of the {name}", 1, "", *sources)
    ours, theirs = expected.connections, found.connections
    positions, others = ours.positions(), theirs.positions()
    single = np.setxor1d(positions, others, assume_unique=True)  # in one of the networks only
    if single.size:
        kind = name.replace("weight", "connection", 1)
        exists = bool(np.isin(single[0], positions)), bool(np.isin(single[0], others))
        words = ["present" if present else "absent" for present in exists]
        yield IntegerDifference(layer, kind, single.size, ours.place(single[0]), *words)
    _, mine, other = np.intersect1d(positions, others, assume_unique=True, return_indices=True)
    different = np.flatnonzero(ours.weights[mine] != theirs.weights[other])
    if different.size:
        at = different[0]
        values = int(ours.weights[mine[at]]), int(theirs.weights[other[at]])
        place = ours.place(positions[mine[at]])
        yield IntegerDifference(layer, name, different.size, place, *values)


def _geometry(layer_input: Input | None) -> str:
    """Return the kind and the shapes of the connections as text."""
    return "absent" if layer_input is None else layer_input.connections.geometry()
