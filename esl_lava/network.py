"""The integer network: what a chip executes, and nothing of torch, Lava or HDF5.

Export makes it from a trained model, `netfile` stores it, and every simulator,
counter and report reads it. All quantities are integers as on Loihi. One step of a
layer (lava-nc 0.10.0, `lava/proc/lif/models.py`, PyLifModelBitAcc), with
`trunc(x) = sign(x) * (abs(x) >> 12)`:

    a = sum of weight * input over its synapses: the feed-forward ones (late by the
        neuron's delay), those of skips, and the recurrent ones with the spikes of the
        layer's own previous step
    u = trunc(u * (4096 - current_decay)) + (a << 6)      wrapped to 24 bits
    v = trunc(v * (4096 - voltage_decay)) + u + ((bias + injected) << 6)
                                                          clipped to +-(2**23 - 1)
    s = v > (threshold << 6);   v = 0 where s, and in the `refractory` steps that follow

Sums are 32-bit and wrap; what one convolution brings wraps to 24 bits first. A sample
starts from rest: u = v = 0 and nothing under way. Neurons of feature maps are
counted (channel, row, column) in C order, wherever a layer is flat.
"""

from __future__ import annotations

import math
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

MAX_DELAY = 62
"""The largest axonal delay, in steps."""

MAX_REFRACTORY = 1 << 20
"""The longest refractory period, in steps; more than any sample has."""

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

    def unrolled(self) -> Connections:
        """Itself: every synapse between two neurons is stored."""
        return self


