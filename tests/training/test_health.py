"""A network that its training has destroyed is not saved, and the error names layer and value."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from esl_lava.config import Experiment, override
from esl_lava.data.datasets import Images, load
from esl_lava.errors import ConfigError, UserError
from esl_lava.modelfile import SavedModel
from esl_lava.results.training import Epoch
from esl_lava.sparsity.evolver import weight_layers
from esl_lava.training import health
from esl_lava.training.trainer import Trainer, TrainingProgress
from tests.engines.test_choice import by
from tests.faults import refused
from tests.training.test_single_spike import experiment as single_spike
from tests.training.test_trainer import experiment, same, stopped

KINDS: dict[str, Experiment] = {
    **{engine: by(engine) for engine in ("slayer", "fused", "sparse")},
    "one spike": single_spike(),
}

every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(80)


def spoiling(
    trainer: Trainer, layer: str, after: int, value: float = math.nan
) -> Callable[[TrainingProgress], None]:
    """Return a `show` that sets the weight of a connection to `value` after this step."""

    def show(progress: TrainingProgress) -> None:
        if progress.iteration == after:
            weight = weight_layers(trainer.model)[layer].detach().view(-1)
            weight[weight.nonzero()[0]] = value

    return show


def finite(value: object) -> bool:
    """Return whether all numbers in nested containers and tensors are finite."""
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


# --- numbers that are not finite ---------------------------------------------------------


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_spoilt_checkpoint_is_not_saved(data: Images, settings: Experiment, value) -> None:
    settings = override(settings, {"sparsity.t_iter": 1000})
    trainer = Trainer(settings, data)
    saved: list[SavedModel] = []
    rate = settings.training.learning_rate
    fields = {"key": "training.learning_rate", "value": rate, "layer": "hidden2"}
    with refused(UserError, "not-finite", **fields) as caught:
        trainer.run(spoiling(trainer, "hidden2", 4, value), saved.append, lambda: True)
    assert "1 of" in str(caught.value)
    assert "step 4" in str(caught.value)
    assert [checkpoint.state["iteration"] for checkpoint in saved] == [1, 2, 3]
    assert all(finite([c.weights, c.state, c.history]) for c in saved)
    assert Trainer(settings, data, saved[-1]).iteration == 3


@pytest.mark.slow
@every_kind
def test_the_layer_that_went_first_is_named(data: Images, settings: Experiment) -> None:
    """NaN spreads to the layers before it through its gradient before the check."""
    trainer = Trainer(override(settings, {"sparsity.t_iter": 1000}), data)
    with refused(UserError, "not-finite", layer="hidden2") as caught:
        trainer.run(spoiling(trainer, "hidden2", 4))
    assert "hidden1" not in str(caught.value)


def test_masks_are_not_made_of_spoilt_weights(data: Images) -> None:
    """The evolver would check the first layer first."""
    trainer = Trainer(by("slayer", sparsity={"t_iter": 5}, training={"epochs": 9}), data)
    with refused(UserError, "not-finite", layer="hidden2") as caught:
        trainer.run(spoiling(trainer, "hidden2", 4))
    assert "step 5" in str(caught.value)


def test_a_moment_that_is_not_finite_is_refused(data: Images) -> None:
    """A weight with such a moment would never change again."""
    trainer = Trainer(experiment(sparsity={"t_iter": 1000}), data)

    def show(progress: TrainingProgress) -> None:
        if progress.iteration == 4:
            moments = trainer.optimizer.state[weight_layers(trainer.model)["hidden1"]]
            moments["exp_avg_sq"].masked_fill_(trainer.evolver.masks["hidden1"], math.inf)

    with refused(UserError, "not-finite", layer="hidden1") as caught:
        trainer.run(show, due=lambda: True)
    assert "232 of 232 exp_avg_sq" in str(caught.value)


def test_a_spoilt_checkpoint_is_not_gone_on_from(data: Images) -> None:
    saved = stopped(Trainer(experiment(), data), 2).checkpoint()
    saved.weights["readout.synapse.weight"][0] = math.nan
    with refused(UserError, "not-finite", layer="readout") as caught:
        Trainer(experiment(), data, saved)
    assert "8 of 80 weights" in str(caught.value)


@every_kind
def test_weights_that_are_infinite_from_the_start(data: Images, settings: Experiment) -> None:
    """They are refused before the first checkpoint."""
    with refused(ConfigError, "not-finite", key="model.weight_scale", value=1e39):
        Trainer(override(settings, {"model.weight_scale": 1e39}), data)


def test_a_loss_is_traced_to_outputs(data: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights are finite, but the outputs are NaN."""
    trainer = Trainer(single_spike(), data)
    real = trainer.model.readout.forward
    monkeypatch.setattr(trainer.model.readout, "forward", lambda z: real(z) * math.nan)
    with refused(UserError, "not-finite", layer="readout") as caught:
        trainer.run()
    assert "loss nan at step 1, 300 of 300 outputs" in str(caught.value)


