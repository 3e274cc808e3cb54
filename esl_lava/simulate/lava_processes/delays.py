"""What makes spikes of different layers arrive together: a delay line.

Lava's own delays are those of fully connected synapses; convolutions have none.
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
    """Sends what it received so many steps earlier; zeros at first.

    It is never reset: samples that follow each other in it follow each other behind it.

    Args:
        shape: of both ports.
        steps: at least 1.
    """

    def __init__(self, *, shape: tuple[int, ...], steps: int) -> None:
        super().__init__(shape=shape, steps=steps)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=DelayLine, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDelayLine(PyLoihiProcessModel):
    """Behaviour of a DelayLine."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        nothing = np.zeros(proc_params["shape"], np.int32)
        self._under_way = deque([nothing] * proc_params["steps"])

    def run_spk(self) -> None:
        """A step: sends before it receives, as Lava's synapses do."""
        self.s_out.send(self._under_way.popleft())
        self._under_way.append(self.s_in.recv())
