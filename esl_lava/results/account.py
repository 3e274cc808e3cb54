"""The account of a finished run: all that a report says of it; docs/report.md lists its keys.

None of it depends on the clock or on where the run lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from esl_lava.arrays import Array, Bytes, Floats
from esl_lava.config import Experiment, to_toml
from esl_lava.energy.table1 import PaperRow
from esl_lava.energy.training import TrainingCost
from esl_lava.models.config import Convolutional
from esl_lava.network import Convolution, Matrix, Network
from esl_lava.results.evaluation import Evaluation, Recording
from esl_lava.results.firing import remarks
from esl_lava.results.mapped import Mapped
from esl_lava.results.price import Disagreement, Price, energies
from esl_lava.results.training import Epoch, MaskUpdate, kept_epoch
from esl_lava.results.verification import Verification
from esl_lava.simulate.result import NO_DECISION
from esl_lava.values import Keys, as_values, keys


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample, as a network sees it.

    Attributes:
        run: of the network on it.
        image: uint8 (rows, columns), in colour (rows, columns, 3); None where it is no image.
        label: the true class.
    """

    KEYS: ClassVar[Keys] = keys("label decision")

    run: Recording
    image: Bytes | None
    label: int

    @property
    def decision(self) -> int | None:
        """The class that the network decides on; None where nothing decides."""
        return None if self.run.decision == NO_DECISION else self.run.decision


@dataclass(frozen=True, eq=False)
class ShownLayer:
    """The layer whose connections a report shows.

    Attributes:
        layer: its name.
        place: in the network, from 0.
        connections: of it.
    """

    KEYS: ClassVar[Keys] = keys("layer fan_in fan_out")

    layer: str
    place: int
    connections: Matrix

    @property
    def fan_in(self) -> tuple[int, float, int]:
        """Least, mean and most connections of a neuron."""
        return _spread(np.diff(self.connections.indptr))

    @property
    def fan_out(self) -> tuple[int, float, int]:
        """Least, mean and most connections of an input."""
        return _spread(np.bincount(self.connections.indices, minlength=self.connections.n_pre))


def _spread(counts: Array) -> tuple[int, float, int]:
    return int(counts.min()), float(counts.mean()), int(counts.max())


@dataclass(frozen=True)
class Misfit:
    """A network on a chip that cannot hold it.

    Attributes:
        chip: the device's name.
        violations: of its limits, a sentence each.
    """

    chip: str
    violations: tuple[str, ...]


@dataclass(frozen=True)
class OwnRow:
    """A network of the size of the paper's Table 1, beside it.

    Attributes:
        accuracy: 0..1.
        density: weights over positions.
        connections: of the network.
        sops: of a mean sample.
        gpu, truenorth: joules by the paper's convention.
        gpu_by_sops, truenorth_by_sops: joules with `sops` in the place of connections.
    """

    accuracy: float | None
    density: float
    connections: int
    sops: float
    gpu: float
    truenorth: float
    gpu_by_sops: float
    truenorth_by_sops: float


