"""What a sweep found: an outcome for each run, a row for each setting over all its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from esl_lava.energy.table1 import Measured, Table1
from esl_lava.results.table2 import Published, Trained
from esl_lava.values import OPTIONAL, Keys, keys

NO_RULE = "none"
"""The setting "prune" or "growth" of a dense network, where no rule has anything to move."""


@dataclass(frozen=True)
class Outcome:
    """What a run's exported network does on the test split, and what was known before.

    Attributes:
        accuracy: of the integer network, 0..1.
        validation_accuracy: of the kept epoch; None where nothing is held back.
        connections, density: of all weight layers.
        sparse_density: weights over positions of the sparse layers.
        exploration: R_s of the kept epoch, of the sparse layers.
        sops_per_sample: counted on the test split.
        weights: of all weight layers; None in files from before they were counted.
        most_sops: of its samples, if neurons fire once; they cannot exceed the connections.
        data: digests of the splits it was trained and evaluated on; none in files from before.
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
"""Of a run in a sweep: done before is what an earlier sweep did."""


@dataclass(frozen=True)
class RunState:
    """Where a run of a sweep stands.

    Attributes:
        name: of its directory.
        stage: as `Stage`.
        host: the machine that does it, or did.
        began, ended: seconds since 1970; None where it was not or nobody knows.
        epoch, epochs: the current one, from 1, and how many there are; None before the first step.
        loss: mean of the current epoch so far; None before, and where it is not finite.
        accuracy: of the exported network on the test split, 0..1, when it is done.
        reason: why it failed.
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
    """What one setting reached.

    Attributes:
        settings: what was varied, name -> value.
        seeds: of its runs; the tuples below are in their order.
        accuracies: of the exported integer networks on the test split, 0..1.
        validation: accuracy of the kept epochs on what was held back, or None.
        connections: between two neurons of the whole network. The seeds share them, and
        density, sparse_density: weights over positions, of the whole network; of the sparse
            layers alone.
        exploration: R_s, mean over the seeds.
        sops: per sample, mean over the seeds.
        weights: of the whole network, where they were counted.
        most_sops: of any sample of any seed, where it was counted.
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
        """The row of some runs that differ in their seeds alone.

        Args:
            settings: what they share.
            seeds, outcomes: of each, at least one.
        """
        first = outcomes[0]
        counted = [found.most_sops for found in outcomes if found.most_sops is not None]
        return cls(
            settings=dict(settings),
            seeds=tuple(seeds),
            accuracies=tuple(found.accuracy for found in outcomes),
            validation=tuple(found.validation_accuracy for found in outcomes),
            connections=first.connections,
            density=first.density,
            sparse_density=first.sparse_density,
            exploration=statistics.fmean(found.exploration for found in outcomes),
            sops=statistics.fmean(found.sops_per_sample for found in outcomes),
            weights=first.weights,
            most_sops=max(counted, default=None),
        )

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the test accuracy; None of a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def validation_accuracy(self) -> float | None:
        """Mean validation accuracy; None where a run held nothing back."""
        known = [value for value in self.validation if value is not None]
        return statistics.fmean(known) if len(known) == len(self.validation) else None


@dataclass(frozen=True)
class Sweep:
    """What a design's runs reached.

    Attributes:
        figure: name of the design.
        config: what every run shares but for what is varied, as TOML; none where they share less.
        rows: one for each setting, of the runs that did not fail.
        failed: a sentence for every run that did.
        paper: its Table 1 from connection counts, where that stands beside.
        measured: the rows of that table by our networks; none where the dense or the sparse
            network is missing.
        published: the paper's Table 2, where that stands beside.
        trained: the rows of that table by our networks.
        densities: of each layer after each epoch of one run, where they are drawn.
        remarks: sentences on what the reader of a table has to know.
    """

    figure: str
    config: str | None
    rows: Sequence[SweepRow]
    failed: Sequence[str]
    paper: Table1 | None = field(default=None, metadata=OPTIONAL)
    measured: Sequence[Measured] | None = field(default=None, metadata=OPTIONAL)
    published: Sequence[Published] | None = field(default=None, metadata=OPTIONAL)
    trained: Sequence[Trained] | None = field(default=None, metadata=OPTIONAL)
    densities: Sequence[Mapping[str, float]] | None = field(default=None, metadata=OPTIONAL)
    remarks: Sequence[str] | None = field(default=None, metadata=OPTIONAL)
