"""A delay line, which makes the spikes of different layers arrive in the same step.

In Lava only fully connected synapses have delays. Convolutions have none.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class DelayLine(AbstractProcess):
    """A process that sends the values that it received `steps` steps earlier, at first zeros.

    It needs no reset between samples, because the layer that it feeds begins each sample later by
    the same delay.

    Args:
        shape: shape of both ports.
        steps: the delay in steps, at least 1.
    """

    def __init__(self, *, shape: tuple[int, ...], steps: int) -> None:
        super().__init__(shape=shape, steps=steps)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=DelayLine, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDelayLine(PyLoihiProcessModel):
    """The process model of `DelayLine`."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        zeros = np.zeros(proc_params["shape"], np.int32)
        self._buffer = deque([zeros] * proc_params["steps"])

    def run_spk(self) -> None:
        """Run a step: send, then receive, as Lava's synapses do."""
        self.s_out.send(self._buffer.popleft())
        self._buffer.append(self.s_in.recv())
