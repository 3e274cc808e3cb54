"""The user's own samples from a Python file of the user, which is run.

A file runs only if the user names it in that very call: no configuration and no model file can
name a module.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from esl_lava.data.config import OWN
from esl_lava.data.own import OwnData, check_split
from esl_lava.errors import ConfigError, DataError, FileError, UserError

SHOWN = 300
"""A sentence shows at most this many characters of an exception's text."""


def own_from_module(text: str) -> OwnData:
    """Return the data set that a function of a Python file returns.

    The file runs here as a module, and can import the files beside it. The function is called with
    "train" or "test" when the split is needed, and returns the same as `OwnData.give`.

    Args:
        text: FILE.py:FUNCTION.

    Raises:
        ConfigError: the text does not have this form, or the file has no such function.
        FileError: the file does not exist.
        DataError: the file raises an exception when it runs.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ConfigError(
            f"--data-module {text}: needs FILE.py:FUNCTION, for example mine.py:load",
            "type",
            key="--data-module",
            value=text,
        )
    path = Path(file).absolute()
    if not os.path.isfile(path):
        raise FileError(f"{file}: no such file", "not-found", file=file)
    with _user_errors(path, file):
        module = _import_file(path)
    function = getattr(module, name, None)
    if not callable(function):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"--data-module {text}: {file} has no function {name}{hint}",
            "unknown",
            key="--data-module",
            value=name,
            file=file,
        )
    return OwnData(f"{OWN} ({path.name})", _split_function(function, path, file, name))


def _split_function(
    function: Callable[[str], object], path: Path, file: str, name: str
) -> Callable[[str], object]:
    """Return the user's function with its result checked and its exceptions as DataErrors."""

    def give(split: str) -> object:
        with _user_errors(path, file):
            # The items of a Dataset are read here too, because the user's code returns each item.
            return check_split(function(split), f"{file}: {name}({split!r})")

    return give


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module with a name that no other module has."""
    name = f"esl_lava_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, among others, look the module up by its name
    # At the end of the path, so that a file of the user hides no package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _user_errors(path: Path, file: str) -> Iterator[None]:
    """Turn an exception of the user's code into a DataError with file, line and text."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        where = file if line is None else f"{file}, line {line}"
        text = " ".join(str(error).split())
        text = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
        kind = type(error).__name__
        sentence = f"{where}: {kind}: {text}" if text else f"{where}: {kind}"
        raise DataError(sentence, "failed", value=kind, file=file) from error


def _line(error: BaseException, path: Path) -> int | None:
    """Return the innermost line of a file that an exception passed, or None if there is none."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
