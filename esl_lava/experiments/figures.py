"""The paper's tables and figures: which runs they are made of, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from esl_lava import modelfile
from esl_lava.config import Experiment, override, to_toml
from esl_lava.energy.table1 import Measured, compute_table1
from esl_lava.errors import UserError
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.scales import Part, changed
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.files import replace_json
from esl_lava.report.canvas import save_png
from esl_lava.report.sweeps import (
    draw_by_density,
    draw_by_eps,
    draw_by_rules,
    draw_methods,
    draw_table1,
    draw_table2,
)
from esl_lava.results.sweep import NO_RULE, Sweep, SweepRow
from esl_lava.results.table2 import PUBLISHED, Trained
from esl_lava.results.training import read_history
from esl_lava.values import as_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _as_it_is(found: Sweep, directory: Path) -> Sweep:
    return found


@dataclass(frozen=True)
class Design:
    """A sweep to be drawn.

    Attributes:
        name: of the files it leaves, NAME.json and NAME.png.
        cells: its runs.
        draw: makes a picture of what was found.
        experiment: what every run shares but for what is varied; None where they share less.
        complete: adds what more than the rows it tells, and may read the runs in the directory.
        remarks: what the reader of its table has to know.
    """

    name: str
    cells: tuple[Cell, ...]
    draw: Callable[[Sweep], Figure]
    experiment: Experiment | None = None
    complete: Callable[[Sweep, Path], Sweep] = _as_it_is
    remarks: tuple[str, ...] = ()


def _of_rows(picture: Callable[[Sequence[SweepRow]], Figure]) -> Callable[[Sweep], Figure]:
    return lambda found: picture(found.rows)


def fig2(experiment: Experiment, eps: Sequence[float], seeds: Sequence[int]) -> Design:
    """Accuracy and connections over eps of Eq. 1 (ESL-SNNs, Fig. 2)."""
    cells = _vary(experiment, seeds, eps=eps)
    return Design("fig2", cells, _of_rows(draw_by_eps), experiment)


def fig3(
    experiment: Experiment,
    densities: Sequence[float],
    traced: float,
    seeds: Sequence[int],
) -> Design:
    """Accuracy over density, and densities of layers over training (ESL-SNNs, Fig. 3).

    Args:
        experiment: of all runs.
        densities: of a, by the paper's rules: SET prunes, random unfired connections grow.
        traced: density of b, where layers share what grows by their momentum; of its first
            seed the densities are drawn.
        seeds: of the runs at each setting.
    """
    experiment = override(experiment, {"sparsity.prune": "set"})
    rules = {"growth": ["random_unfired"], "redistribution": ["none"]}
    moving = {"growth": ["momentum"], "redistribution": ["momentum"]}
    cells = (
        *_vary(experiment, seeds, density=densities, **rules),
        *_vary(experiment, seeds, density=[traced], **moving),
    )

    def trace(found: Sweep, directory: Path) -> Sweep:
        run = RunDirectory(directory / cells[-len(seeds)].name)
        if not run.model.exists():  # it failed, and is named
            return found
        history = read_history(modelfile.read(run.model).history)
        return replace(found, densities=[epoch.densities for epoch in history])

    return Design("fig3", cells, draw_by_density, experiment, trace)


def fig4(
    experiment: Experiment,
    prune: Sequence[str],
    growth: Sequence[str],
    densities: Sequence[float],
    seeds: Sequence[int],
) -> Design:
    """Every prune rule with every growth rule at several densities (ESL-SNNs, Fig. 4).

    At a density of 1 no rule has anything to move: the dense network is trained once.
    """
    sparse = [density for density in densities if density != 1]
    cells = _vary(experiment, seeds, density=sparse, prune=prune, growth=growth)
    if len(sparse) < len(densities):
        alone: dict[str, str | float] = {"density": 1.0, "prune": NO_RULE, "growth": NO_RULE}
        dense = by_method(experiment, "dense")
        cells = (*(Cell(alone, override(dense, {"seed": seed})) for seed in seeds), *cells)
    return Design("fig4", cells, _of_rows(draw_by_rules), experiment)


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
        draw=_of_rows(draw_table1),
        complete=_beside_table1,
    )


def _beside_table1(found: Sweep, directory: Path) -> Sweep:
    return replace(found, paper=compute_table1(), measured=_measured_rows(found.rows))


def table2(parts: Sequence[Part], settings: Mapping[str, object], seeds: Sequence[int]) -> Design:
    """Networks of a scale, trained dense and sparse (Table 2).

    Args:
        parts: of the table.
        settings: dotted key -> value, replaced in all of them.
        seeds: of each run.

    Raises:
        ConfigError: as `override`.
    """
    experiments = {part.name: override(part.setting.experiment(), settings) for part in parts}
    cells = []
    for part in parts:
        sparse = override(experiments[part.name], {"sparsity.density": part.density})
        for share, chosen in ((1.0, by_method(sparse, "dense")), (part.density, sparse)):
            cells += [
                Cell({"part": part.name, "density": share}, override(chosen, {"seed": seed}))
                for seed in seeds
            ]

    def beside(found: Sweep, directory: Path) -> Sweep:
        rows = [(row, experiments[str(row.settings["part"])]) for row in found.rows]
        trained = [_trained(row, experiment, found) for row, experiment in rows]
        return replace(found, published=PUBLISHED, trained=trained)

    said = (part.setting.remark for part in parts if part.setting.remark)
    remarks = (*said, *changed(settings))
    return Design("table2", tuple(cells), draw_table2, complete=beside, remarks=remarks)


def _trained(row: SweepRow, experiment: Experiment, found: Sweep) -> Trained:
    """A row of Table 2; its loss is over the seeds that its dense network has too."""
    part, density = str(row.settings["part"]), float(row.settings["density"])
    dense: dict[int, float] = {}
    if density < 1:
        for other in found.rows:
            if other.settings == {"part": part, "density": 1.0}:
                dense = dict(zip(other.seeds, other.accuracies))
    losses = [dense[s] - reached for s, reached in zip(row.seeds, row.accuracies) if s in dense]
    return Trained(
        part=part,
        dataset=experiment.data.name,
        layers=experiment.model.layers,
        steps=experiment.encoding.steps,
        epochs=experiment.training.epochs,
        density=density,
        weights=row.weights or 0,
        accuracy=row.accuracy,
        spread=row.spread,
        accuracies=row.accuracies,
        loss=fmean(losses) if losses else None,
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
    return Design("baselines", tuple(cells), _of_rows(draw_methods), experiment)


def draw(
    design: Design,
    directory: Path,
    tell: Callable[[str], None],
    jobs: int | None = None,
    lines: bool = True,
) -> Sweep:
    """Do what is left of a design's runs, and write NAME.json and NAME.png beside them.

    Args:
        design: what is done.
        directory, tell, jobs, lines: as `sweep`.

    Raises:
        UserError: as `sweep`, and when all runs failed.
    """
    rows, faults = sweep(design.cells, directory, tell, jobs, lines)
    if not rows:
        raise UserError("\n".join(faults))
    shared = None if design.experiment is None else to_toml(design.experiment)
    found = design.complete(Sweep(design.name, shared, rows, faults), directory)
    if design.remarks:
        found = replace(found, remarks=design.remarks)
    replace_json(directory / f"{design.name}.json", as_values(found))
    save_png(design.draw(found), directory / f"{design.name}.png")
    return found
