"""Do the runs of a sweep, one for each setting and seed, in parallel. A sweep can be resumed."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import numpy as np
import torch
from joblib.parallel import get_active_backend
from pydantic import TypeAdapter, ValidationError

from esl_lava import modelfile
from esl_lava.arrays import Array
from esl_lava.config import Experiment, read_toml
from esl_lava.data.catalogue import load_configured
from esl_lava.data.datasets import SPLITS
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import ConfigError, FileError, UserError
from esl_lava.experiments import samedata
from esl_lava.experiments.evaluate import Probes, encoding_of, evaluate
from esl_lava.experiments.export import export
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.states import mark_running, write_state
from esl_lava.experiments.train import resume, train
from esl_lava.experiments.workers import VISIBLE, Crew, EndedError, Worker, gpus, parallel_runs
from esl_lava.files import open_regular, replace_json
from esl_lava.interrupts import reraise_dropped_interrupts
from esl_lava.models.restore import densified
from esl_lava.models.stored import load_model
from esl_lava.printable import make_printable
from esl_lava.results.sweep import Outcome, RunState, Stage, SweepRow
from esl_lava.results.training import kept_epoch, read_history
from esl_lava.sparsity.plan import count_connections
from esl_lava.training.kinds import KINDS
from esl_lava.training.trainer import TrainingProgress
from esl_lava.values import as_values

SHOW_SECONDS = 60.0
"""Time between two lines of a run about its progress."""

STATE_SECONDS = 2.0
"""Time between two writes of a run's state file."""

TRIES = 3
"""A sweep starts or resumes a run at most this many times if its process is killed."""

MARKER_SECONDS = 10
"""A machine of a cluster waits this many seconds for the directory of a sweep to appear."""

LOCAL = ("LokyBackend", "MultiprocessingBackend", "SequentialBackend", "ThreadingBackend")
"""The backends of joblib with workers on this machine. This process sees if they are killed."""

LOST = (
    *("KilledWorker", "FutureCancelledError", "CancelledError"),  # from Dask
    *("ActorDiedError", "RayActorError"),  # from Ray
)
"""Names of errors by which Dask and Ray report a lost worker. Dask has tried several times."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        settings: name -> value of what the sweep varies; runs that differ only in the seed have
            equal settings.
        experiment: the whole experiment.
    """

    settings: Mapping[str, str | float]
    experiment: Experiment

    @property
    def name(self) -> str:
        """Name of the run and of its directory, e.g. eps-60_seed-1."""
        parts = [
            f"{key}-{value if isinstance(value, str) else format(value, 'g')}"
            for key, value in self.settings.items()
        ]
        return "_".join([*parts, f"seed-{self.experiment.seed}"])


_CREW_LOCK = threading.Lock()

_OutcomeOrReason: TypeAlias = Outcome | str
"""The outcome of a run, or the reason why it failed."""

_OUTCOME = TypeAdapter(Outcome)


