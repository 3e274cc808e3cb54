"""What a netx file says of neurons, and what of it Lava or SLAYER would take otherwise."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Array
from esl_lava.chip import DECAY_UNITY, NEVER, STATE_SHIFT
from esl_lava.netfile.safe import RefusedError, has, integers, subgroup, text
from esl_lava.netfile.writer import MAX_LAYERS, PARAMETERS
from esl_lava.network import Cuba, Layer


def read_neuron(group: h5py.Group, shape: tuple[int, ...], kind: str) -> Cuba:
    """The neurons of a layer's group.

    Args:
        group: of the layer.
        shape: of the layer, (channels, rows, columns) or (neurons,).
        kind: of the layer, as `reader.KINDS`.

    Raises:
        RefusedError, ValueError: for neurons that are not CUBA, or that Lava takes for others.
    """
    if not has(group, "neuron") and kind in ("dense", "dense_rec"):
        # What netx assumes: u and v hold the running sum of the input.
        return Cuba(current_decay=0, voltage_decay=4096, threshold=NEVER)
    neuron = subgroup(group, "neuron")
    name = text(neuron, "type")
    if name not in ("CUBA", "LOIHI"):
        raise RefusedError(f"neuron type {name!r} is not supported, only CUBA")
    if has(neuron, "messageBits"):
        raise RefusedError("neuron/messageBits is not supported, nor by Lava")
    # All are passed over by netx, but meant something where the network was trained.
    for key, harmless in (("gradedSpike", 0), ("weight_exp", 0), ("wgtExp", 0), ("refDelay", 1)):
        if has(neuron, key) and (integers(neuron, key, MAX_LAYERS) != harmless).any():
            raise RefusedError(f"neuron/{key} other than {harmless} is not supported")
    return Cuba(**{name: _parameter(neuron, key, shape) for name, key in PARAMETERS.items()})


def _parameter(neuron: h5py.Group, key: str, shape: tuple[int, ...]) -> Any:
    """An integer, or one for each neuron or channel."""
    values = integers(neuron, key, math.prod(shape), floats=False)
    # Lava computes in the type found in the file (lava-nc 0.10.0, `proc/lif/models.py`): the
    # threshold is shifted in its own type (a single number since numpy 2 only), a decay is taken
    # from 4096 in it, and int64 with uint64 makes float64, without shift.
    if values.dtype == np.uint64:
        raise RefusedError(f"neuron/{key} is of type uint64, with which Lava hangs")
    if key != "vThMant" and np.iinfo(values.dtype).max < DECAY_UNITY:
        raise RefusedError(
            f"neuron/{key} is of type {values.dtype}, from which Lava takes {DECAY_UNITY}"
        )
    if key == "vThMant" and values.size:
        largest, holds = int(values.max()), int(np.iinfo(values.dtype).max)
        if largest << STATE_SHIFT > holds:
            raise RefusedError(
                f"neuron/{key} {largest} of type {values.dtype}: Lava shifts it left "
                f"by {STATE_SHIFT} bits in that type, which holds up to {holds}"
            )
    if key == "vThMant" and (values <= 4 * NEVER).all():
        # v ends below NEVER, whatever lies beyond it; 2**18 - 1 is SLAYER's "never".
        values = np.minimum(values, NEVER, dtype=np.int64)
    if values.ndim == 0 or (values.size == 1 and shape[0] != 1):
        return int(values.ravel()[0])
    return values if values.shape == shape[:1] else for_each_neuron(values, shape, key)


def for_each_neuron(values: Array, shape: tuple[int, ...], key: str) -> Array:
    """(neurons,) values from as many, from (columns, rows, channels), or from (channels,).

    Raises:
        RefusedError: naming the key and its shape, where it is none of these.
    """
    if len(shape) == 1 and values.size == 1:
        values = values.ravel()
    if values.shape == shape[::-1]:
        return values.transpose().ravel()
    if values.shape == shape[:1]:
        return np.repeat(values, math.prod(shape[1:]))
    raise RefusedError(f"{key} of shape {values.shape}, not one value for each of {shape} neurons")


def check_meaning(layer: Layer) -> None:
    """Refuse what SLAYER, where the network was trained, and netx take for different things.

    Args:
        layer: of a file that is not ours.

    Raises:
        RefusedError: naming the value.
    """
    decay = int(np.min(layer.neuron.current_decay))
    if layer.inputs[0].connections.injects and decay < DECAY_UNITY:
        raise RefusedError(
            f"neuron/iDecay {decay} of an input block: netx adds the input to v at once, SLAYER "
            f"lets it pass through u, which is the same only at {DECAY_UNITY}"
        )
    delays = layer.inputs[0].delays
    if layer.bias is None or delays is None:
        return
    both = np.flatnonzero((layer.bias != 0) & (delays != 0))
    if both.size:
        at = both[0]
        raise RefusedError(
            f"neuron {at} has a delay of {delays[at]} and a bias of {layer.bias[at]}: "
            "SLAYER delays what both bring, netx only what synapses bring"
        )
