"""From a configuration to a network."""

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
from esl_lava.models.mlp import Initial, SpikingMLP
from esl_lava.models.one_spike import SingleSpikeMLP
from esl_lava.topology import MAX_DENSE, Topology

SpikingNetwork = SpikingMLP | SingleSpikeMLP | SpikingCNN


def build(
    config: Model,
    topology: Topology,
    sparse_layers: Collection[str] = (),
    initial: Initial = sparse.as_slayer_draws,
    encoding: Encoding | None = None,
) -> SpikingNetwork:
    """A network with torch's current generator's initial weights.

    Args:
        sparse_layers: names of layers of which only connections are stored, not of a
            single_spike network; they begin without any.
        initial: what gives these their weights.
        encoding: of the samples, which a convolutional network has to know.

    Raises:
        ConfigError: for a layer with more positions than a dense weight may have.
    """
    for layer in topology.weighted:
        if layer.name not in sparse_layers and layer.positions > MAX_DENSE:
            instead = (
                '; training.engine = "sparse" stores only connections'
                if not isinstance(config, SingleSpike)
                else ""
            )
            raise ConfigError(
                f"model.layers: layer {layer.name} has {layer.positions} positions, more than the "
                f"{MAX_DENSE} of a dense weight{instead}"
            )
    match config:
        case MultiSpike():
            return SpikingMLP(topology, config, sparse_layers, initial)
        case SingleSpike():
            if sparse_layers:
                names = ", ".join(sparse_layers)
                raise ValueError(f"layers {names} of neurons that fire once are dense")
            return SingleSpikeMLP(topology)
        case Convolutional():
            if encoding is None:
                raise ValueError("a convolutional network needs the encoding of its samples")
            given = (encoding.steps, encoding.input_range, sparse_layers, initial)
            return SpikingCNN(topology, config, *given)


def build_to_train(experiment: Experiment, topology: Topology) -> SpikingNetwork:
    """The network to train, computed by the experiment's engine.

    Its initial weights, of torch's current generator, are the same ones whatever the engine; a
    layer of sparse weights gets its own with its first connections.

    Raises:
        ConfigError: when `auto` cannot tell how dense layers are to be.
    """
    engine = experiment.training.engine
    normalised = isinstance(experiment.model, Convolutional)
    stored = choose_stored(engine, topology, experiment.sparsity, normalised=normalised)
    model = build(experiment.model, topology, stored, encoding=experiment.encoding)
    if engine != "slayer":
        accelerate(model)  # finds no blocks in other networks
    return model