def sweep(
    cells: Sequence[Cell],
    directory: Path,
    tell: Callable[[str], None],
    jobs: int | None = None,
    lines: bool = True,
) -> tuple[list[SweepRow], list[str]]:
    """Train, export and evaluate every run that is not finished yet.

    Each run trains on one thread, so that the results do not depend on `jobs`. An interrupted sweep
    can be resumed: finished runs are kept, and unfinished runs continue. If several runs are done
    at the same time, each has a process of its own. If this process is killed, the run continues in
    another process, up to `TRIES` times in total. Runs that use a GPU get one GPU each, so at most
    as many of them run at the same time as there are GPUs.

    Args:
        cells: the runs; their names differ.
        directory: directory of the sweep, with a run directory for each run. On a cluster, all
            machines must share it.
        tell: called with a line about finished runs.
        jobs: number of processes as joblib counts them: -1 is one per core; None takes the value of
            `joblib.parallel_config`, else 1. A cluster uses all its threads.
        lines: whether each process writes lines about progress to its standard error. The progress
            can always be read with `states.read_states`.

    Returns:
        A row for each setting, in the order of the runs, over the runs that did not fail; and a
        sentence for each run that failed, with its name and the reason.

    Raises:
        ConfigError: if two runs have the same name, or masks cannot be drawn. For each data set,
            the masks of the first unfinished run are checked.
        DataError: if the data differ from those of a finished run.
        FileError: if the directory holds runs of another experiment, or cannot be created.
        UserError: if a cluster lost a worker again and again.
    """
    doubled = [name for name, times in Counter(cell.name for cell in cells).items() if times > 1]
    if doubled:
        raise ConfigError(
            f"two runs of the sweep would have the same name {doubled[0]}",
            "conflict",
            value=doubled[0],
        )
    directory = directory.absolute()  # a worker may have another working directory
    outcomes: dict[str, Outcome] = {}
    unfinished = []
    for cell in cells:
        stored = _stored(cell, RunDirectory(directory / cell.name))
        if stored is None:
            unfinished.append(cell)
        else:
            outcomes[cell.name] = stored
    # Most errors concern all runs on the same data: report them once, before hours of work.
    for first in {_data_of(cell): cell for cell in reversed(unfinished)}.values():
        splits = _splits(first)
        experiment, data = first.experiment, splits["train"]
        topology = experiment.model.describe(data.shape, data.classes)
        count_connections(topology, experiment.sparsity)
        digests = samedata.digests(splits)
        for cell in cells:
            if cell.name in outcomes and _data_of(cell) == _data_of(first):
                where = RunDirectory(directory / cell.name).outcome
                samedata.refuse_other_data(where, outcomes[cell.name].data, digests)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{directory}: cannot create the directory: {error.strerror}",
            "unwritable",
            file=directory,
        ) from None
    if outcomes:
        tell(f"{len(outcomes)} of {len(cells)} runs are already finished")
    with mark_running(directory, [cell.name for cell in cells]) as marker:
        results = _do_all(unfinished, _Place(directory, marker, lines), jobs)
    failures = [f"{name}: {outcome}" for name, outcome in results if isinstance(outcome, str)]
    outcomes |= {name: outcome for name, outcome in results if not isinstance(outcome, str)}
    return _rows([cell for cell in cells if cell.name in outcomes], outcomes), failures


def _data_of(cell: Cell) -> tuple[str, str | None, str]:
    """Return a key of the samples of a run: equal keys mean equal samples."""
    data = cell.experiment.data
    return data.name, data.folder, cell.experiment.encoding.model_dump_json()


def _splits(cell: Cell) -> dict[str, TrainingSamples]:
    data, encoding = cell.experiment.data, cell.experiment.encoding
    return {split: load_configured(data, split, encoding) for split in SPLITS}


@dataclass(frozen=True)
class _Place:
    """The place where the runs of a sweep are done.

    Attributes:
        directory: directory of the sweep.
        marker: a file that exists as long as the sweep is running.
        lines: whether progress is written to standard error.
        remote: whether a cluster does the runs. Its workers can outlive the sweep.
    """

    directory: Path
    marker: Path
    lines: bool
    remote: bool = False


def _do_all(
    cells: Sequence[Cell], place: _Place, jobs: int | None
) -> list[tuple[str, _OutcomeOrReason]]:
    """Do all runs, on a cluster or here, and return the name and the outcome of each."""
    if not cells:
        return []
    backend, configured = get_active_backend()
    if type(backend).__name__ not in LOCAL:
        # All tasks are sent at once, each alone, so machines that join later find work too.
        pool = joblib.Parallel(pre_dispatch="all", batch_size=1)
        try:
            return pool(
                joblib.delayed(_do_on_cluster)(cell, replace(place, remote=True)) for cell in cells
            )
        except Exception as error:
            if type(error).__name__ not in LOST:
                raise
            raise UserError(
                "the cluster lost the worker of a run; give the same command again to continue "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]})",
                "failed",
            ) from None
    processes = joblib.effective_n_jobs(configured if jobs is None else jobs)
    devices = _gpus() if any(map(wants_gpu, cells)) else ()
    count = parallel_runs(processes, len(cells), devices)
    if count == 1:
        return [(cell.name, _attempt(cell, place)) for cell in cells]
    with contextlib.closing(Crew(devices)) as crew:
        # Each thread waits for the process that does its run.
        pool = joblib.Parallel(count, backend="threading", pre_dispatch="all", batch_size=1)
        return pool(joblib.delayed(_do_in_process)(cell, place, crew) for cell in cells)