@dataclass(frozen=True, eq=False)
class Convolution:
    """A kernel slid over feature maps, as torch's conv2d (cross-correlation, zero padding).

    A connection is a position of the kernel, shared by all places it slides to; the
    synapses it stands for between two neurons are counted by `fan_out`.

    Attributes:
        kernel: (out channels, in channels // groups, rows, columns) int32.
        in_shape: (channels, rows, columns) of the input.
        stride, padding, dilation: (rows, columns) each.
        groups: of channels, each seen by its own share of the kernels.
        allowed: bool of the kernel's shape, true where a connection exists; all, if None.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    kernel: IntArray
    in_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    allowed: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", _frozen(self.kernel, np.int32))
        for name, length, least in (
            ("in_shape", 3, 1),
            ("stride", 2, 1),
            ("padding", 2, 0),
            ("dilation", 2, 1),
        ):
            value = tuple(operator.index(part) for part in getattr(self, name))
            if len(value) != length or min(value) < least:
                raise ValueError(f"{name} {value} is not {length} numbers of at least {least}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "groups", operator.index(self.groups))
        if self.kernel.ndim != 4 or 0 in self.kernel.shape:
            raise ValueError(f"a kernel of shape {self.kernel.shape} is not one of four lengths")
        outputs, share = self.kernel.shape[:2]
        if self.groups < 1 or outputs % self.groups or share * self.groups != self.in_shape[0]:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} in {self.groups} groups does not fit "
                f"{self.in_shape[0]} input channels"
            )
        if min(self.out_shape) < 1:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} is larger than its padded input "
                f"{self.in_shape}"
            )
        allowed = np.ones(self.kernel.shape, bool) if self.allowed is None else self.allowed
        object.__setattr__(self, "allowed", _frozen(allowed, bool))
        if self.mask().shape != self.kernel.shape:
            raise ValueError(
                f"mask of shape {self.mask().shape}, kernel of shape {self.kernel.shape}"
            )
        if self.kernel[~self.mask()].any():
            raise ValueError("a weight outside the mask is not zero")

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets "read-only" in copies and pickles; the constructor does not.
        parts = (self.kernel, self.in_shape, self.stride, self.padding, self.dilation)
        return Convolution, (*parts, self.groups, self.allowed)

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the output."""
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                self.in_shape[1:], self.padding, self.dilation, self.kernel.shape[2:], self.stride
            )
        )
        return self.kernel.shape[0], rows, columns

    @property
    def n_pre(self) -> int:
        """Number of input neurons."""
        return math.prod(self.in_shape)

    @property
    def n_post(self) -> int:
        """Number of output neurons."""
        return math.prod(self.out_shape)

    @property
    def possible(self) -> int:
        """Number of positions of the kernel, connected or not."""
        return int(self.kernel.size)

    @property
    def count(self) -> int:
        """Number of connections (positions of the kernel the mask allows)."""
        return int(np.count_nonzero(self.mask()))

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0, each counted once."""
        return int(np.count_nonzero(self.kernel))

    def mask(self) -> npt.NDArray[np.bool_]:
        """Bool of the kernel's shape, true where a connection exists."""
        assert self.allowed is not None
        return self.allowed

    def fan_out(self) -> npt.NDArray[np.int64]:
        """(n_pre,) number of neurons each input neuron reaches by a non-zero weight."""
        channels, rows, columns = self.in_shape
        used = self.kernel != 0  # (out, in of a group, rows, columns)
        per_group = used.reshape(self.groups, -1, *used.shape[1:]).sum(axis=1, dtype=np.int64)
        per_tap = per_group.reshape(channels, *used.shape[2:])
        reached = np.zeros((channels, rows, columns), np.int64)
        taps_y, taps_x = (self._taps(axis) for axis in (0, 1))
        for ky, ys in enumerate(taps_y):
            for kx, xs in enumerate(taps_x):
                reached[:, ys[:, None], xs] += per_tap[:, ky, kx, None, None]
        return reached.ravel()

    def _taps(self, axis: int) -> list[npt.NDArray[np.int64]]:
        """For each position of the kernel along an axis, the inputs it meets while sliding."""
        out, size = self.out_shape[1 + axis], self.in_shape[1 + axis]
        starts = np.arange(out) * self.stride[axis] - self.padding[axis]
        met = [starts + k * self.dilation[axis] for k in range(self.kernel.shape[2 + axis])]
        return [m[(m >= 0) & (m < size)] for m in met]

    def unrolled(self) -> Connections:
        """Every connection between two neurons on its own; for small layers.

        Where the kernel has a weight of 0 but a connection, so has every place.
        """
        outputs, rows, columns = self.out_shape
        share = self.kernel.shape[1]
        co, ci, ky, kx = np.nonzero(self.mask())
        y, x = (grid.ravel() for grid in np.indices((rows, columns)))
        row = y * self.stride[0] - self.padding[0] + ky[:, None] * self.dilation[0]
        column = x * self.stride[1] - self.padding[1] + kx[:, None] * self.dilation[1]
        inside = (row >= 0) & (row < self.in_shape[1])
        inside &= (column >= 0) & (column < self.in_shape[2])
        channel = ci + co // (outputs // self.groups) * share
        pre = (channel[:, None] * self.in_shape[1] + row) * self.in_shape[2] + column
        post = co[:, None] * rows * columns + np.arange(rows * columns)
        weights = np.broadcast_to(self.kernel[co, ci, ky, kx][:, None], pre.shape)
        pre, post, weights = pre[inside], post[inside], weights[inside]
        order = np.lexsort((pre, post))
        indptr = np.zeros(self.n_post + 1, np.int64)
        np.cumsum(np.bincount(post, minlength=self.n_post), out=indptr[1:])
        return Connections(self.n_post, self.n_pre, indptr, pre[order], weights[order])


