"""A limit on the gradient's norm has the same effect in every engine: only connections count."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esl_lava.config import Experiment, override
from esl_lava.data.datasets import Images, load
from esl_lava.errors import UserError
from esl_lava.experiments.preset import load_preset
from esl_lava.sparsity.evolver import sparse_weights, weight_layers
from esl_lava.sparsity.weights import SparseWeight
from esl_lava.training.clipping import norms, scale_down
from esl_lava.training.trainer import Trainer
from tests.engines.test_choice import by
from tests.faults import refused
from tests.training.test_single_spike import experiment as single_spike
from tests.training.test_trainer import experiment, stopped

LIMIT = 1e-3
"""A limit below the norm of the gradient in every step of these trainings."""

OF_TORCH = 2e-3
"""Relative error: torch divides by the norm + 1e-6, which changes a thousandth, and rounds."""


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(80)


def norms_of_connections(trainer: Trainer) -> list[float]:
    """The gradient's norm over connections at each optimiser step of a whole training."""
    found: list[float] = []
    real = trainer.optimizer.step

    def step() -> None:
        masks = trainer.evolver.masks
        squares = 0.0
        for name, weight in weight_layers(trainer.model).items():
            assert weight.grad is not None
            gradient = weight.grad.double()
            squares += float((gradient[masks[name]] if name in masks else gradient).square().sum())
        found.append(math.sqrt(squares))
        real()

    trainer.optimizer.step = step  # type: ignore[assignment, method-assign]
    trainer.run()
    return found


SETTINGS: dict[str, Experiment] = {
    **{engine: by(engine) for engine in ("slayer", "fused", "sparse")},
    "a dense phase": experiment(sparsity={"dense_epochs": 1, "density": 0.1}),
    "one spike": single_spike(sparsity={"density": 0.2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_norm_is_that_of_connections(data: Images, settings: Experiment) -> None:
    assert min(norms_of_connections(Trainer(settings, data))) > 5 * LIMIT
    limited = override(settings, {"training.gradient_norm": LIMIT})
    found = norms_of_connections(Trainer(limited, data))
    assert found == pytest.approx([LIMIT] * 9, rel=OF_TORCH)


@pytest.mark.slow
def test_engines_train_the_same_function() -> None:
    """In this large network, positions without a connection would change the norm."""
    digits = load("digits", "train")
    losses = {}
    for engine in ("slayer", "fused", "sparse"):
        settings = override(
            load_preset("digits"),
            {
                "sparsity.density": 0.05,
                "training.engine": engine,
                "training.gradient_norm": 0.05,
            },
        )
        trainer = Trainer(settings, digits)
        for step in range(5):
            trainer._step(0, step)
        losses[engine] = trainer._losses
    # Gradients differ by the order of sums, so that a few weights may round differently.
    for engine in ("fused", "sparse"):
        assert losses[engine] == pytest.approx(losses["slayer"], abs=1e-4)


def named(*values: list[float]) -> dict[str, Tensor]:
    return {str(index): torch.tensor(value) for index, value in enumerate(values)}


def test_norms_by_hand() -> None:
    gradients = named([3.0, math.nan, 4.0, math.inf], [5.0, 12.0])
    masks = {"0": torch.tensor([True, False, True, False])}
    assert {name: norm.item() for name, norm in norms(gradients, masks).items()} == {
        "0": 5.0,
        "1": 13.0,
    }


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_where_all_are_connections_it_is_torchs(limit: float) -> None:
    torch.manual_seed(0)
    theirs = [nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(7))]
    for parameter in theirs:
        parameter.grad = torch.randn_like(parameter)
    gradients = {str(i): copy.deepcopy(p.grad) for i, p in enumerate(theirs)}
    masks = {"0": torch.ones(5, 3, dtype=torch.bool)}
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    together = torch.linalg.vector_norm(torch.stack(list(norms(gradients, masks).values())))
    scale_down(gradients.values(), [], together, limit)
    for parameter, gradient in zip(theirs, gradients.values()):
        assert torch.equal(parameter.grad, gradient)


def gradient_for_growth(data: Images, engine: str, limit: float) -> Tensor:
    """Return the gradient of hidden1 at every position at the first update."""
    sparsity = {"growth": "gradient", "t_iter": 1}
    settings = by(engine, training={"gradient_norm": limit}, sparsity=sparsity)
    trainer = Trainer(settings, data)
    weight: Any = trainer.model.hidden1.synapse.weight
    found: list[Tensor] = []

    def look() -> None:
        if isinstance(weight, SparseWeight):
            assert weight.dense_gradient is not None
            found.append(weight.dense_gradient(slice(0, weight.size)))
        else:
            found.append(weight.grad.flatten().clone())

    trainer.evolver.step = look  # type: ignore[method-assign]
    stopped(trainer, 1)
    return found[0]


def test_growth_sees_the_same_gradient_in_every_engine(data: Images) -> None:
    """Gradients without a connection are scaled by the same factor as the others."""
    free = ~Trainer(by("fused"), data).evolver.masks["hidden1"].flatten()
    dense = {limit: gradient_for_growth(data, "fused", limit) for limit in (0.0, LIMIT)}
    for limit, theirs in dense.items():
        stored = gradient_for_growth(data, "sparse", limit)
        # float32 sums of 90 terms in another order, also in the norm.
        atol = 100 * 2**-24 * float(theirs.abs().max())
        torch.testing.assert_close(stored[free], theirs[free], rtol=0, atol=atol)
    factor = dense[LIMIT].abs().max() / dense[0.0].abs().max()
    assert factor < 0.1
    torch.testing.assert_close(dense[LIMIT], dense[0.0] * factor)


def test_a_gradient_kept_from_an_earlier_step_is_not_scaled_again(data: Images) -> None:
    settings = by("sparse", training={"gradient_norm": LIMIT}, sparsity={"growth": "random"})
    trainer = stopped(Trainer(settings, data), 1)
    (weight, *_) = sparse_weights(trainer.model).values()
    kept = weight.dense_gradient = lambda where: torch.ones(1)
    trainer._step(0, 1)
    assert weight.dense_gradient in (kept, None)


def test_a_gradient_without_a_finite_norm_is_named(data: Images) -> None:
    """The layer nearest to the readout is named, because NaN spreads from it to earlier layers."""
    trainer = Trainer(experiment(training={"gradient_norm": 1.0}), data)
    for name in ("hidden1", "hidden2"):
        trainer.model.get_submodule(name).synapse.weight.register_hook(
            lambda gradient: torch.full_like(gradient, math.nan)
        )
    before = copy.deepcopy(trainer.model.state_dict())
    fields = {"key": "training.learning_rate", "value": 0.02, "layer": "hidden2"}
    with refused(UserError, "not-finite", **fields) as caught:
        trainer.run()
    assert "nan at step 1" in str(caught.value)
    assert all(torch.equal(before[key], now) for key, now in trainer.model.state_dict().items())
