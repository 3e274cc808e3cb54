"""The limits of netx, Lava and the chip that a network in a file must respect.

A rule is a function from a layer to faults. All rules run, and all faults are reported together:
before a file is written, and when a file that esl-lava did not write is read. The rules about netx
apply only if netx can express the network. The other rules are for Lava and the chip: Lava's CPU
simulator would run convolutions with weights of any size, but a chip holds 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from esl_lava.chip import BIAS_RANGE, LAVA_SLIDING, WEIGHT_RANGE
from esl_lava.errors import Fault, LimitError
from esl_lava.netfile.lava_weights import effective_weights
from esl_lava.netfile.writer import netx_refusals
from esl_lava.network import Layer, Matrix, Network

_PART = 1 << 20
"""Weights that are counted together."""


def has_synapses(layer: Layer) -> Iterator[Fault]:
    """Check that not every weight is 0: netx takes the logarithm of the largest weight."""
    if _is_matrix(layer) and not any(connections.synapses for connections in layer.wiring):
        yield Fault(
            f"layer {layer.name}: every weight is 0, which netx cannot load",
            "limit",
            key="weight",
            value=0,
            layer=layer.name,
        )


def _is_matrix(layer: Layer) -> bool:
    first = layer.inputs[0].connections
    return not first.injects and not first.shares


def weights_fit_eight_bits(layer: Layer) -> Iterator[Fault]:
    """Check that weights lie in -256..254, the range of an 8-bit mantissa times 2, for the chip."""
    low, high = WEIGHT_RANGE
    for name, layer_input in layer.named():
        weights = layer_input.connections.weights
        outside = weights[(weights < low) | (weights > high)]
        if outside.size:
            worst = int(outside[np.abs(outside).argmax()])
            yield Fault(
                f"layer {layer.name}: the {name} {worst} is outside {low}..{high} "
                f"({_count(outside.size)} outside)",
                "limit",
                key="weight",
                value=worst,
                limit=low if worst < low else high,
                layer=layer.name,
            )


def weights_survive_lava(layer: Layer) -> Iterator[Fault]:
    """Check that Lava computes with the weights of the file (`lava_weights`)."""
    if not _is_matrix(layer):
        return  # Lava keeps every weight of a convolution
    if any(has_synapses(layer)) or any(weights_fit_eight_bits(layer)):
        return  # reported by the rules above
    shifted_together = [layer.inputs[0], *([] if layer.recurrent is None else [layer.recurrent])]
    matrices = [layer_input.connections.unrolled() for layer_input in shifted_together]
    # Lava looks at each weight alone and at the extremes, so each value is needed once.
    values = [_distinct(matrix) for matrix in matrices]
    for name, matrix, before, after in zip(
        ("weight", "recurrent weight"), matrices, values, effective_weights(*values)
    ):
        lost = before[after != before]
        if lost.size:
            changed = np.flatnonzero(np.isin(matrix.weights, lost))
            first = changed[0]
            weight = matrix.weights[first]
            missing = "positive" if weight < 0 else "negative"
            yield Fault(
                f"layer {layer.name}: the {name} {weight} "
                f"({matrix.place(matrix.positions()[first])}) would become "
                f"{after[before == weight][0]:g} in Lava ({_count(changed.size)} changed), because "
                f"its matrix has no {missing} weight; Lava changes no matrix that has weights of "
                "both signs",
                "limit",
                key="weight",
                value=int(weight),
                layer=layer.name,
            )


def _distinct(matrix: Matrix) -> npt.NDArray[np.int32]:
    """Return (1, values) the different weights of a matrix, and 0 if a position has no weight."""
    low, high = WEIGHT_RANGE
    occurs = np.zeros(high - low + 1, bool)
    occurs[-low] = matrix.count < matrix.possible
    for start in range(0, matrix.weights.size, _PART):
        part = matrix.weights[start : start + _PART]
        occurs |= np.bincount(part - low, minlength=occurs.size) > 0
    return (np.flatnonzero(occurs) + low).astype(np.int32)[None]


def _count(number: int) -> str:
    return "1 weight is" if number == 1 else f"{number} weights are"


def bias_fits_thirteen_bits(layer: Layer) -> Iterator[Fault]:
    """Check that biases lie in -4096..4095, the range of a signed mantissa of 13 bits."""
    if layer.bias is None:
        return
    low, high = BIAS_RANGE
    outside = layer.bias[(layer.bias < low) | (layer.bias > high)]
    if outside.size:
        worst = int(outside[np.abs(outside).argmax()])
        yield Fault(
            f"layer {layer.name}: the bias {worst} is outside {low}..{high} (13-bit mantissa)",
            "limit",
            key="bias",
            value=worst,
            limit=low if worst < low else high,
            layer=layer.name,
        )


def convolutions_fit_lava(layer: Layer) -> Iterator[Fault]:
    """Check that kernel sizes, strides, paddings, dilations and groups are at most 127.

    Lava stores them in 8 bits and wraps larger ones.
    """
    for connections in layer.wiring:
        for name, number in connections.sliding.items():
            if number > LAVA_SLIDING:
                what = "kernel size" if name == "kernel" else name
                yield Fault(
                    f"layer {layer.name}: the {what} {number} of a convolution exceeds Lava's "
                    f"limit of {LAVA_SLIDING}",
                    "limit",
                    key=name,
                    value=int(number),
                    limit=LAVA_SLIDING,
                    layer=layer.name,
                )


RULES: tuple[Callable[[Layer], Iterator[Fault]], ...] = (
    weights_fit_eight_bits,
    bias_fits_thirteen_bits,
    convolutions_fit_lava,
)
"""Rules for Lava and the chip."""

NETX_RULES: tuple[Callable[[Layer], Iterator[Fault]], ...] = (
    has_synapses,
    weights_survive_lava,
)
"""Rules that matter only if plain netx loads the file."""


def find_faults(network: Network) -> list[Fault]:
    """Return all faults that the rules find in a network, each with its layer and value."""
    rules = RULES if netx_refusals(network) else (*RULES, *NETX_RULES)
    return [fault for layer in network.layers for rule in rules for fault in rule(layer)]


def check(network: Network) -> None:
    """Check that a network respects the limits, before it is written.

    Raises:
        LimitError: with all faults, each with its layer and value.
    """
    faults = find_faults(network)
    first = network.layers[0].name
    (low, high), (least, most) = network.input_range, BIAS_RANGE
    if network.first.injects and not least <= low <= high <= most:
        faults.append(
            Fault(
                f"layer {first}: the injected input has the range {low}..{high}, but only "
                f"{least}..{most} is allowed (13-bit mantissa)",
                "limit",
                key="input",
                value=low if low < least else high,
                limit=least if low < least else most,
                layer=first,
            )
        )
    if faults:
        raise LimitError.of(faults)
