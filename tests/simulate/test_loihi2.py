"""Test the Loihi 2 backend up to its calls into Lava's extension, which fakes answer.

The fakes compute with the reference in plain numpy. They return the values of a chip that behaves
as Lava's CPU simulator does: each layer is one step later than the layer before.
"""

import enum
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.errors import BackendError
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Matrix,
    Network,
)
from esl_lava.simulate import loihi2
from esl_lava.simulate.result import count, decide
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate import reference


class Generation(enum.Enum):
    N3B3 = "N3B3"
    N3C1 = "N3C1"


class Port:
    """A port of a process, with its shape and the ports to which it is connected."""

    def __init__(self, owner, shape):
        self.owner = owner
        self.shape = shape
        self.to = []

    def connect(self, other):
        self.to.append(other)


class Chip:
    """The state that the fakes share: their calls and the behaviour of the chip."""

    def __init__(self):
        self.network = None
        self.calls = []
        self.hosts = []
        self.stopped = 0
        self.error = None
        self.sinks = []

    def perform(self, data, steps):
        """Run the data of the player: samples without a gap, then zeros."""
        network = self.network
        interval = self.calls[0]["reset_interval"]
        samples = (data.shape[-1] - len(network.layers)) // interval
        assert steps == data.shape[-1] == samples * interval + len(network.layers)
        played = data.T.reshape(data.shape[-1], -1)
        assert not played[samples * interval :].any()
        inputs = played[: samples * interval].reshape(samples, interval, -1)
        return reference.simulate(network, inputs)

    def late(self, values, layer, shape, steps):
        """Return (*shape, steps) values as in Lava, from (samples, T, neurons) of a layer."""
        flat = values.reshape(-1, *shape[::-1])
        seen = np.full((steps, *shape[::-1]), 1, values.dtype)  # arbitrary values before and after
        seen[layer + 1 : layer + 1 + len(flat)] = flat
        return seen.T


@pytest.fixture
def chip(monkeypatch):
    """Install fakes of the modules of Lava and its extension that the backend uses."""
    chip = Chip()

    class Block:
        def __init__(self, index, layer):
            shape = layer.shape[::-1]
            self.out = Port(("out", index), shape)
            self.neuron = types.SimpleNamespace(u=("u", index, shape), v=("v", index, shape))

    class Network_:  # noqa: N801
        def __init__(self, **options):
            chip.calls.append(options)
            chip.network = netfile.read(Path(options["net_config"]))
            first = chip.network.layers[0].inputs[0].connections
            shape = getattr(first, "in_shape", (first.n_pre,))[::-1]
            self.inp = Port("inp", shape)
            self.layers = [Block(i, layer) for i, layer in enumerate(chip.network.layers)]

        def run(self, condition, run_cfg):
            if chip.error is not None:
                raise chip.error
            chip.config = run_cfg
            result = chip.perform(chip.player.data, condition.num_steps)
            names = [layer.name for layer in chip.network.layers]
            for buffer in chip.sinks:
                (where,) = buffer.source
                index = where[1]
                buffer.seen = chip.late(
                    result.spikes[names[index]], index, buffer.shape, condition.num_steps
                )
            for probe in run_cfg.callback_fxs:
                if isinstance(probe, StateProbe):
                    variable, index, shape = probe.variable
                    values = getattr(result, variable)[names[index]]
                    series = chip.late(values, index, shape, condition.num_steps)
                    probe.time_series = series.reshape(-1, condition.num_steps)

        def stop(self):
            chip.stopped += 1

    class StateProbe:
        def __init__(self, variable):
            self.variable = variable

    class RingBufferSource:
        def __init__(self, data):
            chip.player = self
            self.data = data
            self.s_out = Port("player", data.shape[:-1])

    class RingBufferSink:
        def __init__(self, shape, buffer):
            self.shape, self.buffer = shape, buffer
            self.a_in = Port(self, shape)
            self.data = types.SimpleNamespace(get=lambda: self.seen)
            chip.sinks.append(self)

    def adapter(kind):
        class Adapter:
            def __init__(self, shape, num_message_bits=0):
                chip.calls.append({kind: shape, "num_message_bits": num_message_bits})
                self.inp = Port(self, shape)
                self.out = Port(self, shape)

        return Adapter

    class Back(adapter("NxToPyAdapter")):
        def __init__(self, shape, num_message_bits=0):
            super().__init__(shape, num_message_bits)
            self.inp.connected_from = []
            outer = self

            class Out(Port):
                def connect(self, other):
                    other.owner.source = outer.inp.connected_from

            self.out = Out(self, shape)

    def connect(self, other):
        self.to.append(other)
        if hasattr(other, "connected_from"):
            other.connected_from.append(self.owner)

    monkeypatch.setattr(Port, "connect", connect)

    def logger(name):
        return type(name, (), {"__init__": lambda self, **options: vars(self).update(options)})

    def use(kind):
        def host(*where, loihi_gen):
            if "nowhere" in where:
                raise ValueError("`ping nowhere` failed")
            chip.hosts.append((kind, *where, loihi_gen))

        return host

    def module(name, **content):
        made = types.ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, made)

    simple = types.SimpleNamespace
    for package in ("lava", "lava.lib", "lava.lib.dl", "lava.magma", "lava.magma.core"):
        module(package)
    for package in ("lava.proc", "lava.proc.embedded_io", "lava.proc.io", "lava.utils"):
        module(package)
    module("lava.lib.dl.netx", hdf5=simple(Network=Network_))
    module("lava.magma.core.run_conditions", RunSteps=lambda num_steps: simple(num_steps=num_steps))
    module(
        "lava.magma.core.run_configs",
        Loihi2HwCfg=lambda callback_fxs: simple(callback_fxs=callback_fxs),
    )
    module(
        "lava.proc.embedded_io.spike",
        NxToPyAdapter=Back,
        PyToNxAdapter=adapter("PyToNxAdapter"),
        PyToN3ConvAdapter=adapter("PyToN3ConvAdapter"),
    )
    module("lava.proc.io.source", RingBuffer=RingBufferSource)
    module("lava.proc.io.sink", RingBuffer=RingBufferSink)
    module(
        "lava.utils.loihi",
        is_installed=lambda: True,
        ChipGeneration=Generation,
        use_slurm_host=use("slurm"),
        use_ethernet_host=use("ethernet"),
    )
    module(
        "lava.utils.loihi2_profiler",
        **{name: logger(name) for name in loihi2.LOGGERS.values()},
    )
    module("lava.utils.loihi2_state_probes", StateProbe=StateProbe)
    return chip


