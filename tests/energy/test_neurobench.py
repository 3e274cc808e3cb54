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
from esl_lava.network import INTEGRATOR, Connections, Convolution, Cuba, Layer, Network
from esl_lava.simulate import Result, simulate


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


class Torch(torch.nn.Module):
    """An integer network as a user of neurobench would have it: layers and activations."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        stages: list[torch.nn.Module] = []
        for layer in network.layers:
            part = layer.connections
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
                stages.append(conv)
            else:
                assert isinstance(part, Connections)
                bias = layer.bias is not None
                linear = torch.nn.Linear(part.n_pre, part.n_post, bias=bias).double()
                linear.weight.data = torch.from_numpy(part.dense().astype(np.float64))
                if layer.bias is not None:
                    linear.bias.data = torch.from_numpy(layer.bias.astype(np.float64))
                stages += [torch.nn.Flatten(), linear]
            if layer.neuron.fires:
                stages.append(Neurons(layer))
        self.stages = torch.nn.Sequential(*stages)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return sum(self.stages(data[:, t]) for t in range(data.shape[1]))  # type: ignore[return-value]


def masked(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> Any:
    """Even weights and their mask; some allowed weights are 0."""
    mask = rng.random(shape) < density
    return np.where(mask, 2 * rng.integers(-20, 24, shape), 0), mask


def mlp() -> tuple[Network, Any]:
    rng = np.random.default_rng(1)
    hidden = Connections.from_dense(*masked(rng, (30, 40), 0.2))
    second = Connections.from_dense(*masked(rng, (20, 30), 0.5))
    readout = Connections.from_dense(*masked(rng, (5, 20), 1.0))
    network = Network(
        (
            Layer("hidden1", hidden, Cuba(4096, 2048, 30), bias=np.arange(30) % 3),
            Layer("hidden2", second, Cuba(2048, 1024, 20)),
            Layer("readout", readout, INTEGRATOR, bias=np.ones(5, np.int32)),
        )
    )
    return network, (rng.random((6, 7, 40)) < 0.3).astype(np.uint8)


def conv() -> tuple[Network, Any]:
    rng = np.random.default_rng(2)
    kernel, allowed = masked(rng, (6, 2, 3, 3), 0.4)
    first = Convolution(kernel, (2, 9, 8), (2, 1), (1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 3, 2, 3), 0.6)
    second = Convolution(kernel, first.out_shape, (1, 2), (0, 1), (2, 1), 2, allowed)
    readout = Connections.from_dense(*masked(rng, (5, second.n_post), 0.3))
    network = Network(
        (
            Layer("conv1", first, Cuba(4096, 2048, 40)),
            Layer("conv2", second, Cuba(4096, 2048, 10)),
            Layer("readout", readout, INTEGRATOR),
        )
    )
    return network, (rng.random((5, 6, 2, 9, 8)) < 0.25).astype(np.uint8)


def graded() -> tuple[Network, Any]:
    network, _ = mlp()
    given = np.random.default_rng(3).integers(-4, 5, (6, 7, 40))
    given[:, 2] = given[:, 2].clip(-1, 1)  # a call whose inputs are not graded
    return replace(network, input_bits=3), given


CASES = {"mlp": mlp, "conv": conv, "graded": graded}


def measured(network: Network, inputs: Any) -> tuple[dict[str, float], Any]:
    """neurobench's operations and the model it hooked."""
    model = TorchModel(Torch(network))
    model.add_activation_module(Neurons)
    model.register_hooks()
    data = torch.from_numpy(inputs.astype(np.float64))
    predictions = model(data)
    metric = TheirOperations()
    found = metric(model, predictions, (data, torch.zeros(len(data))))
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
    assert (ours.effective_macs > 0) == (case == "graded")
    assert 0 < ours.effective_acs < ours.dense
    assert activation_sparsity(network, counts) == ActivationSparsity()(
        model, predictions, (data, None)
    )
    assert connection_sparsity(network) == ConnectionSparsity()(model)
    assert footprint(network, 8) == Footprint()(model)


def test_metrics_of_spikes_need_no_inputs_and_of_graded_ones_do() -> None:
    for case in (mlp, conv):
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
    only = Network((replace(network.layers[0], neuron=INTEGRATOR),))
    assert activation_sparsity(only, simulate(only, inputs).counts) == 0.0
