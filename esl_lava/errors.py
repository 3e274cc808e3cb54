"""Errors that a user can act on.

Every error has a sentence for a person, and a code and fields for a program. The commands print
the sentence and the code and exit with code 2. An exception that is no `UserError` is a bug of
esl-lava and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar

Code: TypeAlias = Literal[
    "missing",
    "unknown",
    "type",
    "range",
    "shape",
    "not-finite",
    "conflict",
    "unsupported",
    "mismatch",
    "limit",
    "not-found",
    "exists",
    "unreadable",
    "unwritable",
    "damaged",
    "too-large",
    "package",
    "failed",
    "timeout",
]

CODES: Mapping[Code, str] = MappingProxyType(
    {
        "missing": "A required option, key, array or argument is not given.",
        "unknown": "A key or a name is not known.",
        "type": "A value has the wrong type or form.",
        "range": "A value lies outside its limits.",
        "shape": "An array has the wrong number of axes or the wrong lengths.",
        "not-finite": "A number is NaN or infinite.",
        "conflict": "Two values are valid alone but not together.",
        "unsupported": "The request is valid, but this part of esl-lava cannot do it.",
        "mismatch": "Two things that must be equal differ, for example a file and its model.",
        "limit": "A network breaks a limit of netx, Lava or the chip.",
        "not-found": "A file, a folder or a data set does not exist.",
        "exists": "A file exists and would be overwritten.",
        "unreadable": "The operating system cannot read a file.",
        "unwritable": "The operating system cannot write a file.",
        "damaged": "The contents of a file are malformed, cut off or changed.",
        "too-large": "A file or an array exceeds a limit that protects memory.",
        "package": "A package that only some commands need is not installed.",
        "failed": "A backend, a worker process or the user's own code failed.",
        "timeout": "A process did not end before its deadline.",
    }
)
"""Code of a fault -> what it means."""

MAX_SHOWN = 60
"""An error shows at most this many characters of a value."""

AnyError = TypeVar("AnyError", bound="UserError")


@dataclass(frozen=True)
class Fault:
    """One fault in the user's input.

    Attributes:
        sentence: the fault as one sentence for a person, with name, value and limit.
        code: the kind of fault, a key of `CODES`.
        key: the option, configuration key, argument or array at fault, as the user wrote it.
        value: the value at fault.
        limit: the limit that the value breaks, or the values that are allowed.
        file: the file at fault.
        layer: the layer at fault.
    """

    sentence: str
    code: Code
    key: str | None = None
    value: object = None
    limit: object = None
    file: str | Path | None = None
    layer: str | None = None

    def as_json(self) -> dict[str, str | int | float | bool | None]:
        """Return the fields that are not None, by name, for JSON.

        A value or limit becomes a text if it is not a text, a bool or a number that JSON can hold.
        A path keeps its whole text; other values are cut to `MAX_SHOWN` characters.
        """
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _plain(value) for name, value in every.items() if value is not None}


class UserError(Exception):
    """Base of every error that the user's input causes. Its text is the sentence.

    Args:
        sentence: the fault as one sentence, with the offending name, value and limit.
        code: the kind of fault, a key of `CODES`.
        key: the option, configuration key, argument or array at fault.
        value: the value at fault.
        limit: the limit that the value breaks, or the values that are allowed.
        file: the file at fault.
        layer: the layer at fault.
    """

    def __init__(
        self,
        sentence: str,
        code: Code,
        *,
        key: str | None = None,
        value: object = None,
        limit: object = None,
        file: str | Path | None = None,
        layer: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.faults: tuple[Fault, ...] = (Fault(sentence, code, key, value, limit, file, layer),)

    @classmethod
    def of(cls: type[AnyError], faults: Sequence[Fault]) -> AnyError:
        """Return one error with all faults, at least one. Its text has one line for each fault."""
        error = cls("\n".join(fault.sentence for fault in faults), faults[0].code)
        error.faults = tuple(faults)
        return error

    def in_file(self: AnyError, path: Path) -> AnyError:
        """The same error, whose faults and sentences name a file where they name none."""
        return type(self).of(
            [
                fault
                if fault.file is not None
                else replace(fault, sentence=f"{path}: {fault.sentence}", file=path)
                for fault in self.faults
            ]
        )

    @property
    def code(self) -> Code:
        """The code of the first fault."""
        return self.faults[0].code

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class with the text alone and lose the fields.
        return type(self).of, (tuple(_portable(fault) for fault in self.faults),)


class ConfigError(UserError):
    """A configuration key, an option or an argument is missing or unknown, or has a wrong value."""


class DataError(UserError):
    """Data are missing, malformed or do not fit.

    They are samples, spikes, counts or the content of a checkpoint.
    """


class FileError(UserError):
    """A file is missing, malformed, of the wrong kind, or would be overwritten."""


class BackendError(UserError):
    """A simulator is missing, failed or ran past its deadline."""


class PackageError(UserError):
    """A package that only some commands need is not installed."""


class LimitError(UserError):
    """A network breaks limits of netx, Lava or the chip. `faults` holds all of them."""


def shorten(value: object) -> str:
    """Return the `repr` of a value, cut to `MAX_SHOWN` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or nested tables
        return f"({type(value).__name__})"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _plain(value: object) -> str | int | float | bool | None:
    """Return a value that JSON can hold: the value itself, or a text in its place."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1 << 63:  # false for NaN and infinity
        return value
    return str(value) if isinstance(value, Path) else shorten(value)


def _portable(fault: Fault) -> Fault:
    """Return the fault with plain values, which every process can unpickle."""
    return Fault(
        fault.sentence,
        fault.code,
        fault.key,
        _plain(fault.value),
        _plain(fault.limit),
        None if fault.file is None else str(fault.file),
        fault.layer,
    )
