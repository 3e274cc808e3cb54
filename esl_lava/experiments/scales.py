"""The two scales of the paper's convolutional results: their networks and data.

"paper" is the setting of the paper, for a machine with a GPU and the data. "small" runs on two
cores: smaller networks, fewer epochs, and other data if the paper's data are not available.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from esl_lava.config import Experiment, override
from esl_lava.errors import ConfigError, shorten
from esl_lava.experiments.preset import load_preset

SMALL, PAPER = "small", "paper"

_MOMENTUM: Mapping[str, object] = MappingProxyType(
    {
        "sparsity.prune": "set",
        "sparsity.growth": "momentum",
        "sparsity.redistribution": "momentum",
        "sparsity.distribution": "erk",
    }
)


_DVS = "dvs-cifar10-vggsnn"
_SPLIT = (
    "DVS-CIFAR10 has no official split, and the paper names none. Our split is fixed: a tenth of "
    "each class is the test split. --set data.name=dvs_cifar10_tet selects the split of TET."
)


@dataclass(frozen=True)
class Setting:
    """An experiment, as a preset with changes.

    Attributes:
        preset: name of the preset.
        changes: dotted key -> new value.
        remark: how the experiment differs from the paper's, as a sentence; empty if it does not.
    """

    preset: str
    changes: Mapping[str, object]
    remark: str

    def experiment(self) -> Experiment:
        """Return the preset with the changes."""
        return override(load_preset(self.preset), self.changes)


@dataclass(frozen=True)
class Part:
    """A part of Table 2: one network on one data set, trained dense and sparse.

    Attributes:
        name: name of the part.
        density: density of the sparse layers.
        setting: the experiment of the dense and the sparse network.
    """

    name: str
    density: float
    setting: Setting


TABLE2: Mapping[str, tuple[Part, ...]] = MappingProxyType(
    {
        SMALL: (
            Part(
                "cifar10-resnet",
                0.5,
                Setting(
                    "cifar10-resnet-small",
                    {"training.epochs": 5},
                    "cifar10-resnet: a small residual network, few epochs and images from JPEG "
                    "files, instead of ResNet-19, 300 epochs and lossless images.",
                ),
            ),
            Part(
                "cifar10-vgg",
                0.1,
                Setting(
                    "cifar10-small",
                    {"training.epochs": 8},
                    "cifar10-vgg: three convolutions on the same images. The paper has no such "
                    "row.",
                ),
            ),
            Part(
                "nmnist",
                0.1,
                Setting(
                    "nmnist-small",
                    {**_MOMENTUM, "sparsity.t_iter": 20, "training.epochs": 30},
                    "nmnist: 1,000 recordings of N-MNIST, three convolutions and few epochs, "
                    "instead of DVS-CIFAR10, VGGSNN and 300 epochs. N-MNIST is a much easier task. "
                    "With 100 test recordings, accuracies have steps of one percentage point.",
                ),
            ),
        ),
        PAPER: (
            Part("cifar10", 0.5, Setting("cifar10-resnet19", {}, "")),
            Part("cifar100", 0.5, Setting("cifar100-resnet19", {}, "")),
            Part("dvs-cifar10", 0.1, Setting(_DVS, {}, f"dvs-cifar10: {_SPLIT}")),
        ),
    }
)
"""Scale -> the parts of Table 2."""

_VGG_SUBSET = "16C3-32C3-AP2-64C3-64C3-AP2-128C3-AP2"

FIG3: Mapping[str, Setting] = MappingProxyType(
    {
        SMALL: Setting(
            "cifar10-subset",
            {
                "model.layers": _VGG_SUBSET,
                "training.epochs": 15,
                "sparsity.t_iter": 20,
                "sparsity.distribution": "erk",
            },
            "Five convolutions, few epochs and 4,000 images of CIFAR-10, instead of VGGSNN, 300 "
            "epochs and DVS-CIFAR10.",
        ),
        PAPER: Setting(_DVS, {}, _SPLIT),
    }
)
"""Scale -> the experiment that Fig. 3 varies."""

FIG4: Mapping[str, Setting] = MappingProxyType(
    {
        SMALL: Setting(
            "cifar10-subset",
            {"training.epochs": 15, "sparsity.t_iter": 20, "sparsity.distribution": "erk"},
            "Three convolutions, few epochs and 4,000 images of CIFAR-10, instead of VGGSNN, 300 "
            "epochs and DVS-CIFAR10.",
        ),
        PAPER: Setting(_DVS, {}, _SPLIT),
    }
)
"""Scale -> the experiment that Fig. 4 varies."""


def describe_changes(changes: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence about the user's changes to a scale; nothing if there are none.

    Args:
        changes: dotted key -> new value.
    """
    if not changes:
        return ()
    listed = ", ".join(f"{key} = {value}" for key, value in changes.items())
    return (f"Settings that replace those of this scale and of the sentences above: {listed}.",)


def check_scale(scale: str) -> None:
    """Check the name of a scale.

    Raises:
        ConfigError: if there is no such scale.
    """
    if scale not in (SMALL, PAPER):
        raise ConfigError(
            f"--scale {shorten(scale)}: unknown scale; the scales are {SMALL} and {PAPER}",
            "unknown",
            key="--scale",
            value=scale,
            limit=f"{SMALL}, {PAPER}",
        )
