"""SLAYER, imported without its remarks: `from esl_lava.engines.slayer import slayer`.

lava-dl 0.6.0 prints about CUDA and camera toolboxes when imported, some of it on the
standard output that scripts read; and torch built with CUDA logs that there is no device.
"""

import contextlib
import io
import logging
from typing import Protocol

import torch

_remarks = io.StringIO()
_compiler = logging.getLogger("torch.utils.cpp_extension")
_level = _compiler.level
_compiler.setLevel(logging.ERROR)
with contextlib.redirect_stdout(_remarks), contextlib.redirect_stderr(_remarks):
    from lava.lib.dl import slayer
_compiler.setLevel(_level)

for _line in _remarks.getvalue().splitlines():
    logging.getLogger(__name__).debug("%s", _line)

__all__ = ["CubaNeuron", "slayer"]


class CubaNeuron(Protocol):
    """What of a SLAYER CUBA neuron with shared parameters the engines read and set.

    Attributes:
        threshold, threshold_eps: in units of weighted input; their sum is what v must reach.
        s_scale: integers of the state per unit.
        w_scale: half steps of the grid of weights per unit.
        tau_rho, scale_rho: of the surrogate gradient, relative to SLAYER's own.
        current_decay, voltage_decay: one number each, in parts of 4096.
        shape, num_neurons: None until the first input.
    """

    threshold: float
    threshold_eps: float
    s_scale: int
    w_scale: int
    tau_rho: float
    scale_rho: float
    current_decay: torch.Tensor
    voltage_decay: torch.Tensor
    shape: torch.Size | None
    num_neurons: int | None
