"""The output of the commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

from esl_lava.errors import Fault, UserError
from esl_lava.files import as_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import RenderableType

    from esl_lava.values import Json

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped, as in shells. typer returns this code."""

TERMINATED = 143
"""Exit code of a command that SIGTERM stopped, as in shells."""


def results_only() -> contextlib.redirect_stdout[TextIO]:
    """Send the output of libraries to standard error while a command works."""
    return contextlib.redirect_stdout(sys.stderr)


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Choose whether `tell` and the display of progress stay silent."""
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
    """Report an error of the user.

    Standard error gets one line for each fault: the sentence and the code. If `--json` is on the
    command line, standard output gets one JSON object with all faults.
    """
    list_faults(error.faults)
    if "--json" in sys.argv[1:]:
        try:
            print(as_json({"error": [fault.as_json() for fault in error.faults]}), flush=True)
        except BrokenPipeError:  # the reader has ended; Python would try again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def list_faults(faults: Iterable[Fault]) -> None:
    """Print one line for each fault on standard error."""
    for fault in faults:
        warn(f"error: {' '.join(fault.sentence.splitlines())} [{fault.code}]")


def answer(
    in_json: bool, result: DataclassInstance | Mapping[str, Json], *tables: RenderableType
) -> None:
    """Print the result of a command on standard output.

    Args:
        in_json: print exactly one JSON object, else tables. Tables are as wide as the terminal,
            or 100 columns wide in a file.
        result: a record, or JSON values.
        tables: the same result for people.

    Raises:
        DataError: when a number is not finite, because JSON cannot hold it. Nothing is printed.
    """
    from rich.console import Console

    from esl_lava.values import as_values

    if in_json:
        print(as_json(result if isinstance(result, Mapping) else as_values(result)), flush=True)
        return
    width = None if sys.stdout.isatty() else 100
    # A path or a text of a device file may contain characters that rich takes for markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    for table in tables:
        console.print(table, crop=False)
