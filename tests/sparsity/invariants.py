"""Invariants of every update of the masks under any rules, checked from outside."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from esl_lava.sparsity.evolver import MaskEvolver
from esl_lava.sparsity.layers import find_layers
from esl_lava.sparsity.records import Update


@dataclass
class Snapshot:
    """A sparse layer between the optimiser step and the evolver step."""

    mask: torch.Tensor
    ever: torch.Tensor
    weight: torch.Tensor
    moments: dict[str, torch.Tensor]


def snapshots(
    model: nn.Module, optimizer: torch.optim.Optimizer, evolver: MaskEvolver
) -> dict[str, Snapshot]:
    weights = parameters(model, evolver)
    return {
        name: Snapshot(
            mask.clone(),
            evolver.ever[name].clone(),
            weights[name].detach().clone(),
            {key: value.clone() for key, value in moments(optimizer, weights[name]).items()},
        )
        for name, mask in evolver.masks.items()
    }


def parameters(model: nn.Module, evolver: MaskEvolver) -> dict[str, nn.Parameter]:
    """Return the weight of each layer with a mask, by name."""
    return {
        name: layer.parameter for name, layer in find_layers(model).items() if name in evolver.masks
    }


def moments(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, torch.Tensor]:
    state = optimizer.state.get(weight, {})
    return {k: v for k, v in state.items() if getattr(v, "shape", None) == weight.shape}


def violations(
    before: dict[str, Snapshot],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    evolver: MaskEvolver,
    update: Update,
    redistribution: str,
) -> list[str]:
    """Return one sentence for each invariant that an update violates."""
    found = []

    def expect(truth: object, what: str) -> None:
        if not truth:
            found.append(what)

    weights = parameters(model, evolver)
    expect([r.name for r in update.layers] == list(before), "a record per layer")
    total = sum(count(mask) for mask in evolver.masks.values())
    previous = sum(count(old.mask) for old in before.values())
    expect(total == previous, f"the number of connections changed from {previous} to {total}")
    for record in update.layers:
        name = record.name
        old, mask, weight = before[name], evolver.masks[name], weights[name].detach()
        kept = mask & old.mask
        grown = mask & ~kept
        # A connection that is pruned and regrown in one update would be missing in both counts.
        expect(record.pruned == count(old.mask) - count(kept), f"{name}: number pruned")
        expect(record.grown == count(grown), f"{name}: number grown")
        expect(record.connections == count(mask) > 0, f"{name}: connections")
        expect(redistribution != "none" or record.grown == record.pruned, f"{name}: own regrown")
        expect(torch.equal(evolver.ever[name], old.ever | mask), f"{name}: ever active")
        expect(record.ever == count(evolver.ever[name]), f"{name}: exploration")
        # Free and grown positions are exactly +0.0 (all bits 0); kept weights are unchanged.
        expect(torch.equal(bits(weight), bits(old.weight).mul_(kept)), f"{name}: weights")
        after = moments(optimizer, weights[name])
        expect(after.keys() == old.moments.keys(), f"{name}: moments")
        for key, moment in after.items():
            untouched = bits(old.moments[key]).mul_(~grown)
            expect(torch.equal(bits(moment), untouched), f"{name}: {key}")
    return found


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def count(mask: torch.Tensor) -> int:
    return int(np.count_nonzero(mask.numpy()))
