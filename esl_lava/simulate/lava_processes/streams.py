"""Lava Processes that stream samples from a file into a network, and its spikes into files.

Lava's own sources and sinks hold a whole run as a Var. Lava reads a Var element by element, with
one message of 12-20 us for each: for most networks this takes longer than the run itself. A
message of a port is a whole array.

Lava's compiler imports every module in the folder of a Process. This package therefore contains
only modules of Processes, without side effects. Only the process in which Lava runs imports it.

Lava's `time_step` begins at 1. A sample's step t reaches layer i of a network, counted from 0, at
`time_step` `sample * interval + t + i + 2`.
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
    """A process that sends one step of a sample in each step, and zeros between samples.

    Args:
        shape: shape of the port. Maps are (columns, rows, channels).
        played: `path` of a .npy file with (samples, T, inputs) integers; `first` and `last`, of
            which the samples `first`:`last` are sent; `interval`, the steps from the beginning of
            a sample to the beginning of the next one.
    """

    def __init__(self, *, shape: tuple[int, ...], **played: str | int) -> None:
        super().__init__(shape=shape, **played)
        self.s_out = OutPort(shape=shape)


class Injector(Player):
    """A `Player` that also adds each step to the bias of neurons.

    Args:
        variable: the `bias_mant` of the neurons that receive the injected input.
        bias: the neurons' own bias, of the variable's shape, or one value for all.
        played: parameters of a `Player`.
    """

    def __init__(self, *, variable: Var, bias: Array | int = 0, **played: str | int) -> None:
        super().__init__(shape=variable.shape, **played)
        self.proc_params["bias"] = bias
        self.state = RefPort(variable.shape)
        self.state.connect_var(variable)


class Recorder(AbstractProcess):
    """A process that writes the spikes of a layer to a file while samples are presented.

    Args:
        shape: shape of the port. Maps are (columns, rows, channels).
        path: a new file of (samples, T, neurons) values, as raw bytes without a header. Neurons of
            maps are in the order (channels, rows, columns).
        dtype: name of the numpy type of the values.
        layer: number of the recorded layer, from 0.
        samples: number of samples.
        steps: number of steps T of a sample.
        interval: as in `Player`.
    """

    def __init__(self, *, shape: tuple[int, ...], **written: str | int) -> None:
        super().__init__(**written)
        self.a_in = InPort(shape=shape)


class Probe(AbstractProcess):
    """A process that writes the value of a variable after each step to a file.

    Args:
        variable: u or v of a layer's neurons.
        written: `path` to `interval`, as in `Recorder`.
    """

    def __init__(self, *, variable: Var, **written: str | int) -> None:
        super().__init__(**written)
        self.state = RefPort(variable.shape)
        self.state.connect_var(variable)


class _Source(PyLoihiProcessModel):
    """Base of the models of `Player` and `Injector`, which provides the values of a step."""

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self._file = np.load(proc_params["path"], mmap_mode="r")
        self._shape = tuple(proc_params["shape"])

    def values(self) -> Int32s:
        """Return the values of the current step, in the shape of the port."""
        sample, step = divmod(self.time_step - 1, self.proc_params["interval"])
        sample += self.proc_params["first"]
        if sample >= self.proc_params["last"] or step >= self._file.shape[1]:
            return np.zeros(self._shape, np.int32)
        return self._file[sample, step].astype(np.int32).reshape(self._shape[::-1]).T


class _Writer(PyLoihiProcessModel):
    """Base of the models of `Recorder` and `Probe`, which writes values to a file."""

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self._file: BinaryIO | None = None

    def presented(self) -> bool:
        """Return whether the layer's current step belongs to a sample."""
        late = self.time_step - 2 - self.proc_params["layer"]
        sample, step = divmod(late, self.proc_params["interval"])
        return 0 <= sample < self.proc_params["samples"] and step < self.proc_params["steps"]

    def write(self, values: Array) -> None:
        """Append values to the file.

        Maps come as (columns, rows, channels) and are written as (channels, rows, columns).
        """
        if self._file is None:
            # The file is unbuffered, because Lava's processes end without closing files.
            self._file = open(self.proc_params["path"], "wb", buffering=0)  # noqa: SIM115
        left = memoryview(values.T.astype(self.proc_params["dtype"]).tobytes())
        try:
            while left:  # a disk that becomes full takes a part
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.proc_params["path"]) from None


@implements(proc=Player, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyPlayer(_Source):
    """The process model of `Player`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Send the values of the step."""
        self.s_out.send(self.values())


@implements(proc=Injector, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyInjector(_Source):
    """The process model of `Injector`.

    A value that it writes at the end of a step acts in the next step. Values that it sends in the
    same step then arrive behind a synapse.
    """

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Send the values of the step."""
        self.s_out.send(self.values())

    def post_guard(self) -> bool:
        """Return that the model writes after every step."""
        return True

    def run_post_mgmt(self) -> None:
        """Write the values of the step."""
        self.state.write(self.values() + self.proc_params["bias"])
        self.state.wait()  # otherwise the value may act one step late


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecorder(_Writer):
    """The process model of `Recorder`."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Receive the step, and write it if it belongs to a sample."""
        values = self.a_in.recv()
        if self.presented():
            self.write(values)


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProbe(_Writer):
    """The process model of `Probe`."""

    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def post_guard(self) -> bool:
        """Return whether the model reads after this step."""
        return self.presented()

    def run_post_mgmt(self) -> None:
        """Read the variable, and write its value to the file."""
        self.write(self.state.read())
