"""Bounds of u and v of a layer, whatever input arrives.

SLAYER neither wraps u nor clips v. Lava and the chip do. All give the same result if u and v stay
within the range of the chip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.chip import DECAY_UNITY, NEVER, SPIKE_RANGE, STATE_LIMIT, STATE_SHIFT
from esl_lava.network import INPUT, Layer, Network

_FAR = 1 << 40  # larger than any relevant state; its product with a decay fits int64


@dataclass(frozen=True)
class StateBound:
    """The lowest and highest values that u and v of a layer can reach, whatever input arrives.

    Attributes:
        u, v: (lowest, highest) over the layer's neurons and T steps, in units of 2**-6
            weights, without wrapping or clipping; limited to +-2**40.
    """

    u: tuple[int, int]
    v: tuple[int, int]

    @property
    def safe(self) -> bool:
        """Whether u can never wrap and v can never be clipped."""
        return (
            self.u[0] > -STATE_LIMIT
            and self.u[1] <= STATE_LIMIT
            and self.v[0] > -STATE_LIMIT
            and self.v[1] < STATE_LIMIT
        )


def state_bound(layer: Layer, steps: int, input_range: tuple[int, int] = SPIKE_RANGE) -> StateBound:
    """Compute the bounds of u and v, with positive and negative weights taken apart.

    The lowest and the highest input are repeated `steps` times. Input through delays and recurrent
    connections starts later, so it reaches no further. A neuron that fires carries at most its
    threshold to the next step. After a spike it carries 0, which is lower than the potential that
    a positive bias alone would have left. A neuron at the edge of feature maps counts as if it had
    the input of a whole kernel.

    Args:
        layer: the neurons and all their inputs.
        steps: T.
        input_range: range of the network's input, for connections from that input.
    """
    neuron = layer.neuron
    low, high, injected = _reach(layer, input_range)
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    parameters = (neuron.current_decay, neuron.voltage_decay, neuron.threshold)
    low, high, bias, i_decay, v_decay, threshold = _distinct_columns(
        (low, high, bias, *(np.atleast_1d(np.asarray(p, np.int64)) for p in parameters))
    )
    fires = threshold < NEVER
    extremes = []
    for a, drive, furthest, carried in (
        (low, bias + injected[0], np.min, np.zeros_like(threshold)),
        (high, bias + injected[1], np.max, threshold << STATE_SHIFT),
    ):
        u, v = np.zeros_like(low), np.zeros_like(low)
        most_u = most_v = 0
        for _ in range(steps):
            u = np.clip(_decayed(u, i_decay) + (a << STATE_SHIFT), -_FAR, _FAR)
            v = np.clip(_decayed(v, v_decay) + u + (drive << STATE_SHIFT), -_FAR, _FAR)
            most_u = int(furthest([most_u, furthest(u)]))
            most_v = int(furthest([most_v, furthest(v)]))
            v = np.where(fires, np.minimum(v, carried), v)
        extremes.append((most_u, most_v))
    (u_low, v_low), (u_high, v_high) = extremes
    return StateBound((u_low, u_high), (v_low, v_high))


def _reach(layer: Layer, input_range: tuple[int, int]) -> tuple[Ints, Ints, tuple[int, int]]:
    """Return the least and the greatest weighted input of a step, and the range of injected input.

    The weighted input has one value per neuron or channel.
    """
    injected = (0, 0)
    low = high = np.zeros(1, np.int64)
    for layer_input in layer.inputs:
        least, most = input_range if layer_input.source == INPUT else SPIKE_RANGE
        if layer_input.connections.injects:
            injected = least, most
        negative, positive = layer_input.connections.signed_sums()
        low = _sum(low, most * negative + least * positive)
        high = _sum(high, most * positive + least * negative)
    return low, high, injected


def _sum(*columns: Ints) -> Ints:
    """Return the sum of values that are per neuron, per channel or shared."""
    total: Ints = _spread(columns).sum(axis=0)
    return total


def _spread(columns: tuple[Ints, ...]) -> Ints:
    """Return (columns, n) values of n neurons or channels; repeat those of a channel or of all."""
    size = max(column.size for column in columns)
    return np.stack([np.repeat(column, size // column.size) for column in columns])


def _distinct_columns(columns: tuple[Ints, ...]) -> list[Ints]:
    """Return the columns at one length, with equal neurons only once.

    A layer of feature maps has few kinds of neurons, usually one for each channel.
    """
    return list(np.unique(_spread(columns), axis=1))


def _decayed(state: Ints, decay: Ints) -> Ints:
    """Return the state after one decay, rounded toward zero as on the chip."""
    product = state * (DECAY_UNITY - decay)
    return np.sign(product) * (np.abs(product) >> 12)


def unbounded_layers(network: Network, steps: int) -> tuple[str, ...]:
    """Return the names of layers for which the static bound cannot exclude an overflow of u or v.

    SLAYER neither wraps u nor clips v. Lava and the chip do. For these layers only a run on data
    shows whether training and chip agree.
    """
    return tuple(
        layer.name
        for layer in network.layers
        if not state_bound(layer, steps, network.input_range).safe
    )
