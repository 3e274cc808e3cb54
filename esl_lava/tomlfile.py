"""TOML as typed tables: a text read safely, and what is wrong with it in sentences."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from esl_lava.errors import MAX_SHOWN, Code, ConfigError, Fault, FileError, shorten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
if TYPE_CHECKING:
    from importlib.abc import Traversable

MAX_BYTES = 1 << 20
"""A TOML file may have at most this many bytes."""

MAX_DOTS = 100
"""A dotted key of a TOML text may have at most this many dots.

Python's own `tomllib` takes time and memory in the square of a key's dots, and builds tables so
deep that whoever walks them overflows the stack.
"""

MAX_FAULTS = 20
"""An error names at most this many faults of a file."""

_MESSAGES = {
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
    "tuple_type": "should be a list",
}
"""pydantic's type of a fault -> a message in place of pydantic's Python words."""

_BOUNDS = ("ge", "gt", "le", "lt", "expected", "max_length", "min_length")
"""Names under which pydantic keeps the limit that a value breaks."""


class TomlTable(BaseModel):
    """A table of a TOML file: immutable, unknown keys refused.

    TOML has types, so "8" or true is no number and 1.0 no integer; an integer is a float,
    and a list is a tuple where the field is marked as not strict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AnyTable = TypeVar("AnyTable", bound=TomlTable)
Hint = Callable[[str, type[TomlTable]], str]
"""(unknown key, dotted; the table it stands in) -> what follows the key in a sentence."""


class Faults(Exception):  # noqa: N818
    """The faults of the values of a table: at most `MAX_FAULTS`, and one that counts the others.

    The caller knows where the values come from and makes an error of the faults.
    """

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(fault.sentence for fault in faults))
        self.faults = faults

    def located(self, where: str) -> tuple[Fault, ...]:
        """The faults as those of a file. Each sentence begins with the name of the file."""
        return tuple(
            replace(fault, sentence=f"{where}: {fault.sentence}", file=where)
            for fault in self.faults
        )


class FieldError(ValueError):
    """A fault that a validator of a table finds, with the fields of a `Fault`."""

    def __init__(
        self,
        sentence: str,
        code: Code,
        *,
        key: str | None = None,
        value: object = None,
        limit: object = None,
    ) -> None:
        super().__init__(sentence)
        self.fault = Fault(sentence, code, key, value, limit)


def read_text(file: Path | Traversable, where: str) -> str:
    """The text of a file; `where` names it in errors.

    Raises:
        FileError: when it cannot be read, has more than `MAX_BYTES` or is not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileError(f"{where}: {error.strerror}", "unreadable", file=where) from None
    if len(raw) > MAX_BYTES:
        raise FileError(
            f"{where}: the file has more than the {MAX_BYTES} bytes that a TOML file may have",
            "too-large",
            limit=MAX_BYTES,
            file=where,
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FileError(
            f"{where}: not UTF-8 text (byte {error.start})", "damaged", file=where
        ) from None


def parse(text: str, where: str) -> dict[str, object]:
    """The values of a TOML text.

    Raises:
        ConfigError: naming the place of what is no TOML.
    """
    try:
        return _load(text)
    except ValueError as error:  # also an integer with too many digits
        raise ConfigError(f"{where}: not valid TOML: {error}", "damaged", file=where) from None
    except RecursionError:
        raise ConfigError(
            f"{where}: not valid TOML: nested too deeply", "damaged", file=where
        ) from None


def parse_value(text: str) -> object:
    """The TOML value that a text is, or the text itself where it is none, as a bare word."""
    try:
        parsed = _load(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or an integer of thousands of digits
        parsed = {}
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _load(text: str) -> dict[str, object]:
    """The values of a TOML text; ValueError or RecursionError where it is none."""
    for number, line in enumerate(text.split("\n"), 1):
        if _dots(line.strip()) > MAX_DOTS:
            raise ValueError(f"more than {MAX_DOTS} dots that may be of one key (at line {number})")
    return tomllib.loads(text)


def _dots(line: str) -> int:
    """At least as many as one dotted key of a line has.

    A comma or a comment ends a key, but in quotation marks: where there are any, all dots count.
    """
    if line.startswith("#"):
        return 0
    if '"' in line or "'" in line:
        return line.count(".")
    return max(part.count(".") for part in line.partition("#")[0].split(","))


def validate(table: type[AnyTable], values: Mapping[str, object], hint: Hint) -> AnyTable:
    """The values as that table.

    Raises:
        Faults: one for each fault, with key, value and limit.
    """
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        raise Faults(*_faults(table, error.errors(), hint)) from None
    except (ValueError, RecursionError):  # pydantic's own, not about a key
        sentence = "a number has thousands of digits, or tables are nested thousands deep"
        raise Faults(Fault(sentence, "too-large")) from None


def tables_of(annotation: object) -> tuple[type[TomlTable], ...]:
    """The tables that a field of this type can hold, more than one where `kind` decides."""
    choices = (annotation, *get_args(annotation))
    return tuple(c for c in choices if isinstance(c, type) and issubclass(c, TomlTable))


def _faults(root: type[TomlTable], details: list[ErrorDetails], hint: Hint) -> Iterator[Fault]:
    inner = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    # A list whose items are at fault is also said to have too few.
    details = [detail for detail in details if detail["loc"] not in inner]
    for detail in details[:MAX_FAULTS]:
        yield _fault(root, detail, hint)
    if len(details) > MAX_FAULTS:
        more = len(details) - MAX_FAULTS
        yield Fault(f"and {more} more faults", "too-large", value=more, limit=MAX_FAULTS)


def _fault(root: type[TomlTable], detail: ErrorDetails, hint: Hint) -> Fault:
    parts, table = _place(root, detail["loc"])
    key = ".".join(parts)
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        shown = key if key.isprintable() and len(key) <= MAX_SHOWN else shorten(key)
        return Fault(f"unknown key {shown}{hint(key, table)}", "unknown", shown)
    if kind == "value_error":  # a sentence of ours
        error = detail["ctx"]["error"]
        return error.fault if isinstance(error, FieldError) else Fault(str(error), "range")
    if kind == "missing":
        return Fault(f"{key} is missing", "missing", key)
    message = _MESSAGES.get(kind, detail["msg"])
    message = message[0].lower() + message[1:]
    sentence = f"{key} = {shorten(value)}: {message}" if key else message
    bounds = detail.get("ctx", {})
    limit = next((bounds[name] for name in _BOUNDS if name in bounds), None)
    return Fault(sentence, _code(kind), key or None, value, limit)


def _code(kind: str) -> Code:
    """The code of a fault that pydantic calls `kind`."""
    if kind == "finite_number":
        return "not-finite"
    if kind == "literal_error":
        return "unknown"
    return "type" if kind.endswith(("_type", "_parsing")) else "range"


def _place(root: type[TomlTable], loc: tuple[int | str, ...]) -> tuple[list[str], type[TomlTable]]:
    """The parts of a fault's key as the user wrote it, and the table in which the last stands."""
    parts: list[str] = []
    table = root
    choices: tuple[type[TomlTable], ...] = (root,)
    for step in loc:
        if len(choices) > 1:  # pydantic names the choice in its place, a user nowhere
            choices = tuple(c for c in choices if c.model_fields["kind"].default == step)
            continue
        table = choices[0] if choices else table
        parts.append(str(step))
        field = table.model_fields.get(str(step)) if choices else None
        choices = tables_of(field.annotation) if field else ()
    return parts, table
