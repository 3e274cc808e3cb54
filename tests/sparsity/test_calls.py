"""Training loops around the evolver: skipped steps, frozen layers, missing gradients."""

import io
import logging

import pytest
import torch
from torch import nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import MaskEvolver
from esl_lava.sparsity.layers import find_layers
from esl_lava.sparsity.stores import CALL_ORDER
from tests.faults import refused
from tests.sparsity.test_evolver import mlp, same, train_step, weights

LOG = "esl_lava.sparsity"


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def evolver_of(model, optimizer, **settings):
    given = {"density": 0.4, "alpha": 0.5, "t_iter": 2, "t_end": 20, "schedule": "constant"}
    return MaskEvolver(model, optimizer, **(given | {"growth": "gradient"} | settings))


def copies(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def moved(update):
    return sum(layer.grown for layer in update.layers)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith(LOG)]


# --- steps that GradScaler skips -------------------------------------------------------


class Scaled:
    """A training with a GradScaler whose scale overflows in its first `skipped` iterations."""

    def __init__(self, skipped, optimiser=sgd, clip=False, **settings):
        self.model = mlp()
        self.optimizer = optimiser(self.model)
        # Gradients are of the order of 1; a scale that is halved to 2**120 overflows none.
        scale = 2.0**120 * 2.0 ** min(skipped, 7)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
        self.skipped, self.clip = skipped, clip
        self.evolver = evolver_of(self.model, self.optimizer, **settings)

    def step(self, i):
        self.optimizer.zero_grad()
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(i))
        loss = (self.model(x) - 0.5).square().sum()
        # Simulates the overflow of a backward pass in half precision.
        if i < self.skipped:
            loss = loss * float("inf")
        self.scaler.scale(loss).backward()
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.evolver.step()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_an_update_waits_for_the_step_that_is_made(growth, clip, caplog):
    caplog.set_level(logging.WARNING, logger=LOG)
    run = Scaled(3, clip=clip, growth=growth)
    before = copies(run.evolver.masks)
    # An update is due after the second iteration; the third step is skipped too.
    assert [run.step(i) for i in range(3)] == [None] * 3
    assert same(before, run.evolver.masks)
    assert warnings(caplog) == [
        "iteration 2: gradients are NaN or infinite (did GradScaler skip a step?); "
        "the update of the masks waits for finite gradients"
    ]
    update = run.step(3)
    assert update.iteration == 4
    assert moved(update) > 0
    # Later updates follow the schedule.
    assert [u is not None for u in (run.step(i) for i in range(4, 8))] == [False, True, False, True]
    assert len(warnings(caplog)) == 1


def test_a_belated_update_has_the_fraction_of_its_iteration():
    run = Scaled(3, schedule="cosine", t_iter=3)
    assert [run.step(i) for i in range(3)] == [None] * 3
    update = run.step(3)
    assert (update.iteration, update.fraction) == (4, run.evolver.schedule.fraction(4))
    assert run.step(4) is None
    assert run.step(5).iteration == 6


def test_rules_that_read_neither_do_not_wait():
    run = Scaled(3, growth="random")
    assert [run.step(i) is not None for i in range(4)] == [False, True, False, True]


def test_an_update_that_waits_past_the_end_is_left_out(caplog):
    caplog.set_level(logging.WARNING, logger=LOG)
    run = Scaled(9, t_end=6, t_iter=6)
    before = copies(run.evolver.masks)
    assert [run.step(i) for i in range(12)] == [None] * 12
    assert same(before, run.evolver.masks)
    (warning,) = warnings(caplog)
    assert warning.startswith("iteration 6: ")
    assert warning.endswith("is skipped, because this is its last iteration")


def test_a_waiting_update_is_resumed_to_the_same_bits():
    run, again = Scaled(3), Scaled(3)
    saved = io.BytesIO()
    parts = ("model", "optimizer", "scaler", "evolver")
    for i in range(8):
        if i == 3:
            torch.save([getattr(run, part).state_dict() for part in parts], saved)
        run.step(i)
    saved.seek(0)
    for part, state in zip(parts, torch.load(saved, weights_only=True)):
        getattr(again, part).load_state_dict(state)
    for i in range(3, 8):
        again.step(i)
    for part in parts:
        assert same(getattr(run, part).state_dict(), getattr(again, part).state_dict())
    assert [update.iteration for update in again.evolver.history] == [4, 6, 8]


