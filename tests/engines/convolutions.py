"""Random convolutions, faster against stock: `python -m tests.engines.convolutions 2000`.

Each runs forward and backward in a process of its own, so that a crash is counted and not
suffered: `accelerate`'s block, and where they serve it the sparse engine's, against stock SLAYER's.
Prints totals; exits with 1 if a process died, or if spikes or gradients differ.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from esl_lava.engines import sparse
from esl_lava.engines.slayer import slayer
from tests.engines.test_fused import alike, faster, on_chip, passes, spikes, terms

AGAIN = 3
"""Passes of a block: what one writes where it should not may be read by the next."""


@dataclass(frozen=True)
class Case:
    """A convolution that stock SLAYER computes; pairs are (rows, columns).

    Attributes:
        seed: of weights and input.
        channels: input and output channels of one group.
        density: of the kernels, for the sparse engine.
        values: that of a spike.
    """

    seed: int
    batch: int
    steps: int
    channels: tuple[int, int]
    groups: int
    maps: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    density: float
    values: float
    neuron: dict[str, float]

    @property
    def stored(self) -> bool:
        """Whether the sparse engine has such a layer."""
        return self.stride == self.dilation == (1, 1) and self.groups == 1


@dataclass
class Totals:
    """What was compared and how it came out.

    Attributes:
        counts: of cases, spikes and what else is printed.
        first: the first case that went wrong, in words.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: str | None = None

    @property
    def wrong(self) -> int:
        return sum(self.counts[key] for key in ("crashes", "errors", "spikes", "gradients"))

    def __str__(self) -> str:
        n = self.counts
        lines = [
            f"{n['cases']} convolutions, {n['stored']} of them in the sparse engine too; "
            f"{n['compared']} spikes compared; {n['crashes']} crashes, {n['errors']} errors, "
            f"{n['spikes']} different spikes, {n['gradients']} different gradients; "
            f"{n['kept']} kept stock SLAYER's passes, {n['silent']} never fired"
        ]
        return "\n".join(lines + ([f"first: {self.first}"] if self.first else []))


def draw(number: int, seed: int) -> Case:
    """The case of that number; every second one's maps are one to three columns wide."""
    rng = np.random.default_rng([seed, number])

    def pair(low: int, high: int) -> tuple[int, int]:
        first, second = rng.integers(low, high + 1, 2).tolist()
        return first, second

    def shape() -> dict[str, tuple[int, int]]:
        plain = rng.random() < 0.3  # as the sparse engine takes them
        rows, columns = pair(1, 10)
        return {
            "maps": (rows, columns if number % 2 else 1 + columns % 3),
            "kernel": pair(1, 4),
            "stride": (1, 1) if plain else pair(1, 4),
            "padding": pair(0, 4),
            "dilation": (1, 1) if plain else pair(1, 3),
        }

    found = shape()
    while not all(
        size + 2 * padding > dilation * (kernel - 1)
        for size, padding, dilation, kernel in zip(
            *(found[key] for key in ("maps", "padding", "dilation", "kernel"))
        )
    ):
        found = shape()
    return Case(
        seed=int(rng.integers(2**31)),
        batch=int(rng.integers(1, 5)),
        steps=int(rng.integers(1, 6)),
        channels=pair(1, 9),
        groups=1 if rng.random() < 0.6 else int(rng.integers(2, 9)),
        density=float(rng.choice([0.1, 0.5, 1.0])),
        values=float(rng.choice([1.0, 0.25, 3.0])),
        neuron={
            "threshold": float(rng.choice([1.0, 0.5])),
            "current_decay": float(rng.choice([1.0, 0.25])),
            "voltage_decay": float(rng.choice([0.5, 0.0, 1.0])),
            "tau_grad": 0.1,
            "scale_grad": 10.0,
        },
        **found,
    )


