import json
from pathlib import Path

import pytest

from esl_lava.config import Experiment, from_toml, override
from esl_lava.errors import ConfigError, UserError
from esl_lava.experiments import figures, scales
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.figures import Design
from esl_lava.experiments.scales import Part, Setting
from esl_lava.experiments.sweep import sweep
from esl_lava.results.sweep import Outcome, Sweep, SweepRow
from esl_lava.results.table2 import PUBLISHED
from esl_lava.values import as_values
from tests.faults import refused


def test_fig2_varies_eps(experiment: Experiment) -> None:
    figure = figures.fig2(experiment, [10.0, 60.0], [1, 2])
    assert [cell.name for cell in figure.cells] == [
        "eps-10_seed-1",
        "eps-10_seed-2",
        "eps-60_seed-1",
        "eps-60_seed-2",
    ]
    for cell in figure.cells:
        assert cell.experiment.sparsity.density is None
        assert cell.experiment.sparsity.eps == cell.settings["eps"]


def test_fig4_varies_rules_and_densities(experiment: Experiment) -> None:
    figure = figures.fig4(experiment, ["set", "magnitude"], ["random", "gradient"], [0.1, 0.2], [3])
    assert len(figure.cells) == 8
    assert len({cell.name for cell in figure.cells}) == 8
    for cell in figure.cells:
        sparsity = cell.experiment.sparsity
        varied = {"density": sparsity.density, "prune": sparsity.prune, "growth": sparsity.growth}
        assert cell.settings == varied


def test_fig4_trains_the_dense_network_once(experiment: Experiment) -> None:
    """At density 1 the rules have no effect."""
    figure = figures.fig4(experiment, ["set", "magnitude"], ["random"], [1.0, 0.1], [3, 4])
    assert [cell.name for cell in figure.cells] == [
        "density-1_prune-none_growth-none_seed-3",
        "density-1_prune-none_growth-none_seed-4",
        "density-0.1_prune-set_growth-random_seed-3",
        "density-0.1_prune-set_growth-random_seed-4",
        "density-0.1_prune-magnitude_growth-random_seed-3",
        "density-0.1_prune-magnitude_growth-random_seed-4",
    ]
    assert figure.cells[1].experiment == override(by_method(experiment, "dense"), {"seed": 4})


def test_fig3_varies_density_by_the_papers_rules(experiment: Experiment) -> None:
    figure = figures.fig3(experiment, [0.3, 1.0], 0.1, [1, 2])
    assert [cell.name for cell in figure.cells] == [
        "density-0.3_growth-random_unfired_redistribution-none_seed-1",
        "density-0.3_growth-random_unfired_redistribution-none_seed-2",
        "density-1_growth-random_unfired_redistribution-none_seed-1",
        "density-1_growth-random_unfired_redistribution-none_seed-2",
        "density-0.1_growth-momentum_redistribution-momentum_seed-1",
        "density-0.1_growth-momentum_redistribution-momentum_seed-2",
    ]
    for cell in figure.cells:
        sparsity = cell.experiment.sparsity
        varied = {
            "density": sparsity.density,
            "growth": sparsity.growth,
            "redistribution": sparsity.redistribution,
        }
        assert cell.settings == varied
        assert sparsity.prune == "set"


PART = Part("small", 0.25, Setting("digits", {"model.layers": "8"}, "A remark."))


def test_table2_trains_every_part_dense_and_sparse() -> None:
    design = figures.table2([PART], {"training.epochs": 2}, [1, 2])
    assert [cell.name for cell in design.cells] == [
        "part-small_density-1_seed-1",
        "part-small_density-1_seed-2",
        "part-small_density-0.25_seed-1",
        "part-small_density-0.25_seed-2",
    ]
    sparse = design.cells[3].experiment
    assert (sparse.training.epochs, sparse.model.layers, sparse.seed) == (2, "8", 2)
    assert sparse.sparsity.density == 0.25
    dense = override(by_method(sparse, "dense"), {"seed": 1})
    assert design.cells[0].experiment == dense
    assert design.remarks == (
        "A remark.",
        "Settings that replace those of this scale and of the sentences above: "
        "training.epochs = 2.",
    )
    assert figures.table2([PART], {}, [1]).remarks == ("A remark.",)


