"""Builders of layers and networks for tests. By default each layer feeds the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy.typing as npt

from esl_lava.arrays import Int32s
from esl_lava.chip import SPIKE_RANGE
from esl_lava.network import INPUT, Connections, Cuba, Input, Layer, Matrix, Network


def a_layer(
    name: str,
    connections: Connections,
    neuron: Cuba,
    bias: npt.ArrayLike | None = None,
    delays: npt.ArrayLike | None = None,
    recurrent: Connections | None = None,
    skips: Sequence[Input] = (),
    source: str = INPUT,
) -> Layer:
    """Make a layer with input through `connections`, from `skips`, and from itself if recurrent."""
    loops = [] if recurrent is None else [Input(name, recurrent)]
    first = Input(source, connections, delays)  # type: ignore[arg-type]
    return Layer(name, (first, *skips, *loops), neuron, bias)  # type: ignore[arg-type]


def a_network(
    layers: Sequence[Layer],
    steps: int | None = None,
    provenance: Mapping[str, str] | None = None,
    input_range: tuple[int, int] = SPIKE_RANGE,
) -> Network:
    """Make a network in which the first input of each layer is the layer before."""
    chained = []
    before = INPUT
    for layer in layers:
        first, *further = layer.inputs
        chained.append(replace(layer, inputs=(replace(first, source=before), *further)))
        before = layer.name
    return Network(tuple(chained), steps, provenance or {}, input_range)


def matrix(layer: Layer) -> Matrix:
    """Return the connections of a layer's first input as a matrix."""
    return layer.inputs[0].connections.unrolled()


def with_first(layer: Layer, **changes: Any) -> Layer:
    """Return the layer with other `connections` or `delays` of its first input."""
    first, *further = layer.inputs
    return replace(layer, inputs=(replace(first, **changes), *further))


def with_further(layer: Layer, *inputs: Input) -> Layer:
    """Return the layer with further inputs."""
    return replace(layer, inputs=(*layer.inputs, *inputs))


class End(NamedTuple):
    """An input of a layer, and the steps from a spike to its arrival."""

    source: str
    connections: Connections
    late: int | Int32s


def ends(layer: Layer) -> list[End]:
    """Return the inputs of a layer with the arrival of their spikes."""
    return [End(one.source, one.connections, layer.late(one)) for one in layer.inputs]
