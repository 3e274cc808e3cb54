"""The evolver with layers that store only their connections."""

import ast
import copy
import io
import subprocess
import sys

import pytest
import torch
from torch import nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import construction
from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights, weight_layers
from tests.faults import refused
from tests.sparsity.test_evolver import same
from tests.sparsity.twins import Stored, Twins, models, unpacked


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def evolver_of(model: nn.Module, optimizer: torch.optim.Optimizer, **settings) -> MaskEvolver:
    given = {"density": 0.3, "alpha": 0.4, "t_iter": 2, "t_end": 20}
    return MaskEvolver(model, optimizer, **(given | settings))


def stored_of(seed: int = 0, widths: tuple[int, ...] = (12, 9, 4), **settings):
    """Return a model, its optimiser and its evolver."""
    model = models(widths, seed)[1]
    optimizer = settings.pop("optimizer", sgd)(model.parameters())
    return model, optimizer, evolver_of(model, optimizer, seed=seed, **settings)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, i: int) -> None:
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(i))
    optimizer.zero_grad()
    (model(x) - 0.5).square().sum().backward()
    optimizer.step()


def test_layers_are_found_where_the_weight_would_be():
    inner = nn.ModuleDict({"synapse": Stored(3, 2, torch.zeros_like)})
    shared = Stored(3, 3, torch.zeros_like)
    model = nn.ModuleDict({"hidden1": inner, "a": shared, "b": shared, "c": nn.Linear(3, 2)})
    other = Stored(3, 3, torch.zeros_like)
    other.weight = shared.weight
    model["d"] = other
    assert list(weight_layers(model)) == ["hidden1", "a", "c"]
    weight = model["hidden1"]["synapse"].weight
    assert weight_layers(model)["hidden1"] is weight.values
    assert sparse_weights(model) == {"hidden1": weight, "a": shared.weight}
    assert list(model["hidden1"].state_dict()) == [
        "synapse.weight.values",
        "synapse.weight.starts",
        "synapse.weight.pre",
        "synapse.weight.sides",
    ]


def test_one_update_by_hand():
    model = Stored(4, 2, lambda at: torch.zeros(at.numel()))
    optimizer = sgd(model.parameters())
    evolver = MaskEvolver(
        model,
        optimizer,
        density=0.5,
        prune="magnitude",
        growth="gradient",
        schedule="constant",
        alpha=0.5,
        t_iter=2,
        t_end=9,
    )
    weight = model.weight
    assert evolver.connections() == {"weight": 4}
    weight.begin(torch.tensor([0, 1, 6, 7]))
    with torch.no_grad():
        weight.values.copy_(torch.tensor([0.1, -0.4, 0.3, -0.2]))
    optimizer.state[weight.values]["momentum_buffer"] = torch.tensor([1.0, 2, 3, 4])
    assert evolver.step() is None
    assert weight.wants_dense_gradient
    # Connections have the largest gradients, which do not count.
    scores = torch.tensor([9.0, 9, -3, 1, 2, 0, 9, 9])
    weight.dense_gradient = lambda where: scores[where]
    (record,) = evolver.step().layers
    assert weight.positions().tolist() == [1, 2, 4, 6]
    assert weight.values.tolist() == [torch.tensor(v).item() for v in (-0.4, 0, 0, 0.3)]
    assert optimizer.state[weight.values]["momentum_buffer"].tolist() == [2, 0, 0, 3]
    assert (record.size, record.pruned, record.grown, record.connections) == (8, 2, 2, 4)
    assert not weight.wants_dense_gradient
    assert weight.dense_gradient is None


