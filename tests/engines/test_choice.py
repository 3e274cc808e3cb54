"""The engines train the same network, from the same weights, with the same masks."""

import itertools
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment, from_mapping
from esl_lava.data.datasets import Images, load
from esl_lava.engines import fused
from esl_lava.engines.choice import choose_stored
from esl_lava.engines.slayer import slayer
from esl_lava.errors import ConfigError, DataError
from esl_lava.export.lower import lower
from esl_lava.models.restore import densified, restore
from esl_lava.models.stored import trained_layers
from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.evolver import sparse_weights, weight_layers
from esl_lava.topology import LAYER_KINDS, describe
from esl_lava.training.evaluation import examine
from esl_lava.training.trainer import Trainer
from tests.faults import refused
from tests.training.test_single_spike import experiment as single_spike
from tests.training.test_trainer import experiment, same, same_model, stopped


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(80)


def by(engine: str, **sections: Any) -> Experiment:
    training = {"engine": engine, **sections.pop("training", {})}
    return experiment(training=training, **sections)


def stored(experiment: Experiment) -> tuple[str, ...]:
    """Return the layers that store only connections, for data with 64 inputs and 10 classes."""
    topology = experiment.model.describe((64,), 10)
    return choose_stored(experiment.training.engine, topology, experiment.sparsity)


