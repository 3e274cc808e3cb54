"""What must hold of every update of the masks, whatever the rules: checked from outside."""

from dataclasses import dataclass

import torch
from torch import nn

from esl_lava.sparsity.evolver import MaskEvolver, weight_layers
from esl_lava.sparsity.records import Update


@dataclass
class Snapshot:
    """A sparse layer between optimiser step and evolver step."""

    mask: torch.Tensor
    ever: torch.Tensor
    weight: torch.Tensor
    moments: dict[str, torch.Tensor]


def snapshots(
    model: nn.Module, optimizer: torch.optim.Optimizer, evolver: MaskEvolver
) -> dict[str, Snapshot]:
    weights = weight_layers(model)
    return {
        name: Snapshot(
            mask.clone(),
            evolver.ever[name].clone(),
            weights[name].detach().clone(),
            {key: value.clone() for key, value in moments(optimizer, weights[name]).items()},
        )
        for name, mask in evolver.masks.items()
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
    """One sentence per broken invariant of an update that was due."""
    found = []

    def expect(truth: object, what: str) -> None:
        if not truth:
            found.append(what)

    weights = weight_layers(model)
    expect([r.name for r in update.layers] == list(before), "a record per layer")
    total = sum(int(mask.count_nonzero()) for mask in evolver.masks.values())
    held = sum(int(old.mask.count_nonzero()) for old in before.values())
    expect(total == held, f"the total number of connections went from {held} to {total}")
    for record in update.layers:
        name = record.name
        old, mask, weight = before[name], evolver.masks[name], weights[name].detach()
        grown, dropped = mask & ~old.mask, old.mask & ~mask
        # A connection pruned and regrown at once would be missing on both sides.
        expect(record.pruned == int(dropped.count_nonzero()), f"{name}: number pruned")
        expect(record.grown == int(grown.count_nonzero()), f"{name}: number grown")
        expect(record.connections == int(mask.count_nonzero()) > 0, f"{name}: connections")
        expect(redistribution != "none" or record.grown == record.pruned, f"{name}: own regrown")
        expect(torch.equal(evolver.ever[name], old.ever | mask), f"{name}: ever active")
        expect(record.ever == int(evolver.ever[name].count_nonzero()), f"{name}: exploration")
        # +0.0 exactly (its bits are all 0) where inactive or new, untouched where kept.
        kept = torch.where(mask & old.mask, old.weight, 0.0)
        expect(bits_equal(weight, kept), f"{name}: weights")
        after = moments(optimizer, weights[name])
        expect(after.keys() == old.moments.keys(), f"{name}: moments")
        for key, moment in after.items():
            expect(
                bits_equal(moment, torch.where(grown, 0.0, old.moments[key])), f"{name}: {key}"
            )
    return found


def bits_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
