import copy

import pytest
import torch

from esl_lava.errors import ConfigError
from esl_lava.sparsity.evolver import MaskEvolver
from esl_lava.training.adam import Adam


def trained(kind, steps: int, state=None):
    """Two parameters after some steps, and the optimiser's state."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(40_000,), (3, 4, 1)]
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    optimizer = kind(weights, lr=0.01)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + k)
        for weight in weights:
            scale = 10.0 ** torch.randint(-9, 3, weight.shape, generator=generator)
            weight.grad = scale * torch.randn(weight.shape, generator=generator)
        optimizer.step()
    return weights, optimizer.state_dict()


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_steps_are_torchs(steps):
    """Up to rounding: of a step's size 0.01, and of moments relative to the largest terms."""
    (theirs, their_state), (ours, our_state) = (trained(k, steps) for k in (torch.optim.Adam, Adam))
    for expected, found in zip(theirs, ours):
        assert (expected - found).abs().max() <= 1e-6
    assert their_state["state"].keys() == our_state["state"].keys()
    for index, expected in their_state["state"].items():
        found = our_state["state"][index]
        assert list(expected) == list(found)
        assert torch.equal(expected["step"], found["step"])
        for key in ("exp_avg", "exp_avg_sq"):
            difference = (expected[key] - found[key]).abs()
            assert (difference <= 1e-6 * expected[key].abs().max()).all()


def test_torchs_state_is_gone_on_with():
    _, state = trained(torch.optim.Adam, 3)
    (theirs, _), (ours, _) = (trained(k, 3, state) for k in (torch.optim.Adam, Adam))
    for expected, found in zip(theirs, ours):
        assert (expected - found).abs().max() <= 1e-6


def test_a_parameter_without_gradient_stays():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([weight], lr=0.1)
    optimizer.step()
    assert weight.tolist() == [1, 1, 1]
    assert not optimizer.state[weight]


def test_gradients_are_dropped_or_zeroed():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad.tolist() == [0, 0, 0]
    optimizer.zero_grad()
    assert weight.grad is None


def test_what_lies_apart_is_refused_and_stays():
    weight = torch.nn.Parameter(torch.ones(4, 3).t())
    optimizer = Adam([weight], lr=0.1)
    weight.grad = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"weights \(3, 4\) or their moments lie apart"):
        optimizer.step()
    assert (weight == 1).all()


def test_the_evolver_knows_it_and_no_other():
    class Stranger(torch.optim.Adam):
        """May keep anything."""

    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    MaskEvolver(model, Adam(model.parameters(), lr=0.1), density=0.5, t_end=10)
    with pytest.raises(ConfigError, match="Stranger"):
        MaskEvolver(model, Stranger(model.parameters()), density=0.5, t_end=10)
