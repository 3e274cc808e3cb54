import math

import pytest
import torch
from torch.nn import functional

from esl_lava.training.losses import LATE, SHARPNESS, SUM_COST, first_spike, tet, weight_sum_cost


def test_hand_computed() -> None:
    # One sample of class 0, two classes, two steps: logits (0, 0), then (ln 3, 0).
    outputs = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]], dtype=torch.float64)
    expected = (math.log(2) + math.log(4 / 3)) / 2
    # The results differ by at most two roundings of exp and log.
    assert tet(outputs, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-15)


def test_is_the_mean_over_steps_of_cross_entropies() -> None:
    outputs = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([0, 3, 1, 1, 2])
    steps = [functional.cross_entropy(outputs[:, :, t], labels) for t in range(3)]
    # The same fifteen terms, summed in another order.
    torch.testing.assert_close(tet(outputs, labels), sum(steps) / 3, rtol=1e-14, atol=0)
    # It is not the loss of the mean output, in which steps can compensate each other.
    mean = functional.cross_entropy(outputs.mean(2), labels)
    assert abs(tet(outputs, labels) - mean) > 0.1


def test_every_step_gets_its_own_gradient() -> None:
    outputs = torch.zeros(1, 2, 3, requires_grad=True)
    tet(outputs, torch.tensor([1])).backward()
    # softmax minus one-hot, over the three steps: (1/2, -1/2) / 3.
    assert outputs.grad is not None
    expected = torch.tensor([[[1.0] * 3, [-1.0] * 3]]) / 6
    torch.testing.assert_close(outputs.grad, expected, rtol=1e-6, atol=0)  # float32


# --- by the times of spikes --------------------------------------------------------------


def test_first_spike_by_hand() -> None:
    # softmax(-5 z) of class 0 is 1 / (1 + exp(-2)).
    assert SHARPNESS == 5
    z = torch.tensor([[1.0, 1.4]], dtype=torch.float64)
    loss = first_spike(z, torch.tensor([0])).item()
    assert loss == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-15)


def test_late_and_silent_neurons_are_bounded() -> None:
    z = torch.tensor([[LATE, 2 * LATE, math.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = first_spike(z, torch.tensor([2]))
    bounded = torch.tensor([[LATE, 1.5 * LATE, 2 * LATE, 1]], dtype=torch.float64)
    assert loss.item() == functional.cross_entropy(-5 * bounded, torch.tensor([2])).item()
    loss.backward()
    assert z.grad is not None
    share = 5 * torch.softmax(-5 * bounded, 1)[0]
    # The slope is 1 at LATE in both branches, 1/4 at twice LATE, and 0 for a silent neuron.
    expected = torch.stack([-share[0], -share[1] / 4, torch.tensor(0.0), -share[3]])
    torch.testing.assert_close(z.grad[0], expected.double(), rtol=1e-12, atol=0)


def test_the_cost_of_weights_that_sum_to_less_than_one() -> None:
    first = torch.tensor([[0.5, 0.25], [2.0, -0.5], [-1.0, 0.0]], requires_grad=True)
    second = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    cost = weight_sum_cost([first, second])
    assert cost.item() == pytest.approx(SUM_COST * (0.25 + 0 + 2), rel=1e-6)  # float32
    cost.backward()
    assert first.grad is not None
    assert torch.equal(first.grad, -SUM_COST * torch.tensor([[1.0, 1], [0, 0], [1, 1]]))


def test_tet_with_lambda_draws_outputs_to_the_threshold() -> None:
    outputs = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)  # (1, 2 classes, T = 2)
    labels = torch.tensor([0])
    distance = (1 + 1 + 1 + 0) / 4  # of 2, 0, 0, 1 from 1
    expected = 0.75 * tet(outputs, labels).item() + 0.25 * distance
    assert tet(outputs, labels, 0.25).item() == pytest.approx(expected, rel=1e-15)
    assert tet(outputs, labels, 1.0, 2.0).item() == (0 + 4 + 4 + 1) / 4
