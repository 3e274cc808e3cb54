"""The python version of CIFAR-10 and CIFAR-100: pickles of a dictionary with an array in it.

Nothing is unpickled and no code runs: an interpreter of the few opcodes that Python 2's cPickle
wrote for such a dictionary (protocols 1 and 2, arrays of numpy 1) rebuilds it. Python's own
unpickler, however few names it may look up, takes as much memory as a small file tells it to.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.errors import FileError

MOST_BYTES = 192 << 20
"""A larger file is refused; the largest, the training split of CIFAR-100, has 155,249,918."""

MOST_OPCODES = 500_000
"""So much a file may be made of; that one has about 250,000, its file names among them."""

_ARRAY, _TYPE, _NEW = "numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct"
_MOST_DIMENSIONS = 32


class _RefusedError(Exception):
    """Why the content is refused, without the file's name."""


@dataclass(frozen=True)
class _Name:
    """What a pickle calls by its name; never looked up."""

    text: str


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
            raise _RefusedError(f"it has {len(raw)} bytes, the limit is {MOST_BYTES}")
        return _taken(_rebuilt(raw), key, features, classes)
    except _RefusedError as error:
        raise FileError(f"{where}: {error}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as e:
        # What a damaged pickle can make the standard library raise.
        raise FileError(f"{where}: not a batch of CIFAR's python version: {e}") from None


def _taken(content: object, key: str, features: int, classes: int) -> tuple[Bytes, Ints]:
    """What is wanted of a file's dictionary."""
    if not isinstance(content, dict):
        raise _RefusedError(f"it holds a {type(content).__name__} in place of a dictionary")
    data, labels = content.get("data"), content.get(key)
    images = data.values if isinstance(data, _Made) else None
    if images is None:
        raise _RefusedError("it has no array 'data'")
    if images.ndim != 2 or images.shape[1] != features or len(images) == 0:
        raise _RefusedError(f"its array has shape {images.shape}, not (images, {features})")
    if not isinstance(labels, list):
        raise _RefusedError(f"it has no list {key!r}")
    if len(labels) != len(images):
        raise _RefusedError(f"it has {len(images)} images, but {len(labels)} of {key!r}")
    for label in labels:
        if type(label) is not int or not 0 <= label < classes:
            raise _RefusedError(f"label {str(label)[:20]} is not in 0..{classes - 1}")
    return images, np.array(labels, np.int64)


def _rebuilt(raw: bytes) -> object:
    """Interpret the opcodes that cPickle wrote for arrays and plain containers.

    Only text and names may be referred to twice: what is built is a tree, no larger than its
    description.

    Raises:
        _RefusedError: naming another opcode, or what else is refused.
        LookupError, TypeError, ValueError: for a damaged pickle.
    """
    stack: list[object] = []
    marks: list[int] = []
    memo: dict[object, object] = {}

    def cut(start: int) -> list[object]:
        items = stack[start:]
        del stack[start:]
        return items

    for number, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if number >= MOST_OPCODES:
            raise _RefusedError(f"it is made of more than {MOST_OPCODES} opcodes")
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                break
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "SHORT_BINSTRING" | "BINSTRING":
                stack.append(argument)  # bytes as text, by Latin-1
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(cut(-int(opcode.name[-1]))))
            case "TUPLE":
                stack.append(tuple(cut(marks.pop())))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = cut(-1 if opcode.name == "APPEND" else marks.pop())
                if not isinstance(stack[-1], list):
                    raise _RefusedError("items are added to what is no list")
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = cut(-2 if opcode.name == "SETITEM" else marks.pop())
                if not isinstance(stack[-1], dict) or any(type(k) is not str for k in items[::2]):
                    raise _RefusedError("items are set by other keys than text")
                stack[-1].update(zip(items[::2], items[1::2]))
            case "GLOBAL":
                if argument not in (_ARRAY, _TYPE, _NEW):
                    raise _RefusedError(f"it needs {str(argument)[:80]!r}, which is refused")
                stack.append(_Name(argument))
            case "REDUCE":
                stack.append(_called(*cut(-2)))
            case "BUILD":
                (state,) = cut(-1)
                _fill(stack[-1], state)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if not isinstance(memo[argument], (str, _Name)):
                    raise _RefusedError("it refers twice to the same object")
                stack.append(memo[argument])
            case _:
                raise _RefusedError(f"it has opcode {opcode.name}, which is refused")
    return stack.pop()


def _called(function: object, arguments: object) -> _Made:
    """The two calls numpy 1 wrote: an array to be filled, and its type."""
    match function, arguments:
        case _Name(name), (_Name(made), (0,), "b") if (name, made) == (_NEW, _ARRAY):
            return _Made(_ARRAY)
        case _Name(name), ("u1" | "|u1", 0 | False, 1 | True) if name == _TYPE:
            return _Made(_TYPE)
    raise _RefusedError("it calls what numpy does not call for an array of bytes")


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
                raise _RefusedError("an array is not described as numpy does")
            if math.prod(shape) != len(text):
                raise _RefusedError(f"{len(text)} bytes of data do not fit the array's shape")
            flat = np.frombuffer(text.encode("latin-1"), np.uint8)
            array.values = np.reshape(flat, shape, order="F" if by_columns else "C")
            return
    raise _RefusedError("an array is not described as numpy does")
