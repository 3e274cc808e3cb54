"""From a configuration, or from a saved model, to a network of SLAYER blocks."""

from __future__ import annotations

import torch

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
    if first is None or last is None or {first.ndim, last.ndim} != {5} or not first.numel():
        raise FileError("the model's weights are not those of a multi-layer network")
    widths = [first.shape[1], *hidden, last.shape[0]]
    names = [*(f"hidden{index}" for index in range(1, len(widths) - 1)), "readout"]
    for name, n_pre, n_post in zip(names, widths, widths[1:]):
        # Before anything of the configuration's size is allocated.
        weight = saved.weights.get(f"{name}.synapse.weight")
        if weight is None or weight.shape != (n_post, n_pre, 1, 1, 1):
            shape = None if weight is None else tuple(weight.shape)
            raise FileError(
                f"the weight of layer {name} has shape {shape}, its configuration needs "
                f"{(n_post, n_pre, 1, 1, 1)} (hidden = {list(hidden)})"
            )
    with torch.random.fork_rng(devices=[]):
        model = build(saved.config.model, widths[0], widths[-1])
    expected = model.state_dict()
    for key in sorted(expected.keys() | saved.weights.keys()):
        if key not in expected or key not in saved.weights:
            raise FileError(
                f"the model's weights and its configuration (hidden = {list(hidden)}) "
                f"disagree about {key}"
            )
        found, needed = saved.weights[key], expected[key]
        if found.shape != needed.shape or found.dtype != needed.dtype:
            raise FileError(
                f"{key} is {found.dtype} of shape {tuple(found.shape)}, "
                f"its configuration needs {needed.dtype} of shape {tuple(needed.shape)}"
            )
        if not key.endswith(".synapse.weight") and not torch.equal(found, needed):
            raise FileError(f"{key} is {found.tolist()}, its configuration says {needed.tolist()}")
    model.load_state_dict(saved.weights)
    for name, mask in saved.masks.items():
        weight = saved.weights.get(f"{name}.synapse.weight")
        if weight is None or weight.shape != mask.shape:
            raise FileError(f"the mask of {name} does not fit its weights")
        if weight[~mask.bool()].count_nonzero():
            raise FileError(f"layer {name}: a pruned connection has a weight other than 0")
    return model
