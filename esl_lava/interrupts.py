"""Ctrl-C is not lost in a finaliser."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

AGAIN = 0.01
"""Seconds until an interruption that was dropped comes again."""


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Within it a KeyboardInterrupt that Python can only drop is raised again, a moment later.

    Python has nowhere to raise what comes up in a `__del__` or a callback from C: it writes
    "Exception ignored in" with a traceback and goes on. Compiled kernels that are being loaded
    leave many finalisers behind, and a Ctrl-C that falls into one would not end the program.
    What else cannot be raised is shown as before.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        main = threading.main_thread().ident
        again = threading.Timer(AGAIN, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
