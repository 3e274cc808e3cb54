"""Layers and networks for tests, each layer fed by the one before where nobody says otherwise."""

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
    """A layer fed through `connections`, by itself, and by `skips`."""
    own = [] if recurrent is None else [Input(name, recurrent)]
    first = Input(source, connections, delays)  # type: ignore[arg-type]
    return Layer(name, (first, *skips, *own), neuron, bias)  # type: ignore[arg-type]


def a_network(
    layers: Sequence[Layer],
    steps: int | None = None,
    provenance: Mapping[str, str] | None = None,
    input_range: tuple[int, int] = SPIKE_RANGE,
) -> Network:
    """A network in which the first input of each layer is the layer before."""
    chained = []
    before = INPUT
    for layer in layers:
        first, *further = layer.inputs
        chained.append(replace(layer, inputs=(replace(first, source=before), *further)))
        before = layer.name
    return Network(tuple(chained), steps, provenance or {}, input_range)


def matrix(layer: Layer) -> Matrix:
    """The connections of a layer's first input, one by one."""
    return layer.inputs[0].connections.unrolled()


def with_first(layer: Layer, **changes: Any) -> Layer:
    """The layer with another first input, in `connections` or `delays`."""
    first, *further = layer.inputs
    return replace(layer, inputs=(replace(first, **changes), *further))


def with_further(layer: Layer, *inputs: Input) -> Layer:
    """The layer with more inputs."""
    return replace(layer, inputs=(*layer.inputs, *inputs))


class End(NamedTuple):
    """An input of a layer, and the steps after a spike until it arrives."""

    source: str
    connections: Connections
    late: int | Int32s


def ends(layer: Layer) -> list[End]:
    """The inputs of a layer and when their spikes arrive."""
    return [End(one.source, one.connections, layer.late(one)) for one in layer.inputs]
