"""A network with dense weights and one with stored connections, with the same inputs."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights, weight_layers
from esl_lava.sparsity.weights import SparseWeight

Optimiser = Callable[..., torch.optim.Optimizer]


class Stored(nn.Module):
    """Computes W x with a `SparseWeight`, through a dense tensor."""

    def __init__(self, n_pre: int, n_post: int, initial: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.weight = SparseWeight(n_pre, n_post, initial)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        dense = torch.zeros(weight.size).index_put((weight.positions(),), weight.values)
        if weight.wants_dense_gradient and dense.requires_grad:
            dense.register_hook(lambda gradient: _give(weight, gradient.clone()))
        return nn.functional.linear(x, dense.view(weight.shape))


def _give(weight: SparseWeight, gradient: torch.Tensor) -> None:
    weight.dense_gradient = lambda where: gradient[where]


def models(widths: tuple[int, ...], seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return a dense network and a stored network with the same initial weights."""
    torch.manual_seed(seed)
    dense, stored = nn.Sequential(), nn.Sequential()
    for i, (n_pre, n_post) in enumerate(itertools.pairwise(widths)):
        layer = nn.Linear(n_pre, n_post, bias=False)
        flat = layer.weight.detach().clone().view(-1)
        dense.add_module(f"layer{i}", layer)
        stored.add_module(f"layer{i}", Stored(n_pre, n_post, lambda at, flat=flat: flat[at]))
        dense.add_module(f"act{i}", nn.Tanh())
        stored.add_module(f"act{i}", nn.Tanh())
    return dense, stored


class Twins:
    """Both networks, each with an optimiser and an evolver.

    Args:
        widths: number of neurons of each layer.
        optimiser: parameters -> optimiser.
        settings: arguments of the evolver.
    """

    def __init__(self, widths: tuple[int, ...], optimiser: Optimiser, **settings: Any) -> None:
        self.dense, self.stored = models(widths)
        self.optimizers = [optimiser(model.parameters()) for model in (self.dense, self.stored)]
        self.evolvers = [
            MaskEvolver(model, optimizer, **settings)
            for model, optimizer in zip((self.dense, self.stored), self.optimizers)
        ]
        self.weights = sparse_weights(self.stored)

    def feed(self, gradients: dict[str, torch.Tensor]) -> None:
        """Make a step of the optimiser with these dense gradients, and a step of the evolver."""
        for name, gradient in gradients.items():
            flat, weight = gradient.view(-1), self.weights[name]
            weight_layers(self.dense)[name].grad = gradient
            weight.values.grad = flat[weight.positions()]
            if weight.wants_dense_gradient:
                _give(weight, flat)
        self.step()

    def step(self) -> None:
        for optimizer, evolver in zip(self.optimizers, self.evolvers):
            optimizer.step()
            evolver.step()

    def differences(self) -> list[str]:
        """Return the names of all parts whose bits differ."""
        found = []

        def expect(truth: object, what: str) -> None:
            if not truth:
                found.append(what)

        masked, kept = self.evolvers
        expect(masked.history == kept.history, "history")
        expect(masked.connections() == kept.connections(), "connections")
        expect(masked.exploration == kept.exploration, "exploration")
        expect(kept.masks == {}, "masks of stored connections")
        for name, weight in self.weights.items():
            mask = masked.masks[name].view(-1)
            where = weight.positions()
            expect(torch.equal(mask.nonzero().view(-1), where), f"{name}: connections")
            dense = weight_layers(self.dense)[name]
            expect(torch.equal(dense.detach().view(-1)[mask], weight.values), f"{name}: values")
            ever = unpacked(kept.ever[name], weight.size)
            expect(torch.equal(masked.ever[name].view(-1), ever), f"{name}: ever")
            states = [
                optimizer.state[weight_layers(model)[name]]
                for optimizer, model in zip(self.optimizers, (self.dense, self.stored))
            ]
            expect(states[0].keys() == states[1].keys(), f"{name}: optimiser's keys")
            for key, value in states[0].items():
                moment = value.view(-1)[mask] if value.dim() else value
                expect(torch.equal(moment, states[1][key]), f"{name}: {key}")
        return found


def unpacked(ever: torch.Tensor, size: int) -> torch.Tensor:
    """Return the (size,) bool of a compact record."""
    found = torch.zeros(size, dtype=torch.bool)
    if ever.dtype == torch.int64:
        found[ever] = True
        return found
    for position in range(size):
        found[position] = bool(int(ever[position // 8]) >> position % 8 & 1)
    return found
