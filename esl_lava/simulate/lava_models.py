"""Run Lava's own process models step by step, without Lava's runtime.

The code of lava-nc itself computes (`PyLifModelBitAcc`, `PyDenseModelBitAcc`,
`PySparseModelBitAcc`, their variants with delays, `PyConvModelFixed`). Lava's own
`PyProcessBuilder` builds the models. Lava's compiler, processes and channels are not used. This
shows the result of Lava's arithmetic, several times faster than Lava, and it cannot hang. It does
not test netx, resets and latencies, which `lava_cpu` tests.

A synapse model sends in a step the sum of the spikes that it received one step earlier. Each layer
runs over a whole sample before the next layer begins, so latencies and delay lines do not matter.
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
from esl_lava.errors import BackendError, Fault
from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Matrix, Network
from esl_lava.simulate.result import Progress, Result, by_neuron, count, decide, deciding_states

WEIGHTS = (-256, 255)
"""The range of weights of mixed sign in Lava's fully connected synapses. Lava clips the others."""

CONVOLVED = (1 << 31) - 1
"""The largest sum of a convolution. Lava sums in float64; larger sums do not fit 32 bits."""


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    *,
    sparse: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Simulate samples one after the other. Every sample starts from rest.

    Args:
        network, inputs, record, states: as in every backend's `run` (`simulate`).
        sparse: whether to use Lava's sparse synapses instead of its dense ones.
        progress: a function that is called after each sample of each layer. As layers run one after
            the other, its number of finished samples is the share of the work that is done.

    Raises:
        BackendError: if Lava cannot express a layer, or would wrap or clip one of its numbers.
    """
    if faults := [*range_faults(network, inputs), *model_faults(network)]:
        raise BackendError.of(faults)
    _import_lava()
    samples, steps = inputs.shape[:2]
    arriving: dict[str, Array] = {INPUT: inputs}
    u, v = {}, {}
    for index, layer in enumerate(network.layers):
        last = layer is network.layers[-1]
        traced = layer.name in states or (last and deciding_states(layer, steps))
        shape = (samples, steps, layer.neurons)
        spikes = np.empty(shape, np.uint8)
        trace = np.empty((2, *shape) if traced else (2, samples, 0, 0), np.int32)
        models = _LayerModels(layer, network.message_bits, sparse)
        for sample in range(samples):
            sources = {name: array[sample] for name, array in arriving.items()}
            models.run(sources, spikes[sample], trace[:, sample])
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
    """Import Lava's models, and leave the start method of multiprocessing as it was.

    Lava's import sets the start method "fork" for the whole process, and fails if a method is
    chosen already. Therefore this function clears the method before the import.
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


def range_faults(network: Network, inputs: Array) -> Iterator[Fault]:
    """Yield a fault for each number that Lava would wrap silently, with or without its runtime."""
    largest = int(np.abs(inputs, dtype=np.int64).max())
    for layer in network.layers:
        yield from _bias_faults(layer, inputs)
        for name, incoming in layer.named():
            if incoming.connections.shares:
                reach = largest if incoming.source == INPUT else 1
                place = f"layer {layer.name}: {_input_prefix(name)}"
                yield from _convolution_faults(incoming.connections, reach, place, layer.name)


def _input_prefix(weight_name: str) -> str:
    """Return the prefix of a sentence about an input, from the name of its weights."""
    if weight_name == "weight":
        return ""
    if weight_name == "recurrent weight":
        return "recurrent input: "
    return weight_name.removeprefix("weight of the ") + ": "


def _bias_faults(layer: Layer, inputs: Array) -> Iterator[Fault]:
    """Yield a fault if the least or the largest bias, with injected input, exceeds Lava's range."""
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    low, high = int(bias.min()), int(bias.max())
    if layer.inputs[0].connections.injects:
        driven = bias + np.stack([inputs.min(axis=(0, 1)), inputs.max(axis=(0, 1))])
        low, high = min(low, int(driven.min())), max(high, int(driven.max()))
    least, most = LAVA_BIAS_RANGE
    for value in sorted({low, high}):
        if not least <= value <= most:
            yield Fault(
                f"layer {layer.name}: Lava keeps a bias within {least}..{most} "
                f"and would wrap {value}",
                "range",
                key="bias",
                value=value,
                limit=least if value < least else most,
                layer=layer.name,
            )


