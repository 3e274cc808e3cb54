"""Trained layers as arrays. Export turns them into integers.

`models.stored` makes them, without torch, from a `model.pt` or from the state dict of a network,
and `export.lower` makes the integer network from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Array, Floats, Int32s, Ints

LARGEST = 2**31 - 1
"""The most inputs, outputs or connections of a layer that an int32 can number."""

SPARSE_PARTS = ("values", "starts", "pre", "sides")
"""Names of the arrays that a state dict holds for sparse weights (see `find_sparse_fault`)."""


@dataclass(frozen=True)
class CubaNeuron:
    """Current-based leaky neurons that fire any number of times.

    Attributes:
        current_decay, voltage_decay: fraction lost per step, 0..1.
        threshold: threshold in units of the weights.
    """

    current_decay: float
    voltage_decay: float
    threshold: float


@dataclass(frozen=True)
class OneSpikeNeuron:
    """Neurons that fire once: at an exact time (Eq. 5) in training, on a grid of steps on a chip.

    Weights are in units of the threshold.

    Attributes:
        current_decay: share of the current lost per step on the chip. A step of the grid lasts
            -ln(1 - current_decay) synaptic time constants.
    """

    current_decay: float


@dataclass(frozen=True)
class ReadoutNeuron:
    """Neurons that sum their input and never fire."""


@dataclass(frozen=True, eq=False)
class NormalisedNeuron:
    """Neurons without synaptic filter behind batch normalisations; their threshold is 1.

    Attributes:
        voltage_decay: fraction lost per step, above 0.
        bias: (channels,) float64, sum of the biases of the normalisations of all inputs.
        per_channel: whether each channel has an integer threshold of its own.
    """

    voltage_decay: float
    bias: Floats
    per_channel: bool = False


@dataclass(frozen=True)
class NormalisedReadout:
    """Neurons that sum their input and never fire, behind layers of `NormalisedNeuron`."""


Neuron = CubaNeuron | OneSpikeNeuron | ReadoutNeuron | NormalisedNeuron | NormalisedReadout


@dataclass(frozen=True)
class Sliding:
    """The way in which weights are applied to feature maps.

    Attributes:
        source_shape: (channels, rows, columns) of the source's maps.
        pool: side of the squares of these maps that are summed first.
        stride, padding: stride and padding of the kernels over the sums; a stride of 0 means that
            the weights are not kernels but a matrix over all sums.
    """

    source_shape: tuple[int, int, int]
    pool: int = 1
    stride: int = 0
    padding: int = 0


@dataclass(frozen=True, eq=False)
class DenseWeights:
    """Weights stored for every position.

    Attributes:
        values: (n_post, n_pre), or more axes for kernels, as trained.
        mask: as many elements as `values`, 0 where no connection exists; None if all exist.

    Raises:
        ValueError: when the mask has another size.
    """

    values: Array
    mask: Array | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.size != self.values.size:
            raise ValueError(
                f"the mask has shape {self.mask.shape}, but the weights have {self.values.shape}"
            )

    @property
    def n_post(self) -> int:
        """Number of output neurons, or of output channels of kernels."""
        return self.values.shape[0]

    @property
    def n_pre(self) -> int:
        """Number of input neurons, or of input channels of kernels."""
        return self.values.shape[1]


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """Weights stored for connections only, in ascending order of position.

    Attributes:
        n_pre: number of input neurons. For kernels the positions of one output channel count as
            inputs, and an output channel as a neuron.
        starts: (n_post + 1,) int64; connections starts[j] to starts[j + 1] lead to neuron j.
        pre: (connections,) int32 input neurons, ascending within an output neuron.
        values: (connections,) float32.
    """

    n_pre: int
    starts: Ints
    pre: Int32s
    values: Array

    @property
    def n_post(self) -> int:
        """Number of output neurons, or of output channels of kernels."""
        return len(self.starts) - 1

    def densified(self, shape: tuple[int, ...]) -> DenseWeights:
        """Return the same connections as dense weights, which are 0 and masked elsewhere.

        Args:
            shape: shape of the dense weights, n_post * n_pre elements; for kernels
                (n_post, channels, rows, columns, 1).
        """
        positions = np.repeat(np.arange(self.n_post), np.diff(self.starts)) * self.n_pre + self.pre
        values, mask = (np.zeros(self.n_post * self.n_pre, kind) for kind in (np.float32, np.bool_))
        values[positions], mask[positions] = self.values, True
        return DenseWeights(values.reshape(shape), mask.reshape(shape))


Weights = DenseWeights | SparseWeights


@dataclass(frozen=True, eq=False)
class NormalisedWeights:
    """Weights over feature maps, and the gain of the normalisation behind them.

    Attributes:
        name: name of the layer or of the shortcut; masks are stored under it.
        weights: weights of kernels, or of a fully connected layer.
        shape: shape as dense weights: (n_post, channels, rows, columns, 1) or
            (n_post, n_pre, 1, 1, 1).
        sliding: the way in which the weights are applied to the maps.
        gain: (n_post,) float64, a factor that multiplies each sum; None without normalisation.
    """

    name: str
    weights: Weights
    shape: tuple[int, ...]
    sliding: Sliding
    gain: Floats | None = None

    @property
    def dense(self) -> DenseWeights:
        """The weights of all positions."""
        if isinstance(self.weights, SparseWeights):
            return self.weights.densified(self.shape)
        return self.weights


@dataclass(frozen=True)
class Identity:
    """Spikes of a layer of the same shape. Each adds one threshold to the neuron at its place."""


InputWeights = Weights | NormalisedWeights | Identity
"""The weights of an input, or an identity without weights."""


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """A trained layer.

    Attributes:
        name: name of the layer.
        inputs: source (`network.INPUT` or the name of an earlier layer) -> the weights through
            which its spikes come.
        neuron: kind and parameters of the neurons.
    """

    name: str
    inputs: Mapping[str, InputWeights]
    neuron: Neuron


def find_sparse_fault(
    n_post: int, n_pre: int, values: Array, starts: Array, pre: Array, sides: Array
) -> str | None:
    """Check that arrays are the sparse weights of n_pre inputs and n_post outputs.

    Args:
        values, starts, pre: as in `SparseWeights`.
        sides: (2,) int64, n_post and n_pre.

    Returns:
        A clause that states the first fault, or None if there is none.
    """
    expected = {
        "values": (values, np.float32, (values.size,)),
        "starts": (starts, np.int64, (n_post + 1,)),
        "pre": (pre, np.int32, (values.size,)),
        "sides": (sides, np.int64, (2,)),
    }
    for name, (array, dtype, shape) in expected.items():
        if array.dtype != dtype or array.shape != shape:
            return (
                f"{name} has shape {array.shape} of {array.dtype}, not {shape} of {np.dtype(dtype)}"
            )
    if sides.tolist() != [n_post, n_pre]:
        return f"sides are {sides.tolist()}, not {[n_post, n_pre]} (outputs, inputs)"
    ends = starts[1:]
    if starts[0] or starts[-1] != pre.size or (ends < starts[:-1]).any():
        return f"starts do not ascend from 0 to {pre.size}, the number of connections"
    if ((pre < 0) | (pre >= n_pre)).any():
        return f"pre has an input neuron outside 0..{n_pre - 1}"
    first = np.zeros(pre.size + 1, np.bool_)
    first[starts] = True
    if ((pre[1:] <= pre[:-1]) & ~first[1:-1]).any():
        return "the input neurons of an output neuron do not ascend in pre"
    return None
