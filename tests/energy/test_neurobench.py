"""Our counts against the neurobench package, on the same integer networks and spikes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity
from neurobench.metrics.workload import SynapticOperations as TheirOperations
from neurobench.models import TorchModel

from esl_lava.energy import detailed
from esl_lava.energy.neurobench import (
    SynapticOperations,
    activation_sparsity,
    connection_sparsity,
    footprint,
    metrics,
    synaptic_operations,
)
from esl_lava.errors import DataError
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Layer,
    Matrix,
    Network,
)
from esl_lava.simulate import Result, simulate
from esl_lava.simulate.result import count
from tests.graphs import End, a_layer, a_network, ends


class Neurons(torch.nn.Module):
    """CUBA neurons of a layer, in the integers of `esl_lava.network` held as float64."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.neuron = layer.neuron
        self.u = self.v = torch.zeros((), dtype=torch.float64)

    def forward(self, brought: torch.Tensor) -> torch.Tensor:
        self.u = torch.trunc(self.u * (4096 - int(self.neuron.current_decay)) / 4096)
        self.u = self.u + brought * 64
        self.v = torch.trunc(self.v * (4096 - int(self.neuron.voltage_decay)) / 4096) + self.u
        fired = (self.v > int(self.neuron.threshold) * 64).double()
        self.v = self.v * (1 - fired)
        return fired


def weighing(part: Matrix | Convolution, chosen: Any, bias: Any) -> torch.nn.Module:
    """Connections as a layer of torch: onto the `chosen` of its neurons, where it is no kernel."""
    if isinstance(part, Convolution):
        conv = torch.nn.Conv2d(
            part.in_shape[0],
            part.kernel.shape[0],
            part.kernel.shape[2:],  # type: ignore[arg-type]
            part.stride,
            part.padding,
            part.dilation,
            part.groups,
            bias=False,
        ).double()
        conv.weight.data = torch.from_numpy(part.kernel.astype(np.float64))
        return torch.nn.Sequential(torch.nn.Unflatten(1, part.in_shape), conv, torch.nn.Flatten())
    linear = torch.nn.Linear(part.n_pre, int(chosen.sum()), bias=bias is not None).double()
    linear.weight.data = torch.from_numpy(part.dense()[chosen].astype(np.float64))
    if bias is not None:
        linear.bias.data = torch.from_numpy(bias.astype(np.float64))
    return linear


class Arriving(torch.nn.Module):
    """What an end brings to a layer, through a delay line before its weights, or behind them.

    Before them there is a line and a layer of torch for each delay that neurons have.
    """

    def __init__(self, end: End, layer: Layer, behind: bool) -> None:
        super().__init__()
        part = end.connections
        assert not isinstance(part, Injection)
        recurrent = end.source == layer.name  # is given the spikes of the step before
        self.delays = np.broadcast_to(0 if recurrent else end.late, layer.neurons)
        self.behind = behind
        self.groups = [self.delays == delay for delay in np.unique(self.delays)]
        if behind:
            self.groups = [self.delays >= 0]
        bias = layer.bias if part is layer.inputs[0].connections else None
        self.weighing = torch.nn.ModuleList(weighing(part, group, bias) for group in self.groups)
        self.line: list[torch.Tensor] = []

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        self.line.append(self.weighing[0](spikes) if self.behind else spikes)
        brought = torch.zeros(len(spikes), self.delays.size, dtype=torch.float64)
        for group, weights in zip(self.groups, self.weighing):
            for delay in np.unique(self.delays[group]):
                there = torch.from_numpy(self.delays == delay)
                held = self._held(int(delay))
                brought[:, there] = held[:, there] if self.behind else weights(held)
        return brought

    def _held(self, delay: int) -> torch.Tensor:
        """What went into the line so many steps ago."""
        if delay < len(self.line):
            return self.line[-1 - delay]
        return torch.zeros_like(self.line[-1])


class Torch(torch.nn.Module):
    """An integer network as a user of neurobench would have it: layers and activations."""

    def __init__(self, network: Network, behind: bool = False) -> None:
        super().__init__()
        self.layers = network.layers
        self.ends = [ends(layer) for layer in network.layers]
        self.arriving = torch.nn.ModuleList(
            torch.nn.ModuleList(Arriving(end, layer, behind) for end in found)
            for layer, found in zip(network.layers, self.ends)
        )
        firing = {layer.name: Neurons(layer) for layer in network.layers if layer.neuron.fires}
        self.neurons = torch.nn.ModuleDict(firing)
        self.spikes = dict.fromkeys(firing, 0)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        before = {
            layer.name: torch.zeros(len(data), layer.neurons, dtype=torch.float64)
            for layer in self.layers
        }
        for t in range(data.shape[1]):
            now = {INPUT: data[:, t].flatten(1)}
            for layer, found, arriving in zip(self.layers, self.ends, self.arriving):
                brought = sum(
                    part(before[layer.name] if end.source == layer.name else now[end.source])
                    for end, part in zip(found, arriving)
                )
                if layer.neuron.fires:
                    now[layer.name] = self.neurons[layer.name](brought)
                    self.spikes[layer.name] += int(now[layer.name].sum())
                else:
                    total = total + brought
            before = now
        return total


