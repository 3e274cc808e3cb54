"""Stored kernels compute the same as torch's dense convolutions with the same integers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from esl_lava.engines import sparse_maps
from esl_lava.engines.sparse_maps import RoundedWeights, weigh
from esl_lava.sparsity.weights import SparseWeight

INPUTS = {
    "spikes": lambda rng, shape: rng.random(shape) < 0.3,
    "pixels": lambda rng, shape: rng.integers(-16, 16, shape),
    "one large": lambda rng, shape: np.where(rng.random(shape) < 0.05, 127, 0),
    "beyond 8 bits": lambda rng, shape: rng.integers(-300, 300, shape),
    "none": lambda rng, shape: np.zeros(shape),
    "fractions": lambda rng, shape: rng.integers(-8, 8, shape) / 4,
}
"""Kinds of input. Their sums with whole-number weights are exact in float32."""

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
UNITS = [1.0, 0.25, 1 / 9]


def stored(mask: Tensor, values: Tensor, *, kernels: bool = True) -> SparseWeight:
    """Return a sparse weight with the connections of a mask (n_post, channels, rows, columns)."""
    kernel = tuple(mask.shape[2:]) if kernels else ()
    flat = values.flatten()
    weight = SparseWeight(mask[0].numel(), len(mask), lambda at: flat[at], kernel)
    weight.begin(mask.flatten().nonzero().flatten())
    return weight


def summed(x: Tensor, pool: int) -> Tensor:
    """Turn maps (channels, T, batch, ...) into torch's order, summed over squares."""
    flat = x.permute(1, 2, 0, 3, 4).flatten(0, 1)
    return functional.avg_pool2d(flat, pool, divisor_override=1) if pool > 1 else flat


def convolved(x: Tensor, kernels: Tensor, pool: int, stride, padding) -> Tensor:
    """Compute the expected result of `weigh` by torch."""
    z = functional.conv2d(summed(x, pool), kernels, None, stride, padding)
    return z.view(*x.shape[1:3], *z.shape[1:]).permute(2, 0, 1, 3, 4)


def differentiated(x: Tensor, kernels: Tensor, by_z: Tensor, sliding) -> tuple[Tensor, ...]:
    """Return the gradients of `convolved` by input and kernels."""
    of = [x.requires_grad_(), kernels.requires_grad_()]
    return torch.autograd.grad(convolved(*of, *sliding.values()), of, by_z)


