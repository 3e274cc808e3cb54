"""The commands that train many networks: the paper's tables and figures, and the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from esl_lava.cli.options import (
    Config,
    DataFolder,
    Density,
    Epochs,
    Json,
    Settings,
    chosen_experiment,
    number,
    own_settings,
)
from esl_lava.cli.output import answer, results_only, tell
from esl_lava.cli.progress import show_sweep
from esl_lava.errors import ConfigError, UserError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.experiments.figures import Design
    from esl_lava.experiments.scales import Setting
    from esl_lava.values import Values

T = TypeVar("T", str, int, float)

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Directory of the runs; an unfinished one goes on.")
]
Preset = Annotated[str | None, typer.Option(help="An experiment that comes along; default mnist.")]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="small: on two cores within an hour or two; paper: the paper's networks, data and "
        "epochs, which need a GPU.",
    ),
]
Seeds = Annotated[str, typer.Option(help="Of the runs at each setting, e.g. 1,2,3.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Processes, each training on one thread; default -1, one a core. Of networks that "
        "train on GPUs one for each GPU at most."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="A cluster that does the runs in place of this machine, and shares the output "
        "directory: of Dask, e.g. tcp://host:8786; of Ray, ray or e.g. ray://host:10001."
    ),
]

BUDGETS = ("sparsity.density", "sparsity.eps", "sparsity.densities")
FIG2 = {"seed": "--seeds", **dict.fromkeys(BUDGETS, "--eps")}
FIG4 = {
    "seed": "--seeds",
    "sparsity.prune": "--prune",
    "sparsity.growth": "--growth",
    **dict.fromkeys(BUDGETS, "--densities"),
}
FIG3 = {**FIG4, **dict.fromkeys(("sparsity.prune", "sparsity.growth"), "esl reproduce fig4")}
FIG3["sparsity.redistribution"] = "esl train"
TABLE2 = {"seed": "--seeds", **dict.fromkeys(BUDGETS, "--scale")}
"""Keys that a command varies -> the option that says how."""

SINGLE_SPIKE = "mnist-single-spike"
FIG2_PRESETS = {"multi-spike": "mnist", "single-spike": SINGLE_SPIKE}
"""Kinds of network -> the preset to begin from."""


TRAINS = ("output", "preset", "config", "epochs", "seeds", "settings", "jobs", "cluster")
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
    jobs: Jobs = None,
    cluster: Cluster = None,
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
    _draw(design, output, jobs, cluster, as_json)


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
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Figure 2: accuracy and connections over eps, of exported integer networks."""
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
    _draw(design, output, jobs, cluster, as_json, "Fig. 2: eps of Eq. 1")


