"""The program `esl` and its subcommands.

Heavy packages are imported only when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import typer

from esl_lava.cli import commands, recordings, sweeps
from esl_lava.cli.output import INTERRUPTED, complain
from esl_lava.cli.progress import show_samples
from esl_lava.errors import Code, UserError
from esl_lava.interrupts import heeded
from esl_lava.packages import missing
from esl_lava.progress import shown_by

INFORMATIVE = ("esl_lava.engines.choice", "esl_lava.kernels", "esl_lava.data.jpegs")
"""Loggers whose messages of level INFO are shown.

They report the engine that `auto` chose, the compilation of kernels and the decoding of images.
"""


def _command_line(purpose: str | None = None) -> typer.Typer:
    """Return an empty command line with plain help and plain tracebacks."""
    return typer.Typer(
        help=purpose,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _command_line(
    "Train sparse spiking networks, export them to Lava, simulate them and compute their energy."
)
reproduce = _command_line("Reproduce tables and figures of the ESL-SNNs paper.")
reproduce.command("table1")(sweeps.reproduce_table1)
reproduce.command("table2")(sweeps.reproduce_table2)
reproduce.command("fig2")(sweeps.reproduce_fig2)
reproduce.command("fig3")(sweeps.reproduce_fig3)
reproduce.command("fig4")(sweeps.reproduce_fig4)
app.command()(commands.demo)
app.command()(commands.train)
app.command()(commands.export)
app.command()(commands.run)
app.command()(commands.verify)
app.command()(commands.energy)
app.command()(commands.devices)
app.command("map")(commands.map_to_chip)
app.command()(commands.report)
app.command()(recordings.events)
app.command()(sweeps.baselines)
app.command()(sweeps.sweep)
app.add_typer(reproduce, name="reproduce")


@app.callback(invoke_without_command=True)
def _show_overview(context: typer.Context) -> None:
    """Print the help and fail if no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _run_program(program: Callable[..., int | None]) -> None:
    """Run a command line and exit with its code.

    An error of the user is reported without a traceback, and the exit code is 2.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    for name in INFORMATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        with heeded(), show_samples("recordings") as show, shown_by(show):
            status = program(standalone_mode=False)
    except UserError as error:
        complain(error)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package_error = missing(error)
        if package_error is None:
            raise
        complain(package_error)
        sys.exit(2)
    except typer.TyperException as error:
        complain(_usage_error(error))
        sys.exit(2)
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _usage_error(error: typer.TyperException) -> UserError:
    """Return an error of typer, which reads the command line, as an error with a code."""
    sentence = error.format_message().removesuffix(".")
    code: Code = "unknown"  # an option, an argument or a command that does not exist
    if sentence.startswith("Missing") or "requires an argument" in sentence:
        code = "missing"
    elif isinstance(error, typer.BadParameter):
        code = "not-finite" if "not a finite number" in sentence else "type"
        code = "range" if "is not in the range" in sentence else code
    parameter = getattr(error, "param", None)
    key = getattr(error, "option_name", None)
    if parameter is not None:
        key = max(parameter.opts, key=len)
    return UserError(sentence, code, key=key if key is not None and key in sentence else None)


def _single_program(command: Callable[..., None]) -> Callable[[], None]:
    """Return a program that consists of one command."""

    def program() -> None:
        command_line = _command_line()
        command_line.command()(command)
        _run_program(command_line)

    return program


def main() -> None:
    """Run the program `esl`."""
    _run_program(app)


train_main = _single_program(commands.train)
export_main = _single_program(commands.export)
run_main = _single_program(commands.run)
energy_main = _single_program(commands.energy)