def near(ours: Tensor, theirs: Tensor, sizes: Tensor, terms: int) -> bool:
    """Return whether float32 sums equal float64 sums, up to rounding.

    Each addition and product rounds by half a unit in the last place of a partial sum, which
    is at most the sum of absolute values.

    Args:
        sizes: the same sums of absolute values.
        terms: number of terms of a sum.
    """
    return bool(((ours - theirs).abs() <= (terms + 4) * 2.0**-24 * sizes).all())


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    sides=SIDES,
    pool=st.sampled_from([1, 1, 2, 3]),
    cut=st.integers(0, 1),
    samples=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    inputs=st.sampled_from(sorted(INPUTS)),
    unit=st.sampled_from(UNITS),
)
@settings(max_examples=250, deadline=None)
def test_kernels_are_torchs(
    seed, channels, kernel, stride, padding, sides, pool, cut, samples, density, inputs, unit
):
    sides = [max(side, length - 2 * pad) for side, length, pad in zip(sides, kernel, padding)]
    rng = np.random.default_rng(seed)
    n_pre, n_post = channels
    shape = (n_pre, *samples, *(side * pool + min(cut, pool - 1) for side in sides))
    x = torch.from_numpy(INPUTS[inputs](rng, shape).astype(np.float32)).requires_grad_()
    integers = torch.from_numpy(2 * rng.integers(-127, 128, (n_post, n_pre, *kernel)))
    mask = torch.from_numpy(rng.random(integers.shape) < density)
    scale = rng.uniform(0.01, 2, n_post) * rng.choice([-1, 1], n_post)
    weight = stored(mask, torch.zeros(mask.shape))
    weight.wants_dense_gradient = True
    sliding = {"pool": pool, "stride": stride, "padding": padding}
    whole = integers[mask].numpy().astype(np.int16)

    exact = convolved(x.detach().double(), (integers * mask).double(), *sliding.values())
    ours = weigh(x.detach(), weight, RoundedWeights(whole, np.ones(n_post)), **sliding)
    assert torch.equal(ours.double(), exact)
    assert ours.is_contiguous()

    z = weigh(x, weight, RoundedWeights(whole, scale, unit), **sliding)
    factor = torch.from_numpy((scale * unit).astype(np.float32))
    assert torch.equal(z, ours * factor.view(-1, 1, 1, 1, 1))

    by_z = torch.from_numpy(rng.standard_normal(z.shape).astype(np.float32))
    found = torch.autograd.grad(z, [x, weight.values], by_z)
    counted = (integers * mask).double() * factor.double().view(-1, 1, 1, 1) / unit
    expected, sizes = (
        differentiated(of(unit * x.detach().double()), of(counted), of(by_z.double()), sliding)
        for of in (torch.Tensor.clone, torch.abs)
    )
    places, lanes = n_post * math.prod(kernel), by_z[0].numel()
    assert near(found[0], expected[0] * unit, sizes[0] * unit, places)
    assert near(found[1], expected[1][mask], sizes[1][mask], lanes)
    every, some = slice(0, weight.size), torch.arange(0, weight.size, 3)
    for where in (every, some):
        theirs, size = (values.flatten()[where] for values in (expected[1], sizes[1]))
        assert near(weight.dense_gradient(where), theirs, size, lanes)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 6),
    n_post=st.integers(1, 6),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)) | st.none(),
    pool=st.sampled_from([1, 2, 3]),
    cut=st.integers(0, 1),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    inputs=st.sampled_from(sorted(INPUTS)),
)
@settings(max_examples=80, deadline=None)
def test_fully_connected_layers_see_sums_of_maps(
    seed, channels, n_post, sides, pool, cut, density, inputs
):
    """The input is maps or neurons. Rows and columns that do not fill a square are left out."""
    rng = np.random.default_rng(seed)
    pool = pool if sides else 1
    maps = [side * pool + min(cut, pool - 1) for side in sides or ()]
    shape = (channels, 2, 3, *maps)
    x = torch.from_numpy(INPUTS[inputs](rng, shape).astype(np.float32)).requires_grad_()
    places = (n_post, channels, *(sides or (1, 1)))
    mask = torch.from_numpy(rng.random(places) < density)
    integers = torch.from_numpy(rng.integers(-127, 128, places)) * mask
    weight = stored(mask, torch.zeros(places), kernels=False)
    weight.wants_dense_gradient = True
    whole = integers[mask].numpy().astype(np.int16)
    z = weigh(x, weight, RoundedWeights(whole, np.full(n_post, 0.5)), pool=pool)

    wide = x.detach().double().view(*x.shape[:3], *(maps or (1, 1)))
    by_z = torch.from_numpy(rng.standard_normal((n_post, 2, 3)).astype(np.float32))
    found = torch.autograd.grad(z, [x, weight.values], by_z)
    expected, sizes = [], []
    for of, into in ((torch.Tensor.clone, expected), (torch.abs, sizes)):
        taken, counted = of(wide).requires_grad_(), of(integers.double() / 2).requires_grad_()
        theirs = functional.linear(summed(taken, pool).flatten(1), counted.flatten(1))
        theirs = theirs.view(2, 3, n_post).permute(2, 0, 1)
        into += torch.autograd.grad(theirs, [taken, counted], of(by_z.double()))
        if of is not torch.abs:
            assert torch.equal(z.double(), theirs)
    assert near(found[0].view(wide.shape), expected[0], sizes[0], n_post)
    assert near(found[1], expected[1][mask], sizes[1][mask], 6)
    everywhere = weight.dense_gradient(slice(0, weight.size))
    assert near(everywhere, expected[1].flatten(), sizes[1].flatten(), 6)


