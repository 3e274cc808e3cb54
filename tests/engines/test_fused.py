"""The faster passes give stock SLAYER's spikes, and its gradients up to the order of sums."""

import copy
import itertools
import logging
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esl_lava.engines import fused, neurons
from esl_lava.engines.slayer import slayer
from esl_lava.kernels import surrogate

CLOSE = 1e-5
"""Allowed error relative to the largest gradient: float32 sums in another order."""

ROUNDING = 2.0**-22
"""Allowed error relative to the sum of absolute terms, as terms may cancel: four units in the last
place of float32."""

FAR = 1e-20
"""Allowed absolute error. It is larger than any gradient where the surrogate is exp(-60)."""

NEURONS = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([1.0, 0.5, 1.25, 63.0]),
        "current_decay": st.sampled_from([1.0, 0.0, 0.25]) | st.floats(0, 1),
        "voltage_decay": st.sampled_from([0.5, 0.0, 1.0]) | st.floats(0, 1),
        "tau_grad": st.sampled_from([0.005, 0.1]),
        "scale_grad": st.just(10.0),
    }
)


def on_chip(block: Any) -> Any:
    if block.neuron.threshold is not None:
        block.neuron.threshold_eps = 1 / block.neuron.s_scale
    return block


def dense(
    neuron: dict[str, Any], n_pre: int, n_post: int, scale: float = 3.0, **options: Any
) -> Any:
    options = {"delay_shift": False, **options}
    block = on_chip(slayer.block.cuba.Dense(dict(neuron), n_pre, n_post, **options))
    with torch.no_grad():
        block.synapse.weight.mul_(scale * n_pre**0.5 / 4)
    return block


NEURON = {"threshold": 1.0, "current_decay": 0.75, "voltage_decay": 0.5, "tau_grad": 0.005}


def faster(block: Any) -> Any:
    """Return a copy of a block with faster passes."""
    twin = fused.accelerate(copy.deepcopy(block))
    assert type(twin).__module__ == fused.__name__
    return twin


def alike(theirs: Tensor, ours: Tensor, summed: Tensor | None = None) -> bool:
    """Return whether gradients are equal up to the order of sums.

    Args:
        summed: the sums of absolute terms (`terms`), if terms may cancel; else 4 is assumed.
    """
    if theirs.shape != ours.shape or not theirs.numel():
        return theirs.shape == ours.shape
    most = 4.0 if summed is None else summed.max()
    limit = CLOSE * theirs.abs().max() + ROUNDING * most + FAR
    return bool((theirs - ours).abs().max() <= limit)


def passes(block: nn.Module, x: Tensor, weighing: Tensor | None = None) -> list[Tensor]:
    """Return the output, and the gradients by input and weight of a weighted sum of the output."""
    x = x.clone().requires_grad_()
    block.zero_grad()
    out = block(x)
    (out * (torch.linspace(-1, 1, out.numel()).view(out.shape))).sum().backward()
    weight = block.get_parameter("synapse.weight")
    assert x.grad is not None
    assert weight.grad is not None
    return [out.detach(), x.grad, weight.grad]


def terms(stock: Any, x: Tensor) -> list[Tensor]:
    """Return the sums of the absolute terms of the gradients that `passes` returns."""
    seen: list[Tensor] = []
    hook = stock.synapse.register_forward_hook(lambda _, taken, z: seen.append(z))
    out = stock(x.clone())
    hook.remove()
    weighed = out * torch.linspace(-1, 1, out.numel()).view(out.shape)
    (by_z,) = torch.autograd.grad(weighed.sum(), seen)
    synapse = copy.deepcopy(stock.synapse)
    synapse.weight.data = synapse.pre_hook_fx(synapse.weight).detach().abs()
    synapse.pre_hook_fx = None  # its gradient stops beyond the ends of the grid
    sizes = x.abs().requires_grad_()
    return list(torch.autograd.grad(synapse(sizes), (sizes, synapse.weight), by_z.abs()))


def check(stock: Any, x: Tensor) -> list[Tensor]:
    summed = terms(stock, x)
    expected, found = passes(stock, x), passes(faster(stock), x)
    assert torch.equal(expected[0], found[0])
    for theirs, ours, sums in zip(expected[1:], found[1:], summed):
        assert alike(theirs, ours, sums)
    return found