@dataclass(frozen=True)
class Injection:
    """Every input is added to the membrane of its own neuron, without a synapse.

    The input block of netx, whose neurons the host drives through their bias: an input
    does not pass through u.

    Attributes:
        shape: of inputs and neurons, (channels, rows, columns) or (neurons,).

    Raises:
        ValueError, TypeError: when the shape is not of positive integers.
    """

    shape: tuple[int, ...]
    possible = count = synapses = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(operator.index(n) for n in self.shape))
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"a layer of shape {self.shape} is not one of neurons or of maps")

    @property
    def n_pre(self) -> int:
        """Number of inputs."""
        return math.prod(self.shape)

    @property
    def n_post(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    def fan_out(self) -> npt.NDArray[np.int64]:
        """(n_pre,) zeros: there are no synapses."""
        return np.zeros(self.n_pre, np.int64)


@dataclass(frozen=True, eq=False)
class Cuba:
    """Current-based leaky integrate-and-fire neurons.

    A parameter is an integer, shared in the layer, or (n,) integers: one for each neuron
    or, where the layer has feature maps, for each channel.

    Attributes:
        current_decay, voltage_decay: 0..4096, fraction lost per step times 4096.
        threshold: 1..NEVER; the neuron fires when v > threshold << 6.
        refractory: 0..MAX_REFRACTORY, steps after a spike in which v stays 0 while u goes
            on; the same for all neurons. (Loihi 1 counts to 63; Lava's fixed-point neuron
            has none.)

    Raises:
        ValueError, TypeError: when a parameter is out of range, or no integer.
    """

    current_decay: int | IntArray
    voltage_decay: int | IntArray
    threshold: int | IntArray
    refractory: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "refractory", operator.index(self.refractory))
        if not 0 <= self.refractory <= MAX_REFRACTORY:
            raise ValueError(f"refractory {self.refractory} is outside 0..{MAX_REFRACTORY}")
        limits = {"current_decay": (0, DECAY_UNITY), "voltage_decay": (0, DECAY_UNITY)}
        for name, (low, high) in {**limits, "threshold": (1, NEVER)}.items():
            value = getattr(self, name)
            if np.ndim(value) == 0:
                value = operator.index(value)
            else:
                value = _frozen(value, np.int32)
                if value.ndim != 1 or value.size == 0:
                    raise ValueError(f"{name} of shape {value.shape} is not a list of values")
            object.__setattr__(self, name, value)
            outside = np.ravel(value)[(np.ravel(value) < low) | (np.ravel(value) > high)]
            if outside.size:
                raise ValueError(f"{name} {outside[0]} is outside {low}..{high}")

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.current_decay, self.voltage_decay, self.threshold)
        return Cuba, (*parts, self.refractory)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cuba) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.__reduce__()[1], other.__reduce__()[1])
        )

    @property
    def fires(self) -> bool:
        """Whether any membrane potential can exceed its threshold."""
        return bool(np.min(self.threshold) < NEVER)

    def fires_once(self, steps: int) -> bool:
        """Whether the pause after a spike lasts to the end of any sample of so many steps."""
        return self.refractory >= max(1, steps - 1)


INTEGRATOR = Cuba(current_decay=DECAY_UNITY, voltage_decay=0, threshold=NEVER)
"""The readout: v holds the running sum of the weighted input and never fires."""


@dataclass(frozen=True, eq=False)
class Skip:
    """A further input of a layer, from earlier than the layer before it.

    Attributes:
        source: name of an earlier layer, or `INPUT`; its spikes of the same step.
        connections: as many outputs as the layer has neurons.
    """

    source: str
    connections: Connections | Convolution


