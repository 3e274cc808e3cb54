"""Signals that end a program: keep a Ctrl-C that a finaliser drops, and end cleanly on SIGTERM.

Clusters and container systems send SIGTERM before they kill a job.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

DELAY = 0.01
"""Seconds until an interruption that Python dropped is raised again."""


def describe_exit(code: int) -> str:
    """Describe the end of a process by its exit code of `subprocess`."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


class Termination(BaseException):
    """The process got SIGTERM and must end. Like KeyboardInterrupt, this is no `Exception`."""


@contextlib.contextmanager
def reraise_dropped_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt again, a moment later, if Python had to drop it in this context.

    Python cannot raise an exception out of a `__del__` or out of a callback from C: it prints
    "Exception ignored in" with a traceback and goes on. Loading compiled kernels leaves many
    finalisers behind, and a Ctrl-C during one of them would not end the program. The same holds
    for a `Termination`. Other exceptions that Python cannot raise are shown as before.
    """
    previous = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = signal.SIGINT
        elif issubclass(unraisable.exc_type, Termination):
            again = signal.SIGTERM
            _sigterm.arrived = False  # else the handler would ignore the next signal
        else:
            previous(unraisable)
            return
        main = threading.main_thread().ident
        timer = threading.Timer(DELAY, signal.pthread_kill, (main, again))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


class _Sigterm:
    """The state of SIGTERM in this process."""

    def __init__(self) -> None:
        self.handled = False  # whether `raise_on_sigterm` is open
        self.arrived = False
        self.postponed = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal. Only the first one counts: a cluster may send it several times."""
        if self.arrived:
            return
        self.arrived = True
        if not self.postponed:
            raise Termination


_sigterm = _Sigterm()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Termination` in the main thread when SIGTERM arrives in this context.

    So files and folders that are being written are removed before the process ends. The context
    does nothing in another thread, or if SIGTERM is ignored or has a handler already.

    Raises:
        Termination: when the signal arrives.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _sigterm.handled, _sigterm.arrived, _sigterm.postponed = True, False, False
    signal.signal(signal.SIGTERM, _sigterm.handle)
    try:
        yield
    finally:
        # A second signal must not kill the process before it exits with its own code.
        after = signal.SIG_IGN if _sigterm.arrived else signal.SIG_DFL
        signal.signal(signal.SIGTERM, after)
        _sigterm.handled = False


@contextlib.contextmanager
def postpone_termination() -> Iterator[Callable[[], bool]]:
    """Let work reach a good place to end when SIGTERM arrives in this context.

    The context gives a function that returns whether the signal has arrived. Without
    `raise_on_sigterm`, or in another thread, it returns False and the context changes nothing.

    Raises:
        Termination: at the end of the context, if the signal has arrived and no error is raised.
    """
    if not _sigterm.handled or not _in_main_thread():
        yield lambda: False
        return
    _sigterm.postponed = True
    try:
        yield lambda: _sigterm.arrived
    finally:
        _sigterm.postponed = False
    if _sigterm.arrived:
        raise Termination
