"""The output of the commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO, cast

from esl_lava.errors import Fault, FileError, UserError
from esl_lava.files import as_json
from esl_lava.printable import make_printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from esl_lava.values import Json

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped, as in shells. typer returns this code."""

TERMINATED = 143
"""Exit code of a command that SIGTERM stopped, as in shells."""


def results_only() -> contextlib.redirect_stdout[TextIO]:
    """Send the output of libraries to standard error while a command works."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Raise a `FileError` if standard output cannot be written within the context.

    Raises:
        FileError: if standard output is closed, or a write to it fails. It is no error here if the
            program that reads the output has ended.
    """
    _replace_closed_streams()
    if sys.stdout is None:
        raise FileError("standard output is closed, so no result can be printed", "unwritable")
    output, checked = sys.stdout, cast(TextIO, _CheckedOutput(sys.stdout))
    sys.stdout = checked
    try:
        yield
        with contextlib.suppress(BrokenPipeError):
            checked.flush()
    finally:
        if sys.stdout is checked:  # typer replaces it when its reader has ended
            sys.stdout = output


@contextlib.contextmanager
def unfailing_errors() -> Iterator[None]:
    """Drop the texts for standard error that cannot be written within the context.

    Otherwise a full disk below the log of a training, or the end of the program that reads it,
    would end a training of days.
    """
    _replace_closed_streams()
    errors = sys.stderr
    try:
        errors.fileno()
    except io.UnsupportedOperation:  # a stream in memory, which does not fail
        yield
        return
    sys.stderr = unfailing = cast(TextIO, _UnfailingErrors(errors))
    try:
        yield
    finally:
        if sys.stderr is unfailing:
            sys.stderr = errors


class _UnfailingErrors:
    """A standard error that drops what cannot be written. It holds no text back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text at once."""
        rest = text.encode(self._stream.encoding, "backslashreplace")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._stream.fileno(), rest) :]
        return len(text)

    def flush(self) -> None:
        """Do nothing, because no text is held back."""


class _CheckedOutput:
    """A standard output that raises a `FileError` if a write fails.

    After a failed write nothing more is written. Every later call raises the error again, because
    typer ignores errors of its first writes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fault: Fault | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text as the stream does."""
        with self._faults():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write the texts that the stream holds."""
        with self._faults():
            self._stream.flush()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        if self._fault is None:
            try:
                yield
            except BrokenPipeError:
                raise
            except OSError as error:
                sentence = f"standard output: cannot be written: {error.strerror}"
                self._fault = Fault(sentence, "unwritable")
                _drop_output(self._stream)
        if self._fault is not None:
            raise FileError.of([self._fault])


def _replace_closed_streams() -> None:
    """Open the null device in place of closed standard streams.

    Otherwise the next file that is opened would get the descriptor of the closed stream. A closed
    standard error gets a stream that drops its text. `sys.stdout` stays None.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends


def _drop_output(stream: TextIO) -> None:
    """Drop the text that an output still holds. Otherwise Python fails again at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    """Print a line on standard error, also with `--quiet`. Unsafe characters are escaped."""
    print(make_printable(line), file=sys.stderr, flush=True)


def complain(error: UserError) -> None:
    """Report an error of the user.

    Standard error gets one line for each fault: the sentence and the code. If `--json` is on the
    command line, standard output gets one JSON object with all faults.
    """
    list_faults(error.faults)
    if "--json" in sys.argv[1:] and sys.stdout is not None:
        try:
            print(as_json({"error": [fault.as_json() for fault in error.faults]}), flush=True)
        except OSError:  # standard error has the faults too
            _drop_output(sys.stdout)


def list_faults(faults: Iterable[Fault]) -> None:
    """Print one line for each fault on standard error."""
    for fault in faults:
        warn(f"error: {' '.join(fault.sentence.splitlines())} [{fault.code}]")


def answer(
    in_json: bool, result: DataclassInstance | Mapping[str, Json], *tables: RenderableType
) -> None:
    """Print the result of a command on standard output.

    Args:
        in_json: whether to print `result` as exactly one JSON object, instead of the tables.
        result: a record, or JSON values.
        tables: the same result for people. They are as wide as the terminal, or 100 columns wide
            in a file. Their unsafe characters are escaped.

    Raises:
        DataError: when a number of the JSON object is not finite, because JSON cannot hold it.
            Nothing is printed.
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
        console.print(PrintableTable(table), crop=False)


class PrintableTable:
    """A table, or another object of rich, in which unsafe characters are escaped.

    Args:
        content: the object.
    """

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the pieces of text that rich makes of the object."""
        for segment in console.render(self._content, options):
            yield segment._replace(text=make_printable(segment.text, keep="\n"))
