"""Whole updates: the invariants of every combination of rules, and results by hand."""

import io
import itertools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity.evolver import MaskEvolver, weight_layers
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import REDISTRIBUTE
from tests.faults import check, refused
from tests.sparsity.invariants import moments, snapshots, violations
from tests.sparsity.test_evolver import mlp, same, train_step

COMBINATIONS = list(itertools.product(PRUNE, GROW, REDISTRIBUTE))

FILLS = {
    "normal": lambda w: w,
    "positive": torch.abs,
    "negative": lambda w: -w.abs(),
    "equal": lambda w: torch.full_like(w, 0.5),
    "zero": torch.zeros_like,
    "ties": lambda w: (w * 3).round(),
}

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
}


def named(combination):
    return dict(zip(("prune", "growth", "redistribution"), combination))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    combination=st.sampled_from(COMBINATIONS),
    optimiser=st.sampled_from(sorted(OPTIMISERS)),
    widths=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    density=st.floats(0.01, 1),
    distribution=st.sampled_from(["er", "erk", "uniform"]),
    alpha=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "constant"]),
    weights=st.sampled_from(sorted(FILLS)),
    scores=st.sampled_from(sorted(FILLS)),
    seed=st.integers(0, 1000),
)
def test_every_combination_keeps_every_invariant(
    combination,
    optimiser,
    widths,
    density,
    distribution,
    alpha,
    schedule,
    weights,
    scores,
    seed,
):
    logging.disable(logging.WARNING)  # of statistics that are 0
    try:
        ends = [
            drive(
                named(combination),
                OPTIMISERS[optimiser],
                tuple(widths),
                {"density": density, "distribution": distribution, "alpha": alpha}
                | {"schedule": schedule, "seed": seed},
                FILLS[weights],
                FILLS[scores],
            )
            for _ in range(2)
        ]
    except ConfigError as error:
        check(error.faults[0], "range", key="density", value=density)
        return
    finally:
        logging.disable(logging.NOTSET)
    # The same seed, weights and gradients give the same masks and records.
    assert same(*ends)


