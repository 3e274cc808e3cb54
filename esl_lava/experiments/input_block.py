"""What drives the neurons of an input block of lava-dl's.

SLAYER's block (lava-dl 0.6.0, `slayer/block/base.py`, AbstractInput) takes a sample's values x
and makes weight * x + bias of them; netx only stores weight and bias (`netx/blocks/process.py`,
Input.transform), and leaves it to the host to set the neurons' bias to that.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import DataError
from esl_lava.network import Network

SLAYER_VALUES = (-4, 3)
"""SLAYER keeps a value in 8 bits of steps of 1/32: of whole numbers, these stay what they are."""


def driven(network: Network, values: Array) -> Array:
    """Scale and shift a sample's values as the network's input block does.

    Args:
        network: as read from a file.
        values: (samples, T, ...) integers.

    Returns:
        What `simulate` injects, int32; the values themselves where there is no input block.

    Raises:
        DataError: where a value is not one that SLAYER's block keeps as it is, or the file's
            weight or bias is no number of 16 bits.
    """
    if not has_transform(network):
        return values
    low, high = SLAYER_VALUES
    found = int(values.min()), int(values.max())
    if found[0] < low or found[1] > high:
        raise DataError(
            f"an input block's values are whole numbers in {low}..{high}, which SLAYER keeps as "
            f"they are, found {found[0] if found[0] < low else found[1]}; with --drive values are "
            "what drives its neurons, weight and bias already applied"
        )
    weight, bias = (_whole(network, f"input_{key}") for key in ("weight", "bias"))
    return (weight * values.astype(np.int32) + bias).astype(np.int32)


def has_transform(network: Network) -> bool:
    """Whether the network begins with an input block that scales and shifts its input."""
    injected = network.first.injects
    return injected and "input_weight" in network.provenance


def without_transform(network: Network) -> Network:
    """The network as it takes values to which weight and bias have been applied already."""
    facts = {
        fact: said
        for fact, said in network.provenance.items()
        if fact not in ("input_weight", "input_bias")
    }
    return replace(network, provenance=facts)


def _whole(network: Network, fact: str) -> int:
    """A number that the file tells as a text; a stranger may have written any other."""
    said = network.provenance.get(fact, "")
    if not re.fullmatch(r"-?[0-9]{1,5}", said):
        raise DataError(f"the network's file says {fact} {said[:20]!r}, not a number of 16 bits")
    return int(said)
