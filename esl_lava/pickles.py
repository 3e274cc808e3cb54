"""Pickles of data from strangers, rebuilt without any unpickler: no code runs.

An interpreter of the few opcodes that a writer of plain data uses. What they may say beyond plain
containers, a `Dialect` lists. Python's own unpickler, however few names it may look up, takes as
much memory as a small file tells it to, and hashes what it is told to as a dictionary's key.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

_Kind = TypeVar("_Kind")

PLAIN = frozenset({"BININT", "BININT1", "BININT2"})
"""Opcodes of numbers that every dialect has."""


class RefusedError(Exception):
    """Why a content is refused, without the file's name."""


@dataclass(frozen=True)
class Name:
    """What a pickle calls by its name; never looked up."""

    text: str


def _no_fill(made: object, state: object) -> None:
    raise RefusedError("it has opcode BUILD, which is refused")


def _no_reference(pid: object) -> object:
    raise RefusedError("it has opcode BINPERSID, which is refused")


@dataclass(frozen=True)
class Dialect:
    """What pickles of one writer may hold beside plain containers.

    Attributes:
        literals: opcodes whose argument is a value, besides `PLAIN`.
        names: what may be called by its name.
        call: (name, its arguments) -> what the call makes.
        fill: (what a call made, state) gives it the state.
        refer: what a persistent identifier stands for.
        keys: types of a dictionary's keys.
    """

    literals: Collection[str]
    names: Collection[str]
    call: Callable[[object, object], object]
    fill: Callable[[object, object], None] = _no_fill
    refer: Callable[[object], object] = _no_reference
    keys: Collection[type] = (str, int)


def rebuild(raw: bytes, dialect: Dialect, most_opcodes: int | None = None) -> object:
    """What a pickle describes.

    Only text and names may be referred to twice: what is built is a tree, no larger than its
    description.

    Args:
        raw: the pickle.
        dialect: of who wrote it.
        most_opcodes: it may have; None for any number.

    Raises:
        RefusedError: naming another opcode, or what else is refused.
        LookupError, TypeError, ValueError: for a damaged pickle.
    """
    stack: list[object] = []
    marks: list[int] = []
    memo: dict[object, object] = {}
    literals = PLAIN | frozenset(dialect.literals)

    def cut(start: int) -> list[object]:
        items = stack[start:]
        del stack[start:]
        return items

    for number, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if most_opcodes is not None and number >= most_opcodes:
            raise RefusedError(f"it is made of more than {most_opcodes} opcodes")
        match opcode.name:
            case name if name in literals:
                stack.append(argument)
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
                _container(list, stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = cut(-2 if opcode.name == "SETITEM" else marks.pop())
                if any(type(key) not in dialect.keys for key in items[::2]):
                    what = "neither text nor an integer" if int in dialect.keys else "no text"
                    raise RefusedError(f"a key is {what}")
                _container(dict, stack[-1]).update(zip(items[::2], items[1::2]))
            case "GLOBAL":
                if argument not in dialect.names:
                    raise RefusedError(f"it needs {str(argument)[:80]!r}, which is refused")
                stack.append(Name(str(argument)))
            case "BINPERSID":
                stack.append(dialect.refer(stack.pop()))
            case "REDUCE":
                stack.append(dialect.call(*cut(-2)))
            case "BUILD":
                (state,) = cut(-1)
                dialect.fill(stack[-1], state)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if not isinstance(memo[argument], (str, Name)):
                    raise RefusedError("it refers twice to the same object")
                stack.append(memo[argument])
            case _:
                raise RefusedError(f"it has opcode {opcode.name}, which is refused")
    return stack.pop()


def _container(kind: type[_Kind], value: object) -> _Kind:
    if type(value) is not kind:
        raise RefusedError(f"items are added to a {type(value).__name__}")
    return value
