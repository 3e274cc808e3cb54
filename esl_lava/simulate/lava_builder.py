"""An integer network as Lava's processes, where netx cannot build it.

The processes are those that netx connects: a synapse process for each input of a layer
(`Conv`, `Dense`, `Sparse` and the two with delays), `LIFReset` neurons that are reset when a
sample's first step reaches them. What netx lacks is here: several synapses into the neurons of
a layer, whose port adds what arrives, from any layer before, and neurons that pause after a
spike (`lava_processes/neurons.py`).

Time is as in netx: the layer with number i, counting from 0, takes a sample's step i + 1 steps
after it was sent, as each synapse takes one. What comes to layer i from layer j, or from the
input, number -1, passes a delay line (`lava_processes/delays.py`) of the i - j - 1 steps that
are left: all inputs of a layer bring the same step of the same sample.

Neurons are flat here, in our order, so that a kernel takes them in any shape; netx has them as
(columns, rows, channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Network
from esl_lava.simulate.lava_models import exact_weights, neuron_in_lava, slid_in_lava, stored


@dataclass(frozen=True)
class Group:
    """The processes of a layer.

    Attributes:
        neurons: with the variables u and v.
        spikes: the port that sends them.
        synapses: the processes that bring its inputs.
    """

    neurons: Any
    spikes: Any
    synapses: tuple[Any, ...]


def build(network: Network, played: dict[str, Any], sparse: bool) -> list[Group]:
    """Build and connect the processes of a network, what plays its input and resets included.

    Args:
        network: what `lava_models.refused` has nothing against.
        played: the parameters of a `streams.Player`, shape excepted.
        sparse: use Lava's sparse synapses in fully connected layers.

    Returns:
        One for each layer. Every process can be reached from every other.
    """
    interval = played["interval"]
    neurons = [_neurons(layer, index, interval) for index, layer in enumerate(network.layers)]
    sent = _Sent(_source(network, neurons[0], played))
    groups = []
    for index, layer in enumerate(network.layers):
        sent.by[layer.name] = neurons[index].s_out
        synapses = []
        for given in layer.inputs:
            if given.connections.injects:
                continue
            synapse = _synapse(given, network.message_bits if given.source == INPUT else 0, sparse)
            _connect(sent.to(index, given.source), synapse, neurons[index], given.connections)
            # What is under way when a sample ends must not reach the next. A synapse with delays
            # is still needed in the step before the one that brings the next to it.
            if given is layer.recurrent:
                forget(synapse, index, interval)
            elif given.delays is not None:
                forget(synapse, index - 1, interval)
            synapses.append(synapse)
        groups.append(Group(neurons[index], neurons[index].s_out, tuple(synapses)))
    return groups


class _Sent:
    """Where spikes are sent, each layer's and, as that of a layer with number -1, the input.

    Attributes:
        by: the port of each source, by its name, in order.
    """

    def __init__(self, played: Any) -> None:
        self.by = {INPUT: played}
        self._late: dict[tuple[str, int], Any] = {}

    def to(self, index: int, source: str) -> Any:
        """The port from which a layer's synapses take what a source sends."""
        from esl_lava.simulate.lava_processes.delays import DelayLine

        steps = index - list(self.by).index(source)
        if steps <= 0:  # from the layer before, or the layer itself
            return self.by[source]
        if (source, steps) not in self._late:
            line = DelayLine(shape=self.by[source].shape, steps=steps)
            self.by[source].connect(line.s_in)
            self._late[source, steps] = line.s_out
        return self._late[source, steps]


def _source(network: Network, neurons: Any, played: dict[str, Any]) -> Any:
    """The port that sends samples, which are also injected where the first layer has it so."""
    from esl_lava.simulate.lava_processes.streams import Injector, Player

    if not network.first.injects:
        return Player(shape=(network.inputs,), **played).s_out
    bias = neuron_in_lava(network.layers[0])["bias_mant"]
    return Injector(variable=neurons.bias_mant, bias=bias, **played).s_out


def _neurons(layer: Layer, index: int, interval: int) -> Any:
    """The neurons of a layer, reset as the first step of a sample reaches them."""
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


def _synapse(given: Input, bits: int, sparse: bool) -> Any:
    """The synapse process of an input whose values are graded in `bits`, or spikes."""
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.sparse.process import DelaySparse, Sparse

    c = given.connections
    if isinstance(c, Convolution) and given.delays is None:
        return Conv(input_shape=c.in_shape[::-1], num_message_bits=bits, **slid_in_lava(c))
    matrix, sparse = c.unrolled(), sparse or c.shares  # Lava has no delayed convolution
    shared = {
        "weights": stored(matrix, matrix.weights, sparse),
        "num_message_bits": bits,
        **exact_weights(),
    }
    if given.delays is None:
        return (Sparse if sparse else Dense)(**shared)
    delays = stored(matrix, given.delays[matrix.rows()], sparse).astype(int)
    return (DelaySparse if sparse else DelayDense)(delays=delays, **shared)


def _connect(source: Any, synapse: Any, neurons: Any, c: Connections) -> None:
    """Connect a flat port with a synapse, and that with flat neurons."""
    if len(synapse.s_in.shape) == 3:  # Lava's maps are (columns, rows, channels)
        source.reshape(c.in_shape).transpose().connect(synapse.s_in)
        synapse.a_out.transpose().flatten().connect(neurons.a_in)
    else:
        source.connect(synapse.s_in)
        synapse.a_out.connect(neurons.a_in)


def forget(synapse: Any, step: int, interval: int) -> None:
    """Clear what is under way in a synapse at the end of this step of every interval."""
    from lava.proc.io.reset import Reset

    under_way = synapse.a_buff if hasattr(synapse, "a_buff") else synapse.a_buf
    Reset(interval=interval, offset=step).connect_var(under_way)
