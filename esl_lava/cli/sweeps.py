"""The commands that train many networks: tables and figures of the paper, and baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from esl_lava.cli.options import (
    METHODS,
    PRESETS,
    Config,
    DataFolder,
    Density,
    Epochs,
    Json,
    Settings,
    load_experiment,
    number_option,
    own_settings,
)
from esl_lava.cli.output import answer, list_faults, results_only, tell
from esl_lava.cli.progress import show_sweep
from esl_lava.errors import ConfigError, Fault

if TYPE_CHECKING:
    from rich.console import RenderableType

    from esl_lava.config import Experiment
    from esl_lava.experiments.figures import Design
    from esl_lava.experiments.scales import Setting
    from esl_lava.results.sweep import Sweep
    from esl_lava.values import Values

T = TypeVar("T", str, int, float)

Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="Directory of the runs. An unfinished sweep in it is continued."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(help=f"Name of a built-in experiment: {PRESETS}. The default is mnist."),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="Size of the experiment: small (takes an hour or two on two cores) or paper (the "
        "networks, data and epochs of the paper, which need a GPU).",
    ),
]
Seeds = Annotated[
    str, typer.Option(help="Random seeds of the runs at each setting, for example 1,2,3.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Number of processes, each of which trains on one thread. The default is -1, one "
        "process for each core. If the networks train on GPUs, there is at most one process for "
        "each GPU."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Address of a running cluster that trains the runs instead of this machine. Dask: for "
        "example tcp://host:8786. Ray: for example ray://host:10001, or ray for the cluster that "
        "this machine belongs to. The machines of the cluster must share the output directory with "
        "this machine, and have esl-lava and the data."
    ),
]

BUDGETS = ("sparsity.density", "sparsity.eps", "sparsity.densities")
"""Configuration keys that set the number of weights."""

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
"""Configuration keys that a command varies -> the option or command that sets them."""

SINGLE_SPIKE = "mnist-single-spike"
FIG2_PRESETS = {"multi-spike": "mnist", "single-spike": SINGLE_SPIKE}
"""Kind of network -> the preset of Figure 2."""

TRAINING_PARAMETERS = (
    "output",
    "preset",
    "config",
    "epochs",
    "seeds",
    "settings",
    "jobs",
    "cluster",
)
"""Parameters of `reproduce_table1` that only concern the training."""


def reproduce_table1(
    context: typer.Context,
    output: Output = Path("runs/table1"),
    counts_only: Annotated[
        bool,
        typer.Option(
            "--counts-only",
            help="Compute the table from the connection counts of the paper, without training.",
        ),
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Name of a built-in experiment for the sparse network: {PRESETS}. The default is "
            f"{SINGLE_SPIKE}."
        ),
    ] = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Reproduce Table 1: read an experiment, train its networks and print their results.

    The table compares dense, sparse and small dense networks whose neurons fire once, and the
    numbers of the paper. The operations of the exported networks are counted on all test samples.
    The runs, the table and a picture are written to the output directory.
    """
    from esl_lava.energy import table1
    from esl_lava.report.paper import render_table1

    if counts_only:
        for name in TRAINING_PARAMETERS:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                option = "--set" if name == "settings" else f"--{name}"
                raise ConfigError(
                    f"--counts-only trains no network, so {option} must not be given",
                    "conflict",
                    key=option,
                )
        by_counts = table1.compute_table1()
        answer(as_json, by_counts, render_table1(by_counts))
        return
    with results_only():
        from esl_lava.experiments import figures

        varied = {"seed": "--seeds"}
        experiment = _base_experiment(preset, config, epochs, settings, varied, SINGLE_SPIKE)
        kind = experiment.model.kind
        if kind != "single_spike":
            raise ConfigError(
                f"model.kind = {kind!r}: Table 1 needs a network of kind single_spike",
                "unsupported",
                key="model.kind",
                value=kind,
                limit="single_spike",
            )
        design = figures.table1(experiment, _parse_list("--seeds", seeds, int))
    _run_design(design, output, jobs, cluster, as_json)


