"""`esl` and its subcommands: parse, call, print.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import typer

from esl_lava.cli import commands
from esl_lava.errors import UserError


def _typer(purpose: str | None = None) -> typer.Typer:
    """A command line without decoration: plain help, plain tracebacks for bugs of ours."""
    return typer.Typer(
        help=purpose,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _typer("Train sparse spiking networks, export them to Lava, run and price them.")
reproduce = _typer("Recompute results of the ESL-SNNs paper.")
reproduce.command("table1")(commands.reproduce_table1)
app.command()(commands.demo)
app.command()(commands.train)
app.command()(commands.export)
app.command()(commands.run)
app.command()(commands.verify)
app.command()(commands.energy)
app.add_typer(reproduce, name="reproduce")


def _guarded(program: Callable[[], None]) -> None:
    """Run a command line; a user's error becomes one sentence a line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        program()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _single(command: Callable[..., None]) -> Callable[[], None]:
    """A program of its own out of one command."""

    def program() -> None:
        single = _typer()
        single.command(no_args_is_help=True)(command)
        _guarded(single)

    return program


def main() -> None:
    """`esl`."""
    _guarded(app)


train_main = _single(commands.train)
export_main = _single(commands.export)
run_main = _single(commands.run)
energy_main = _single(commands.energy)
