"""Compare random convolutions with stock SLAYER's: `python -m tests.engines.convolutions 2000`.

Each convolution runs forward and backward in its own process, so that a crash is counted. The block
of `accelerate`, and that of the sparse engine if it has one, are compared with stock SLAYER's.
The command prints totals. It exits with 1 if a process crashed, or if spikes or gradients differ.
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
"""Number of passes of a block. If a pass writes to wrong memory, the next one may read it."""


@dataclass(frozen=True)
class Case:
    """A convolution that stock SLAYER computes; pairs are (rows, columns).

    Attributes:
        seed: seed of weights and input.
        channels: input and output channels of one group.
        density: density of the kernels, for the sparse engine.
        values: the value of a spike.
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
        """Whether the sparse engine has a layer of this kind."""
        return self.stride == self.dilation == (1, 1) and self.groups == 1


@dataclass
class Totals:
    """The totals of the comparisons.

    Attributes:
        counts: number of cases, compared spikes, differences and so on.
        first: the first case that failed, in words.
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
    """Draw the case with this number. Maps of every second case are one to three columns wide."""
    rng = np.random.default_rng([seed, number])

    def pair(low: int, high: int) -> tuple[int, int]:
        first, second = rng.integers(low, high + 1, 2).tolist()
        return first, second

    def shape() -> dict[str, tuple[int, int]]:
        plain = rng.random() < 0.3  # the sparse engine needs stride and dilation 1
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


def compare(case: Case) -> dict[str, int]:
    """Compute a case in this process and return its counts."""
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
    """Return the same as `passes` for a block that stores connections."""
    x = x.clone().requires_grad_()
    block.zero_grad()
    out = block(x)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    by_values = block.synapse.weight.values.grad
    assert x.grad is not None
    assert by_values is not None
    return [out.detach(), x.grad, by_values]


def run_forked(case: Case, totals: Totals) -> None:
    """Add a case to the totals, computed in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            counts: dict[str, Any] = compare(case)
        except BaseException as error:
            counts = {"errors": 1, "why": repr(error)}
        os.write(writing, json.dumps(counts).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    counts = json.loads(answer) if answer else {}
    if code or not answer:
        counts = {**counts, "crashes": 1, "why": f"exit code {code}"}
    why = counts.pop("why", counts)
    before = totals.wrong
    totals.counts.update(cases=1, **counts)
    if totals.first is None and totals.wrong > before:
        totals.first = f"{why} of {case}"


def check(count: int, seed: int = 0) -> Totals:
    """Compare `count` random cases. The process may have one thread only."""
    # Kernels are loaded once, before the forks. With a GPU, autograd starts threads, which a
    # fork loses. So hide all GPUs.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    logging.disable()  # blocks that keep stock passes are counted and not logged
    compare(draw(3, seed=1))
    totals = Totals()
    for number in range(count):
        run_forked(draw(number, seed), totals)
    return totals


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of random convolutions")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    totals = check(options.count, options.seed)
    print(totals)
    return int(totals.wrong > 0 or totals.counts["cases"] < options.count)


if __name__ == "__main__":
    sys.exit(main())
