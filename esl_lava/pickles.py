"""Reader of pickles from untrusted files. It uses no unpickler, so no code of the file runs.

The reader interprets the few opcodes that a writer of plain data uses. A `Dialect` lists which
names and calls a pickle may contain besides plain containers. Python's own unpickler is not safe
even if it may look up only a few names: a small file can make it take any amount of memory, and
it hashes any object as the key of a dictionary.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

_Kind = TypeVar("_Kind")

PLAIN = frozenset({"BININT", "BININT1", "BININT2"})
"""Opcodes of numbers that every dialect allows."""

MAX_INTEGER_KEY = (1 << 16) - 1
"""Largest integer that may be a dictionary's key. Python's hash of an integer is the integer modulo
2^61 - 1, so a file could choose large integers that all have the same hash; a dictionary of n such
keys takes n^2 steps."""

MAX_PROTOCOL = 5
"""Newest protocol of pickles that Python knows."""


class RefusedError(Exception):
    """The reason why the content of a file is refused, without the name of the file."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. The name is never looked up."""

    text: str


def _refuse_state(instance: object, state: object) -> None:
    raise RefusedError("it has opcode BUILD, which is refused")


def _refuse_reference(pid: object) -> object:
    raise RefusedError("it has opcode BINPERSID, which is refused")


@dataclass(frozen=True)
class Dialect:
    """The contents that pickles of one writer may have besides plain containers.

    Attributes:
        literals: opcodes whose argument is a value, besides `PLAIN`.
        names: names that a pickle may call.
        call: (name, arguments) -> the result of the call.
        fill: (result of a call, state) sets the state of the result.
        refer: persistent identifier -> the object for which it stands.
        keys: allowed types of a dictionary's keys; integers within 0..`MAX_INTEGER_KEY`.
    """

    literals: Collection[str]
    names: Collection[str]
    call: Callable[[object, object], object]
    fill: Callable[[object, object], None] = _refuse_state
    refer: Callable[[object], object] = _refuse_reference
    keys: Collection[type] = (str, int)


def rebuild(raw: bytes, dialect: Dialect, most_opcodes: int | None = None) -> object:
    """Rebuild the object that a pickle describes.

    Only texts and names may be referred to twice. The object is therefore a tree that is not
    larger than its description.

    Args:
        raw: the pickle.
        dialect: dialect of the pickle's writer.
        most_opcodes: largest number of opcodes; None for any number.

    Raises:
        RefusedError: for an opcode, a name, a key or a reference that is not allowed.
        LookupError, TypeError, ValueError: for a damaged pickle.
    """
    stack: list[object] = []
    below: list[list[object]] = []  # what lies below each mark
    memo: dict[object, object] = {}
    literals = PLAIN | frozenset(dialect.literals)

    def cut(count: int) -> list[object]:
        if len(stack) < count:
            raise RefusedError("its opcodes need more values than there are")
        items = stack[-count:]
        del stack[-count:]
        return items

    def cut_to_mark() -> list[object]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    for number, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if most_opcodes is not None and number >= most_opcodes:
            raise RefusedError(f"it is made of more than {most_opcodes} opcodes")
        match opcode.name:
            case name if name in literals:
                stack.append(argument)
            case "PROTO" if isinstance(argument, int) and argument <= MAX_PROTOCOL:
                pass
            case "STOP":
                break
            case "MARK":
                below.append(stack)
                stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(cut(int(opcode.name[-1]))))
            case "TUPLE":
                items = cut_to_mark()
                stack.append(tuple(items))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = cut(1) if opcode.name == "APPEND" else cut_to_mark()
                _container(list, stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = cut(2) if opcode.name == "SETITEM" else cut_to_mark()
                if len(items) % 2:
                    raise RefusedError("a key of a dictionary has no value")
                for key in items[::2]:
                    _check_key(key, dialect)
                _container(dict, stack[-1]).update(zip(items[::2], items[1::2]))
            case "GLOBAL":
                if argument not in dialect.names:
                    name = str(argument)[:80]
                    raise RefusedError(f"it names a class or function that is refused, {name!r}")
                stack.append(Name(str(argument)))
            case "BINPERSID":
                stack.append(dialect.refer(stack.pop()))
            case "REDUCE":
                stack.append(dialect.call(*cut(2)))
            case "BUILD":
                (state,) = cut(1)
                dialect.fill(stack[-1], state)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if not isinstance(memo[argument], (str, Name)):
                    raise RefusedError("it refers twice to the same object")
                stack.append(memo[argument])
            case _:
                raise RefusedError(f"it has opcode {opcode.name}, which is refused")
    if below or len(stack) != 1:
        raise RefusedError("it does not end with one object")
    return stack.pop()


def _check_key(key: object, dialect: Dialect) -> None:
    """Refuse a key of a type not in `dialect.keys`, and an integer outside 0..`MAX_INTEGER_KEY`."""
    if type(key) not in dialect.keys:
        kind = "neither text nor an integer" if int in dialect.keys else "not text"
        raise RefusedError(f"a key of a dictionary is {kind}")
    if isinstance(key, int) and not 0 <= key <= MAX_INTEGER_KEY:
        raise RefusedError(f"a key of a dictionary is an integer outside 0..{MAX_INTEGER_KEY}")


def _container(kind: type[_Kind], value: object) -> _Kind:
    """Return the value, which must be a container of that type."""
    if type(value) is not kind:
        raise RefusedError(f"items of a {kind.__name__} are added to a {type(value).__name__}")
    return value
