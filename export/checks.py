"""Every limit of netx, Lava and the chip that an exported network must respect.

A rule is a function from a layer to sentences; all rules run, and all violations are
reported together, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esl_lava.errors import LimitError
from esl_lava.export.lava_weights import effective_weights
from esl_lava.network import DECAY_UNITY, STATE_LIMIT, STATE_SHIFT, Layer, Network

WEIGHT_RANGE = (-256, 254)
BIAS_RANGE = (-4096, 4095)  # 13-bit mantissa
_FAR = 1 << 40  # no state of interest, and its product with a decay fits int64


def has_synapses(layer: Layer) -> Iterator[str]:
    """A layer of zeros does not load: netx takes the logarithm of its largest weight."""
    if layer.connections.synapses == 0:
        yield "every weight is 0, which netx cannot load"


def weights_fit_eight_bits(layer: Layer) -> Iterator[str]:
    """Signed 8-bit mantissas times 2: -256..254."""
    weights = layer.connections.weights
    low, high = WEIGHT_RANGE
    outside = weights[(weights < low) | (weights > high)]
    if outside.size:
        worst = outside[np.abs(outside).argmax()]
        yield f"weight {worst} is outside {low}..{high} ({outside.size} such weights)"


def weights_survive_lava(layer: Layer) -> Iterator[str]:
    """What Lava computes with must be what the file says (`lava_weights`)."""
    if layer.connections.synapses == 0 or any(weights_fit_eight_bits(layer)):
        return  # reported by the rules above
    written = layer.connections.dense()
    effective = effective_weights(written)
    changed = np.argwhere(effective != written)
    if changed.size:
        post, pre = changed[0]
        yield (
            f"weight {written[post, pre]} (neuron {post}, input {pre}) would count as "
            f"{effective[post, pre]:g} in Lava ({len(changed)} such weights); "
            "a weight of each sign in the layer avoids it"
        )


def bias_fits_thirteen_bits(layer: Layer) -> Iterator[str]:
    """Signed 13-bit mantissas."""
    if layer.bias is None:
        return
    low, high = BIAS_RANGE
    outside = layer.bias[(layer.bias < low) | (layer.bias > high)]
    if outside.size:
        yield f"bias {outside[np.abs(outside).argmax()]} is outside {low}..{high} (13-bit mantissa)"


RULES: tuple[Callable[[Layer], Iterator[str]], ...] = (
    has_synapses,
    weights_fit_eight_bits,
    weights_survive_lava,
    bias_fits_thirteen_bits,
)


def check(network: Network) -> None:
    """Apply every rule to every layer.

    Raises:
        LimitError: with all violations, each naming layer, value and limit.
    """
    violations = [
        f"layer {index} ({layer.name}): {sentence}"
        for index, layer in enumerate(network.layers)
        for rule in RULES
        for sentence in rule(layer)
    ]
    if violations:
        raise LimitError(violations)


@dataclass(frozen=True)
class StateBound:
    """The widest values u and v of a layer can reach, whatever binary spikes arrive.

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


def state_bound(layer: Layer, steps: int) -> StateBound:
    """Bounds by reachability: positive and negative weights taken apart.

    The lowest and highest input is repeated `steps` times. A firing neuron carries at
    most its threshold over to the next step; having fired, it carries 0, which is lower
    than what a positive bias alone would have left.
    """
    connections, neuron = layer.connections, layer.neuron
    bias = 0 if layer.bias is None else layer.bias.astype(np.int64) << STATE_SHIFT
    carried = neuron.threshold << STATE_SHIFT
    reached = []
    for part, furthest, after in ((np.minimum, min, 0), (np.maximum, max, carried)):
        # bincount sums in float64, exact below 2**53.
        summed = np.bincount(
            connections.rows(), part(connections.weights, 0), minlength=connections.n_post
        )
        a = summed.astype(np.int64) << STATE_SHIFT
        u = np.zeros(connections.n_post, np.int64)
        v = np.zeros(connections.n_post, np.int64)
        most_u = most_v = 0
        for _ in range(steps):
            u = np.clip(_decayed(u, neuron.current_decay) + a, -_FAR, _FAR)
            v = np.clip(_decayed(v, neuron.voltage_decay) + u + bias, -_FAR, _FAR)
            most_u = furthest(most_u, *u.tolist())
            most_v = furthest(most_v, *v.tolist())
            if neuron.fires:
                v = np.minimum(v, after)
        reached.append((most_u, most_v))
    (u_low, v_low), (u_high, v_high) = reached
    return StateBound((u_low, u_high), (v_low, v_high))


def _decayed(state: npt.NDArray[np.int64], decay: int) -> npt.NDArray[np.int64]:
    """The state after one decay, rounded toward zero as on the chip."""
    product = state * (DECAY_UNITY - decay)
    return np.sign(product) * (np.abs(product) >> 12)


def unbounded_layers(network: Network, steps: int) -> tuple[str, ...]:
    """Names of layers for which the static bound cannot exclude an overflow of u or v.

    SLAYER neither wraps u nor clips v, Lava and the chip do: for these layers only a run
    on data tells whether training and chip agree.
    """
    return tuple(layer.name for layer in network.layers if not state_bound(layer, steps).safe)
