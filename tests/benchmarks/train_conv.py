"""A training step of convolutional networks against stock SLAYER and other frameworks.

A step is forward, backward and Adam on a batch of pixels that are the same at each of T steps,
with batch normalisation behind every convolution, and as many threads as there are cores.
Contenders take turns within a round. Ratios are another's seconds over ours.

`python -m tests.benchmarks.train_conv NAME` prints what one of its processes measures, and
`python -m tests.benchmarks.train_conv break_even` from which density on a layer of which only
connections are stored costs a step of its network more than a dense one.
"""

import functools
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esl_lava.config import from_mapping
from esl_lava.engines.slayer import slayer
from esl_lava.models.build import build_to_train
from esl_lava.sparsity.evolver import MaskEvolver
from esl_lava.topology import LAYER_KINDS, NAMED, describe
from esl_lava.training.kinds import fused_adam
from esl_lava.training.losses import tet
from tests.benchmarks.train import Measured, Step, ratios_of, step_of

SMALL, CLASSES = "32C3-AP2-64C3-AP2-128C3-AP2", 10
NEURON = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}


def speedups() -> Measured:
    """Ratios of seconds a step, each in a fresh process."""
    for name in _ALONE:
        command = [sys.executable, "-m", "tests.benchmarks.train_conv", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        yield from json.loads(done.stdout).items()


def _pixels(shape: tuple[int, int, int], batch: int) -> tuple[Tensor, Tensor]:
    """(batch, *shape) whole numbers -16..15, and labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(-16, 16, (batch, *shape), generator=generator).float()
    return pixels, torch.randint(0, CLASSES, (batch,), generator=generator)


def _ours(
    notation: str,
    pixels: Tensor,
    labels: Tensor,
    steps: int,
    *,
    density: float = 1.0,
    engine: str = "fused",
    keep_dense: Sequence[str] = ("conv1", "readout"),
    distribution: str = "erk",
) -> Step:
    """A step of ours; below density 1 with masks that stay."""
    experiment = from_mapping(
        {
            "encoding": {"kind": "direct", "bits": 5, "steps": steps},
            "model": {"kind": "convolutional", "layers": notation},
            "sparsity": {
                "density": density,
                "distribution": distribution,
                "keep_dense": keep_dense,
                "alpha": 0.0,
            },
            "training": {"engine": engine},
        }
    )
    torch.manual_seed(0)
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    model = build_to_train(experiment, experiment.model.describe(shape, CLASSES)).train()
    evolver = MaskEvolver(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        **experiment.sparsity.model_dump(exclude={"end", "dense_epochs"}),
        t_end=1,
    )
    assert abs(evolver.sparse_density - density) < 1e-3
    x = pixels.flatten(1)[..., None].expand(-1, -1, steps)
    assert model.layer_outputs(x)[0].mean() > 0.01
    return step_of(model, lambda: tet(model(x), labels), evolver.step, fused_adam)


def _channels(notation: str, first: int) -> Iterator[tuple[int, int, bool]]:
    """Input and output channels of each convolution, and whether a pool of two follows."""
    tokens = notation.split("-")
    convolutions = [int(token.split("C")[0]) for token in tokens if "C" in token]
    pooled = [after == "AP2" for token, after in itertools.pairwise([*tokens, ""]) if "C" in token]
    yield from zip((first, *convolutions), convolutions, pooled)


class _Slayer(nn.Module):
    """Stock SLAYER's synapses and neurons with torch's BatchNorm3d between them."""

    def __init__(self, notation: str, channels: int, side: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for n_pre, n_post, pooled in _channels(notation, channels):
            neuron = slayer.neuron.cuba.Neuron(**NEURON)
            neuron.threshold_eps = 1 / neuron.s_scale
            synapse = slayer.synapse.Conv(n_pre, n_post, 3, padding=1)
            synapse.pre_hook_fx = neuron.quantize_8bit
            self.parts.append(nn.Sequential(synapse, nn.BatchNorm3d(n_post), neuron))
            if pooled:
                self.parts.append(nn.AvgPool3d((2, 2, 1)))
                side //= 2
        self.readout = nn.Linear(n_post * side * side, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns, T) -> (batch, classes, T)."""
        for part in self.parts:
            x = part(x)
        found: Tensor = self.readout(x.flatten(1, 3).transpose(1, 2)).transpose(1, 2)
        return found


def _slayer(notation: str, pixels: Tensor, labels: Tensor, steps: int) -> Step:
    torch.manual_seed(0)
    model = _Slayer(notation, pixels.shape[1], pixels.shape[2])
    x = (pixels / 16)[..., None].repeat(1, 1, 1, 1, steps)
    return step_of(model, lambda: tet(model(x), labels))


def _by_step(
    notation: str, pixels: Tensor, neuron: Callable[[], nn.Module]
) -> tuple[nn.ModuleList, nn.Linear]:
    """Convolutions with their normalisation, neurons and pools in turn, and a readout."""
    torch.manual_seed(0)
    layers, side = nn.ModuleList(), pixels.shape[2]
    for n_pre, n_post, pooled in _channels(notation, pixels.shape[1]):
        convolution = nn.Conv2d(n_pre, n_post, 3, padding=1, bias=False)
        pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        layers.append(nn.ModuleList([convolution, nn.BatchNorm2d(n_post), neuron(), pool]))
        side //= 1 + pooled
    return layers, nn.Linear(n_post * side * side, CLASSES, bias=False)


def _stepped(
    notation: str,
    pixels: Tensor,
    labels: Tensor,
    steps: int,
    neuron: Callable[[], nn.Module],
    fire: Callable[[nn.Module, Tensor], Tensor],
) -> Step:
    """Time folded into the batch for convolutions and normalisations.

    Args:
        fire: (neurons, (T, batch, ...) their input) -> spikes.
    """
    parts, readout = _by_step(notation, pixels, neuron)
    layers: Any = parts
    x = (pixels / 16).expand(steps, *pixels.shape)

    def loss() -> Tensor:
        maps = x
        for convolution, norm, neurons, pool in layers:
            z = norm(convolution(maps.flatten(0, 1)))
            maps = fire(neurons, z.view(steps, -1, *z.shape[1:]))
            pooled = pool(maps.flatten(0, 1))
            maps = pooled.view(steps, -1, *pooled.shape[1:])
        return tet(readout(maps.flatten(2)).permute(1, 2, 0), labels)

    return step_of(nn.ModuleList([parts, readout]), loss)


def _spikingjelly(notation: str, pixels: Tensor, labels: Tensor, steps: int) -> Step:
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.neuron import LIFNode

    def fire(neurons: nn.Module, z: Tensor) -> Tensor:
        functional.reset_net(neurons)
        spikes: Tensor = neurons(z)
        return spikes

    return _stepped(notation, pixels, labels, steps, lambda: LIFNode(step_mode="m"), fire)


def _snntorch(notation: str, pixels: Tensor, labels: Tensor, steps: int) -> Step:
    import snntorch

    def fire(neurons: nn.Module, z: Tensor) -> Tensor:
        membrane = neurons.init_leaky()  # type: ignore[operator]
        spikes = []
        for now in z:
            fired, membrane = neurons(now, membrane)
            spikes.append(fired)
        return torch.stack(spikes)

    return _stepped(notation, pixels, labels, steps, lambda: snntorch.Leaky(beta=0.5), fire)


def _norse(notation: str, pixels: Tensor, labels: Tensor, steps: int) -> Step:
    from norse.torch import LIFBoxCell

    def fire(neurons: nn.Module, z: Tensor) -> Tensor:
        state, spikes = None, []
        for now in z:
            fired, state = neurons(now, state)
            spikes.append(fired)
        return torch.stack(spikes)

    return _stepped(notation, pixels, labels, steps, LIFBoxCell, fire)


def _small() -> Measured:
    """`cifar10-small` dense, T = 2, batch 100."""
    given = (SMALL, *_pixels((3, 32, 32), 100), 2)
    others = {
        "slayer": _slayer(*given),
        "spikingjelly": _spikingjelly(*given),
        "snntorch": _snntorch(*given),
        "norse": _norse(*given),
    }
    for other, ratios in ratios_of(_ours(*given), others, 5).items():
        yield f"train.conv.small.vs_{other}", ratios


def _small_sparse() -> Measured:
    """`cifar10-small` with a tenth of two layers' weights, against our own dense step."""
    given = (SMALL, *_pixels((3, 32, 32), 100), 2)
    sparse = _ours(*given, density=0.1, engine="sparse")
    ratios = ratios_of(sparse, {"dense": _ours(*given)}, 5)
    yield "train.conv.small_d010.vs_dense", ratios["dense"]


def _vggsnn() -> Measured:
    """VGGSNN on 2 x 48 x 48, T = 4, batch 4: dense, and with a tenth of six layers' weights."""
    given = (NAMED["vggsnn"], *_pixels((2, 48, 48), 4), 4)
    others = {"slayer": _slayer(*given), "dense": _ours(*given)}
    ratios = ratios_of(_ours(*given, density=0.1, engine="sparse"), others, 3)
    yield "train.conv.vggsnn_d010.vs_slayer", ratios["slayer"]
    yield "train.conv.vggsnn_d010.vs_dense", ratios["dense"]


_ALONE: dict[str, Callable[[], Measured]] = {
    "small": _small,
    "small_d010": _small_sparse,
    "vggsnn": _vggsnn,
}
"""What has a process of its own."""


_LAST: dict[str, tuple[str, tuple[int, int, int], int, int]] = {
    "32 x   64, 16 x 16": ("32C3-AP2-64C3-AP2", (3, 32, 32), 100, 2),
    "64 x  128,   8 x 8": ("32C3-AP2-64C3-AP2-128C3-AP2", (3, 32, 32), 100, 2),
    "128 x 256, 12 x 12": ("16C3-AP2-AP2-128C3-256C3-AP2-AP2", (2, 48, 48), 16, 4),
    "256 x 512,   6 x 6": ("16C3-AP2-AP2-AP2-256C3-512C3-AP2", (2, 48, 48), 16, 4),
    "2048 x 256, matrix": ("32C3-AP2-64C3-AP2-128C3-AP2-256", (3, 32, 32), 100, 2),
}
"""Channels and maps of a network's last layer -> layers, shape of a sample, batch, T."""


def _break_even() -> None:
    """Seconds of a step with a dense last layer over one of which connections are stored."""
    torch.set_num_threads(1)
    print("last layer          density: dense / stored")
    for name, (notation, shape, batch, steps) in _LAST.items():
        layers = describe(notation, shape, CLASSES, LAYER_KINDS).weighted
        *others, _, readout = (layer.name for layer in layers)
        made = functools.partial(
            _ours,
            notation,
            *_pixels(shape, batch),
            steps,
            keep_dense=(*others, readout),
            distribution="uniform",
        )
        dense = made()
        print(name, end="  ", flush=True)
        for density in (0.05, 0.1, 0.2, 0.3):
            stored = made(density=density, engine="sparse")
            ratio = statistics.median(ratios_of(stored, {"dense": dense}, 5)["dense"])
            print(f"{density}: {ratio:.2f}  ", end="", flush=True)
        print()


if __name__ == "__main__":
    if sys.argv[1] == "break_even":
        _break_even()
    else:
        print(json.dumps(dict(_ALONE[sys.argv[1]]())))