def spikes(rng: np.random.Generator, shape: tuple[int, ...], rate: float) -> Tensor:
    return torch.from_numpy((rng.random(shape) < rate).astype(np.float32))


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    neuron=NEURONS,
    widths=st.tuples(st.integers(1, 20), st.sampled_from([1, 7, 64, 65])),
    batch=st.integers(1, 5),
    steps=st.integers(1, 9),
    rate=st.sampled_from([0.0, 0.1, 0.9]),
    values=st.sampled_from([1.0, 3.0, 0.25]),
    scale=st.sampled_from([1.0, 20.0]),  # 20: weights beyond the ends of the grid
    shift=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_dense_blocks(seed, neuron, widths, batch, steps, rate, values, scale, shift):
    """Cases have few or many events, graded input and quarters, and clamped weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    stock = dense(neuron, *widths, scale=scale, delay_shift=shift)
    check(stock, values * spikes(rng, (batch, widths[0], steps), rate))


def test_both_ways_to_sum_are_taken(monkeypatch):
    rng = np.random.default_rng(0)
    stock = dense(NEURON, 300, 64)
    taken = []
    forward = fused._EventRows.forward
    monkeypatch.setattr(
        fused._EventRows, "forward", staticmethod(lambda *a: taken.append(True) or forward(*a))
    )
    x = spikes(rng, (4, 300, 6), 0.1)
    sparse_input = check(stock, x)
    assert taken == [True]
    assert 0.05 < sparse_input[0].mean() < 0.95
    check(stock, spikes(rng, (4, 300, 6), 0.5))
    check(stock, 2 * x)
    assert taken == [True]


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    neuron=NEURONS,
    kernel=st.sampled_from([1, 3, (2, 3)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    padding=st.sampled_from([0, 1, (1, 0)]),
    dilation=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2]),
    values=st.sampled_from([1.0, 0.25]),
)
@settings(max_examples=40, deadline=None)
def test_convolutions(seed, neuron, kernel, stride, padding, dilation, groups, values):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    stock = slayer.block.cuba.Conv(
        dict(neuron),
        2,
        4,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        delay_shift=False,
    )
    on_chip(stock)
    with torch.no_grad():
        stock.synapse.weight.mul_(4)
    check(stock, values * spikes(rng, (2, 2, 7, 8, 3), 0.4))


@pytest.mark.slow
def test_a_readout():
    rng = np.random.default_rng(0)
    for n_post in (1, 3, 4, 10, fused.NARROW, fused.NARROW + 1, 80):
        stock = slayer.block.cuba.Affine(dict(NEURON), 30, n_post, dynamics=False)
        x = spikes(rng, (3, 30, 5), 0.2)
        by_lanes = x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        for laid in (x, by_lanes):
            check(stock, laid)


def test_a_readout_of_which_one_gradient_is_needed():
    rng = np.random.default_rng(0)
    stock = slayer.block.cuba.Affine(dict(NEURON), 30, 10, dynamics=False)
    by_lanes = spikes(rng, (3, 30, 5), 0.2).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    ours = faster(stock)
    found = passes(ours, by_lanes)
    ours.zero_grad()
    weighing = torch.linspace(-1, 1, found[0].numel()).view(found[0].shape)
    (ours(by_lanes) * weighing).sum().backward()
    assert alike(found[2], ours.synapse.weight.grad)
    ours.synapse.weight.requires_grad_(False)
    x = by_lanes.clone().requires_grad_()
    (ours(x) * weighing).sum().backward()
    assert alike(found[1], x.grad)


def test_a_whole_network_pools_included():
    def build() -> nn.Sequential:
        torch.manual_seed(1)
        convolution = on_chip(
            slayer.block.cuba.Conv(dict(NEURON), 1, 6, 3, padding=1, delay_shift=False)
        )
        with torch.no_grad():
            convolution.synapse.weight.mul_(5)
        return nn.Sequential(
            convolution,
            nn.AvgPool3d((2, 2, 1)),
            slayer.block.cuba.Flatten(),
            dense(NEURON, 6 * 16, 70),
            slayer.block.cuba.Affine(dict(NEURON), 70, 5, dynamics=False),
        )

    stock, ours = build(), fused.accelerate(build())
    x = spikes(np.random.default_rng(2), (3, 1, 8, 8, 6), 0.3)
    expected, found = stock(x), ours(x)
    assert torch.equal(expected, found)
    expected.square().mean().backward()
    found.square().mean().backward()
    for theirs, mine in zip(stock.parameters(), ours.parameters()):
        if theirs.grad is not None:
            assert alike(theirs.grad, mine.grad)


@pytest.mark.slow
def test_input_that_lies_in_memory_as_blocks_leave_it():
    rng = np.random.default_rng(0)
    stock = dense(NEURON, 40, 70)
    x = spikes(rng, (4, 40, 6), 0.4)
    plain = check(stock, x)
    for order in itertools.permutations(range(3)):
        back = [order.index(axis) for axis in range(3)]
        laid = x.permute(order).contiguous().permute(back)
        found = check(stock, laid)
        assert torch.equal(found[0], plain[0])


def test_a_state_beyond_32_bits_is_slayers():
    """A current that never decays needs 64 bits in SLAYER and in our blocks."""
    neuron = {**NEURON, "current_decay": 0.0, "voltage_decay": 0.0, "threshold": 1e5}
    stock = dense(neuron, 50, 3, scale=1000)
    x = 1000 * spikes(np.random.default_rng(0), (2, 50, 20), 1.0)
    with pytest.raises(neurons.TooWideError):
        neurons._Spikes.apply(torch.full((1, 5, 3), 1e6), neurons.Dynamics.of(stock.neuron))
    check(stock, x)


@pytest.mark.slow
def test_results_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    stock = dense(NEURON, 100, 130)
    x = spikes(rng, (7, 100, 6), 0.2)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(passes(faster(stock), x))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        # The gradient of the input is torch's own product, which may depend on the threads.
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][2], other[2])


def test_a_mask_of_slayers_own_is_applied():
    mask = torch.rand(70, 20) < 0.5
    stock = dense(NEURON, 20, 70, mask=mask)
    ours = faster(stock)
    x = spikes(np.random.default_rng(0), (2, 20, 3), 0.3)
    assert torch.equal(stock(x), ours(x))
    assert (ours.synapse.weight.flatten(1)[~mask] == 0).all()


def test_state_dict_copies_and_export_are_slayers(tmp_path):
    stock = dense(NEURON, 6, 70)
    ours = faster(stock)
    x = spikes(np.random.default_rng(0), (2, 6, 3), 0.5)
    assert torch.equal(copy.deepcopy(ours)(x), stock(x))
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours(x)
    for name, block in (("a", stock), ("b", ours)):
        with h5py.File(tmp_path / name, "w") as file:
            block.export_hdf5(file.create_group("layer"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_number_of_neurons_is_refused_as_by_slayer():
    convolution = slayer.block.cuba.Conv(dict(NEURON), 1, 2, 3, delay_shift=False)
    ours = faster(convolution)
    ours(torch.zeros(1, 1, 5, 5, 2))
    with pytest.raises(AssertionError, match="neurons"):
        ours(torch.zeros(1, 1, 6, 5, 2))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"delay": True}, "axonal delays"),
        ({"weight_norm": True}, "hooks"),
        ({"count_log": True}, "event counts"),
        ({"pre_hook_fx": lambda w, descale=False: w}, "not quantised by its neuron"),
        ({"neuron": {"requires_grad": True}}, "trained"),
        ({"neuron": {"shared_param": False}}, "differ"),
        ({"neuron": {"persistent_state": True}}, "persists"),
        ({"neuron": {"graded_spike": True}}, "graded"),
        ({"neuron": {"norm": slayer.neuron.norm.MeanOnlyBatchNorm}}, "normalises"),
        ({"neuron": {"dropout": nn.Dropout(0.5)}}, "dropout"),
    ],
)
def test_what_it_cannot_serve_stays_stock_and_is_named(options, reason, caplog):
    neuron = {**NEURON, **options.pop("neuron", {})}
    block = slayer.block.cuba.Dense(neuron, 6, 4, **options)
    model = nn.ModuleDict({"odd": block})
    with caplog.at_level(logging.WARNING):
        fused.accelerate(model)
    assert type(block) is slayer.block.cuba.Dense
    assert "block odd" in caplog.text
    assert reason in caplog.text


def test_blocks_of_other_kinds_are_named(caplog):
    model = nn.ModuleDict({"again": slayer.block.cuba.Recurrent(dict(NEURON), 6, 4)})
    fused.accelerate(model)
    assert "block again keeps stock SLAYER's passes: Recurrent blocks" in caplog.text


def test_a_setting_changed_later_is_respected():
    stock = dense(NEURON, 20, 70)
    ours = faster(stock)
    for block in (stock, ours):
        block.neuron.persistent_state = True
    x = spikes(np.random.default_rng(0), (2, 20, 3), 0.5)
    for _ in range(2):
        assert torch.equal(stock(x), ours(x))


def test_the_surrogate_is_an_exponential():
    """The error is at most two units in the last place of float32. The least value is exp(-60)."""
    v = np.concatenate([np.linspace(-60, 0, 4001), [-1e30, -87.5]]).astype(np.float32)[None, None]
    out = np.empty_like(v)
    one, zero = np.float32(1), np.float32(0)
    constants = surrogate.Surrogate(zero, one, one, zero, zero)
    surrogate.spike_gradient(np.ones_like(v), (0, 1, 0, v.size), v, constants, out)
    exact = np.exp(np.maximum(v.astype(np.float64), -60))
    assert (np.abs(out - exact) <= 2 * np.spacing(exact.astype(np.float32))).all()


def test_a_second_derivative_is_refused():
    """Autograd cannot differentiate the kernels' gradients and must not treat them as constants."""
    for block in (dense(NEURON, 20, 70), dense(NEURON, 20, 5)):
        x = spikes(np.random.default_rng(0), (2, 20, 3), 0.2).requires_grad_()
        out = faster(block)(x).square().sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def test_input_of_another_width_is_refused_as_by_slayer():
    for n_post in (5, 70):
        ours = faster(dense(NEURON, 20, n_post))
        for n_pre in (19, 21):
            with pytest.raises(RuntimeError, match="channels"):
                ours(torch.ones(2, n_pre, 3))