def reproduce_fig2(
    output: Output = Path("runs/fig2"),
    network: Annotated[
        str,
        typer.Option(help="Kind of network: multi-spike or single-spike (neurons that fire once)."),
    ] = "multi-spike",
    eps: Annotated[
        str,
        typer.Option(
            help="Values of the key sparsity.eps (eps in Equation 1 of the paper), with commas "
            "between them. A larger eps gives more connections."
        ),
    ] = "10,20,30,40,50,60,70,80,90",
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Name of a built-in experiment: {PRESETS}. The default is mnist, or "
            f"{SINGLE_SPIKE} with --network single-spike."
        ),
    ] = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Reproduce Figure 2: read an experiment, train it for each eps and write table and picture.

    The figure shows the accuracy and the connections of the exported networks against eps.
    """
    with results_only():
        from esl_lava.experiments import figures

        if network not in FIG2_PRESETS:
            raise _unknown_name("--network", network, FIG2_PRESETS)
        base = _base_experiment(preset, config, epochs, settings, FIG2, FIG2_PRESETS[network])
        needed = network.replace("-", "_")
        if base.model.kind != needed:
            raise ConfigError(
                f"--network {network}: the experiment needs model.kind = {needed!r}, but it has "
                f"{base.model.kind!r}",
                "conflict",
                key="--network",
                value=network,
                limit=base.model.kind,
            )
        design = figures.fig2(
            base, _parse_list("--eps", eps, float), _parse_list("--seeds", seeds, int)
        )
    _run_design(design, output, jobs, cluster, as_json, "Fig. 2: eps of Eq. 1")


def reproduce_table2(
    output: Output = Path("runs/table2"),
    scale: Scale = "small",
    parts: Annotated[
        str | None,
        typer.Option(
            "--parts",
            help="Parts of the table, with commas between them. With --scale small: "
            "cifar10-resnet, cifar10-vgg, nmnist. With --scale paper: cifar10, cifar100, "
            "dvs-cifar10. The default is all parts.",
        ),
    ] = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Reproduce Table 2: train convolutional networks and print results beside the paper's.

    Each part has a dense and a sparse network. The runs, the table and a picture are written to
    the output directory.
    """
    with results_only():
        from esl_lava.experiments import figures, scales

        scale = scales.SMALL if scale is None else scale
        scales.check_scale(scale)
        parts_by_name = {part.name: part for part in scales.TABLE2[scale]}
        names = list(parts_by_name) if parts is None else _parse_list("--parts", parts, str)
        for name in names:
            if name not in parts_by_name:
                raise _unknown_name("--parts", name, parts_by_name)
        changes = _parse_changes(settings, epochs, TABLE2)
        design = figures.table2(
            [parts_by_name[name] for name in names], changes, _parse_list("--seeds", seeds, int)
        )
    title = f"Table 2, --scale {scale}: exported integer networks"
    _run_design(design, output, jobs, cluster, as_json, title)


def reproduce_fig3(
    output: Output = Path("runs/fig3"),
    scale: Scale = None,
    densities: Annotated[
        str,
        typer.Option(help="Densities of the sparse layers, with commas between them (Figure 3a)."),
    ] = "0.1,0.3,0.5,0.7,0.9,1",
    traced: Annotated[
        float, number_option("Density of the run whose layer densities are plotted (Figure 3b).")
    ] = 0.1,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Name of a built-in experiment in place of --scale: {PRESETS}."),
    ] = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Seeds = "1,2",
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Reproduce Figure 3: read an experiment, train it at each density, write table and picture.

    The figure shows the accuracy against density, and the densities of the layers during the
    training. The default is --scale small if neither --preset nor --config is given.
    """
    with results_only():
        from esl_lava.experiments import figures, scales

        if preset is None and config is None:
            scale = scales.SMALL if scale is None else scale
        base, remarks = _scaled_experiment(
            scale, scales.FIG3, preset, config, epochs, settings, FIG3
        )
        design = figures.fig3(
            base,
            _parse_list("--densities", densities, float),
            traced,
            _parse_list("--seeds", seeds, int),
        )
    title = f"Fig. 3{_scale_suffix(scale)}: accuracy against density, and a run with redistribution"
    _run_design(replace(design, remarks=remarks), output, jobs, cluster, as_json, title)


def reproduce_fig4(
    output: Output = Path("runs/fig4"),
    scale: Scale = None,
    prune: Annotated[
        str,
        typer.Option(
            help="Prune rules, with commas between them: set, magnitude, global_magnitude."
        ),
    ] = "set,magnitude",
    growth: Annotated[
        str,
        typer.Option(
            help="Growth rules, with commas between them: random, random_unfired, gradient, "
            "momentum."
        ),
    ] = "random,random_unfired,gradient,momentum",
    densities: Annotated[
        str | None,
        typer.Option(
            help="Densities of the sparse layers, with commas between them. The default is "
            "0.1,0.01. If --scale is given, the default is 1,0.1,0.01."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Name of a built-in experiment: {PRESETS}. The default is mnist if neither "
            "--scale nor --config is given."
        ),
    ] = None,
    config: Config = None,
    epochs: Epochs = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Random seeds of the runs at each setting, for example 1,2,3. The default is 1. "
            "If --scale is given, the default is 1,2."
        ),
    ] = None,
    settings: Settings = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Reproduce Figure 4: read an experiment, train it with each rule, write table and picture.

    Every prune rule is combined with every growth rule, at several densities.
    """
    with results_only():
        from esl_lava.experiments import figures, scales

        default_densities, default_seeds = ("1,0.1,0.01", "1,2") if scale else ("0.1,0.01", "1")
        base, remarks = _scaled_experiment(
            scale, scales.FIG4, preset, config, epochs, settings, FIG4
        )
        density_list = default_densities if densities is None else densities
        design = figures.fig4(
            base,
            _parse_list("--prune", prune, str),
            _parse_list("--growth", growth, str),
            _parse_list("--densities", density_list, float),
            _parse_list("--seeds", default_seeds if seeds is None else seeds, int),
        )
    title = f"Fig. 4{_scale_suffix(scale)}: prune and growth rules"
    _run_design(replace(design, remarks=remarks), output, jobs, cluster, as_json, title)


