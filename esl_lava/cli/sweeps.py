"""The commands that train many networks: the paper's Fig. 2 and 4, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from esl_lava.cli.options import Config, Density, Epochs, Json, Settings, chosen_experiment
from esl_lava.cli.output import answer, results_only, tell
from esl_lava.errors import ConfigError, UserError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.experiments.figures import Design

T = TypeVar("T", str, int, float)

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Directory of the runs; an unfinished one goes on.")
]
Preset = Annotated[str | None, typer.Option(help="An experiment that comes along; default mnist.")]
Seeds = Annotated[str, typer.Option(help="Of the runs at each setting, e.g. 1,2,3.")]
Jobs = Annotated[
    int, typer.Option(help="Processes, each training on one thread; -1 is one a core.")
]

BUDGETS = ("sparsity.density", "sparsity.eps", "sparsity.densities")
FIG2 = {"seed": "--seeds", **dict.fromkeys(BUDGETS, "--eps")}
FIG4 = {
    "seed": "--seeds",
    "sparsity.prune": "--prune",
    "sparsity.growth": "--growth",
    **dict.fromkeys(BUDGETS, "--densities"),
}
"""Keys that a command varies -> the option that says how."""

SINGLE_SPIKE = "mnist-single-spike"
FIG2_PRESETS = {"multi-spike": "mnist", "single-spike": SINGLE_SPIKE}
"""Kinds of network -> the preset to begin from."""


TRAINS = ("output", "preset", "config", "epochs", "seeds", "settings", "jobs")
"""Parameters of `reproduce_table1` that say something of a training."""


def reproduce_table1(
    context: typer.Context,
    output: Output = Path("runs/table1"),
    counts_only: Annotated[
        bool,
        typer.Option("--counts-only", help="From connection counts alone, without training."),
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help=f"The sparse network; default {SINGLE_SPIKE}.")
    ] = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = -1,
    as_json: Json = False,
) -> None:
    """Table 1: dense, sparse and small dense networks of neurons that fire once.

    Trains and exports them, counts what they do on all test samples, and prints the paper's
    table beside it.
    """
    from esl_lava.energy import table1
    from esl_lava.report import tables

    if counts_only:
        sources = map(context.get_parameter_source, TRAINS)
        if any(source is not None and source.name != "DEFAULT" for source in sources):
            raise ConfigError("--counts-only trains nothing and takes no option of a training")
        by_counts = table1.compute_table1()
        answer(as_json, by_counts, tables.table1(by_counts))
        return
    with results_only():
        from esl_lava.experiments import figures

        experiment = _base(preset, config, epochs, settings, {"seed": "--seeds"}, SINGLE_SPIKE)
        if experiment.model.kind != "single_spike":
            raise ConfigError(
                f"model.kind = {experiment.model.kind!r}: Table 1 is about single_spike networks"
            )
        design = figures.table1(experiment, _list("seeds", seeds, int))
    _draw(design, output, jobs, as_json)


def reproduce_fig2(
    output: Output = Path("runs/fig2"),
    network: Annotated[
        str,
        typer.Option(help="multi-spike or single-spike (neurons that fire once)."),
    ] = "multi-spike",
    eps: Annotated[str, typer.Option(help="Values of eps (Eq. 1).")] = "10,20,30,40,50,60,70,80,90",
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1",
    settings: Settings = None,
    jobs: Jobs = -1,
    as_json: Json = False,
) -> None:
    """Fig. 2: accuracy and connections over eps, of exported integer networks."""
    with results_only():
        from esl_lava.experiments import figures

        if network not in FIG2_PRESETS:
            raise ConfigError(f"--network {network!r}: there are {', '.join(FIG2_PRESETS)}")
        base = _base(preset, config, epochs, settings, FIG2, FIG2_PRESETS[network])
        if base.model.kind != network.replace("-", "_"):
            raise ConfigError(
                f"--network {network}: the experiment's model.kind is {base.model.kind}"
            )
        design = figures.fig2(base, _list("eps", eps, float), _list("seeds", seeds, int))
    _draw(design, output, jobs, as_json, "Fig. 2: eps of Eq. 1")


def reproduce_fig4(
    output: Output = Path("runs/fig4"),
    prune: Annotated[str, typer.Option(help="Prune rules.")] = "set,magnitude",
    growth: Annotated[
        str, typer.Option(help="Growth rules.")
    ] = "random,random_unfired,gradient,momentum",
    densities: Annotated[str, typer.Option(help="Densities of the sparse layers.")] = "0.1,0.01",
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1",
    settings: Settings = None,
    jobs: Jobs = -1,
    as_json: Json = False,
) -> None:
    """Fig. 4: every prune rule with every growth rule, at several densities."""
    with results_only():
        from esl_lava.experiments import figures

        design = figures.fig4(
            _base(preset, config, epochs, settings, FIG4),
            _list("prune", prune, str),
            _list("growth", growth, str),
            _list("densities", densities, float),
            _list("seeds", seeds, int),
        )
    _draw(design, output, jobs, as_json, "Fig. 4: prune and growth rules")


def baselines(
    output: Output = Path("runs/baselines"),
    methods: Annotated[
        str, typer.Option(help="Which, of esl, static, dense, small-dense, pruned.")
    ] = "esl,static,dense,small-dense,pruned",
    density: Density = None,
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2,3",
    settings: Settings = None,
    jobs: Jobs = -1,
    as_json: Json = False,
) -> None:
    """Compare an experiment with what it has to beat, on the same data, seeds and epochs."""
    with results_only():
        from esl_lava.experiments import figures

        experiment = _base(preset, config, epochs, settings, {"seed": "--seeds"}, density=density)
        design = figures.baselines(
            experiment, _list("methods", methods, str), _list("seeds", seeds, int)
        )
    _draw(design, output, jobs, as_json, "the same experiment, trained in other ways")


def _draw(design: Design, output: Path, jobs: int, as_json: bool, title: str = "") -> None:
    """Do the runs of a design, and print its rows under a title, or Table 1 where it has one."""
    with results_only():
        from rich.console import Group
        from rich.text import Text

        from esl_lava.experiments import figures
        from esl_lava.report import tables
        from esl_lava.values import as_values

        if jobs == 0:
            raise ConfigError("--jobs 0: at least one process is needed; -1 is one a core")
        found = figures.draw(design, output, tell, jobs)
    rows, values = found.rows, as_values(found)
    keys = ["figure", "rows"]
    if found.paper is not None:
        shown = [tables.table1(found.paper)]
        if found.measured:
            shown.append(tables.table1_measured(found.measured, len(rows[0].seeds)))
        keys = ["rows", "paper", "measured"]
    else:
        shown = [tables.sweep_table(rows, f"{title}; test: the exported integer networks")]
        if "growth" in rows[0].settings:
            sentences = tables.preferred(rows)
            shown.append(Group(*(Text(s, no_wrap=True, overflow="ignore") for s in sentences)))
    answer(as_json, {key: values[key] for key in keys}, *shown)
    if not as_json:
        tell(f"left in {output}: {design.name}.json, {design.name}.png, and every run")
    if found.failed:
        raise UserError("\n".join(found.failed))


def _base(
    preset: str | None,
    config: Path | None,
    epochs: int | None,
    settings: list[str] | None,
    varied: Mapping[str, str],
    default: str = "mnist",
    density: float | None = None,
) -> Experiment:
    """The experiment the options name, nothing of which `varied` (key -> option) replaces.

    Where they name none, it is the preset `default`.
    """
    for text in settings or ():
        key = text.partition("=")[0].strip()
        if key in varied:
            raise ConfigError(f"--set {key}: this command varies it; use {varied[key]}")
    if preset is None and config is None:
        preset = default
    return chosen_experiment(
        preset, config, settings, {"training.epochs": epochs, "sparsity.density": density}
    )


def _list(option: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The values of a comma-separated option."""
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--{option} {text!r} is not numbers with commas between, such as 1,2,3"
        ) from None
