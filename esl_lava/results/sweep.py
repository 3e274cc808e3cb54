"""The results of a sweep: an outcome for each run, and a row for each setting over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from esl_lava.energy.table1 import MeasuredNetwork, Table1
from esl_lava.results.table2 import PublishedRow, TrainedRow
from esl_lava.values import OPTIONAL, Keys, keys

NO_RULE = "none"
"""Value of the settings "prune" and "growth" of a dense network, which has no rules."""


@dataclass(frozen=True)
class Outcome:
    """The results of one run: its training and its exported network on the test split.

    Attributes:
        accuracy: test accuracy of the integer network, 0..1.
        validation_accuracy: accuracy of the kept epoch on the validation samples, 0..1; None if
            there are none.
        connections: connections of all weight layers.
        density: weights over positions of all weight layers.
        sparse_density: weights over positions of the sparse layers.
        exploration: R_s at the kept epoch: the share of positions of the sparse layers that were a
            connection at some time, 0..1.
        sops_per_sample: mean SOPs per test sample.
        weights: weights of all weight layers; None in files of versions that did not count them.
        most_sops: largest SOPs of a test sample, if neurons fire once; at most the connections.
        data: split -> digest of the data of the run; empty in files of versions without digests.
    """

    accuracy: float
    validation_accuracy: float | None
    connections: int
    density: float
    sparse_density: float
    exploration: float
    sops_per_sample: float
    weights: int | None = None
    most_sops: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)


Stage = Literal["waiting", "running", "done", "done before", "failed"]
"""The stage of a run in a sweep. "done before": an earlier sweep finished the run."""


@dataclass(frozen=True)
class RunState:
    """The state of one run of a sweep.

    Attributes:
        name: name of its directory.
        stage: the stage of the run.
        host: the machine that does the run or did it.
        began, ended: seconds since 1970; None if the run has not begun or ended, or the time is
            unknown.
        epoch: the current epoch, from 1; None before the first step.
        epochs: the number of epochs; None before the first step.
        loss: mean loss of the current epoch so far; None before the first step, and if the loss
            is not finite.
        accuracy: test accuracy of the exported network, 0..1; None until the run is done.
        reason: the reason why the run failed.
    """

    name: str
    stage: Stage
    host: str | None = None
    began: float | None = None
    ended: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class SweepRow:
    """The results of one setting over all its seeds.

    Attributes:
        settings: name -> value of what the sweep varies.
        seeds: seeds of the runs; the tuples below have the same order.
        accuracies: test accuracy of each exported integer network, 0..1.
        validation: validation accuracy of each kept epoch, 0..1; None without a validation split.
        connections: connections of the whole network, mean over the seeds, rounded. Only networks
            with convolutions have numbers that depend on the seed.
        density: weights over positions of the whole network, equal for all seeds.
        sparse_density: weights over positions of the sparse layers, equal for all seeds.
        exploration: R_s (see `Outcome`), mean over the seeds.
        sops: SOPs per sample, mean over the seeds.
        weights: weights of the whole network; None if they were not counted.
        most_sops: largest SOPs of a sample over all seeds; None if they were not counted.
    """

    KEYS: ClassVar[Keys] = keys(
        "settings seeds accuracy accuracy_spread=spread accuracies validation_accuracy "
        "validation_accuracies=validation connections weights density sparse_density exploration "
        "sops_per_sample=sops most_sops"
    )

    settings: Mapping[str, str | float]
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    validation: tuple[float | None, ...]
    connections: int
    density: float
    sparse_density: float
    exploration: float
    sops: float
    weights: int | None = None
    most_sops: int | None = None

    @classmethod
    def of(
        cls, settings: Mapping[str, str | float], seeds: Sequence[int], outcomes: Sequence[Outcome]
    ) -> SweepRow:
        """Return the row of runs that differ only in their seeds.

        Args:
            settings: the settings of all runs.
            seeds, outcomes: one of each for every run; at least one.
        """
        first = outcomes[0]
        counted = [one.most_sops for one in outcomes if one.most_sops is not None]
        return cls(
            settings=dict(settings),
            seeds=tuple(seeds),
            accuracies=tuple(one.accuracy for one in outcomes),
            validation=tuple(one.validation_accuracy for one in outcomes),
            connections=round(statistics.fmean(one.connections for one in outcomes)),
            density=first.density,
            sparse_density=first.sparse_density,
            exploration=statistics.fmean(one.exploration for one in outcomes),
            sops=statistics.fmean(one.sops_per_sample for one in outcomes),
            weights=first.weights,
            most_sops=max(counted, default=None),
        )

    @property
    def accuracy(self) -> float:
        """Mean test accuracy, 0..1."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the test accuracy; None for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def validation_accuracy(self) -> float | None:
        """Mean validation accuracy, 0..1; None if a run has no validation split."""
        known = [value for value in self.validation if value is not None]
        return statistics.fmean(known) if len(known) == len(self.validation) else None


@dataclass(frozen=True)
class Sweep:
    """The results of all runs of a design.

    Attributes:
        figure: name of the design.
        config: the experiment of all runs as TOML, apart from the varied keys; None if the runs
            share no experiment.
        rows: one row for each setting, over the runs that did not fail.
        failed: one sentence for each run that failed.
        paper: the paper's Table 1, computed from connection counts; only for table1.
        measured: the rows of our networks for Table 1; empty if the dense or the sparse network is
            missing.
        published: the paper's Table 2; only for table2.
        trained: the rows of our networks for Table 2.
        densities: for each epoch of one run, layer -> density; only for fig3.
        remarks: sentences that the reader of the table has to know.
    """

    figure: str
    config: str | None
    rows: Sequence[SweepRow]
    failed: Sequence[str]
    paper: Table1 | None = field(default=None, metadata=OPTIONAL)
    measured: Sequence[MeasuredNetwork] | None = field(default=None, metadata=OPTIONAL)
    published: Sequence[PublishedRow] | None = field(default=None, metadata=OPTIONAL)
    trained: Sequence[TrainedRow] | None = field(default=None, metadata=OPTIONAL)
    densities: Sequence[Mapping[str, float]] | None = field(default=None, metadata=OPTIONAL)
    remarks: Sequence[str] | None = field(default=None, metadata=OPTIONAL)