def masked(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> Any:
    """Even weights and their mask; some allowed weights are 0."""
    mask = rng.random(shape) < density
    return np.where(mask, 2 * rng.integers(-20, 24, shape), 0), mask


def mlp() -> tuple[Network, Any]:
    rng = np.random.default_rng(1)
    hidden = Matrix.from_dense(*masked(rng, (30, 40), 0.2))
    second = Matrix.from_dense(*masked(rng, (20, 30), 0.5))
    readout = Matrix.from_dense(*masked(rng, (5, 20), 1.0))
    network = a_network(
        (
            a_layer("hidden1", hidden, Cuba(4096, 2048, 30), bias=np.arange(30) % 3),
            a_layer("hidden2", second, Cuba(2048, 1024, 20)),
            a_layer("readout", readout, INTEGRATOR, bias=np.ones(5, np.int32)),
        )
    )
    return network, (rng.random((6, 7, 40)) < 0.3).astype(np.uint8)


def conv() -> tuple[Network, Any]:
    rng = np.random.default_rng(2)
    kernel, allowed = masked(rng, (6, 2, 3, 3), 0.4)
    first = Convolution(kernel, (2, 9, 8), (2, 1), (1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 3, 2, 3), 0.6)
    second = Convolution(kernel, first.out_shape, (1, 2), (0, 1), (2, 1), 2, allowed)
    readout = Matrix.from_dense(*masked(rng, (5, second.n_post), 0.3))
    network = a_network(
        (
            a_layer("conv1", first, Cuba(4096, 2048, 40)),
            a_layer("conv2", second, Cuba(4096, 2048, 10)),
            a_layer("readout", readout, INTEGRATOR),
        )
    )
    return network, (rng.random((5, 6, 2, 9, 8)) < 0.25).astype(np.uint8)


def graded() -> tuple[Network, Any]:
    network, _ = mlp()
    given = np.random.default_rng(3).integers(-4, 5, (6, 7, 40))
    given[:, 2] = given[:, 2].clip(-1, 1)  # a call whose inputs are not graded
    return replace(network, input_bits=3), given


def recurrent() -> tuple[Network, Any]:
    rng = np.random.default_rng(4)
    own, second = masked(rng, (20, 20), 0.3), masked(rng, (9, 9), 1.0)
    network = a_network(
        (
            a_layer(
                "own",
                Matrix.from_dense(*masked(rng, (20, 15), 0.4)),
                Cuba(4096, 2048, 60),
                recurrent=Matrix.from_dense(*own),
            ),
            a_layer(
                "again",
                Matrix.from_dense(*masked(rng, (9, 20), 0.4)),
                Cuba(1000, 300, 50),
                recurrent=Matrix.from_dense(*second),
            ),
            a_layer("readout", Matrix.from_dense(*masked(rng, (5, 9), 1.0)), INTEGRATOR),
        )
    )
    return network, (rng.random((5, 6, 15)) < 0.4).astype(np.uint8)


def delayed() -> tuple[Network, Any]:
    rng = np.random.default_rng(5)
    hidden = Matrix.from_dense(*masked(rng, (20, 15), 0.4))
    readout = Matrix.from_dense(*masked(rng, (5, 20), 0.7))
    network = a_network(
        (
            a_layer("hidden", hidden, Cuba(4096, 2048, 20), delays=rng.integers(0, 9, 20)),
            a_layer("readout", readout, INTEGRATOR, delays=[0, 2, 2, 1, 62]),
        )
    )
    return network, (rng.random((5, 6, 15)) < 0.4).astype(np.uint8)


def skipped() -> tuple[Network, Any]:
    """Skips by a kernel and by a matrix."""
    rng = np.random.default_rng(10)
    kernel, allowed = masked(rng, (4, 2, 3, 3), 0.5)
    first = Convolution(kernel, (2, 6, 5), padding=(1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 4, 3, 3), 0.5)
    second = Convolution(kernel, first.out_shape, padding=(1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 2, 1, 1), 1.0)
    around = Convolution(kernel, first.in_shape, allowed=allowed)
    readout = Matrix.from_dense(*masked(rng, (5, 120), 0.3))
    past = Matrix.from_dense(*masked(rng, (5, 120), 0.2))
    network = a_network(
        (
            a_layer("conv1", first, Cuba(4096, 2048, 40)),
            a_layer("conv2", second, Cuba(4096, 2048, 60), skips=(Input(INPUT, around),)),
            a_layer("readout", readout, INTEGRATOR, skips=(Input("conv1", past),)),
        )
    )
    return network, (rng.random((4, 5, 60)) < 0.3).astype(np.uint8)


def graded_and_delayed() -> tuple[Network, Any]:
    network, _ = delayed()
    return replace(network, input_bits=3), np.random.default_rng(7).integers(-4, 5, (5, 6, 15))


CASES = {
    "mlp": mlp,
    "conv": conv,
    "recurrent": recurrent,
    "delayed": delayed,
    "skipped": skipped,
    "graded": graded,
    "graded and delayed": graded_and_delayed,
}


def measured(
    network: Network, inputs: Any, behind: bool = False
) -> tuple[dict[str, float], tuple[Any, Any, Any]]:
    """neurobench's operations and the model it hooked."""
    twin = Torch(network, behind)
    model = TorchModel(twin)
    model.add_activation_module(Neurons)
    model.register_hooks()
    data = torch.from_numpy(inputs.astype(np.float64))
    predictions = model(data)
    metric = TheirOperations()
    found = metric(model, predictions, (data, torch.zeros(len(data))))
    spikes = {layer.name: layer.spikes for layer in simulate(network, inputs).counts.layers}
    assert twin.spikes == {name: spikes[name] for name in twin.spikes}  # the same network
    return found, (model, predictions, data)


@pytest.mark.parametrize("case", CASES)
def test_counts_are_neurobenchs(case: str) -> None:
    network, inputs = CASES[case]()
    result: Result = simulate(network, inputs)
    counts = detailed(network, result.counts)
    for layer in counts.layers[:-1]:
        assert 0 < layer.spikes < layer.neuron_updates
        assert layer.synapses < layer.connections
    theirs, (model, predictions, data) = measured(network, inputs)
    ours = synaptic_operations(network, counts, inputs)
    assert ours == SynapticOperations(
        theirs["Effective_MACs"], theirs["Effective_ACs"], theirs["Dense"]
    )
    assert (ours.effective_macs > 0) == case.startswith("graded")
    assert 0 < ours.effective_acs < ours.dense
    assert activation_sparsity(network, counts) == ActivationSparsity()(
        model, predictions, (data, None)
    )
    assert connection_sparsity(network) == ConnectionSparsity()(model)
    assert 2 * footprint(network) == Footprint()(model)


def test_metrics_of_spikes_need_no_inputs_and_of_graded_ones_do() -> None:
    for case in (mlp, conv, recurrent, delayed, skipped):
        network, inputs = case()
        counts = simulate(network, inputs).counts
        found = metrics(network, counts)
        theirs, (model, *_) = measured(network, inputs)
        assert found["effective_acs"] == theirs["Effective_ACs"]
        assert (found["effective_macs"], found["dense"]) == (0, theirs["Dense"])
        assert found["footprint"] == Footprint()(model) / 2  # theirs holds float64
        assert found["connection_sparsity"] == ConnectionSparsity()(model)
        assert found["activation_sparsity"] == activation_sparsity(network, counts)
    network, inputs = graded()
    with pytest.raises(DataError, match="told apart by their values"):
        metrics(network, simulate(network, inputs).counts)


def test_a_delay_behind_the_weights_hides_what_never_arrives() -> None:
    """There neurobench counts what is sent, and so what no neuron receives in its sample."""
    network, inputs = delayed()
    counts = simulate(network, inputs).counts
    before, behind = (measured(network, inputs, where)[0] for where in (False, True))
    assert counts.sops / counts.samples == before["Effective_ACs"] < behind["Effective_ACs"]
    assert before["Dense"] == behind["Dense"]
    at_once = a_network(
        tuple(
            replace(layer, inputs=tuple(replace(one, delays=None) for one in layer.inputs))
            for layer in network.layers
        )
    )
    spikes = simulate(network, inputs, record="all").spikes
    assert count(at_once, inputs, spikes).sops / counts.samples == behind["Effective_ACs"]


def test_inputs_have_to_be_those_of_the_run() -> None:
    network, inputs = mlp()
    counts = simulate(network, inputs).counts
    with pytest.raises(DataError, match="5 samples and 7 steps are not those of a run of 6 and 7"):
        synaptic_operations(network, counts, inputs[:5])


def test_a_bias_of_its_own_for_each_neuron_takes_its_own_bytes() -> None:
    network, _ = conv()
    first = network.layers[0]
    shared = np.repeat(np.arange(6), first.neurons // 6)
    with_bias = replace(network, layers=(replace(first, bias=shared), *network.layers[1:]))
    assert footprint(with_bias) - footprint(network) == 6 * 4
    own = np.arange(first.neurons)
    with_bias = replace(network, layers=(replace(first, bias=own), *network.layers[1:]))
    assert footprint(with_bias) - footprint(network) == first.neurons * 4


def test_a_network_that_never_fires_has_no_activations() -> None:
    network, inputs = mlp()
    only = a_network((replace(network.layers[0], neuron=INTEGRATOR),))
    assert activation_sparsity(only, simulate(only, inputs).counts) == 0.0
