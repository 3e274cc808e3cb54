import copy
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esl_lava import modelfile
from esl_lava.arrays import Array
from esl_lava.config import Experiment, from_mapping
from esl_lava.data.datasets import Images, load
from esl_lava.data.encoders import encode
from esl_lava.errors import ConfigError, DataError, UserError
from esl_lava.modelfile import SavedModel
from esl_lava.models.restore import restore
from esl_lava.results.firing import layer_firing
from esl_lava.topology import describe
from esl_lava.training import evaluation
from esl_lava.training import trainer as training
from esl_lava.training.checkpoint import learning_rate
from esl_lava.training.evaluation import Examination, examine
from esl_lava.training.kinds import KINDS
from esl_lava.training.trainer import Trainer, TrainingProgress
from tests.faults import refused

SAMPLES = 80  # 8 held back; 72 in batches of 30: 30, 30, 12
STEPS_PER_EPOCH = 3
ITERATIONS = 9


def images(samples: object) -> Any:
    assert isinstance(samples, Images)
    return samples.images


def experiment(**sections: Any) -> Experiment:
    values: dict[str, Any] = {
        "seed": 3,
        "encoding": {"steps": 3},
        "model": {"layers": "10-8", "weight_scale": 3.0},
        "sparsity": {"density": 0.4, "t_iter": 2},
        "training": {"epochs": 3, "batch_size": 30, "learning_rate": 0.02},
    }
    for name, given in sections.items():
        values[name] = values.get(name, {}) | given if isinstance(given, dict) else given
    return from_mapping(values)


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(SAMPLES)


def same(a: object, b: object) -> bool:
    """Return whether nested containers, arrays and tensors are exactly equal, with dtypes."""
    if isinstance(a, np.ndarray | torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def same_model(a: SavedModel, b: SavedModel) -> bool:
    return all(
        same(getattr(a, part), getattr(b, part))
        for part in ("weights", "masks", "ever", "history", "state")
    )


def stop_at(progress: TrainingProgress, iteration: int) -> None:
    if progress.iteration == iteration:
        raise KeyboardInterrupt


def stopped(trainer: Trainer, after: int) -> Trainer:
    """Run a trainer until it is interrupted after this number of steps, and return it."""
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda progress: stop_at(progress, after))
    return trainer


# --- the same bits -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(data: Images) -> None:
    first = Trainer(experiment(), data)
    a = first.run()
    torch.manual_seed(99)  # the global generator does not matter
    before = torch.random.get_rng_state()
    second = Trainer(experiment(), data)
    b = second.run()
    assert same_model(a, b)
    assert same_model(first.checkpoint(), second.checkpoint())
    assert torch.equal(torch.random.get_rng_state(), before)  # training does not change it


def test_another_seed_gives_other_weights_and_masks(data: Images) -> None:
    a, b = (Trainer(experiment(seed=seed), data).checkpoint() for seed in (3, 4))
    assert not same(a.weights["readout.synapse.weight"], b.weights["readout.synapse.weight"])
    assert not same(a.masks["hidden1"], b.masks["hidden1"])


@pytest.fixture(scope="module")
def uninterrupted(data: Images, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, bytes]:
    """Return a trainer that ran to its end, and the bytes of its model.pt."""
    trainer = Trainer(experiment(), data)
    path = tmp_path_factory.mktemp("uninterrupted") / "model.pt"
    modelfile.write(trainer.run(), path)
    return trainer, path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("after", range(1, ITERATIONS + 1))
