"""Results of comparing the trained model, the exported file and the simulators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from esl_lava.values import Keys, keys


@dataclass(frozen=True)
class IntegerDifference:
    """A quantity that differs between the network of a file and the network of its model.

    Attributes:
        layer: name of the layer; None for a quantity of the whole network.
        quantity: name of the quantity: "weight", "connection", "threshold", "bias", ...
        count: number of its values that differ.
        place: place of the first difference, for example "neuron 3, input 17"; empty for a
            quantity that a layer or a network has only once.
        expected: the first value that differs, in the model.
        found: the same value in the file.
    """

    layer: str | None
    quantity: str
    count: int
    place: str
    expected: object
    found: object

    def __str__(self) -> str:
        of = f" of {self.place}" if self.place else ""
        all_of_them = f" ({self.count:,} such differences)" if self.count > 1 else ""
        where = "network" if self.layer is None else f"layer {self.layer}"
        return (
            f"{where}: {self.quantity}{of} is {self.found} in the file, "
            f"{self.expected} in the model{all_of_them}"
        )


@dataclass(frozen=True)
class IntegerComparison:
    """The comparison of the integers of two networks.

    Attributes:
        compared: number of compared integers of the model's network: weights and parameters of
            neurons.
        differences: one for each quantity, of a layer or of the whole network, that differs.
    """

    compared: int
    differences: tuple[IntegerDifference, ...]

    @property
    def total(self) -> int:
        """Number of values that differ."""
        return sum(difference.count for difference in self.differences)

    @property
    def sentences(self) -> list[str]:
        """One sentence for each difference."""
        return [str(difference) for difference in self.differences]


@dataclass(frozen=True)
class LayerTimes:
    """The firing steps of a layer compared with exact firing times.

    Attributes:
        layer: name of the layer.
        fired: number of (sample, neuron) pairs that fire on the grid.
        moved: number of pairs whose step is not the exact time rounded up, with the same inputs
            and weights. The chip truncates its currents, which moves them.
        furthest: largest of these moves in steps. If a pair fires only on the grid or only in
            exact time, the other spike counts as one step after the last.
        lost: number of pairs that fire within the sample only in training or only on the grid.
        drift: mean distance in steps between training and grid, over pairs that fire in both.
    """

    layer: str
    fired: int
    moved: int
    furthest: int
    lost: int
    drift: float


@dataclass(frozen=True)
class TimeDifference:
    """A neuron whose firing step truncation cannot explain.

    Attributes:
        layer, sample, neuron: the neuron and the sample.
        found: step of its spike on the grid; T if it is silent.
        exact: step that contains its exact time; T if it is silent.
        earliest, latest: first and last step that truncation allows.
    """

    layer: str
    sample: int
    neuron: int
    found: int
    exact: int
    earliest: int
    latest: int

    def __str__(self) -> str:
        return (
            f"exact: layer {self.layer}, neuron {self.neuron}, sample {self.sample}: fires at step "
            f"{self.found}, the exact time of training is in step {self.exact}, and truncation "
            f"allows steps {self.earliest} to {self.latest}"
        )


@dataclass(frozen=True)
class TimeComparison:
    """The firing times of a network compared with those of its training.

    Attributes:
        layers: the comparison of each layer.
        outside: number of (sample, neuron) pairs that truncation cannot explain; 0 is proof.
        first: the first of these pairs, if any.
    """

    layers: tuple[LayerTimes, ...]
    outside: int
    first: TimeDifference | None


@dataclass(frozen=True)
class State:
    """Current u and voltage v of a neuron before and after a step, in units of 2**-6 weights.

    Attributes:
        u_before, v_before: u and v before the step.
        u, v: u and v after the step; v is 0 if the neuron fired.
    """

    u_before: int
    v_before: int
    u: int
    v: int

    def __str__(self) -> str:
        return f"u {self.u_before} -> {self.u}, v {self.v_before} -> {self.v}"


@dataclass(frozen=True)
class Difference:
    """The first difference between a simulator and its reference.

    Attributes:
        backend: the simulator.
        layer: name of the earliest layer that differs.
        sample, step, neuron: place in the layer, from 0: the first sample that differs, at its
            earliest step.
        expected: a spike (0 or 1), or v of the readout in units of 2**-6 weights, in the reference.
        found: the same value in the simulator.
        expected_state, found_state: state of the neuron in the reference and in the simulator.
        reference: name of the reference.
    """

    backend: str
    layer: str
    sample: int
    step: int
    neuron: int
    expected: int
    found: int
    expected_state: State
    found_state: State
    reference: str = "SLAYER"

    def __str__(self) -> str:
        return (
            f"{self.backend}: layer {self.layer}, neuron {self.neuron}, sample {self.sample}, "
            f"step {self.step}: {self.found} ({self.found_state}), "
            f"but {self.reference} has {self.expected} ({self.expected_state})"
        )


@dataclass(frozen=True)
class Verification:
    """The results of a verification.

    Attributes:
        dataset: name of the data set of the samples.
        samples: number of samples.
        backends: the simulators whose spikes were compared. If neurons fire once, they were
            compared with the exact simulator, which was itself compared by firing times.
        reference: "SLAYER", or "training" if neurons fire once.
        spikes: number of spikes that each simulator has to emit in all layers.
        positions: number of (sample, step, neuron) places compared per simulator, with silent
            places and values of the readout.
        differences: backend -> number of places that differ; if neurons fire once, also the name
            of the reference -> number of spikes that truncation cannot explain.
        integers: the integers of net.h5 compared with those of model.pt.
        first: the first difference of spikes, if any.
        not_run: backend -> reason why it could not run a file whose integers differ.
        times: firing times of each layer, if neurons fire once.
    """

    KEYS: ClassVar[Keys] = keys(
        "samples_verified=samples spikes_compared=spikes positions_compared=positions "
        "differences=total integers_compared=integers.compared "
        "integers_that_differ=integers.total integer_differences=integers.sentences "
        "differences_by_backend=differences not_run first_difference=first_sentence "
        "firing_times=times"
    )

    dataset: str
    samples: int
    backends: tuple[str, ...]
    reference: str
    spikes: int
    positions: int
    differences: Mapping[str, int]
    integers: IntegerComparison
    first: Difference | TimeDifference | None
    times: tuple[LayerTimes, ...] = ()
    not_run: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of all differences; 0 is proof."""
        return sum(self.differences.values()) + self.integers.total

    @property
    def first_sentence(self) -> str | None:
        """The first difference of spikes as a sentence, if any."""
        return None if self.first is None else str(self.first)

    def sentences(self) -> list[str]:
        """Return a sentence for each difference: quantities, first spike, backends not run."""
        first = [] if self.first is None else [str(self.first)]
        not_run = [f"{backend}: not run: {reason}" for backend, reason in self.not_run.items()]
        return [*self.integers.sentences, *first, *not_run]