def reproduce_table2(
    output: Output = Path("runs/table2"),
    scale: Scale = "small",
    parts: Annotated[
        str | None,
        typer.Option("--parts", help="Which parts of the table, e.g. nmnist; default all."),
    ] = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Table 2: convolutional networks, dense and sparse, beside the paper's."""
    with results_only():
        from esl_lava.experiments import figures, scales

        scale = scales.SMALL if scale is None else scale
        scales.check_scale(scale)
        known = {part.name: part for part in scales.TABLE2[scale]}
        chosen = _list("parts", parts, str) if parts is not None else list(known)
        for name in chosen:
            if name not in known:
                raise ConfigError(f"--parts {name!r}: --scale {scale} has {', '.join(known)}")
        changes = _changes(settings, epochs, TABLE2)
        design = figures.table2(
            [known[name] for name in chosen], changes, _list("seeds", seeds, int)
        )
    title = f"Table 2, --scale {scale}: exported integer networks"
    _draw(design, output, jobs, cluster, as_json, title)


def reproduce_fig3(
    output: Output = Path("runs/fig3"),
    scale: Scale = None,
    densities: Annotated[
        str, typer.Option(help="Densities of the sparse layers (Fig. 3a).")
    ] = "0.1,0.3,0.5,0.7,0.9,1",
    traced: Annotated[
        float, number("Density of the run whose layers are followed (Fig. 3b).")
    ] = 0.1,
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Figure 3: accuracy over density, and the densities of layers over training.

    Without --preset and --config it is --scale small.
    """
    with results_only():
        from esl_lava.experiments import figures, scales

        if preset is None and config is None:
            scale = scales.SMALL if scale is None else scale
        base, remarks = _scaled(scale, scales.FIG3, preset, config, epochs, settings, FIG3)
        design = figures.fig3(
            base, _list("densities", densities, float), traced, _list("seeds", seeds, int)
        )
    title = f"Fig. 3{_at(scale)}: accuracy over density, and a run whose layers share"
    _draw(replace(design, remarks=remarks), output, jobs, cluster, as_json, title)


def reproduce_fig4(
    output: Output = Path("runs/fig4"),
    scale: Scale = None,
    prune: Annotated[str, typer.Option(help="Prune rules.")] = "set,magnitude",
    growth: Annotated[
        str, typer.Option(help="Growth rules.")
    ] = "random,random_unfired,gradient,momentum",
    densities: Annotated[
        str | None,
        typer.Option(
            help="Densities of the sparse layers; default 0.1,0.01, with --scale 1,0.1,0.01."
        ),
    ] = None,
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Annotated[
        str | None, typer.Option(help="Of the runs at each setting; default 1, with --scale 1,2.")
    ] = None,
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Figure 4: every prune rule with every growth rule, at several densities."""
    with results_only():
        from esl_lava.experiments import figures, scales

        default_densities, default_seeds = ("1,0.1,0.01", "1,2") if scale else ("0.1,0.01", "1")
        base, remarks = _scaled(scale, scales.FIG4, preset, config, epochs, settings, FIG4)
        design = figures.fig4(
            base,
            _list("prune", prune, str),
            _list("growth", growth, str),
            _list("densities", default_densities if densities is None else densities, float),
            _list("seeds", default_seeds if seeds is None else seeds, int),
        )
    title = f"Fig. 4{_at(scale)}: prune and growth rules"
    _draw(replace(design, remarks=remarks), output, jobs, cluster, as_json, title)


def _at(scale: str | None) -> str:
    return f", --scale {scale}" if scale else ""


def baselines(
    output: Output = Path("runs/baselines"),
    methods: Annotated[
        str, typer.Option(help="Which, of esl, static, dense, small-dense, pruned.")
    ] = "esl,static,dense,small-dense,pruned",
    density: Density = None,
    data_folder: DataFolder = None,
    data_module: Annotated[str | None, typer.Option("--data-module", hidden=True)] = None,
    preset: Preset = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2,3",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Compare an experiment with what it has to beat, on the same data, seeds and epochs."""
    with results_only():
        from esl_lava.experiments import figures

        if data_module is not None:
            raise ConfigError(
                "--data-module: the runs of a sweep are processes of their own, which take samples "
                "from a folder alone: --data-folder FOLDER"
            )
        experiment = _base(
            preset, config, epochs, settings, {"seed": "--seeds"}, density=density, own=data_folder
        )
        design = figures.baselines(
            experiment, _list("methods", methods, str), _list("seeds", seeds, int)
        )
    _draw(design, output, jobs, cluster, as_json, "the same experiment, trained in other ways")


def sweep(
    directory: Annotated[Path, typer.Argument(help="Of a sweep's runs.")],
    as_json: Json = False,
) -> None:
    """Where the runs of a sweep stand, one that goes on elsewhere too."""
    import time

    from esl_lava.experiments.states import is_going, read_states
    from esl_lava.report import tables
    from esl_lava.values import as_values

    states, going = read_states(directory), is_going(directory)
    title = f"{directory}, {'a sweep that goes on' if going else 'where no sweep goes on'}"
    found: Values = {"going": going, "runs": [as_values(state) for state in states]}
    answer(as_json, found, tables.run_states(states, time.time(), title))


def _draw(
    design: Design,
    output: Path,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
    title: str = "",
) -> None:
    """Do the runs of a design, and print its rows under a title, or Table 1 where it has one."""
    with results_only():
        from rich.console import Group
        from rich.text import Text

        from esl_lava.experiments import figures
        from esl_lava.report import tables
        from esl_lava.values import as_values

        if jobs == 0:
            raise ConfigError("--jobs 0: at least one process is needed; -1 is one a core")
        if cluster is not None and jobs is not None:
            raise ConfigError(f"--jobs {jobs}: with --cluster its workers do the runs")
        with _joined(cluster), show_sweep(output) as live:
            jobs = -1 if jobs is None and cluster is None else jobs
            found = figures.draw(design, output, tell, jobs, lines=not live)
    rows, values = found.rows, as_values(found)
    keys = ["figure", "rows"]
    if found.paper is not None:
        shown = [tables.table1(found.paper)]
        if found.measured:
            shown.append(tables.table1_measured(found.measured, len(rows[0].seeds)))
        keys = ["rows", "paper", "measured"]
    else:
        shown = [tables.sweep_table(rows, f"{title}; test: the exported integer networks")]
        if found.trained is not None:
            keys = ["trained", "published"]
            shown = [tables.table2(found.trained, found.published or (), title)]
        elif "growth" in rows[0].settings:
            sentences = tables.preferred(rows)
            shown.append(Group(*(Text(s, no_wrap=True, overflow="ignore") for s in sentences)))
    if found.remarks is not None:
        keys.append("remarks")
        shown.append(Text("\n".join(found.remarks)))
    answer(as_json, {key: values[key] for key in keys}, *shown)
    if not as_json:
        tell(f"left in {output}: {design.name}.json, {design.name}.png, and every run")
    if found.failed:
        raise UserError("\n".join(found.failed))


def _joined(cluster: str | None) -> contextlib.AbstractContextManager[None]:
    """Within it sweeps are done by a cluster, if any is named."""
    if cluster is None:
        return contextlib.nullcontext()
    from esl_lava.experiments.cluster import joined

    return joined(cluster)


def _base(
    preset: str | None,
    config: Path | None,
    epochs: int | None,
    settings: list[str] | None,
    varied: Mapping[str, str],
    default: str = "mnist",
    density: float | None = None,
    own: Path | None = None,
) -> Experiment:
    """The experiment the options name, nothing of which `varied` (key -> option) replaces.

    Where they name none, it is the preset `default`. Samples come from the folder `own`, if any.
    """
    _refuse_varied(settings, varied)
    if preset is None and config is None:
        preset = default
    named = {"training.epochs": epochs, "sparsity.density": density, **own_settings(own, None)}
    return chosen_experiment(preset, config, settings, named)


def _refuse_varied(settings: list[str] | None, varied: Mapping[str, str]) -> None:
    """Refuse `--set` of a key that the command varies."""
    for text in settings or ():
        key = text.partition("=")[0].strip()
        if key in varied:
            raise ConfigError(f"--set {key}: this command varies it; use {varied[key]}")


def _scaled(
    scale: str | None,
    scales: Mapping[str, Setting],
    preset: str | None,
    config: Path | None,
    epochs: int | None,
    settings: list[str] | None,
    varied: Mapping[str, str],
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment of a scale, or without one that of `_base`; and remarks on it."""
    if scale is None:
        return _base(preset, config, epochs, settings, varied), ()
    from esl_lava.config import override
    from esl_lava.experiments.scales import changed, check_scale

    check_scale(scale)
    if preset is not None or config is not None:
        raise ConfigError(f"--scale {scale}: says which experiment; give no --preset or --config")
    chosen, changes = scales[scale], _changes(settings, epochs, varied)
    return override(chosen.experiment(), changes), (chosen.remark, *changed(changes))


def _changes(
    settings: list[str] | None, epochs: int | None, varied: Mapping[str, str]
) -> dict[str, object]:
    """Dotted key -> value, of `--set` and `--epochs`."""
    from esl_lava.config import parse_setting

    _refuse_varied(settings, varied)
    changes = dict(parse_setting(text) for text in settings or ())
    return changes if epochs is None else {**changes, "training.epochs": epochs}


def _list(option: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The values of a comma-separated option."""
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--{option} {text!r} is not numbers with commas between, such as 1,2,3"
        ) from None
