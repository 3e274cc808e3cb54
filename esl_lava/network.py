"""The integer network: what a chip executes, and nothing of torch, Lava or HDF5.

Export makes it from a trained model, `netfile` stores it, and every simulator,
counter and report reads it. All quantities are integers as on Loihi. One step of a
layer (lava-nc 0.10.0, `lava/proc/lif/models.py`, PyLifModelBitAcc), with
`trunc(x) = sign(x) * (abs(x) >> 12)`:

    a = sum of the weights of the synapses whose input spiked
    u = trunc(u * (4096 - current_decay)) + (a << 6)      wrapped to 24 bits
    v = trunc(v * (4096 - voltage_decay)) + u + (bias << 6)   clipped to +-(2**23 - 1)
    s = v > (threshold << 6);   v = 0 where s
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]

DECAY_UNITY = 4096
"""A decay of 4096 forgets everything in one step (12-bit fraction)."""

STATE_SHIFT = 6
"""u and v carry 6 fractional bits below weights, biases and thresholds."""

STATE_LIMIT = 1 << 23
"""u wraps beyond +-2**23, v clips at +-(2**23 - 1)."""

NEVER = 1 << 17
"""A threshold no membrane can exceed: `NEVER << 6` is 2**23, v stops one below."""


def _frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A read-only copy of `array` as `dtype`; refuses values the dtype cannot hold."""
    source = np.asarray(array)
    if source.dtype.kind not in "iub":
        raise TypeError(f"an integer array is needed, not {source.dtype}")
    copy = source.astype(dtype)
    if not np.array_equal(copy, source):
        raise ValueError(f"values outside the range of {np.dtype(dtype)}")
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class Connections:
    """The existing connections of a fully connected layer, compressed by output row.

    A connection may carry weight 0 (it was quantised away); it stays a connection. A
    *synapse* is a connection with a non-zero weight.

    Attributes:
        n_post, n_pre: numbers of output and input neurons.
        indptr: (n_post + 1,) int64; row j owns entries indptr[j]:indptr[j+1].
        indices: (connections,) int32 input neuron of each entry, ascending in a row.
        weights: (connections,) int32.

    Raises:
        ValueError, TypeError: when the arrays do not describe such a matrix.
    """

    n_post: int
    n_pre: int
    indptr: npt.NDArray[np.int64]
    indices: IntArray
    weights: IntArray

    def __post_init__(self) -> None:
        for name in ("n_post", "n_pre"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        object.__setattr__(self, "indptr", _frozen(self.indptr, np.int64))
        object.__setattr__(self, "indices", _frozen(self.indices, np.int32))
        object.__setattr__(self, "weights", _frozen(self.weights, np.int32))
        indptr, indices = self.indptr, self.indices
        if self.n_post < 1 or self.n_pre < 1:
            raise ValueError(f"a layer of {self.n_post} x {self.n_pre} neurons is empty")
        if indptr.shape != (self.n_post + 1,) or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
            raise ValueError("indptr does not partition the connections into rows")
        if indices.shape != (indptr[-1],) or self.weights.shape != indices.shape:
            raise ValueError("indices and weights do not have one entry per connection")
        if indices.size:
            if indices.min() < 0 or indices.max() >= self.n_pre:
                raise ValueError(f"an input index lies outside 0..{self.n_pre - 1}")
            ascending = np.diff(indices) > 0
            row_starts = indptr[1:-1]
            row_starts = row_starts[(row_starts > 0) & (row_starts < indices.size)]
            ascending[row_starts - 1] = True
            if not ascending.all():
                raise ValueError("input indices are not strictly ascending within a row")

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets "read-only" in copies and pickles; the constructor does not.
        return Connections, (self.n_post, self.n_pre, self.indptr, self.indices, self.weights)

    @staticmethod
    def from_dense(weights: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> Connections:
        """Connections where `mask` (n_post, n_pre) is true, with `weights` of that shape.

        Without a mask every position is a connection.

        Raises:
            ValueError: on a shape mismatch, or a non-zero weight outside the mask.
        """
        dense = np.asarray(weights)
        if dense.ndim != 2:
            raise ValueError(f"weights need shape (outputs, inputs), not {dense.shape}")
        allowed = np.ones(dense.shape, bool) if mask is None else np.asarray(mask, bool)
        if allowed.shape != dense.shape:
            raise ValueError(f"mask of shape {allowed.shape}, weights of shape {dense.shape}")
        if (dense[~allowed] != 0).any():
            raise ValueError("a weight outside the mask is not zero")
        post, pre = np.nonzero(allowed)
        indptr = np.zeros(dense.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(post, minlength=dense.shape[0]), out=indptr[1:])
        return Connections(dense.shape[0], dense.shape[1], indptr, pre, dense[allowed])

    @property
    def possible(self) -> int:
        """Number of positions, connected or not."""
        return self.n_post * self.n_pre

    @property
    def count(self) -> int:
        """Number of connections (positions the mask allows)."""
        return int(self.indices.size)

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0."""
        return int(np.count_nonzero(self.weights))

    def rows(self) -> npt.NDArray[np.int64]:
        """(connections,) output neuron of each entry."""
        return np.repeat(np.arange(self.n_post), np.diff(self.indptr))

    def dense(self) -> IntArray:
        """(n_post, n_pre) int32 weights, 0 where there is no connection."""
        full = np.zeros((self.n_post, self.n_pre), np.int32)
        full[self.rows(), self.indices] = self.weights
        return full

    def mask(self) -> npt.NDArray[np.bool_]:
        """(n_post, n_pre) bool, true where a connection exists."""
        full = np.zeros((self.n_post, self.n_pre), bool)
        full[self.rows(), self.indices] = True
        return full

    def fan_out(self) -> npt.NDArray[np.int64]:
        """(n_pre,) number of synapses (non-zero weights) leaving each input neuron."""
        return np.bincount(self.indices[self.weights != 0], minlength=self.n_pre).astype(np.int64)


@dataclass(frozen=True)
class Cuba:
    """Current-based leaky integrate-and-fire neurons, parameters shared in the layer.

    Attributes:
        current_decay, voltage_decay: 0..4096, fraction lost per step times 4096.
        threshold: 1..NEVER; the neuron fires when v > threshold << 6.

    Raises:
        ValueError, TypeError: when a parameter is out of range, or no integer.
    """

    current_decay: int
    voltage_decay: int
    threshold: int

    def __post_init__(self) -> None:
        for name in ("current_decay", "voltage_decay", "threshold"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        for name in ("current_decay", "voltage_decay"):
            value = getattr(self, name)
            if not 0 <= value <= DECAY_UNITY:
                raise ValueError(f"{name} {value} is outside 0..{DECAY_UNITY}")
        if not 1 <= self.threshold <= NEVER:
            raise ValueError(f"threshold {self.threshold} is outside 1..{NEVER}")

    @property
    def fires(self) -> bool:
        """Whether any membrane potential can exceed the threshold."""
        return self.threshold < NEVER


INTEGRATOR = Cuba(current_decay=DECAY_UNITY, voltage_decay=0, threshold=NEVER)
"""The readout: v holds the running sum of the weighted input and never fires."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Connections into a group of neurons.

    Attributes:
        name: unique within the network, as reports and errors print it.
        connections: the layer's input synapses.
        neuron: dynamics of its `connections.n_post` neurons.
        bias: (n_post,) int32 added to v (times 2**6) every step, or None.
    """

    name: str
    connections: Connections
    neuron: Cuba
    bias: IntArray | None = None

    def __post_init__(self) -> None:
        if self.bias is not None:
            object.__setattr__(self, "bias", _frozen(self.bias, np.int32))
            if self.bias.shape != (self.neurons,):
                raise ValueError(
                    f"layer {self.name}: bias of shape {self.bias.shape}, "
                    f"not one value for each of {self.neurons} neurons"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, (self.name, self.connections, self.neuron, self.bias)

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.connections.n_post


@dataclass(frozen=True, eq=False)
class Network:
    """A feed-forward integer network, its presentation time and where it came from.

    Attributes:
        layers: at least one; only the last may be a non-firing readout.
        steps: T, the number of steps a sample is presented, or None where the
            network's file does not say.
        provenance: text facts stored with the network (format and package version,
            digest of the source checkpoint, configuration as TOML).

    Raises:
        ValueError, TypeError: when layers do not fit together, or `steps` is no integer.
    """

    layers: tuple[Layer, ...]
    steps: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        if not self.layers:
            raise ValueError("a network needs at least one layer")
        if self.steps is not None:
            object.__setattr__(self, "steps", operator.index(self.steps))
            if self.steps < 1:
                raise ValueError(f"a sample of {self.steps} steps is empty")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"layer names are not unique: {', '.join(names)}")
        for before, after in zip(self.layers, self.layers[1:]):
            if before.neurons != after.connections.n_pre:
                raise ValueError(
                    f"layer {after.name} expects {after.connections.n_pre} inputs, "
                    f"layer {before.name} has {before.neurons} neurons"
                )
            if not before.neuron.fires:
                raise ValueError(f"layer {before.name} never fires but feeds layer {after.name}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view of a dictionary cannot be pickled.
        return Network, (self.layers, self.steps, dict(self.provenance))

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.layers[0].connections.n_pre

    @property
    def readout(self) -> Layer | None:
        """The last layer where it never fires (an integrator to be read), else None."""
        last = self.layers[-1]
        return None if last.neuron.fires else last

    @property
    def connections(self) -> int:
        """Connections of all layers together."""
        return sum(layer.connections.count for layer in self.layers)

    @property
    def synapses(self) -> int:
        """Non-zero weights of all layers together."""
        return sum(layer.connections.synapses for layer in self.layers)

    @property
    def density(self) -> float:
        """Connections over possible connections of all layers together, 0..1."""
        return self.connections / sum(layer.connections.possible for layer in self.layers)
