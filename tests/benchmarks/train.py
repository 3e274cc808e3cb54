"""A training step by the engines against stock SLAYER and other frameworks.

A step is forward, backward and Adam on a batch of 100 samples (conv: 8, VGGSNN: 4) of which a
tenth of the inputs spike, with as many threads as there are cores. Contenders take turns
within a round. Before anything is timed, spikes of the engines are compared with SLAYER's.
Ratios are SLAYER's seconds, or another's, over ours.

`python -m tests.benchmarks.train NAME` prints what one of its processes measures; `break_even` is a
table of what `engine = "auto"` goes by.
"""

import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.engines import fused, sparse
from esl_lava.engines.slayer import slayer
from esl_lava.models.config import MultiSpike
from esl_lava.models.mlp import SpikingMLP, scale_initial_weights
from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights, weight_layers
from esl_lava.topology import describe
from esl_lava.training.kinds import fused_adam
from esl_lava.training.losses import tet

ROUNDS = 9
BATCH, CLASSES, ACTIVITY = 100, 10, 0.1
CHANNELS, SIDE = (2, 64, 128, 256, 256, 512, 512, 512, 512), 48

Step = Callable[[], object]
Measured = Iterator[tuple[str, list[float]]]


def speedups() -> Measured:
    """Ratios of seconds a step, and the sparse engine's memory, each in a fresh process.

    What ran before in a process changes what its memory costs.
    """
    for name in _ALONE:
        command = [sys.executable, "-m", "tests.benchmarks.train", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        yield from json.loads(done.stdout).items()


def ratios_of(ours: Step, others: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each other over ours, a round each; the first of the rounds warms up."""
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for place in range(1 + rounds):
        seconds = _seconds(ours)
        for name, step in others.items():
            ratio = _seconds(step) / seconds
            if place:
                ratios[name].append(ratio)
    return ratios


def _seconds(step: Step) -> float:
    """The median of three steps."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[1]


def _batch(inputs: int, steps: int) -> tuple[Tensor, Tensor]:
    """Spikes (batch, inputs, T) and labels."""
    rng = np.random.default_rng(0)
    spikes = rng.random((BATCH, inputs, steps)) < ACTIVITY
    return torch.from_numpy(spikes).float(), torch.from_numpy(rng.integers(0, CLASSES, BATCH))


def step_of(
    model: nn.Module,
    loss: Callable[[], Tensor],
    after: Step = lambda: None,
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
) -> Step:
    """A step of training; `kind` is the Adam that comes with what is measured."""
    optimizer = kind([p for p in model.parameters() if p.requires_grad], lr=0.001)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        after()

    return step


def _mlp(hidden: tuple[int, ...], sparse_layers: tuple[str, ...] = ()) -> SpikingMLP:
    torch.manual_seed(0)
    return SpikingMLP(
        describe("-".join(map(str, hidden)), (784,), CLASSES),
        MultiSpike(),
        sparse_layers=sparse_layers,
    )


def _tet(model: nn.Module, spikes: Tensor, labels: Tensor) -> Tensor:
    return tet(model(spikes), labels)


def _power(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def _liven(model: SpikingMLP, density: float) -> None:
    """Scale a thinned network's weights so that every layer spikes."""
    factors = dict.fromkeys(model.topology.hidden_names, 4 / density**0.5)
    scale_initial_weights(model, {**factors, "readout": 4})


def _agree(models: list[SpikingMLP], spikes: Tensor) -> None:
    """All layers put out the same, something and not everything."""
    expected, *found = [model.layer_outputs(spikes) for model in models]
    for outputs in found:
        assert all(torch.equal(a, b) for a, b in zip(expected, outputs))
    assert all(0.02 < layer.mean() < 0.4 for layer in expected[:-1])


# --- Dense. --------------------------------------------------------------------------------


def _fused_mlp(steps: int) -> Measured:
    """Dense 784-800-10, and the same by other frameworks."""
    spikes, labels = _batch(784, steps)
    stock, ours = _mlp((800,)), fused.accelerate(_mlp((800,)))
    for model in (stock, ours):
        _liven(model, 1)
    _agree([stock, ours], spikes)
    others = {
        "slayer": step_of(stock, lambda: tet(stock(spikes), labels)),
        "spikingjelly": _spikingjelly(spikes, labels),
        "snntorch": _snntorch(spikes, labels),
        "norse": _norse(spikes, labels),
    }
    measured = ratios_of(
        step_of(ours, lambda: tet(ours(spikes), labels), kind=fused_adam), others, ROUNDS
    )
    name = f"train.fused.mlp_t{steps}"
    yield name, measured.pop("slayer")
    for other, ratios in measured.items():
        yield f"{name}.vs_{other}", ratios


def _mean_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """`tet` of outputs (T, batch, classes)."""
    return nn.functional.cross_entropy(outputs.flatten(0, 1), labels.repeat(len(outputs)))


def _spikingjelly(spikes: Tensor, labels: Tensor) -> Step:
    from spikingjelly.activation_based import functional, layer, neuron

    model = nn.Sequential(
        layer.Linear(784, 800, bias=False), neuron.LIFNode(), layer.Linear(800, 10, bias=False)
    )
    functional.set_step_mode(model, "m")
    x = spikes.permute(2, 0, 1).contiguous()

    def loss() -> Tensor:
        functional.reset_net(model)
        return _mean_loss(model(x), labels)

    return step_of(model, loss)


def _snntorch(spikes: Tensor, labels: Tensor) -> Step:
    import snntorch

    hidden, readout = nn.Linear(784, 800, bias=False), nn.Linear(800, 10, bias=False)
    neuron = snntorch.Leaky(beta=0.5)
    x = spikes.permute(2, 0, 1).contiguous()

    def loss() -> Tensor:
        membrane = neuron.init_leaky()
        outputs = []
        for now in x:
            fired, membrane = neuron(hidden(now), membrane)
            outputs.append(readout(fired))
        return _mean_loss(torch.stack(outputs), labels)

    return step_of(nn.ModuleList([hidden, readout]), loss)


def _norse(spikes: Tensor, labels: Tensor) -> Step:
    from norse.torch import LIFBoxCell

    hidden, readout = nn.Linear(784, 800, bias=False), nn.Linear(800, 10, bias=False)
    neuron = LIFBoxCell()
    x = spikes.permute(2, 0, 1).contiguous()

    def loss() -> Tensor:
        state = None
        outputs = []
        for now in x:
            fired, state = neuron(hidden(now), state)
            outputs.append(readout(fired))
        return _mean_loss(torch.stack(outputs), labels)

    return step_of(nn.ModuleList([hidden, readout]), loss)


def _fused_conv(channels: tuple[int, ...], batch: int) -> list[float]:
    """Convolutions of 3 x 3 kernels, pooled by two after every other, T = 4."""
    rng = np.random.default_rng(0)
    spikes = rng.random((batch, channels[0], SIDE, SIDE, 4)) < ACTIVITY
    x = torch.from_numpy(spikes).float()
    stock, ours = _convolutions(channels), fused.accelerate(_convolutions(channels))
    outputs = stock(x)
    assert torch.equal(outputs, ours(x))
    assert 0.02 < outputs.mean() < 0.4
    step = step_of(ours, lambda: ours(x).square().mean(), kind=fused_adam)
    other = step_of(stock, lambda: stock(x).square().mean())
    return ratios_of(step, {"slayer": other}, 3)["slayer"]


def _convolutions(channels: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential()
    for i, (n_pre, n_post) in enumerate(itertools.pairwise(channels)):
        neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
        block = slayer.block.cuba.Conv(neuron, n_pre, n_post, 3, padding=1, delay_shift=False)
        block.neuron.threshold_eps = 1 / block.neuron.s_scale
        with torch.no_grad():
            block.synapse.weight.mul_(6)
        model.append(block)
        if i % 2:
            model.append(nn.AvgPool3d((2, 2, 1)))
    return model


# --- Sparse. -------------------------------------------------------------------------------


def _sparse_mlp(hidden: tuple[int, ...], density: float, rounds: int) -> list[float]:
    """Hidden layers at a density against stock SLAYER under the same masks, T = 4."""
    spikes, labels = _batch(784, 4)
    names = tuple(f"hidden{i}" for i in range(1, len(hidden) + 1))
    stock, ours = _mlp(hidden), fused.accelerate(_mlp(hidden, names))
    evolvers = [_static(model, density) for model in (stock, ours)]
    for model in (stock, ours):
        _liven(model, density)
    _agree([stock, ours], spikes)
    assert evolvers[0].density == evolvers[1].density
    steps = [
        step_of(model, functools.partial(_tet, model, spikes, labels), evolver.step, kind)
        for model, evolver, kind in (
            (ours, evolvers[1], fused_adam),
            (stock, evolvers[0], torch.optim.Adam),
        )
    ]
    return ratios_of(steps[0], {"slayer": steps[1]}, rounds)["slayer"]


def _sparse_conv(density: float) -> dict[str, list[float]]:
    """The first two layers of VGGSNN, thinned, against stock SLAYER and the fused engine."""
    rng = np.random.default_rng(0)
    spikes = rng.random((8, CHANNELS[0], SIDE, SIDE, 4)) < ACTIVITY
    x = torch.from_numpy(spikes).float()
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
    models = [_convolutions(CHANNELS[:3])[:2] for _ in range(2)]
    few = nn.Sequential()
    for place, (n_pre, n_post) in enumerate(itertools.pairwise(CHANNELS[:3])):
        mask = torch.from_numpy(rng.random((n_post, n_pre, 3, 3, 1)) < density)
        with torch.no_grad():
            for model in models:
                model[place].synapse.weight.mul_(density**-0.5).mul_(mask)
        weights = models[0][place].synapse.weight.detach().flatten()
        block = sparse.SparseConv(
            neuron, n_pre, n_post, (3, 3), (1, 1), initial=weights.__getitem__
        )
        block.neuron.threshold_eps = 1 / block.neuron.s_scale
        block.synapse.weight.begin(mask.flatten().nonzero().flatten())
        few.append(block)
    stock, ours = models[0], fused.accelerate(models[1])
    outputs = stock(x)
    assert torch.equal(outputs, ours(x))
    assert torch.equal(outputs, few(x))
    assert 0.02 < outputs.mean() < 0.4
    steps = [
        step_of(m, functools.partial(_power, m, x), kind=kind)
        for m, kind in ((few, fused_adam), (stock, torch.optim.Adam), (ours, fused_adam))
    ]
    return ratios_of(steps[0], {"slayer": steps[1], "fused": steps[2]}, 3)


def _static(model: SpikingMLP, density: float) -> MaskEvolver:
    """Masks that are held and never rewired."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return MaskEvolver(
        model,
        optimizer,
        density=density,
        distribution="uniform",
        keep_dense=("readout",),
        alpha=0.0,
        t_end=1,
    )


def _bytes_per_connection() -> float:
    """Of all a step leaves behind in a sparse layer that has an input gradient."""
    model = fused.accelerate(_mlp((1024, 1024), ("hidden1", "hidden2")))
    _static(model, 0.1)
    _liven(model, 0.1)
    spikes, labels = _batch(784, 4)
    optimizer = fused_adam(model.parameters(), lr=0.001)
    tet(model(spikes), labels).backward()
    optimizer.step()
    weight = sparse_weights(model)["hidden2"]
    assert weight.values.grad is not None
    moments = [s for s in optimizer.state[weight.values].values() if s.numel() > 1]
    held = [weight.values, weight.values.grad, *moments, weight.starts, weight.pre]
    return sum(t.nbytes for t in (*held, *weight.by_pre())) / weight.values.numel()


def _train(model: nn.Module, names: tuple[str, ...], density: float, inputs: int) -> None:
    """Ten steps, then one update of the masks by random growth."""
    optimizer = fused_adam(model.parameters(), lr=0.001)
    evolver = MaskEvolver(
        model,
        optimizer,
        density=density,
        keep_dense=tuple(weight_layers(model).keys() - set(names)),
        prune="magnitude",
        alpha=0.3,
        t_iter=10,
        t_end=100,
    )
    spikes, labels = _batch(inputs, 4)
    for _ in range(10):
        optimizer.zero_grad()
        outputs = model(spikes)
        tet(outputs[:, :CLASSES], labels).backward()
        optimizer.step()
        evolver.step()
    (update,) = evolver.history
    assert sum(layer.grown for layer in update.layers) > 0.2 * sum(
        layer.connections for layer in update.layers
    )


def _wide() -> None:
    """784-4096-4096-10 at density 0.01."""
    names = ("hidden1", "hidden2")
    _train(fused.accelerate(_mlp((4096, 4096), names)), names, 0.01, 784)


def _huge() -> None:
    """A layer of 65,536 x 65,536 at density 1e-4."""
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
    sides = 1 << 16, 1 << 16
    initial = sparse.draw_like_slayer(*sides)
    block = sparse.SparseDense(neuron, *sides, spiking=True, initial=initial)
    _train(nn.Sequential(block), ("0",), 1e-4, sides[0])


def _peak(work: Step) -> float:
    """MiB that this process had at most, beyond what it held before."""
    status = Path("/proc/self/status")
    before = _kib(status.read_text(), "VmRSS")
    work()
    return (_kib(status.read_text(), "VmHWM") - before) / 1024


def _kib(status: str, key: str) -> int:
    """A field of `/proc/self/status`; getrusage would count the parent's peak too."""
    (line,) = (line for line in status.splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])


def _sparse_mlps(hidden: tuple[int, ...], density: float, rounds: int) -> Measured:
    name = "mlp" if len(hidden) == 1 else "wide"
    yield f"train.sparse.{name}_{_percent(density)}", _sparse_mlp(hidden, density, rounds)


def _sparse_convs(density: float) -> Measured:
    for other, ratios in _sparse_conv(density).items():
        yield f"train.sparse.conv_{_percent(density)}.vs_{other}", ratios


def _percent(density: float) -> str:
    return f"d{round(100 * density):03}"


_ALONE: dict[str, Callable[[], Measured]] = {
    "mlp_t4": lambda: _fused_mlp(4),
    "mlp_t32": lambda: _fused_mlp(32),
    "conv": lambda: iter([("train.fused.conv", _fused_conv(CHANNELS[:3], 8))]),
    "vggsnn": lambda: iter([("train.fused.vggsnn", _fused_conv(CHANNELS, 4))]),
    "mlp_d016": lambda: _sparse_mlps((800,), 0.16, ROUNDS),
    "mlp_d010": lambda: _sparse_mlps((800,), 0.1, ROUNDS),
    "mlp_d005": lambda: _sparse_mlps((800,), 0.05, ROUNDS),
    "wide_d010": lambda: _sparse_mlps((4096, 4096), 0.1, 3),
    "wide_d001": lambda: _sparse_mlps((4096, 4096), 0.01, 3),
    "conv_d010": lambda: _sparse_convs(0.1),
    "conv_d005": lambda: _sparse_convs(0.05),
    "bytes": lambda: iter([("train.sparse.bytes_per_connection", [_bytes_per_connection()])]),
    "wide_mib": lambda: iter([("train.sparse.wide_d001_mib", [_peak(_wide)])]),
    "huge_mib": lambda: iter([("train.sparse.huge_mib", [_peak(_huge)])]),
}
"""What has a process of its own."""


def _break_even() -> None:
    """Seconds of a fused layer's forward, backward and Adam over a sparse one's."""
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
    print("n_pre x n_post   T  first  density: fused / sparse")
    for n_pre, n_post in ((64, 128), (784, 100), (784, 800), (2048, 2048)):
        for steps, first in ((4, True), (4, False), (16, True), (16, False)):
            print(f"{n_pre:5} x {n_post:6}  {steps:2}  {first!s:5}  ", end="")
            for density in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
                ratio = _layer_ratio(neuron, n_pre, n_post, steps, first, density)
                print(f"{density}: {ratio:.2f}  ", end="", flush=True)
            print()


def _layer_ratio(
    neuron: dict[str, float], n_pre: int, n_post: int, steps: int, first: bool, density: float
) -> float:
    """Of a layer alone; one that is not the network's first has a gradient of its input."""
    torch.manual_seed(0)
    spikes, _ = _batch(n_pre, steps)
    x = spikes.requires_grad_(not first)
    dense = slayer.block.cuba.Dense(dict(neuron), n_pre, n_post, delay_shift=False)
    stored = sparse.SparseDense(
        neuron, n_pre, n_post, spiking=True, initial=lambda where: 8 * torch.rand(len(where)) - 4
    )
    stored.synapse.weight.begin((torch.rand(n_pre * n_post) < density).nonzero().flatten())
    with torch.no_grad():
        dense.synapse.weight.mul_(4)
        stored.synapse.weight.values.mul_(density**-0.5 / n_pre**0.5)
    fast, few = (
        step_of(block, functools.partial(_power, block, x), kind=fused_adam)
        for block in (fused.accelerate(dense), stored)
    )
    return statistics.median(ratios_of(few, {"fused": fast}, 3)["fused"])


if __name__ == "__main__":
    if sys.argv[1] == "break_even":
        _break_even()
    else:
        print(json.dumps(dict(_ALONE[sys.argv[1]]())))