def test_a_pool_and_a_stride_by_hand():
    """The pooled map is 3 x 5; the kernel is 1 x 2 with stride 2 and one column of padding."""
    x = torch.zeros(1, 1, 1, 6, 10)
    x[0, 0, 0, 0, :4] = torch.tensor([1.0, 1, 1, 0])  # sums 2, 1, 0, 0, 0
    x[0, 0, 0, 5] = 1.0  # sums 2, 2, 2, 2, 2 in the last row
    x.requires_grad_()
    weight = stored(torch.ones(1, 1, 1, 2, dtype=torch.bool), torch.zeros(2))
    rounded = RoundedWeights(np.array([10, -3], np.int16), np.array([0.5]), unit=0.25)
    z = weigh(x, weight, rounded, pool=2, stride=(2, 2), padding=(0, 1))
    # The kernel stops at columns (-1, 0), (1, 2), (3, 4) of rows 0 and 2.
    sums = torch.tensor([[-6.0, 10, 0], [-6, 20 - 6, 20 - 6]])
    assert torch.equal(z[0, 0, 0], sums / 8)
    z.sum().backward()
    assert weight.values.grad.tolist() == [(1 + 2 + 2) / 4, (2 + 2 + 2 + 2) / 4]
    by_sums = torch.zeros(6, 10)
    for rows in (slice(0, 2), slice(4, 6)):
        by_sums[rows] = torch.tensor([-3.0, 10, -3, 10, -3]).repeat_interleave(2) / 8
    assert torch.equal(x.grad[0, 0, 0], by_sums)


def test_weights_without_a_scale_count_as_they_are():
    """A scale is NaN if the gain of a normalisation is 0. Gradients reach these weights too."""
    rng = np.random.default_rng(0)
    kernels = torch.randn(4, 3, 3, 3)
    mask = torch.rand(kernels.shape) < 0.5
    weight = stored(mask, kernels)
    scale = np.array([0.01, np.nan, 0.02, np.nan])
    grid = torch.from_numpy(scale).float().view(-1, 1, 1, 1)
    integers = torch.where(grid.isnan(), 0.0, (kernels / grid).round())[mask].short().numpy()
    x = torch.from_numpy((rng.random((3, 2, 2, 8, 8)) < 0.3).astype(np.float32)).requires_grad_()
    z = weigh(x, weight, RoundedWeights(integers, scale, 0.25), pool=2, padding=(1, 1))
    dense = (kernels * mask).requires_grad_()
    rounded = torch.where(
        grid.isnan(), dense, dense + ((dense / grid).round() * grid - dense).detach()
    )
    theirs = convolved(x * 0.25, rounded, 2, 1, 1)
    # Sums of at most 27 terms of up to 4, in float32.
    assert torch.allclose(z, theirs, rtol=0, atol=27 * 4 * 27 * 2.0**-24)
    by_z = torch.randn(z.shape)
    found = torch.autograd.grad(z, [x, weight.values], by_z)
    expected = torch.autograd.grad(theirs, [x, dense], by_z)
    # Sums of at most 64 terms of size 1, in both.
    assert torch.allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(found[1], expected[1][mask], rtol=1e-5, atol=1e-5)


def test_the_gradient_reaches_only_weights_that_let_it_pass():
    weight = stored(torch.ones(2, 1, 1, 1, dtype=torch.bool), torch.zeros(2))
    passing = np.array([False, True])
    rounded = RoundedWeights(np.ones(2, np.int16), np.ones(2), passing=passing)
    weigh(torch.ones(1, 1, 1, 2, 2), weight, rounded).sum().backward()
    assert weight.values.grad.tolist() == [0, 4]


@pytest.mark.slow
def test_input_may_lie_in_any_order_and_many_neurons_take_several_threads():
    rng = np.random.default_rng(1)
    weight = stored(torch.rand(9, 7, 3, 3) < 0.3, torch.zeros(9 * 7 * 9))
    integers = rng.integers(-127, 128, weight.values.numel()).astype(np.int16)
    rounded = RoundedWeights(integers, rng.uniform(1, 2, 9))
    maps = torch.from_numpy((rng.random((7, 2, 3, 9, 8)) < 0.4).astype(np.float32))
    by_z = torch.from_numpy(rng.standard_normal((9, 2, 3, 5, 4)).astype(np.float32))
    found = []
    threads = torch.get_num_threads()
    try:
        for number, order in ((1, range(5)), (1, (2, 1, 0, 4, 3)), (2, range(5))):
            torch.set_num_threads(number)
            x = maps.permute(*order).contiguous().permute(*order).requires_grad_()
            z = weigh(x, weight, rounded, stride=(2, 2), padding=(1, 1))
            found.append([z.detach(), *torch.autograd.grad(z, [x, weight.values], by_z)])
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others))