def test_dense_and_stored_layers_in_one_network():
    """Each layer keeps its form, and the network evolves as one with two masked layers."""
    masked, stored = models((12, 9, 4))
    mixed = copy.deepcopy(stored)
    mixed.layer1 = copy.deepcopy(masked.layer1)
    rules = {"redistribution": "magnitude", "prune": "global_magnitude"}
    runs = []
    for model in (masked, mixed):
        optimizer = sgd(model.parameters())
        evolver = evolver_of(model, optimizer, **rules)
        for i in range(10):
            train_step(model, optimizer, i)
            evolver.step()
        runs.append((model, evolver))
    (masked, one), (mixed, other) = runs
    assert one.history == other.history
    assert one.densities() == other.densities()
    assert (one.density, one.sparse_density, one.exploration) == (
        other.density,
        other.sparse_density,
        other.exploration,
    )
    assert list(other.masks) == ["layer1"]
    assert list(other.ever) == ["layer0", "layer1"]
    assert torch.equal(one.masks["layer1"], other.masks["layer1"])
    assert torch.equal(one.ever["layer0"].view(-1), unpacked(other.ever["layer0"], 108))
    assert torch.equal(
        one.masks["layer0"].view(-1).nonzero().view(-1), mixed.layer0.weight.positions()
    )
    assert torch.equal(masked.layer1.weight, mixed.layer1.weight)


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random", "random_unfired", "gradient", "momentum"])
@pytest.mark.parametrize("stop", [0, 3, 5])
def test_resume_is_bit_identical(growth, stop):
    rules = {
        "growth": growth,
        "redistribution": "momentum",
        "optimizer": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    }
    run = stored_of(0, **rules)
    saved = io.BytesIO()
    for i in range(13):
        if i == stop:
            torch.save([part.state_dict() for part in run], saved)
        train_step(run[0], run[1], i)
        run[2].step()
    saved.seek(0)
    parts = torch.load(saved, weights_only=True)
    again = stored_of(1, **rules)
    for part, state in zip(again, parts):
        part.load_state_dict(state)
    assert same(again[2].state_dict(), parts[2])
    for i in range(stop, 13):
        train_step(again[0], again[1], i)
        again[2].step()
    for one, other in zip(run, again):
        assert same(one.state_dict(), other.state_dict())
    assert run[2].history == again[2].history
    moved = [sum(layer.grown for layer in update.layers) for update in run[2].history]
    assert len(moved) == 6
    assert all(moved)


def test_a_snapshot_does_not_follow_the_run():
    run = stored_of(density=0.1)
    state = run[2].state_dict()
    kept = copy.deepcopy(state)
    for i in range(4):
        train_step(run[0], run[1], i)
        run[2].step()
    assert same(state, kept)
    again = stored_of(density=0.1)
    again[2].load_state_dict(state)
    for i in range(4):
        train_step(again[0], again[1], i)
        again[2].step()
    assert same(state, kept)
    assert same(again[2].state_dict(), run[2].state_dict())


@pytest.mark.parametrize(
    ("ever", "missing"),
    [
        (torch.zeros(13, dtype=torch.uint8), None),  # a bitmap of another length
        (torch.full((14,), 255, dtype=torch.uint8), None),  # bits beyond the last position
        (torch.tensor([4, 4]), None),
        (torch.tensor([5, 108]), None),
        (torch.zeros(14, dtype=torch.uint8), 27),
        (torch.ones(9, 12, dtype=torch.bool), None),
    ],
)
def test_foreign_records_are_refused(ever, missing):
    _, _, evolver = stored_of()
    state = evolver.state_dict()
    before = copy.deepcopy(state)
    state["ever"]["layer0"] = ever
    with refused(ConfigError, "mismatch", key="ever", layer="layer0", value=missing):
        evolver.load_state_dict(state)
    assert same(evolver.state_dict(), before)


def test_states_of_other_layers_are_refused():
    _, _, evolver = stored_of()
    before = evolver.state_dict()
    dense = models((12, 9, 4))[0]
    layers = ("layer0", "layer1")
    masked = evolver_of(dense, sgd(dense.parameters())).state_dict()
    with refused(ConfigError, "mismatch", key="masks", value=layers, limit=()):
        evolver.load_state_dict(masked)
    deeper = stored_of(widths=(12, 9, 8, 4))[2].state_dict()
    with refused(ConfigError, "mismatch", key="ever", value=(*layers, "layer2"), limit=layers):
        evolver.load_state_dict(deeper)
    # The state of a model with another density.
    denser, _, state = stored_of(density=0.5)
    model, _, evolver = stored_of()
    model.load_state_dict(denser.state_dict())
    with refused(ConfigError, "mismatch", key="masks", value=72, limit=43):
        evolver.load_state_dict(state.state_dict())
    assert same(evolver.state_dict(), before)


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"t_dense": 5}, {"key": "t_dense", "value": 5, "layer": "layer0"}),
        ({"keep_dense": ["layer1"]}, {"key": "keep_dense", "layer": "layer1"}),
    ],
)
def test_what_needs_all_weights_is_refused(settings, fields):
    model = models((12, 9, 4))[1]
    before = model.state_dict()
    with refused(ConfigError, "unsupported", **fields):
        evolver_of(model, sgd(model.parameters()), **settings)
    assert same(model.state_dict(), before)


