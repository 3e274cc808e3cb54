"""From a configuration to a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from esl_lava.config import Experiment
from esl_lava.engines import sparse
from esl_lava.engines.choice import choose_stored
from esl_lava.engines.fused import accelerate
from esl_lava.models.config import Model, MultiSpike
from esl_lava.models.mlp import Initial, SpikingMLP
from esl_lava.models.single_spike import SingleSpikeMLP
from esl_lava.topology import Topology

SpikingNetwork = SpikingMLP | SingleSpikeMLP


def build(
    config: Model,
    topology: Topology,
    sparse_layers: Collection[str] = (),
    initial: Initial = sparse.as_slayer_draws,
) -> SpikingNetwork:
    """A network with torch's current generator's initial weights.

    Args:
        config: its kind and its neurons.
        topology: its layers.
        sparse_layers: names of layers of which only connections are stored, of a
            multi_spike network; they begin without any.
        initial: what gives these their weights.
    """
    return _KINDS[config.kind](config, topology, sparse_layers, initial)


def build_to_train(experiment: Experiment, topology: Topology) -> SpikingNetwork:
    """The network to train, computed by the experiment's engine.

    Its initial weights, of torch's current generator, are the same ones whatever the engine; a
    layer of sparse weights gets its own with its first connections.

    Raises:
        ConfigError: when `auto` cannot tell how dense layers are to be.
    """
    engine = experiment.training.engine
    stored = choose_stored(engine, topology, experiment.sparsity)
    model = build(experiment.model, topology, stored)
    if engine != "slayer":
        accelerate(model)  # finds no blocks in other networks
    return model


def _multi_spike(
    config: Model, topology: Topology, sparse_layers: Collection[str], initial: Initial
) -> SpikingMLP:
    assert isinstance(config, MultiSpike)
    return SpikingMLP(
        topology,
        current_decay=config.current_decay,
        voltage_decay=config.voltage_decay,
        threshold=config.threshold,
        tau_grad=config.tau_grad,
        scale_grad=config.scale_grad,
        sparse_layers=sparse_layers,
        initial=initial,
    )


def _single_spike(
    config: Model, topology: Topology, sparse_layers: Collection[str], initial: Initial
) -> SingleSpikeMLP:
    if sparse_layers:
        raise ValueError(f"layers {', '.join(sparse_layers)} of neurons that fire once are dense")
    return SingleSpikeMLP(topology)


_KINDS: Mapping[str, Callable[[Model, Topology, Collection[str], Initial], SpikingNetwork]] = (
    MappingProxyType({"multi_spike": _multi_spike, "single_spike": _single_spike})
)
"""What builds a network, by `model.kind`."""
