"""The paper's sweeps: which runs they are made of, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from esl_lava.config import Experiment, override, to_toml
from esl_lava.energy.table1 import Measured, compute_table1
from esl_lava.errors import UserError
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.files import replace_json
from esl_lava.report.canvas import save_png
from esl_lava.report.pictures import draw_by_eps, draw_by_rules, draw_methods, draw_table1
from esl_lava.results.sweep import Sweep, SweepRow
from esl_lava.values import as_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Design:
    """A sweep to be drawn.

    Attributes:
        name: of the files it leaves, NAME.json and NAME.png.
        experiment: what every run shares but for what is varied.
        cells: its runs.
        draw: makes a picture of the rows.
        table1: whether the paper's Table 1 stands beside the rows.
    """

    name: str
    experiment: Experiment
    cells: tuple[Cell, ...]
    draw: Callable[[Sequence[SweepRow]], Figure]
    table1: bool = False


def fig2(experiment: Experiment, eps: Sequence[float], seeds: Sequence[int]) -> Design:
    """Accuracy and connections over eps of Eq. 1 (ESL-SNNs, Fig. 2)."""
    return Design("fig2", experiment, _vary(experiment, seeds, eps=eps), draw_by_eps)


def fig4(
    experiment: Experiment,
    prune: Sequence[str],
    growth: Sequence[str],
    densities: Sequence[float],
    seeds: Sequence[int],
) -> Design:
    """Every prune rule with every growth rule at several densities (ESL-SNNs, Fig. 4)."""
    cells = _vary(experiment, seeds, density=densities, prune=prune, growth=growth)
    return Design("fig4", experiment, cells, draw_by_rules)


def _vary(
    experiment: Experiment, seeds: Sequence[int], **values: Sequence[str | float]
) -> tuple[Cell, ...]:
    """A run for each combination of values of fields of [sparsity], with each seed."""
    return tuple(
        Cell(
            dict(zip(values, chosen)),
            override(
                experiment,
                {f"sparsity.{name}": value for name, value in zip(values, chosen)} | {"seed": seed},
            ),
        )
        for chosen in product(*values.values())
        for seed in seeds
    )


def table1(experiment: Experiment, seeds: Sequence[int]) -> Design:
    """Dense, sparse, and dense with the sparse network's number of parameters (Table 1).

    Args:
        experiment: of the sparse network.
        seeds: of each.
    """
    return replace(
        baselines(experiment, ("dense", "esl", "small-dense"), seeds),
        name="table1",
        draw=draw_table1,
        table1=True,
    )


def _measured_rows(rows: Sequence[SweepRow]) -> list[Measured]:
    """The rows of Table 1, priced by both conventions; none where dense or sparse is missing."""
    by_method = {str(row.settings["method"]): row for row in rows}
    if not {"dense", "esl"} <= by_method.keys():
        return []
    return [
        Measured(
            method,
            accuracy=row.accuracy,
            loss=by_method["dense"].accuracy - row.accuracy,
            connections=row.connections,
            density=row.density,
            sops=row.sops,
            most_sops=row.most_sops or 0,
        )
        for method, row in by_method.items()
    ]


def baselines(experiment: Experiment, methods: Sequence[str], seeds: Sequence[int]) -> Design:
    """The experiment as it is, and trained in other ways (`by_method`), with the same seeds."""
    trained = {name: by_method(experiment, name) for name in methods}
    cells = [
        Cell({"method": name}, override(trained[name], {"seed": seed}))
        for name, seed in product(methods, seeds)
    ]
    return Design("baselines", experiment, tuple(cells), draw_methods)


def draw(
    design: Design, directory: Path, tell: Callable[[str], None], jobs: int | None = None
) -> Sweep:
    """Do what is left of a design's runs, and write NAME.json and NAME.png beside them.

    Raises:
        UserError: as `sweep`, and when all runs failed.
    """
    rows, faults = sweep(design.cells, directory, tell, jobs)
    if not rows:
        raise UserError("\n".join(faults))
    found = Sweep(design.name, to_toml(design.experiment), rows, faults)
    if design.table1:
        found = replace(found, paper=compute_table1(), measured=_measured_rows(rows))
    replace_json(directory / f"{design.name}.json", as_values(found))
    save_png(design.draw(rows), directory / f"{design.name}.png")
    return found
