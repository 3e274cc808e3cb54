"""From a configuration, or from a saved model, to a network of SLAYER blocks."""

from __future__ import annotations

from esl_lava.config import Model
from esl_lava.errors import FileError
from esl_lava.models.mlp import SpikingMLP
from esl_lava.models.modelfile import SavedModel


def build(config: Model, inputs: int, classes: int) -> SpikingMLP:
    """A network with torch's current generator's initial weights."""
    return SpikingMLP(
        inputs,
        config.hidden,
        classes,
        current_decay=config.current_decay,
        voltage_decay=config.voltage_decay,
        threshold=config.threshold,
        tau_grad=config.tau_grad,
        scale_grad=config.scale_grad,
    )


def restore(saved: SavedModel) -> SpikingMLP:
    """The network of a saved model, weights loaded and masks verified.

    Raises:
        FileError: when weights or masks do not fit the saved configuration.
    """
    hidden = saved.config.model.hidden
    first = saved.weights.get("hidden1.synapse.weight")
    last = saved.weights.get("readout.synapse.weight")
    if first is None or last is None or first.ndim != 5 or last.ndim != 5:
        raise FileError("the model's weights are not those of a multi-layer network")
    model = build(saved.config.model, first.shape[1], last.shape[0])
    expected = model.state_dict()
    for key in sorted(expected.keys() | saved.weights.keys()):
        if key not in expected or key not in saved.weights:
            raise FileError(
                f"the model's weights and its configuration (hidden = {list(hidden)}) "
                f"disagree about {key}"
            )
        if expected[key].shape != saved.weights[key].shape:
            raise FileError(
                f"{key} has shape {tuple(saved.weights[key].shape)}, "
                f"its configuration needs {tuple(expected[key].shape)}"
            )
    model.load_state_dict(saved.weights)
    for name, mask in saved.masks.items():
        weight = saved.weights.get(f"{name}.synapse.weight")
        if weight is None or weight.shape != mask.shape:
            raise FileError(f"the mask of {name} does not fit its weights")
        if weight[~mask.bool()].count_nonzero():
            raise FileError(f"layer {name}: a pruned connection has a weight other than 0")
    return model
