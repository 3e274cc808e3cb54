import copy
import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity.evolver import MaskEvolver, weight_layers
from esl_lava.sparsity.prune import pick_tails
from tests.faults import check, refused

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd momentum, weight decay": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
}


def mlp(seed: int = 0, widths: tuple[int, ...] = (12, 9, 4)) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential()
    for i, (n_pre, n_post) in enumerate(itertools.pairwise(widths)):
        model.add_module(f"layer{i}", nn.Linear(n_pre, n_post))
        model.add_module(f"act{i}", nn.Tanh())
    return model


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, i: int) -> None:
    first = next(iter(weight_layers(model).values()))
    x = torch.randn(8, first.shape[1], generator=torch.Generator().manual_seed(i))
    optimizer.zero_grad()
    (model(x) - 0.5).square().sum().backward()
    optimizer.step()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in weight_layers(model).items()}


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, object]]:
    return {
        name: {
            key: value.clone()
            for key, value in optimizer.state.get(weight, {}).items()
            if isinstance(value, torch.Tensor) and value.shape == weight.shape
        }
        for name, weight in weight_layers(model).items()
    }


def evolver_of(model: nn.Module, optimizer: torch.optim.Optimizer, **settings) -> MaskEvolver:
    given = {"density": 0.3, "alpha": 0.4, "t_iter": 2, "t_end": 20}
    return MaskEvolver(model, optimizer, **(given | settings))