def test_moments_of_very_many_positions_are_refused(monkeypatch):
    assert construction.MAX_MOMENTS == 1 << 26
    monkeypatch.setattr(construction, "MAX_MOMENTS", 107)
    fields = {"key": "growth", "value": 108, "limit": 107, "layer": "layer0"}
    with refused(ConfigError, "too-large", **fields):
        stored_of(growth="momentum")
    monkeypatch.setattr(construction, "MAX_MOMENTS", 108)
    assert sum(stored_of(growth="momentum")[2].connections().values()) == 43


def test_growth_by_momentum_by_hand():
    """Moments of free positions, and of connections that are pruned."""
    model = Stored(4, 1, lambda at: torch.zeros(at.numel()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.5)
    rules = {"prune": "magnitude", "growth": "momentum", "schedule": "constant"}
    evolver = MaskEvolver(model, optimizer, density=0.25, alpha=1.0, t_iter=2, t_end=4, **rules)
    weight = model.weight
    weight.begin(torch.tensor([1]))

    def step(gradient: list[float]) -> int:
        assert weight.wants_dense_gradient
        by = torch.tensor(gradient)
        weight.values.grad = by[weight.positions()]
        weight.dense_gradient = lambda where: by[where]
        optimizer.step()
        evolver.step()
        (where,) = weight.positions().tolist()
        return where

    # Momenta 1, 9, 2, 0; then 3.5, 4.5, -4, 1. The momentum of the connection does not count.
    assert step([1.0, 9, 2, 0]) == 1
    assert step([3.0, 0, -5, 1]) == 2
    # Momenta 1.75, 2.25, 0 and then 1, 0.5. A pruned connection keeps its momentum.
    assert step([0.0, 0, 1, 0]) == 2
    assert step([0.0, 0, 0, 0]) == 1
    assert not weight.wants_dense_gradient


def test_steps_that_are_left_out_leave_momenta_as_they_are():
    model, optimizer, evolver = stored_of(growth="momentum", t_iter=3)
    train_step(model, optimizer, 0)
    evolver.step()
    before = copy.deepcopy(evolver.state_dict()["moments"])
    assert before["layer0"]["momentum_buffer"].shape == (108,)
    optimizer.zero_grad()
    (model(torch.ones(1, 12)) - 0.5).square().sum().backward()
    evolver.step()
    assert same(evolver.state_dict()["moments"], before)
    # The optimiser makes no step for a frozen layer.
    model.layer1.weight.values.requires_grad_(False)
    train_step(model, optimizer, 1)
    evolver.step()
    after = evolver.state_dict()["moments"]
    assert not same(after["layer0"], before["layer0"])
    assert same(after["layer1"], before["layer1"])


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_a_layer_that_gives_no_gradient_is_refused(growth):
    model, optimizer, evolver = stored_of(growth=growth, t_iter=1)
    train_step(model, optimizer, 0)
    model.layer1.weight.dense_gradient = None
    before = copy.deepcopy(model.state_dict())
    with refused(ConfigError, "missing", layer="layer1"):
        evolver.step()
    assert same(model.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda moments: moments.pop("layer1"), {"value": ("layer0",)}),
        (
            lambda moments: moments["layer1"].update(exp_avg=torch.zeros(36)),
            {"layer": "layer1", "value": "exp_avg"},
        ),
        (
            lambda moments: moments["layer0"].update(momentum_buffer=torch.zeros(107)),
            {"layer": "layer0", "value": "momentum_buffer"},
        ),
    ],
)
def test_moments_of_others_are_refused(change, fields):
    model, optimizer, evolver = stored_of(growth="momentum")
    train_step(model, optimizer, 0)
    evolver.step()
    state = copy.deepcopy(evolver.state_dict())
    before = copy.deepcopy(state)
    change(state["moments"])
    with refused(ConfigError, "mismatch", key="moments", **fields):
        evolver.load_state_dict(state)
    assert same(evolver.state_dict(), before)
    del state["moments"]
    with refused(ConfigError, "mismatch", key="moments", value=()):
        evolver.load_state_dict(state)
    # Moments are not needed after t_end, or with another growth rule.
    state["iteration"] = 20
    evolver.load_state_dict(state)
    stored_of()[2].load_state_dict(before)