def compared(case: Case) -> dict[str, int]:
    """Counts of one case, here and now."""
    torch.manual_seed(case.seed)
    n_pre, n_post = (case.groups * count for count in case.channels)
    stock = on_chip(
        slayer.block.cuba.Conv(
            dict(case.neuron),
            n_pre,
            n_post,
            case.kernel,
            stride=case.stride,
            padding=case.padding,
            dilation=case.dilation,
            groups=case.groups,
            delay_shift=False,
        )
    )
    mask = torch.rand(stock.synapse.weight.shape) < (case.density if case.stored else 1.0)
    with torch.no_grad():
        stock.synapse.weight.mul_(4).mul_(mask)
    shape = (case.batch, n_pre, *case.maps, case.steps)
    x = case.values * spikes(np.random.default_rng(case.seed), shape, 0.4)
    summed = terms(stock, x)
    expected = passes(stock, x)
    counts: Counter[str] = Counter(silent=int(not expected[0].any()))
    twin = faster(stock)
    for _ in range(AGAIN):
        _compare(expected, passes(twin, x), summed, counts)
    counts["kept"] += int(twin.has_warned)
    if case.stored:
        counts["stored"] += 1
        ours = _stored(case, stock, mask)
        for _ in range(AGAIN):
            found = _stored_passes(ours, x)
            by_weight = expected[2].flatten()[mask.flatten()]
            _compare([*expected[:2], by_weight], found, summed, counts)
    return dict(counts)


def _compare(
    expected: list[torch.Tensor],
    found: list[torch.Tensor],
    summed: list[torch.Tensor],
    counts: Counter[str],
) -> None:
    counts["compared"] += found[0].numel()
    counts["spikes"] += int((expected[0] != found[0]).sum())
    counts["gradients"] += sum(
        not alike(theirs, mine, sums) for theirs, mine, sums in zip(expected[1:], found[1:], summed)
    )


def _stored(case: Case, stock: Any, mask: torch.Tensor) -> sparse.SparseConv:
    weights = stock.synapse.weight.detach().flatten()
    ours = sparse.SparseConv(
        dict(case.neuron), *case.channels, case.kernel, case.padding, initial=lambda at: weights[at]
    )
    ours.neuron.threshold_eps = stock.neuron.threshold_eps
    ours.synapse.weight.begin(mask.flatten().nonzero().flatten())
    return ours


def _stored_passes(block: sparse.SparseConv, x: torch.Tensor) -> list[torch.Tensor]:
    """As `passes`, of a block that stores connections."""
    x = x.clone().requires_grad_()
    block.zero_grad()
    out = block(x)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    by_values = block.synapse.weight.values.grad
    assert x.grad is not None
    assert by_values is not None
    return [out.detach(), x.grad, by_values]


def apart(case: Case, totals: Totals) -> None:
    """Add a case to the totals, computed in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said: dict[str, Any] = compared(case)
        except BaseException as error:
            said = {"errors": 1, "why": repr(error)}
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = json.loads(answer) if answer else {}
    if code or not answer:
        said = {**said, "crashes": 1, "why": f"exit code {code}"}
    why = said.pop("why", said)
    before = totals.wrong
    totals.counts.update(cases=1, **said)
    if totals.first is None and totals.wrong > before:
        totals.first = f"{why} of {case}"


def check(count: int, seed: int = 0) -> Totals:
    """Compare `count` random cases. The process may have one thread only."""
    # Kernels are loaded once, for all children. Behind a device, autograd has threads that
    # a fork loses, so there is to be none.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    logging.disable()  # that a block keeps stock's passes is counted
    compared(draw(3, seed=1))
    totals = Totals()
    for number in range(count):
        apart(draw(number, seed), totals)
    return totals


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of random convolutions")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    totals = check(chosen.count, chosen.seed)
    print(totals)
    return int(totals.wrong > 0 or totals.counts["cases"] < chosen.count)


if __name__ == "__main__":
    sys.exit(main())