def test_the_last_of_broken_layers_went_first() -> None:
    weights = {"a": torch.tensor([1.0, math.nan]), "b": torch.tensor([math.inf, 2.0, 0.0])}
    assert health.find_broken_layer(weights, {}, {}) == health.Defect(
        "1 of 3 weights in layer b are NaN or infinite", "b"
    )
    masks = {"b": torch.tensor([False, True, True])}
    assert health.find_broken_layer(weights, masks, {}) == health.Defect(
        "1 of 2 weights in layer a are NaN or infinite", "a"
    )
    masks["a"] = torch.tensor([True, False])
    assert health.find_broken_layer(weights, masks, {}) is None
    moments = {"a": {"exp_avg": torch.tensor([0.0, math.nan])}}
    assert health.find_broken_layer(weights, masks, moments) is None
    moments["a"]["exp_avg"][0] = -math.inf
    assert health.find_broken_layer(weights, masks, moments) == health.Defect(
        "1 of 1 exp_avg of the optimiser in layer a are NaN or infinite", "a"
    )


# --- destroyed networks with finite numbers ----------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.slow
@every_kind
def test_a_training_that_learns_warns_of_nothing(
    data: Images, settings: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(settings, data)
    trainer.run()
    assert warnings(caplog) == []
    for entry in trainer.history:
        assert entry.beyond_range == {"hidden1": 0.0, "hidden2": 0.0, "readout": 0.0}


@pytest.mark.slow
@every_kind
def test_weights_beyond_eight_bits_are_said(
    data: Images, settings: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss stays finite. The log warns once for each layer, and once about the kept model."""
    trainer = Trainer(override(settings, {"training.learning_rate": 1000.0}), data)
    model = trainer.run()
    assert finite(model.history)
    shares = model.history[0]["beyond_range"]
    assert all(share > 0.5 for share in shares.values())
    messages = warnings(caplog)
    where = {
        "multi_spike": "beyond the range of 8 bits -4..3.96875",
        "single_spike": "so large that one spike alone decides whether a neuron fires, beyond "
        "-24.9756..24.9756",
    }[settings.model.kind]
    for name, share in shares.items():
        sentence = f"{share:.1%} of the weights of layer {name} are {where} after epoch 1"
        assert messages.count(sentence) == 1
    kept = [line for line in messages if line.startswith("the model that is kept: ")]
    assert len(kept) == 3
    assert len(messages) == 6


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("validation", [0.1, 0.0])
def test_silent_layers_are_said(
    data: Images, settings: Experiment, validation: float, caplog: pytest.LogCaptureFixture
) -> None:
    settings = override(settings, {"training.learning_rate": 1e-9, "data.validation": validation})
    trainer = Trainer(settings, data)
    with torch.no_grad():
        weight_layers(trainer.model)["hidden2"].abs_().neg_()  # no neuron gets excitation
    model = trainer.run()
    silent = model.history[-1]["silent"]
    assert silent["hidden2"] == 8
    assert silent["hidden1"] < 10
    messages = warnings(caplog)
    whose = "validation" if validation else "training"
    sentence = f"all 8 neurons of layer hidden2 were silent on every {whose} sample evaluated after"
    assert [line for line in messages if line.startswith(sentence)] == [f"{sentence} epoch 1"]
    assert f"the model that is kept: {sentence} epoch 3" in messages


def test_saturated_layers_are_said(data: Images, caplog: pytest.LogCaptureFixture) -> None:
    settings = experiment(training={"learning_rate": 1e-9}, model={"threshold": 1 / 64})
    trainer = Trainer(settings, data)
    with torch.no_grad():  # one spike makes a neuron fire, and each step has spikes
        for weight in weight_layers(trainer.model).values():
            weight.abs_()
    model = trainer.run()
    last = model.history[-1]
    assert last["saturated"] == {"hidden1": 10, "hidden2": 8}
    assert last["rates"] == {"hidden1": 1, "hidden2": 1}
    assert last["silent"] == {"hidden1": 0, "hidden2": 0}
    sentences = [
        f"all {number} neurons of layer {name} fired at every step of every validation sample "
        "evaluated after epoch"
        for name, number in last["saturated"].items()
    ]
    assert warnings(caplog) == [f"{sentence} 1" for sentence in sentences] + [
        f"the model that is kept: {sentence} 3" for sentence in sentences
    ]


@pytest.mark.slow
def test_a_resumed_run_does_not_repeat_warnings(
    data: Images, caplog: pytest.LogCaptureFixture
) -> None:
    settings = experiment(training={"learning_rate": 1000.0})
    whole = Trainer(settings, data).run()
    caplog.clear()
    checkpoint = stopped(Trainer(settings, data), 4).checkpoint()
    first = warnings(caplog)
    resumed = Trainer(settings, data, checkpoint).run()
    assert same(resumed.history, whole.history)
    after = warnings(caplog)[len(first) :]
    assert len(first) == 3
    assert all(line.startswith("the model that is kept") for line in after)


def test_warnings_about_a_record() -> None:
    entry = Epoch(2, 1.0, 0.1, 0.2, {}, 0.2)
    known = ({"hidden1": 3, "readout": 2}, "beyond 1..2")
    assert health.list_warnings(entry, *known) == {}  # a record of an older version
    shares = {"hidden1": 0.1, "readout": 0.25}
    entry = replace(entry, silent={"hidden1": 2}, beyond_range=shares)
    assert list(health.list_warnings(entry, *known).values()) == [
        "25.0% of the weights of layer readout are beyond 1..2 after epoch 2"
    ]
    entry = replace(entry, saturated={"hidden1": 2})
    assert list(health.list_warnings(entry, *known)) == ["beyond readout"]
    constant = replace(entry, saturated={"hidden1": 3}, beyond_range={})
    assert health.list_warnings(constant, *known) == {
        "saturated hidden1": "all 3 neurons of layer hidden1 fired at every step of every "
        "validation sample evaluated after epoch 2"
    }
    entry = replace(entry, saturated={}, silent={"hidden1": 3})
    assert list(health.list_warnings(entry, *known)) == ["silent hidden1", "beyond readout"]


def test_shares_beyond_a_range_are_of_connections() -> None:
    weights = {"a": torch.tensor([0.0, 5.0, -3.0, -4.5]), "b": torch.tensor([4.0])}
    masks = {"a": torch.tensor([False, True, True, True])}
    assert health.measure_beyond_range(weights, masks, (-4, 4)) == {"a": 2 / 3, "b": 0.0}


def test_checking_changes_nothing(data: Images) -> None:
    trainer = stopped(Trainer(experiment(), data), 4)
    before = copy.deepcopy(trainer.checkpoint())
    trainer._refuse_not_finite(4)
    assert same(before.weights, trainer.checkpoint().weights)
    assert same(before.state, trainer.checkpoint().state)