def test_an_older_state_has_no_update_waiting():
    run = Scaled(0)
    state = run.evolver.state_dict()
    del state["waiting"]
    run.evolver.load_state_dict(state)
    assert run.step(0) is None


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_a_step_with_broken_gradients_is_a_divergence(optimiser, growth):
    """Without a GradScaler the optimiser makes the step, and weights become NaN."""
    model = mlp()
    optimizer = optimiser(model.parameters(), lr=0.1)
    evolver = evolver_of(model, optimizer, t_iter=1, growth=growth)
    before = copies(evolver.masks)
    optimizer.zero_grad()
    ((model(torch.ones(2, 12))).sum() * float("inf")).backward()
    optimizer.step()
    with refused(UserError, "not-finite", layer="layer0"):
        evolver.step()
    assert same(before, evolver.masks)


# --- frozen layers ---------------------------------------------------------------------


def test_a_frozen_layer_is_refused_before_it_is_touched():
    model = mlp(0, (12, 9, 8, 4))
    for layer in (model.layer0, model.layer1):
        layer.weight.requires_grad_(False)
    before = weights(model)
    with refused(ConfigError, "conflict", layer="layer0") as caught:
        evolver_of(model, sgd(model))
    assert "layer1" in str(caught.value)
    assert same(weights(model), before)
    # A layer in keep_dense does not change by a single bit.
    optimizer = sgd(model)
    evolver = evolver_of(model, optimizer, keep_dense=["layer0", "layer1"])
    for i in range(6):
        train_step(model, optimizer, i)
        evolver.step()
    assert moved(evolver.history[-1]) > 0
    after = weights(model)
    assert all(torch.equal(after[name], before[name]) for name in ("layer0", "layer1"))


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random", "random_unfired", "gradient", "momentum"])
@pytest.mark.parametrize("redistribution", ["none", "magnitude", "momentum"])
@pytest.mark.parametrize("prune", ["set", "global_magnitude"])
def test_a_layer_frozen_midway_is_left_alone_until_it_is_trained_again(
    growth, redistribution, prune
):
    model = mlp(0, (12, 9, 8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    rules = {"growth": growth, "redistribution": redistribution, "prune": prune}
    evolver = evolver_of(model, optimizer, t_iter=1, **rules)
    total = sum(evolver.connections().values())

    def train(steps):
        for i in steps:
            train_step(model, optimizer, i)
            evolver.step()
            assert sum(evolver.connections().values()) == total
            for name, weight in weights(model).items():
                assert not weight[~evolver.masks[name]].view(torch.int32).any()

    train(range(3))
    weight = model.layer1.weight
    weight.requires_grad_(False)
    frozen = weight.detach().clone()
    mask, ever = evolver.masks["layer1"].clone(), evolver.ever["layer1"].clone()
    moments = {key: value.clone() for key, value in optimizer.state[weight].items()}
    train(range(3, 6))
    assert torch.equal(weight.detach().view(torch.int32), frozen.view(torch.int32))
    assert torch.equal(evolver.masks["layer1"], mask)
    assert torch.equal(evolver.ever["layer1"], ever)
    assert same(moments, optimizer.state[weight])
    for update in evolver.history[3:]:
        records = {record.name: record for record in update.layers}
        assert list(records) == ["layer0", "layer1", "layer2"]
        record = records["layer1"]
        assert (record.pruned, record.grown) == (0, 0)
        assert (record.connections, record.ever) == (int(mask.sum()), int(ever.sum()))
        assert moved(update) > 0
    weight.requires_grad_(True)
    train(range(6, 9))
    assert sum(u.layers[1].pruned for u in evolver.history[6:]) > 0


@pytest.mark.parametrize("prune", ["set", "global_magnitude"])
@pytest.mark.parametrize("redistribution", ["none", "magnitude"])
def test_nothing_moves_where_all_is_frozen(prune, redistribution):
    model = mlp()
    evolver = evolver_of(model, sgd(model), t_iter=1, prune=prune, redistribution=redistribution)
    before = evolver.state_dict()
    model.requires_grad_(False)
    update = evolver.step()
    assert moved(update) == 0
    assert [record.connections for record in update.layers] == list(evolver.connections().values())
    assert same(before["masks"], evolver.masks)


def test_a_dense_phase_cannot_end_on_a_frozen_layer():
    model = mlp()
    evolver = evolver_of(model, sgd(model), growth="random", t_dense=2)
    model.layer1.weight.requires_grad_(False)
    assert evolver.step() is None
    before = weights(model)
    with refused(ConfigError, "conflict", key="t_dense", value=2, layer="layer1"):
        evolver.step()
    assert same(before, weights(model))


# --- missing gradients -----------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("widths", [(12, 4), (12, 9, 4)])
def test_gradients_zeroed_before_the_step_are_refused(set_to_none, widths):
    model = mlp(0, widths)
    optimizer = sgd(model)
    evolver = evolver_of(model, optimizer)
    train_step(model, optimizer, 0)
    evolver.step()
    train_step(model, optimizer, 1)
    optimizer.zero_grad(set_to_none=set_to_none)
    before = evolver.state_dict()
    with refused(ConfigError, "missing", layer="layer0") as caught:
        evolver.step()
    assert str(caught.value).endswith(CALL_ORDER)
    del before["iteration"]
    after = evolver.state_dict()
    assert same(before, {key: after[key] for key in before})


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_a_dead_layer_grows_at_random_and_is_named(growth, caplog):
    """The inputs of layer1 are 0, and so are the gradients of its weights."""
    caplog.set_level(logging.WARNING, logger=LOG)

    def run(seed):
        model = mlp(0, (12, 30, 8))
        with torch.no_grad():
            model.layer0.weight.abs_()
            model.layer0.bias.fill_(-100.0)
        model.act0 = nn.ReLU()
        optimizer = sgd(model)
        evolver = evolver_of(model, optimizer, t_iter=1, growth=growth, seed=seed)
        lives = []
        for i in range(6):
            if i == 4:  # the layer gets inputs other than 0
                with torch.no_grad():
                    model.layer0.bias.fill_(1.0)
            before = evolver.masks["layer1"].clone()
            train_step(model, optimizer, i)
            evolver.step()
            grown = (evolver.masks["layer1"] & ~before).view(-1).nonzero().view(-1)
            free = (~before).view(-1).nonzero().view(-1)
            assert len(grown) > 5
            lives.append((grown.tolist(), free[: len(grown)].tolist()))
        return lives

    first, second, other = run(1), run(1), run(2)
    assert first == second
    assert first != other
    # Equal scores do not lead to the lowest positions.
    assert all(grown != lowest for grown, lowest in first[:4])
    messages = [
        text
        for text in warnings(caplog)
        if f"layer layer1: its {growth} is 0 at all free positions (a dead layer?)" in text
    ]
    assert len(messages) == 3  # once per run, not at every update
    assert all(text.startswith("iteration 1: ") for text in messages)


# --- replaced weights ------------------------------------------------------------------


def replace(model):
    model.layer0.weight = nn.Parameter(model.layer0.weight.detach().clone())


def assign(model):
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def normalise(model):
    nn.utils.parametrizations.weight_norm(model.layer0)


def cut(model):
    model.layer0.weight.data = model.layer0.weight.data[:4].clone()


def move(model):
    model.to("meta")  # a parameter cannot move there in place, in contrast to a GPU


@pytest.mark.parametrize(
    ("change", "value", "limit"),
    [
        (replace, None, None),
        (assign, None, None),
        (normalise, None, None),
        (cut, (4, 12), (9, 12)),
        (move, None, None),
    ],
)
def test_a_weight_that_was_replaced_is_noticed_at_the_next_step(change, value, limit):
    model = mlp()
    evolver = evolver_of(model, sgd(model), growth="random")
    change(model)
    with refused(ConfigError, "mismatch", layer="layer0", value=value, limit=limit):
        evolver.step()


def test_a_weight_that_moved_is_named():
    layer = find_layers(mlp())["layer0"]
    with refused(ConfigError, "mismatch", layer="layer0", value="cpu", limit="meta"):
        layer.check(torch.Size((9, 12)), torch.device("meta"))


def test_weights_loaded_midway_are_masked_at_once_or_by_the_next_step():
    model = mlp()
    dense = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = sgd(model)
    evolver = evolver_of(model, optimizer)
    for i in range(3):
        train_step(model, optimizer, i)
        evolver.step()
    model.load_state_dict(dense)
    evolver.apply_masks()
    for name, mask in evolver.masks.items():
        assert torch.equal(model.get_submodule(name).weight, dense[f"{name}.weight"] * mask)
    model.load_state_dict(dense)
    train_step(model, optimizer, 3)
    assert moved(evolver.step()) > 0
    assert all(not w[~evolver.masks[name]].any() for name, w in weights(model).items())