def dense_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the weights of every layer, (n_post, n_pre)."""
    saved = densified(trainer.checkpoint())
    return {
        name: torch.from_numpy(saved.weights[f"{name}.synapse.weight"]).flatten(1)
        for name in weight_layers(trainer.model)
    }


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random", "random_unfired", "gradient", "momentum"])
def test_engines_start_alike_and_stay_close(data: Images, growth: str) -> None:
    """Initial weights, masks and losses are equal. Then gradients differ by the order of sums."""
    trainers = {
        engine: Trainer(by(engine, sparsity={"growth": growth}), data)
        for engine in ("slayer", "fused", "sparse")
    }
    start = {engine: dense_weights(trainer) for engine, trainer in trainers.items()}
    for engine in ("fused", "sparse"):
        assert same(start[engine], start["slayer"])
    for trainer in trainers.values():
        stopped(trainer, 1)
    losses = {trainer._losses[0] for trainer in trainers.values()}
    assert len(losses) == 1
    after = {engine: dense_weights(trainer) for engine, trainer in trainers.items()}
    for engine, name in itertools.product(("fused", "sparse"), start["slayer"]):
        # Adam's first step has the size of the learning rate, even for a tiny gradient.
        moved = after["slayer"][name] - start["slayer"][name]
        difference = (after[engine][name] - after["slayer"][name]).abs()
        assert (difference <= 1e-4 * moved.abs().max()).float().mean() > 0.99


def test_blocks_are_the_engines(data: Images) -> None:
    kinds = {
        engine: [type(block).__module__ for block in Trainer(by(engine), data).model.children()]
        for engine in ("slayer", "fused", "sparse")
    }
    assert kinds["slayer"] == [slayer.block.cuba.__name__] * 3
    assert kinds["fused"] == [fused.__name__] * 3
    assert kinds["sparse"] == ["esl_lava.engines.sparse"] * 2 + [fused.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random", "momentum"])
def test_a_sparse_run_goes_on_to_the_same_bits(data: Images, tmp_path, growth: str) -> None:
    run = by("sparse", sparsity={"growth": growth})
    whole = Trainer(run, data)
    expected = whole.run()
    for after in (1, 4, 8):
        halted = stopped(Trainer(run, data), after)
        modelfile.write(halted.checkpoint(), tmp_path / "checkpoint.pt")
        saved = modelfile.read(tmp_path / "checkpoint.pt")
        again = Trainer(run, data, saved)
        assert same_model(again.run(), expected)
        assert same(again.checkpoint().state, whole.checkpoint().state)


def test_no_tensor_of_a_sparse_layers_size_is_saved(data: Images) -> None:
    trainer = Trainer(by("sparse", model={"layers": "64-64"}, sparsity={"density": 0.05}), data)
    stopped(trainer, 3)
    saved = trainer.checkpoint()
    assert saved.masks == {}
    assert set(saved.ever) == {"hidden1", "hidden2"}

    def largest(value: object) -> int:
        if isinstance(value, np.ndarray):
            return value.nbytes
        if isinstance(value, dict):
            value = list(value.values())
        return max(map(largest, value), default=0) if isinstance(value, list) else 0

    bitmap = 64 * 64 // 8
    generators = saved.state["evolver"].pop("generators")
    assert largest(saved.ever) <= bitmap
    biggest = max(weight.values.nbytes for weight in sparse_weights(trainer.model).values())
    readout = 64 * 10 * 4
    assert largest([saved.weights, saved.state]) <= max(biggest, readout, 65 * 8)
    assert generators


@pytest.mark.slow
def test_a_sparse_model_is_exported_as_its_dense_form(data: Images, tmp_path) -> None:
    saved = Trainer(by("sparse"), data).run()
    modelfile.write(saved, tmp_path / "model.pt")
    saved = modelfile.read(tmp_path / "model.pt")
    dense = densified(saved)
    networks = [lower(trained_layers(model)) for model in (saved, dense)]
    assert netfile.digest(networks[0]) == netfile.digest(networks[1])
    assert networks[0].density < 0.6
    found = [examine(by("sparse"), restore(model), data).accuracy for model in (saved, dense)]
    assert found[0] == found[1]
    for name, ever in dense.ever.items():
        assert (ever | ~dense.masks[name]).all()
        assert ever.sum() > dense.masks[name].sum()  # masks moved


def test_auto_chooses_by_density_and_says_so(data: Images, caplog) -> None:
    settings = by(
        "auto",
        model={"layers": "400-400"},
        sparsity={"density": None, "densities": {"hidden1": 0.05, "hidden2": 0.9}},
    )
    with caplog.at_level(logging.INFO):
        assert stored(settings) == ("hidden1",)
    assert "sparse hidden1, 64 x 400 at density 0.05" in caplog.text
    assert "fused hidden2, 400 x 400 at density 0.9" in caplog.text
    for hidden, expected in ((100, ("hidden1",)), (5000, ())):
        wide = by("auto", model={"layers": str(hidden)}, sparsity={"density": 0.25})
        assert stored(wide) == expected


def test_auto_stores_kernels_where_their_network_gains() -> None:
    """The layers have 18,432, 147,456 and 1,179,648 positions, the matrix has 655,360."""
    topology = describe("32C3-64C3-256C3-512C3-AP2-AP2-20", (3, 32, 32), 10, LAYER_KINDS)
    found = {
        density: choose_stored(
            "auto",
            topology,
            Sparsity(density=density, distribution="uniform", keep_dense=("conv1", "readout")),
            normalised=True,
        )
        for density in (0.01, 0.09, 0.15, 0.25)
    }
    assert found == {
        0.01: ("conv3", "conv4", "hidden1"),
        0.09: ("conv3", "conv4"),
        0.15: ("conv4",),
        0.25: (),
    }


@pytest.mark.parametrize(
    ("sparsity", "reason"),
    [
        ({"growth": "momentum"}, "growth momentum needs every step's dense gradient"),
        ({"dense_epochs": 1}, "dense_epochs needs dense weights"),
    ],
)
def test_auto_keeps_layers_dense_if_growth_needs_it(caplog, sparsity, reason) -> None:
    with caplog.at_level(logging.INFO):
        assert stored(by("auto", sparsity=sparsity)) == ()
    assert reason in caplog.text


def test_a_dense_phase_needs_dense_weights(data: Images) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(by("sparse", sparsity={"dense_epochs": 1}), data)
    assert "hidden1" in str(caught.value)


def test_neurons_that_fire_once_have_no_engines() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(
            {
                "encoding": {"kind": "latency", "steps": 8},
                "model": {
                    "kind": "single_spike",
                    "current_decay": 0.25,
                },
                "sparsity": {"density": 0.5},
                "training": {"engine": "sparse"},
            }
        )
    assert "training.engine" in str(caught.value)


def test_each_engine_has_its_adam(data: Images) -> None:
    in_one_pass = torch.__version__ >= "2.4"
    for engine, fuses in (("slayer", False), ("fused", in_one_pass), ("sparse", in_one_pass)):
        assert bool(Trainer(by(engine), data).optimizer.defaults["fused"]) == fuses
    assert not Trainer(single_spike(), data).optimizer.defaults["fused"]


def test_a_checkpoint_of_other_sparse_weights_is_refused(data: Images) -> None:
    trainer = stopped(Trainer(by("sparse"), data), 2)
    for key, wrong in (
        ("pre", lambda t: t[::-1].copy()),
        ("starts", lambda t: t + 1),
        ("sides", lambda t: t + 1),
        ("values", lambda t: t[1:]),
    ):
        saved = trainer.checkpoint()
        name = f"hidden1.synapse.weight.{key}"
        weights = {**saved.weights, name: wrong(saved.weights[name])}
        saved = replace(saved, weights=weights)
        with refused(DataError, "mismatch") as caught:
            Trainer(by("sparse"), data, saved)
        assert "hidden1" in str(caught.value)


def test_a_checkpoint_of_another_record_of_past_connections_is_refused(data: Images) -> None:
    trainer = stopped(Trainer(by("sparse"), data), 2)
    for wrong in (
        np.array([9, 1, 20]),
        np.array([0, 1 << 40]),
        np.zeros(3, np.uint8),
        np.zeros((64, 10), np.bool_),
    ):
        saved = trainer.checkpoint()
        spoilt = replace(saved, ever={**saved.ever, "hidden1": wrong})
        with refused(DataError, "mismatch", key="ever", layer="hidden1"):
            Trainer(by("sparse"), data, spoilt)