def wants_gpu(cell: Cell) -> bool:
    """Return whether a run trains on a GPU if there is one."""
    training = cell.experiment.training
    supported = KINDS[cell.experiment.model.kind].on_gpu and training.engine == "fused"
    return training.device == "cuda" or (training.device == "auto" and supported)


@cache
def _gpus() -> tuple[str, ...]:
    return gpus(os.environ.get(VISIBLE), torch.cuda.device_count())


@cache
def _crew() -> Crew:
    """Return the only crew of a process of a cluster. Callers hold `_CREW_LOCK`."""
    return Crew(_gpus())


def _do_in_process(cell: Cell, place: _Place, crew: Crew) -> tuple[str, _OutcomeOrReason]:
    """Do a run in a worker process. If the process is killed, continue the run in another."""
    on_gpu = wants_gpu(cell)
    for tries_left in reversed(range(TRIES)):
        try:
            with crew.worker(on_gpu) as worker, _end_with_sweep(worker, place):
                return cell.name, worker.do(_attempt, cell, place)
        except EndedError as ended:
            if crew.closed or not os.path.exists(place.marker):
                break
            again = (
                f"; the run continues in another ({tries_left} tries left)" if tries_left else ""
            )
            _print(f"{cell.name}: the process {ended}{again}")
            reason = f"the process {ended}, {TRIES} times, perhaps because of too little memory"
    else:
        reason += "; give the same command with fewer --jobs to continue"
        write_state(place.directory, _state_of(cell, "failed", reason=reason))
        return cell.name, reason
    return cell.name, "the sweep was ended"


def _do_on_cluster(cell: Cell, place: _Place) -> tuple[str, _OutcomeOrReason]:
    """Do a run on a machine of a cluster, as `_do_in_process`."""
    for _ in range(MARKER_SECONDS):
        if os.path.exists(place.marker):
            with _CREW_LOCK:  # two crews would give each GPU to two runs
                crew = _crew()
            return _do_in_process(cell, place, crew)
        time.sleep(1)
    return cell.name, (
        f"{place.directory}: the directory does not exist on {socket.gethostname()}; all machines "
        "of a cluster must share the directory of a sweep"
    )


@contextlib.contextmanager
def _end_with_sweep(worker: Worker, place: _Place) -> Iterator[None]:
    """End a worker of a cluster when its sweep ends for any reason, while the context is open."""
    if not place.remote:
        yield
        return
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(1):
            if not os.path.exists(place.marker):
                worker.close()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _attempt(cell: Cell, place: _Place) -> _OutcomeOrReason:
    """Do a run and return its outcome, or the sentence of the error that the user can repair.

    This changes torch's generator and threads and standard output for the whole process.
    """
    state = _state_of(cell, "running", began=time.time())
    write_state(place.directory, state)
    report = _reporter(state, place)
    outcome: _OutcomeOrReason
    with contextlib.redirect_stdout(sys.stderr), _one_thread(), reraise_dropped_interrupts():
        try:
            outcome = _do(cell, RunDirectory(place.directory / cell.name), report)
        except UserError as error:
            outcome = "; ".join(fault.sentence for fault in error.faults)
            line = "failed"
            state = replace(state, stage="failed", reason=outcome)
        else:
            line = f"{100 * outcome.accuracy:.2f} % on the test split"
            state = replace(state, stage="done", accuracy=outcome.accuracy)
    write_state(place.directory, replace(state, ended=time.time()))
    if place.lines:
        _print(f"{cell.name}: {line}")
    return outcome


