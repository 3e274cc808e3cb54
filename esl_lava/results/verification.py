"""What a comparison of training, file and simulators found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from esl_lava.values import Keys, keys


@dataclass(frozen=True)
class IntegerDifference:
    """A quantity of a file's network that is not what the model lowers to.

    Attributes:
        layer: the layer's name; None for what belongs to the whole network.
        quantity: what differs: "weight", "connection", "threshold", "bias", ...
        count: how many values of it differ.
        place: where the first of them is, such as "neuron 3, input 17"; empty for a quantity
            that a layer or a network has once.
        expected, found: the first of them, in the model and in the file.
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
    """Two networks compared.

    Attributes:
        compared: integers of the model's network that were compared: weights, and what its
            neurons have.
        differences: one for each quantity of a layer in which the networks differ.
    """

    compared: int
    differences: tuple[IntegerDifference, ...]

    @property
    def total(self) -> int:
        """How many values differ."""
        return sum(difference.count for difference in self.differences)

    @property
    def sentences(self) -> list[str]:
        """Every difference in words."""
        return [str(difference) for difference in self.differences]


@dataclass(frozen=True)
class LayerTimes:
    """How the firing steps of a layer compare with exact times.

    Attributes:
        layer: its name.
        fired: (sample, neuron) pairs that fire on the grid.
        moved: pairs whose step is not their exact time rounded up, given the same inputs and
            weights: truncation.
        furthest: by how many steps at most; a spike that is only in one counts from the last
            step on.
        lost: pairs that fire within the sample either in training or on the grid only.
        drift: mean distance in steps between training and grid, of pairs that fire in both.
    """

    layer: str
    fired: int
    moved: int
    furthest: int
    lost: int
    drift: float


@dataclass(frozen=True)
class TimeDifference:
    """A neuron that fires where truncation cannot explain it.

    Attributes:
        layer, sample, neuron: where.
        found: the step in which it fires on the grid, T for none.
        exact: the step into which its exact time falls, T for none.
        earliest, latest: between which steps both have to be.
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
            f"{self.found}, training's exact time is in step {self.exact}, and truncation "
            f"allows {self.earliest} to {self.latest}"
        )


@dataclass(frozen=True)
class TimeComparison:
    """The comparison of a network with its training.

    Attributes:
        layers: one for each.
        outside: (sample, neuron) pairs outside of what truncation allows; 0 is proof.
        first: the first of them, if any.
    """

    layers: tuple[LayerTimes, ...]
    outside: int
    first: TimeDifference | None


@dataclass(frozen=True)
class State:
    """A neuron's current and membrane before and after a step, in units of 2**-6 weights.

    Attributes:
        u_before, v_before: when the step began.
        u, v: after it; v is 0 where the neuron fired.
    """

    u_before: int
    v_before: int
    u: int
    v: int

    def __str__(self) -> str:
        return f"u {self.u_before} -> {self.u}, v {self.v_before} -> {self.v}"


@dataclass(frozen=True)
class Difference:
    """The first place where a simulator departs from SLAYER.

    Attributes:
        backend: which simulator.
        layer: name of the earliest layer that differs.
        sample, step, neuron: where in it, from 0; the earliest step of the first sample.
        expected, found: a spike (0 or 1), or the readout's v in units of 2**-6 weights.
        expected_state, found_state: the neuron's state in SLAYER and in the simulator.
        reference: what the simulator was compared with.
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
    """The outcome of a comparison.

    Attributes:
        dataset: where the samples come from.
        samples: samples compared.
        backends: the simulators compared with SLAYER.
        reference: what the network was compared with.
        spikes: spikes that were to be found in all layers of every simulator.
        positions: (sample, step, neuron) places compared per simulator, silent ones and
            the readout's values included.
        differences: backend -> places that differ; where neurons fire once, also "training",
            spikes outside of what rounding allows.
        integers: net.h5 against what model.pt lowers to.
        first: the first difference of spikes, if any.
        not_run: backend -> why it could not run a file whose integers are not the model's.
        times: of each layer where neurons fire once.
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
        """All differences together; 0 is proof."""
        return sum(self.differences.values()) + self.integers.total

    @property
    def first_sentence(self) -> str | None:
        """The first difference of spikes in words, if any."""
        return None if self.first is None else str(self.first)

    def sentences(self) -> list[str]:
        """What differs, one sentence for each quantity of a layer, then the first spike."""
        first = [] if self.first is None else [str(self.first)]
        unable = [f"{backend}: not run: {reason}" for backend, reason in self.not_run.items()]
        return [*self.integers.sentences, *first, *unable]
