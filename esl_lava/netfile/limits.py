"""Every limit of netx, Lava and the chip that a network in a file must respect.

A rule is a function from a layer to sentences; all rules run, and all violations are
reported together: before anything is written, and when a file of others is read. Rules about
netx are of interest only where netx can express the network at all; others are for Lava and
the chip: Lava's CPU simulator would run convolutions with weights of any size, a chip holds
8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from esl_lava.chip import BIAS_RANGE, LAVA_SLIDING, WEIGHT_RANGE
from esl_lava.errors import LimitError
from esl_lava.netfile.lava_weights import effective_weights
from esl_lava.netfile.writer import beyond_netx
from esl_lava.network import Layer, Network


def has_synapses(layer: Layer) -> Iterator[str]:
    """A layer of zeros does not load: netx takes the logarithm of its largest weight."""
    if _is_matrix(layer) and not any(kind.synapses for kind in layer.wiring):
        yield "every weight is 0, which netx cannot load"


def _is_matrix(layer: Layer) -> bool:
    first = layer.inputs[0].connections
    return not first.injects and not first.shares


def weights_fit_eight_bits(layer: Layer) -> Iterator[str]:
    """Signed 8-bit mantissas times 2: -256..254, in convolutions too (for the chip)."""
    low, high = WEIGHT_RANGE
    for name, given in layer.named():
        weights = given.connections.weights
        outside = weights[(weights < low) | (weights > high)]
        if outside.size:
            worst = outside[np.abs(outside).argmax()]
            yield f"{name} {worst} is outside {low}..{high} ({outside.size} such weights)"


def weights_survive_lava(layer: Layer) -> Iterator[str]:
    """What Lava computes with must be what the file says (`lava_weights`)."""
    if not _is_matrix(layer):
        return  # of a convolution Lava keeps every weight
    if any(has_synapses(layer)) or any(weights_fit_eight_bits(layer)):
        return  # reported by the rules above
    together = [layer.inputs[0], *([] if layer.recurrent is None else [layer.recurrent])]
    matrices = [given.connections.unrolled() for given in together]
    # Lava looks at every weight by itself and at the extremes: of all zeros one will do.
    written = [
        np.append(matrix.weights, 0)[None, : min(matrix.possible, matrix.count + 1)]
        for matrix in matrices
    ]
    for name, matrix, before, after in zip(
        ("weight", "recurrent weight"), matrices, written, effective_weights(*written)
    ):
        changed = np.flatnonzero(after != before)
        if changed.size:
            first = changed[0]
            yield (
                f"{name} {before[0, first]} ({matrix.place(matrix.positions()[first])}) would "
                f"count as {after[0, first]:g} in Lava ({len(changed)} such weights); "
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


def convolutions_fit_lava(layer: Layer) -> Iterator[str]:
    """Sizes, strides, paddings, dilations and groups in signed 8 bits; Lava wraps others."""
    for kind in layer.wiring:
        for name, number in kind.sliding.items():
            if number > LAVA_SLIDING:
                yield f"{name} {number} exceeds {LAVA_SLIDING}, what Lava can hold"


RULES: tuple[Callable[[Layer], Iterator[str]], ...] = (
    weights_fit_eight_bits,
    bias_fits_thirteen_bits,
    convolutions_fit_lava,
)
NETX_RULES: tuple[Callable[[Layer], Iterator[str]], ...] = (
    has_synapses,
    weights_survive_lava,
)
"""What only matters where plain netx loads the file."""


def violations(network: Network) -> list[str]:
    """Every rule that a layer breaks, each sentence naming layer, value and limit."""
    rules = RULES if beyond_netx(network) else (*RULES, *NETX_RULES)
    return [
        f"layer {index} ({layer.name}): {sentence}"
        for index, layer in enumerate(network.layers)
        for rule in rules
        for sentence in rule(layer)
    ]


def check(network: Network) -> None:
    """Apply every rule to every layer of a network to be written.

    Raises:
        LimitError: with all violations, each naming layer, value and limit.
    """
    broken = violations(network)
    first = network.layers[0]
    (low, high), (least, most) = network.input_range, BIAS_RANGE
    if network.first.injects and not least <= low <= high <= most:
        broken.append(
            f"layer 0 ({first.name}): injected input in {low}..{high} is outside {least}..{most} "
            "(13-bit mantissa)"
        )
    if broken:
        raise LimitError(broken)
