"""Lava Processes that stream samples from a file into a network and what it does into files.

Lava's own sources and sinks hold a whole run as a Var, and a Var is read one message an
element, 12-20 us each: for most networks longer than the run itself. A message of a port
is an array.

Lava's compiler imports every module it finds beside that of a Process: keep this package
to modules of Processes, without side effects. Only the process in which Lava runs imports
it.

Lava's `time_step` begins at 1. A sample's step t reaches layer i of a network (counting
from 0) at `sample * interval + t + i + 2` by that clock.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from esl_lava.arrays import Array, Int32s


class Player(AbstractProcess):
    """Sends the steps of samples, one each step; nothing between samples and after them.

    Args:
        shape: of the port; maps are (columns, rows, channels).
        played: `path` of a .npy file, (samples, T, inputs) integers, of which the samples
            `first`:`last` are played; `interval`, steps from the beginning of a sample to that
            of the next.
    """

    def __init__(self, *, shape: tuple[int, ...], **played: str | int) -> None:
        super().__init__(shape=shape, **played)
        self.s_out = OutPort(shape=shape)


class Injector(Player):
    """A `Player` that also drives a bias with each step.

    Args:
        variable: the `bias_mant` of the neurons that inputs are injected into.
        bias: what these have besides, of the variable's shape, or one for all.
        played: as of a `Player`.
    """

    def __init__(self, *, variable: Var, bias: Array | int = 0, **played: str | int) -> None:
        super().__init__(shape=variable.shape, **played)
        self.proc_params["bias"] = bias
        self.state = RefPort(variable.shape)
        self.state.connect_var(variable)


class Recorder(AbstractProcess):
    """Writes what arrives while samples are presented to a file.

    Args:
        shape: of the port; maps are (columns, rows, channels).
        written: `path` of a new file, (samples, T, neurons) of `dtype`, a name of numpy's;
            `layer`, the number of the layer it listens to, counting from 0; how many `samples`
            there are, their `steps`, and the `interval` as of a `Player`.
    """

    def __init__(self, *, shape: tuple[int, ...], **written: str | int) -> None:
        super().__init__(**written)
        self.a_in = InPort(shape=shape)


class Probe(AbstractProcess):
    """Writes a variable's value after each step to a file, as a `Recorder` does.

    Args:
        variable: u or v of a layer's neurons.
    """

    def __init__(self, *, variable: Var, **written: str | int) -> None:
        super().__init__(**written)
        self.state = RefPort(variable.shape)
        self.state.connect_var(variable)


class _Source(PyLoihiProcessModel):
    """What `Player` and `Injector` share: the values of a step, as the port has them."""

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self._file = np.load(proc_params["path"], mmap_mode="r")
        self._shape = tuple(proc_params["shape"])

    def values(self) -> Int32s:
        """The present step's."""
        sample, step = divmod(self.time_step - 1, self.proc_params["interval"])
        sample += self.proc_params["first"]
        if sample >= self.proc_params["last"] or step >= self._file.shape[1]:
            return np.zeros(self._shape, np.int32)
        return self._file[sample, step].astype(np.int32).reshape(self._shape[::-1]).T


class _Writer(PyLoihiProcessModel):
    """What `Recorder` and `Probe` share: a file that grows while samples are presented."""

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self._file: BinaryIO | None = None

    def presented(self) -> bool:
        """Whether the layer's present step belongs to a sample."""
        late = self.time_step - 2 - self.proc_params["layer"]
        sample, step = divmod(late, self.proc_params["interval"])
        return 0 <= sample < self.proc_params["samples"] and step < self.proc_params["steps"]

    def write(self, values: Array) -> None:
        """Append values, maps in the order (channels, rows, columns)."""
        if self._file is None:
            # Unbuffered: Lava's processes end without closing files.
            self._file = open(self.proc_params["path"], "wb", buffering=0)  # noqa: SIM115
        self._file.write(values.T.astype(self.proc_params["dtype"]).tobytes())


@implements(proc=Player, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyPlayer(_Source):
    """Behaviour of a Player."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Send the step."""
        self.s_out.send(self.values())


@implements(proc=Injector, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyInjector(_Source):
    """Behaviour of an Injector: what it writes at the end of a step acts in the next.

    So it acts when what is sent in the step arrives behind a synapse.
    """

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Send the step."""
        self.s_out.send(self.values())

    def post_guard(self) -> bool:
        """Whether to write after this step: always."""
        return True

    def run_post_mgmt(self) -> None:
        """Write the step."""
        self.state.write(self.values() + self.proc_params["bias"])
        self.state.wait()  # else it may act one step late


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecorder(_Writer):
    """Behaviour of a Recorder."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Receive the step, and write it where it belongs to a sample."""
        values = self.a_in.recv()
        if self.presented():
            self.write(values)


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProbe(_Writer):
    """Behaviour of a Probe."""

    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def post_guard(self) -> bool:
        """Whether to read after this step."""
        return self.presented()

    def run_post_mgmt(self) -> None:
        """Read and write."""
        self.write(self.state.read())