def drive(rules, optimiser, widths, others, fill_weights, fill_scores):
    """Make three updates with weights and gradients of one kind; return the evolver's state."""
    model = mlp(others["seed"], widths)
    optimizer = optimiser(model.parameters())
    evolver = MaskEvolver(model, optimizer, t_iter=1, t_end=3, **rules, **others)
    start = sum(evolver.connections().values())
    expected = {name: int(ever.sum()) for name, ever in evolver.ever.items()}
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = fill_scores(torch.randn_like(parameter))
        optimizer.step()
        with torch.no_grad():
            for weight in weight_layers(model).values():
                weight.copy_(fill_weights(torch.randn_like(weight)))
                for moment in moments(optimizer, weight).values():
                    moment.copy_(fill_scores(torch.randn_like(moment)).abs())
            for name, weight in weight_layers(model).items():
                weight[~evolver.masks[name]] = 0.0
        before = snapshots(model, optimizer, evolver)
        try:
            update = evolver.step()
        except ConfigError as error:
            assert rules["growth"] == "gradient"
            check(error.faults[0], "missing")
            assert not any(parameter.grad.any() for parameter in model.parameters())
            assert same({name: old.mask for name, old in before.items()}, evolver.masks)
            return {}
        found = violations(before, model, optimizer, evolver, update, rules["redistribution"])
        assert found == []
        assert sum(evolver.connections().values()) == start
        for record in update.layers:
            # R_s = min(1, d + sum of r / n), exactly.
            expected[record.name] = min(expected[record.name] + record.grown, record.size)
            if rules["growth"] == "random_unfired":
                assert record.ever == expected[record.name]
            assert record.ever <= expected[record.name]
            if others["density"] == 1:
                assert record.grown == 0
    return evolver.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_every_combination_resumes_to_the_same_bits(combination):
    def fresh(seed):
        model = mlp(seed, (9, 8, 4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        evolver = MaskEvolver(
            model, optimizer, density=0.3, t_iter=2, t_end=20, seed=seed, **named(combination)
        )
        return model, optimizer, evolver

    run = fresh(0)
    saved = io.BytesIO()
    for i in range(9):
        if i == 5:
            torch.save([part.state_dict() for part in run], saved)
        train_step(run[0], run[1], i)
        update = run[2].step()
        if update is not None and i > 5:
            run[2].record_silent({"layer0": i})
    saved.seek(0)
    again = fresh(1)
    for part, state in zip(again, torch.load(saved, weights_only=True)):
        part.load_state_dict(state)
    for i in range(5, 9):
        train_step(again[0], again[1], i)
        if again[2].step() is not None and i > 5:
            again[2].record_silent({"layer0": i})
    for one, other in zip(run, again):
        assert same(one.state_dict(), other.state_dict())
    assert run[2].history == again[2].history
    assert [update.silent for update in run[2].history] == [None, None, None, {"layer0": 7}]


def by_hand(sizes, masks, weights, *, ever=None, optimizer=None, **settings):
    """Return a model of one-output layers with these masks and weights, and its evolver."""
    model = nn.ModuleDict({name: nn.Linear(n, 1, bias=False) for name, n in sizes.items()})
    optimizer = (optimizer or OPTIMISERS["sgd"])(model.parameters())
    active = sum(sum(mask) for mask in masks.values())
    evolver = MaskEvolver(
        model,
        optimizer,
        density=active / sum(sizes.values()),
        t_iter=1,
        t_end=100,
        schedule="constant",
        **settings,
    )
    state = evolver.state_dict()
    for part, values in (("masks", masks), ("ever", ever or masks)):
        state[part] = {name: torch.tensor([row]).bool() for name, row in values.items()}
    evolver.load_state_dict(state)
    with torch.no_grad():
        for name, row in weights.items():
            model[name].weight.copy_(torch.tensor([row]))
    return model, optimizer, evolver


def positions(mask):
    return mask.view(-1).nonzero().view(-1).tolist()


@pytest.mark.parametrize(
    ("prune", "kept"),
    [
        # Half of four are pruned: the smallest two, or the smallest of each sign.
        ("magnitude", [2, 3]),
        ("global_magnitude", [2, 3]),
        ("set", [1, 3]),
    ],
)
@pytest.mark.parametrize(
    ("growth", "grown"),
    [
        ("gradient", [4, 6]),
        ("momentum", [5, 7]),
        ("random_unfired", [6, 7]),
    ],
)
def test_one_layer_by_hand(prune, kept, growth, grown):
    model, optimizer, evolver = by_hand(
        {"a": 8},
        {"a": [1, 1, 1, 1, 0, 0, 0, 0]},
        {"a": [0.1, 0.2, -0.3, -0.4, 0, 0, 0, 0]},
        ever={"a": [1, 1, 1, 1, 1, 1, 0, 0]},
        prune=prune,
        growth=growth,
        alpha=0.5,
    )
    weight = model["a"].weight
    # Connections have the largest scores, which do not count.
    weight.grad = torch.tensor([[9.0, 9, 9, 9, -3, 1, 2, 0]])
    buffer = torch.tensor([[9.0, 9, 9, 9, 0, -3, 1, 2]])
    optimizer.state[weight]["momentum_buffer"] = buffer.clone()
    (record,) = evolver.step().layers
    assert positions(evolver.masks["a"]) == sorted(kept + grown)
    assert (record.pruned, record.grown, record.connections) == (2, 2, 4)
    assert record.density == 0.5
    expected = torch.tensor([[0.1, 0.2, -0.3, -0.4, 0, 0, 0, 0]])
    expected[0, [i for i in range(4) if i not in kept]] = 0
    assert torch.equal(weight.detach(), expected)
    buffer[0, grown] = 0
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], buffer)


