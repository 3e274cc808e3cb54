"""Many runs of one design: each setting and seed a run of its own, resumable and in parallel."""

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
from esl_lava.data.catalogue import samples_of
from esl_lava.data.datasets import SPLITS
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import ConfigError, FileError, UserError
from esl_lava.experiments import samedata
from esl_lava.experiments.evaluate import Probes, encoding_of, evaluate
from esl_lava.experiments.export import export
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.states import going_on, write_state
from esl_lava.experiments.train import resume, train
from esl_lava.experiments.workers import VISIBLE, Crew, EndedError, Worker, gpus, side_by_side
from esl_lava.files import replace_json
from esl_lava.interrupts import heeded
from esl_lava.models.restore import densified
from esl_lava.models.stored import load_model
from esl_lava.results.sweep import Outcome, RunState, Stage, SweepRow
from esl_lava.results.training import kept_epoch, read_history
from esl_lava.sparsity.plan import count_connections
from esl_lava.training.kinds import KINDS
from esl_lava.training.trainer import TrainingProgress
from esl_lava.values import as_values

SHOW_SECONDS = 60.0
"""How often a run in a sweep says where it stands."""

STATE_SECONDS = 2.0
"""How often it writes that down."""

TRIES = 3
"""How often a run is begun or goes on in one sweep, where its process is killed each time."""

MARKER_SECONDS = 10
"""How long a machine of a cluster waits until it sees a sweep's directory."""

LOCAL = ("LokyBackend", "MultiprocessingBackend", "SequentialBackend", "ThreadingBackend")
"""Classes of joblib whose workers are on this machine: what is killed is then seen from here."""

LOST = (
    *("KilledWorker", "FutureCancelledError", "CancelledError"),  # of Dask
    *("ActorDiedError", "RayActorError"),
)
"""Classes of errors that say that what did a run was lost; Dask has then tried several times."""


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


_ONE = threading.Lock()

_Found: TypeAlias = Outcome | str
"""Of a run: what it reached, or why it failed."""

_OUTCOME = TypeAdapter(Outcome)


def sweep(
    cells: Sequence[Cell],
    directory: Path,
    tell: Callable[[str], None],
    jobs: int | None = None,
    lines: bool = True,
) -> tuple[list[SweepRow], list[str]]:
    """Train, export and evaluate every cell that has not been yet.

    Each run trains on one thread, so that the numbers do not depend on `jobs`. What
    an interrupted sweep has finished is not done again, and what it has begun goes on.
    Where more than one is done at the same time, each is in a process of its own; when
    that is killed, the run goes on in another, up to `TRIES` times in all. Runs that want a GPU
    have one each to themselves, and there are no more of them at a time than GPUs.

    Args:
        cells: of distinct names.
        directory: holds a run directory for each; one that workers share when
            `joblib.parallel_config` names a cluster.
        tell: given a line about what is finished already.
        jobs: processes, as joblib counts them: -1 is one a core, None what
            `joblib.parallel_config` says, or else 1. A cluster has as many as it has threads.
        lines: whether what goes on is said on standard error where it is done. It can be
            read through `states.read_states` too.

    Returns:
        A row for every distinct settings, in the order of the cells, over the runs that did
        not fail; and for every run that did its name and the reason.

    Raises:
        ConfigError: when two cells have one name, or the masks of the first that is left with
            some data cannot be drawn.
        DataError: when what is finished was made with other data than what is left would be.
        FileError: when the directory holds runs of another experiment, or cannot be made.
        UserError: when a cluster lost what did a run, again and again.
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
    with going_on(directory, [cell.name for cell in cells]) as marker:
        found = _spread(left, _Place(directory, marker, lines), jobs)
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


@dataclass(frozen=True)
class _Place:
    """Where the runs of a sweep are done.

    Attributes:
        directory: of the sweep.
        marker: a file that is there as long as the sweep goes on.
        lines: whether where they stand is said on standard error.
        far: whether whoever does them may outlive the sweep.
    """

    directory: Path
    marker: Path
    lines: bool
    far: bool = False


def _spread(cells: Sequence[Cell], place: _Place, jobs: int | None) -> list[tuple[str, _Found]]:
    """What was found of each cell, by whatever workers there are."""
    if not cells:
        return []
    backend, configured = get_active_backend()
    if type(backend).__name__ not in LOCAL:
        # All at once, one by one: what joins the cluster later finds work too.
        pool = joblib.Parallel(pre_dispatch="all", batch_size=1)
        try:
            return pool(joblib.delayed(_far)(cell, replace(place, far=True)) for cell in cells)
        except Exception as error:
            if type(error).__name__ not in LOST:
                raise
            raise UserError(
                "the cluster lost what did a run; the same command goes on where it was "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            ) from None
    wanted = joblib.effective_n_jobs(configured if jobs is None else jobs)
    devices = _gpus() if any(map(wants_gpu, cells)) else ()
    count = side_by_side(wanted, len(cells), devices)
    if count == 1:
        return [(cell.name, _attempt(cell, place)) for cell in cells]
    with contextlib.closing(Crew(devices)) as crew:
        # Threads, each of which waits for a process that does its run.
        pool = joblib.Parallel(count, backend="threading", pre_dispatch="all", batch_size=1)
        return pool(joblib.delayed(_kept)(cell, place, crew) for cell in cells)


def wants_gpu(cell: Cell) -> bool:
    """Whether a cell trains on a GPU where there is one."""
    training = cell.experiment.training
    served = KINDS[cell.experiment.model.kind].on_gpu and training.engine == "fused"
    return training.device == "cuda" or (training.device == "auto" and served)


@cache
def _gpus() -> tuple[str, ...]:
    return gpus(os.environ.get(VISIBLE), torch.cuda.device_count())


@cache
def _crew() -> Crew:
    """That of a process in a cluster, for all its threads and sweeps; asked for under `_ONE`."""
    return Crew(_gpus())


def _kept(cell: Cell, place: _Place, crew: Crew) -> tuple[str, _Found]:
    """A cell's name and what was found of it in a process, or in the next when it is killed."""
    on_gpu = wants_gpu(cell)
    for left in reversed(range(TRIES)):
        try:
            with crew.worker(on_gpu) as worker, _ends_with_the_sweep(worker, place):
                return cell.name, worker.do(_attempt, cell, place)
        except EndedError as ended:
            if crew.closed or not os.path.exists(place.marker):
                break
            again = f"; it goes on in another, which may happen {left} times more" if left else ""
            _say(f"{cell.name}: the process {ended}{again}")
            fault = f"the process {ended}, {TRIES} times, perhaps for want of memory"
    else:
        fault += "; the same command with fewer --jobs goes on where it was"
        write_state(place.directory, _state_of(cell, "failed", reason=fault))
        return cell.name, fault
    return cell.name, "the sweep was ended"


