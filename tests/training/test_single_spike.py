"""Training of networks whose neurons fire once, where it differs from other networks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esl_lava import modelfile
from esl_lava.config import Experiment, to_toml
from esl_lava.data.datasets import Images, load
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.one_spike import SingleSpikeMLP, grid_step
from esl_lava.models.restore import restore
from esl_lava.topology import describe
from esl_lava.training.evaluation import examine
from esl_lava.training.kinds import KINDS, input_times
from esl_lava.training.trainer import Trainer
from tests.faults import refused
from tests.training.test_trainer import SAMPLES, same_model, stopped
from tests.training.test_trainer import experiment as multi_spike

KIND = KINDS["single_spike"]


def experiment(**sections: Any) -> Experiment:
    ours: dict[str, Any] = {
        "encoding": {"kind": "two_times", "steps": 63},
        "model": {
            "kind": "single_spike",
            "current_decay": 0.04,
            "weight_scale": 1.0,
        },
    }
    for name, given in sections.items():
        ours[name] = ours.get(name, {}) | given
    return multi_spike(**ours)


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(SAMPLES)


@pytest.fixture(scope="module")
def trained(data: Images) -> tuple[Trainer, SavedModel]:
    trainer = Trainer(experiment(), data)
    return trainer, trainer.run()


def test_inputs_spike_at_times_of_the_grid() -> None:
    images = np.array([[0, 127, 128, 255]], np.uint8)
    data = Images("one", images, np.array([0]), 2, (2, 2))
    late = math.exp(42 * grid_step(0.04))
    expected = torch.tensor([[late, late, 1, 1]], dtype=torch.float32)
    assert torch.equal(input_times(experiment(), data), expected)
    by_brightness = experiment(encoding={"kind": "latency", "steps": 3})
    step = grid_step(0.04)
    expected = torch.tensor([[math.inf, math.exp(step), math.exp(step), 1]])
    assert torch.equal(input_times(by_brightness, data), expected.float())


def test_the_first_spike_decides() -> None:
    z = torch.tensor([[3, 2, 5], [math.inf, 4, 4], [math.inf] * 3])
    assert KIND.decide(z).tolist() == [1, 1, -1]


def test_no_spike_is_wrong(data: Images) -> None:
    model = SingleSpikeMLP(describe("4", (64,), 10))
    with torch.no_grad():
        model.readout.weight.fill_(-1)
    assert examine(experiment(), model, data).accuracy == 0


@pytest.mark.slow
def test_the_network_learns(trained: tuple[Trainer, SavedModel], data: Images) -> None:
    trainer, _ = trained
    assert trainer.history[-1].loss < trainer.history[0].loss
    longer = experiment(training={"epochs": 40, "learning_rate": 0.01}, model={"layers": "40"})
    model = restore(Trainer(longer, data).run())
    assert examine(longer, model, data).accuracy > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 5, 6])
def test_resumed_is_as_uninterrupted(
    data: Images, trained: tuple[Trainer, SavedModel], tmp_path: Path, after: int
) -> None:
    path = tmp_path / "checkpoint.pt"
    modelfile.write(stopped(Trainer(experiment(), data), after).checkpoint(), path)
    resumed = Trainer(experiment(), data, modelfile.read(path))
    assert same_model(resumed.run(), trained[1])
    assert same_model(resumed.checkpoint(), trained[0].checkpoint())


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random_unfired", "momentum", "gradient"])
def test_the_evolver_keeps_its_counts(data: Images, growth: str) -> None:
    trainer = Trainer(experiment(sparsity={"growth": growth, "t_iter": 1}), data)
    start = trainer.evolver.connections()
    assert list(trainer.evolver.masks) == ["hidden1", "hidden2"]

    def check(progress: object) -> None:
        assert trainer.evolver.connections() == start
        for name, mask in trainer.evolver.masks.items():
            assert not trainer.model.get_submodule(name).weight[~mask].any()

    trainer.run(check)
    assert any(layer.grown for update in trainer.evolver.history for layer in update.layers)


def test_silent_neurons_are_recorded_after_an_update(data: Images) -> None:
    trainer = Trainer(experiment(sparsity={"t_iter": 2}), data)
    with torch.no_grad():  # one without excitation, one that fires after the last step
        trainer.model.hidden1.weight[0] = -1.0
        trainer.model.hidden1.weight[1] = 1.001 / 64
    inputs = KIND.encode(trainer.experiment, trainer.train_data)
    fired = KIND.count_spikes(trainer.experiment, trainer.model.layer_outputs(inputs))
    assert not fired[0][:2].any()
    assert 0 < fired[0].max() <= len(trainer.train_data)  # once in a sample
    stopped(trainer, 3)
    silent = trainer.evolver.history[0].silent
    assert silent is not None
    assert list(silent) == ["hidden1", "hidden2"]
    assert silent["hidden1"] >= 1


def test_initial_weights_sum_alike_whatever_the_density(data: Images) -> None:
    for density in (0.25, 1.0):
        model = Trainer(experiment(sparsity={"density": density}), data).model
        sums = model.hidden1.weight.sum(1)
        assert 2.5 < float(sums.detach().mean()) < 5.5
        assert (model.hidden1.weight >= 0).all()


def test_a_saved_model_is_restored(
    trained: tuple[Trainer, SavedModel], data: Images, tmp_path: Path
) -> None:
    modelfile.write(trained[1], tmp_path / "model.pt")
    saved = modelfile.read(tmp_path / "model.pt")
    model = restore(saved)
    assert isinstance(model, SingleSpikeMLP)
    assert set(saved.weights) == {"hidden1.weight", "hidden2.weight", "readout.weight"}
    best = max(entry["validation_accuracy"] for entry in saved.history)
    assert examine(experiment(), model, trained[0].validation_data).accuracy == best


def test_weights_of_another_kind_are_refused(trained: tuple[Trainer, SavedModel]) -> None:
    saved = trained[1]
    parts = (saved.weights, saved.masks, saved.ever)
    with refused(FileError, "mismatch", key=None, layer=None):
        restore(SavedModel(to_toml(multi_spike()), *parts))
    wide = {**saved.weights, "hidden2.weight": np.zeros((8, 11), np.float32)}
    with refused(FileError, "mismatch", value=(8, 11), limit=(8, 10), layer="hidden2"):
        restore(SavedModel(saved.config, wide, *parts[1:]))
    masks = {"hidden1": ~saved.masks["hidden1"]}
    with refused(FileError, "damaged", limit=0, layer="hidden1"):
        restore(SavedModel(saved.config, saved.weights, masks, {}))


@pytest.mark.slow
def test_shifted_images_are_new_in_every_epoch_and_resumed_alike(data: Images) -> None:
    settings = experiment(training={"shift": 1})
    trainer = Trainer(settings, data)
    seen: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0]) if torch.is_grad_enabled() else None
    )
    model = trainer.run()
    batches = [len(batch) for batch in seen]
    assert batches == [30, 30, 12] * 3
    rows = [sample.numpy().tobytes() for batch in seen for sample in batch]
    originals = {x.numpy().tobytes() for x in input_times(settings, trainer.train_data)}
    kept = sum(row in originals for row in rows)
    assert 0 < kept < len(rows) / 3  # one in nine stays where it is
    checkpoint = stopped(Trainer(settings, data), 4).checkpoint()
    assert same_model(Trainer(settings, data, checkpoint).run(), model)
