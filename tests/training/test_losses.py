import math

import pytest
import torch
from torch.nn import functional

from esl_lava.training.losses import tet


def test_hand_computed() -> None:
    # One sample of class 0, two classes, two steps: logits (0, 0), then (ln 3, 0).
    outputs = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]], dtype=torch.float64)
    expected = (math.log(2) + math.log(4 / 3)) / 2
    # Two roundings of exp and log apart at most.
    assert tet(outputs, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-15)


def test_is_the_mean_over_steps_of_cross_entropies() -> None:
    outputs = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([0, 3, 1, 1, 2])
    steps = [functional.cross_entropy(outputs[:, :, t], labels) for t in range(3)]
    # The same fifteen terms, summed in another order.
    torch.testing.assert_close(tet(outputs, labels), sum(steps) / 3, rtol=1e-14, atol=0)
    # Not the loss of the summed or mean output, which lets steps make up for one another.
    mean = functional.cross_entropy(outputs.mean(2), labels)
    assert abs(tet(outputs, labels) - mean) > 0.1


def test_every_step_gets_its_own_gradient() -> None:
    outputs = torch.zeros(1, 2, 3, requires_grad=True)
    tet(outputs, torch.tensor([1])).backward()
    # softmax minus one-hot, over the three steps: (1/2, -1/2) / 3.
    assert outputs.grad is not None
    expected = torch.tensor([[[1.0] * 3, [-1.0] * 3]]) / 6
    torch.testing.assert_close(outputs.grad, expected, rtol=1e-6, atol=0)  # float32
