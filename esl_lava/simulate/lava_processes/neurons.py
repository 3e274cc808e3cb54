"""A fixed-point CUBA neuron with a refractory period, which Lava lacks.

Lava's own `LIFRefractory` (lava-nc 0.10.0) exists only in floating point, and netx ignores the
period.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import AbstractPyLifModelFixed
from lava.proc.lif.process import LIFReset


class RefractoryLIFReset(LIFReset):
    """Lava's `LIFReset` with neurons that pause after a spike.

    Args:
        shape: shape of the neurons.
        refractory: steps after a spike in which v stays 0, while u continues.
        parameters: parameters of `LIFReset`. A reset also ends a pause.
    """

    def __init__(self, *, shape: tuple[int, ...], refractory: int, **parameters: Any) -> None:
        super().__init__(shape=shape, **parameters)
        self.proc_params["refractory"] = refractory
        self.waiting = Var(shape=shape, init=0)


@implements(proc=RefractoryLIFReset, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRefractoryLIFReset(AbstractPyLifModelFixed):
    """The process model of `RefractoryLIFReset`: Lava's own arithmetic, and a pause.

    Apart from the pause it computes the same as `PyLifResetModelBitAcc`. Lava does not allow the
    model of another Process to inherit from that class.
    """

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    vth: int = LavaPyType(int, np.int32, precision=17)
    waiting: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self._refractory = proc_params["refractory"]
        self._interval = proc_params["reset_interval"]
        self._offset = proc_params["reset_offset"] % self._interval

    def run_spk(self) -> None:
        """Run a step."""
        arriving = self.a_in.recv()
        if self.time_step % self._interval == self._offset:
            for state in (self.u, self.v, self.waiting):
                state[:] = 0
        self.scale_bias()
        self.subthr_dynamics(activation_in=arriving)
        self.v[self.waiting > 0] = 0
        fired = self.v > np.left_shift(self.vth, self.vth_shift)
        self.reset_voltage(spike_vector=fired)
        left = np.maximum(self.waiting - 1, 0)
        self.waiting[:] = np.where(fired, self._refractory, left)
        self.s_out.send(fired)