def _state_of(cell: Cell, stage: Stage, **fields: Any) -> RunState:
    return RunState(cell.name, stage, socket.gethostname(), **fields)


def _print(line: str) -> None:
    print(make_printable(line), file=sys.stderr, flush=True)


def _do(cell: Cell, run: RunDirectory, show: Callable[[TrainingProgress], None]) -> Outcome:
    """Do the unfinished steps of a run: training, export and evaluation."""
    splits = _splits(cell)
    digests = samedata.digests(splits)
    if os.path.exists(run.model):  # unlike Path.exists, false for an impossible name
        trained, experiment = load_model(run.model)
        _refuse_another(cell, run, experiment)
        samedata.refuse_other_data(run.model, trained.data, digests)
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
    rest = max(1, encoding.steps - 1)  # a refractory period to the end of the sample
    once = all(layer.neuron.refractory >= rest for layer in network.layers)
    evaluation = evaluate(network, test, encoding, probes=Probes(sops=once))
    assert evaluation.accuracy is not None  # a data set has labels
    outcome = Outcome(
        accuracy=evaluation.accuracy,
        validation_accuracy=kept.validation_accuracy,
        connections=network.connections,
        density=network.density,
        sparse_density=_density(saved.masks),
        exploration=_density(saved.ever),
        sops_per_sample=evaluation.sops_per_sample,
        weights=network.weights,
        most_sops=None if evaluation.sops is None else int(evaluation.sops.max()),
        data=digests,
    )
    replace_json(run.outcome, as_values(outcome))
    return outcome


def _stored(cell: Cell, run: RunDirectory) -> Outcome | None:
    """Return the outcome of a finished run, else None.

    Raises:
        FileError: if the directory holds another experiment, or the outcome is damaged.
    """
    if os.path.exists(run.config):
        _refuse_another(cell, run, read_toml(run.config, recorded=True))
    if not os.path.exists(run.outcome):
        return None
    try:
        with open_regular(run.outcome) as file:
            return _OUTCOME.validate_json(file.read())
    except (OSError, MemoryError, ValidationError):
        raise FileError(
            f"{run.outcome}: is not the outcome of a run; remove the file to compute it again",
            "damaged",
            file=run.outcome,
        ) from None


def _refuse_another(cell: Cell, run: RunDirectory, stored: Experiment) -> None:
    """Check that the experiment in a run directory is that of the run.

    Raises:
        FileError: if a key differs.
    """
    expected, actual = dict(_flat(cell.experiment)), dict(_flat(stored))
    for key in expected:
        if expected[key] != actual[key]:
            raise FileError(
                f"{run.path}: the directory holds a run with {key} = {actual[key]}, not "
                f"{expected[key]}; choose another directory",
                "mismatch",
                key=key,
                value=actual[key],
                limit=expected[key],
                file=run.path,
            )


def _flat(experiment: Experiment) -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value) of every field."""
    for key, value in experiment.model_dump().items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _rows(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> list[SweepRow]:
    """Return one row for each setting, over its seeds."""
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


def _density(masks: Mapping[str, Array]) -> float:
    """Return the share of true positions over all masks together."""
    size = sum(mask.size for mask in masks.values())
    return sum(int(np.count_nonzero(mask)) for mask in masks.values()) / size


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread of torch. The last bits of its sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _reporter(state: RunState, place: _Place) -> Callable[[TrainingProgress], None]:
    """Return a function that writes the progress of a run to its file and to standard error."""
    printed = time.monotonic()
    written = -math.inf

    def show(progress: TrainingProgress) -> None:
        nonlocal printed, written
        now = time.monotonic()
        if now - written > STATE_SECONDS:
            written = now
            loss = progress.loss if math.isfinite(progress.loss) else None
            current = replace(state, epoch=progress.epoch, epochs=progress.epochs, loss=loss)
            write_state(place.directory, current)
        if place.lines and now - printed > SHOW_SECONDS:
            printed = now
            _print(
                f"{state.name}: epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
            )

    return show