@dataclass(frozen=True)
class BesideTable1:
    """The paper's Table 1, and a network beside it.

    Attributes:
        paper: the rows as printed.
        ours: the network.
        remarks: on what does not add up in the table.
    """

    paper: tuple[PaperRow, ...]
    ours: OwnRow
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Account:
    """A run as a report has it.

    Attributes:
        config: the experiment.
        trained_by: version of esl-lava that trained it.
        network: exported from the model.
        evaluation: of the network on the whole test split.
        history: the epochs of the training.
        updates: of its masks.
        sparse_density: of the layers made sparse alone; None where there is none.
        layer: whose connections are shown, if any is a matrix.
        sample: the first of the test split, run.
        verification: of some samples of that; None where what it needs is not installed.
        prices: device -> joules of the evaluation.
        disagreements: among the prices.
        cost: what the training took.
        table1: the paper's beside the network; None where it is not the paper's network.
        core_maps: chip -> where the network lies, or why it does not.
        digests: SHA-256 of the model's file, and of what net.h5 means.
    """

    KEYS: ClassVar[Keys] = keys(
        "title evaluation.accuracy evaluation.samples evaluation.dataset evaluation.split "
        "model=config.model.kind config.encoding.steps network.density sparse_density "
        "network.weights network.connections network.synapses evaluation.sops_per_sample "
        "evaluation.spikes_per_sample evaluation.result.counts.layers evaluation.firing "
        "firing_remarks kept.validation_accuracy "
        "kept_epoch=kept.epoch history updates connectivity=layer sample "
        "samples_verified=verification.samples spikes_compared=verification.spikes "
        "positions_compared=verification.positions differences=verification.total "
        "verification=reported_verification devices disagreements training=cost table1 "
        "core_maps=reported_maps config config_toml trained_by digests"
    )

    config: Experiment
    trained_by: str
    network: Network
    evaluation: Evaluation
    history: Sequence[Epoch]
    updates: Sequence[MaskUpdate]
    sparse_density: float | None
    layer: ShownLayer | None
    sample: Sample
    verification: Verification | None
    prices: Mapping[str, Price]
    disagreements: Sequence[Disagreement]
    cost: TrainingCost
    table1: BesideTable1 | None
    core_maps: Mapping[str, Mapped | Misfit]
    digests: Mapping[str, str]

    @property
    def title(self) -> str:
        """The data set and the layers: as they were written, or fully connected ones by size."""
        if isinstance(self.config.model, Convolutional):
            return f"{self.evaluation.dataset}, {self.config.model.layers}"
        sizes = (self.network.inputs, *(layer.neurons for layer in self.network.layers))
        return f"{self.evaluation.dataset}, {'-'.join(map(str, sizes))}"

    @property
    def kernels(self) -> dict[str, Floats]:
        """Name of trained kernels -> share of each that exists, (kernels, channels) 0..1."""
        return {
            given.origin.name if given.origin else layer.name: given.connections.mask().mean((2, 3))
            for layer in self.network.layers
            for given in layer.inputs
            if isinstance(given.connections, Convolution)
            and (given.origin is None or given.origin.name)
        }

    @property
    def firing_remarks(self) -> list[str]:
        """On layers of which many neurons are silent or saturated, a sentence each."""
        return remarks(self.network, self.evaluation.firing)

    @property
    def kept(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.history[kept_epoch(self.history)]

    @property
    def reported_verification(self) -> dict[str, object] | None:
        """The verification without its totals, which the account has as its own."""
        if self.verification is None:
            return None
        found, own = self.verification, {"samples", "spikes", "positions", "total"}
        told = {key: value for key, value in as_values(found).items() if found.KEYS[key] not in own}
        return {"reference": found.reference, "backends": found.backends, **told}

    @property
    def devices(self) -> dict[str, dict[str, object]]:
        """Device -> its price, with what a reader of the page needs of the device."""
        return {
            name: {
                **as_values(price),
                "title": price.device.title,
                "notes": price.device.notes,
                "constants": energies(price.device),
            }
            for name, price in self.prices.items()
        }

    @property
    def reported_maps(self) -> dict[str, dict[str, object]]:
        """Chip -> where the network lies and that it fits, or why it does not."""
        return {
            chip: {"fits": isinstance(found, Mapped), **as_values(found)}
            for chip, found in self.core_maps.items()
        }

    @property
    def config_toml(self) -> str:
        """The experiment as TOML."""
        return to_toml(self.config)


@dataclass(frozen=True)
class Place:
    """A run among others, by what it costs on a device.

    Attributes:
        run: its name.
        joules_per_sample, accuracy: where it lies; accuracy 0..1.
        pareto: whether no run on its data set is at least as good in both and better in one.
    """

    run: str
    joules_per_sample: float
    accuracy: float
    pareto: bool


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        datasets: the names of their data sets.
        devices: device -> the place of every run.
    """

    datasets: Sequence[str]
    devices: Mapping[str, Sequence[Place]]
