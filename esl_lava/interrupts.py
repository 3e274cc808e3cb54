"""Keep a Ctrl-C that arrives while Python runs a finaliser."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

DELAY = 0.01
"""Seconds until an interruption that Python dropped is raised again."""


@contextlib.contextmanager
def reraise_dropped_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt again, a moment later, if Python had to drop it in this context.

    Python cannot raise an exception out of a `__del__` or out of a callback from C: it prints
    "Exception ignored in" with a traceback and goes on. Loading compiled kernels leaves many
    finalisers behind, and a Ctrl-C during one of them would not end the program. Other exceptions
    that Python cannot raise are shown as before.
    """
    previous = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            previous(unraisable)
            return
        main = threading.main_thread().ident
        timer = threading.Timer(DELAY, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous
