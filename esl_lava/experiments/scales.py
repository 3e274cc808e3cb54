"""At which scale the paper's convolutional results are computed: the networks and their data.

"paper" is the paper's own setting, for a machine with a GPU and the data. "small" ends on two
cores: smaller networks, fewer epochs, and other data where the paper's cannot be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from esl_lava.config import Experiment, override
from esl_lava.errors import ConfigError
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
    "DVS-CIFAR10 has no split of its own, and the paper names none: ours is fixed, a tenth of each "
    "class is tested on. --set data.name=dvs_cifar10_tet takes TET's."
)


@dataclass(frozen=True)
class Setting:
    """An experiment: a preset, and what is changed in it.

    Attributes:
        preset: its name.
        changes: dotted key -> value.
        remark: a sentence about it beside the paper's setting.
    """

    preset: str
    changes: Mapping[str, object]
    remark: str

    def experiment(self) -> Experiment:
        """The experiment."""
        return override(load_preset(self.preset), self.changes)


@dataclass(frozen=True)
class Part:
    """A network and its data in Table 2: trained dense, and at a density.

    Attributes:
        name: of the part.
        density: of the layers that are made sparse.
        setting: of both.
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
                    "cifar10-resnet: a small residual network, few epochs and images that "
                    "were JPEG files, in the place of ResNet-19, 300 epochs and lossless images.",
                ),
            ),
            Part(
                "cifar10-vgg",
                0.1,
                Setting(
                    "cifar10-small",
                    {"training.epochs": 8},
                    "cifar10-vgg: three convolutions on the same images; the paper has no such "
                    "row.",
                ),
            ),
            Part(
                "nmnist",
                0.1,
                Setting(
                    "nmnist-small",
                    {**_MOMENTUM, "sparsity.t_iter": 20, "training.epochs": 30},
                    "nmnist: 1,000 recordings of N-MNIST, three convolutions and few epochs, in "
                    "the place of DVS-CIFAR10, VGGSNN and 300. N-MNIST is a far easier task, and "
                    "100 test recordings tell accuracies apart by no less than a point.",
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
            "Five convolutions, few epochs and 4,000 images of CIFAR-10, in the place of VGGSNN, "
            "300 epochs and DVS-CIFAR10.",
        ),
        PAPER: Setting(_DVS, {}, _SPLIT),
    }
)
"""Scale -> what Fig. 3 varies."""

FIG4: Mapping[str, Setting] = MappingProxyType(
    {
        SMALL: Setting(
            "cifar10-subset",
            {"training.epochs": 15, "sparsity.t_iter": 20, "sparsity.distribution": "erk"},
            "Three convolutions, few epochs and 4,000 images of CIFAR-10, in the place of VGGSNN, "
            "300 epochs and DVS-CIFAR10.",
        ),
        PAPER: Setting(_DVS, {}, _SPLIT),
    }
)
"""Scale -> what Fig. 4 varies."""


def changed(changes: Mapping[str, object]) -> tuple[str, ...]:
    """A sentence on what a user changed in a scale; none where nothing is changed.

    Args:
        changes: dotted key -> value.
    """
    if not changes:
        return ()
    said = ", ".join(f"{key} = {value}" for key, value in changes.items())
    return (f"Not as this scale has it, where the sentences above say otherwise: {said}.",)


def check_scale(scale: str) -> None:
    """Refuse what is no scale.

    Raises:
        ConfigError: with the scales there are.
    """
    if scale not in (SMALL, PAPER):
        raise ConfigError(f"--scale {scale!r}: there are {SMALL} and {PAPER}")