INPUT = "input"
"""The name of the network's input as a source of skips."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Connections into a group of neurons.

    Attributes:
        name: unique within the network, as reports and errors print it.
        connections: from the layer before, or from the network's input.
        neuron: dynamics of its `connections.n_post` neurons.
        bias: (n_post,) int32 added to v (times 2**6) every step, or None.
        delays: (n_post,) int32, 0..62: steps by which what `connections` brings to a
            neuron is late, or None. (SLAYER's axonal delay of a neuron's spikes is the
            same shift, where the neuron has no bias.)
        recurrent: connections from the layer's own spikes of the step before, or None.
        skips: further inputs.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    name: str
    connections: Connections | Convolution | Injection
    neuron: Cuba
    bias: IntArray | None = None
    delays: IntArray | None = None
    recurrent: Connections | None = None
    skips: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "skips", tuple(self.skips))
        for name in ("bias", "delays"):
            value = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, _frozen(value, np.int32))
            if getattr(self, name).shape != (self.neurons,):
                raise ValueError(
                    f"layer {self.name}: {name} of shape {np.shape(value)}, "
                    f"not one value for each of {self.neurons} neurons"
                )
        if self.delays is not None:
            outside = self.delays[(self.delays < 0) | (self.delays > MAX_DELAY)]
            if outside.size:
                raise ValueError(f"layer {self.name}: delay {outside[0]} is outside 0..{MAX_DELAY}")
        for parameter in ("current_decay", "voltage_decay", "threshold"):
            values = getattr(self.neuron, parameter)
            if np.ndim(values) and len(values) not in (self.neurons, self.shape[0]):
                raise ValueError(
                    f"layer {self.name}: {parameter} has {len(values)} values for "
                    f"{self.neurons} neurons"
                )
        ends: list[tuple[str, Connections | Convolution]] = []
        if self.recurrent is not None:
            ends.append(("recurrent", self.recurrent))
        ends += [(f"skip from {skip.source}", skip.connections) for skip in self.skips]
        for what, connections in ends:
            if connections.n_post != self.neurons:
                raise ValueError(
                    f"layer {self.name}: {what} has {connections.n_post} outputs for "
                    f"{self.neurons} neurons"
                )
        if self.recurrent is not None and self.recurrent.n_pre != self.neurons:
            raise ValueError(
                f"layer {self.name}: recurrent has {self.recurrent.n_pre} inputs from "
                f"{self.neurons} neurons"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.name, self.connections, self.neuron, self.bias, self.delays)
        return Layer, (*parts, self.recurrent, self.skips)

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.connections.n_post

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of feature maps, else (neurons,)."""
        if isinstance(self.connections, Convolution):
            return self.connections.out_shape
        if isinstance(self.connections, Injection):
            return self.connections.shape
        return (self.neurons,)

    def parameter(self, name: str) -> npt.NDArray[np.int64]:
        """(neurons,) values of a parameter of `neuron`, by name."""
        values = np.asarray(getattr(self.neuron, name), np.int64)
        if values.ndim and values.size != self.neurons:  # one for each channel
            values = np.repeat(values, self.neurons // values.size)
        return np.broadcast_to(values, (self.neurons,)).copy()


@dataclass(frozen=True, eq=False)
class Network:
    """An integer network, its presentation time and where it came from.

    Attributes:
        layers: at least one, each fed by the one before; only the last may be a
            non-firing readout.
        steps: T, the number of steps a sample is presented, or None where the
            network's file does not say.
        provenance: text facts stored with the network (format and package version,
            digest of the source checkpoint, configuration as TOML).
        input_bits: 0 where inputs are spikes, 0 or 1; else inputs are integers (graded
            spikes) of so many bits and a sign, 1..24.

    Raises:
        ValueError, TypeError: when layers do not fit together, or `steps` is no integer.
    """

    layers: tuple[Layer, ...]
    steps: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    input_bits: int = 0

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
        object.__setattr__(self, "input_bits", operator.index(self.input_bits))
        if not 0 <= self.input_bits <= 24:
            raise ValueError(f"inputs of {self.input_bits} bits are outside 0..24")
        if INPUT in names:
            raise ValueError(f"a layer is called {INPUT!r}, as the network's input is")
        for before, after in zip(self.layers, self.layers[1:]):
            if before.neurons != after.connections.n_pre:
                raise ValueError(
                    f"layer {after.name} expects {after.connections.n_pre} inputs, "
                    f"layer {before.name} has {before.neurons} neurons"
                )
            if not before.neuron.fires:
                raise ValueError(f"layer {before.name} never fires but feeds layer {after.name}")
            if isinstance(after.connections, Injection):
                raise ValueError(f"layer {after.name} takes injected input, but is not the first")
        known = {INPUT: self.inputs}
        for layer in self.layers:
            for skip in layer.skips:
                if skip.source not in known:
                    raise ValueError(
                        f"layer {layer.name}: skip from {skip.source!r}, which is not before it"
                    )
                if skip.connections.n_pre != known[skip.source]:
                    raise ValueError(
                        f"layer {layer.name}: skip from {skip.source} has "
                        f"{skip.connections.n_pre} inputs from {known[skip.source]} neurons"
                    )
            known[layer.name] = layer.neurons

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view of a dictionary cannot be pickled.
        return Network, (self.layers, self.steps, dict(self.provenance), self.input_bits)

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
        return sum(part.count for layer in self.layers for part in parts(layer))

    @property
    def synapses(self) -> int:
        """Non-zero weights of all layers together."""
        return sum(part.synapses for layer in self.layers for part in parts(layer))

    @property
    def density(self) -> float:
        """Connections over possible connections of all layers together, 0..1."""
        possible = sum(part.possible for layer in self.layers for part in parts(layer))
        return self.connections / possible if possible else 0.0


def parts(layer: Layer) -> list[Connections | Convolution | Injection]:
    """Everything that brings input to a layer: feed-forward, recurrent, skips."""
    recurrent = [] if layer.recurrent is None else [layer.recurrent]
    return [layer.connections, *recurrent, *(skip.connections for skip in layer.skips)]
