"""What neurobench 2.3.0 counts of the networks of `tests.energy.neurobench_cases`.

`python -m tests.benchmarks.neurobench` writes the figures that `tests/energy/test_neurobench.py`
compares ours with; the benchmark counts them anew and compares.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava.network import INPUT, Convolution, Injection, Layer, Matrix, Network
from esl_lava.simulate import simulate
from tests.energy.neurobench_cases import CASES
from tests.graphs import End, ends

FIGURES = Path(__file__).parents[1] / "energy" / "neurobench.json"


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
        self.arriving: Any = torch.nn.ModuleList(
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


def measured(network: Network, inputs: Any, behind: bool = False) -> dict[str, float]:
    """Name, as neurobench's -> what it counts of a network of torch that spikes as ours."""
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    twin = Torch(network, behind)
    model = TorchModel(twin)
    model.add_activation_module(Neurons)
    model.register_hooks()
    data = torch.from_numpy(inputs.astype(np.float64))
    predictions = model(data)
    batch = (data, torch.zeros(len(data)))
    operations = SynapticOperations()(model, predictions, batch)
    spikes = {layer.name: layer.spikes for layer in simulate(network, inputs).counts.layers}
    assert twin.spikes == {name: spikes[name] for name in twin.spikes}  # the same network
    return {
        **{name: float(operations[name]) for name in ("Effective_MACs", "Effective_ACs", "Dense")},
        "ActivationSparsity": float(ActivationSparsity()(model, predictions, batch)),
        "ConnectionSparsity": float(ConnectionSparsity()(model)),
        "Footprint": float(Footprint()(model)),  # of float64
    }


def figures() -> dict[str, dict[str, float]]:
    """Case -> what neurobench counts of it."""
    found = {name: measured(*case()) for name, case in CASES.items()}
    found["delayed behind the weights"] = measured(*CASES["delayed"](), behind=True)
    return found


def agreement() -> Iterator[tuple[str, list[float]]]:
    """The figures that the tests hold over those that neurobench gives now: 1 where not 0."""
    now, held = figures(), json.loads(FIGURES.read_text())
    assert now == held
    for case, values in now.items():
        yield (
            f"neurobench.{case.replace(' ', '_')}",
            [held[case][name] / value for name, value in values.items() if value],
        )


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(figures(), indent=2) + "\n")