def _far(cell: Cell, place: _Place) -> tuple[str, _Found]:
    """As `_kept`, on a machine of a cluster."""
    for _ in range(MARKER_SECONDS):
        if os.path.exists(place.marker):
            with _ONE:  # two crews would hand out each GPU twice
                crew = _crew()
            return _kept(cell, place, crew)
        time.sleep(1)
    return cell.name, (
        f"{place.directory}: is not seen on {socket.gethostname()}; the machines of a cluster "
        "must share the directory of a sweep"
    )


@contextlib.contextmanager
def _ends_with_the_sweep(worker: Worker, place: _Place) -> Iterator[None]:
    """Within it a worker far from the sweep ends when that does, whatever ended it."""
    if not place.far:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            if not os.path.exists(place.marker):
                worker.close()
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def _attempt(cell: Cell, place: _Place) -> _Found:
    """A cell's outcome, or the sentence of what the user must mend.

    Torch's generator and number of threads, and standard output, belong to the whole process.
    """
    state = _state_of(cell, "running", began=time.time())
    write_state(place.directory, state)
    report = _reporter(state, place)
    found: _Found
    with contextlib.redirect_stdout(sys.stderr), _one_thread(), heeded():
        try:
            found = _outcome(cell, RunDirectory(place.directory / cell.name), report)
        except UserError as error:
            found, line = str(error), "failed"
            state = replace(state, stage="failed", reason=str(error))
        else:
            line = f"{100 * found.accuracy:.2f} % on the test split"
            state = replace(state, stage="done", accuracy=found.accuracy)
    write_state(place.directory, replace(state, ended=time.time()))
    if place.lines:
        _say(f"{cell.name}: {line}")
    return found


def _state_of(cell: Cell, stage: Stage, **known: Any) -> RunState:
    return RunState(cell.name, stage, socket.gethostname(), **known)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _outcome(cell: Cell, run: RunDirectory, show: Callable[[TrainingProgress], None]) -> Outcome:
    """Do what is left to do for a cell."""
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


def _reporter(state: RunState, place: _Place) -> Callable[[TrainingProgress], None]:
    """What says, now and then, where a run stands: in its file, and on standard error."""
    shown = time.monotonic()
    written = -math.inf

    def show(progress: TrainingProgress) -> None:
        nonlocal shown, written
        now = time.monotonic()
        if now - written > STATE_SECONDS:
            written = now
            loss = progress.loss if math.isfinite(progress.loss) else None
            at = replace(state, epoch=progress.epoch, epochs=progress.epochs, loss=loss)
            write_state(place.directory, at)
        if place.lines and now - shown > SHOW_SECONDS:
            shown = now
            _say(
                f"{state.name}: epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
            )

    return show
