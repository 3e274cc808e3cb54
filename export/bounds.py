"""How far u and v of a layer can reach, whatever input arrives.

SLAYER neither wraps u nor clips v, Lava and the chip do: what stays within the bounds is the
same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.chip import DECAY_UNITY, NEVER, SPIKE_RANGE, STATE_LIMIT, STATE_SHIFT
from esl_lava.network import INPUT, Layer, Network

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


def state_bound(layer: Layer, steps: int, input_range: tuple[int, int] = SPIKE_RANGE) -> StateBound:
    """Bounds by reachability: positive and negative weights taken apart.

    The lowest and highest input is repeated `steps` times; what delays and recurrent
    connections bring starts later, which reaches no further. A firing neuron carries at
    most its threshold over to the next step; having fired, it carries 0, which is lower
    than what a positive bias alone would have left. At the edge of feature maps a neuron
    is taken to have its whole kernel's input.

    Args:
        layer: its neurons and all that feeds them.
        steps: T.
        input_range: of the network, for what comes from its input.
    """
    neuron = layer.neuron
    low, high, injected = _reach(layer, input_range)
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    parameters = (neuron.current_decay, neuron.voltage_decay, neuron.threshold)
    low, high, bias, i_decay, v_decay, threshold = _alike(
        (low, high, bias, *(np.atleast_1d(np.asarray(p, np.int64)) for p in parameters))
    )
    fires = threshold < NEVER
    reached = []
    for a, drive, furthest, after in (
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
            v = np.where(fires, np.minimum(v, after), v)
        reached.append((most_u, most_v))
    (u_low, v_low), (u_high, v_high) = reached
    return StateBound((u_low, u_high), (v_low, v_high))


def _reach(layer: Layer, input_range: tuple[int, int]) -> tuple[Ints, Ints, tuple[int, int]]:
    """Least and greatest input of a step per neuron or channel, and least and most injected."""
    injected = (0, 0)
    low = high = np.zeros(1, np.int64)
    for given in layer.inputs:
        least, most = input_range if given.source == INPUT else SPIKE_RANGE
        if given.connections.injects:
            injected = least, most
        negative, positive = given.connections.signed_sums()
        low = _sum(low, most * negative + least * positive)
        high = _sum(high, most * positive + least * negative)
    return low, high, injected


def _sum(*columns: Ints) -> Ints:
    """The sum of values per neuron, per channel or shared, as long as it has to be."""
    total: Ints = _spread(columns).sum(axis=0)
    return total


def _spread(columns: tuple[Ints, ...]) -> Ints:
    """(columns, n) values of n neurons or channels, those per channel or shared repeated."""
    size = max(column.size for column in columns)
    return np.stack([np.repeat(column, size // column.size) for column in columns])


def _alike(columns: tuple[Ints, ...]) -> list[Ints]:
    """The columns at one length, neurons in which all are alike taken once.

    A layer of feature maps has few kinds of neurons, one for each channel as a rule.
    """
    return list(np.unique(_spread(columns), axis=1))


def _decayed(state: Ints, decay: Ints) -> Ints:
    """The state after one decay, rounded toward zero as on the chip."""
    product = state * (DECAY_UNITY - decay)
    return np.sign(product) * (np.abs(product) >> 12)


def unbounded_layers(network: Network, steps: int) -> tuple[str, ...]:
    """Names of layers for which the static bound cannot exclude an overflow of u or v.

    SLAYER neither wraps u nor clips v, Lava and the chip do: for these layers only a run
    on data tells whether training and chip agree.
    """
    return tuple(
        layer.name
        for layer in network.layers
        if not state_bound(layer, steps, network.input_range).safe
    )