def _convolution_faults(part: Connections, largest: int, place: str, layer: str) -> Iterator[Fault]:
    """Yield a fault for each number of a convolution that Lava would change.

    Args:
        part: the convolution.
        largest: the largest absolute value of its inputs.
        place: the beginning of a sentence.
        layer: name of the layer.
    """
    key, value = max(part.sliding.items(), key=lambda item: item[1])
    if value > LAVA_SLIDING:
        what = "kernel size" if key == "kernel" else key
        yield Fault(
            f"{place}Lava keeps the {what} of a convolution up to {LAVA_SLIDING} "
            f"and would wrap {value}",
            "range",
            key=key,
            value=value,
            limit=LAVA_SLIDING,
            layer=layer,
        )
    negative, positive = part.signed_sums()
    reached = largest * int((positive - negative).max())
    if reached > CONVOLVED:
        yield Fault(
            f"{place}Lava cannot represent sums of a convolution beyond {CONVOLVED}, but these "
            f"weights and inputs could reach {reached}",
            "range",
            value=reached,
            limit=CONVOLVED,
            layer=layer,
        )


def model_faults(network: Network) -> Iterator[Fault]:
    """Yield a fault for each part that Lava's process models would change or cannot express."""
    for layer in network.layers:
        yield from _model_faults(layer)


def _model_faults(layer: Layer) -> Iterator[Fault]:
    for name, incoming in layer.named():
        if incoming.connections.injects and incoming.delays is not None:
            yield Fault(
                f"layer {layer.name}: Lava cannot delay injected input, only spikes of synapses",
                "unsupported",
                layer=layer.name,
            )
        if incoming.connections.shares and incoming.delays is None:
            continue  # Lava keeps every weight of a kernel
        weights = incoming.connections.weights
        for weight in sorted({int(weights.min()), int(weights.max())} if weights.size else ()):
            if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
                yield Fault(
                    f"layer {layer.name}: {_input_prefix(name)}Lava's fully connected synapses "
                    f"keep a weight within {WEIGHTS[0]}..{WEIGHTS[1]} and would clip {weight}",
                    "range",
                    key="weight",
                    value=weight,
                    limit=WEIGHTS[0] if weight < WEIGHTS[0] else WEIGHTS[1],
                    layer=layer.name,
                )


class _Wire:
    """A replacement for a channel. It holds the last message, in the type of Lava's ports.

    A namespace replaces an in-port. Its `recv` computes the message when a model asks for it.
    """

    message: Int32s

    def send(self, data: Array) -> None:
        self.message = np.asarray(data).astype(np.int32)


def _build(model: type, parameters: Mapping[str, Any], **variables: Any) -> Any:
    """Build a process model as Lava's runtime does, but without ports."""
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
    """A synapse model between flat arrays. It reads the layer `source` and sends one step late."""

    def __init__(self, source: str, model: Any, in_shape: tuple[int, ...]) -> None:
        self.source = source
        self._sent = _Wire()
        self._model = model
        self._in_shape = in_shape
        model.a_out = self._sent

    def reset(self) -> None:
        """Clear the spikes that have not arrived yet."""
        for name in ("a_buff", "a_buf"):
            if hasattr(self._model, name):
                getattr(self._model, name)[...] = 0

    def step(self, received: Callable[[], Array]) -> None:
        """Send, then receive the flat array that the function returns."""
        # Lava's maps are (column, row, channel): transposing reverses the axes, and again back.
        self._model.s_in = SimpleNamespace(
            recv=lambda: received().astype(np.int32).reshape(self._in_shape).T
        )
        self._model.run_spk()

    def output(self) -> Int32s:
        """Return (neurons,) the values sent in the last step."""
        return self._sent.message.T.ravel()


def _synapse(incoming: Input, bits: int, sparse: bool) -> _Synapse:
    """Build the synapse model of an input of values of `bits` bits; 0 bits: binary spikes."""
    connections = incoming.connections
    if isinstance(connections, Convolution) and incoming.delays is None:
        model = _convolution(connections, bits)
        return _Synapse(incoming.source, model, connections.in_shape)
    # Lava has no convolution with delays.
    matrix = _matrix(connections.unrolled(), incoming.delays, bits, sparse or connections.shares)
    return _Synapse(incoming.source, matrix, (connections.n_pre,))


def _matrix(c: Matrix, delays: Int32s | None, bits: int, sparse: bool) -> Any:
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
    from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc

    shared = {"weights": matrix_in_lava(c, c.weights, sparse), "num_message_bits": np.array([bits])}
    if delays is None:
        model = PySparseModelBitAcc if sparse else PyDenseModelBitAcc
        return _build(model, exact_weights(), a_buff=np.zeros(c.n_post), **shared)
    late = matrix_in_lava(c, delays[c.rows()], sparse)
    model = PyDelaySparseModelBitAcc if sparse else PyDelayDenseModelBitAcc
    buffer = np.zeros((c.n_post, int(delays.max()) + 1))
    return _build(model, exact_weights(), a_buff=buffer, delays=late, **shared)


def exact_weights() -> dict[str, Any]:
    """Return the parameters with which Lava's fully connected synapses keep weights in `WEIGHTS`.

    Nine bits of mixed sign truncate no weight.
    """
    from lava.utils.weightutils import SignMode

    return {"sign_mode": SignMode.MIXED, "num_weight_bits": 9, "weight_exp": 0}