def test_table2_compares_with_the_dense_network_of_the_same_seeds(tmp_path: Path) -> None:
    design = figures.table2([PART], {}, [1, 2, 3])

    def outcome(accuracy: float) -> Outcome:
        return Outcome(accuracy, None, 10, 0.5, 0.25, 0.5, 100.0, weights=7)

    dense = SweepRow.of(
        {"part": "small", "density": 1.0}, [1, 3], [outcome(0.75), outcome(0.5)]
    )  # seed 2 failed
    sparse = SweepRow.of(
        {"part": "small", "density": 0.25}, [2, 3], [outcome(0.25), outcome(0.375)]
    )
    results = design.complete(Sweep("table2", None, [dense, sparse], ["..."]), tmp_path)
    assert results.published == PUBLISHED
    first, second = results.trained
    assert (first.part, first.dataset, first.layers) == ("small", "digits", "8")
    assert (first.density, first.weights, first.accuracy, first.loss) == (1.0, 7, 0.625, None)
    assert (second.density, second.accuracies, second.loss) == (0.25, (0.25, 0.375), 0.125)
    incomplete = design.complete(Sweep("table2", None, [sparse], ["..."]), tmp_path)
    assert incomplete.trained[0].loss is None  # the dense network is missing


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_the_experiments_of_every_scale_exist(scale: str) -> None:
    settings = [part.setting for part in scales.TABLE2[scale]]
    for setting in (*settings, scales.FIG3[scale], scales.FIG4[scale]):
        assert setting.experiment().model.kind == "convolutional"
    design = figures.table2(scales.TABLE2[scale], {}, [1])
    assert len({cell.name for cell in design.cells}) == 2 * len(settings)
    expected = {"key": "--scale", "value": "large", "limit": "small, paper"}
    with refused(ConfigError, "unknown", **expected):
        scales.check_scale("large")


def test_baselines_vary_the_method(experiment: Experiment) -> None:
    figure = figures.baselines(experiment, ["esl", "static"], [1, 2])
    assert [cell.name for cell in figure.cells][1:3] == [
        "method-esl_seed-2",
        "method-static_seed-1",
    ]
    static = by_method(experiment, "static")
    assert figure.cells[3].experiment == override(static, {"seed": 2})


@pytest.fixture
def quick(experiment: Experiment) -> Experiment:
    return override(
        experiment, {"training.epochs": 2, "model.layers": "8", "training.batch_size": 200}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fig2", "fig3", "fig4", "baselines"])
def test_a_figure_writes_its_rows_and_its_picture(
    quick: Experiment, name: str, tmp_path: Path
) -> None:
    designs: dict[str, Design] = {
        "fig2": figures.fig2(quick, [1.0, 2.0], [1]),
        "fig3": figures.fig3(quick, [0.2], 0.4, [1]),
        "fig4": figures.fig4(quick, ["set"], ["random"], [0.2, 0.4], [1]),
        "baselines": figures.baselines(quick, ["static", "small-dense"], [1]),
    }
    results = figures.draw(designs[name], tmp_path, lambda line: None)
    values = json.loads((tmp_path / f"{name}.json").read_text())
    assert values["figure"] == name
    assert values["failed"] == results.failed == []
    shared = quick if name != "fig3" else override(quick, {"sparsity.prune": "set"})
    assert from_toml(values["config"]) == shared
    if name == "fig3":
        assert [list(epoch) for epoch in values["densities"]] == [["hidden1", "readout"]] * 2
    assert values["rows"] == [as_values(row) for row in results.rows]
    assert len(results.rows) == 2
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    files = {path.name for path in tmp_path.iterdir()}
    names = {cell.name for cell in designs[name].cells}
    assert files == {"cells.json", f"{name}.json", f"{name}.png", *names}


@pytest.mark.slow
def test_failed_runs_are_recorded_with_the_others(
    quick: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figures.fig2(quick, [1.0, 2.0], [1])
    good, _ = sweep(figure.cells[:1], tmp_path, lambda line: None)
    monkeypatch.setattr(figures, "sweep", lambda *_: (good, ["eps-2_seed-1: diverged"]))
    results = figures.draw(figure, tmp_path, lambda line: None)
    assert (results.rows, results.failed) == (good, ["eps-2_seed-1: diverged"])
    values = json.loads((tmp_path / "fig2.json").read_text())
    assert values["failed"] == ["eps-2_seed-1: diverged"]
    assert len(values["rows"]) == 1
    monkeypatch.setattr(figures, "sweep", lambda *_: ([], ["eps-2_seed-1: diverged"]))
    with refused(UserError, "failed") as caught:
        figures.draw(figure, tmp_path / "none", lambda line: None)
    assert str(caught.value) == "eps-2_seed-1: diverged"
