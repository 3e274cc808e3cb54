"""Compiled numba kernels, without policy. A kernel runs in the calling thread, without the GIL.

numba caches compiled kernels beside the sources, or in the user's cache if it cannot write there.
A kernel that is not in the cache is compiled at its first call. The log says so once.
"""

import logging
from typing import Any

from numba.core import event

_logger = logging.getLogger(__name__)


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


_register: Any = event.register  # numba has no types
_register("numba:compile", _CompilationNotice())
