"""Samples of the user's own from a Python file of theirs, which is run.

Only what a user says in that very call is run: no configuration and no model file names a module.
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
from esl_lava.data.own import Own, settled
from esl_lava.errors import ConfigError, DataError, FileError, UserError

SHOWN = 300
"""Characters of an exception's text that a sentence shows."""


def of_module(text: str) -> Own:
    """The data set that a function of a Python file gives.

    The file is run here, as a module: what stands beside it can be imported by it. The function is
    called with "train" or "test" when the split is needed, and returns what `Own.give` is to.

    Args:
        text: FILE.py:FUNCTION.

    Raises:
        ConfigError: when the text is not of that form, or the file has no such function.
        FileError: when there is no such file.
        DataError: when the file raises an exception.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"--data-module {text}: needs FILE.py:FUNCTION, such as mine.py:load")
    path = Path(file).absolute()
    if not os.path.isfile(path):
        raise FileError(f"{file}: no such file")
    with _told(path, file):
        module = _imported(path)
    function = getattr(module, name, None)
    if not callable(function):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--data-module {text}: {file} has no function {name}{hint}")
    return Own(f"{OWN} ({path.name})", _giver(function, path, file, name))


def _giver(
    function: Callable[[str], object], path: Path, file: str, name: str
) -> Callable[[str], object]:
    def give(split: str) -> object:
        with _told(path, file):
            # Items of a Dataset are asked for here too: the user's code gives each of them.
            return settled(function(split), f"{file}: {name}({split!r})")

    return give


def _imported(path: Path) -> ModuleType:
    """Run a file as a module of a name that no other has."""
    name = f"esl_lava_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, among others, look for it there
    # Behind all others, so that a file of the user's hides no package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told(path: Path, file: str) -> Iterator[None]:
    """Make one sentence of what the user's code raises."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        where = file if line is None else f"{file}, line {line}"
        said = " ".join(str(error).split())
        said = said if len(said) <= SHOWN else f"{said[: SHOWN - 3]}..."
        kind = type(error).__name__
        raise DataError(f"{where}: {kind}: {said}" if said else f"{where}: {kind}") from error


def _line(error: BaseException, path: Path) -> int | None:
    """The innermost line of a file in which an exception came up; None where there is none."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
