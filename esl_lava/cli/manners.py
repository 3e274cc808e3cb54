"""How much a command says: `--quiet` and `--verbose`, which every command takes."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from esl_lava.cli import output
from esl_lava.printable import make_printable

CHOSEN = ("esl_lava.engines.choice", "esl_lava.kernels", "esl_lava.data.jpegs")
"""Loggers whose information is printed unless `--quiet` is given. They name the engines that `auto`
chose, and the compilation of kernels and the decoding of pictures, which take time."""

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print all information that esl-lava logs.")
]


class _PrintableFormatter(logging.Formatter):
    """Write a record of the log as text in which unsafe characters are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message as one line."""
        return make_printable(super().formatMessage(record), keep="\t")

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and the lines of a traceback."""
        return make_printable(super().format(record), keep="\n\t")


def set_up_logging() -> None:
    """Print warnings, and the information of the loggers `CHOSEN`."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for name in CHOSEN:
        logging.getLogger(name).setLevel(logging.INFO)


def polite(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options `--quiet` and `--verbose`."""

    @functools.wraps(command)
    def program(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> None:
        if quiet and verbose:
            raise typer.BadParameter("--quiet and --verbose exclude each other.")
        output.set_quiet(quiet)
        level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.NOTSET
        logging.getLogger("esl_lava").setLevel(level)
        for name in CHOSEN:
            logging.getLogger(name).setLevel(level or logging.INFO)
        command(*args, **kwargs)

    types = get_type_hints(command, include_extras=True)
    known = inspect.signature(command)
    parameters = [
        parameter.replace(annotation=types[name]) for name, parameter in known.parameters.items()
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    for name, kind in (("quiet", Quiet), ("verbose", Verbose)):
        parameters.append(inspect.Parameter(name, keyword, default=False, annotation=kind))
        types[name] = kind
    # typer reads the signature and the annotations of the function that it calls.
    program.__signature__ = known.replace(parameters=parameters)  # type: ignore[attr-defined]
    program.__annotations__ = types
    return program
