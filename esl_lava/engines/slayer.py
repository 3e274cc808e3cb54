"""SLAYER, imported without its remarks: `from esl_lava.engines.slayer import slayer`.

lava-dl 0.6.0 prints about CUDA and camera toolboxes when imported, some of it on the
standard output that scripts read.
"""

import contextlib
import io
import logging

_remarks = io.StringIO()
with contextlib.redirect_stdout(_remarks), contextlib.redirect_stderr(_remarks):
    from lava.lib.dl import slayer

for _line in _remarks.getvalue().splitlines():
    logging.getLogger(__name__).debug("%s", _line)

__all__ = ["slayer"]
