"""Where things go: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from esl_lava.errors import UserError
from esl_lava.files import as_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import RenderableType

    from esl_lava.values import Json

INTERRUPTED = 130
"""The exit code of a command stopped by Ctrl-C, as shells have it; typer returns it."""


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Send what libraries print to standard error while a command works."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def tell(line: str) -> None:
    """A line about what happens, on standard error."""
    print(line, file=sys.stderr, flush=True)


def complain(error: UserError) -> None:
    """What a user did wrong, on standard error: a sentence a line."""
    for line in str(error).splitlines():
        tell(f"error: {line}")


def print_json(found: DataclassInstance | Mapping[str, Json]) -> None:
    """Exactly one JSON object on standard output: a record, or what is made of several.

    Raises:
        DataError: where a number is not finite: JSON has none, and nothing is printed.
    """
    from esl_lava.values import as_values

    values = found if isinstance(found, Mapping) else as_values(found)
    print(as_json(values), flush=True)


def print_tables(*tables: RenderableType) -> None:
    """Tables on standard output, as wide as the terminal, or 100 columns in a file."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    # What a path or a device file holds is text, not markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    for table in tables:
        console.print(table, crop=False)
