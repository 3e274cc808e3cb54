"""The paper's tables and figures: define their runs, do the missing runs and draw the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from esl_lava import modelfile
from esl_lava.config import Experiment, override, to_toml
from esl_lava.energy.table1 import MeasuredNetwork, compute_table1
from esl_lava.errors import Fault, UserError
from esl_lava.experiments.baselines import by_method
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.scales import Part, describe_changes
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
from esl_lava.results.table2 import PUBLISHED, TrainedRow
from esl_lava.results.training import read_history
from esl_lava.values import as_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _unchanged(results: Sweep, directory: Path) -> Sweep:
    return results


@dataclass(frozen=True)
class Design:
    """The runs of a table or figure, and how their results are drawn.

    Attributes:
        name: name of the files that it writes, NAME.json and NAME.png.
        cells: the runs.
        draw: draws the results as a figure.
        experiment: the experiment of all runs, apart from the varied keys; None if the runs share
            no experiment.
        complete: adds further results to the sweep; it may read the runs in its directory.
        remarks: sentences that the reader of the table has to know.
    """

    name: str
    cells: tuple[Cell, ...]
    draw: Callable[[Sweep], Figure]
    experiment: Experiment | None = None
    complete: Callable[[Sweep, Path], Sweep] = _unchanged
    remarks: tuple[str, ...] = ()


def _of_rows(picture: Callable[[Sequence[SweepRow]], Figure]) -> Callable[[Sweep], Figure]:
    """Return a function that draws the rows of a sweep."""
    return lambda results: picture(results.rows)


def fig2(experiment: Experiment, eps: Sequence[float], seeds: Sequence[int]) -> Design:
    """Return the runs for accuracy and connections against eps of Eq. 1 (ESL-SNNs, Fig. 2)."""
    cells = _vary(experiment, seeds, eps=eps)
    return Design("fig2", cells, _of_rows(draw_by_eps), experiment)


def fig3(
    experiment: Experiment,
    densities: Sequence[float],
    traced: float,
    seeds: Sequence[int],
) -> Design:
    """Return the runs for accuracy against density, and layer densities over epochs (Fig. 3).

    Args:
        experiment: the experiment of all runs.
        densities: densities of part a, with the rules of the paper: SET prunes, and random
            connections grow. A position that was never a connection (unfired) has priority.
        traced: density of part b, in which growth is distributed to layers by momentum. The layer
            densities of its first seed are drawn.
        seeds: seeds of each setting.
    """
    experiment = override(experiment, {"sparsity.prune": "set"})
    rules = {"growth": ["random_unfired"], "redistribution": ["none"]}
    moving = {"growth": ["momentum"], "redistribution": ["momentum"]}
    cells = (
        *_vary(experiment, seeds, density=densities, **rules),
        *_vary(experiment, seeds, density=[traced], **moving),
    )

    def trace(results: Sweep, directory: Path) -> Sweep:
        run = RunDirectory(directory / cells[-len(seeds)].name)
        if not run.model.exists():  # the run failed; `Sweep.failed` names it
            return results
        history = read_history(modelfile.read(run.model).history)
        return replace(results, densities=[epoch.densities for epoch in history])

    return Design("fig3", cells, draw_by_density, experiment, trace)


def fig4(
    experiment: Experiment,
    prune: Sequence[str],
    growth: Sequence[str],
    densities: Sequence[float],
    seeds: Sequence[int],
) -> Design:
    """Return the runs for all pairs of prune and growth rules at several densities (Fig. 4).

    At density 1 the rules have no effect, so the dense network is trained only once per seed.
    """
    sparse = [density for density in densities if density != 1]
    cells = _vary(experiment, seeds, density=sparse, prune=prune, growth=growth)
    if len(sparse) < len(densities):
        settings: dict[str, str | float] = {"density": 1.0, "prune": NO_RULE, "growth": NO_RULE}
        dense = by_method(experiment, "dense")
        cells = (*(Cell(settings, override(dense, {"seed": seed})) for seed in seeds), *cells)
    return Design("fig4", cells, _of_rows(draw_by_rules), experiment)


def _vary(
    experiment: Experiment, seeds: Sequence[int], **values: Sequence[str | float]
) -> tuple[Cell, ...]:
    """Return a run for each combination of values of keys of [sparsity], with each seed."""
    return tuple(
        Cell(
            dict(zip(values, combination)),
            override(
                experiment,
                {f"sparsity.{name}": value for name, value in zip(values, combination)}
                | {"seed": seed},
            ),
        )
        for combination in product(*values.values())
        for seed in seeds
    )


def table1(experiment: Experiment, seeds: Sequence[int]) -> Design:
    """Return the runs of Table 1: dense, sparse, and small dense with as many weights as sparse.

    Args:
        experiment: the experiment of the sparse network.
        seeds: seeds of each network.
    """
    return replace(
        baselines(experiment, ("dense", "esl", "small-dense"), seeds),
        name="table1",
        draw=_of_rows(draw_table1),
        complete=_add_table1,
    )


def _add_table1(results: Sweep, directory: Path) -> Sweep:
    return replace(results, paper=compute_table1(), measured=_measured_rows(results.rows))


def table2(parts: Sequence[Part], settings: Mapping[str, object], seeds: Sequence[int]) -> Design:
    """Return the runs of Table 2: the networks of a scale, trained dense and sparse.

    Args:
        parts: parts of the table.
        settings: dotted key -> value that replaces the value of all parts.
        seeds: seeds of each network.

    Raises:
        ConfigError: as `override`.
    """
    experiments = {part.name: override(part.setting.experiment(), settings) for part in parts}
    cells = []
    for part in parts:
        sparse = override(experiments[part.name], {"sparsity.density": part.density})
        for density, experiment in ((1.0, by_method(sparse, "dense")), (part.density, sparse)):
            cells += [
                Cell({"part": part.name, "density": density}, override(experiment, {"seed": seed}))
                for seed in seeds
            ]

    def add_table2(results: Sweep, directory: Path) -> Sweep:
        rows = [(row, experiments[str(row.settings["part"])]) for row in results.rows]
        trained = [_trained_row(row, experiment, results) for row, experiment in rows]
        return replace(results, published=PUBLISHED, trained=trained)

    sentences = (part.setting.remark for part in parts if part.setting.remark)
    remarks = (*sentences, *describe_changes(settings))
    return Design("table2", tuple(cells), draw_table2, complete=add_table2, remarks=remarks)


def _trained_row(row: SweepRow, experiment: Experiment, results: Sweep) -> TrainedRow:
    """Return a row of Table 2.

    Its loss of accuracy against the dense network is the mean over the seeds that both have.
    """
    part, density = str(row.settings["part"]), float(row.settings["density"])
    dense: dict[int, float] = {}
    if density < 1:
        for other in results.rows:
            if other.settings == {"part": part, "density": 1.0}:
                dense = dict(zip(other.seeds, other.accuracies))
    losses = [dense[s] - accuracy for s, accuracy in zip(row.seeds, row.accuracies) if s in dense]
    return TrainedRow(
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


def _measured_rows(rows: Sequence[SweepRow]) -> list[MeasuredNetwork]:
    """Return the rows of Table 1; none if the dense or the sparse network is missing."""
    by_method = {str(row.settings["method"]): row for row in rows}
    if not {"dense", "esl"} <= by_method.keys():
        return []
    return [
        MeasuredNetwork(
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
    """Return the runs of an experiment by several methods (`by_method`), with the same seeds."""
    experiments = {name: by_method(experiment, name) for name in methods}
    cells = [
        Cell({"method": name}, override(experiments[name], {"seed": seed}))
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
    """Do the missing runs of a design, and write NAME.json and NAME.png to their directory.

    Args:
        design: the runs.
        directory, tell, jobs, lines: as in `sweep`.

    Raises:
        UserError: as `sweep`; and if all runs failed, with one fault for each run.
    """
    rows, failures = sweep(design.cells, directory, tell, jobs, lines)
    if not rows:
        raise UserError.of([Fault(sentence, "failed") for sentence in failures])
    shared = None if design.experiment is None else to_toml(design.experiment)
    results = design.complete(Sweep(design.name, shared, rows, failures), directory)
    if design.remarks:
        results = replace(results, remarks=design.remarks)
    replace_json(directory / f"{design.name}.json", as_values(results))
    save_png(design.draw(results), directory / f"{design.name}.png")
    return results
