"""The neurons of a netx file, and the values that Lava or SLAYER would interpret differently."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from esl_lava.arrays import Array
from esl_lava.chip import DECAY_UNITY, NEVER, STATE_SHIFT
from esl_lava.netfile.chunks import RefusedError
from esl_lava.netfile.safe import Group, get_group, has_link, read_integers, read_text
from esl_lava.netfile.writer import MAX_LAYERS, PARAMETERS
from esl_lava.network import Cuba, Layer


def read_neuron(group: Group, shape: tuple[int, ...], kind: str) -> Cuba:
    """Read the neurons of a layer's group.

    Args:
        group: the group of the layer.
        shape: shape of the layer, (channels, rows, columns) or (neurons,).
        kind: type of the layer, one of `reader.KINDS`.

    Raises:
        RefusedError, ValueError: if the neurons are not CUBA, a parameter is out of range, or Lava
            would hang or compute other numbers with its type.
    """
    if not has_link(group, "neuron") and kind in ("dense", "dense_rec"):
        # netx assumes such neurons: u and v hold the running sum of the input.
        return Cuba(current_decay=0, voltage_decay=4096, threshold=NEVER)
    neuron = get_group(group, "neuron")
    name = read_text(neuron, "type")
    if name not in ("CUBA", "LOIHI"):
        raise RefusedError(
            f"neuron type {name!r} is not supported; only CUBA neurons are",
            "unsupported",
            key="type",
            value=name,
            limit="CUBA",
        )
    if has_link(neuron, "messageBits"):
        raise RefusedError(
            "neuron/messageBits is supported neither by esl-lava nor by Lava",
            "unsupported",
            key="messageBits",
        )
    # netx ignores these values, but they had a meaning where the network was trained.
    for key, harmless in (("gradedSpike", 0), ("weight_exp", 0), ("wgtExp", 0), ("refDelay", 1)):
        if has_link(neuron, key) and (read_integers(neuron, key, MAX_LAYERS) != harmless).any():
            raise RefusedError(
                f"neuron/{key} other than {harmless} is not supported",
                "unsupported",
                key=key,
                limit=harmless,
            )
    return Cuba(**{name: _parameter(neuron, key, shape) for name, key in PARAMETERS.items()})


def _parameter(neuron: Group, key: str, shape: tuple[int, ...]) -> Any:
    """Return an integer for all neurons, or one for each neuron or channel."""
    values = read_integers(neuron, key, math.prod(shape), floats=False)
    # Lava computes in the type that it finds in the file (lava-nc 0.10.0, `proc/lif/models.py`):
    # it shifts the threshold in the threshold's own type (a single number since numpy 2 only), it
    # subtracts a decay from 4096 in the decay's type, and int64 with uint64 makes float64, which
    # cannot be shifted.
    if values.dtype == np.uint64:
        raise RefusedError(
            f"neuron/{key} is of type uint64, with which Lava can hang or fail; use int32",
            "type",
            key=key,
            value="uint64",
        )
    if key != "vThMant" and np.iinfo(values.dtype).max < DECAY_UNITY:
        raise RefusedError(
            f"neuron/{key} is of type {values.dtype}, which cannot hold {DECAY_UNITY}: "
            f"Lava computes {DECAY_UNITY} minus the decay in that type",
            "type",
            key=key,
            limit=DECAY_UNITY,
        )
    if key == "vThMant" and values.size:
        largest, most = int(values.max()), int(np.iinfo(values.dtype).max)
        if largest << STATE_SHIFT > most:
            raise RefusedError(
                f"neuron/{key} {largest} is of type {values.dtype}: Lava shifts it left "
                f"by {STATE_SHIFT} bits in that type, which holds at most {most}",
                "limit",
                key=key,
                value=largest,
                limit=most >> STATE_SHIFT,
            )
    if key == "vThMant" and (values <= 4 * NEVER).all():
        # v stays below NEVER, so larger thresholds mean the same. SLAYER writes 2**18 - 1.
        values = np.minimum(values, NEVER, dtype=np.int64)
    if values.ndim == 0 or (values.size == 1 and shape[0] != 1):
        return int(values.ravel()[0])
    return values if values.shape == shape[:1] else values_per_neuron(values, shape, key)


def values_per_neuron(values: Array, shape: tuple[int, ...], key: str) -> Array:
    """Return (neurons,) values from (neurons,), (columns, rows, channels) or (channels,) values.

    Raises:
        RefusedError: naming the key and its shape, if it has none of these shapes.
    """
    if len(shape) == 1 and values.size == 1:
        values = values.ravel()
    if values.shape == shape[::-1]:
        return values.transpose().ravel()
    if values.shape == shape[:1]:
        return np.repeat(values, math.prod(shape[1:]))
    flat = "" if len(shape) == 1 else f", or {shape[:1]}, one for each channel"
    raise RefusedError(
        f"{key} has the shape {values.shape}, but the layer has the shape {shape}: {key} needs the "
        f"shape {shape[::-1]}, one value for each neuron{flat}",
        "shape",
        key=key,
        value=values.shape,
        limit=shape[::-1],
    )


def check_same_meaning(layer: Layer) -> None:
    """Refuse values that SLAYER, which trained the network, and netx interpret differently.

    Args:
        layer: a layer of a file that esl-lava did not write.

    Raises:
        RefusedError: naming the value.
    """
    decay = int(np.min(layer.neuron.current_decay))
    if layer.inputs[0].connections.injects and decay < DECAY_UNITY:
        raise RefusedError(
            f"neuron/iDecay {decay} of an input block must be {DECAY_UNITY}: netx adds the input "
            "directly to v, SLAYER passes it through u, and only then is the result the same",
            "unsupported",
            key="iDecay",
            value=decay,
            limit=DECAY_UNITY,
        )
    delays = layer.inputs[0].delays
    if layer.bias is None or delays is None:
        return
    both = np.flatnonzero((layer.bias != 0) & (delays != 0))
    if both.size:
        neuron = both[0]
        raise RefusedError(
            f"neuron {neuron} has a delay of {delays[neuron]} and a bias of {layer.bias[neuron]}: "
            "SLAYER delays the bias and the synaptic input, netx only the synaptic input",
            "conflict",
            key="delay",
            value=int(delays[neuron]),
        )
