"""Two integer networks, integer by integer: what a file holds against what a model lowers to.

Spikes alone are no proof. A weight that no sample of a comparison reaches, or a threshold that
none of them comes near, changes no spike there, and the network all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.network import Connections, Convolution, Injection, Layer, Network
from esl_lava.results.verification import IntegerComparison, IntegerDifference

Part = Connections | Convolution | Injection

PARAMETERS = ("threshold", "current_decay", "voltage_decay")


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
    if found.steps not in (None, expected.steps):
        differences.append(
            IntegerDifference(None, "number of steps", 1, "", expected.steps, found.steps)
        )
    if found.input_bits != expected.input_bits:
        bits = expected.input_bits, found.input_bits
        differences.append(IntegerDifference(None, "number of input bits", 1, "", *bits))
    compared = 0
    for ours, theirs in zip(expected.layers, found.layers):
        mine, other = _parts(ours), _parts(theirs)
        for name in dict.fromkeys([*mine, *other]):
            differences += _compare_parts(ours.name, name, mine.get(name), other.get(name))
        values, others = _of_neurons(ours), _of_neurons(theirs)
        differences += [
            difference
            for quantity, value in values.items()
            for difference in _compare_values(ours.name, quantity, value, others[quantity])
        ]
        compared += sum(part.stored for part in mine.values())
        compared += sum(value.size for value in values.values())
    return IntegerComparison(compared, tuple(differences))


def _layers(network: Network) -> list[tuple[str, int]]:
    return [(layer.name, layer.neurons) for layer in network.layers]


def _parts(layer: Layer) -> dict[str, Part]:
    """What a sentence calls a weight of them -> all that brings input to a layer."""
    parts: dict[str, Part] = {"weight": layer.connections}
    if layer.recurrent is not None:
        parts["recurrent weight"] = layer.recurrent
    for number, skip in enumerate(layer.skips):
        parts[f"weight of skip {number} from {skip.source}"] = skip.connections
    return parts


def _of_neurons(layer: Layer) -> dict[str, npt.NDArray[Any]]:
    """What neurons have, (neurons,) integers each."""
    nothing = np.zeros(layer.neurons, np.int64)
    return {
        **{name: layer.parameter(name) for name in PARAMETERS},
        "refractory period": np.array([layer.neuron.refractory]),
        "bias": nothing if layer.bias is None else layer.bias,
        "delay": nothing if layer.delays is None else layer.delays,
    }


def _compare_values(
    layer: str, quantity: str, expected: npt.NDArray[Any], found: npt.NDArray[Any]
) -> Iterator[IntegerDifference]:
    different = np.flatnonzero(expected != found)
    if different.size:
        at = different[0]
        place = f"neuron {at}" if expected.size > 1 else ""
        values = int(expected[at]), int(found[at])
        yield IntegerDifference(layer, quantity, different.size, place, *values)


def _compare_parts(
    layer: str, name: str, expected: Part | None, found: Part | None
) -> Iterator[IntegerDifference]:
    """Where connections exist in one of them only, and where their weights differ."""
    shapes = _geometry(expected), _geometry(found)
    if shapes[0] != shapes[1]:
        largest = max(0 if part is None else max(1, part.stored) for part in (expected, found))
        kind = name.replace("weight", "connections", 1)
        yield IntegerDifference(layer, f"shape of {kind}", largest, "", *shapes)
        return
    assert expected is not None
    assert found is not None
    (places, weights), (others, other_weights) = _stored(expected), _stored(found)
    alone = np.setxor1d(places, others, assume_unique=True)
    if alone.size:
        kind = name.replace("weight", "connection", 1)
        exists = bool(np.isin(alone[0], places)), bool(np.isin(alone[0], others))
        words = ["present" if here else "absent" for here in exists]
        yield IntegerDifference(layer, kind, alone.size, _place(expected, alone[0]), *words)
    _, mine, theirs = np.intersect1d(places, others, assume_unique=True, return_indices=True)
    different = np.flatnonzero(weights[mine] != other_weights[theirs])
    if different.size:
        at = different[0]
        values = int(weights[mine[at]]), int(other_weights[theirs[at]])
        place = _place(expected, places[mine[at]])
        yield IntegerDifference(layer, name, different.size, place, *values)


def _geometry(part: Part | None) -> str:
    """What connects which shapes, in words."""
    if part is None:
        return "absent"
    if isinstance(part, Convolution):
        slide = f"stride {part.stride} padding {part.padding} dilation {part.dilation}"
        groups = f"{part.groups} groups"
        return f"a kernel {part.kernel.shape} over {part.in_shape} {slide} in {groups}"
    if isinstance(part, Injection):
        return f"injection into {part.shape}"
    return f"{part.n_pre} to {part.n_post} neurons"


def _stored(part: Part) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Ascending flat positions of the connections that are stored, and their weights."""
    if isinstance(part, Connections):
        return part.rows() * part.n_pre + part.indices, part.weights
    if isinstance(part, Convolution):
        places = np.flatnonzero(part.mask())
        return places, part.kernel.ravel()[places]
    return np.empty(0, np.int64), np.empty(0, np.int32)


def _place(part: Part, position: Any) -> str:
    """Where a flat position lies, in words."""
    if isinstance(part, Connections):
        post, pre = divmod(int(position), part.n_pre)
        return f"neuron {post}, input {pre}"
    assert isinstance(part, Convolution)
    index = tuple(int(i) for i in np.unravel_index(position, part.kernel.shape))
    return f"place {index} of the kernel"
