"""The same bits on every stack as with Python 3.10, torch 2.3.1, numpy 1.26.4 and Lava's pins.

Every sum here is exact, because weights and inputs are small multiples of a power of two. The
order of its terms depends on the processor and does not matter. `python -m tests.test_stacks`
prints a new table.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esl_lava import netfile
from esl_lava.engines import fused
from esl_lava.engines.slayer import slayer
from esl_lava.export import lower
from esl_lava.models.config import MultiSpike
from esl_lava.models.mlp import SpikingMLP, scale_initial_weights
from esl_lava.models.restore import as_arrays
from esl_lava.models.stored import load_model, read_layers, trained_layers
from esl_lava.simulate import simulate
from esl_lava.sparsity import MaskEvolver
from esl_lava.sparsity.weights import SparseWeight
from esl_lava.topology import describe

RECORDED = {
    "SLAYER dense": "0207bcc27396b18f",
    "SLAYER dense, delayed": "3108bbbb948c4008",
    "SLAYER convolution": "63ec6f802c113793",
    "SLAYER pool": "e8c9e15598ad59f7",
    "SLAYER recurrent": "440a59f7dfd910ab",
    "fused convolution": "63ec6f802c113793",
    "initial weights": "2b5daa29fa29c808",
    "network by slayer": "17c72740f3eb8c59",
    "network by fused": "17c72740f3eb8c59",
    "network by sparse": "17c72740f3eb8c59",
    "masks grown at random": "af2288b03f020760",
    "masks grown by gradient": "4fdbcdb94a52f4da",
    "masks shared out anew": "b4ad8bbd5ef2828f",
    "export of multi.pt": "5d120bf73b417df5",
    "export of once.pt": "f4db6ae72b56709c",
    "exported network and its run": "d406c74611960f65 ecd3f6270ed4c5ef",
}
"""Name of a computation -> beginning of the SHA-256 of the resulting bytes."""

NEURON = {"threshold": 1.0, "current_decay": 0.75, "voltage_decay": 0.5}


def digest(tensors: Iterable[Tensor]) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        sha.update(tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def spikes(shape: tuple[int, ...], rate: float = 0.3) -> Tensor:
    rng = np.random.default_rng(7)
    return torch.from_numpy((rng.random(shape) < rate).astype(np.float32))


def on_grid(block: nn.Module) -> nn.Module:
    """Set the weights of a block to random weights on SLAYER's grid, drawn by numpy."""
    rng = np.random.default_rng(11)
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if name.endswith("weight"):
                drawn = rng.integers(-60, 80, tuple(weight.shape)) / 64
                weight.copy_(torch.from_numpy(drawn))
    return block


def outputs(block: Any, x: Tensor) -> list[Tensor]:
    """Return the output of a block, which must hold some spikes and some zeros."""
    result = block(x)
    assert 0.01 < result.mean() < 0.9
    return [result]


def dense() -> list[Tensor]:
    block = on_grid(slayer.block.cuba.Dense(dict(NEURON), 40, 30, delay_shift=False))
    return outputs(block, spikes((5, 40, 16)))


def delayed() -> list[Tensor]:
    block = slayer.block.cuba.Dense(dict(NEURON), 40, 30, delay=True)
    block.delay.delay.data.fill_(2)
    return outputs(on_grid(block), spikes((5, 40, 16)))


def convolution(faster: bool = False) -> list[Tensor]:
    block = on_grid(slayer.block.cuba.Conv(dict(NEURON), 2, 6, 3, padding=1, delay_shift=False))
    if faster:
        block = fused.accelerate(block)
        assert isinstance(block, fused.FusedConv)
    return outputs(block, spikes((3, 2, 9, 8, 12)))


def pooled() -> list[Tensor]:
    block = on_grid(slayer.block.cuba.Pool(dict(NEURON), 2, delay_shift=False))
    return outputs(block, spikes((3, 2, 8, 8, 12), 0.6))


def recurrent() -> list[Tensor]:
    return outputs(on_grid(slayer.block.cuba.Recurrent(dict(NEURON), 40, 30)), spikes((5, 40, 16)))


