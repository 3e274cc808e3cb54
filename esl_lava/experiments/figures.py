"""The paper's sweeps: which runs they are made of, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from esl_lava.config import Experiment, override, to_toml
from esl_lava.energy.table1 import Measured, compute_table1, measured
from esl_lava.errors import UserError
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.files import as_json, replace_file
from esl_lava.report.sweep_plots import plot_by_eps, plot_by_rules, plot_methods, plot_table1
from esl_lava.report.sweeps import Row


@dataclass(frozen=True)
class Figure:
    """A sweep to be drawn.

    Attributes:
        name: of the files it leaves, NAME.json and NAME.png.
        experiment: what every run shares but for what is varied.
        cells: its runs.
        plot: draws the rows into a PNG.
        summary: what else NAME.json says of the rows.
    """

    name: str
    experiment: Experiment
    cells: tuple[Cell, ...]
    plot: Callable[[Sequence[Row], Path], None]
    summary: Callable[[Sequence[Row]], Mapping[str, Any]] = lambda rows: {}


def fig2(experiment: Experiment, eps: Sequence[float], seeds: Sequence[int]) -> Figure:
    """Accuracy and connections over eps of Eq. 1 (ESL-SNNs, Fig. 2)."""
    cells = [
        Cell({"eps": value}, override(experiment, {"sparsity.eps": value, "seed": seed}))
        for value, seed in product(eps, seeds)
    ]
    return Figure("fig2", experiment, tuple(cells), plot_by_eps)


def fig4(
    experiment: Experiment,
    prune: Sequence[str],
    growth: Sequence[str],
    densities: Sequence[float],
    seeds: Sequence[int],
) -> Figure:
    """Every prune rule with every growth rule at several densities (ESL-SNNs, Fig. 4)."""
    cells = [
        Cell(
            {"density": density, "prune": pruned, "growth": grown},
            override(
                experiment,
                {
                    "sparsity.density": density,
                    "sparsity.prune": pruned,
                    "sparsity.growth": grown,
                    "seed": seed,
                },
            ),
        )
        for density, pruned, grown, seed in product(densities, prune, growth, seeds)
    ]
    return Figure("fig4", experiment, tuple(cells), plot_by_rules)


def table1(experiment: Experiment, seeds: Sequence[int]) -> Figure:
    """Dense, sparse, and dense with the sparse network's number of parameters (Table 1).

    Args:
        experiment: of the sparse network.
        seeds: of each.
    """
    return replace(
        baselines(experiment, ("dense", "esl", "small-dense"), seeds),
        name="table1",
        plot=plot_table1,
        summary=lambda rows: {
            "paper": asdict(compute_table1()),
            "measured": [asdict(row) for row in measured_rows(rows)],
        },
    )


def measured_rows(rows: Sequence[Row]) -> list[Measured]:
    """The rows of Table 1, priced by both conventions; none where dense or sparse is missing."""
    by_method = {str(row.settings["method"]): row for row in rows}
    if not {"dense", "esl"} <= by_method.keys():
        return []
    return [
        measured(
            method,
            accuracy=row.accuracy,
            dense_accuracy=by_method["dense"].accuracy,
            connections=row.connections,
            density=row.density,
            sops=row.sops,
            most_sops=row.most_sops or 0,
        )
        for method, row in by_method.items()
    ]


def baselines(experiment: Experiment, methods: Sequence[str], seeds: Sequence[int]) -> Figure:
    """The experiment as it is, and trained in other ways (`by_method`), with the same seeds."""
    trained = {name: by_method(experiment, name) for name in methods}
    cells = [
        Cell({"method": name}, override(trained[name], {"seed": seed}))
        for name, seed in product(methods, seeds)
    ]
    return Figure("baselines", experiment, tuple(cells), plot_methods)


def draw(
    figure: Figure, directory: Path, tell: Callable[[str], None], jobs: int | None = None
) -> tuple[list[Row], list[str]]:
    """Do what is left of the figure's runs, and write NAME.json and NAME.png beside them.

    Returns:
        The rows, and a sentence for every run that failed.

    Raises:
        UserError: as `sweep`, and when all runs failed.
    """
    rows, faults = sweep(figure.cells, directory, tell, jobs)
    if not rows:
        raise UserError("\n".join(faults))
    values = {
        "figure": figure.name,
        "config": to_toml(figure.experiment),
        "rows": [row.plain() for row in rows],
        "failed": faults,
        **figure.summary(rows),
    }
    replace_file(directory / f"{figure.name}.json", (as_json(values, indent=1) + "\n").encode())
    figure.plot(rows, directory / f"{figure.name}.png")
    return rows, faults
