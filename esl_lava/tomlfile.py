"""TOML as typed tables: reads a text safely, and reports its faults with key, value and limit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from esl_lava.errors import MAX_SHOWN, Code, ConfigError, Fault, FileError, shorten
from esl_lava.files import open_regular

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

The time and memory of Python's own `tomllib` grow with the square of the number of dots in a
key. The nested tables that it builds are so deep that code which walks them overflows the stack.
"""

MAX_FAULTS = 20
"""An error names at most this many faults of a file; one more fault counts the rest."""

_MESSAGES = {
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
    "tuple_type": "should be a list",
}
"""pydantic's type of a fault -> our message. pydantic's own message names Python types."""

_BOUNDS = ("ge", "gt", "le", "lt", "expected", "max_length", "min_length")
"""Keys of an error's context under which pydantic keeps the limit that a value breaks."""


class TomlTable(BaseModel):
    """A table of a TOML file. It is immutable and refuses unknown keys.

    The types are those of TOML: "8" and true are not numbers, and 1.0 is not an integer. An
    integer is accepted as a float. TOML has lists only, so a tuple needs `Field(strict=False)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AnyTable = TypeVar("AnyTable", bound=TomlTable)
Hint = Callable[[str, type[TomlTable]], str]
"""(dotted unknown key, table that contains it) -> text that follows the key in the sentence."""


class Faults(Exception):  # noqa: N818
    """Faults of the values of a table: at most `MAX_FAULTS`, and one that counts the others.

    The caller knows the origin of the values and raises a `UserError` with these faults.
    """

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(fault.sentence for fault in faults))
        self.faults = faults

    def in_file(self, where: str) -> tuple[Fault, ...]:
        """Return the faults with `where` as their file. Each sentence begins with its name."""
        return tuple(
            replace(fault, sentence=f"{where}: {fault.sentence}", file=where)
            for fault in self.faults
        )


class FieldError(ValueError):
    """A fault that a validator of a table raises, with the fields of a `Fault`."""

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
    """Return the text of a file.

    Args:
        file: the file.
        where: the name of the file in errors.

    Raises:
        FileError: if the file cannot be read, has more than `MAX_BYTES` or is not UTF-8.
    """
    try:
        with open_regular(file) if isinstance(file, Path) else file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{where}: {error.strerror}", code, file=where) from None
    if len(raw) > MAX_BYTES:
        raise FileError(
            f"{where}: the file has more than {MAX_BYTES} bytes, the limit of a TOML file",
            "too-large",
            limit=MAX_BYTES,
            file=where,
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{where}: line {line} is not UTF-8 text; save the file as UTF-8",
            "damaged",
            value=line,
            file=where,
        ) from None


def parse(text: str, where: str) -> dict[str, object]:
    """Return the values of a TOML text; `where` names it in errors.

    Raises:
        ConfigError: if the text is not valid TOML, with the line.
    """
    try:
        return _load(text)
    except ValueError as error:  # includes an integer with too many digits
        raise ConfigError(f"{where}: not valid TOML: {error}", "damaged", file=where) from None
    except RecursionError:
        raise ConfigError(
            f"{where}: not valid TOML: values are nested too deeply", "damaged", file=where
        ) from None


def parse_value(text: str) -> object:
    """Return the TOML value that a text denotes.

    A text that is no TOML value, such as a bare word, is a string; blanks around it are removed.
    """
    try:
        parsed = _load(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, or an integer of thousands of digits
        parsed = {}
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _load(text: str) -> dict[str, object]:
    """Return the values of a TOML text; raise ValueError or RecursionError if it is not TOML."""
    for number, line in enumerate(text.split("\n"), 1):
        if _count_dots(line.strip()) > MAX_DOTS:
            raise ValueError(f"a key has more than {MAX_DOTS} dots (at line {number})")
    return tomllib.loads(text)


def _count_dots(line: str) -> int:
    """Return an upper bound on the number of dots in one dotted key of a line.

    A comma or a comment ends a key, except in quotation marks. In a line with quotation marks
    all dots count.
    """
    if line.startswith("#"):
        return 0
    if '"' in line or "'" in line:
        return line.count(".")
    return max(part.count(".") for part in line.partition("#")[0].split(","))


def validate(table: type[AnyTable], values: Mapping[str, object], hint: Hint) -> AnyTable:
    """Return the values as an instance of the table.

    Args:
        table: the class of the table.
        values: the values by key.
        hint: returns the text that follows an unknown key in the sentence of its fault.

    Raises:
        Faults: one fault for each wrong key or value, with key, value and limit.
    """
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        raise Faults(*_make_faults(table, error.errors(), hint)) from None
    except (ValueError, RecursionError):  # of pydantic itself, without a key
        sentence = "a number has thousands of digits, or tables are nested thousands deep"
        raise Faults(Fault(sentence, "too-large")) from None


def tables_of(annotation: object) -> tuple[type[TomlTable], ...]:
    """Return the tables that a field of this type can hold: several if `kind` selects one."""
    choices = (annotation, *get_args(annotation))
    return tuple(c for c in choices if isinstance(c, type) and issubclass(c, TomlTable))


def _make_faults(root: type[TomlTable], details: list[ErrorDetails], hint: Hint) -> Iterator[Fault]:
    inner = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    # pydantic also reports that a list with faulty items has too few items.
    details = [detail for detail in details if detail["loc"] not in inner]
    for detail in details[:MAX_FAULTS]:
        yield _make_fault(root, detail, hint)
    if len(details) > MAX_FAULTS:
        more = len(details) - MAX_FAULTS
        yield Fault(f"{more} more faults are not shown", "too-large", value=more, limit=MAX_FAULTS)


def _make_fault(root: type[TomlTable], detail: ErrorDetails, hint: Hint) -> Fault:
    parts, table = _locate(root, detail["loc"])
    path = ".".join(parts)
    key = path if path.isprintable() and len(path) <= MAX_SHOWN else shorten(path)
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return Fault(f"unknown key {key}{hint(path, table)}", "unknown", key)
    if kind == "value_error":  # raised by a validator of ours
        error = detail["ctx"]["error"]
        return error.fault if isinstance(error, FieldError) else Fault(str(error), "range")
    if kind == "missing":
        return Fault(f"{key} is missing", "missing", key)
    message = _MESSAGES.get(kind, detail["msg"])
    message = message[0].lower() + message[1:]
    sentence = f"{key} = {shorten(value)}: {message}" if key else message
    bounds = detail.get("ctx", {})
    limit = next((bounds[name] for name in _BOUNDS if name in bounds), None)
    return Fault(sentence, _choose_code(kind), key or None, value, limit)


def _choose_code(kind: str) -> Code:
    """Return the code of a fault of pydantic's type `kind`."""
    if kind == "finite_number":
        return "not-finite"
    if kind == "literal_error":
        return "unknown"
    return "type" if kind.endswith(("_type", "_parsing")) else "range"


def _locate(root: type[TomlTable], loc: tuple[int | str, ...]) -> tuple[list[str], type[TomlTable]]:
    """Return the parts of a fault's key as the user wrote it, and the table of the last part."""
    parts: list[str] = []
    table = root
    choices: tuple[type[TomlTable], ...] = (root,)
    for step in loc:
        if len(choices) > 1:  # pydantic adds the kind as a step, which is not in the user's key
            choices = tuple(c for c in choices if c.model_fields["kind"].default == step)
            continue
        table = choices[0] if choices else table
        parts.append(str(step))
        field = table.model_fields.get(str(step)) if choices else None
        choices = tables_of(field.annotation) if field else ()
    return parts, table