def mixed(ends=(0, 1)) -> tuple[Network, np.ndarray]:
    """Build feature maps, then neurons, then a readout."""
    rng = np.random.default_rng(5)
    kernel = 2 * rng.integers(-30, 40, (3, 2, 3, 2))
    convolution = Convolution(kernel, (2, 4, 5), (1, 2), (1, 0))
    dense = Matrix.from_dense(2 * rng.integers(-60, 64, (6, convolution.n_post)))
    readout = Matrix.from_dense(2 * rng.integers(-60, 64, (3, 6)))
    network = a_network(
        (
            a_layer("maps", convolution, Cuba(2000, 300, 60)),
            a_layer("neurons", dense, Cuba(4096, 1000, 90), rng.integers(-20, 20, 6)),
            a_layer("readout", readout, INTEGRATOR),
        ),
        steps=6,
        input_range=ends,
    )
    inputs = (rng.random((4, 6, 40)) < 0.4).astype(np.uint8)
    return network, inputs if ends[1] == 1 else inputs.astype(np.int32) * 3


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "bits"), [((0, 1), 0), ((0, 7), 3), ((-4, 3), 3)])
def test_results_are_those_of_the_chip_with_latencies_hidden(chip, ends, bits):
    network, inputs = mixed(ends)
    ours = reference.simulate(network, inputs)
    theirs = loihi2.run(network, inputs, ("neurons",), ("maps", "readout"))
    assert ours.spikes["neurons"].any()
    assert set(theirs.spikes) == {"neurons"}
    np.testing.assert_array_equal(theirs.spikes["neurons"], ours.spikes["neurons"])
    np.testing.assert_array_equal(theirs.readout, ours.v["readout"])
    np.testing.assert_array_equal(
        theirs.decisions, decide(network.layers[-1], None, v=ours.v["readout"])
    )
    assert theirs.counts == count(network, inputs, ours.spikes)
    for name in ("maps", "readout"):
        np.testing.assert_array_equal(theirs.u[name], ours.u[name])
        np.testing.assert_array_equal(theirs.v[name], ours.v[name])
        assert theirs.v[name].dtype == np.int32
    assert chip.stopped == 1
    options = chip.calls[0]
    del options["net_config"]
    assert options == {"input_message_bits": bits, "reset_interval": 6, "reset_offset": 1}
    assert chip.calls[1] == {"PyToN3ConvAdapter": (5, 4, 2), "num_message_bits": bits}
    assert chip.player.data.shape == (5, 4, 2, 4 * 6 + 3)