@pytest.mark.parametrize(
    ("sides", "kernel", "stride", "padding", "phases", "lanes"),
    [
        ((8, 8), (3, 3), (1, 1), (1, 1), 1, 81),  # a row and a column of zeros for all maps
        ((8, 8), (1, 1), (1, 1), (0, 0), 1, 64),
        ((8, 8), (1, 1), (2, 2), (0, 0), 1, 16),  # skipped places are left out
        ((8, 8), (3, 3), (2, 2), (1, 1), 4, 25),
        ((8, 8), (3, 3), (1, 1), (0, 0), 1, 64),
        ((4, 4), (4, 4), (4, 4), (0, 0), 16, 1),  # fully connected
    ],
)
def test_only_the_margin_of_a_kernel_is_computed_in_vain(
    sides, kernel, stride, padding, phases, lanes
):
    layout = sparse_maps._layout(1, sides, kernel, stride, padding, 1)
    assert (layout.inputs.phases, layout.lanes) == (phases, lanes)


def test_arguments_that_do_not_fit_are_refused():
    """With wrong input, a kernel would read out of bounds."""
    kernels = stored(torch.ones(2, 3, 3, 3, dtype=torch.bool), torch.zeros(54))
    rounded = RoundedWeights(np.zeros(54, np.int16), np.ones(2))
    for x, sliding, sentence in (
        (
            torch.zeros(4, 1, 1, 5, 5),
            {},
            "9 inputs in each of 4 channels, but the sparse layer needs 27 inputs",
        ),
        (torch.zeros(3, 1, 1, 2, 5), {}, "a side of 2, padded by 0, are smaller than the kernel"),
        (torch.zeros(3, 1, 1, 5, 5), {"pool": 6}, r"\(5, 5\) are smaller than a pool of side 6"),
        (torch.zeros(3, 1, 5), {}, "needs 5 dimensions of torch.float32 on the CPU"),
        (torch.zeros(3, 1, 1, 5, 5).double(), {}, "torch.float64 on cpu, but the sparse layer"),
    ):
        with pytest.raises(ValueError, match=sentence):
            weigh(x, kernels, rounded, **sliding)
    x = torch.zeros(3, 1, 1, 5, 5)
    for integers, scale in (
        (np.zeros(54, np.int32), np.ones(2)),
        (np.zeros(53, np.int16), np.ones(2)),
        (np.zeros(54, np.int16), np.ones(3)),
    ):
        with pytest.raises(ValueError, match="shape of the scales are int"):
            weigh(x, kernels, RoundedWeights(integers, scale))
    neurons = stored(torch.ones(2, 3, 2, 2, dtype=torch.bool), torch.zeros(24), kernels=False)
    rounded = RoundedWeights(np.zeros(24, np.int16), np.ones(2))
    with pytest.raises(ValueError, match=r"stride \(1, 1\) and padding \(1, 1\) are given, but a"):
        weigh(torch.zeros(3, 1, 1, 2, 2), neurons, rounded, padding=(1, 1))
    with pytest.raises(
        ValueError, match="inputs in each of 3 channels, but the sparse layer needs 12 inputs"
    ):
        weigh(torch.zeros(3, 1, 1, 3, 3), neurons, rounded)


def test_connections_may_not_change_before_the_backward_pass():
    weight = stored(torch.ones(1, 1, 2, 1, dtype=torch.bool), torch.zeros(2))
    z = weigh(torch.ones(1, 1, 1, 3, 3), weight, RoundedWeights(np.ones(2, np.int16), np.ones(1)))
    weight.begin(torch.tensor([1]))
    with pytest.raises(RuntimeError, match=r"changed|shape"):
        z.sum().backward()