def model(sparse_layers: tuple[str, ...] = ()) -> SpikingMLP:
    """Make 784-24-12-10 with weights from torch's global generator."""
    torch.manual_seed(5)
    network = SpikingMLP(describe("24-12", (784,), 10), MultiSpike(), sparse_layers=sparse_layers)
    if not sparse_layers:
        scale_initial_weights(network, {"hidden1": 4.0, "hidden2": 4.0})
    return network


def initial_weights() -> list[Tensor]:
    return list(model().parameters())


def passes(prepare: Callable[[SpikingMLP], nn.Module] = lambda network: network) -> list[Tensor]:
    network: Any = prepare(model())
    return list(network.layer_outputs(spikes((6, 784, 8))))


def stored() -> list[Tensor]:
    """Return the outputs of a network that stores only connections, here all positions."""
    network, other = model(("hidden1", "hidden2")), model()
    for name in network.topology.names:
        weight = network.get_submodule(name).synapse.weight
        dense_weight = other.get_parameter(f"{name}.synapse.weight")
        if isinstance(weight, SparseWeight):
            weight.begin(torch.arange(weight.size))
            weight = weight.values
        weight.data = dense_weight.detach().view_as(weight)
    return list(network.layer_outputs(spikes((6, 784, 8))))


def masks(growth: str, **options: Any) -> list[Tensor]:
    """Return masks after five updates; weights change by multiples of a quarter."""
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    evolver = MaskEvolver(
        network, optimizer, density=0.2, growth=growth, alpha=0.5, t_iter=2, t_end=12, seed=9,
        keep_dense=["readout"], **options,
    )  # fmt: skip
    rng = np.random.default_rng(13)
    for _ in range(11):
        for weight in network.parameters():
            weight.grad = torch.from_numpy(rng.integers(-8, 9, tuple(weight.shape)) / 16).float()
        optimizer.step()
        evolver.step()
    assert len(evolver.history) == 5
    return list(evolver.masks.values())


def exported() -> str:
    trained = model()
    layers = read_layers(MultiSpike(layers="24-12"), as_arrays(trained.state_dict()), {})
    network = lower(layers, steps=8)
    samples = spikes((6, 784, 8)).swapaxes(1, 2).numpy().astype(np.uint8)
    result = simulate(network, samples, record="all")
    readout = torch.from_numpy(result.readout)
    run = digest([*map(torch.from_numpy, result.spikes.values()), readout])
    return f"{netfile.digest(network)[:16]} {run}"


COMPUTED: dict[str, Callable[[], list[Tensor]]] = {
    "SLAYER dense": dense,
    "SLAYER dense, delayed": delayed,
    "SLAYER convolution": convolution,
    "SLAYER pool": pooled,
    "SLAYER recurrent": recurrent,
    "fused convolution": lambda: convolution(faster=True),
    "initial weights": initial_weights,
    "network by slayer": passes,
    "network by fused": lambda: passes(fused.accelerate),
    "network by sparse": stored,
    "masks grown at random": lambda: masks("random"),
    "masks grown by gradient": lambda: masks("gradient"),
    "masks shared out anew": lambda: masks("random", redistribution="magnitude"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPUTED)
def test_bits_are_those_recorded(name: str) -> None:
    assert digest(COMPUTED[name]()) == RECORDED[name]


def test_an_exported_network_and_its_run_are_those_recorded() -> None:
    assert exported() == RECORDED["exported network and its run"]


@pytest.mark.parametrize("name", ["multi", "once"])
def test_a_saved_model_exports_to_the_network_recorded(name: str) -> None:
    """Export models that were trained on the stack of the table."""
    saved, experiment = load_model(Path(__file__).parent / "export" / "fixtures" / f"{name}.pt")
    network = lower(trained_layers(saved), steps=experiment.encoding.steps)
    assert netfile.digest(network)[:16] == RECORDED[f"export of {name}.pt"]


if __name__ == "__main__":
    for name, compute in COMPUTED.items():
        print(f'    "{name}": "{digest(compute())}",')
    print(f'    "exported network and its run": "{exported()}",')
