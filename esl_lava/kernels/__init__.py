"""numba kernels, no policy. Each runs in the thread that calls it, and lets others run.

numba keeps what it compiled beside the sources, or in the user's cache where it cannot write
there. What is not kept yet is compiled when it is first called; the log says so, once.
"""

import logging
from typing import Any

from numba.core import event

_logger = logging.getLogger(__name__)


class _CompilationNotice(event.Listener):
    """Tells of the first kernel of ours that is compiled in this process."""

    told = False

    def on_start(self, event: event.Event) -> None:
        """A function is not in numba's cache."""
        compiled = event.data["dispatcher"].py_func.__module__ or ""
        if not self.told and compiled.startswith("esl_lava."):
            self.told = True
            _logger.info("compiling kernels that are used for the first time: some seconds")

    def on_end(self, event: event.Event) -> None:
        """It is compiled."""


_register: Any = event.register  # numba has no types
_register("numba:compile", _CompilationNotice())
