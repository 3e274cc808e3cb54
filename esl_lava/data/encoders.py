"""Encoders: images of 8-bit pixels to what a network is given, in integer arithmetic.

A pixel of 255 is full scale. Every encoder is deterministic and treats pixels apart.

Most make binary spikes: each of `ENCODERS` is a table of 256 spike trains, one per pixel value,
in which the pixels are looked up. Of `steps` time steps, at least 1, it makes the table
(256, steps) of 0 and 1. Direct coding (`graded`) gives every step the pixel itself, as a signed
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
    """Spikes in proportion to the pixel, evenly spread.

    An integrate-and-fire neuron per pixel with reset by subtraction: v starts at 127, half
    of full scale; at each step `v += pixel`; it spikes when `v >= 255`, then `v -= 255`. So
    the spikes of the first t steps are `t * pixel / 255` rounded to the nearest (255 is odd:
    there are no ties), and already the first step tells bright pixels from dark ones.
    """
    spikes_by_step = (np.arange(steps + 1) * _PIXELS + _FULL_SCALE // 2) // _FULL_SCALE
    return np.diff(spikes_by_step, axis=1)


def latency(steps: int) -> Array:
    """One spike per non-zero pixel, the brighter the earlier; none for a zero pixel.

    The step, counted from 0, is `(255 - pixel) * (steps - 1) / 255` rounded to the nearest
    (255 is odd: there are no ties); so 255 spikes at step 0, and 1 near the last.
    """
    step = (2 * (_FULL_SCALE - _PIXELS) * (steps - 1) + _FULL_SCALE) // (2 * _FULL_SCALE)
    spikes: Bools = (np.arange(steps) == step) & (_PIXELS > 0)
    return spikes


def constant(steps: int) -> Array:
    """A spike at every step where the pixel is at least 128, else none."""
    return np.broadcast_to(2 * _PIXELS > _FULL_SCALE, (_PIXELS.size, steps))


def two_times(steps: int) -> Array:
    """One spike per pixel: at step 0 where it is at least 128, else at `2 * steps // 3`.

    Mostafa's encoding of a binarised image. A third of the steps remains for what the last
    inputs set off.
    """
    step = np.where(2 * _PIXELS > _FULL_SCALE, 0, 2 * steps // 3)
    spikes: Bools = np.arange(steps) == step
    return spikes


ENCODERS: Mapping[str, Callable[[int], Array]] = MappingProxyType(
    {"rate": rate, "latency": latency, "constant": constant, "two_times": two_times}
)
"""Those to binary spikes by name: the number of steps -> the spike train of each pixel value."""


def encode(kind: str, images: Bytes, steps: int) -> Bytes:
    """Spikes of `images` by the encoder called `kind`.

    Args:
        kind: a key of `ENCODERS`.
        images: (batch, features) uint8, 255 is full scale.
        steps: number of time steps, at least 1.

    Returns:
        (batch, steps, features) uint8 of 0 and 1: a view of spike trains, each of which lies
        together in memory.

    Raises:
        DataError: unknown `kind`, `steps` below 1, or images of another type or shape.
    """
    trains = _trains(kind, steps)
    _refuse_others(images)
    return np.take(trains, images, axis=0).swapaxes(1, 2)


def graded(images: Bytes, steps: int, bits: int) -> Int8s:
    """Every pixel as a signed integer of `bits` bits, the same at every step (direct coding).

    It is `(pixel >> (8 - bits)) - 2**(bits - 1)`, in two's complement from `-2**(bits - 1)`, for
    a black pixel, to `2**(bits - 1) - 1`: -16..15 for 5 bits.

    Args:
        images: (batch, features) uint8, 255 is full scale.
        steps: number of time steps, at least 1.
        bits: 1..8.

    Returns:
        (batch, steps, features) int8. It takes the memory of one step: a view that repeats it,
        and can therefore not be written to.

    Raises:
        DataError: `steps` or `bits` out of range, or images of another type or shape.
    """
    _refuse_steps(steps)
    if not 1 <= bits <= _PIXEL_BITS:
        raise DataError(f"graded input of a pixel has 1 to {_PIXEL_BITS} bits, not {bits}")
    _refuse_others(images)
    values = (_PIXELS[:, 0] >> (_PIXEL_BITS - bits)) - (1 << (bits - 1))
    step = np.take(values.astype(np.int8), images)
    return np.broadcast_to(step[:, None], (len(step), steps, step.shape[1]))


def first_steps(kind: str, steps: int) -> Ints:
    """(256,) the step of the first spike of each pixel value; `steps` for none."""
    trains = _trains(kind, steps)
    return np.where(trains.any(axis=1), trains.argmax(axis=1), steps)


def _trains(kind: str, steps: int) -> Bytes:
    """(256, steps) the spike train of each pixel value."""
    if kind not in ENCODERS:
        nearest = difflib.get_close_matches(kind.lower(), ENCODERS, n=1, cutoff=0)[0]
        raise DataError(
            f"unknown encoder {kind!r}: there are {', '.join(ENCODERS)}; nearest is {nearest!r}"
        )
    _refuse_steps(steps)
    return ENCODERS[kind](steps).astype(np.uint8)


def _refuse_steps(steps: int) -> None:
    if steps < 1:
        raise DataError(f"an encoder needs at least 1 step, not {steps}")


def _refuse_others(images: Bytes) -> None:
    """Refuse what are no images, whatever the types say."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        given = getattr(images, "dtype", type(images).__name__)
        raise DataError(f"images to encode need a numpy array of uint8, not {given}")
    if images.ndim != 2:
        raise DataError(f"images to encode need shape (batch, features), not {images.shape}")
