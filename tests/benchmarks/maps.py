"""Layers of normalised convolutional networks, of which only connections are stored, against dense.

`python -m tests.benchmarks.maps` prints milliseconds of CPU an image for a layer's weighted input
forward and backward, by one thread, and of what has no dense weights their gradient everywhere, as
growth by momentum takes it in each step. Neurons and normalisation, the same for both, are left
out. A dense layer is torch's convolution, or product, of the summed maps in the quicker of its two
layouts; a stored one is `engines.sparse_maps.weigh`. 15 % of the inputs spike.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from esl_lava.engines.sparse_maps import RoundedWeights, weigh
from esl_lava.sparsity.weights import SparseWeight

ACTIVITY = 0.15
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
SECONDS = 1.0
"""Of CPU, that a figure is the median over."""


@dataclass(frozen=True)
class Case:
    """A layer.

    Attributes:
        side: of its input's maps, once pooled.
        kernel: its side; 0 where neurons see all of the maps.
    """

    name: str
    channels: tuple[int, int]
    side: int
    pool: int
    kernel: int
    stride: int
    steps: int
    batch: int

    @property
    def padding(self) -> int:
        """What keeps the side, with a stride of 1."""
        return self.kernel // 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a dense weight."""
        side = self.kernel or self.side
        return (*self.channels[::-1], side, side)


CASES = (
    Case("cifar10-small conv2", (32, 64), 16, 2, 3, 1, 2, 100),
    Case("cifar10-small conv3", (64, 128), 8, 2, 3, 1, 2, 100),
    Case("VGGSNN conv7", (512, 512), 6, 1, 3, 1, 4, 16),
    Case("VGGSNN conv3", (128, 256), 24, 2, 3, 1, 4, 8),
    Case("ResNet-19, stride 2", (128, 256), 32, 1, 3, 2, 2, 16),
    Case("ResNet-19, shortcut", (128, 256), 32, 1, 1, 2, 2, 16),
    Case("dense behind maps", (128, 256), 4, 2, 0, 1, 2, 100),
)


def _milliseconds(work: Callable[[], object], images: int) -> float:
    """Of CPU an image."""
    work()
    taken: list[float] = []
    while sum(taken) < SECONDS or len(taken) < 3:
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1000 * statistics.median(taken) / images


def _dense(case: Case, x: Tensor, order: torch.memory_format) -> Callable[[], object]:
    maps = x.permute(1, 2, 0, 3, 4).contiguous().requires_grad_()
    weight = torch.randn(case.shape).contiguous(memory_format=order).requires_grad_()
    by_z: list[Tensor] = []

    def step() -> None:
        summed = maps.flatten(0, 1)
        if case.pool > 1:
            summed = functional.avg_pool2d(summed, case.pool, divisor_override=1)
        if case.kernel:
            summed = summed.contiguous(memory_format=order)
            z = functional.conv2d(summed, weight, None, case.stride, case.padding)
        else:
            z = functional.linear(summed.flatten(1), weight.flatten(1))
        by_z.extend([torch.randn_like(z)] * (not by_z))
        torch.autograd.grad(z, [maps, weight], by_z[0])

    return step


def _stored(case: Case, x: Tensor, density: float, *, everywhere: bool) -> Callable[[], object]:
    rng = np.random.default_rng(1)
    n_post, n_pre = case.shape[0], int(np.prod(case.shape[1:]))
    kernel = (case.kernel,) * 2 if case.kernel else ()
    weight = SparseWeight(n_pre, n_post, lambda at: torch.randn(at.numel()), kernel)
    weight.begin(torch.from_numpy(np.flatnonzero(rng.random(weight.size) < density)))
    weight.wants_dense_gradient = everywhere
    integers = rng.integers(-127, 128, weight.values.numel()).astype(np.int16)
    rounded = RoundedWeights(2 * integers, np.full(n_post, 0.01), 1 / case.pool**2)
    stride, padding = (case.stride, case.stride), (case.padding, case.padding)
    maps = x.clone().requires_grad_()
    by_z: list[Tensor] = []

    def step() -> None:
        z = weigh(maps, weight, rounded, pool=case.pool, stride=stride, padding=padding)
        by_z.extend([torch.randn_like(z)] * (not by_z))
        torch.autograd.grad(z, [maps, weight.values], by_z[0])
        if weight.dense_gradient is not None:
            weight.dense_gradient(slice(0, weight.size))

    return step


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    print("layer                 dense   ", *(f"{density:13}" for density in DENSITIES))
    for case in CASES:
        rng = np.random.default_rng(0)
        side = case.side * case.pool
        spikes = rng.random((case.channels[0], case.steps, case.batch, side, side)) < ACTIVITY
        x = torch.from_numpy(spikes.astype(np.float32))
        orders = (torch.contiguous_format, torch.channels_last)
        dense = min(_milliseconds(_dense(case, x, order), case.batch) for order in orders)
        print(f"{case.name:20}{dense:7.3f}    ", end="", flush=True)
        for density in DENSITIES:
            few = _milliseconds(_stored(case, x, density, everywhere=False), case.batch)
            print(f"{few:7.3f} {dense / few:5.2f}", end=" ", flush=True)
        all_of_them = _milliseconds(_stored(case, x, 0.1, everywhere=True), case.batch)
        print(f"  0.1 by momentum: {all_of_them:.3f} {dense / all_of_them:.2f}", flush=True)


if __name__ == "__main__":
    main()
