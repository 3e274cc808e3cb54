"""From a configuration, or from a saved model, to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from esl_lava.config import Model
from esl_lava.errors import FileError
from esl_lava.models.mlp import SpikingMLP
from esl_lava.models.modelfile import SavedModel
from esl_lava.models.single_spike import SingleSpikeMLP

SpikingNetwork = SpikingMLP | SingleSpikeMLP


def build(config: Model, inputs: int, classes: int) -> SpikingNetwork:
    """A network with torch's current generator's initial weights."""
    return _KINDS[config.kind].build(config, inputs, classes)


def _multi_spike(config: Model, inputs: int, classes: int) -> SpikingMLP:
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


def _single_spike(config: Model, inputs: int, classes: int) -> SingleSpikeMLP:
    return SingleSpikeMLP(inputs, config.hidden, classes)


@dataclass(frozen=True)
class _Kind:
    """A kind of network.

    Attributes:
        build: makes one.
        key: what follows a layer's name where a state dict keeps its weight.
        kernel: lengths of a weight after (n_post, n_pre).
    """

    build: Callable[[Model, int, int], SpikingNetwork]
    key: str
    kernel: tuple[int, ...]


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "multi_spike": _Kind(_multi_spike, ".synapse.weight", (1, 1, 1)),
        "single_spike": _Kind(_single_spike, ".weight", ()),
    }
)
"""The kinds of networks by `model.kind`."""


def restore(saved: SavedModel) -> Any:
    """The network of a saved model, weights loaded and masks verified.

    Returns:
        A `SpikingMLP` or a `SingleSpikeMLP`, as `model.kind` says.

    Raises:
        FileError: when weights or masks do not fit the saved configuration.
    """
    hidden = saved.config.model.hidden
    kind = _KINDS[saved.config.model.kind]
    first = saved.weights.get(f"hidden1{kind.key}")
    last = saved.weights.get(f"readout{kind.key}")
    dimensions = 2 + len(kind.kernel)
    if (
        first is None
        or last is None
        or {first.ndim, last.ndim} != {dimensions}
        or not first.numel()
    ):
        raise FileError("the model's weights are not those of a multi-layer network")
    widths = [first.shape[1], *hidden, last.shape[0]]
    names = [*(f"hidden{index}" for index in range(1, len(widths) - 1)), "readout"]
    for name, n_pre, n_post in zip(names, widths, widths[1:]):
        # Before anything of the configuration's size is allocated.
        weight = saved.weights.get(f"{name}{kind.key}")
        needed = (n_post, n_pre, *kind.kernel)
        if weight is None or weight.shape != needed:
            shape = None if weight is None else tuple(weight.shape)
            raise FileError(
                f"the weight of layer {name} has shape {shape}, its configuration needs "
                f"{needed} (hidden = {list(hidden)})"
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
        found, due = saved.weights[key], expected[key]
        if found.shape != due.shape or found.dtype != due.dtype:
            raise FileError(
                f"{key} is {found.dtype} of shape {tuple(found.shape)}, "
                f"its configuration needs {due.dtype} of shape {tuple(due.shape)}"
            )
        if not key.endswith(kind.key) and not torch.equal(found, due):
            raise FileError(f"{key} is {found.tolist()}, its configuration says {due.tolist()}")
    model.load_state_dict(saved.weights)
    for name, mask in saved.masks.items():
        weight = saved.weights.get(f"{name}{kind.key}")
        if weight is None or weight.shape != mask.shape:
            raise FileError(f"the mask of {name} does not fit its weights")
        if weight[~mask.bool()].count_nonzero():
            raise FileError(f"layer {name}: a pruned connection has a weight other than 0")
    return model
