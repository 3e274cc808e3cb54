"""Import SLAYER without its messages: `from esl_lava.engines.slayer import slayer`.

When imported, lava-dl 0.6.0 prints messages about CUDA and camera toolboxes, some of them to the
standard output, which scripts read. Also, torch built with CUDA logs that there is no device.
"""

import contextlib
import io
import logging
from typing import Protocol

import torch

_messages = io.StringIO()
_compiler = logging.getLogger("torch.utils.cpp_extension")
_level = _compiler.level
_compiler.setLevel(logging.ERROR)
with contextlib.redirect_stdout(_messages), contextlib.redirect_stderr(_messages):
    from lava.lib.dl import slayer
_compiler.setLevel(_level)

for _line in _messages.getvalue().splitlines():
    logging.getLogger(__name__).debug("%s", _line)

__all__ = ["CubaNeuron", "slayer"]


class CubaNeuron(Protocol):
    """The attributes of a SLAYER CUBA neuron with shared parameters that the engines use.

    Attributes:
        threshold, threshold_eps: in units of weighted input. A neuron fires if v reaches their sum.
        s_scale: integers of the state per unit.
        w_scale: half steps of the weight grid per unit.
        tau_rho, scale_rho: tau and scale of the surrogate gradient, before SLAYER multiplies them
            by `TAU_RHO_MULT` and `SCALE_RHO_MULT`.
        current_decay, voltage_decay: one number each, in units of 1/4096.
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
