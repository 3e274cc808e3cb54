"""Normalising and firing in one pass equals torch's normalisation and a loop over steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from esl_lava.arrays import Floats
from esl_lava.engines.normalised import (
    Reduce,
    Statistics,
    make_neuron,
    normalise_and_fire,
    update_running_statistics,
)
from esl_lava.kernels import normalised

DECAY, TAU, SCALE = 0.5, 0.5, 2.0

CLOSE = 2.0**-20
"""Relative rounding error of a few operations and of sums of 64 values in float32."""

NEAR = 1e-4
"""If v is this close to 1, float32 rounding may change a spike. The bound is wide here."""


class Surrogate(torch.autograd.Function):
    """A spike where v is above 1, with the surrogate derivative of the training."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, tau: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.tau = tau
        return (v > 1).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        slope = SCALE / (2 * ctx.tau) * torch.exp(-(v - 1).abs() / ctx.tau)
        return gradient * slope, None


@dataclass
class Results:
    """The results of a forward and backward pass.

    Attributes:
        spikes: spikes, or their sums.
        gradients: the gradients of z, gamma and beta.
        statistics: the statistics of the normalisation.
        nearest: the smallest distance of v from 1.
        by_input: the gradient of the normalised input.
    """

    spikes: Tensor
    gradients: list[Tensor]
    statistics: Statistics | None = None
    nearest: float = 1.0
    by_input: Tensor | None = None


@dataclass(frozen=True)
class Case:
    """The input of a pass, all float32.

    Attributes:
        z: (T, batch, channels, ...), or one of T equal steps.
        weighing: weights of the output in the loss, for all T steps.
    """

    z: Tensor
    gamma: Tensor
    beta: Tensor
    weighing: Tensor
    decay: float = DECAY
    tau: float = TAU
    epsilon: float = 1e-3
    pool: int = 1

    def leaves(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        given = (self.z, self.gamma, self.beta)
        return [tensor.detach().to(dtype).requires_grad_() for tensor in given]


def ours(case: Case, reduce: Reduce | None = None) -> Results:
    z, gamma, beta = leaves = case.leaves()
    neuron = make_neuron(case.decay, case.tau, SCALE)
    spikes, statistics = normalise_and_fire(
        z,
        gamma,
        beta,
        case.epsilon,
        neuron,
        steps=len(case.weighing),
        pool=case.pool,
        reduce=reduce,
    )
    (spikes * case.weighing).sum().backward()
    return Results(spikes.detach(), [leaf.grad for leaf in leaves], statistics)


def theirs(case: Case) -> Results:
    """Compute the reference by torch's own operations, in float64."""
    z, gamma, beta = leaves = case.leaves(torch.float64)
    steps, batch, channels = len(case.weighing), *z.shape[1:3]
    whole = z.expand(steps, *z.shape[1:])
    folded = whole.reshape(steps * batch, channels, -1)
    mean = folded.mean((0, 2), keepdim=True)
    variance = folded.var((0, 2), unbiased=False, keepdim=True)
    scale, shift = gamma.view(1, -1, 1), beta.view(1, -1, 1)
    a = (folded - mean) / torch.sqrt(variance + case.epsilon) * scale + shift
    a.retain_grad()
    v, outputs, nearest = torch.zeros(z.shape[1:], dtype=torch.float64), [], 1.0
    for step in a.view(whole.shape):
        v = (1 - case.decay) * v + step
        nearest = min(nearest, float((v - 1).detach().abs().min()))
        spikes = Surrogate.apply(v, case.tau)
        outputs.append(spikes)
        v = v - (v * spikes).detach()
    out = torch.stack(outputs)
    if case.pool > 1:
        pooled = functional.avg_pool2d(out.flatten(0, 1), case.pool, divisor_override=1)
        out = pooled.unflatten(0, (steps, batch))
    (out * case.weighing.double()).sum().backward()
    found = [leaf.grad for leaf in leaves]
    statistics = Statistics(
        mean.detach().flatten().numpy(), variance.detach().flatten().numpy(), folded[:, 0].numel()
    )
    return Results(out.detach(), found, statistics, nearest, a.grad.view(whole.shape))


def limits(case: Case, expected: Results) -> list[Tensor]:
    """Return the allowed errors of the gradients of z, gamma and beta, (channels,) each.

    An error of v causes an error of the surrogate, divided by tau. All terms of the sums have the
    size of the gradient of normalised input, for gamma and z times normalised input.
    """
    statistics = expected.statistics
    assert statistics is not None
    inverse = 1 / np.sqrt(statistics.variance + case.epsilon)
    axes = [0, 1, *range(3, case.z.ndim)]
    reach = case.z.abs().amax(axes).double().numpy() * inverse
    gain = case.gamma.abs().double().numpy()
    height = 1 + gain * reach + case.beta.abs().double().numpy()
    rounding = CLOSE * (1 + height / case.tau)
    assert expected.by_input is not None
    sizes = expected.by_input.abs()
    repeats = len(case.weighing) // len(case.z)
    largest, summed = repeats * sizes.amax(axes).numpy(), sizes.sum(axes).numpy()
    return [
        torch.from_numpy(rounding * found)
        for found in (gain * inverse * largest * (1 + reach) ** 2, summed * (1 + reach), summed)
    ]


def check(case: Case, expected: Results) -> Results:
    """Compare our results with the reference, and return ours."""
    found = ours(case)
    assert found.statistics is not None
    assert expected.statistics is not None
    assert found.statistics.count == expected.statistics.count
    assert np.allclose(found.statistics.mean, expected.statistics.mean, rtol=1e-12, atol=1e-12)
    assert np.allclose(
        found.statistics.variance, expected.statistics.variance, rtol=1e-9, atol=1e-9
    )
    assert torch.equal(found.spikes.double(), expected.spikes)
    compare_gradients(case, expected, found.gradients)
    return found


def compare_gradients(case: Case, expected: Results, found: list[Tensor]) -> None:
    for mine, other, limit in zip(found, expected.gradients, limits(case, expected)):
        shape = (1, 1, -1, *(1,) * (mine.ndim - 3)) if mine.ndim > 1 else (-1,)
        assert ((mine - other).abs() <= limit.view(shape)).all()


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda z: z.movedim(2, -1).contiguous().movedim(-1, 2),
    "channels first": lambda z: z.movedim(2, 0).contiguous().movedim(0, 2),
    "as torch": lambda z: z.contiguous(),
    "neither": lambda z: z.movedim(1, -1).contiguous().movedim(-1, 1),
}
"""Name -> function that gives (T, batch, channels, ...) this memory layout."""


