"""How far work has come that no caller waits for by name, such as a data set that is prepared.

Who starts a program says once what shows it; where nobody does, nothing is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Show = Callable[[str, int, int], None]
"""Takes a name of the work, how much of it is done, and how much there is."""

_SHOW: ContextVar[Show | None] = ContextVar("_SHOW", default=None)


@contextlib.contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Let a function show what is done within the context."""
    before = _SHOW.set(show)
    try:
        yield
    finally:
        _SHOW.reset(before)


def tell_progress(name: str, done: int, total: int) -> None:
    """Say how much of some work is done."""
    show = _SHOW.get()
    if show is not None:
        show(name, done, total)