def test_a_network_that_fires_to_the_end_and_begins_with_neurons(chip):
    network, _ = mixed()
    network = a_network((network.layers[1],))
    inputs = (np.random.default_rng(1).random((2, 5, network.inputs)) < 0.4).astype(np.uint8)
    ours = reference.simulate(network, inputs)
    theirs = loihi2.run(network, inputs, ("neurons",))
    np.testing.assert_array_equal(theirs.spikes["neurons"], ours.spikes["neurons"])
    np.testing.assert_array_equal(
        theirs.decisions, decide(network.layers[-1], ours.spikes["neurons"])
    )
    assert theirs.readout is None
    assert chip.calls[1] == {"PyToNxAdapter": (network.inputs,), "num_message_bits": 0}
    assert chip.config.callback_fxs == []


def test_measuring(chip):
    network, inputs = mixed()
    result, measured = loihi2.measure(network, inputs)
    assert measured.steps == 4 * 6 + 3
    assert {name: type(logger).__name__ for name, logger in measured.loggers.items()} == (
        loihi2.LOGGERS
    )
    assert measured.loggers["power"].num_steps == measured.steps
    assert set(measured.loggers.values()) < set(chip.config.callback_fxs)
    expected = reference.simulate(network, inputs).v["readout"]
    np.testing.assert_array_equal(result.decisions, decide(network.layers[-1], None, v=expected))
    with refused(BackendError, "unknown", key="quantities", value="heat") as caught:
        loihi2.measure(network, inputs, quantities=("heat",))
    assert "power, time, memory, activity" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "host"),
    [
        (None, ("slurm", None, None, Generation.N3B3)),
        (
            loihi2.Board(partition="oheogulch", generation="N3C1"),
            ("slurm", "oheogulch", None, Generation.N3C1),
        ),
        (loihi2.Board(address="10.0.0.7"), ("ethernet", "10.0.0.7", Generation.N3B3)),
    ],
)
def test_boards(chip, board, host):
    network, inputs = mixed()
    loihi2.run(network, inputs, board=board)
    assert chip.hosts == [host]


@pytest.mark.parametrize(
    ("board", "code", "fields", "detail"),
    [
        (
            loihi2.Board(address="nowhere"),
            *("not-found", {"key": "board", "value": "nowhere"}, "`ping nowhere` failed"),
        ),
        (
            loihi2.Board(generation="N9"),
            *("unknown", {"key": "generation", "value": "N9"}, "N3B3, N3C1"),
        ),
    ],
)
def test_no_such_board(chip, board, code, fields, detail):
    with refused(BackendError, code, **fields) as caught:
        loihi2.run(*mixed(), board=board)
    assert detail in str(caught.value)


def test_what_the_extension_raises_is_told(chip):
    chip.error = Exception("Partitioning could not converge")
    with refused(BackendError, "failed") as caught:
        loihi2.run(*mixed())
    assert str(caught.value).endswith("failed: Exception: Partitioning could not converge")
    assert chip.stopped == 1


@pytest.mark.parametrize("absent", ["lava", "its extension"])
def test_without_the_extension(chip, monkeypatch, absent):
    if absent == "lava":
        monkeypatch.setitem(sys.modules, "lava.utils.loihi", None)
    else:
        monkeypatch.setattr(sys.modules["lava.utils.loihi"], "is_installed", lambda: False)
    with refused(BackendError, "package", value="lava-loihi"):
        loihi2.run(*mixed())
    assert chip.calls == []


def eye(n: int) -> Matrix:
    return Matrix.from_dense(2 * np.eye(n, dtype=int) - 1)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (a_layer("a", Injection((4,)), Cuba(1, 1, 1)), "injected input"),
        (a_layer("a", eye(4), Cuba(1, 1, 1), recurrent=eye(4)), "recurrent synapses"),
        (a_layer("a", eye(4), Cuba(1, 1, 1), delays=np.ones(4, int)), "delays"),
    ],
)
def test_refused_layers(chip, layer, reason):
    with refused(BackendError, "unsupported", layer="a") as caught:
        loihi2.run(a_network((layer,)), np.ones((1, 2, 4), np.uint8))
    assert reason in str(caught.value)
    assert chip.hosts == chip.calls == []
