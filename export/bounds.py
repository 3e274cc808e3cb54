"""How far u and v of a layer can reach, whatever input arrives.

SLAYER neither wraps u nor clips v, Lava and the chip do: what stays within the bounds is the
same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esl_lava.chip import DECAY_UNITY, NEVER, STATE_LIMIT, STATE_SHIFT
from esl_lava.netfile.limits import named_parts
from esl_lava.network import INPUT, Connections, Convolution, Injection, Layer, Network

_FAR = 1 << 40  # no state of interest, and its product with a decay fits int64


@dataclass(frozen=True)
class StateBound:
    """The widest values u and v of a layer can reach, whatever input arrives.

    Attributes:
        u, v: (lowest, highest) over the layer's neurons and T steps, in units of 2**-6
            weights, without wrapping or clipping; not followed beyond +-2**40.
    """

    u: tuple[int, int]
    v: tuple[int, int]

    @property
    def safe(self) -> bool:
        """Whether u can never wrap and v can never clip."""
        return (
            self.u[0] > -STATE_LIMIT
            and self.u[1] <= STATE_LIMIT
            and self.v[0] > -STATE_LIMIT
            and self.v[1] < STATE_LIMIT
        )


def state_bound(
    layer: Layer, steps: int, source: str | None = None, input_bits: int = 0
) -> StateBound:
    """Bounds by reachability: positive and negative weights taken apart.

    The lowest and highest input is repeated `steps` times; what delays and recurrent
    connections bring starts later, which reaches no further. A firing neuron carries at
    most its threshold over to the next step; having fired, it carries 0, which is lower
    than what a positive bias alone would have left. At the edge of feature maps a neuron
    is taken to have its whole kernel's input.

    Args:
        layer: its neurons and all that feeds them.
        steps: T.
        source: what feeds `connections`: `INPUT`, or by default a layer that spikes.
        input_bits: of the network, for what comes from its input.
    """
    neuron = layer.neuron
    low, high, injected = _reach(layer, source, input_bits)
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    parameters = (neuron.current_decay, neuron.voltage_decay, neuron.threshold)
    low, high, bias, i_decay, v_decay, threshold = _alike(
        layer, (low, high, bias, *(np.atleast_1d(np.asarray(p, np.int64)) for p in parameters))
    )
    fires = threshold < NEVER
    reached = []
    for a, drive, furthest, after in (
        (low, bias - injected, np.min, np.zeros_like(threshold)),
        (high, bias + injected, np.max, threshold << STATE_SHIFT),
    ):
        u, v = np.zeros_like(low), np.zeros_like(low)
        most_u = most_v = 0
        for _ in range(steps):
            u = np.clip(_decayed(u, i_decay) + (a << STATE_SHIFT), -_FAR, _FAR)
            v = np.clip(_decayed(v, v_decay) + u + (drive << STATE_SHIFT), -_FAR, _FAR)
            most_u = int(furthest([most_u, furthest(u)]))
            most_v = int(furthest([most_v, furthest(v)]))
            v = np.where(fires, np.minimum(v, after), v)
        reached.append((most_u, most_v))
    (u_low, v_low), (u_high, v_high) = reached
    return StateBound((u_low, u_high), (v_low, v_high))


def _reach(
    layer: Layer, source: str | None, input_bits: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Least and greatest input of a step per neuron or channel, and the most injected."""
    graded = (1 << input_bits) - 1 if input_bits else 0
    sources = [source] + [layer.name] * (layer.recurrent is not None)
    sources += [skip.source for skip in layer.skips]
    ends = list(named_parts(layer))
    injected = 0
    if isinstance(layer.connections, Injection):
        sources = sources[1:]
        injected = max(1, graded)
    low = high = np.zeros(1, np.int64)
    for origin, (_, part) in zip(sources, ends):
        negative, positive = _signed_sums(part)
        if origin == INPUT and graded:  # of either sign
            positive = graded * (positive - negative)
            negative = -positive
        low, high = _sum(layer, low, negative), _sum(layer, high, positive)
    return low, high, injected


def _signed_sums(
    part: Connections | Convolution,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sums of the negative and of the positive weights, per neuron or output channel."""
    if isinstance(part, Convolution):
        kernel = part.kernel.reshape(len(part.kernel), -1)
        negative, positive = (
            f(kernel, 0).sum(axis=1, dtype=np.int64) for f in (np.minimum, np.maximum)
        )
        return negative, positive
    # bincount sums in float64, exact below 2**53.
    negative, positive = (
        np.bincount(part.rows(), f(part.weights, 0), minlength=part.n_post).astype(np.int64)
        for f in (np.minimum, np.maximum)
    )
    return negative, positive


def _sum(
    layer: Layer, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The sum of values per neuron, per channel or shared, as long as it has to be."""
    size = max(one.size, other.size)
    return _spread(layer, one, size) + _spread(layer, other, size)


def _spread(layer: Layer, values: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """`values` for each of `size` neurons or channels of the layer."""
    return values if values.size == size else np.repeat(values, size // values.size)


def _alike(layer: Layer, columns: tuple[npt.NDArray[np.int64], ...]) -> list[npt.NDArray[np.int64]]:
    """The columns at one length, neurons in which all are alike taken once.

    A layer of feature maps has few kinds of neurons, one for each channel as a rule.
    """
    size = max(column.size for column in columns)
    table = np.stack([_spread(layer, column, size) for column in columns])
    return list(np.unique(table, axis=1))


def _decayed(state: npt.NDArray[np.int64], decay: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The state after one decay, rounded toward zero as on the chip."""
    product = state * (DECAY_UNITY - decay)
    return np.sign(product) * (np.abs(product) >> 12)


def unbounded_layers(network: Network, steps: int) -> tuple[str, ...]:
    """Names of layers for which the static bound cannot exclude an overflow of u or v.

    SLAYER neither wraps u nor clips v, Lava and the chip do: for these layers only a run
    on data tells whether training and chip agree.
    """
    sources = [INPUT] + [layer.name for layer in network.layers]
    return tuple(
        layer.name
        for source, layer in zip(sources, network.layers)
        if not state_bound(layer, steps, source, network.input_bits).safe
    )
