"""Build a network of torch from a configuration and a topology."""

from __future__ import annotations

from collections.abc import Collection

from esl_lava.config import Experiment
from esl_lava.data.config import Encoding
from esl_lava.engines import sparse
from esl_lava.engines.choice import choose_stored
from esl_lava.engines.fused import accelerate
from esl_lava.errors import ConfigError
from esl_lava.models.config import Convolutional, Model, MultiSpike, SingleSpike
from esl_lava.models.convolutional import SpikingCNN
from esl_lava.models.mlp import InitialWeights, SpikingMLP
from esl_lava.models.one_spike import SingleSpikeMLP
from esl_lava.topology import MAX_DENSE, Topology

SpikingNetwork = SpikingMLP | SingleSpikeMLP | SpikingCNN


def build(
    config: Model,
    topology: Topology,
    sparse_layers: Collection[str] = (),
    initial: InitialWeights = sparse.draw_like_slayer,
    encoding: Encoding | None = None,
) -> SpikingNetwork:
    """Build a network whose initial weights torch's current generator draws.

    Args:
        config: the section `model` of the configuration.
        topology: the layers of the network.
        sparse_layers: names of the layers that store only their connections. They begin without
            connections. A single_spike network cannot have such layers.
        initial: returns the function that gives these layers their initial weights.
        encoding: the encoding of the samples; a convolutional network needs it.

    Raises:
        ConfigError: if a layer has more positions than a dense weight may have.
        ValueError: if the kind of network does not allow `sparse_layers`, or needs `encoding`.
    """
    for layer in topology.weighted:
        if layer.name not in sparse_layers and layer.positions > MAX_DENSE:
            advice = (
                ""
                if isinstance(config, SingleSpike)
                else '; training.engine = "sparse" stores only connections'
            )
            raise ConfigError(
                f"model.layers: layer {layer.name} has {layer.positions} positions, but a dense "
                f"weight may have at most {MAX_DENSE}{advice}",
                "too-large",
                key="model.layers",
                value=layer.positions,
                limit=MAX_DENSE,
                layer=layer.name,
            )
    match config:
        case MultiSpike():
            return SpikingMLP(topology, config, sparse_layers, initial)
        case SingleSpike():
            if sparse_layers:
                names = ", ".join(sparse_layers)
                raise ValueError(f"layers {names}: layers of neurons that fire once must be dense")
            return SingleSpikeMLP(topology)
        case Convolutional():
            if encoding is None:
                raise ValueError("a convolutional network needs the encoding of its samples")
            return SpikingCNN(
                topology, config, encoding.steps, encoding.input_range, sparse_layers, initial
            )


def build_to_train(experiment: Experiment, topology: Topology) -> SpikingNetwork:
    """Build the network to train. The experiment's engine computes its forward and backward passes.

    Torch's current generator draws the initial weights, which are the same for every engine. A
    layer that stores only its connections gets its initial weights with its first connections.

    Raises:
        ConfigError: as `build`, and as `choose_stored` for the engines sparse and auto.
    """
    engine = experiment.training.engine
    normalised = isinstance(experiment.model, Convolutional)
    stored = choose_stored(engine, topology, experiment.sparsity, normalised=normalised)
    model = build(experiment.model, topology, stored, encoding=experiment.encoding)
    if engine != "slayer":
        accelerate(model)  # changes SLAYER blocks only
    return model