def test_resumed_after_any_step_is_as_uninterrupted(
    data: Images, uninterrupted: tuple[Trainer, bytes], tmp_path: Path, after: int
) -> None:
    reference, model_bytes = uninterrupted
    path = tmp_path / "checkpoint.pt"
    modelfile.write(stopped(Trainer(experiment(), data), after).checkpoint(), path)

    resumed = Trainer(experiment(), data, modelfile.read(path))
    assert resumed.iteration == after
    model = resumed.run()

    assert same_model(resumed.checkpoint(), reference.checkpoint())
    modelfile.write(model, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == model_bytes


@pytest.mark.parametrize("engine", ["fused", "slayer"])
def test_a_checkpoint_of_another_torch_is_resumed_with_this_ones_adam(
    data: Images, engine: str
) -> None:
    """Since 2.4 torch has a fused Adam for CPUs, and a checkpoint records which Adam it used."""
    trainer = stopped(Trainer(experiment(training={"engine": engine}), data), 2)
    ours = trainer.optimizer.param_groups[0]["fused"]
    checkpoint = trainer.checkpoint()
    checkpoint.state["optimizer"]["param_groups"][0]["fused"] = not ours
    resumed = Trainer(experiment(training={"engine": engine}), data, checkpoint)
    assert resumed.optimizer.param_groups[0]["fused"] == ours


@pytest.mark.slow
def test_resumed_before_the_first_step_and_twice(
    data: Images, uninterrupted: tuple[Trainer, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    modelfile.write(Trainer(experiment(), data).checkpoint(), path)
    for after in (2, 5):
        modelfile.write(
            stopped(Trainer(experiment(), data, modelfile.read(path)), after).checkpoint(), path
        )
    resumed = Trainer(experiment(), data, modelfile.read(path))
    resumed.run()
    assert same_model(resumed.checkpoint(), uninterrupted[0].checkpoint())


@pytest.mark.slow
def test_a_checkpoint_is_a_snapshot(data: Images, uninterrupted: tuple[Trainer, bytes]) -> None:
    trainer = stopped(Trainer(experiment(), data), 4)
    kept = trainer.checkpoint()
    before = copy.deepcopy(kept)
    trainer.run()
    assert same_model(kept, before)
    for _ in range(2):  # resuming from it does not change it
        resumed = Trainer(experiment(), data, kept)
        resumed.run()
        assert same_model(resumed.checkpoint(), uninterrupted[0].checkpoint())
    assert same_model(kept, before)


def test_a_checkpoint_is_saved_after_every_epoch(data: Images) -> None:
    saved: list[SavedModel] = []
    Trainer(experiment(), data).run(save=saved.append)
    assert [checkpoint.state["iteration"] for checkpoint in saved] == [3, 6, 9]
    assert [len(checkpoint.history) for checkpoint in saved] == [1, 2, 3]


@pytest.mark.slow
def test_a_checkpoint_is_saved_whenever_it_is_due(data: Images) -> None:
    saved: list[SavedModel] = []
    answers = iter([True, False, False, True, False, False])  # not called at the end of an epoch
    Trainer(experiment(), data).run(save=saved.append, due=lambda: next(answers))
    assert [checkpoint.state["iteration"] for checkpoint in saved] == [1, 3, 5, 6, 9]


def test_silent_neurons_are_those_of_the_first_batch_under_new_masks(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    with torch.no_grad():  # two neurons without excitation, before and after the update
        trainer.model.hidden1.synapse.weight[:2] = -1.0
        trainer.model.hidden1.synapse.weight.mul_(trainer.evolver.masks["hidden1"])
    stopped(trainer, trainer.evolver.schedule.t_iter)
    assert trainer.evolver.history[-1].silent is None
    first = trainer.iteration
    seen: list[list[torch.Tensor]] = []
    real = trainer.model.layer_outputs

    def watched(spikes: torch.Tensor) -> list[torch.Tensor]:
        seen.append(real(spikes))
        return seen[-1]

    trainer.model.layer_outputs = watched  # type: ignore[method-assign]
    stopped(trainer, first + 1)
    silent = trainer.evolver.history[0].silent
    assert silent is not None
    assert silent["hidden1"] == int((seen[0][0].sum(dim=(0, 2)) == 0).sum()) >= 2
    assert list(silent) == ["hidden1", "hidden2"]


# --- a step ------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_sample_is_used_once_an_epoch_the_last_batch_partial(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    batches: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: batches.append(inputs[0]) if torch.is_grad_enabled() else None
    )
    trainer.run()
    assert [len(batch) for batch in batches] == [30, 30, 12] * 3
    epochs = [torch.cat(batches[i : i + 3]).numpy() for i in (0, 3, 6)]
    expected = encode("rate", images(trainer.train_data), 3).swapaxes(1, 2)
    orders = []
    for epoch in epochs:
        rows = [sample.tobytes() for sample in epoch.astype(np.uint8)]
        assert sorted(rows) == sorted(sample.tobytes() for sample in expected)
        orders.append(rows)
    assert orders[0] != orders[1] != orders[2]


def in_colour(samples: int) -> Images:
    """Return different images of three channels. None is the mirror image of another."""
    draw = np.random.default_rng(5)
    pixels = draw.integers(0, 256, (samples, 3 * 4 * 5)).astype(np.uint8)
    return Images("colour", pixels, np.arange(samples) % 3, 3, (3, 4, 5))


@pytest.mark.filterwarnings("error")
def test_pixels_are_coded_directly() -> None:
    settings = experiment(encoding={"kind": "direct", "steps": 3, "bits": 4})
    trainer = Trainer(settings, in_colour(20))
    shown = trainer.kind.encode(settings, trainer.train_data.take(6))
    pixels = images(trainer.train_data.take(6)).astype(int)
    assert shown.dtype == torch.float32
    assert shown.is_contiguous()
    assert shown.tolist() == np.repeat((pixels // 16 - 8)[:, :, None], 3, axis=2).tolist()
    assert math.isfinite(float(trainer.run().history[-1]["loss"]))
    # For a convolutional network only one step is in memory.
    once = KINDS["convolutional"].encode(settings, trainer.train_data.take(6))
    assert torch.equal(once, shown)
    assert once.untyped_storage().nbytes() == 4 * pixels.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "unchanged"), [({"flip": True}, 1 / 2), ({"shift": 1}, 1 / 9), ({}, 1)]
)
def test_images_are_changed_anew_in_every_epoch_and_resumed_alike(
    how: dict[str, Any], unchanged: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = experiment(training=how | {"epochs": 4})
    given = in_colour(SAMPLES)
    shown: list[Array] = []
    encoded = Images.spikes

    def spikes(self: Images, encoding: Any) -> Array:
        if torch.is_grad_enabled():
            shown.append(self.images)
        return encoded(self, encoding)

    monkeypatch.setattr(Images, "spikes", spikes)
    trainer = Trainer(settings, given)
    model = trainer.run()
    rows = [image.tobytes() for batch in shown for image in batch]
    originals = {image.tobytes() for image in images(trainer.train_data)}
    kept = sum(row in originals for row in rows) / len(rows)
    assert len(rows) == 4 * 72
    assert abs(kept - unchanged) <= (0 if unchanged == 1 else 0.1)
    epochs = [set(rows[start : start + 72]) for start in (0, 72)]
    assert (epochs[0] == epochs[1]) == (unchanged == 1)
    first = [*shown]
    shown.clear()
    assert same_model(Trainer(settings, given).run(), model)
    assert same(shown, first)
    checkpoint = stopped(Trainer(settings, given), 4).checkpoint()
    assert same_model(Trainer(settings, given, checkpoint).run(), model)


def test_moved_images_are_mirrored_too() -> None:
    settings = experiment(training={"shift": 2, "flip": True})
    trainer = Trainer(settings, in_colour(SAMPLES))
    chosen = np.arange(30)
    generator = np.random.default_rng([settings.seed, 1, 2])
    expected = trainer.train_data.choose(chosen).shifted(2, generator).flipped(generator)
    assert same(images(trainer._batch(chosen, 1, 2)), images(expected))


def test_the_held_back_samples_are_not_trained_on(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    assert (len(trainer.train_data), len(trainer.validation_data)) == (72, 8)
    trained = {image.tobytes() for image in images(trainer.train_data)}
    assert not trained & {image.tobytes() for image in images(trainer.validation_data)}


def test_progress_counts_steps_and_means_the_loss(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    losses: list[float] = []
    shown: list[TrainingProgress] = []

    def show(progress: TrainingProgress) -> None:
        shown.append(progress)
        losses.append(trainer._losses[-1])

    trainer.run(show)
    assert [p.iteration for p in shown] == list(range(1, 10))
    assert {(p.iterations, p.epochs) for p in shown} == {(9, 3)}
    assert [p.epoch for p in shown] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert shown[0].loss == losses[0]
    assert shown[4].loss == (losses[3] + losses[4]) / 2
    assert [epoch.loss for epoch in trainer.history] == [shown[i].loss for i in (2, 5, 8)]


def test_learning_rate_by_hand() -> None:
    settings = experiment(training={"learning_rate": 0.1}).training
    assert learning_rate(settings, 0, 4) == 0.1
    assert learning_rate(settings, 2, 4) == 0.05
    assert learning_rate(settings, 4, 4) == 0.0
    # The cosine of an eighth of a turn, rounded once more or less.
    quarter = 0.05 * (1 + math.sqrt(0.5))
    assert learning_rate(settings, 1, 4) == pytest.approx(quarter, rel=1e-15)


def test_the_optimiser_steps_with_that_learning_rate(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    used: list[float] = []
    trainer.run(show=lambda progress: used.append(trainer.optimizer.param_groups[0]["lr"]))
    settings = experiment().training
    assert used == [learning_rate(settings, i, ITERATIONS) for i in range(ITERATIONS)]
    assert used[0] == 0.02
    assert used == sorted(used, reverse=True)


def test_connections_stay_as_many_and_inactive_weights_zero(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    start = trainer.evolver.connections()
    checkpoints = [trainer.checkpoint()]
    trainer.run(show=lambda progress: checkpoints.append(trainer.checkpoint()))
    assert start["hidden1"] + start["hidden2"] == 288  # 0.4 of 64 * 10 + 10 * 8
    assert start["readout"] == 80
    for checkpoint in checkpoints:
        assert list(checkpoint.masks) == ["hidden1", "hidden2"]
        for name, mask in checkpoint.masks.items():
            weight = checkpoint.weights[f"{name}.synapse.weight"]
            assert int(mask.sum()) == start[name]
            inactive = weight[~mask]
            assert not inactive.any()
            assert not np.signbit(inactive).any()  # 0, not -0
            assert (checkpoint.ever[name] | ~mask).all()
    first, last = checkpoints[0], checkpoints[-1]
    assert any(not same(first.masks[name], last.masks[name]) for name in first.masks)
    for entry in trainer.history:
        assert entry.density == (288 + 80) / (640 + 80 + 80)
        assert entry.densities == {n: c / s for (n, c), s in zip(start.items(), (640, 80, 80))}
    explored = [epoch.exploration for epoch in trainer.history]
    assert explored == sorted(explored)
    assert explored[-1] > 0.4


def test_masks_stay_after_the_end_of_rewiring(data: Images) -> None:
    trainer = Trainer(experiment(sparsity={"end": 0.5, "t_iter": 1}), data)
    masks: list[Mapping[str, Array]] = []
    trainer.run(show=lambda progress: masks.append(trainer.checkpoint().masks))
    # Eq. 2 is 0 at step round(0.5 * 9) = 4, so step 3 is the last one that rewires.
    moved = [not same(a, b) for a, b in itertools.pairwise(masks)]
    assert moved == [True, True, False, False, False, False, False, False]


def test_initial_weights_grow_as_the_fan_in_thins(data: Images) -> None:
    sparse = Trainer(
        experiment(sparsity={"density": 0.25, "distribution": "uniform"}), data
    ).checkpoint()
    dense = Trainer(
        experiment(sparsity={"density": 1.0, "distribution": "uniform"}), data
    ).checkpoint()
    plain = Trainer(
        experiment(
            sparsity={"density": 1.0, "distribution": "uniform"}, model={"weight_scale": 1.0}
        ),
        data,
    ).checkpoint()
    for name in ("hidden1", "hidden2"):
        key = f"{name}.synapse.weight"
        mask = sparse.masks[name]
        assert same(sparse.weights[key][mask], 2 * dense.weights[key][mask])
        assert same(dense.weights[key], 3 * plain.weights[key])
    key = "readout.synapse.weight"  # as SLAYER initialises it
    assert same(sparse.weights[key], plain.weights[key])


# --- the epoch that is kept --------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Make the evaluations return these validation accuracies, one in each epoch."""
    answers = iter(values)
    monkeypatch.setattr(training, "examine", lambda *arguments: Examination(next(answers), ()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.1, 0.5, 0.3, 0.2], 2),
        ([0.1, 0.5, 0.5, 0.2], 3),
        ([0.0, 0.0, 0.0, 0.0], 4),
        ([0.9, 0.1, 0.2, 0.3], 1),
    ],
)
def test_the_best_epoch_is_kept_the_latest_of_equals(
    data: Images, monkeypatch: pytest.MonkeyPatch, accuracies: list[float], kept: int
) -> None:
    scripted(monkeypatch, accuracies)
    epochs: list[SavedModel] = []
    # The training is resumed once. The checkpoint holds the best model so far.
    settings = experiment(training={"epochs": 4, "batch_size": 40})
    trainer = Trainer(settings, data)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda progress: stop_at(progress, 5), epochs.append)
    model = Trainer(settings, data, trainer.checkpoint()).run(save=epochs.append)
    assert [e.state["iteration"] for e in epochs] == [2, 4, 6, 8]
    for part in ("weights", "masks", "ever"):
        assert same(getattr(model, part), getattr(epochs[kept - 1], part))
    assert [entry["validation_accuracy"] for entry in model.history] == accuracies
    assert model.state == {}


def test_without_validation_the_last_epoch_is_kept(
    data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.3, 0.9, 0.1])  # on samples that were trained on
    trainer = Trainer(experiment(data={"validation": 0.0}), data)
    assert len(trainer.train_data) == SAMPLES
    model = trainer.run()
    last = trainer.checkpoint()
    assert same((model.weights, model.masks, model.ever), (last.weights, last.masks, last.ever))
    assert [entry["validation_accuracy"] for entry in model.history] == [None] * 3


def test_a_dense_epoch_is_not_kept(data: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.8, 0.9, 0.2, 0.3, 0.1])
    settings = experiment(
        training={"epochs": 5, "batch_size": 40}, sparsity={"dense_epochs": 3, "alpha": 0.0}
    )
    epochs: list[SavedModel] = []
    model = Trainer(settings, data).run(save=epochs.append)
    # The last step of the third epoch prunes, so the fourth epoch is the best sparse one.
    assert [entry["density"] == 1 for entry in model.history] == [True, True, False, False, False]
    assert same(model.weights, epochs[3].weights)
    assert same(model.masks, epochs[3].masks)


@pytest.mark.slow
def test_resumed_in_a_dense_phase_is_as_uninterrupted(data: Images) -> None:
    settings = experiment(sparsity={"dense_epochs": 1})
    whole = Trainer(settings, data).run()
    for after in (1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
        checkpoint = stopped(Trainer(settings, data), after).checkpoint()
        assert same_model(Trainer(settings, data, checkpoint).run(), whole)


def test_masks_that_would_never_change_are_noticed(
    data: Images, caplog: pytest.LogCaptureFixture
) -> None:
    Trainer(experiment(), data)
    Trainer(experiment(sparsity={"t_iter": 8, "alpha": 0.0}), data)  # static by configuration
    Trainer(experiment(sparsity={"t_iter": 8, "density": 1.0}), data)
    # At step 7 the cosine is 0 already.
    Trainer(experiment(sparsity={"t_iter": 7, "schedule": "constant"}), data)
    assert not caplog.records
    Trainer(experiment(sparsity={"t_iter": 7}), data)
    assert [record.message for record in caplog.records] == [
        "masks are never rewired: the first update would be after step 7 (sparsity.t_iter), "
        "but rewiring ends with step 7 (sparsity.end)"
    ]
    caplog.clear()
    Trainer(experiment(sparsity={"dense_epochs": 1}), data)  # a dense phase to step 3
    assert not caplog.records
    Trainer(experiment(sparsity={"dense_epochs": 2}), data)  # to step 6
    assert "the first update would be after step 8" in caplog.records[0].message


def test_the_kept_model_has_the_accuracy_on_record(data: Images) -> None:
    trainer = Trainer(experiment(), data)
    model = trainer.run()
    best = max(entry["validation_accuracy"] for entry in model.history)
    assert examine(experiment(), restore(model), trainer.validation_data).accuracy == best


def test_accuracy_counts_by_the_summed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", 2)
    images = np.array([[0], [255], [255], [0], [255]], np.uint8)
    data = Images("five", images, np.array([0, 1, 1, 1, 0]), 3, (1,))

    class Model(torch.nn.Module):
        """A network that decides for class 1 if a pixel is bright; if dark, classes 0 and 1 tie."""

        topology = describe("1", (1,), 3)

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def layer_outputs(self, spikes: torch.Tensor) -> list[torch.Tensor]:
            bright = spikes.amax(dim=(1, 2))[:, None, None]
            readout = torch.tensor([[[0.0, 0, 0], [-1, 2, 0], [-9, 0, 0]]]) * bright * self.scale
            return [torch.zeros_like(bright), readout]

    # Correct are the first (a tie goes to the lower class), the second and the third.
    found = examine(experiment(), Model(), data)  # type: ignore[arg-type]
    steps = experiment().encoding.steps
    assert found == Examination(3 / 5, (layer_firing("hidden1", np.zeros(1, int), 5, steps),))


# --- errors ------------------------------------------------------------------------------


def poisoned(data: Images, layer: str, value: float) -> tuple[Trainer, Callable[..., None]]:
    """Return a trainer, and a `show` that sets one of its weights to `value` after step 4."""
    trainer = Trainer(experiment(sparsity={"t_iter": 1000}), data)

    def show(progress: TrainingProgress) -> None:
        if progress.iteration == 4:
            weight = trainer.model.get_submodule(layer).synapse.weight
            with torch.no_grad():
                weight.view(-1)[weight.view(-1).nonzero()[0]] = value

    return trainer, show


def test_a_loss_that_is_not_finite_is_a_users_error(data: Images) -> None:
    trainer, show = poisoned(data, "readout", math.nan)
    fields = {"key": "training.learning_rate", "value": 0.02, "layer": "readout"}
    with refused(UserError, "not-finite", **fields) as caught:
        trainer.run(show)
    assert "loss nan at step 5, 1 of 80 weights" in str(caught.value)
    assert trainer.iteration == 4


def test_a_weight_that_is_not_finite_is_a_users_error(data: Images) -> None:
    # In the forward pass an infinite weight counts as the largest of 8 bits: the loss is finite.
    trainer, show = poisoned(data, "hidden1", math.inf)
    saved: list[SavedModel] = []
    with refused(UserError, "not-finite", layer="hidden1") as caught:
        trainer.run(show, saved.append)
    assert "1 of 232 weights" in str(caught.value)
    assert "step 6" in str(caught.value)
    assert len(saved) == 1  # no checkpoint with the infinite weight was saved


def test_nothing_to_train_on(data: Images) -> None:
    empty = Images("none", data.images[:0], data.labels[:0], 10, (8, 8))
    with refused(DataError, "range", value=0, limit=1):
        Trainer(experiment(data={"validation": 0.0}), empty)


def test_an_unknown_layer_is_named(data: Images) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(experiment(sparsity={"keep_dense": ["hidden9"]}), data)
    assert "hidden9" in str(caught.value)


def test_a_finished_model_is_no_checkpoint(
    data: Images, uninterrupted: tuple[Trainer, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(uninterrupted[1])
    with refused(DataError, "mismatch"):
        Trainer(experiment(), data, modelfile.read(path))


def edited(checkpoint: SavedModel, part: str, value: object) -> SavedModel:
    return copy.deepcopy(
        SavedModel(
            checkpoint.config,
            checkpoint.weights,
            checkpoint.masks,
            checkpoint.ever,
            checkpoint.history,
            {key: old for key, old in checkpoint.state.items() if key != part}
            | ({} if value is None else {part: value}),
        )
    )


def test_a_checkpoint_that_does_not_fit_is_refused(data: Images) -> None:
    checkpoint = stopped(Trainer(experiment(), data), 2).checkpoint()
    with refused(DataError, "mismatch", value=9, limit=6):
        Trainer(experiment(), data.take(60), checkpoint)
    wider = experiment(model={"layers": "11-8"})
    with refused(DataError, "mismatch"):
        Trainer(wider, data, checkpoint)
    for part in ("optimizer", "evolver", "losses", "best"):
        with refused(DataError, "mismatch") as caught:
            Trainer(experiment(), data, edited(checkpoint, part, None))
        assert part in str(caught.value)
    with refused(DataError, "mismatch"):
        Trainer(experiment(), data, edited(checkpoint, "optimizer", {"state": 1}))