def test_other_devices_are_refused():
    model = models((12, 9, 4))[1].to("meta")
    with refused(ConfigError, "unsupported", layer="layer0", value="meta", limit="cpu"):
        evolver_of(model, sgd(model.parameters()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights_and_gradients_name_their_layer(value):
    model, optimizer, evolver = stored_of(growth="gradient", t_iter=1)
    train_step(model, optimizer, 0)
    weight = model.layer1.weight
    free = next(i for i in range(weight.size) if i not in weight.positions().tolist())
    scores = torch.zeros(weight.size)
    scores[free] = value
    weight.dense_gradient = lambda where: scores[where]
    before = copy.deepcopy(model.state_dict())
    with refused(UserError, "not-finite", layer="layer1", value=1):
        evolver.step()
    assert same(model.state_dict(), before)
    with torch.no_grad():
        weight.values[3] = value
    with refused(UserError, "not-finite", layer="layer1", value=1) as caught:
        evolver.step()
    assert "weights of 1 of its 16 connections" in str(caught.value)


def test_unknown_optimiser_state_is_refused_before_anything_moves():
    model, optimizer, evolver = stored_of(t_iter=1)
    train_step(model, optimizer, 0)
    values = model.layer1.weight.values
    optimizer.state[values]["exotic"] = torch.zeros_like(values)
    before = copy.deepcopy(model.state_dict())
    with refused(ConfigError, "unknown", layer="layer1", value="exotic"):
        evolver.step()
    assert same(model.state_dict(), before)


def test_the_record_of_a_sparse_layer_is_a_list_until_a_bitmap_is_smaller():
    twins = Twins((60, 50), sgd, density=0.01, schedule="constant", alpha=0.5, t_iter=1, t_end=9)
    evolver, sizes = twins.evolvers[1], []
    for _ in range(9):
        twins.feed({"layer0": torch.randn(50, 60)})
        assert twins.differences() == []
        ever = evolver.ever["layer0"]
        sizes.append(ever.numel() if ever.dtype == torch.int64 else None)
    # A bitmap of 3000 positions has 375 bytes, as a list of 46. Each update adds 15 to the 30.
    assert sizes[0] in (44, 45)
    assert sizes[1:] == [None] * 8
    assert evolver.ever["layer0"].shape == (375,)


LARGE = """
import resource

import torch

from esl_lava.sparsity import construction
from esl_lava.sparsity.evolver import MaskEvolver
from esl_lava.sparsity.weights import SparseWeight


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evolve(side, growth):
    model = torch.nn.Module()
    model.weight = SparseWeight(side, side, lambda at: torch.ones(at.numel()))
    values = model.weight.values
    optimizer = torch.optim.Adam([values])
    rules = {"growth": growth, "alpha": 0.3, "t_iter": 1, "t_end": 9}
    evolver = MaskEvolver(model, optimizer, density=6.5536 / side, **rules)
    values.grad = torch.ones_like(values)
    optimizer.step()
    (record,) = evolver.step().layers
    return record.connections, record.grown, record.ever, int(model.weight.positions()[-1])


for growth in ("random", "random_unfired"):
    evolve(64, growth)  # imports and allocations of the first call
before = peak()
print([evolve(65536, "random"), evolve(65536, "random_unfired"), peak() - before])
"""


@pytest.mark.slow
def test_a_very_large_layer_is_drawn_and_evolved_in_little_memory():
    """A mask would take 4 GiB, a dense weight 16 GiB, and the record 512 MiB as a bitmap."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    *updates, mebibytes = ast.literal_eval(done.stdout)
    for connections, grown, ever, last in updates:
        assert connections == 429_497  # 1e-4 of 2^32
        assert grown > 100_000
        assert connections < ever <= connections + grown
        assert last > 2**31
    assert mebibytes < 200
