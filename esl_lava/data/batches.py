"""Reading of CIFAR-10 and CIFAR-100 in the files that their authors call "python version".

A file is a pickle of a dictionary that holds an array of images and a list of labels. Nothing is
unpickled and no code runs (`pickles.py`). The reader rebuilds the dictionaries that Python 2's
cPickle wrote with protocols 1 and 2, with arrays of numpy 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.errors import FileError
from esl_lava.pickles import Dialect, Name, RefusedError, rebuild

MOST_BYTES = 192 << 20
"""Largest size of a file in bytes. The largest, CIFAR-100's training split, has 155,249,918."""

MOST_OPCODES = 500_000
"""Largest number of pickle opcodes of a file; CIFAR-100's training split has about 250,000."""

_ARRAY, _TYPE, _NEW = "numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct"
_MOST_DIMENSIONS = 32


@dataclass
class _NumpyObject:
    """An object that a call in the pickle makes: an array, which is filled later, or its type.

    Attributes:
        kind: `_ARRAY` or `_TYPE`.
        values: values of an array, once it is filled.
    """

    kind: str
    values: Bytes | None = None


def read_batch(raw: bytes, where: str, key: str, features: int, classes: int) -> tuple[Bytes, Ints]:
    """Return images and labels of one file.

    Args:
        raw: the content of the file.
        where: names the file in errors.
        key: key of the labels in the dictionary.
        features: number of features of an image.
        classes: number of classes; labels are 0..classes-1.

    Returns:
        (images, features) uint8, read-only, and (images,) int64.

    Raises:
        FileError: the content is too large, is not such a pickle, or has another number of
            features or of labels, or a label out of range.
    """
    if len(raw) > MOST_BYTES:
        raise FileError(
            f"{where}: it has {len(raw)} bytes, the limit is {MOST_BYTES}",
            "too-large",
            value=len(raw),
            limit=MOST_BYTES,
            file=where,
        )
    try:
        content = rebuild(raw, _CPICKLE, MOST_OPCODES)
    except RefusedError as error:
        raise FileError(f"{where}: {error}", "damaged", file=where) from None
    # A damaged pickle can make the standard library raise these.
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as e:
        sentence = f"{where}: not a batch of CIFAR's python version: {e}"
        raise FileError(sentence, "damaged", file=where) from None
    return _images_and_labels(content, where, key, features, classes)


def _images_and_labels(
    content: object, where: str, key: str, features: int, classes: int
) -> tuple[Bytes, Ints]:
    """Return images and labels in the dictionary of a file."""
    if not isinstance(content, dict):
        kind = type(content).__name__
        sentence = f"{where}: it holds a {kind} instead of a dictionary"
        raise FileError(sentence, "type", value=kind, file=where)
    data, labels = content.get("data"), content.get(key)
    images = data.values if isinstance(data, _NumpyObject) else None
    if images is None:
        raise FileError(f"{where}: it has no array 'data'", "missing", key="data", file=where)
    if images.ndim != 2 or images.shape[1] != features or len(images) == 0:
        raise FileError(
            f"{where}: the array 'data' has shape {images.shape}, not (images, {features})",
            "shape",
            key="data",
            value=images.shape,
            limit=features,
            file=where,
        )
    if not isinstance(labels, list):
        raise FileError(f"{where}: it has no list {key!r}", "missing", key=key, file=where)
    if len(labels) != len(images):
        raise FileError(
            f"{where}: it has {len(images)} images, but {len(labels)} labels in {key!r}",
            "mismatch",
            key=key,
            value=len(labels),
            limit=len(images),
            file=where,
        )
    for label in labels:
        if type(label) is not int or not 0 <= label < classes:
            raise FileError(
                f"{where}: label {str(label)[:20]} in {key!r} is not in 0..{classes - 1}",
                "range",
                key=key,
                value=label,
                limit=classes - 1,
                file=where,
            )
    return images, np.array(labels, np.int64)


def _call(function: object, arguments: object) -> _NumpyObject:
    """Perform one of the two calls that numpy 1 wrote: for an empty array, or for its type."""
    match function, arguments:
        case Name(name), (Name(kind), (0,), "b") if (name, kind) == (_NEW, _ARRAY):
            return _NumpyObject(_ARRAY)
        case Name(name), ("u1" | "|u1", 0 | False, 1 | True) if name == _TYPE:
            return _NumpyObject(_TYPE)
    raise RefusedError("it makes a call that numpy does not make for an array of bytes")


def _fill(target: object, state: object) -> None:
    """Fill an array with its values. The state of its type is ignored, because all are bytes."""
    match target, state:
        case _NumpyObject(kind), tuple() if kind == _TYPE:
            return
        case (
            _NumpyObject(kind, None) as array,
            (int(), tuple(shape), _NumpyObject(item_kind), bool() | int() as by_columns, str(text)),
        ) if (kind, item_kind) == (_ARRAY, _TYPE):
            if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
                raise RefusedError("the shape of an array is damaged")
            if math.prod(shape) != len(text):
                raise RefusedError(f"{len(text)} bytes of data do not fit the array's shape")
            flat = np.frombuffer(text.encode("latin-1"), np.uint8)
            array.values = np.reshape(flat, shape, order="F" if by_columns else "C")
            return
    raise RefusedError("it holds an object that numpy 1 does not write for an array of bytes")


_CPICKLE = Dialect(
    literals=("INT", "SHORT_BINSTRING", "BINSTRING"),  # bytes as text, by Latin-1
    names=(_ARRAY, _TYPE, _NEW),
    call=_call,
    fill=_fill,
    keys=(str,),
)
