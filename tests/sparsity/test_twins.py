"""Stored connections have the same bits as masks on dense weights, under all rules."""

import itertools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.errors import ConfigError
from esl_lava.sparsity import optimizer as optimising
from esl_lava.sparsity.evolver import weight_layers
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import REDISTRIBUTE
from tests.faults import check
from tests.sparsity.test_rules import FILLS, OPTIMISERS, named
from tests.sparsity.twins import Twins

pytestmark = pytest.mark.slow

COMBINATIONS = list(itertools.product(PRUNE, GROW, REDISTRIBUTE))
# The densities lead to drawn and listed positions, lists and bitmaps, and full layers.
DENSITIES = itertools.cycle([0.01, 0.1, 0.3, 0.6, 0.97])


def gradients(twins: Twins, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(weight.shape, generator=generator)
        for name, weight in twins.weights.items()
    }


@pytest.mark.parametrize(("combination", "density"), zip(COMBINATIONS, DENSITIES))
def test_updates_are_the_same(combination, density):
    compare(combination, density, updates=12)


@pytest.mark.parametrize(
    ("growth", "density"), [("random", 0.1), ("gradient", 0.3), ("momentum", 0.2)]
)
def test_a_hundred_updates_are_the_same(growth, density):
    compare(("set", growth, "none"), density, updates=100)


def test_a_hundred_updates_that_try_all_slots_are_the_same():
    compare(("magnitude", "random_unfired", "momentum"), 0.05, updates=100)


def compare(combination, density, updates):
    twins = Twins(
        (30, 20, 10),
        lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01),
        density=density,
        distribution="uniform",
        schedule="constant",
        alpha=0.3,
        t_iter=1,
        t_end=updates,
        **named(combination),
    )
    assert twins.differences() == []
    generator = torch.Generator().manual_seed(1)
    for i in range(updates):
        twins.feed(gradients(twins, generator))
        if i % 4 == 3:
            assert twins.differences() == []
    moved = sum(layer.grown for update in twins.evolvers[1].history for layer in update.layers)
    assert moved >= updates


@settings(max_examples=60, deadline=None)
@given(
    combination=st.sampled_from(COMBINATIONS),
    optimiser=st.sampled_from(sorted(OPTIMISERS)),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    density=st.floats(0.01, 1),
    alpha=st.floats(0, 1),
    scores=st.sampled_from(sorted(FILLS)),
    seed=st.integers(0, 1000),
)
def test_any_rules_shapes_and_gradients(
    combination, optimiser, widths, density, alpha, scores, seed
):
    logging.disable(logging.WARNING)  # of statistics that are 0
    fed: dict[str, torch.Tensor] = {}
    try:
        twins = Twins(
            tuple(widths),
            OPTIMISERS[optimiser],
            density=density,
            alpha=alpha,
            schedule="constant",
            t_iter=1,
            t_end=9,
            seed=seed,
            **named(combination),
        )
        generator = torch.Generator().manual_seed(seed)
        for _ in range(4):
            fed = {name: FILLS[scores](g) for name, g in gradients(twins, generator).items()}
            twins.feed(fed)
            assert twins.differences() == []
    except ConfigError as error:
        nothing = named(combination)["growth"] == "gradient" and fed and not any_of(fed)
        check(error.faults[0], "missing" if nothing else "range")
    finally:
        logging.disable(logging.NOTSET)


def any_of(gradients: dict[str, torch.Tensor]) -> bool:
    return any(bool(gradient.any()) for gradient in gradients.values())


@pytest.mark.parametrize("growth", ["random", "gradient", "momentum"])
@pytest.mark.parametrize("redistribution", ["none", "magnitude", "momentum"])
def test_networks_that_train_stay_the_same(growth, redistribution):
    """Each network makes its own passes, with an update every third step."""
    twins = Twins(
        (12, 9, 4),
        lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True),
        density=0.4,
        growth=growth,
        redistribution=redistribution,
        t_iter=3,
        t_end=40,
    )
    for i in range(40):
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(i))
        losses = []  # keeps the graphs alive while connections move
        for model, optimizer in zip((twins.dense, twins.stored), twins.optimizers):
            optimizer.zero_grad()
            losses.append((model(x) - 0.5).square().sum())
            losses[-1].backward()
        wanted = (growth == "momentum" and i < 40) or (growth == "gradient" and i % 3 == 2)
        for weight in twins.weights.values():
            assert weight.wants_dense_gradient is wanted
            assert (weight.dense_gradient is not None) is wanted
        assert torch.equal(*losses)
        twins.step()
        assert twins.differences() == []
        assert all(weight.dense_gradient is None for weight in twins.weights.values())
    assert any(layer.grown for update in twins.evolvers[1].history for layer in update.layers)


ADAMS = [{}, {"amsgrad": True}, {"foreach": True}, {"fused": True}]
SGDS = [{"dampening": 0.2}, {"nesterov": True, "weight_decay": 0.1}, {"foreach": True}]


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        *itertools.product([torch.optim.Adam, torch.optim.AdamW], ADAMS),
        *itertools.product([torch.optim.SGD], [{"momentum": 0.9} | flags for flags in SGDS]),
    ],
)
def test_moments_of_all_positions_are_those_of_a_dense_weight(monkeypatch, kind, flags):
    """This holds for every implementation of the optimiser and for several blocks.

    torch's fused passes round the last few numbers of a tensor differently. Then the weights of
    fewer stored connections may differ, so the masks do not change in these cases.
    """
    fused = flags.get("fused", False)
    monkeypatch.setattr(optimising, "BLOCK", 64)
    twins = Twins(
        (30, 20, 10),
        lambda p: kind(p, lr=0.02, maximize=True, **flags),
        density=0.2,
        growth="momentum",
        alpha=0.0 if fused else 0.3,
        t_iter=2,
        t_end=9,
    )
    generator = torch.Generator().manual_seed(1)
    for i in range(9):
        if i == 5:  # a step that a GradScaler skips
            for each in twins.evolvers:
                each.step()
            continue
        twins.feed(gradients(twins, generator))
        assert fused or twins.differences() == []
        stores = twins.evolvers[1]._stored
        for store in stores if i < 8 else ():
            free = ~twins.evolvers[0].masks[store.name].view(-1)
            dense = twins.optimizers[0].state[weight_layers(twins.dense)[store.name]]
            assert store.dense_moments.tensors.keys() <= dense.keys()
            for key, tensor in store.dense_moments.tensors.items():
                assert torch.equal(tensor[free], dense[key].view(-1)[free])
                assert tensor[free].any()
    # There is no later update.
    assert not any(store.dense_moments.tensors for store in stores)
    assert not any(weight.wants_dense_gradient for weight in twins.weights.values())
