"""Lava's own process models, stepped here one by one, without Lava's runtime.

What computes is the code of lava-nc itself (`PyLifModelBitAcc`, `PyDenseModelBitAcc`,
`PySparseModelBitAcc`, their delayed kin, `PyConvModelFixed`), built by Lava's own
`PyProcessBuilder`; what is missing are its compiler, processes and channels. So this
says what Lava's arithmetic does with a network, several times faster than Lava does and
without its ways to hang. What the runtime adds (netx, resets, latencies) is for
`lava_cpu` to show.

A synapse model sends what it received one step earlier. Each layer runs over a whole
sample before the next begins, and so its latency, and how far a skip reaches, vanish.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np

from esl_lava.arrays import Array, Bytes, Int32s
from esl_lava.chip import LAVA_BIAS_RANGE, LAVA_SLIDING, STATE_SHIFT
from esl_lava.errors import BackendError
from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Matrix, Network
from esl_lava.simulate.result import Progress, Result, by_neuron, count, decide, decisive

WEIGHTS = (-256, 255)
"""What Lava's fully connected synapses keep of a weight of mixed sign; others it clips."""

CONVOLVED = (1 << 31) - 1
"""Lava convolves in float64; what it makes of a sum of more than 32 bits is undefined."""


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    *,
    sparse: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Simulate samples from rest, one after the other.

    Args:
        network, inputs, record, states: as every backend's `run` (`simulate`).
        sparse: use Lava's sparse synapses instead of its dense ones.
        progress: told how far the run is; layers run one after the other.

    Raises:
        BackendError: naming the layer and what of it Lava cannot express.
    """
    if reasons := (*too_wide(network, inputs), *refused(network)):
        raise BackendError("; ".join(reasons))
    _import_lava()
    samples, steps = inputs.shape[:2]
    arriving: dict[str, Array] = {INPUT: inputs}
    u, v = {}, {}
    for index, layer in enumerate(network.layers):
        last = layer is network.layers[-1]
        traced = layer.name in states or (last and decisive(layer, steps))
        shape = (samples, steps, layer.neurons)
        spikes = np.empty(shape, np.uint8)
        trace = np.empty((2, *shape) if traced else (2, samples, 0, 0), np.int32)
        stepped = _Stepped(layer, network.message_bits, sparse)
        for sample in range(samples):
            sources = {name: array[sample] for name, array in arriving.items()}
            stepped.run(sources, spikes[sample], trace[:, sample])
            if progress is not None:
                progress((index * samples + sample + 1) // len(network.layers), samples)
        if layer.name in states:
            u[layer.name], v[layer.name] = trace
        arriving[layer.name] = spikes
    firing = {layer.name: arriving[layer.name] for layer in network.layers if layer.neuron.fires}
    return Result(
        spikes={name: firing[name] for name in record},
        readout=None if network.readout is None else trace[1],
        decisions=decide(layer, spikes, *trace),
        counts=count(network, inputs, firing),
        fired=by_neuron(firing),
        u=u,
        v=v,
    )


def _import_lava() -> None:
    """Import Lava's models; undo what that does to every user of multiprocessing.

    The import sets the start method "fork" for the whole process, and fails where a
    program has chosen one before.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        import lava.proc.conv.models
        import lava.proc.dense.models
        import lava.proc.lif.models
        import lava.proc.sparse.models  # noqa: F401
    finally:
        multiprocessing.set_start_method(chosen, force=True)


def too_wide(network: Network, inputs: Array) -> Iterator[str]:
    """What of a network Lava, with its runtime or without, would wrap without a word."""
    largest = int(np.abs(inputs, dtype=np.int64).max())
    for layer in network.layers:
        yield from _wide_bias(layer, inputs)
        for name, given in layer.named():
            if given.connections.shares:
                reach = largest if given.source == INPUT else 1
                for reason in _wide_convolution(given.connections, reach):
                    yield f"layer {layer.name}: {_of_input(name)}{reason}"


def _of_input(name: str) -> str:
    """The beginning of a sentence about an input whose weight is called `name`."""
    own = name.removesuffix("weight")
    return own if own != name else f"{name.removeprefix('weight of the ')}: "


def _wide_bias(layer: Layer, inputs: Array) -> Iterator[str]:
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    low, high = int(bias.min()), int(bias.max())
    if layer.inputs[0].connections.injects:
        driven = bias + np.stack([inputs.min(axis=(0, 1)), inputs.max(axis=(0, 1))])
        low, high = min(low, int(driven.min())), max(high, int(driven.max()))
    least, most = LAVA_BIAS_RANGE
    for value in sorted({low, high}):
        if not least <= value <= most:
            yield (
                f"layer {layer.name}: Lava keeps a bias within {least}..{most}, "
                f"and would wrap {value}"
            )