def matrix_in_lava(c: Matrix, values: Array, sparse: bool) -> Any:
    """Return (n_post, n_pre) values of the synapses as Lava takes them.

    Args:
        c: the connections.
        values: (weights,) one value for each weight. Values of weights that are 0 are left out.
        sparse: whether to return a csr_matrix in place of an array.
    """
    from scipy.sparse import csr_matrix

    present = c.weights != 0
    places = (c.rows()[present], c.indices[present])
    matrix = csr_matrix((values[present], places), (c.n_post, c.n_pre), dtype=np.int32)
    return matrix if sparse else matrix.toarray()


def _convolution(c: Convolution, bits: int) -> Any:
    from lava.proc.conv.models import PyConvModelFixed

    parameters = kernel_in_lava(c)
    return _build(
        PyConvModelFixed,
        {},
        kernel_size=np.array(parameters["weight"].shape[1:3]),
        num_message_bits=np.array([bits]),
        weight_exp=np.array([0]),
        num_weight_bits=np.array([8]),
        a_buf=np.zeros(c.out_shape[::-1]),
        **(parameters | {"groups": np.array([c.groups])}),
    )


def kernel_in_lava(c: Convolution) -> dict[str, Any]:
    """Return a kernel and its geometry under the parameter names of Lava's `Conv`.

    Lava convolves maps of (columns, rows, channels). netx flips torch's kernels
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
    """Return the (neurons,) parameters of a layer's neurons under Lava's names."""
    return {
        "du": layer.parameter("current_decay") - 1,  # Lava's models add 1
        "dv": layer.parameter("voltage_decay"),
        "vth": layer.parameter("threshold"),
        "bias_mant": np.zeros(layer.neurons, np.int64) if layer.bias is None else layer.bias,
        "bias_exp": np.full(layer.neurons, STATE_SHIFT),
    }


def _neurons(layer: Layer) -> Any:
    """Build the model of a layer's neurons: Lava's, or esl-lava's with a refractory period."""
    from lava.proc.lif.models import PyLifModelBitAcc

    rest = np.zeros(layer.neurons)
    variables = {"u": rest, "v": rest, **neuron_in_lava(layer)}
    if not layer.neuron.refractory:
        return _build(PyLifModelBitAcc, {}, **variables)
    from esl_lava.simulate.lava_processes.neurons import PyRefractoryLIFReset

    parameters = {"refractory": layer.neuron.refractory, "reset_interval": 2, "reset_offset": 0}
    model = _build(PyRefractoryLIFReset, parameters, waiting=rest, **variables)
    model.time_step = 1  # the clock stands still: `_LayerModels.run` resets
    return model


class _LayerModels:
    """The models of a layer: its neurons, and synapses that send to one port of the neurons."""

    def __init__(self, layer: Layer, message_bits: int, sparse: bool) -> None:
        def build(incoming: Input) -> _Synapse:
            return _synapse(incoming, message_bits if incoming.source == INPUT else 0, sparse)

        injected = [one.source for one in layer.feedforward_inputs if one.connections.injects]
        self._injected = injected[0] if injected else None
        # In netx's order: the farthest source is connected first.
        self._synapses = [
            build(one) for one in reversed(layer.feedforward_inputs) if not one.connections.injects
        ]
        self._recurrent = None if layer.recurrent is None else build(layer.recurrent)
        self._all = [*self._synapses, *filter(None, [self._recurrent])]
        self._bias = np.zeros(layer.neurons, np.int64) if layer.bias is None else layer.bias
        self._spikes = _Wire()
        self._neurons = _neurons(layer)
        self._neurons.a_in = SimpleNamespace(recv=self._sum)
        self._neurons.s_out = self._spikes

    def run(self, sources: Mapping[str, Array], spikes: Bytes, trace: Array) -> None:
        """Run a sample.

        Args:
            sources: name -> (T, neurons) spikes of every earlier layer and the input.
            spikes: (T, neurons) array for the spikes of this layer.
            trace: (2, T, neurons) array for u and v, or an array with T = 0.
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
            if t == 0:  # no spike has passed a synapse yet
                continue
            if self._injected is not None:
                self._neurons.bias_mant[:] = self._bias + sources[self._injected][t - 1]
            if self._recurrent is None:
                self._fire()
            else:  # it sends before the neurons fire, and receives afterwards
                self._recurrent.step(self._fire)
            spikes[t - 1] = self._spikes.message
            if trace.shape[1]:
                trace[:, t - 1] = self._neurons.u, self._neurons.v

    def _sum(self) -> Array:
        """Return the sum of all synapses, as an in-port with several sources receives it."""
        sent = (synapse.output() for synapse in self._all)
        return reduce(np.add, sent, np.zeros(self._bias.shape, np.int16))

    def _fire(self) -> Int32s:
        self._neurons.run_spk()
        return self._spikes.message
