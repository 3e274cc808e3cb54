"""Progress of work that runs deep inside a call, for example the preparation of a data set.

The function that starts a program says once how progress is shown. Otherwise nothing is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

ProgressCallback = Callable[[str, int, int], None]
"""Takes the name of the work, the units that are done and the units in total."""

_CALLBACK: ContextVar[ProgressCallback | None] = ContextVar("_CALLBACK", default=None)


@contextlib.contextmanager
def show_progress_with(show: ProgressCallback) -> Iterator[None]:
    """Show the progress of all work in this context with the function `show`."""
    previous = _CALLBACK.set(show)
    try:
        yield
    finally:
        _CALLBACK.reset(previous)


def tell_progress(name: str, done: int, total: int) -> None:
    """Report that `done` of `total` units of the work called `name` are done."""
    show = _CALLBACK.get()
    if show is not None:
        show(name, done, total)
