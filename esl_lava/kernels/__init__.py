"""Kernels compiled by numba. A kernel runs in the calling thread, without the GIL.

numba caches compiled kernels beside the sources, or in the user's cache if it cannot write there.
A kernel that is not in the cache is compiled at its first call. The log says so once. If numba can
write into neither folder, every process compiles its kernels, and the log says this once.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numba
from numba.core import event

_logger = logging.getLogger(__name__)

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_njit: Any = numba.njit  # numba has no types
_register: Any = event.register


def njit(**options: Any) -> Callable[[AnyFunction], AnyFunction]:
    """Return a decorator that compiles a function as `numba.njit` does, even if it cannot cache it.

    Args:
        options: the options of `numba.njit`. `cache` has no effect where numba cannot write.
    """

    def compile_function(function: AnyFunction) -> AnyFunction:
        try:
            return _njit(**options)(function)
        except RuntimeError:  # numba finds no folder for its cache that it can write to
            _report_no_cache()
            return _njit(**{**options, "cache": False})(function)

    return compile_function


@cache
def _report_no_cache() -> None:
    """Log, once in a process, that compiled kernels cannot be kept."""
    _logger.warning(
        "compiled kernels cannot be kept, because no folder for them can be written to; "
        "NUMBA_CACHE_DIR can name one"
    )


class _CompilationNotice(event.Listener):
    """Log the first compilation of a kernel of esl-lava in this process."""

    logged = False

    def on_start(self, event: event.Event) -> None:
        """Log that a function is being compiled, if none was logged before."""
        compiled = event.data["dispatcher"].py_func.__module__ or ""
        if not self.logged and compiled.startswith("esl_lava."):
            self.logged = True
            _logger.info("compiling kernels for their first use, which takes some seconds")

    def on_end(self, event: event.Event) -> None:
        """Do nothing when the compilation ends."""


_register("numba:compile", _CompilationNotice())