def test_adam_momentum_by_hand():
    model, optimizer, evolver = by_hand(
        {"a": 6},
        {"a": [1, 1, 0, 0, 0, 0]},
        {"a": [0.1, 0.2, 0, 0, 0, 0]},
        optimizer=OPTIMISERS["adam"],
        prune="magnitude",
        growth="momentum",
        alpha=0.5,
    )
    weight = model["a"].weight
    # |m| / sqrt(v) is 1, 3, 0.8 and 2; the largest |m| is that of 4, |m| / v that of 5.
    optimizer.state[weight] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.tensor([[9.0, 9, 1, -6, 8, 1]]),
        "exp_avg_sq": torch.tensor([[1.0, 1, 1, 4, 100, 0.25]]),
    }
    evolver.step()
    assert positions(evolver.masks["a"]) == [1, 3]
    assert optimizer.state[weight]["exp_avg"].tolist() == [[9, 9, 1, 0, 8, 1]]
    assert optimizer.state[weight]["exp_avg_sq"].tolist() == [[1, 1, 1, 0, 100, 0.25]]


@pytest.mark.parametrize(
    ("prune", "redistribution", "pruned", "grown"),
    [
        # Half of each layer's four; of all eight, the first loses all but one.
        ("magnitude", "none", [2, 2], [2, 2]),
        ("global_magnitude", "none", [3, 1], [3, 1]),
        # Mean |w| 0.25 and 1.5: shares of 4 are 0.57 and 3.43.
        ("magnitude", "magnitude", [2, 2], [1, 3]),
        ("global_magnitude", "magnitude", [3, 1], [1, 3]),
        # Mean |momentum| 3 and 1.
        ("magnitude", "momentum", [2, 2], [3, 1]),
        # Four and two weights are not 0: shares of 4 are 2.67 and 1.33.
        ("set", "nonzero", [2, 2], [3, 1]),
    ],
)
def test_two_layers_by_hand(prune, redistribution, pruned, grown):
    model, optimizer, evolver = by_hand(
        {"a": 10, "b": 10},
        {"a": [1] * 4 + [0] * 6, "b": [1] * 4 + [0] * 6},
        {"a": [0.1, 0.2, 0.3, 0.4] + [0] * 6, "b": [0, 0, 3, 3] + [0] * 6}
        if redistribution == "nonzero"
        else {"a": [0.1, 0.2, 0.3, 0.4] + [0] * 6, "b": [0.5, 1, 2, 2.5] + [0] * 6},
        prune=prune,
        redistribution=redistribution,
        alpha=0.5,
    )
    for name, score in (("a", -3.0), ("b", 1.0)):
        buffer = torch.full((1, 10), 100.0)  # of free positions: does not count
        buffer[0, :4] = score
        optimizer.state[model[name].weight]["momentum_buffer"] = buffer
    update = evolver.step()
    assert [record.pruned for record in update.layers] == pruned
    assert [record.grown for record in update.layers] == grown
    assert [record.connections for record in update.layers] == [
        4 - n + m for n, m in zip(pruned, grown)
    ]


def test_silent_neurons_are_recorded_with_the_update():
    model, _, evolver = by_hand({"a": 4}, {"a": [1, 1, 0, 0]}, {}, alpha=0.5)
    with pytest.raises(ValueError, match="there was no update yet"):
        evolver.record_silent({"a": 1})
    evolver.step()
    evolver.step()
    evolver.record_silent({"a": 1, "readout": 0})
    assert [update.silent for update in evolver.history] == [None, {"a": 1, "readout": 0}]
    kept = evolver.history
    evolver.load_state_dict(evolver.state_dict())
    assert evolver.history == kept
    assert evolver.history is not kept
    assert model["a"].weight.shape == (1, 4)


def test_nothing_moves_after_the_end():
    _, _, evolver = by_hand({"a": 8}, {"a": [1, 1, 1, 1, 0, 0, 0, 0]}, {}, alpha=0.5)
    moved = [update.layers[0].grown for update in (evolver.step() for _ in range(150)) if update]
    assert moved == [2] * 100
    assert evolver.iteration == 150


