import json
from pathlib import Path

import pytest

from esl_lava.config import Experiment, from_toml, override
from esl_lava.errors import UserError
from esl_lava.experiments import figures
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.figures import Design
from esl_lava.experiments.sweep import sweep
from esl_lava.values import as_values


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
    figure = figures.fig4(experiment, ["set", "magnitude"], ["random", "gradient"], [0.1, 1.0], [3])
    assert len(figure.cells) == 8
    assert len({cell.name for cell in figure.cells}) == 8
    for cell in figure.cells:
        sparsity = cell.experiment.sparsity
        varied = {"density": sparsity.density, "prune": sparsity.prune, "growth": sparsity.growth}
        assert cell.settings == varied


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


@pytest.mark.parametrize("name", ["fig2", "fig4", "baselines"])
def test_a_figure_leaves_its_rows_and_its_picture(
    quick: Experiment, name: str, tmp_path: Path
) -> None:
    made: dict[str, Design] = {
        "fig2": figures.fig2(quick, [1.0, 2.0], [1]),
        "fig4": figures.fig4(quick, ["set"], ["random"], [0.2, 0.4], [1]),
        "baselines": figures.baselines(quick, ["static", "small-dense"], [1]),
    }
    found = figures.draw(made[name], tmp_path, lambda line: None)
    values = json.loads((tmp_path / f"{name}.json").read_text())
    assert values["figure"] == name
    assert values["failed"] == found.failed == []
    assert from_toml(values["config"]) == quick
    assert values["rows"] == [as_values(row) for row in found.rows]
    assert len(found.rows) == 2
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{name}.json", f"{name}.png", *(cell.name for cell in made[name].cells)}


def test_what_has_failed_is_on_record_beside_what_has_not(
    quick: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figures.fig2(quick, [1.0, 2.0], [1])
    good, _ = sweep(figure.cells[:1], tmp_path, lambda line: None)
    monkeypatch.setattr(figures, "sweep", lambda *given: (good, ["eps-2_seed-1: diverged"]))
    found = figures.draw(figure, tmp_path, lambda line: None)
    assert (found.rows, found.failed) == (good, ["eps-2_seed-1: diverged"])
    values = json.loads((tmp_path / "fig2.json").read_text())
    assert values["failed"] == ["eps-2_seed-1: diverged"]
    assert len(values["rows"]) == 1
    monkeypatch.setattr(figures, "sweep", lambda *given: ([], ["eps-2_seed-1: diverged"]))
    with pytest.raises(UserError, match="diverged"):
        figures.draw(figure, tmp_path / "none", lambda line: None)
