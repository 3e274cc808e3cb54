"""A thousand updates of every combination of rules: `python -m tests.sparsity.endurance`.

The network is a random 784-800-10 network, trained by SGD with momentum. Every update moves 30 %
of the connections, or as many as can move. The script prints one line per combination and a
total, and exits with 1 if an invariant is violated. An argument sets the number of updates.
"""

import itertools
import sys
import time

import torch
from torch import nn

from esl_lava.sparsity.evolver import MaskEvolver
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import REDISTRIBUTE
from tests.sparsity.invariants import snapshots, violations

UPDATES = 1000


def main(updates: int) -> int:
    """Run all combinations. Return 1 if an invariant is violated, otherwise 0."""
    begin, broken, total = time.perf_counter(), 0, 0
    for prune, growth, redistribution in itertools.product(PRUNE, GROW, REDISTRIBUTE):
        start = time.perf_counter()
        found, sentence = endure(prune, growth, redistribution, updates)
        broken += len(found)
        total += updates
        print(
            f"{prune:16} {growth:14} {redistribution:9}: {updates} updates, "
            f"{len(found)} violations; {sentence}; {time.perf_counter() - start:.1f} s",
            *sorted(set(found)),
            sep="\n    ",
            flush=True,
        )
    print(f"total: {total} updates, {broken} violations, {time.perf_counter() - begin:.0f} s")
    return 1 if broken else 0


def endure(prune: str, growth: str, redistribution: str, updates: int) -> tuple[list[str], str]:
    """Return the violations of one combination, and a summary of the final network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 800, bias=False), nn.Linear(800, 10, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    evolver = MaskEvolver(
        model,
        optimizer,
        density=0.1,
        prune=prune,
        growth=growth,
        redistribution=redistribution,
        schedule="constant",
        alpha=0.3,
        t_iter=1,
        t_end=updates,
    )
    gradients = [[torch.randn_like(p) for p in model.parameters()] for _ in range(7)]
    total, connections = sum(evolver.connections().values()), {}
    explored = {name: int(ever.count_nonzero()) for name, ever in evolver.ever.items()}
    moved, found = 0, []
    for i in range(updates):
        for parameter, gradient in zip(model.parameters(), gradients[i % len(gradients)]):
            parameter.grad = gradient
        optimizer.step()
        before = snapshots(model, optimizer, evolver)
        update = evolver.step()
        found += violations(before, model, optimizer, evolver, update, redistribution)
        connections = evolver.connections()
        if sum(connections.values()) != total:
            found.append(f"{total} connections became {sum(connections.values())}")
        moved += sum(record.grown for record in update.layers)
        for record in update.layers:
            explored[record.name] = min(explored[record.name] + record.grown, record.size)
            if growth == "random_unfired" and record.ever != explored[record.name]:
                found.append(f"{record.name}: R_s is not min(1, d + sum r / n)")
    split = " + ".join(str(number) for number in connections.values())
    return found, f"{total} = {split} connections, {moved} moved, R_s {evolver.exploration:.4f}"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else UPDATES))