def _wide_convolution(part: Connections, largest: int) -> Iterator[str]:
    """What Lava would make another number of, where inputs are at most `largest` in size."""
    widest = max(part.sliding.values())
    if widest > LAVA_SLIDING:
        yield (
            f"Lava keeps the numbers of a convolution up to {LAVA_SLIDING}, and would wrap {widest}"
        )
    negative, positive = part.signed_sums()
    reached = largest * int((positive - negative).max())
    if reached > CONVOLVED:
        yield (
            f"Lava has no number for sums of a convolution beyond {CONVOLVED}, and weights and "
            f"inputs could reach {reached}"
        )


def refused(network: Network) -> Iterator[str]:
    """What else of a network the models would take for something else, or have no place for."""
    for layer in network.layers:
        yield from _refused(layer)


def _refused(layer: Layer) -> Iterator[str]:
    for name, given in layer.named():
        if given.connections.injects and given.delays is not None:
            yield f"layer {layer.name}: Lava delays what synapses bring, not injected input"
        if given.connections.shares and given.delays is None:
            continue  # of a kernel Lava keeps every weight
        weights = given.connections.weights
        for weight in sorted({int(weights.min()), int(weights.max())} if weights.size else ()):
            if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
                yield (
                    f"layer {layer.name}: {_of_input(name)}Lava's fully connected synapses keep "
                    f"weights within {WEIGHTS[0]}..{WEIGHTS[1]}, and would clip {weight}"
                )


class _Wire:
    """Stands for a channel: holds the last message, in the type Lava's ports send.

    An in-port is stood for by a namespace: what its `recv` hands over is found when a model
    asks for it.
    """

    message: Int32s

    def send(self, data: Array) -> None:
        self.message = np.asarray(data).astype(np.int32)


def _built(model: type, parameters: Mapping[str, Any], **variables: Any) -> Any:
    """A process model as Lava's runtime would build it, ports excepted."""
    from lava.magma.compiler.builders.py_builder import PyProcessBuilder
    from lava.magma.compiler.utils import VarInitializer

    builder = PyProcessBuilder(model, 0, dict(parameters))
    builder.set_variables(
        [
            VarInitializer(name, np.shape(value), value, number)
            for number, (name, value) in enumerate(variables.items())
        ]
    )
    return builder.build()


class _Synapse:
    """A synapse model between flat arrays, fed by the layer `source`: it sends a step late."""

    def __init__(self, source: str, model: Any, in_shape: tuple[int, ...]) -> None:
        self.source = source
        self._sent = _Wire()
        self._model = model
        self._in_shape = in_shape
        model.a_out = self._sent

    def reset(self) -> None:
        """Forget what is under way."""
        for name in ("a_buff", "a_buf"):
            if hasattr(self._model, name):
                getattr(self._model, name)[...] = 0

    def step(self, received: Callable[[], Array]) -> None:
        """Send, then receive what the function returns, a flat array."""
        # Lava counts maps (column, row, channel); reversing all axes leads there and back.
        self._model.s_in = SimpleNamespace(
            recv=lambda: received().astype(np.int32).reshape(self._in_shape).T
        )
        self._model.run_spk()

    def output(self) -> Int32s:
        """(neurons,) what was sent in the last step."""
        return self._sent.message.T.ravel()


def _synapse(given: Input, bits: int, sparse: bool) -> _Synapse:
    """The synapse model for an input whose values are graded in `bits`, or spikes."""
    connections = given.connections
    if isinstance(connections, Convolution) and given.delays is None:
        model = _convolution(connections, bits)
        return _Synapse(given.source, model, connections.in_shape)
    # Lava has no delayed convolution.
    matrix = _matrix(connections.unrolled(), given.delays, bits, sparse or connections.shares)
    return _Synapse(given.source, matrix, (connections.n_pre,))


def _matrix(c: Matrix, delays: Int32s | None, bits: int, sparse: bool) -> Any:
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
    from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc

    shared = {"weights": stored(c, c.weights, sparse), "num_message_bits": np.array([bits])}
    if delays is None:
        model = PySparseModelBitAcc if sparse else PyDenseModelBitAcc
        return _built(model, exact_weights(), a_buff=np.zeros(c.n_post), **shared)
    late = stored(c, delays[c.rows()], sparse)
    model = PyDelaySparseModelBitAcc if sparse else PyDelayDenseModelBitAcc
    under_way = np.zeros((c.n_post, int(delays.max()) + 1))
    return _built(model, exact_weights(), a_buff=under_way, delays=late, **shared)


def exact_weights() -> dict[str, Any]:
    """How Lava's fully connected synapses are told to keep every weight of `WEIGHTS`.

    Nine bits of mixed sign truncate nothing; what netx finds for odd weights.
    """
    from lava.utils.weightutils import SignMode

    return {"sign_mode": SignMode.MIXED, "num_weight_bits": 9, "weight_exp": 0}


def stored(c: Matrix, values: Array, sparse: bool) -> Any:
    """(n_post, n_pre) values of the synapses as Lava takes them, an array or a csr_matrix.

    Args:
        values: (weights,) one for each position of the matrix; those of weight 0 are left out.
    """
    from scipy.sparse import csr_matrix

    present = c.weights != 0
    places = (c.rows()[present], c.indices[present])
    matrix = csr_matrix((values[present], places), (c.n_post, c.n_pre), dtype=np.int32)
    return matrix if sparse else matrix.toarray()


