import pytest

from esl_lava.config import Experiment, override
from esl_lava.data.datasets import Images, load
from esl_lava.errors import ConfigError
from esl_lava.experiments.baselines import METHODS, by_method
from esl_lava.models.config import to_notation
from esl_lava.training.trainer import Trainer
from tests.faults import refused


@pytest.fixture(scope="module")
def data() -> Images:
    return load("digits", "train").take(300)


def connections(experiment: Experiment, data: Images) -> int:
    return sum(Trainer(experiment, data).evolver.connections().values())


@pytest.mark.slow
def test_static_starts_with_the_same_masks_and_keeps_them(
    experiment: Experiment, data: Images
) -> None:
    rewired, static = (Trainer(by_method(experiment, m), data) for m in ("esl", "static"))
    start = {name: mask.clone() for name, mask in static.evolver.masks.items()}
    assert all(bool((start[name] == rewired.evolver.masks[name]).all()) for name in start)
    rewired.run()
    static.run()
    assert all(bool((start[name] == static.evolver.masks[name]).all()) for name in start)
    assert any(bool((start[name] != rewired.evolver.masks[name]).any()) for name in start)


def test_dense_has_every_connection(experiment: Experiment, data: Images) -> None:
    dense = by_method(experiment, "dense")
    assert connections(dense, data) == 64 * 24 + 24 * 12 + 12 * 10
    by_eps = override(experiment, {"sparsity.eps": 3.0})
    assert by_method(by_eps, "dense") == by_method(experiment, "dense")


@pytest.mark.slow
@pytest.mark.parametrize("density", [0.01, 0.1, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("hidden", [[24, 12], [40], [9, 30, 3]])
def test_small_dense_is_the_narrowest_with_as_many_parameters(
    experiment: Experiment, data: Images, density: float, hidden: list[int]
) -> None:
    sparse = override(
        experiment, {"sparsity.density": density, "model.layers": to_notation(hidden)}
    )
    small = by_method(sparse, "small-dense")
    budget = connections(sparse, data)
    assert connections(small, data) >= budget
    widths = [int(width) for width in small.model.layers.split("-")]
    widest = max(widths)
    factor = (widest - 1) / max(hidden)
    narrower = [max(1, round(n * factor)) for n in hidden]
    if widest > 1:
        narrow = override(small, {"model.layers": to_notation(narrower)})
        assert connections(narrow, data) < budget
    # Every layer shrinks by the same factor.
    assert widths == [max(1, round(n * widest / max(hidden))) for n in hidden]


@pytest.mark.slow
def test_pruned_ends_with_the_density_of_the_experiment(
    experiment: Experiment, data: Images
) -> None:
    pruned = by_method(experiment, "pruned")
    assert pruned.sparsity.dense_epochs == 2
    trainer = Trainer(pruned, data)
    model = trainer.run()
    densities = [entry["density"] for entry in model.history]
    sparse = connections(experiment, data) / (64 * 24 + 24 * 12 + 12 * 10)
    assert densities == [1.0, sparse, sparse, sparse]  # the last step of epoch 2 prunes
    assert trainer.evolver.connections() == Trainer(experiment, data).evolver.connections()


def test_baselines_ignore_a_dense_phase_of_the_experiment(experiment: Experiment) -> None:
    phased = override(experiment, {"sparsity.dense_epochs": 3})
    for method in ("static", "dense", "small-dense", "pruned"):
        assert by_method(phased, method) == by_method(experiment, method)


def test_pruned_needs_two_epochs(experiment: Experiment) -> None:
    with refused(ConfigError, "range", key="training.epochs", value=1, limit=2):
        by_method(override(experiment, {"training.epochs": 1}), "pruned")


def test_a_method_changes_neither_data_nor_training(experiment: Experiment) -> None:
    for name in METHODS:
        changed = by_method(experiment, name)
        for part in ("seed", "data", "encoding", "training"):
            assert getattr(changed, part) == getattr(experiment, part)


def test_an_unknown_method_is_refused(experiment: Experiment) -> None:
    with refused(
        ConfigError,
        "unknown",
        key="method",
        value="lottery",
        limit="esl, static, dense, small-dense, pruned",
    ):
        by_method(experiment, "lottery")
