"""What one update of the masks costs, against one optimiser step of the same network."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from esl_lava.engines.slayer import slayer
from esl_lava.sparsity.evolver import MaskEvolver, weight_layers
from esl_lava.sparsity.weights import SparseWeight

CHANNELS = (2, 64, 128, 256, 256, 512, 512, 512, 512)
BATCH, STEPS, SIDE = 8, 4, 48
ROUNDS = 3
UPDATES = 24
STORED = (("d010", 784, 800, 0.1), ("wide_d001", 4096, 4096, 0.01))
"""Layers whose updates are measured: part of a name, inputs, outputs, density."""

GAIN = 16.0
"""Factor on the initial weights with which a thinned network spikes in every layer."""

DEAREST = {"prune": "global_magnitude", "growth": "momentum", "redistribution": "momentum"}
DEFAULT = {"prune": "set", "growth": "random", "redistribution": "none"}


def update_costs() -> Iterator[tuple[str, list[float]]]:
    """What updates cost, as ratios of seconds measured in turn.

    Of a layer that stores its connections, over one with a mask. Of VGGSNN's 9.2 million
    convolution weights at density 0.1, over a step of training: forward, backward and Adam
    of stock SLAYER blocks.
    """
    for name, n_pre, n_post, density in STORED:
        yield f"evolve.stored.{name}.vs_masked", _stored_ratios(n_pre, n_post, density)
    yield "evolve.vggsnn.vs_step", _ratios(DEAREST)
    yield "evolve.vggsnn.set_random.vs_step", _ratios(DEFAULT)


def _stored_ratios(n_pre: int, n_post: int, density: float) -> list[float]:
    torch.manual_seed(0)
    masked, stored = nn.Linear(n_pre, n_post, bias=False), nn.Module()
    weight = SparseWeight(n_pre, n_post, lambda where: torch.randn(where.numel()))
    stored.weight = weight
    steps = [
        _updates(model, parameter, density)
        for model, parameter in ((masked, masked.weight), (stored, weight.values))
    ]
    ratios = []
    for _ in range(UPDATES):
        slow, fast = (next(seconds) for seconds in steps)
        ratios.append(fast / slow)
    return ratios[UPDATES // 4 :]  # the first rounds also load code


def _updates(model: nn.Module, parameter: torch.Tensor, density: float) -> Iterator[float]:
    """Seconds of one update after the other."""
    optimizer = torch.optim.Adam([parameter])
    settings: dict[str, Any] = {"density": density, "t_iter": 1, "t_end": 10 * UPDATES, **DEFAULT}
    evolver = MaskEvolver(model, optimizer, **settings)
    while True:
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        yield _seconds(evolver.step)


def _ratios(rules: dict[str, str]) -> list[float]:
    torch.manual_seed(0)
    model = _vggsnn()
    optimizer = torch.optim.Adam(model.parameters())
    settings: dict[str, Any] = {"density": 0.1, "t_iter": 1, "t_end": 1000, **rules}
    evolver = MaskEvolver(model, optimizer, **settings)
    with torch.no_grad():
        for weight in weight_layers(model).values():
            weight.mul_(GAIN)
    spikes = (torch.rand(BATCH, CHANNELS[0], SIDE, SIDE, STEPS) < 0.1).float()

    def step() -> None:
        optimizer.zero_grad()
        model(spikes).mean().backward()
        optimizer.step()
        # A network without activity would be quick to evolve.
        assert all(weight.grad.any() for weight in weight_layers(model).values())

    ratios = []
    for _ in range(1 + ROUNDS):
        seconds = _seconds(step)
        ratios.append(_seconds(evolver.step) / seconds)
        moved = sum(record.grown for record in evolver.history[-1].layers)
        assert moved > 0.29 * sum(record.connections for record in evolver.history[-1].layers)
    return ratios[1:]  # the first round also loads code


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _vggsnn() -> nn.Module:
    """64-128-AP-256-256-AP-512-512-AP-512-512-AP, 3x3 kernels, without the classifier."""
    model = nn.Sequential()
    for i, (n_pre, n_post) in enumerate(itertools.pairwise(CHANNELS)):
        neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
        block = slayer.block.cuba.Conv(neuron, n_pre, n_post, 3, padding=1, delay_shift=False)
        block.neuron.threshold_eps = 1 / block.neuron.s_scale
        model.append(block)
        if i % 2:
            model.append(nn.AvgPool3d((2, 2, 1)))
    return model
