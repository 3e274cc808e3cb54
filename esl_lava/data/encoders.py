"""Encoders from images of 8-bit pixels to a network's input, in integer arithmetic.

A pixel of 255 is full scale. Every encoder is deterministic and encodes each pixel independently.

The encoders in `ENCODERS` make binary spikes. Each returns, for a number of time steps of at least
1, a table (256, steps) of 0 and 1: the spike train of each pixel value. `encode` looks the pixels
up in this table. Direct coding (`graded`) presents the pixel itself at every step, as a signed
integer of few bits.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Array, Bools, Bytes, Int8s, Ints
from esl_lava.errors import DataError

_FULL_SCALE = 255
_PIXEL_BITS = 8
_PIXELS = np.arange(_FULL_SCALE + 1, dtype=np.int64)[:, None]


def rate(steps: int) -> Array:
    """Return evenly spread spikes, whose number is in proportion to the pixel.

    Each pixel drives an integrate-and-fire neuron with reset by subtraction: v starts at 127, half
    of full scale; at each step `v += pixel`; the neuron spikes if `v >= 255`, then `v -= 255`. So
    the number of spikes in the first t steps is `t * pixel / 255`, rounded to the nearest integer
    (255 is odd: there are no ties), and the first step already separates bright and dark pixels.
    """
    spikes_by_step = (np.arange(steps + 1) * _PIXELS + _FULL_SCALE // 2) // _FULL_SCALE
    return np.diff(spikes_by_step, axis=1)


def latency(steps: int) -> Array:
    """Return one spike per non-zero pixel, earlier for brighter pixels; none for a zero pixel.

    The step, counted from 0, is `(255 - pixel) * (steps - 1) / 255`, rounded to the nearest integer
    (255 is odd: there are no ties). So a pixel of 255 spikes at step 0, and a pixel of 1 near the
    last step.
    """
    step = (2 * (_FULL_SCALE - _PIXELS) * (steps - 1) + _FULL_SCALE) // (2 * _FULL_SCALE)
    spikes: Bools = (np.arange(steps) == step) & (_PIXELS > 0)
    return spikes


def constant(steps: int) -> Array:
    """Return a spike at every step if the pixel is at least 128, else no spike."""
    return np.broadcast_to(2 * _PIXELS > _FULL_SCALE, (_PIXELS.size, steps))


def two_times(steps: int) -> Array:
    """Return one spike per pixel: at step 0 if it is at least 128, else at `2 * steps // 3`.

    This is Mostafa's encoding of a binarised image. A third of the steps remains for the spikes
    that the last inputs cause.
    """
    step = np.where(2 * _PIXELS > _FULL_SCALE, 0, 2 * steps // 3)
    spikes: Bools = np.arange(steps) == step
    return spikes


ENCODERS: Mapping[str, Callable[[int], Array]] = MappingProxyType(
    {"rate": rate, "latency": latency, "constant": constant, "two_times": two_times}
)
"""Encoder to binary spikes -> its function: number of steps -> spike train of each pixel value."""


def encode(kind: str, images: Bytes, steps: int) -> Bytes:
    """Return the spikes of `images`, made by the encoder `kind`.

    Args:
        kind: a key of `ENCODERS`.
        images: (batch, features) uint8, 255 is full scale.
        steps: number of time steps, at least 1.

    Returns:
        (batch, steps, features) uint8 of 0 and 1: a view in which each spike train is contiguous
        in memory.

    Raises:
        DataError: `kind` is unknown, `steps` is below 1, or images have another type or shape.
    """
    trains = _trains(kind, steps)
    _refuse_others(images)
    return np.take(trains, images, axis=0).swapaxes(1, 2)


def graded(images: Bytes, steps: int, bits: int) -> Int8s:
    """Return each pixel as a signed integer of `bits` bits, the same at every step (direct coding).

    The integer is `(pixel >> (8 - bits)) - 2**(bits - 1)`, in two's complement, from
    `-2**(bits - 1)` for a black pixel to `2**(bits - 1) - 1`: -16..15 for 5 bits.

    Args:
        images: (batch, features) uint8, 255 is full scale.
        steps: number of time steps, at least 1.
        bits: 1..8.

    Returns:
        (batch, steps, features) int8: a read-only view that repeats one step, and takes only the
        memory of one step.

    Raises:
        DataError: `steps` or `bits` is out of range, or images have another type or shape.
    """
    _refuse_steps(steps)
    if not 1 <= bits <= _PIXEL_BITS:
        raise DataError(
            f"encoding.bits {bits}: graded input of a pixel has 1 to {_PIXEL_BITS} bits",
            "range",
            key="encoding.bits",
            value=bits,
            limit=_PIXEL_BITS,
        )
    _refuse_others(images)
    values = (_PIXELS[:, 0] >> (_PIXEL_BITS - bits)) - (1 << (bits - 1))
    step = np.take(values.astype(np.int8), images)
    return np.broadcast_to(step[:, None], (len(step), steps, step.shape[1]))


def first_steps(kind: str, steps: int) -> Ints:
    """Return (256,) the step of the first spike of each pixel value; `steps` if it has no spike."""
    trains = _trains(kind, steps)
    return np.where(trains.any(axis=1), trains.argmax(axis=1), steps)


def _trains(kind: str, steps: int) -> Bytes:
    """Return (256, steps) the spike train of each pixel value."""
    if kind not in ENCODERS:
        nearest = difflib.get_close_matches(kind.lower(), ENCODERS, n=1, cutoff=0)[0]
        raise DataError(
            f"encoding.kind {kind!r} is unknown: the encoders are {', '.join(ENCODERS)}; the "
            f"nearest is {nearest!r}",
            "unknown",
            key="encoding.kind",
            value=kind,
            limit=tuple(ENCODERS),
        )
    _refuse_steps(steps)
    return ENCODERS[kind](steps).astype(np.uint8)


def _refuse_steps(steps: int) -> None:
    if steps < 1:
        raise DataError(
            f"encoding.steps {steps}: an encoder needs at least 1 step",
            "range",
            key="encoding.steps",
            value=steps,
            limit=1,
        )


def _refuse_others(images: Bytes) -> None:
    """Refuse an argument that is not an array of images, whatever its type annotation says."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = str(getattr(images, "dtype", type(images).__name__))
        sentence = f"images to encode have to be a numpy array of uint8, not {kind}"
        raise DataError(sentence, "type", key="images", value=kind, limit="uint8")
    if images.ndim != 2:
        sentence = f"images to encode need shape (batch, features), not {images.shape}"
        raise DataError(sentence, "shape", key="images", value=images.shape)
