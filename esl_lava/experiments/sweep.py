"""Many runs of one design: each setting and seed a run of its own, resumable and in parallel."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pydantic import TypeAdapter, ValidationError

from esl_lava import modelfile
from esl_lava.arrays import Array
from esl_lava.config import Experiment, read_toml
from esl_lava.data.catalogue import samples_of
from esl_lava.data.datasets import SPLITS
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import ConfigError, FileError, UserError
from esl_lava.experiments import samedata
from esl_lava.experiments.evaluate import Probes, encoding_of, evaluate
from esl_lava.experiments.export import export
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.train import resume, train
from esl_lava.files import replace_json
from esl_lava.interrupts import heeded
from esl_lava.models.restore import densified
from esl_lava.models.stored import load_model
from esl_lava.results.sweep import Outcome, SweepRow
from esl_lava.results.training import kept_epoch, read_history
from esl_lava.sparsity.plan import count_connections
from esl_lava.training.trainer import TrainingProgress
from esl_lava.values import as_values

SHOW_SECONDS = 60.0
"""How often a run in a sweep says where it stands."""

_PROCESS = threading.Lock()


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        settings: what is varied, name -> value; cells that differ in the seed alone share it.
        experiment: all of it.
    """

    settings: Mapping[str, str | float]
    experiment: Experiment

    @property
    def name(self) -> str:
        """Its directory within the sweep's, e.g. eps-60_seed-1."""
        parts = [
            f"{key}-{value if isinstance(value, str) else format(value, 'g')}"
            for key, value in self.settings.items()
        ]
        return "_".join([*parts, f"seed-{self.experiment.seed}"])


_OUTCOME = TypeAdapter(Outcome)


def sweep(
    cells: Sequence[Cell],
    directory: Path,
    tell: Callable[[str], None],
    jobs: int | None = None,
) -> tuple[list[SweepRow], list[str]]:
    """Train, export and evaluate every cell that has not been yet.

    Each run trains on one thread, so that the numbers do not depend on `jobs`. What
    an interrupted sweep has finished is not done again, and what it has begun goes on.

    Args:
        cells: of distinct names.
        directory: holds a run directory for each; one that workers share when
            `joblib.parallel_config` names a cluster.
        tell: given a line about what is finished already; what goes on is said by the workers,
            on their standard error.
        jobs: processes, as joblib counts them: -1 is one a core, None what
            `joblib.parallel_config` says, or else 1.

    Returns:
        A row for every distinct settings, in the order of the cells, over the runs that did
        not fail; and for every run that did its name and the reason.

    Raises:
        ConfigError: when two cells have one name, or the masks of the first that is left with
            some data cannot be drawn.
        DataError: when what is finished was made with other data than what is left would be.
        FileError: when the directory holds runs of another experiment, or cannot be made.
        UserError: when the system ended a worker.
    """
    doubled = [name for name, times in Counter(cell.name for cell in cells).items() if times > 1]
    if doubled:
        raise ConfigError(f"two runs of the sweep would be called {doubled[0]}")
    directory = directory.absolute()  # a worker may stand elsewhere
    outcomes: dict[str, Outcome] = {}
    left = []
    for cell in cells:
        known = _stored(cell, RunDirectory(directory / cell.name))
        if known is None:
            left.append(cell)
        else:
            outcomes[cell.name] = known
    # What is wrong with one is mostly wrong with all of its data: said once, before hours of work.
    for first in {_samples_of(cell): cell for cell in reversed(left)}.values():
        splits = _splits(first)
        experiment, data = first.experiment, splits["train"]
        topology = experiment.model.describe(data.shape, data.classes)
        count_connections(topology, experiment.sparsity)
        here = samedata.digests(splits)
        for cell in cells:
            if cell.name in outcomes and _samples_of(cell) == _samples_of(first):
                where = RunDirectory(directory / cell.name).outcome
                samedata.refuse_others(where, outcomes[cell.name].data, here)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{directory}: cannot be made: {error.strerror}") from None
    if outcomes:
        tell(f"{len(outcomes)} of {len(cells)} runs are finished already")
    workers = jobs if jobs is None or jobs < 0 else min(jobs, max(1, len(left)))
    try:
        found = Parallel(n_jobs=workers)(delayed(_attempt)(cell, directory) for cell in left)
    except TerminatedWorkerError:
        raise UserError(
            "the system ended a worker, perhaps for want of memory; the same command with "
            "fewer --jobs goes on where it was"
        ) from None
    faults = [f"{name}: {outcome}" for name, outcome in found if isinstance(outcome, str)]
    outcomes |= {name: outcome for name, outcome in found if not isinstance(outcome, str)}
    return _rows([cell for cell in cells if cell.name in outcomes], outcomes), faults