def drawn(
    seed: int, steps: int, batch: int, channels: int, maps: tuple[int, ...], pool: int = 1
) -> Case:
    """Draw weighted input. Each channel has its own mean and spread; some spreads are 0."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    per_channel = (channels, *(1,) * len(maps))
    spread = normal(*per_channel) * torch.from_numpy(rng.random(per_channel) < 0.8)
    z = normal(steps, batch, channels, *maps) * spread + normal(*per_channel)
    gamma = normal(channels) * torch.from_numpy(rng.random(channels) < 0.8)
    sides = tuple(side // pool for side in maps)
    return Case(z, gamma, normal(channels), normal(steps, batch, channels, *sides), pool=pool)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 6),
    batch=st.integers(1, 5),
    channels=st.integers(1, 9) | st.just(300),
    maps=st.sampled_from([(), (1, 1), (2, 3), (5, 4), (7, 7)]),
    pool=st.sampled_from([1, 1, 2, 3, 7]),
    layout=st.sampled_from(list(LAYOUTS)),
    once=st.booleans(),
    decay=st.sampled_from([0.5, 1.0, 0.1]),
    tau=st.sampled_from([0.5, 0.2]),
)
@settings(max_examples=150, deadline=None)
def test_spikes_and_gradients(seed, steps, batch, channels, maps, pool, layout, once, decay, tau):
    assume(pool == 1 or (maps and min(maps) >= pool))
    if channels > 9:
        maps, pool = (), 1
    case = drawn(seed, steps, batch, channels, maps, pool)
    z = LAYOUTS[layout](case.z[:1] if once else case.z)
    case = replace(case, z=z, decay=decay, tau=tau)
    expected = theirs(case)
    assume(expected.nearest > NEAR)
    check(case, expected)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["channels last", "channels first"])
@pytest.mark.parametrize(
    ("steps", "batch", "channels", "maps", "pool"),
    [
        (2, 9, 3, (30, 30), 1),
        (2, 9, 3, (30, 30), 2),
        (3, 70, 40, (), 1),
        (70, 6, 3, (10, 10), 1),
        (70, 2, 3, (10, 10), 3),
    ],
)
def test_many_blocks(steps, batch, channels, maps, pool, layout):
    """There are more neurons than a tile and a block hold, and more steps than one float32 sum."""
    rng = np.random.default_rng(8)
    z = torch.from_numpy(rng.normal(3, 2, (steps, batch, channels, *maps)).astype(np.float32))
    z = LAYOUTS[layout](z)
    gamma, beta = torch.linspace(0.7, 1.5, channels), torch.linspace(-0.4, 0.4, channels)
    case = replace(drawn(1, steps, batch, channels, maps, pool), z=z, gamma=gamma, beta=beta)
    expected = theirs(case)
    assert expected.nearest > 2e-5  # true for this seed; rounding of a v below 10 is smaller
    check(case, expected)


def test_by_hand():
    """With two samples and two channels, v = 1 does not cause a spike."""
    # Two channels of -1 and 1 at both steps: mean 0, variance 1.
    z = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).expand(2, 2, 2).contiguous()
    gamma, beta = torch.tensor([1.0, -1.5]), torch.zeros(2)
    spikes, found = normalise_and_fire(z, gamma, beta, 0.0, make_neuron(0.5, 0.5, 1.0))
    # a = [-1, -1.5], [1, 1.5]; v of the second sample: 1, then 0.5 + 1; 1.5, and 1.5 after reset.
    assert spikes.tolist() == [[[0, 0], [0, 1]], [[0, 0], [1, 1]]]
    assert found.mean.tolist() == [0, 0]
    assert found.variance.tolist() == [1, 1]
    assert found.count == 4


def test_a_gradient_by_hand():
    """One channel, two samples, one step: the surrogate, and the gradient through statistics."""
    z = torch.tensor([[[-1.0]], [[1.0]]]).view(1, 2, 1).requires_grad_()
    gamma, beta = torch.tensor([2.0], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    spikes, _ = normalise_and_fire(z, gamma, beta, 0.0, make_neuron(0.5, 0.5, 1.0))
    (spikes * torch.tensor([3.0, 4.0]).view(1, 2, 1)).sum().backward()
    # v = -1.5 and 2.5; the surrogate is exp(-|v - 1| / 0.5).
    first, second = 3 * np.exp(-5.0), 4 * np.exp(-3.0)
    assert beta.grad.item() == pytest.approx(first + second, rel=1e-6)
    assert gamma.grad.item() == pytest.approx(second - first, rel=1e-6)
    # With two values, normalised z is always -1 and 1.
    assert z.grad.abs().max() < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_is_not_changed_and_spikes_have_its_layout(layout):
    case = drawn(3, 3, 4, 5, (6, 7))
    z = LAYOUTS[layout](case.z)
    before, version = z.clone(), z._version
    spikes, _ = normalise_and_fire(z, case.gamma, case.beta, 1e-3, make_neuron(0.5, 0.5, 1.0))
    assert torch.equal(z, before)
    assert z._version == version
    expected = z if layout.startswith("channels") else LAYOUTS["channels last"](z)
    assert spikes.stride() == expected.stride()


def test_a_pool_sums_the_same_spikes():
    single = drawn(4, 3, 4, 5, (7, 6))
    for layout in LAYOUTS.values():
        z = layout(single.z)
        arguments = (z, single.gamma, single.beta, 1e-3, make_neuron(0.5, 0.5, 1.0))
        alone, _ = normalise_and_fire(*arguments)
        for side in (2, 3, 6):
            summed, _ = normalise_and_fire(*arguments, pool=side)
            pooled = functional.avg_pool2d(alone.flatten(0, 1), side, divisor_override=1)
            assert torch.equal(summed.flatten(0, 1), pooled)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bits_do_not_depend_on_the_threads(layout, pool):
    case = drawn(5, 3, 9, 6, (20, 20), pool)
    case = replace(case, z=LAYOUTS[layout](case.z))
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            found.append(ours(case))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert torch.equal(other.spikes, found[0].spikes)
        for mine, first in zip(other.gradients, found[0].gradients):
            assert torch.equal(mine, first)


class Ranks:
    """Ranks as threads of this process. Each rank sums the values of all ranks."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count)
        self.brought: dict[int, Floats] = {}

    def reduce(self, rank: int) -> Reduce:
        def add_up(values: Floats) -> None:
            self.brought[rank] = values.copy()
            self.barrier.wait()
            values[:] = sum(self.brought[k] for k in sorted(self.brought))
            self.barrier.wait()

        return add_up


