"""The run of a network over samples."""

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
    """The recorded run of a network on one sample.

    Attributes:
        inputs: (T, inputs) spikes, or the values that drive the neurons of an input block.
        spikes: firing layer -> spikes, (T, neurons).
        readout: (T, classes) v of the readout after each step, in units of 2**-6 weights; None if
            the last layer fires.
        decision: the class, or `simulate.result.NO_DECISION`.
    """

    inputs: Array
    spikes: Mapping[str, Bytes]
    readout: Int32s | None
    decision: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of a network on the samples of a data set.

    Attributes:
        dataset: name of the data set or of the file of spikes.
        split: the split of the data set; None for a file of spikes.
        backend: the simulator.
        accuracy: share of the correct decisions, 0..1; None if there are no labels.
        samples: number of samples.
        seconds: time of the simulation, without loading and encoding.
        result: result of the simulator, without recorded spikes.
        firing: spike counts of the neurons of each firing layer.
        activity: activity of the first samples; None if it was not recorded.
        sops: (samples,) SOPs of each sample; None if they were not recorded.
        first: the run on the first sample; None if it was not recorded.
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
        """Mean synaptic operations (SOPs) per sample."""
        return self.result.counts.sops / self.result.counts.samples

    def rates(self, layer: LayerFiring) -> Floats:
        """Return the mean spikes per step of each neuron of a layer, (neurons,), 0..1."""
        return self.result.fired[layer.layer] / (layer.samples * layer.steps)

    @property
    def spikes_per_sample(self) -> float:
        """Mean number of spikes that the neurons of the network emit per sample."""
        return self.result.counts.spikes / self.result.counts.samples


@dataclass(frozen=True, eq=False)
class NetworkRun:
    """A network from a file and its results on samples.

    Attributes:
        network: the network that was run.
        evaluation: the results of the run.
    """

    KEYS: ClassVar[Keys] = keys(
        "evaluation.accuracy evaluation.samples network.density network.weights "
        "network.connections evaluation.seconds evaluation.sops_per_sample evaluation.firing"
    )

    network: Network
    evaluation: Evaluation