def _samples_of(cell: Cell) -> tuple[str, str | None, str]:
    """What decides on a cell's samples, so that two can be compared."""
    data = cell.experiment.data
    return data.name, data.folder, cell.experiment.encoding.model_dump_json()


def _splits(cell: Cell) -> dict[str, TrainingSamples]:
    data, encoding = cell.experiment.data, cell.experiment.encoding
    return {split: samples_of(data, split, encoding) for split in SPLITS}


def _attempt(cell: Cell, directory: Path) -> tuple[str, Outcome | str]:
    """A cell's name and outcome, or the sentence of what the user must mend.

    Torch's generator and number of threads, and standard output, belong to the whole process:
    where workers are threads, one after the other has them.
    """
    with _PROCESS, contextlib.redirect_stdout(sys.stderr), _one_thread(), heeded():
        try:
            outcome = _outcome(cell, RunDirectory(directory / cell.name))
        except UserError as error:
            _say(f"{cell.name}: failed")
            return cell.name, str(error)
        _say(f"{cell.name}: {100 * outcome.accuracy:.2f} % on the test split")
        return cell.name, outcome


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _outcome(cell: Cell, run: RunDirectory) -> Outcome:
    """Do what is left to do for a cell."""
    show = _reporter(cell.name)
    splits = _splits(cell)
    here = samedata.digests(splits)
    if os.path.exists(run.model):  # unlike Path.exists, false for an impossible name
        finished, experiment = load_model(run.model)
        _refuse_another(cell, run, experiment)
        samedata.refuse_others(run.model, finished.data, here)
        run.checkpoint.unlink(missing_ok=True)
    elif os.path.exists(run.checkpoint):
        _refuse_another(cell, run, load_model(run.checkpoint)[1])
        resume(run.path, show)
    else:
        train(cell.experiment, run.path, show)
    saved = densified(modelfile.read(run.model))
    history = read_history(saved.history)
    kept = history[kept_epoch(history)]
    network = export(run.model, run.net, overwrite=True).network
    test, encoding = splits["test"], encoding_of(network)
    pause = max(1, encoding.steps - 1)  # to the end of the sample: neurons fire once
    once = all(layer.neuron.refractory >= pause for layer in network.layers)
    found = evaluate(network, test, encoding, probes=Probes(sops=once))
    assert found.accuracy is not None  # a data set has labels
    outcome = Outcome(
        accuracy=found.accuracy,
        validation_accuracy=kept.validation_accuracy,
        connections=network.connections,
        density=network.density,
        sparse_density=_share(saved.masks),
        exploration=_share(saved.ever),
        sops_per_sample=found.sops_per_sample,
        weights=network.weights,
        most_sops=None if found.sops is None else int(found.sops.max()),
        data=here,
    )
    replace_json(run.outcome, as_values(outcome))
    return outcome


def _stored(cell: Cell, run: RunDirectory) -> Outcome | None:
    """The outcome of a cell that is finished, else None.

    Raises:
        FileError: when its directory is another experiment's, or the outcome damaged.
    """
    if os.path.exists(run.config):
        _refuse_another(cell, run, read_toml(run.config, recorded=True))
    if not os.path.exists(run.outcome):
        return None
    try:
        return _OUTCOME.validate_json(run.outcome.read_bytes())
    except (OSError, MemoryError, ValidationError):
        raise FileError(
            f"{run.outcome}: cannot be read as what a sweep wrote; remove it, and it is made anew"
        ) from None


def _refuse_another(cell: Cell, run: RunDirectory, found: Experiment) -> None:
    """Refuse a directory whose run is not this cell's."""
    needed, held = dict(_flat(cell.experiment)), dict(_flat(found))
    for key in needed:
        if needed[key] != held[key]:
            raise FileError(
                f"{run.path}: holds a run with {key} = {held[key]}, not {needed[key]}; "
                "choose another directory"
            )


def _flat(experiment: Experiment) -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every field."""
    for key, value in experiment.model_dump().items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _rows(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> list[SweepRow]:
    grouped: dict[tuple[tuple[str, str | float], ...], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(tuple(cell.settings.items()), []).append(cell)
    return [
        SweepRow.of(
            dict(settings),
            [cell.experiment.seed for cell in group],
            [outcomes[cell.name] for cell in group],
        )
        for settings, group in grouped.items()
    ]


def _share(masks: Mapping[str, Array]) -> float:
    """Share of true positions of some masks together."""
    size = sum(mask.size for mask in masks.values())
    return sum(int(np.count_nonzero(mask)) for mask in masks.values()) / size


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in torch, and with them a training's last bits, depend on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _reporter(name: str) -> Callable[[TrainingProgress], None]:
    """What says on standard error, now and then, where a run stands."""
    shown = time.monotonic()

    def show(progress: TrainingProgress) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > SHOW_SECONDS:
            shown = now
            _say(f"{name}: epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}")

    return show