def _scale_suffix(scale: str | None) -> str:
    """Return the part of a title that names the scale, if there is one."""
    return f", --scale {scale}" if scale else ""


def baselines(
    output: Output = Path("runs/baselines"),
    methods: Annotated[
        str, typer.Option(help=f"Training methods, with commas between them: {METHODS}.")
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
    """Read an experiment, train it by several methods and print their accuracies side by side.

    All methods get the same data, seeds and epochs. The runs, the table and a picture are
    written to the output directory.
    """
    with results_only():
        from esl_lava.experiments import figures

        if data_module is not None:
            raise ConfigError(
                "--data-module: each run of a sweep is a process of its own and reads your samples "
                "only from a folder; give --data-folder FOLDER",
                "unsupported",
                key="--data-module",
                value=data_module,
            )
        experiment = _base_experiment(
            preset, config, epochs, settings, {"seed": "--seeds"}, density=density, own=data_folder
        )
        design = figures.baselines(
            experiment, _parse_list("--methods", methods, str), _parse_list("--seeds", seeds, int)
        )
    _run_design(
        design, output, jobs, cluster, as_json, "the same experiment, trained by several methods"
    )


def sweep(
    directory: Annotated[Path, typer.Argument(help="Directory of the runs of a sweep.")],
    as_json: Json = False,
) -> None:
    """Read the directory of a sweep, which may be running elsewhere, and print its runs' states."""
    import time

    from esl_lava.experiments.states import is_running, read_states
    from esl_lava.report.sweep_tables import render_states
    from esl_lava.values import as_values

    states, running = read_states(directory), is_running(directory)
    title = f"{directory}, {'the sweep is running' if running else 'no sweep is running'}"
    values: Values = {"going": running, "runs": [as_values(state) for state in states]}
    answer(as_json, values, render_states(states, time.time(), title))


def _run_design(
    design: Design,
    output: Path,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
    title: str = "",
) -> None:
    """Train the runs of a design and print its table.

    The exit code is 2 if a run failed. With `--json` the faults are a part of the one object that
    is printed.
    """
    with results_only():
        from esl_lava.experiments import figures
        from esl_lava.values import as_values

        if jobs == 0:
            raise ConfigError(
                "--jobs 0: at least 1 process is needed; -1 starts one process for each core",
                "range",
                key="--jobs",
                value=jobs,
                limit=1,
            )
        if cluster is not None and jobs is not None:
            raise ConfigError(
                f"--jobs {jobs}: the workers of --cluster do the runs; omit one of the options",
                "conflict",
                key="--jobs",
                value=jobs,
            )
        with _connect(cluster), show_sweep(output) as live:
            jobs = -1 if jobs is None and cluster is None else jobs
            result = figures.draw(design, output, tell, jobs, lines=not live)
        keys, tables = _render_sweep(result, title)
    all_values = as_values(result)
    values = {key: all_values[key] for key in keys}
    faults = [Fault(sentence, "failed") for sentence in result.failed]
    if faults:
        values["error"] = [fault.as_json() for fault in faults]
    answer(as_json, values, *tables)
    if not as_json:
        tell(f"written to {output}: {design.name}.json, {design.name}.png and every run")
    if faults:
        list_faults(faults)
        raise typer.Exit(2)


def _render_sweep(result: Sweep, title: str) -> tuple[list[str], list[RenderableType]]:
    """Return the keys of the JSON object and the tables of a sweep.

    Args:
        result: the sweep, with at least one row.
        title: title of the table.
    """
    from rich.console import Group
    from rich.text import Text

    from esl_lava.report import paper, sweep_tables

    rows = result.rows
    tables: list[RenderableType] = []
    if result.paper is not None:
        keys = ["rows", "paper", "measured"]
        tables.append(paper.render_table1(result.paper))
        if result.measured:
            tables.append(paper.render_measured_table1(result.measured, len(rows[0].seeds)))
    elif result.trained is not None:
        keys = ["trained", "published"]
        tables.append(paper.render_table2(result.trained, result.published or (), title))
    else:
        keys = ["figure", "rows"]
        tables.append(
            sweep_tables.render_rows(rows, f"{title}; test: the exported integer networks")
        )
        if "growth" in rows[0].settings:
            sentences = sweep_tables.list_preferred(rows)
            tables.append(Group(*(Text(s, no_wrap=True, overflow="ignore") for s in sentences)))
    if result.remarks is not None:
        keys.append("remarks")
        tables.append(Text("\n".join(result.remarks)))
    return keys, tables


def _connect(cluster: str | None) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the cluster, if there is one, does the runs of sweeps."""
    if cluster is None:
        return contextlib.nullcontext()
    from esl_lava.experiments.cluster import use_cluster

    return use_cluster(cluster)


def _base_experiment(
    preset: str | None,
    config: Path | None,
    epochs: int | None,
    settings: list[str] | None,
    varied: Mapping[str, str],
    default: str = "mnist",
    density: float | None = None,
    own: Path | None = None,
) -> Experiment:
    """Return the experiment from which a sweep starts.

    Args:
        preset, config, epochs, settings, density: values of the options.
        varied: configuration keys that the command varies, which `settings` must not contain.
        default: name of the preset if neither `preset` nor `config` is given.
        own: folder of the user's own samples, or None.
    """
    _refuse_varied(settings, varied)
    if preset is None and config is None:
        preset = default
    named = {"training.epochs": epochs, "sparsity.density": density, **own_settings(own, None)}
    return load_experiment(preset, config, settings, named)


def _refuse_varied(settings: list[str] | None, varied: Mapping[str, str]) -> None:
    """Refuse `--set` of a configuration key that the command varies."""
    for text in settings or ():
        key = text.partition("=")[0].strip()
        if key in varied:
            raise ConfigError(
                f"--set {key}: this command varies {key}; use {varied[key]}",
                "conflict",
                key=key,
                limit=varied[key],
            )


def _scaled_experiment(
    scale: str | None,
    scales: Mapping[str, Setting],
    preset: str | None,
    config: Path | None,
    epochs: int | None,
    settings: list[str] | None,
    varied: Mapping[str, str],
) -> tuple[Experiment, tuple[str, ...]]:
    """Return the experiment of a scale, or of `_base_experiment` if `scale` is None.

    Returns:
        The experiment, and remarks on how it differs from the paper.
    """
    if scale is None:
        return _base_experiment(preset, config, epochs, settings, varied), ()
    from esl_lava.config import override
    from esl_lava.experiments.scales import check_scale, describe_changes

    check_scale(scale)
    if preset is not None or config is not None:
        raise ConfigError(
            f"--scale {scale}: the scale chooses the experiment; give no --preset and no --config",
            "conflict",
            key="--scale",
            value=scale,
        )
    setting, changes = scales[scale], _parse_changes(settings, epochs, varied)
    return override(setting.experiment(), changes), (setting.remark, *describe_changes(changes))


def _parse_changes(
    settings: list[str] | None, epochs: int | None, varied: Mapping[str, str]
) -> dict[str, object]:
    """Return configuration key -> value of `--set` and `--epochs`."""
    from esl_lava.config import parse_setting

    _refuse_varied(settings, varied)
    changes = dict(parse_setting(text) for text in settings or ())
    return changes if epochs is None else {**changes, "training.epochs": epochs}


def _parse_list(option: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """Return the values of an option that takes values with commas between them."""
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: numbers with commas between them are needed, for example 1,2,3",
            "type",
            key=option,
            value=text,
        ) from None


def _unknown_name(option: str, name: str, names: Iterable[str]) -> ConfigError:
    """Return the error for a name that an option does not know."""
    known = ", ".join(names)
    return ConfigError(
        f"{option} {name!r}: the name is unknown; choose one of {known}",
        "unknown",
        key=option,
        value=name,
        limit=known,
    )