@pytest.mark.parametrize("prune", PRUNE)
@pytest.mark.parametrize("redistribution", REDISTRIBUTE)
def test_nan_weights_name_their_layer(prune, redistribution):
    model = mlp(0, (9, 8, 4))
    optimizer = torch.optim.Adam(model.parameters())
    evolver = MaskEvolver(
        model,
        optimizer,
        density=0.5,
        t_iter=1,
        t_end=9,
        prune=prune,
        redistribution=redistribution,
    )
    train_step(model, optimizer, 0)
    before = {name: mask.clone() for name, mask in evolver.masks.items()}
    with torch.no_grad():
        weight_layers(model)["layer1"].view(-1)[positions(before["layer1"])[0]] = float("nan")
    with refused(UserError, "not-finite", layer="layer1", value=1):
        evolver.step()
    assert same(before, evolver.masks)


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_nan_scores_name_their_layer(growth):
    model = mlp(0, (9, 8, 4))
    optimizer = torch.optim.Adam(model.parameters())
    evolver = MaskEvolver(model, optimizer, density=0.5, t_iter=1, t_end=9, growth=growth)
    train_step(model, optimizer, 0)
    weight = weight_layers(model)["layer1"]
    free = positions(~evolver.masks["layer1"])[-1]
    for scored in (weight.grad, optimizer.state[weight]["exp_avg"]):
        scored.view(-1)[free] = float("nan")
    before = {name: mask.clone() for name, mask in evolver.masks.items()}
    with refused(UserError, "not-finite", layer="layer1", value=1):
        evolver.step()
    # The connections of the first layer were already chosen, but did not move.
    assert same(before, evolver.masks)


def test_missing_gradients_and_momenta_are_refused():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    rules = {"density": 0.5, "t_iter": 1, "t_end": 9}
    evolver = MaskEvolver(model, optimizer, growth="gradient", **rules)
    train_step(model, optimizer, 0)
    optimizer.zero_grad()
    before = {name: mask.clone() for name, mask in evolver.masks.items()}
    with refused(ConfigError, "missing", layer="layer0"):
        evolver.step()
    assert same(before, evolver.masks)
    for rule in ({"growth": "momentum"}, {"redistribution": "momentum"}):
        fresh = torch.optim.Adam(model.parameters())
        evolver = MaskEvolver(model, fresh, **rules, **rule)
        with refused(ConfigError, "missing", layer="layer0"):
            evolver.step()


def test_momentum_of_every_optimiser_kind():
    for name, optimiser in OPTIMISERS.items():
        model = mlp()
        optimizer = optimiser(model.parameters())
        evolver = MaskEvolver(
            model, optimizer, density=0.3, t_iter=1, t_end=9, growth="momentum", alpha=0.5
        )
        train_step(model, optimizer, 0)
        before = evolver.masks["layer0"].clone()
        weight = weight_layers(model)["layer0"]
        old = {key: value.clone() for key, value in moments(optimizer, weight).items()}
        if name == "sgd":
            score = old["momentum_buffer"].abs()
        else:
            score = old["exp_avg"].abs() / (old["exp_avg_sq"].sqrt() + 1e-8)
        evolver.step()
        grown = evolver.masks["layer0"] & ~before
        others = ~before & ~grown
        assert grown.any()
        assert score[grown].min() >= score[others].max()


def test_explicit_densities_and_erk_of_slayer_shapes():
    # SLAYER stores a dense layer as (out, in, 1, 1, 1), a convolution as (out, in, h, w, 1).
    model = nn.ModuleDict(
        {
            "dense": nn.Conv3d(8, 4, 1, bias=False),
            "conv": nn.Conv3d(3, 2, (3, 3, 1), bias=False),
        }
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = MaskEvolver(model, optimizer, density=46 / 86, distribution="erk", t_end=1)
    assert evolver.connections() == {"dense": 24, "conv": 22}
    evolver = MaskEvolver(model, optimizer, densities={"conv": 0.5, "dense": 0.25}, t_end=1)
    assert evolver.connections() == {"dense": 8, "conv": 27}
    # A 1x1 kernel of a torch convolution counts, as in the ERK paper.
    flat = nn.ModuleDict({"a": nn.Conv2d(8, 4, 1), "b": nn.Linear(8, 4)})
    optimizer = torch.optim.SGD(flat.parameters(), lr=0.1)
    evolver = MaskEvolver(flat, optimizer, density=26 / 64, distribution="erk", t_end=1)
    assert evolver.connections() == {"a": 14, "b": 12}
