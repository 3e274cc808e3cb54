"""The python version of CIFAR-10 and CIFAR-100: pickles of a dictionary with an array in it.

Nothing is unpickled and no code runs (`pickles.py`): what Python 2's cPickle wrote for such a
dictionary is rebuilt, of protocols 1 and 2 and with arrays of numpy 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.errors import FileError
from esl_lava.pickles import Dialect, Name, RefusedError, rebuild

MOST_BYTES = 192 << 20
"""A larger file is refused; the largest, the training split of CIFAR-100, has 155,249,918."""

MOST_OPCODES = 500_000
"""So much a file may be made of; that one has about 250,000, its file names among them."""

_ARRAY, _TYPE, _NEW = "numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct"
_MOST_DIMENSIONS = 32


@dataclass
class _Made:
    """What a pickle made by a call: an array, whose values come later, or its type.

    Attributes:
        of: `_ARRAY` or `_TYPE`.
        values: of an array, once it has them.
    """

    of: str
    values: Bytes | None = None


def read_batch(
    raw: bytes, where: object, key: str, features: int, classes: int
) -> tuple[Bytes, Ints]:
    """Images and labels of one file.

    Args:
        raw: the file's content.
        where: names the file in errors.
        key: of the labels in its dictionary.
        features: of an image.
        classes: how many there are; labels are 0..classes-1.

    Returns:
        (images, features) uint8, which cannot be written to, and (images,) int64.

    Raises:
        FileError: when the content is no such pickle, or anything else is in it than that.
    """
    try:
        if len(raw) > MOST_BYTES:
            raise RefusedError(f"it has {len(raw)} bytes, the limit is {MOST_BYTES}")
        return _taken(rebuild(raw, _CPICKLE, MOST_OPCODES), key, features, classes)
    except RefusedError as error:
        raise FileError(f"{where}: {error}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as e:
        # What a damaged pickle can make the standard library raise.
        raise FileError(f"{where}: not a batch of CIFAR's python version: {e}") from None


def _taken(content: object, key: str, features: int, classes: int) -> tuple[Bytes, Ints]:
    """What is wanted of a file's dictionary."""
    if not isinstance(content, dict):
        raise RefusedError(f"it holds a {type(content).__name__} in place of a dictionary")
    data, labels = content.get("data"), content.get(key)
    images = data.values if isinstance(data, _Made) else None
    if images is None:
        raise RefusedError("it has no array 'data'")
    if images.ndim != 2 or images.shape[1] != features or len(images) == 0:
        raise RefusedError(f"its array has shape {images.shape}, not (images, {features})")
    if not isinstance(labels, list):
        raise RefusedError(f"it has no list {key!r}")
    if len(labels) != len(images):
        raise RefusedError(f"it has {len(images)} images, but {len(labels)} of {key!r}")
    for label in labels:
        if type(label) is not int or not 0 <= label < classes:
            raise RefusedError(f"label {str(label)[:20]} is not in 0..{classes - 1}")
    return images, np.array(labels, np.int64)


def _called(function: object, arguments: object) -> _Made:
    """The two calls numpy 1 wrote: an array to be filled, and its type."""
    match function, arguments:
        case Name(name), (Name(made), (0,), "b") if (name, made) == (_NEW, _ARRAY):
            return _Made(_ARRAY)
        case Name(name), ("u1" | "|u1", 0 | False, 1 | True) if name == _TYPE:
            return _Made(_TYPE)
    raise RefusedError("it calls what numpy does not call for an array of bytes")


def _fill(made: object, state: object) -> None:
    """Give an array its values; what its type is told, of bytes, says nothing more."""
    match made, state:
        case _Made(of), tuple() if of == _TYPE:
            return
        case (
            _Made(of, None) as array,
            (int(), tuple(shape), _Made(kind), bool() | int() as by_columns, str(text)),
        ) if (of, kind) == (_ARRAY, _TYPE):
            if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
                raise RefusedError("an array is not described as numpy does")
            if math.prod(shape) != len(text):
                raise RefusedError(f"{len(text)} bytes of data do not fit the array's shape")
            flat = np.frombuffer(text.encode("latin-1"), np.uint8)
            array.values = np.reshape(flat, shape, order="F" if by_columns else "C")
            return
    raise RefusedError("an array is not described as numpy does")


_CPICKLE = Dialect(
    literals=("INT", "SHORT_BINSTRING", "BINSTRING"),  # bytes as text, by Latin-1
    names=(_ARRAY, _TYPE, _NEW),
    call=_called,
    fill=_fill,
    keys=(str,),
)
