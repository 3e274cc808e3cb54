"""A dense phase, after which layers keep their largest weights: magnitude pruning."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity.evolver import MaskEvolver
from tests.faults import refused
from tests.sparsity.test_evolver import mlp, same, train_step, weights

T_DENSE = 5


def of(model: nn.Module, optimizer: torch.optim.Optimizer, **settings) -> MaskEvolver:
    given = {"density": 0.3, "alpha": 0.4, "t_iter": 2, "t_end": 12, "t_dense": T_DENSE}
    return MaskEvolver(model, optimizer, **(given | settings))


def test_by_hand():
    """The two of six weights farthest from 0 stay; at a tie the higher index stays."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    evolver = of(model, optimizer, density=2 / 6, t_dense=1)
    assert evolver.masks["weight"].all()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -3.0, 0.1], [-0.5, 2.0, -2.0]]))
    update = evolver.step()
    assert model.weight.tolist() == [[0, -3, 0], [0, 0, -2]]
    assert evolver.masks["weight"].tolist() == [[False, True, False], [False, False, True]]
    assert update is not None
    assert (update.iteration, update.fraction) == (1, 1 - 2 / 6)
    (record,) = update.layers
    assert (record.pruned, record.grown, record.connections) == (4, 0, 2)
    assert record.exploration == 1


def test_dense_until_then_and_sparse_from_then():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    evolver = of(model, optimizer)
    other = mlp()
    planned = MaskEvolver(other, torch.optim.SGD(other.parameters(), 1), t_end=1, density=0.3)
    sizes = {name: weight.numel() for name, weight in weights(model).items()}
    for i in range(1, 20):
        train_step(model, optimizer, i)
        trained = weights(model)
        update = evolver.step()
        if i < T_DENSE:
            assert update is None  # though 2 and 4 are multiples of t_iter
            assert evolver.connections() == sizes
            assert same(weights(model), trained)
            continue
        # Each layer has as many connections as in a network that is sparse from the start.
        assert evolver.connections() == planned.connections()
        for name, weight in weights(model).items():
            assert (weight[~evolver.masks[name]] == 0).all()
        if i == T_DENSE:
            for name, weight in trained.items():
                kept = weight[evolver.masks[name]].abs().min()
                assert kept >= weight[~evolver.masks[name]].abs().max()
        elif i in (6, 8, 10, 12):
            assert update is not None
            moved = [record.grown for record in update.layers]
            assert moved == [record.pruned for record in update.layers]
            # Of 27 and 16 connections alpha / 2 (1 + cos(pi i / 12)): .2, .1, .027, 0 of them.
            assert moved == {6: [5, 3], 8: [3, 2], 10: [1, 0], 12: [0, 0]}[i]
        else:
            assert update is None
    assert evolver.exploration == 1


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(1, 10))
def test_resumed_is_as_uninterrupted(stop: int):
    def pair() -> tuple[nn.Module, torch.optim.Optimizer, MaskEvolver]:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, of(model, optimizer)

    whole, broken = pair(), pair()
    for i in range(1, 14):
        for model, optimizer, evolver in (whole, broken):
            train_step(model, optimizer, i)
            evolver.step()
        if i == stop:
            model, optimizer, evolver = broken
            saved = copy.deepcopy(
                (model.state_dict(), optimizer.state_dict(), evolver.state_dict())
            )
            broken = pair()
            parts: tuple[Any, ...] = broken
            for part, state in zip(parts, saved):
                part.load_state_dict(state)
    assert same(weights(whole[0]), weights(broken[0]))
    assert same(whole[2].state_dict(), broken[2].state_dict())


def test_a_state_of_the_other_phase_is_refused():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = of(model, optimizer)
    state = evolver.state_dict()
    state["iteration"] = T_DENSE
    with refused(ConfigError, "mismatch", key="masks", value=144, limit=43):
        of(model, optimizer).load_state_dict(state)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_pruned(value: float):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = of(model, optimizer, t_dense=1)
    with torch.no_grad():
        model.get_submodule("layer1").weight[0, 0] = value
    before = weights(model)["layer0"]
    with refused(UserError, "not-finite", layer="layer1", value=1) as caught:
        evolver.step()
    assert "weights of 1 of its 36 connections" in str(caught.value)
    assert all(mask.all() for mask in evolver.masks.values())
    assert torch.equal(weights(model)["layer0"], before)


def test_a_negative_length_is_refused():
    model = mlp()
    with refused(ConfigError, "range", key="t_dense", value=-1, limit=0):
        of(model, torch.optim.SGD(model.parameters(), lr=0.1), t_dense=-1)