def same(a: Any, b: Any) -> bool:
    """Check the exact equality of nested containers and tensors, including dtypes."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_keeps_every_invariant(name):
    model = mlp()
    optimizer = OPTIMISERS[name](model.parameters())
    evolver = evolver_of(model, optimizer)
    start = evolver.connections()
    ever = {k: m.clone() for k, m in evolver.masks.items()}
    moved = reset = 0
    for i in range(1, 26):
        before = {k: m.clone() for k, m in evolver.masks.items()}
        train_step(model, optimizer, i)
        trained, old = weights(model), moments(model, optimizer)
        update = evolver.step()
        assert evolver.connections() == start
        for k, weight in weight_layers(model).items():
            mask = evolver.masks[k]
            # +0.0 exactly: its bits are all 0.
            assert not weight.detach()[~mask].view(torch.int32).any()
            kept, grown, dropped = before[k] & mask, mask & ~before[k], before[k] & ~mask
            assert torch.equal(weight.detach()[kept], trained[k][kept])
            assert not weight.detach()[grown].view(torch.int32).any()
            if update is not None:
                record = next(r for r in update.layers if r.name == k)
                assert record.pruned == record.grown == int(dropped.sum()) == int(grown.sum())
                moved += record.grown
                ever[k] |= mask
                assert record.ever == int(ever[k].sum())
                assert record.connections == int(mask.sum())
            else:
                assert torch.equal(mask, before[k])
            assert torch.equal(evolver.ever[k], ever[k])
            for key, moment in moments(model, optimizer)[k].items():
                # 0 at grown connections, unchanged at all other positions.
                reset += int(old[k][key][grown].count_nonzero())
                assert torch.equal(moment, old[k][key].masked_fill(grown, 0.0))
    assert moved > 0
    assert (reset > 0) is (name != "sgd")
    assert evolver.iteration == 25
    assert [u.iteration for u in evolver.history] == list(range(2, 21, 2))
    # Eq. 2 is 0 at t_end: that update moves nothing.
    last = evolver.history[-1]
    assert last.fraction == 0
    assert all(r.grown == 0 for r in last.layers)


def test_pruned_are_what_the_rule_picks():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    evolver = evolver_of(model, optimizer, t_iter=1, t_end=2, alpha=0.5)
    masks = {k: m.clone() for k, m in evolver.masks.items()}
    before = weights(model)
    update = evolver.step()
    assert update.fraction == 0.25
    for k, mask in masks.items():
        values = before[k][mask]
        n = int(values.numel() * 0.25 + 0.5)
        gone = mask.view(-1).nonzero().view(-1)[pick_tails(values, n)]
        assert (mask & ~evolver.masks[k]).view(-1).nonzero().view(-1).tolist() == gone.tolist()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.floats(0.01, 1),
    st.sampled_from(["er", "uniform"]),
    st.floats(0, 1),
    st.sampled_from(["normal", "positive", "negative", "equal", "zero", "ties"]),
    st.integers(0, 1000),
)
def test_any_shape_density_and_weights(widths, density, distribution, alpha, kind, seed):
    model = mlp(seed, tuple(widths))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        evolver = evolver_of(
            model,
            optimizer,
            density=density,
            distribution=distribution,
            alpha=alpha,
            t_iter=1,
            t_end=5,
            seed=seed,
        )
    except ConfigError as error:
        check(error.faults[0], "range", key="density", value=density)
        return
    start = evolver.connections()
    possible = sum(w.numel() for w in weight_layers(model).values())
    assert sum(start.values()) == int(possible * density + 0.5)
    fill = {
        "normal": lambda w: w,
        "positive": torch.abs,
        "negative": lambda w: -w.abs(),
        "equal": lambda w: torch.full_like(w, 0.5),
        "zero": torch.zeros_like,
        "ties": lambda w: (w * 3).round(),
    }[kind]
    for _ in range(6):
        before = {k: m.clone() for k, m in evolver.masks.items()}
        with torch.no_grad():
            for weight in weight_layers(model).values():
                weight.copy_(fill(torch.randn_like(weight)))
        values = {k: w.detach().clone() for k, w in weight_layers(model).items()}
        update = evolver.step()
        assert evolver.connections() == start
        for k, weight in weight_layers(model).items():
            mask, active = evolver.masks[k], start[k]
            assert not weight.detach()[~mask].any()
            moved = int((mask & ~before[k]).sum())
            if update is None:
                assert moved == 0
                continue
            wanted = int(update.fraction * active + 0.5)
            assert moved == min(wanted, mask.numel() - active)
            # Only active positions are pruned, and zeros before any other.
            dropped = before[k] & ~mask
            zeros = int((values[k][before[k]] == 0).sum())
            assert int((values[k][dropped] == 0).sum()) == min(zeros, moved)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_full_layers_and_fraction_zero_move_nothing(density, alpha):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain = copy.deepcopy(model)
    other = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    evolver = evolver_of(model, optimizer, density=density, alpha=alpha)
    before = {k: m.clone() for k, m in evolver.masks.items()}
    for i in range(6):
        train_step(model, optimizer, i)
        evolver.step()
        train_step(plain, other, i)
    still = density == 1.0 or alpha == 0.0
    assert same(before, evolver.masks) is still
    # At density 1 the training equals a dense training, bit for bit.
    assert same(weights(model), weights(plain)) is (density == 1.0)


def test_nearly_full_layer_moves_at_most_its_free_slots():
    model = nn.Linear(10, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer, density=0.97, alpha=1.0, t_iter=1, t_end=1000)
    free = ~evolver.masks["weight"]
    update = evolver.step()
    assert update.layers[0].grown == 3
    # All free positions became connections.
    assert evolver.masks["weight"][free].all()
    assert update.exploration == 1.0
    assert evolver.exploration == 1.0


def test_one_weight_layer():
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    evolver = evolver_of(model, optimizer, density=1.0, alpha=1.0, t_iter=1)
    train_step(model, optimizer, 0)
    assert evolver.step().layers[0].grown == 0
    assert model.weight.item() != 0


def test_same_seed_same_masks():
    runs = []
    for seed in (5, 5, 6):
        model = mlp(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        evolver = evolver_of(model, optimizer, seed=seed)
        torch.manual_seed(seed + len(runs))  # the global generator is not used
        for i in range(8):
            train_step(model, optimizer, i)
            evolver.step()
        runs.append(evolver.state_dict())
    assert same(runs[0], runs[1])
    assert not same(runs[0]["masks"], runs[2]["masks"])


def test_layers_of_one_shape_have_masks_of_their_own():
    model = mlp(0, (8, 8, 8))
    evolver = evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.5)
    assert not torch.equal(*evolver.masks.values())


def test_masks_of_a_layer_do_not_depend_on_which_others_are_dense():
    masks = []
    for keep in ((), ("layer0",)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        settings = {"distribution": "uniform", "density": 0.5, "keep_dense": keep}
        masks.append(evolver_of(model, optimizer, **settings).masks["layer1"])
    assert torch.equal(*masks)


def test_the_paper_network():
    model = mlp(0, (784, 800, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = MaskEvolver(model, optimizer, eps=60, keep_dense=["layer1"], t_end=1)
    assert evolver.connections() == {"layer0": 95_040, "layer1": 8_000}
    assert list(evolver.masks) == ["layer0"]
    assert evolver.density == 103_040 / 635_200
    assert evolver.sparse_density == evolver.exploration == 95_040 / 627_200
    assert evolver.densities() == {"layer0": 95_040 / 627_200, "layer1": 1.0}
    assert (weight_layers(model)["layer1"] != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("stop", [0, 3, 4])
def test_resume_is_bit_identical(name, stop):
    def fresh(seed):
        model = mlp(seed)
        optimizer = OPTIMISERS[name](model.parameters())
        return model, optimizer, evolver_of(model, optimizer, seed=seed)

    model, optimizer, evolver = fresh(0)
    saved = io.BytesIO()
    for i in range(13):
        if i == stop:
            parts = [part.state_dict() for part in (model, optimizer, evolver)]
            torch.save(parts, saved)
        train_step(model, optimizer, i)
        evolver.step()

    saved.seek(0)
    # weights_only: the file contains only tensors and plain containers.
    parts = torch.load(saved, weights_only=True)
    again = fresh(1)
    for part, state in zip(again, parts):
        part.load_state_dict(state)
    assert same(again[2].state_dict(), parts[2])
    for i in range(stop, 13):
        train_step(again[0], again[1], i)
        again[2].step()
    for one, other in zip((model, optimizer, evolver), again):
        assert same(one.state_dict(), other.state_dict())
    assert evolver.history == again[2].history


def test_a_snapshot_does_not_follow_the_run():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer)
    state = evolver.state_dict()
    kept = copy.deepcopy(state)
    for i in range(4):
        train_step(model, optimizer, i)
        evolver.step()
    assert same(state, kept)
    evolver.load_state_dict(state)
    assert same(evolver.state_dict(), kept)
    for k, weight in weight_layers(model).items():
        assert not weight.detach()[~evolver.masks[k]].any()


@pytest.mark.parametrize(
    ("settings", "widths", "fields"),
    [
        (
            {},
            (12, 9, 8, 4),
            {"value": ("layer0", "layer1", "layer2"), "limit": ("layer0", "layer1")},
        ),
        (
            {"keep_dense": ["layer1"]},
            (12, 9, 4),
            {"value": ("layer0",), "limit": ("layer0", "layer1")},
        ),
        ({}, (12, 8, 4), {"layer": "layer0", "value": (8, 12), "limit": (9, 12)}),
        ({"density": 0.5}, (12, 9, 4), {"value": 72, "limit": 43}),
    ],
)
def test_foreign_state_is_refused(settings, widths, fields):
    def evolver(widths, **settings):
        model = mlp(0, widths)
        return evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1), **settings)

    mine = evolver((12, 9, 4))
    before = mine.state_dict()
    with refused(ConfigError, "mismatch", key="masks", **fields):
        mine.load_state_dict(evolver(widths, **settings).state_dict())
    assert same(mine.state_dict(), before)


@pytest.mark.parametrize(
    ("settings", "code", "fields"),
    [
        (
            {"prune": "magic"},
            "unknown",
            {"key": "prune", "limit": ("set", "magnitude", "global_magnitude")},
        ),
        (
            {"growth": "magic"},
            "unknown",
            {"key": "growth", "limit": ("random", "random_unfired", "gradient", "momentum")},
        ),
        (
            {"distribution": "magic"},
            "unknown",
            {"key": "distribution", "limit": ("er", "erk", "uniform")},
        ),
        (
            {"keep_dense": ["readout"]},
            "unknown",
            {"key": "keep_dense", "value": "readout", "limit": ("layer0", "layer1")},
        ),
        ({"keep_dense": ["layer0", "layer1"]}, "conflict", {"key": "keep_dense"}),
        (
            {"redistribution": "magic"},
            "unknown",
            {"key": "redistribution", "limit": ("none", "momentum", "magnitude", "nonzero")},
        ),
        ({"schedule": "magic"}, "unknown", {"key": "schedule", "limit": ("cosine", "constant")}),
        ({"density": None}, "missing", {"key": "density"}),
        ({"eps": 3.0}, "conflict", {"key": "density"}),
        (
            {"density": None, "eps": 3.0, "distribution": "uniform"},
            "conflict",
            {"key": "distribution", "value": "uniform", "limit": "er"},
        ),
        (
            {"density": None, "densities": {"layer0": 0.5}},
            "missing",
            {"key": "densities", "layer": "layer1", "limit": ("layer0", "layer1")},
        ),
        (
            {"density": None, "densities": {"layer0": 0.5, "layer1": 1, "x": 0.1}},
            "unknown",
            {"key": "densities", "value": "x", "limit": ("layer0", "layer1")},
        ),
        (
            {"density": None, "densities": {"layer0": 0.5, "layer1": 1.5}},
            "range",
            {"key": "densities", "layer": "layer1", "value": 1.5, "limit": 1},
        ),
        (
            {"density": None, "densities": {"layer0": 0.004, "layer1": 1}},
            "range",
            {"key": "densities", "layer": "layer0", "value": 0.004},
        ),
        ({"growth": "momentum"}, "conflict", {"layer": "layer0", "value": 0}),
        ({"redistribution": "momentum"}, "conflict", {"layer": "layer0", "value": 0}),
        ({"density": 0.0}, "range", {"key": "density", "value": 0.0, "limit": 1}),
        ({"alpha": 2.0}, "range", {"key": "alpha", "value": 2.0, "limit": 1}),
        ({"seed": -1}, "range", {"key": "seed", "value": -1, "limit": 0}),
    ],
)
def test_bad_settings_are_refused_before_the_model_is_touched(settings, code, fields):
    model = mlp()
    before = weights(model)
    with refused(ConfigError, code, **fields):
        evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1), **settings)
    assert same(weights(model), before)


def test_models_that_cannot_be_masked():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Tanh())
    with refused(ConfigError, "conflict", key="keep_dense", value=()):
        evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for normalise in (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm):
        model = nn.Sequential(normalise(nn.Linear(3, 3)))
        with refused(ConfigError, "unsupported", layer="0"):
            evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_layer_names():
    inner = nn.ModuleDict({"synapse": nn.Conv2d(2, 3, 3), "norm": nn.BatchNorm2d(3)})
    tied = nn.Linear(4, 4)
    model = nn.ModuleDict({"conv": inner, "a": tied, "b": nn.Linear(4, 4), "c": tied})
    model["b"].weight = tied.weight
    assert list(weight_layers(model)) == ["conv", "a"]
    assert list(weight_layers(nn.Linear(2, 2))) == ["weight"]
    twice = nn.Linear(4, 4)
    twice.add_module("synapse", nn.Linear(4, 4))
    with refused(ConfigError, "conflict", layer="x"):
        weight_layers(nn.ModuleDict({"x": twice}))


def test_optimisers_we_do_not_know():
    class Mine(torch.optim.SGD):
        pass

    model = mlp()
    for optimizer in (torch.optim.RMSprop(model.parameters()), Mine(model.parameters(), lr=0.1)):
        name, known = type(optimizer).__name__, ("SGD", "Adam", "AdamW")
        with refused(ConfigError, "unsupported", key="optimizer", value=name, limit=known):
            evolver_of(model, optimizer)
    foreign = torch.optim.SGD(mlp().parameters(), lr=0.1)
    with refused(ConfigError, "mismatch", layer="layer0"):
        evolver_of(model, foreign)


def test_unknown_optimiser_state_is_refused_before_anything_moves():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer, t_iter=1)
    before = {k: m.clone() for k, m in evolver.masks.items()}
    train_step(model, optimizer, 0)
    last = list(weight_layers(model).values())[-1]
    optimizer.state[last]["exotic"] = torch.zeros_like(last)
    with refused(ConfigError, "unknown", layer="layer1", value="exotic"):
        evolver.step()
    assert same(before, evolver.masks)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_diverged_weights_name_their_layer(value):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer, t_iter=1)
    before = {k: m.clone() for k, m in evolver.masks.items()}
    weight = weight_layers(model)["layer1"]
    with torch.no_grad():
        weight.view(-1)[evolver.masks["layer1"].view(-1).nonzero()[1]] = value
    active = evolver.connections()["layer1"]
    with refused(UserError, "not-finite", layer="layer1", value=1) as caught:
        evolver.step()
    assert f"weights of 1 of its {active} connections" in str(caught.value)
    assert "iteration 1" in str(caught.value)
    assert same(before, evolver.masks)


def test_inactive_nan_is_cleared():
    model = mlp()
    evolver = evolver_of(model, torch.optim.SGD(model.parameters(), lr=0.1), t_iter=1)
    weight, mask = weight_layers(model)["layer0"], evolver.masks["layer0"]
    with torch.no_grad():
        weight[~mask] = float("nan")
    evolver.step()
    assert weight.isfinite().all()


def test_channels_last_convolution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    weight = model[0].weight
    assert not weight.is_contiguous()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolver = evolver_of(model, optimizer, t_iter=1)
    for _ in range(5):
        before = evolver.masks["0"].clone()
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        evolver.step()
        grown = evolver.masks["0"] & ~before
        assert grown.any()
        assert not weight.detach()[~evolver.masks["0"] | grown].any()
        assert not optimizer.state[weight]["momentum_buffer"][grown].any()


def test_random_growth_explores():
    model = nn.Linear(40, 50)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer, density=0.1, alpha=0.3, t_iter=1, t_end=100)
    shares = [evolver.exploration]
    for _ in range(60):
        with torch.no_grad():
            model.weight.normal_()
        shares.append(evolver.step().exploration)
    assert shares == sorted(shares)
    assert shares[0] == 0.1
    expected = 1.0
    for update in evolver.history:
        expected *= 1 - update.layers[0].grown / (1800)
    # E[R_s] = 1 - (1 - d) * prod(1 - r / free); about 800 of 2000 positions explored, so
    # a deviation of about 1 %.
    assert shares[-1] == pytest.approx(1 - 0.9 * expected, abs=0.04)