def _convolution(c: Convolution, bits: int) -> Any:
    from lava.proc.conv.models import PyConvModelFixed

    slid = slid_in_lava(c)
    return _built(
        PyConvModelFixed,
        {},
        kernel_size=np.array(slid["weight"].shape[1:3]),
        num_message_bits=np.array([bits]),
        weight_exp=np.array([0]),
        num_weight_bits=np.array([8]),
        a_buf=np.zeros(c.out_shape[::-1]),
        **(slid | {"groups": np.array([c.groups])}),
    )


def slid_in_lava(c: Convolution) -> dict[str, Any]:
    """A kernel and how it slides, by the names Lava's `Conv` and its models have for them.

    Lava convolves maps of (columns, rows, channels); netx turns torch's kernels over
    (lava/lib/dl/netx/hdf5.py, create_conv).
    """
    return {
        "weight": c.kernel[:, :, ::-1, ::-1].transpose(0, 3, 2, 1),
        "stride": np.array(c.stride[::-1]),
        "padding": np.array(c.padding[::-1]),
        "dilation": np.array(c.dilation[::-1]),
        "groups": c.groups,
    }


def neuron_in_lava(layer: Layer) -> dict[str, Array]:
    """(neurons,) parameters of a layer's neurons, by Lava's names."""
    return {
        "du": layer.parameter("current_decay") - 1,  # the models add 1
        "dv": layer.parameter("voltage_decay"),
        "vth": layer.parameter("threshold"),
        "bias_mant": np.zeros(layer.neurons, np.int64) if layer.bias is None else layer.bias,
        "bias_exp": np.full(layer.neurons, STATE_SHIFT),
    }


def _neurons(layer: Layer) -> Any:
    """The model of a layer's neurons: Lava's, or ours with a refractory period."""
    from lava.proc.lif.models import PyLifModelBitAcc

    rest = np.zeros(layer.neurons)
    variables = {"u": rest, "v": rest, **neuron_in_lava(layer)}
    if not layer.neuron.refractory:
        return _built(PyLifModelBitAcc, {}, **variables)
    from esl_lava.simulate.lava_processes.neurons import PyRefractoryLIFReset

    parameters = {"refractory": layer.neuron.refractory, "reset_interval": 2, "reset_offset": 0}
    model = _built(PyRefractoryLIFReset, parameters, waiting=rest, **variables)
    model.time_step = 1  # where its clock stays: to reset is up to `_Stepped.run`
    return model


class _Stepped:
    """A layer as Lava's models: synapses into one neuron port, and the neurons."""

    def __init__(self, layer: Layer, message_bits: int, sparse: bool) -> None:
        def built(given: Input) -> _Synapse:
            return _synapse(given, message_bits if given.source == INPUT else 0, sparse)

        injected = [given.source for given in layer.feeding if given.connections.injects]
        self._injected = injected[0] if injected else None
        # In netx's order: what comes from further back is connected first.
        self._synapses = [
            built(given) for given in reversed(layer.feeding) if not given.connections.injects
        ]
        self._recurrent = None if layer.recurrent is None else built(layer.recurrent)
        self._all = [*self._synapses, *filter(None, [self._recurrent])]
        self._bias = np.zeros(layer.neurons, np.int64) if layer.bias is None else layer.bias
        self._spikes = _Wire()
        self._neurons = _neurons(layer)
        self._neurons.a_in = SimpleNamespace(recv=self._summed)
        self._neurons.s_out = self._spikes

    def run(self, sources: Mapping[str, Array], spikes: Bytes, trace: Array) -> None:
        """Run a sample.

        Args:
            sources: name -> (T, neurons) of all that is before this layer.
            spikes: (T, neurons), to be filled.
            trace: (2, T, neurons), to be filled with u and v, or with nothing in it.
        """
        for synapse in self._all:
            synapse.reset()
        for state in ("u", "v", "waiting"):
            if hasattr(self._neurons, state):
                getattr(self._neurons, state)[:] = 0
        steps = len(spikes)
        for t in range(steps + 1):
            for synapse in self._synapses:
                source = sources[synapse.source]
                arriving = source[t] if t < steps else np.zeros_like(source[0])
                synapse.step(lambda arriving=arriving: arriving)  # type: ignore[misc]
            if t == 0:  # nothing has passed a synapse yet
                continue
            if self._injected is not None:
                self._neurons.bias_mant[:] = self._bias + sources[self._injected][t - 1]
            if self._recurrent is None:
                self._fire()
            else:  # it sends before, and receives after the neurons have fired
                self._recurrent.step(self._fire)
            spikes[t - 1] = self._spikes.message
            if trace.shape[1]:
                trace[:, t - 1] = self._neurons.u, self._neurons.v

    def _summed(self) -> Array:
        """What an in-port with several synapses hands over: their sum, element by element."""
        sent = (synapse.output() for synapse in self._all)
        return reduce(np.add, sent, np.zeros(self._bias.shape, np.int16))

    def _fire(self) -> Int32s:
        self._neurons.run_spk()
        return self._spikes.message
