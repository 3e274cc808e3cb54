"""Single-spike layers: Eq. 5 equals Eq. 3 simulated in small steps, and its gradient is right."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.errors import FileError
from esl_lava.export import lower
from esl_lava.models.config import SingleSpike
from esl_lava.models.one_spike import (
    SingleSpikeMLP,
    distinct_times,
    firing_times,
    first_spikes,
    grid_step,
    spikes_to_times,
    times_to_steps,
)
from esl_lava.models.restore import as_arrays
from esl_lava.models.stored import read_layers
from esl_lava.topology import describe
from tests.faults import refused

INF = math.inf


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def layer(seed: int, *, batch=2, n_pre=7, n_post=5, ties=False, silent=False):
    """Random inputs and weights in float64: (z, weight)."""
    generator = torch.Generator().manual_seed(seed)
    z = 1 + 5 * torch.rand(batch, n_pre, dtype=torch.float64, generator=generator)
    if ties:
        z = z.round()
    if silent:
        z[torch.rand(batch, n_pre, generator=generator) < 0.3] = INF
    weight = 0.6 * torch.randn(n_post, n_pre, dtype=torch.float64, generator=generator) + 0.2
    weight[torch.rand(n_post, n_pre, generator=generator) < 0.2] = 0  # pruned
    return z, weight


# --- by hand -----------------------------------------------------------------------------


def test_two_inputs_by_hand() -> None:
    z = tensor([1, 2], [1, 4], [INF, 2], [INF, INF])
    weight = tensor([2, 1], [0.5, 1.5], [1, -1])
    # Sample 0, neuron 0: the first alone gives 2 * 1 / (2 - 1) = 2, not later than the
    # second, which is no cause of it. Neuron 1: (0.5 * 1 + 1.5 * 2) / (2 - 1).
    # Sample 1, neuron 1: (0.5 + 1.5 * 4) / 1. Sample 2: 1 * 2 / (1 - 1) never; 3 / 0.5.
    expected = tensor([2, 3.5, INF], [2, 6.5, INF], [INF, 6, INF], [INF, INF, INF])
    assert torch.equal(firing_times(z, weight), expected)
    assert torch.equal(firing_times(z, weight, groups=0), expected)


def test_the_gradient_by_hand() -> None:
    z, weight = tensor([1, 2]).requires_grad_(), tensor([0.5, 1.5]).requires_grad_()
    firing_times(z, weight).backward()
    # z_out = 3.5, sum of weights 2: (z - 3.5) / 1 and w / 1.
    assert torch.equal(weight.grad, tensor([-2.5, -1.5]))
    assert torch.equal(z.grad, tensor([0.5, 1.5]))


@pytest.mark.slow
def test_an_input_at_the_time_of_the_spike_is_no_cause() -> None:
    for groups in (0, 4):
        z, weight = tensor([1, 2]).requires_grad_(), tensor([2, 1]).requires_grad_()
        firing_times(z, weight, groups).backward()
        assert torch.equal(weight.grad, tensor([-1, 0]))
        assert torch.equal(z.grad, tensor([2, 0]))


def test_inputs_of_one_time_are_causes_together() -> None:
    """The first input alone would exceed the threshold 1, but both together do not."""
    for groups in (0, 4):
        z = tensor([1, 1])
        assert torch.equal(firing_times(z, tensor([3, -2.5]), groups), tensor([INF]))
        assert torch.equal(firing_times(z, tensor([3, -1]), groups), tensor([2]))
        # In float32 the first input alone would fire at once, because 1e8 - 1 is 1e8.
        z, weight = (t.float() for t in (tensor([3.7, 3.7]), tensor([1e8, -1e8])))
        assert firing_times(z, weight, groups).isinf().all()


# --- against Eq. 3 -----------------------------------------------------------------------


def stepped(z: np.ndarray, weight: np.ndarray, step: float, end: float) -> np.ndarray:
    """Return firing times t from V of Eq. 3, checked at every multiple of `step` up to `end`."""
    times = np.full((len(z), len(weight)), np.inf)
    arrivals = np.log(z)
    for t in np.arange(0, end, step):
        response = np.where(arrivals < t, 1 - np.exp(np.minimum(arrivals, t) - t), 0)
        crossed = (response @ weight.T >= 1) & np.isinf(times)
        times[crossed] = t
    return times


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 99])
@pytest.mark.parametrize("ties", [False, True])
def test_firing_times_are_those_of_the_stepped_potential(ties: bool, groups: int) -> None:
    step, end = 1e-4, 3.0
    z, weight = layer(5, batch=4, n_pre=12, n_post=20, ties=ties, silent=True)
    exact = firing_times(z, weight, groups).log().numpy()
    slow = stepped(z.numpy(), weight.numpy(), step, end)
    assert 0.2 < np.isinf(exact).mean() < 0.8  # some neurons fire, some do not
    within = exact < end - step
    # The step may be one too late if V reaches 1 exactly on the grid, because of rounding.
    assert (slow[within] >= exact[within] - 1e-9).all()
    assert (slow[within] <= exact[within] + step + 1e-9).all()
    assert np.isinf(slow[exact >= end]).all()


# --- the gradient ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 99])
@pytest.mark.parametrize(("ties", "silent"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize("seed", range(2))
def test_gradient_against_finite_differences(
    seed: int, ties: bool, silent: bool, groups: int
) -> None:
    z, weight = layer(seed, ties=ties, silent=silent)
    z.requires_grad_()
    weight.requires_grad_()
    out = firing_times(z, weight, groups)
    assert out.isinf().any()
    assert out.isfinite().any()
    towards = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(9))

    def value(z: torch.Tensor, weight: torch.Tensor) -> float:
        out = firing_times(z, weight, groups)
        return float((torch.where(out.isfinite(), out, 0) * towards).sum())

    torch.where(out.isfinite(), out * towards, 0).sum().backward()
    for variable, gradient in ((z, z.grad), (weight, weight.grad)):
        numeric = torch.zeros_like(gradient)
        for i in range(variable.numel()):
            if variable.view(-1)[i].isinf():
                continue

            def moved(by: float, variable=variable, i=i) -> float:
                pair = [z.detach().clone(), weight.detach().clone()]
                pair[0 if variable is z else 1].view(-1)[i] += by
                return value(*pair)

            h = 1e-4
            # Five points: the error is of the order h**4.
            numeric.view(-1)[i] = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (
                12 * h
            )
        error = (numeric - gradient).norm() / gradient.norm()
        assert error < 1e-6


def test_a_silent_layer_has_no_nan() -> None:
    for z in (tensor([1, 2, 3]), tensor([INF, INF, INF]), tensor([1, INF, 1])):
        for groups in (0, 4):
            z, weight = (
                z.detach().requires_grad_(),
                tensor([-1, 0, -1], [-2, 1, 0]).requires_grad_(),
            )
            hidden = firing_times(z, weight, groups)
            out = firing_times(hidden, torch.ones(4, 2).double(), groups)
            assert out.isinf().all()
            (1 / out).sum().backward()
            assert not z.grad.any()
            assert not weight.grad.any()
            assert z.grad.isfinite().all()
            assert weight.grad.isfinite().all()


def test_only_what_needs_a_gradient_gets_one() -> None:
    z, weight = layer(1)
    weight.requires_grad_()
    firing_times(z, weight, 99).nan_to_num(posinf=0).sum().backward()
    assert z.grad is None
    assert weight.grad.any()


# --- properties --------------------------------------------------------------------------

EIGHTHS = st.integers(-16, 24).map(lambda k: k / 8)
QUARTERS = st.one_of(st.integers(4, 24).map(lambda k: k / 4), st.just(INF))


@st.composite
def dyadic(draw):
    """Layers whose sums float64 holds exactly: (z, weight)."""
    batch, n_pre, n_post = (draw(st.integers(1, 5)) for _ in range(3))
    z = [[draw(QUARTERS) for _ in range(n_pre)] for _ in range(batch)]
    weight = [[draw(EIGHTHS) for _ in range(n_pre)] for _ in range(n_post)]
    return tensor(*z), tensor(*weight)


def both(z: torch.Tensor, weight: torch.Tensor, groups: int) -> Any:
    """(z_out, gradient of z, gradient of the weights)."""
    z, weight = z.clone().requires_grad_(), weight.clone().requires_grad_()
    out = firing_times(z, weight, groups)
    (1 / out).sum().backward()
    return out.detach(), z.grad, weight.grad


@pytest.mark.slow
@given(dyadic())
@settings(deadline=None, max_examples=50)
def test_grouped_inputs_give_what_sorted_ones_give(case) -> None:
    (a, a_z, a_w), (b, b_z, b_w) = (both(case[0], case[1], groups) for groups in (0, 99))
    assert torch.equal(a, b)  # sums are exact in any order
    for one, other in ((a_z, b_z), (a_w, b_w)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@given(dyadic(), st.randoms(use_true_random=False), st.sampled_from([0, 99]))
@settings(deadline=None, max_examples=50)
def test_the_order_of_inputs_means_nothing(case, random, groups) -> None:
    z, weight = case
    order = list(range(z.shape[1]))
    random.shuffle(order)
    assert torch.equal(
        firing_times(z[:, order], weight[:, order], groups), firing_times(z, weight, groups)
    )


@pytest.mark.slow
@given(dyadic(), st.sampled_from([2.0, 8.0]), st.sampled_from([0, 99]))
@settings(deadline=None, max_examples=50)
def test_later_inputs_by_a_time_give_later_spikes_by_that_time(case, factor, groups) -> None:
    z, weight = case
    assert torch.equal(firing_times(z * factor, weight, groups), firing_times(z, weight) * factor)


@pytest.mark.slow
@given(dyadic(), st.sampled_from([0, 99]))
@settings(deadline=None, max_examples=50)
def test_a_spike_is_later_than_its_causes_and_crosses_the_threshold(case, groups) -> None:
    z, weight = case
    z = z.requires_grad_()
    out = firing_times(z, weight, groups)
    for sample, j in itertools.product(range(len(z)), range(len(weight))):
        time = out[sample, j]
        if time.isinf():
            continue
        (gradient,) = torch.autograd.grad(time, z, retain_graph=True)
        causes = (gradient[sample] != 0) & (weight[j] != 0)
        assert (z[sample][causes] < time).all()
        before = z[sample] < time
        potential = (weight[j] * (1 - z[sample] / time))[before].sum()  # Eq. 3
        assert abs(float(potential.detach()) - 1) < 1e-9
    assert torch.equal(firing_times(z, torch.zeros_like(weight), groups), torch.full_like(out, INF))


@pytest.mark.parametrize("groups", [0, 4])
def test_neurons_are_independent_of_their_neighbours(groups: int) -> None:
    """So blocks of neurons or samples of any size give the same bits."""
    z, weight = layer(3, batch=7, n_pre=40, n_post=11, ties=groups > 0)
    whole = firing_times(z, weight, groups)
    for size in (1, 2, 5):
        parts = [firing_times(z, part.contiguous(), 0) for part in weight.split(size)]
        if groups == 0:
            assert torch.equal(torch.cat(parts, 1), whole)
        parts = [firing_times(part, weight, 0) for part in z.split(size)]
        if groups == 0:
            assert torch.equal(torch.cat(parts), whole)


def test_distinct_times() -> None:
    z = tensor([3, 1, INF], [1, 3, 2])
    assert distinct_times(z, 3) == [1, 2, 3]
    assert distinct_times(z, 2) is None
    assert distinct_times(tensor([INF]), 0) == []
    assert distinct_times(torch.empty(0, 4), 1) == []


# --- the network and the grid ------------------------------------------------------------


def test_the_network_is_its_layers_one_after_another() -> None:
    torch.manual_seed(0)
    model = SingleSpikeMLP(describe("5-4", (6,), 3))
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "hidden1.weight": (5, 6),
        "hidden2.weight": (4, 5),
        "readout.weight": (3, 4),
    }
    z = 1 + 5 * torch.rand(2, 6)
    times = model.layer_outputs(z)
    assert [tuple(t.shape) for t in times] == [(2, 5), (2, 4), (2, 3)]
    assert torch.equal(model(z), times[-1])
    assert torch.equal(times[1], firing_times(times[0], model.hidden2.weight))
    model(z).sum().backward()
    assert all(p.grad.any() for p in model.parameters())


def test_the_step_of_the_grid() -> None:
    # 4096 * 0.0419 = 171.6: the chip's decay is 172.
    assert grid_step(0.0419) == pytest.approx(-math.log(3924 / 4096), rel=1e-15)
    assert grid_step(0.5) == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 4095), st.integers(1, 63), st.integers(0, 9), st.integers(0, 2**32))
def test_steps_become_times_and_steps_again(decay: int, steps: int, place: int, seed: int) -> None:
    step = min(grid_step(decay / 4096), 700 / (steps + place))  # so that exp is finite
    first = np.random.default_rng(seed).integers(0, steps + 1, (3, 5))
    spikes = (np.arange(steps)[:, None] == first[:, None]).astype(np.uint8)
    assert (first_spikes(spikes) == first).all()
    times = torch.from_numpy(spikes_to_times(spikes, step, place))
    assert (torch.isinf(times).numpy() == (first == steps)).all()
    assert (times_to_steps(times, step, place, steps) == first).all()
    assert (
        times_to_steps(times * math.exp(step / 2), step, place, steps) == (first + 1).clip(0, steps)
    ).all()


def test_reference_and_layers_of_a_network_by_hand() -> None:
    """A weight of 1.5 alone fires at z = 1.5 / 0.5 = 3 = 2^1.58 a step of ln 2: in step 1."""
    model = SingleSpikeMLP(describe("2", (1,), 1))
    model.hidden1.weight.data = torch.tensor([[1.5], [0.5]])
    model.readout.weight.data = torch.tensor([[2.0, 1.0]])
    config = SingleSpike(layers="2", current_decay=0.5)
    weights = as_arrays(model.state_dict())
    layers = read_layers(config, weights, {"hidden1": np.array([[1], [1]])})
    assert [(layer.name, *layer.inputs) for layer in layers] == [
        ("hidden1", "input"),
        ("readout", "hidden1"),
    ]
    network = lower(layers, steps=6)
    found = model.reference(np.eye(6, dtype=np.uint8)[:1, :, None], network)
    assert found.name == "training"
    # The readout at z = 2 * 3 / (2 - 1) = 6 = 2^2.58, less its place, 2: in step 1.
    assert {name: steps.tolist() for name, steps in found.steps.items()} == {
        "hidden1": [[1, 6]],
        "readout": [[1]],
    }
    with refused(FileError, "mismatch", value=(2, 1), limit=None, layer="other"):
        read_layers(config, weights, {"other": np.ones((2, 1))})
