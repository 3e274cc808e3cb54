"""Trained layers, as arrays: what stands between a network that learns and integers.

`models.stored` makes these, without torch, of what a `model.pt` or the state dict of a network
holds, and `export.lower` makes the integer network of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Array, Floats, Int32s, Ints

LARGEST = 2**31 - 1
"""Neurons on a side, and connections, that an int32 can tell apart."""


SPARSE_PARTS = ("values", "starts", "pre", "sides")
"""What a state dict keeps of a weight of which only connections are stored (`faulty_sparse`)."""


@dataclass(frozen=True)
class CubaNeuron:
    """Current-based leaky neurons that fire any number of times.

    Attributes:
        current_decay, voltage_decay: fraction lost per step, 0..1.
        threshold: in units of the weights.
    """

    current_decay: float
    voltage_decay: float
    threshold: float


@dataclass(frozen=True)
class OneSpikeNeuron:
    """Neurons that fire once at an exact time (Eq. 5), and on a chip on a grid of steps.

    Attributes:
        current_decay: share of the current lost per step, which sets the grid; the threshold
            is the unit of the weights.
    """

    current_decay: float


@dataclass(frozen=True)
class ReadoutNeuron:
    """Neurons that never fire and sum their input."""


@dataclass(frozen=True, eq=False)
class NormalisedNeuron:
    """Neurons without synaptic filter behind batch normalisations; their threshold is 1.

    Attributes:
        voltage_decay: fraction lost per step, above 0.
        bias: (channels,) float64, what the normalisations of all inputs add.
        per_channel: whether each channel has an integer threshold of its own.
    """

    voltage_decay: float
    bias: Floats
    per_channel: bool = False


@dataclass(frozen=True)
class NormalisedReadout:
    """Neurons that never fire and sum their input, of a network of normalised layers."""


Neuron = CubaNeuron | OneSpikeNeuron | ReadoutNeuron | NormalisedNeuron | NormalisedReadout


@dataclass(frozen=True)
class Sliding:
    """How weights meet feature maps.

    Attributes:
        source_shape: (channels, rows, columns) of what feeds them.
        pool: side of the squares of it that are summed first.
        stride, padding: of the kernels over the sums; a stride of 0 where the weights are no
            kernels but meet every sum.
    """

    source_shape: tuple[int, int, int]
    pool: int = 1
    stride: int = 0
    padding: int = 0


@dataclass(frozen=True, eq=False)
class DenseWeights:
    """A weight for every position.

    Attributes:
        values: (n_post, n_pre) or of more axes, as they were trained.
        mask: of as many elements, 0 where there is no connection; None where all exist.

    Raises:
        ValueError: when the mask is of another size.
    """

    values: Array
    mask: Array | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.size != self.values.size:
            raise ValueError(
                f"a mask of shape {self.mask.shape} for weights of shape {self.values.shape}"
            )

    @property
    def n_post(self) -> int:
        """Output neurons."""
        return self.values.shape[0]

    @property
    def n_pre(self) -> int:
        """Input neurons."""
        return self.values.shape[1]


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """A weight for every connection, in ascending order of position.

    Attributes:
        n_pre: input neurons.
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
        """Output neurons."""
        return len(self.starts) - 1

    def densified(self, shape: tuple[int, ...]) -> DenseWeights:
        """The same connections in a weight for every position, 0 and masked elsewhere.

        Args:
            shape: of the dense weight, n_post * n_pre elements; of a kernel
                (n_post, channels, rows, columns, 1), whose places are the n_pre inputs.
        """
        where = np.repeat(np.arange(self.n_post), np.diff(self.starts)) * self.n_pre + self.pre
        values, mask = (np.zeros(self.n_post * self.n_pre, kind) for kind in (np.float32, np.bool_))
        values[where], mask[where] = self.values, True
        return DenseWeights(values.reshape(shape), mask.reshape(shape))


Weights = DenseWeights | SparseWeights


@dataclass(frozen=True, eq=False)
class NormalisedWeights:
    """Weights of feature maps, and what a normalisation makes of their sums.

    Attributes:
        name: that of the layer, or of the shortcut; masks go by it.
        weights: of kernels, or of a fully connected layer.
        shape: of a dense weight: (n_post, channels, rows, columns, 1) or (n_post, n_pre, 1, 1, 1).
        sliding: how they meet the maps.
        gain: (n_post,) float64, a factor on each sum; None where none is normalised.
    """

    name: str
    weights: Weights
    shape: tuple[int, ...]
    sliding: Sliding
    gain: Floats | None = None

    @property
    def dense(self) -> DenseWeights:
        """The weights at every position."""
        if isinstance(self.weights, SparseWeights):
            return self.weights.densified(self.shape)
        return self.weights


@dataclass(frozen=True)
class Identity:
    """Spikes of a layer of the same shape, each of which brings its neuron one threshold."""


Fed = Weights | NormalisedWeights | Identity
"""What an input comes through."""


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """A layer as it was trained.

    Attributes:
        name: of the layer.
        inputs: what feeds it, `network.INPUT` or an earlier layer -> what that comes through.
        neuron: what its neurons are.
    """

    name: str
    inputs: Mapping[str, Fed]
    neuron: Neuron


def faulty_sparse(
    n_post: int, n_pre: int, values: Array, starts: Array, pre: Array, sides: Array
) -> str | None:
    """Why arrays are not the stored weights of n_pre inputs and n_post outputs, in a clause.

    Args:
        values, starts, pre: as in `SparseWeights`.
        sides: (2,) int64, n_post and n_pre.

    Returns:
        None where they are.
    """
    wanted = {
        "values": (values, np.float32, (values.size,)),
        "starts": (starts, np.int64, (n_post + 1,)),
        "pre": (pre, np.int32, (values.size,)),
        "sides": (sides, np.int64, (2,)),
    }
    for name, (array, dtype, shape) in wanted.items():
        if array.dtype != dtype or array.shape != shape:
            return (
                f"{name} has shape {array.shape} of {array.dtype}, not {shape} of {np.dtype(dtype)}"
            )
    if sides.tolist() != [n_post, n_pre]:
        return f"{sides.tolist()} neurons, not {[n_post, n_pre]}"
    ends = starts[1:]
    if starts[0] or starts[-1] != pre.size or (ends < starts[:-1]).any():
        return f"starts do not ascend from 0 to the {pre.size} connections"
    if ((pre < 0) | (pre >= n_pre)).any():
        return f"an input neuron is outside 0..{n_pre - 1}"
    first = np.zeros(pre.size + 1, np.bool_)
    first[starts] = True
    if ((pre[1:] <= pre[:-1]) & ~first[1:-1]).any():
        return "input neurons of an output neuron are not ascending"
    return None