@pytest.mark.slow
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("sizes", [(3, 2), (1, 4), (5, 0)])
def test_ranks_normalise_by_the_whole_batch(sizes, pool):
    whole = drawn(6, 3, 5, 4, (6, 6), pool)
    reference = theirs(whole)
    expected = check(whole, reference)
    ranks, found = Ranks(len(sizes)), {}

    def work(rank: int, z: Tensor, weighing: Tensor) -> None:
        share = replace(whole, z=z, weighing=weighing)
        found[rank] = ours(share, ranks.reduce(rank))

    shares = zip(whole.z.split(sizes, 1), whole.weighing.split(sizes, 1))
    threads = [threading.Thread(target=work, args=(k, *share)) for k, share in enumerate(shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(len(sizes)):
        statistics = found[rank].statistics
        assert statistics.count == expected.statistics.count
        assert np.array_equal(statistics.mean, found[0].statistics.mean)
        assert np.allclose(statistics.mean, expected.statistics.mean, rtol=1e-14, atol=1e-14)
        assert np.allclose(statistics.variance, expected.statistics.variance, rtol=1e-13)
    of_ranks = [found[rank] for rank in range(len(sizes))]
    assert torch.equal(torch.cat([rank.spikes for rank in of_ranks], 1), expected.spikes)
    by_z, by_gamma, by_beta = zip(*(rank.gradients for rank in of_ranks))
    compare_gradients(whole, reference, [torch.cat(by_z, 1), sum(by_gamma), sum(by_beta)])


def test_running_statistics_are_those_of_torchs_normalisation():
    """The input is two batches of 3 steps of 4 samples of 6 x 6."""
    norm, twin = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    for seed in (7, 8):
        case = drawn(seed, 3, 4, 5, (6, 6))
        found = ours(case).statistics
        assert found is not None
        update_running_statistics(norm, found)
        twin(case.z.flatten(0, 1).flatten(2))
    assert norm.num_batches_tracked == twin.num_batches_tracked == 2
    for name in ("running_mean", "running_var"):
        mine, other = getattr(norm, name), getattr(twin, name)
        # torch sums in float32.
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_far_means_leave_the_variance_exact():
    """The mean is 4,096 spreads. The sum of squares is a sum of integers, so it is exact."""
    z = 4096 + torch.tensor([-1.0, 1.0, 1.0, -1.0]).view(2, 2, 1).repeat(1, 1, 3)
    _, found = normalise_and_fire(
        z, torch.ones(3), torch.zeros(3), 1e-5, make_neuron(0.5, 0.5, 1.0)
    )
    assert found.mean.tolist() == [4096] * 3
    assert found.variance.tolist() == [1] * 3


def test_gradients_can_be_computed_twice_but_not_differentiated():
    case = drawn(9, 2, 3, 4, ())
    z, gamma, beta = case.leaves()
    spikes, _ = normalise_and_fire(z, gamma, beta, 1e-3, make_neuron(0.5, 0.5, 1.0))
    loss = (spikes**2 * case.weighing).sum()
    first = torch.autograd.grad(loss, (z, gamma, beta), retain_graph=True)
    again = torch.autograd.grad(loss, (z, gamma, beta), retain_graph=True)
    assert all(torch.equal(one, other) for one, other in zip(first, again))
    (by_gamma,) = torch.autograd.grad(loss, gamma, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        by_gamma.sum().backward()


def test_invalid_weighted_input_is_refused():
    neuron, ones = make_neuron(0.5, 0.5, 1.0), torch.ones(3)
    with pytest.raises(ValueError, match=r"is torch.float64 on cpu, but torch.float32"):
        normalise_and_fire(torch.zeros(2, 4, 3).double(), ones, ones, 1e-5, neuron)
    with pytest.raises(ValueError, match="weighted input is empty"):
        normalise_and_fire(torch.zeros(2, 0, 3), ones, ones, 1e-5, neuron)
    with pytest.raises(ValueError, match="has 2 steps, but 1 or 3 are needed"):
        normalise_and_fire(torch.zeros(2, 4, 3), ones, ones, 1e-5, neuron, steps=3)


def test_tiles_and_blocks_are_of_whole_channels():
    for channels, steps, n in ((1, 1, 1), (3, 2, 9), (300, 4, 900), (7, 100, 7000), (5, 3, 0)):
        tiling = normalised.choose_tiling(channels, steps, n)
        assert tiling.width % channels == 0
        assert tiling.block % tiling.width == 0
        assert tiling.width <= max(channels, normalised.TILE)
        assert steps * tiling.block // tiling.width <= max(normalised.TERMS, steps)
