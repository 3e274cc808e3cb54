"""Layers that store only connections compute the same as SLAYER's masked layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from esl_lava.engines import sparse
from esl_lava.engines.fused import accelerate
from esl_lava.engines.slayer import slayer
from esl_lava.kernels import nonzeros
from esl_lava.models.config import MultiSpike
from esl_lava.models.mlp import SpikingMLP
from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights
from esl_lava.topology import describe
from tests.engines.test_fused import NEURONS, alike, dense, spikes, terms


def twins(neuron, mask: Tensor, scale: float):
    """Return a masked SLAYER block, and the same block with sparse weights."""
    n_post, n_pre = mask.shape
    stock = dense(neuron, n_pre, n_post, scale)
    with torch.no_grad():
        stock.synapse.weight.mul_(mask[..., None, None, None])
    weights = stock.synapse.weight.detach().flatten()
    ours = sparse.SparseDense(
        neuron, n_pre, n_post, spiking=True, initial=lambda where: weights[where]
    )
    ours.neuron.threshold_eps = stock.neuron.threshold_eps
    ours.synapse.weight.begin(mask.flatten().nonzero().flatten())
    return stock, ours


ANY = torch.ones(4, 6, dtype=torch.bool)


def passes(block, x: Tensor) -> list[Tensor]:
    """Return the output and the gradient of the input; the block has the gradient of the weight."""
    x = x.clone().requires_grad_()
    out = block(x)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad]


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    neuron=NEURONS,
    widths=st.tuples(st.integers(1, 40), st.integers(1, 20)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    batch=st.integers(1, 5),
    steps=st.integers(1, 9),
    rate=st.sampled_from([0.0, 0.2, 0.9]),
    values=st.sampled_from([1.0, 3.0, 0.25]),
    scale=st.sampled_from([1.0, 20.0]),
)
@settings(max_examples=120, deadline=None)
def test_a_layer_is_slayers_masked_one(
    seed, neuron, widths, density, batch, steps, rate, values, scale
):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mask = torch.rand(widths[1], widths[0]) < density
    stock, ours = twins(neuron, mask, scale)
    ours.synapse.weight.wants_dense_gradient = True
    x = values * spikes(rng, (batch, widths[0], steps), rate)
    by_input, by_weight = terms(stock, x)
    expected, found = passes(stock, x), passes(ours, x)
    assert torch.equal(expected[0], found[0])
    whole = stock.synapse.weight.grad.flatten()
    everywhere = ours.synapse.weight.dense_gradient
    some = torch.arange(0, whole.numel(), 3)
    part = slice(whole.numel() // 3, whole.numel() // 3 * 2)
    free = ~mask.flatten()  # the positions that growth asks for
    for theirs, mine, sums in (
        (expected[1], found[1], by_input),
        (whole[mask.flatten()], ours.synapse.weight.values.grad, by_weight),
        (whole[some] * free[some], everywhere(some) * free[some], by_weight),
        (whole[part] * free[part], everywhere(part) * free[part], by_weight),
    ):
        assert alike(theirs, mine, sums)


@pytest.mark.parametrize("shape", [(300, 30, 5), (700, 8, 3)], ids=["groups", "pieces"])
def test_many_lanes_are_taken_in_parts(shape):
    """Neurons are taken in groups whose lanes fit a cache. Too many lanes are taken in pieces."""
    _, n_pre, steps = shape
    lanes = shape[0] * steps
    groups = nonzeros.NEAR // lanes
    assert (lanes <= nonzeros.LANES and groups < 25) or lanes > nonzeros.LANES
    torch.manual_seed(0)
    neuron = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.3}
    stock, ours = twins(neuron, torch.rand(60, n_pre) < 0.5, 20)
    x = spikes(np.random.default_rng(0), shape, 0.2)
    expected, found = passes(stock, x), passes(ours, x)
    assert 0.01 < expected[0].mean() < 0.99
    assert torch.equal(expected[0], found[0])
    assert alike(expected[1], found[1])
    whole = stock.synapse.weight.grad.flatten()
    assert alike(whole[ours.synapse.weight.positions()], ours.synapse.weight.values.grad)


def test_long_rows_are_summed_in_parts():
    """There are more weights than one sum in 16 bits can take."""
    neuron = {"threshold": 3000.0, "current_decay": 1.0, "voltage_decay": 0.5}
    stock, ours = twins(neuron, torch.ones(3, 1000, dtype=torch.bool), 1)
    for weight in (stock.synapse.weight, ours.synapse.weight.values):
        with torch.no_grad():
            weight.fill_(3.0)
    x = torch.ones(2, 1000, 4)  # a sum of multiples of 1/32 would exceed 16 bits
    assert torch.equal(stock(x), ours(x))
    assert stock(x)[0, 0].tolist() == [0, 1, 0, 1]


def test_a_state_beyond_32_bits_is_slayers():
    neuron = {"threshold": 1e5, "current_decay": 0.0, "voltage_decay": 0.0}
    stock, ours = twins(neuron, torch.rand(3, 50) < 0.5, 1000)
    x = 1000 * torch.ones(2, 50, 20)
    expected, found = passes(stock, x), passes(ours, x)
    assert torch.equal(expected[0], found[0])
    assert alike(expected[1], found[1])


def test_initial_weights_are_those_of_the_slayer_block(monkeypatch):
    monkeypatch.setattr(sparse, "DRAWN", 50)  # several blocks
    masks = {"hidden1": torch.rand(9, 30) < 0.4, "hidden2": torch.rand(7, 9) < 0.4}
    torch.manual_seed(5)
    stock = SpikingMLP(describe("9-7", (30,), 3), MultiSpike())
    after = torch.rand(1)
    torch.manual_seed(5)
    ours = SpikingMLP(describe("9-7", (30,), 3), MultiSpike(), sparse_layers=["hidden1", "hidden2"])
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(stock.readout.synapse.weight, ours.readout.synapse.weight)
    for name, weight in sparse_weights(ours).items():
        where = masks[name].flatten().nonzero().flatten()
        weight.begin(where)
        whole = stock.get_submodule(name).synapse.weight.detach().flatten()
        assert torch.equal(weight.values, whole[where])


@pytest.mark.slow
def test_a_sparse_readout_integrates():
    torch.manual_seed(0)
    stock = SpikingMLP(describe("70", (20,), 6), MultiSpike())
    torch.manual_seed(0)
    ours = accelerate(SpikingMLP(describe("70", (20,), 6), MultiSpike(), sparse_layers=["readout"]))
    weight = ours.readout.synapse.weight
    weight.begin(torch.arange(6 * 70))
    x = spikes(np.random.default_rng(0), (3, 20, 5), 0.4)
    with torch.no_grad():
        for model in (stock, ours):
            model.hidden1.synapse.weight.mul_(8)
    assert stock.hidden1(x).mean() > 0.05
    assert torch.equal(stock(x), ours(x))


def test_sparse_layers_must_exist():
    with pytest.raises(ValueError, match="hidden3"):
        SpikingMLP(describe("3-3", (4,), 2), MultiSpike(), sparse_layers=["hidden3"])


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    neuron=NEURONS,
    channels=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    sides=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    rate=st.sampled_from([0.2, 0.9]),
    values=st.sampled_from([1.0, 0.25]),
    scale=st.sampled_from([4.0, 20.0]),
)
@settings(max_examples=80, deadline=None)
def test_a_convolution_is_slayers_masked_one(
    seed, neuron, channels, kernel, padding, sides, density, rate, values, scale
):
    torch.manual_seed(seed)
    n_pre, n_post = channels
    stock = slayer.block.cuba.Conv(
        dict(neuron), n_pre, n_post, kernel, padding=padding, delay_shift=False
    )
    stock.neuron.threshold_eps = 1 / stock.neuron.s_scale
    mask = torch.rand(n_post, n_pre, *kernel, 1) < density
    with torch.no_grad():
        stock.synapse.weight.mul_(scale).mul_(mask)
    weights = stock.synapse.weight.detach().flatten()
    ours = sparse.SparseConv(
        neuron, n_pre, n_post, kernel, padding, initial=lambda where: weights[where]
    )
    ours.neuron.threshold_eps = stock.neuron.threshold_eps
    weight = ours.synapse.weight
    assert weight.shape == stock.synapse.weight.shape
    weight.begin(mask.flatten().nonzero().flatten())
    weight.wants_dense_gradient = True
    x = values * spikes(np.random.default_rng(seed), (2, n_pre, *sides, 3), rate)
    expected, found = passes(stock, x), passes(ours, x)
    assert torch.equal(expected[0], found[0])
    assert alike(expected[1], found[1])
    whole, free = stock.synapse.weight.grad.flatten(), ~mask.flatten()
    assert alike(whole[~free], weight.values.grad)
    every, some = slice(0, whole.numel()), torch.arange(0, whole.numel(), 3)
    assert alike(whole * free, weight.dense_gradient(every) * free)
    assert alike(whole[some] * free[some], weight.dense_gradient(some) * free[some])


def test_kernels_are_rewired_as_dense_ones():
    """A dense and a stored convolution get equal masks: kernels count for the density."""
    evolvers = []
    for stored in (False, True):
        torch.manual_seed(0)
        if stored:
            block = sparse.SparseConv(
                {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5},
                4,
                6,
                (3, 3),
                (1, 1),
                initial=sparse.draw_like_slayer(4 * 9, 6),
            )
        else:
            block = slayer.block.cuba.Conv(
                {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}, 4, 6, 3, padding=1
            )
        readout = torch.nn.Linear(2, 3)
        model = torch.nn.Sequential(block, readout)
        optimizer = torch.optim.Adam(model.parameters())
        evolver = MaskEvolver(
            model, optimizer, density=0.3, distribution="erk", t_iter=1, t_end=20, seed=4
        )
        for _ in range(10):
            evolver.step()
        evolvers.append((evolver, block.synapse.weight))
    (dense_one, _), (stored_one, weight) = evolvers
    where = torch.zeros(4 * 9 * 6, dtype=torch.bool)
    where[weight.positions()] = True
    assert torch.equal(where, dense_one.masks["0"].flatten())
    assert dense_one.connections() == stored_one.connections()


def test_input_that_does_not_fit_is_refused():
    """With wrong input, a kernel would read out of bounds."""
    _, ours = twins({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}, ANY, 1)
    for wrong in (torch.zeros(2, 5, 3), torch.zeros(2, 7, 3), torch.zeros(2, 6, 3).double()):
        with pytest.raises(ValueError, match=r"sparse layer needs 6 channels of torch.float32"):
            ours(wrong)
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
    maps = sparse.SparseConv(neuron, 2, 3, (3, 3), (0, 0), initial=sparse.zeros)
    with pytest.raises(ValueError, match="needs 18 inputs"):
        maps(torch.zeros(1, 3, 5, 5, 2))
    with pytest.raises(ValueError, match="smaller than the kernel"):
        maps(torch.zeros(1, 2, 2, 5, 2))


def test_connections_may_not_change_before_the_backward_pass():
    _, ours = twins({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}, ANY, 1)
    out = ours(torch.ones(2, 6, 3))
    ours.synapse.weight.begin(torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match=r"changed|shape"):
        out.sum().backward()
