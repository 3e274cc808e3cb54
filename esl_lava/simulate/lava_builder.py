"""Build an integer network from Lava's processes if netx cannot build it.

The processes are those that netx connects: a synapse process for each input of a layer that is not
injected (`Conv`, `Dense`, `Sparse` and the two with delays), and `LIFReset` neurons that are reset
when a sample's first step reaches them. This module adds what netx lacks (`netfile.netx_refusals`):
above all several inputs of a layer, whose values its port adds, and neurons that pause after a
spike (`lava_processes/neurons.py`).

Time runs as in netx. Layer i, counted from 0, processes a step of a sample i + 1 steps after the
input sends it, because each synapse takes one step. Spikes from an earlier layer j (the input is
layer -1) to layer i pass a delay line (`lava_processes/delays.py`) of the remaining i - j - 1
steps. All inputs from earlier layers therefore bring the same step of the same sample. A layer's
own spikes come back one step later.

Neurons are flat here, in the order of esl-lava, so that a kernel takes them in any shape. In netx
they are (columns, rows, channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Network
from esl_lava.simulate.lava_models import (
    exact_weights,
    kernel_in_lava,
    matrix_in_lava,
    neuron_in_lava,
)


@dataclass(frozen=True)
class Group:
    """The processes of a layer.

    Attributes:
        neurons: the neuron process, with the variables u and v.
        spikes: the port that sends the spikes.
        synapses: the synapse processes of its inputs.
    """

    neurons: Any
    spikes: Any
    synapses: tuple[Any, ...]


def build(network: Network, player: dict[str, Any], sparse: bool) -> list[Group]:
    """Build and connect the processes of a network, its input and its resets.

    Args:
        network: a network without `lava_models.model_faults`.
        player: the parameters of a `streams.Player`, without its shape.
        sparse: whether to use Lava's sparse synapses in fully connected layers.

    Returns:
        One group for each layer. All processes are connected with each other.
    """
    interval = player["interval"]
    neurons = [_neurons(layer, index, interval) for index, layer in enumerate(network.layers)]
    ports = _SpikePorts(_source(network, neurons[0], player))
    groups = []
    for index, layer in enumerate(network.layers):
        ports.by_source[layer.name] = neurons[index].s_out
        synapses = []
        for incoming in layer.inputs:
            if incoming.connections.injects:
                continue
            bits = network.message_bits if incoming.source == INPUT else 0
            synapse = _synapse(incoming, bits, sparse)
            port = ports.delayed(index, incoming.source)
            _connect(port, synapse, neurons[index], incoming.connections)
            # Spikes that have not arrived when a sample ends must not reach the next sample. A
            # synapse with delays is still needed in the step before the one that brings it the
            # next sample. Hence its earlier reset and the blank step between samples.
            if incoming is layer.recurrent:
                connect_reset(synapse, index, interval)
            elif incoming.delays is not None:
                connect_reset(synapse, index - 1, interval)
            synapses.append(synapse)
        groups.append(Group(neurons[index], neurons[index].s_out, tuple(synapses)))
    return groups


class _SpikePorts:
    """The ports that send spikes: those of the input, which is layer -1, and of each layer.

    Attributes:
        by_source: name of the source -> its port, in order.
    """

    def __init__(self, input_port: Any) -> None:
        self.by_source = {INPUT: input_port}
        self._delayed: dict[tuple[str, int], Any] = {}

    def delayed(self, index: int, source: str) -> Any:
        """Return the port, with a delay line where needed, from a source to layer `index`."""
        from esl_lava.simulate.lava_processes.delays import DelayLine

        steps = index - list(self.by_source).index(source)
        if steps <= 0:  # from the layer before, or the layer itself
            return self.by_source[source]
        if (source, steps) not in self._delayed:
            line = DelayLine(shape=self.by_source[source].shape, steps=steps)
            self.by_source[source].connect(line.s_in)
            self._delayed[source, steps] = line.s_out
        return self._delayed[source, steps]


def _source(network: Network, neurons: Any, player: dict[str, Any]) -> Any:
    """Build the source of samples and return its port. It injects them if the first layer asks."""
    from esl_lava.simulate.lava_processes.streams import Injector, Player

    if not network.first.injects:
        return Player(shape=(network.inputs,), **player).s_out
    bias = neuron_in_lava(network.layers[0])["bias_mant"]
    return Injector(variable=neurons.bias_mant, bias=bias, **player).s_out


def _neurons(layer: Layer, index: int, interval: int) -> Any:
    """Build the neurons of a layer, which are reset when a sample's first step reaches them."""
    from lava.proc.lif.process import LIFReset

    from esl_lava.simulate.lava_processes.neurons import RefractoryLIFReset

    parameters: dict[str, Any] = {
        "shape": (layer.neurons,),
        "reset_interval": interval,
        "reset_offset": index + 2,  # Lava's time begins at 1, and a synapse takes a step
        **neuron_in_lava(layer),
    }
    if layer.neuron.refractory:
        return RefractoryLIFReset(refractory=layer.neuron.refractory, **parameters)
    return LIFReset(**parameters)


def _synapse(incoming: Input, bits: int, sparse: bool) -> Any:
    """Build the synapse process of an input of values of `bits` bits; 0 bits: binary spikes."""
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.sparse.process import DelaySparse, Sparse

    c = incoming.connections
    if isinstance(c, Convolution) and incoming.delays is None:
        return Conv(input_shape=c.in_shape[::-1], num_message_bits=bits, **kernel_in_lava(c))
    matrix, sparse = c.unrolled(), sparse or c.shares  # Lava has no convolution with delays
    shared = {
        "weights": matrix_in_lava(matrix, matrix.weights, sparse),
        "num_message_bits": bits,
        **exact_weights(),
    }
    if incoming.delays is None:
        return (Sparse if sparse else Dense)(**shared)
    delays = matrix_in_lava(matrix, incoming.delays[matrix.rows()], sparse).astype(int)
    return (DelaySparse if sparse else DelayDense)(delays=delays, **shared)


def _connect(source: Any, synapse: Any, neurons: Any, c: Connections) -> None:
    """Connect a flat port with a synapse, and the synapse with flat neurons."""
    if len(synapse.s_in.shape) == 3:  # Lava's maps are (columns, rows, channels)
        source.reshape(c.in_shape).transpose().connect(synapse.s_in)
        synapse.a_out.transpose().flatten().connect(neurons.a_in)
    else:
        source.connect(synapse.s_in)
        synapse.a_out.connect(neurons.a_in)


def connect_reset(synapse: Any, step: int, interval: int) -> None:
    """Clear the buffer of a synapse at the end of step `step` of every interval, counted from 0."""
    from lava.proc.io.reset import Reset

    buffer = synapse.a_buff if hasattr(synapse, "a_buff") else synapse.a_buf
    Reset(interval=interval, offset=step).connect_var(buffer)
