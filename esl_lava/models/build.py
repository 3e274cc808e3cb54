"""From a configuration to a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from esl_lava.config import Model
from esl_lava.engines import sparse
from esl_lava.models.mlp import Initial, SpikingMLP
from esl_lava.models.single_spike import SingleSpikeMLP

SpikingNetwork = SpikingMLP | SingleSpikeMLP


def build(
    config: Model,
    inputs: int,
    classes: int,
    sparse_layers: Collection[str] = (),
    initial: Initial = sparse.as_slayer_draws,
) -> SpikingNetwork:
    """A network with torch's current generator's initial weights.

    Args:
        sparse_layers: names of layers of which only connections are stored, of a
            multi_spike network; they begin without any.
        initial: what gives these their weights.
    """
    return _KINDS[config.kind](config, inputs, classes, sparse_layers, initial)


def _multi_spike(
    config: Model, inputs: int, classes: int, sparse_layers: Collection[str], initial: Initial
) -> SpikingMLP:
    return SpikingMLP(
        inputs,
        config.hidden,
        classes,
        current_decay=config.current_decay,
        voltage_decay=config.voltage_decay,
        threshold=config.threshold,
        tau_grad=config.tau_grad,
        scale_grad=config.scale_grad,
        sparse_layers=sparse_layers,
        initial=initial,
    )


def _single_spike(
    config: Model, inputs: int, classes: int, sparse_layers: Collection[str], initial: Initial
) -> SingleSpikeMLP:
    if sparse_layers:
        raise ValueError(f"layers {', '.join(sparse_layers)} of neurons that fire once are dense")
    return SingleSpikeMLP(inputs, config.hidden, classes)


_KINDS: Mapping[str, Callable[[Model, int, int, Collection[str], Initial], SpikingNetwork]] = (
    MappingProxyType({"multi_spike": _multi_spike, "single_spike": _single_spike})
)
"""What builds a network, by `model.kind`."""
