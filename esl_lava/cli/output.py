"""Where things go: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from esl_lava.errors import UserError
from esl_lava.files import as_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import RenderableType

    from esl_lava.values import Json

INTERRUPTED = 130
"""The exit code of a command stopped by Ctrl-C, as shells have it; typer returns it."""


def results_only() -> contextlib.redirect_stdout[TextIO]:
    """Send what libraries print to standard error while a command works."""
    return contextlib.redirect_stdout(sys.stderr)


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Choose whether `tell` and progress stay silent."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether only results, warnings and errors are printed."""
    return _quiet


def tell(line: str) -> None:
    """Print a line about the work on standard error, unless `--quiet` was given."""
    if not _quiet:
        warn(line)


def warn(line: str) -> None:
    """Print a line on standard error, whatever was chosen."""
    print(line, file=sys.stderr, flush=True)


def complain(error: UserError) -> None:
    """What a user did wrong, on standard error: a sentence a line."""
    for line in str(error).splitlines():
        warn(f"error: {line}")


def answer(
    in_json: bool, found: DataclassInstance | Mapping[str, Json], *tables: RenderableType
) -> None:
    """What a command found, on standard output.

    Args:
        in_json: whether as exactly one JSON object, else as tables: these are as wide as the
            terminal, or 100 columns in a file.
        found: a record, or what is made of several.
        tables: the same for people.

    Raises:
        DataError: where a number is not finite: JSON has none, and nothing is printed.
    """
    from rich.console import Console

    from esl_lava.values import as_values

    if in_json:
        print(as_json(found if isinstance(found, Mapping) else as_values(found)), flush=True)
        return
    width = None if sys.stdout.isatty() else 100
    # What a path or a device file holds is text, not markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    for table in tables:
        console.print(table, crop=False)
