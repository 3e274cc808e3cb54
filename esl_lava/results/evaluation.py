"""A network's run over samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.arrays import Array, Bytes, Floats, Int32s, Ints
from esl_lava.network import Network
from esl_lava.results.firing import LayerFiring
from esl_lava.results.mapped import Activity
from esl_lava.simulate import Result
from esl_lava.values import Keys, keys


@dataclass(frozen=True, eq=False)
class Recording:
    """One sample's run.

    Attributes:
        inputs: (T, inputs) spikes, or what drives the neurons of an input block.
        spikes: firing layer -> (T, neurons).
        readout: (T, classes) v of the integrator; None where the last layer fires.
        decision: class, or `simulate.result.NO_DECISION`.
    """

    inputs: Array
    spikes: Mapping[str, Bytes]
    readout: Int32s | None
    decision: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's run over samples of a data set.

    Attributes:
        dataset, split, backend: what was run where; a file of spikes has no split.
        accuracy: share of samples decided right, 0..1; None where nobody knows what is.
        samples: how many there were.
        seconds: of the simulation, encoding and loading not included.
        result: the run itself, without recorded spikes.
        firing: of each layer that fires, what its neurons did.
        activity, sops, first: what was probed, else None. `sops` is (samples,).
    """

    dataset: str
    split: str | None
    backend: str
    accuracy: float | None
    samples: int
    seconds: float
    result: Result
    firing: tuple[LayerFiring, ...]
    activity: Activity | None = None
    sops: Ints | None = None
    first: Recording | None = None

    @property
    def sops_per_sample(self) -> float:
        """Synaptic operations of a mean sample."""
        return self.result.counts.sops / self.result.counts.samples

    def rates(self, layer: LayerFiring) -> Floats:
        """(neurons,) of a layer of `firing`: spikes of each neuron at a mean step, 0..1."""
        return self.result.fired[layer.layer] / (layer.samples * layer.steps)

    @property
    def spikes_per_sample(self) -> float:
        """Spikes that the network's neurons emit on a mean sample."""
        return self.result.counts.spikes / self.result.counts.samples


@dataclass(frozen=True, eq=False)
class NetworkRun:
    """A network of a file, and its run over samples.

    Attributes:
        network: what was run.
        evaluation: the run.
    """

    KEYS: ClassVar[Keys] = keys(
        "evaluation.accuracy evaluation.samples network.density network.weights "
        "network.connections evaluation.seconds evaluation.sops_per_sample evaluation.firing"
    )

    network: Network
    evaluation: Evaluation
