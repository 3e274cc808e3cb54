"""The account of a finished run: everything that its report shows.

docs/report.md lists the keys of the JSON. The account depends neither on the clock nor on the
path of the run.
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
from esl_lava.results.mapped import MappedNetwork
from esl_lava.results.price import Disagreement, Price, energies
from esl_lava.results.training import Epoch, MaskUpdate, kept_epoch
from esl_lava.results.verification import Verification
from esl_lava.simulate.result import NO_DECISION
from esl_lava.values import Keys, as_values, keys


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample and the run of a network on it.

    Attributes:
        run: the recorded run of the network on the sample.
        image: uint8 (rows, columns), in colour (rows, columns, 3); None if the sample is no image.
        label: the true class.
    """

    KEYS: ClassVar[Keys] = keys("label decision")

    run: Recording
    image: Bytes | None
    label: int

    @property
    def decision(self) -> int | None:
        """The class that the network decides on; None if it makes no decision."""
        return None if self.run.decision == NO_DECISION else self.run.decision


@dataclass(frozen=True, eq=False)
class ShownLayer:
    """The layer whose connections a report shows.

    Attributes:
        layer: name of the layer.
        place: index of the layer in the network, from 0.
        connections: the matrix of its first input.
    """

    KEYS: ClassVar[Keys] = keys("layer fan_in fan_out")

    layer: str
    place: int
    connections: Matrix

    @property
    def fan_in(self) -> tuple[int, float, int]:
        """Smallest, mean and largest number of connections of a neuron."""
        return _spread(np.diff(self.connections.indptr))

    @property
    def fan_out(self) -> tuple[int, float, int]:
        """Smallest, mean and largest number of connections of an input."""
        return _spread(np.bincount(self.connections.indices, minlength=self.connections.n_pre))


def _spread(counts: Array) -> tuple[int, float, int]:
    """Return the minimum, mean and maximum of counts."""
    return int(counts.min()), float(counts.mean()), int(counts.max())


@dataclass(frozen=True)
class Misfit:
    """The limits of a chip that a network breaks.

    Attributes:
        chip: name of the device.
        violations: one sentence for each limit that is broken.
    """

    chip: str
    violations: tuple[str, ...]


@dataclass(frozen=True)
class OwnRow:
    """The row of a network that has the layer sizes of the paper's Table 1.

    Attributes:
        accuracy: test accuracy, 0..1; None if it is unknown.
        density: weights over positions.
        connections: connections of the network.
        sops: mean SOPs per sample.
        gpu, truenorth: joules by the paper's convention, one operation per connection.
        gpu_by_sops, truenorth_by_sops: joules with one operation per SOP.
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
class Table1Comparison:
    """The paper's Table 1 and the row of one network.

    Attributes:
        paper: the rows as printed in the paper.
        ours: the row of the network.
        remarks: sentences about numbers of the table that contradict each other.
    """

    paper: tuple[PaperRow, ...]
    ours: OwnRow
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Account:
    """All results of one run that its report shows.

    Attributes:
        config: the experiment.
        trained_by: version of esl-lava that trained the model.
        network: the network that was exported from the model.
        evaluation: the run of the network on the whole test split.
        history: the epochs of the training.
        updates: the updates of the masks.
        sparse_density: density of the sparse layers; None if there are none.
        layer: the layer whose connections are shown; None if no layer is a matrix.
        sample: the first test sample and the run on it.
        verification: the verification of some test samples; None if its packages are missing.
        prices: device -> joules per sample, as the mean over the evaluation.
        disagreements: chips for which device files, or sources in one file, give different joules.
        cost: operations and bytes of the training.
        table1: the paper's Table 1 and the network; None if the network has other layers or data.
        core_maps: chip -> the cores that hold the network, or the limits that it breaks.
        digests: SHA-256 of model.pt and of the content of net.h5.
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
    table1: Table1Comparison | None
    core_maps: Mapping[str, MappedNetwork | Misfit]
    digests: Mapping[str, str]

    @property
    def title(self) -> str:
        """The data set and the layers: `model.layers` if convolutional, else layer sizes."""
        if isinstance(self.config.model, Convolutional):
            return f"{self.evaluation.dataset}, {self.config.model.layers}"
        sizes = (self.network.inputs, *(layer.neurons for layer in self.network.layers))
        return f"{self.evaluation.dataset}, {'-'.join(map(str, sizes))}"

    @property
    def kernels(self) -> dict[str, Floats]:
        """Name of a convolution -> density of each of its kernels, (kernels, channels), 0..1."""
        return {
            one.origin.name if one.origin else layer.name: one.connections.mask().mean((2, 3))
            for layer in self.network.layers
            for one in layer.inputs
            if isinstance(one.connections, Convolution) and (one.origin is None or one.origin.name)
        }

    @property
    def firing_remarks(self) -> list[str]:
        """One sentence for each layer with many silent or saturated neurons."""
        return remarks(self.network, self.evaluation.firing)

    @property
    def kept(self) -> Epoch:
        """The epoch whose weights the training kept."""
        return self.history[kept_epoch(self.history)]

    @property
    def reported_verification(self) -> dict[str, object] | None:
        """The verification without its totals, which are keys of the account itself."""
        if self.verification is None:
            return None
        verification, totals = self.verification, {"samples", "spikes", "positions", "total"}
        values = {
            key: value
            for key, value in as_values(verification).items()
            if verification.KEYS[key] not in totals
        }
        return {
            "reference": verification.reference,
            "backends": verification.backends,
            **values,
        }

    @property
    def devices(self) -> dict[str, dict[str, object]]:
        """Device -> its price, title, notes and energy constants."""
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
        """Chip -> the mapping with `fits` true, or the broken limits with `fits` false."""
        return {
            chip: {"fits": isinstance(core_map, MappedNetwork), **as_values(core_map)}
            for chip, core_map in self.core_maps.items()
        }

    @property
    def config_toml(self) -> str:
        """The experiment as a TOML text."""
        return to_toml(self.config)


@dataclass(frozen=True)
class Place:
    """Cost and accuracy of one run on one device, compared with other runs.

    Attributes:
        run: name of the run.
        joules_per_sample: energy on the device.
        accuracy: test accuracy, 0..1.
        pareto: whether no run on the same data set is at least as good in cost and accuracy and
            better in one of them.
    """

    run: str
    joules_per_sample: float
    accuracy: float
    pareto: bool


@dataclass(frozen=True)
class Comparison:
    """Several runs compared on every device.

    Attributes:
        datasets: names of the data sets.
        devices: device -> cost and accuracy of each run.
    """

    datasets: Sequence[str]
    devices: Mapping[str, Sequence[Place]]
