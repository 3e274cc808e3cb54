"""Convolutional networks: evaluation in training, stock SLAYER and the chip compute the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from esl_lava import modelfile, netfile
from esl_lava.config import from_mapping
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import load
from esl_lava.errors import FileError, LimitError
from esl_lava.experiments.export import export
from esl_lava.experiments.verify import verify
from esl_lava.export import check, lower, unbounded_layers
from esl_lava.models.build import build
from esl_lava.models.config import Convolutional
from esl_lava.models.convolutional import SpikingCNN
from esl_lava.models.restore import as_arrays, densified, restore
from esl_lava.models.stored import read_layers, trained_layers
from esl_lava.network import Convolution, Matrix, Network
from esl_lava.simulate import simulate
from esl_lava.training.losses import tet
from esl_lava.training.trainer import Trainer
from tests.faults import refused

NETWORKS = {
    "pools, a stride, a dense layer": ("6C3-AP2-8C3-AP2-8C3S2-12", (2, 16, 16), 4),
    "whole maps are pooled": ("6C5-GAP", (1, 8, 8), 6),
    "a pool of the input": ("AP2-6C3", (1, 8, 8), 4),
    "pools that leave out rows": ("4C3-8C1-AP2-AP2", (3, 9, 10), 5),
    "no kernels": ("20-10", (1, 6, 6), 7),
    "residual blocks": ("6C3-R6-R8S2-R8-GAP-12", (2, 9, 9), 4),
    "a residual block of the input": ("R6-AP2-R6", (3, 8, 8), 5),
}


def learnt(config: Convolutional, shape: tuple[int, ...], encoding: Encoding) -> SpikingCNN:
    """Return a network whose normalisations have running statistics, scales, shifts and signs."""
    torch.manual_seed(1)
    model = build(config, config.describe(shape, 10), encoding=encoding)
    assert isinstance(model, SpikingCNN)
    for _ in range(20):
        model(by_channel(drawn(shape, encoding)))
    for part in model.topology.weighted[:-1]:
        norm: Any = model.get_submodule(part.name).norm
        norm.weight.data = 0.7 * torch.randn(norm.weight.shape)
        norm.bias.data = 0.5 * torch.randn(norm.bias.shape)
        norm.running_var.mul_(0.5)
    return model.eval()


def drawn(shape: tuple[int, ...], encoding: Encoding, samples: int = 5) -> Any:
    """Return spikes (samples, T, inputs), or pixels that are the same at every step."""
    rng = np.random.default_rng(0)
    inputs = (samples, encoding.steps, int(np.prod(shape)))
    if encoding.bits is None:
        return (rng.random(inputs) < 0.3).astype(np.uint8)
    low, high = encoding.input_range
    pixels = rng.integers(low, high + 1, (samples, 1, inputs[2]), np.int8)
    pixels[0], pixels[1] = low, high  # the extreme inputs of the range rule
    return np.broadcast_to(pixels, inputs)


def coded(bits: int | None, steps: int) -> Encoding:
    """Return an encoding to spikes, or direct coding with this number of bits."""
    return (
        Encoding(steps=steps) if bits is None else Encoding(kind="direct", steps=steps, bits=bits)
    )


def by_channel(spikes: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(spikes.swapaxes(1, 2))).float()


def lowered(model: SpikingCNN, encoding: Encoding) -> Network:
    layers = read_layers(model.config, as_arrays(model.state_dict()), {})
    return lower(layers, steps=encoding.steps, input_range=encoding.input_range)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("thresholds", "bits"), [("layer", None), ("layer", 5), ("layer", 8), ("channel", 5)]
)
@pytest.mark.parametrize("case", NETWORKS)
def test_evaluation_slayer_and_simulator_agree(
    case: str, thresholds: Literal["layer", "channel"], bits: int | None
) -> None:
    notation, shape, steps = NETWORKS[case]
    config, encoding = Convolutional(layers=notation, thresholds=thresholds), coded(bits, steps)
    model, spikes = learnt(config, shape, encoding), drawn(shape, encoding)
    network = lowered(model, encoding)
    check(network)
    assert unbounded_layers(network, steps) == ()  # the range rule ensures it
    result = simulate(network, spikes, record="all", states="all")
    assert result.u is not None
    assert result.v is not None
    reference = model.reference(spikes, network)
    with torch.no_grad():
        outputs = model.layer_outputs(by_channel(spikes))
    for name, output in zip(model.topology.names, outputs):
        found = output.permute(0, 2, 1).numpy().astype(np.int64)
        u, v = reference.states(spikes, name)
        assert np.array_equal(u, result.u[name])
        assert np.array_equal(v, result.v[name])
        if name == "readout":
            assert np.array_equal(found.cumsum(axis=1) << 6, result.v[name])
            assert np.array_equal(reference.layers[name], result.v[name])
            assert np.array_equal(found.sum(axis=1).argmax(axis=1), result.decisions)
        else:
            assert np.array_equal(found, result.spikes[name])
            assert np.array_equal(reference.layers[name], result.spikes[name])
    assert 0.02 < outputs[0].mean() < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.05, 0.3, 0.75, 1.0])
def test_any_voltage_decay_is_the_chips(decay: float) -> None:
    """A decay of one half is a special case in float32. This test takes other decays."""
    notation, shape, steps = "6C3-AP2-R8", (2, 8, 8), 6
    config, encoding = Convolutional(layers=notation, voltage_decay=decay), coded(None, steps)
    model, spikes = learnt(config, shape, encoding), drawn(shape, encoding)
    for part in model.topology.weighted[:-1]:
        model.get_submodule(part.name).norm.bias.data += 0.5  # else deep layers are silent
    network = lowered(model, encoding)
    result = simulate(network, spikes, record="all")
    reference = model.reference(spikes, network).layers
    with torch.no_grad():
        outputs = model.layer_outputs(by_channel(spikes))
    for name, output in zip(model.topology.hidden_names, outputs):
        found = output.permute(0, 2, 1).numpy()
        assert found.any()
        assert np.array_equal(found, result.spikes[name])
        assert np.array_equal(reference[name], result.spikes[name])


@pytest.mark.slow
def test_spikes_are_exact_despite_errors_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sum has the error of another algorithm, and weights and inputs have 16 bits."""
    notation, shape, steps = NETWORKS["residual blocks"]
    config = Convolutional(layers=notation)
    encoding = coded(5, steps)
    model, spikes = learnt(config, shape, encoding), by_channel(drawn(shape, encoding))
    with torch.no_grad():
        expected = model.layer_outputs(spikes)
    generator = torch.Generator().manual_seed(1)

    def noisy(operation: Any) -> Any:
        def computed(maps: torch.Tensor, weight: torch.Tensor, *others: Any) -> torch.Tensor:
            narrow = (part.bfloat16().float() for part in (maps, weight))
            found: torch.Tensor = operation(*narrow, *others)
            return found + 0.8 * torch.rand(found.shape, generator=generator) - 0.4

        return computed

    for name in ("conv2d", "linear"):
        monkeypatch.setattr(functional, name, noisy(getattr(functional, name)))
    with torch.no_grad():
        found = model.layer_outputs(spikes)
    for ours, theirs in zip(found, expected):
        assert torch.equal(ours, theirs)
    assert expected[-1].abs().max() > 0


@pytest.mark.slow
def test_pixels_that_stay_are_weighted_once() -> None:
    """The results are the same if the first layer computes one step or all steps."""
    config, encoding, shape = Convolutional(layers="6C3-AP2-R8"), coded(5, 3), (3, 8, 8)
    model = learnt(config, shape, encoding)
    every = by_channel(drawn(shape, encoding))
    once = every[..., :1].expand(every.shape)
    assert once.stride(2) == 0
    for ours, theirs in zip(model.layer_outputs(once), model.layer_outputs(every)):
        assert torch.equal(ours, theirs)
    first, second = (copy.deepcopy(model).train() for _ in range(2))
    outputs = first.layer_outputs(once), second.layer_outputs(every)
    assert outputs[0][0].shape == outputs[1][0].shape
    # float32 means of some numbers, and of three times as many.
    means = (network.get_buffer("conv1.norm.running_mean") for network in (first, second))
    torch.testing.assert_close(*means, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_passes_of_torch_alone_train_as_the_kernels_do() -> None:
    notation, shape, steps = NETWORKS["residual blocks"]
    config = Convolutional(layers=notation)
    torch.manual_seed(0)
    ours: Any = build(config, config.describe(shape, 10), encoding=Encoding(steps=steps))
    theirs = copy.deepcopy(ours)
    theirs.native = True
    spikes, labels = by_channel(drawn(shape, Encoding(steps=steps))), torch.arange(5)
    for model in (ours, theirs):
        tet(model(spikes), labels).backward()
    for (name, weight), other in zip(ours.named_parameters(), theirs.parameters()):
        # float32 sums in another order; no neuron is so near its threshold that this matters.
        close = {"rtol": 1e-3, "atol": 1e-4 * float(other.grad.abs().max())}
        torch.testing.assert_close(weight.grad, other.grad, **close, msg=name)
        assert weight.grad.abs().sum() > 0
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(name), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "bits"),
    [
        ("pools, a stride, a dense layer", None),
        ("pools, a stride, a dense layer", 5),
        ("residual blocks", 5),
    ],
)
@pytest.mark.parametrize("backend", ["lava-models", "lava"])
def test_lava_agrees(backend: str, case: str, bits: int | None) -> None:
    notation, shape, steps = NETWORKS[case]
    encoding = coded(bits, steps)
    network = lowered(learnt(Convolutional(layers=notation), shape, encoding), encoding)
    spikes = drawn(shape, encoding, samples=3)
    ours = simulate(network, spikes, record="all")
    theirs = simulate(network, spikes, backend=backend, record="all")
    for name, fired in ours.spikes.items():
        assert np.array_equal(fired, theirs.spikes[name])
    assert np.array_equal(ours.readout, theirs.readout)


def test_pools_are_folded_into_kernels_and_rows() -> None:
    config = Convolutional(layers="6C3-AP2-8C3-AP2")
    encoding = Encoding(steps=4)
    conv1, conv2, readout = lowered(learnt(config, (1, 8, 8), encoding), encoding).layers
    first, second, last = (layer.inputs[0].connections for layer in (conv1, conv2, readout))
    assert isinstance(first, Convolution)
    assert isinstance(second, Convolution)
    assert isinstance(last, Matrix)
    assert (first.kernel.shape, first.stride, first.padding) == ((6, 1, 3, 3), (1, 1), (1, 1))
    assert (second.kernel.shape, second.stride, second.padding) == ((8, 6, 6, 6), (2, 2), (2, 2))
    assert np.array_equal(second.kernel[..., ::2, ::2], second.kernel[..., 1::2, 1::2])
    assert (last.n_post, last.n_pre) == (10, 8 * 4 * 4)
    assert conv1.bias is not None
    assert np.array_equal(conv1.bias.reshape(6, 64), np.repeat(conv1.bias[::64, None], 64, 1))


def test_training_normalises_the_input_weighted_by_rounded_weights() -> None:
    torch.manual_seed(0)
    config = Convolutional(layers="4C3")
    model: Any = build(config, config.describe((1, 6, 6), 3), encoding=Encoding(steps=5))
    spikes = by_channel(drawn((1, 6, 6), Encoding(steps=5)))
    block = model.conv1
    folded = model.fold_layer(block.layer)
    integers = folded.rows[0].values.reshape(4, -1)
    weight = torch.from_numpy(integers * folded.scales[0][:, None]).float().view(4, 1, 3, 3)
    assert (weight - block.synapse.weight[..., 0]).abs().max() < 1 / 100
    maps = spikes.view(5, 1, 6, 6, 5).permute(4, 0, 1, 2, 3).flatten(0, 1)
    z = torch.nn.functional.conv2d(maps, weight, padding=1)
    mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)
    model(spikes).sum().backward()
    assert torch.allclose(block.norm.running_mean, 0.1 * mean, atol=1e-6)
    assert block.synapse.weight.grad.abs().min() > 0
    assert variance.min() > 0


@pytest.mark.slow
def test_layers_that_sum_their_own_spikes_learn_the_same() -> None:
    notation, shape, steps = NETWORKS["pools that leave out rows"]
    encoding = Encoding(steps=steps)
    inputs, found = by_channel(drawn(shape, encoding)), []
    for alone in (False, True):
        model = learnt(Convolutional(layers=notation), shape, encoding).train()
        assert model._pools["conv2"] == 4
        if alone:
            model._pools = {}
        out = model(inputs)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        found.append([out.detach(), *(weight.grad for weight in model.parameters())])
    for mine, other in zip(*found):
        # Sums in float32, in another order.
        assert torch.allclose(mine, other, rtol=0, atol=1e-5 * float(other.abs().max()))
    assert all(part.count_nonzero() for part in found[0])


def test_a_normalisation_that_scales_by_zero_learns() -> None:
    torch.manual_seed(0)
    config = Convolutional(layers="4C3")
    model: Any = build(config, config.describe((1, 6, 6), 3), encoding=Encoding(steps=5))
    model.conv1.norm.weight.data[1] = 0
    model(by_channel(drawn((1, 6, 6), Encoding(steps=5)))).sum().backward()
    assert model.conv1.norm.weight.grad[1] != 0
    assert not model.fold_layer(model.conv1.layer).rows[0].values.reshape(4, -1)[1].any()


EXPERIMENT = {
    "seed": 2,
    "encoding": {"steps": 3},
    "model": {"kind": "convolutional", "layers": "4C3-AP2-8C3"},
    "sparsity": {"density": 0.4, "keep_dense": ["conv1", "readout"], "t_iter": 4},
    "training": {"epochs": 4, "batch_size": 30, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network and its net.h5, in a folder."""
    folder = tmp_path_factory.mktemp("convolutional")
    experiment = from_mapping(EXPERIMENT)
    model = Trainer(experiment, load("digits", "train").take(400)).run()
    modelfile.write(model, folder / "model.pt")
    network = lower(trained_layers(modelfile.read(folder / "model.pt")), steps=3)
    netfile.write(network, folder / "net.h5")
    return folder


@pytest.mark.slow
def test_a_trained_network_is_verified(saved: Path) -> None:
    found = verify(saved / "model.pt", saved / "net.h5", samples=5, backends=("exact",))
    assert found.differences == {"exact": 0}
    assert found.integers.differences == ()
    assert found.spikes > 500


def test_a_trained_network_keeps_its_density_and_is_restored(saved: Path) -> None:
    model = modelfile.read(saved / "model.pt")
    mask = model.masks["conv2"]
    assert mask.shape == (8, 4, 3, 3, 1)
    assert mask.sum() == round(0.4 * mask.size)
    assert [*model.masks] == ["conv2"]
    network = restore(model)
    assert not network.training
    again = modelfile.read(saved / "model.pt")
    for name, entry in network.state_dict().items():
        assert np.array_equal(entry.numpy(), again.weights[name])


@pytest.mark.slow
def test_the_restored_network_decides_like_the_simulator(saved: Path) -> None:
    experiment = from_mapping(EXPERIMENT)
    data = load("digits", "test")
    network = netfile.read(saved / "net.h5")
    decisions = simulate(network, data.spikes(experiment.encoding)).decisions
    model = restore(modelfile.read(saved / "model.pt"))
    with torch.no_grad():
        sums = model(by_channel(data.spikes(experiment.encoding))).sum(dim=2)
    assert np.array_equal(sums.argmax(dim=1).numpy(), decisions)


STORED = {
    **EXPERIMENT,
    "encoding": {"kind": "direct", "steps": 3, "bits": 4},
    "model": {"kind": "convolutional", "layers": "4C3-R8S2-AP2-12"},
    "sparsity": {"density": 0.4, "keep_dense": ["conv1"], "t_iter": 4, "growth": "momentum"},
    "training": {"epochs": 3, "batch_size": 20, "learning_rate": 0.02},
}


def stored(engine: str) -> Trainer:
    training = {**STORED["training"], "engine": engine}  # type: ignore[dict-item]
    data = load("digits", "train").take(200)
    return Trainer(from_mapping({**STORED, "training": training}), data)


@pytest.mark.slow
def test_layers_that_store_only_connections_train_like_masked_layers() -> None:
    """The layers are convolutions after pools and strides, a shortcut, dense layers, a readout."""
    sparse, fused = stored("sparse"), stored("fused")
    names = [part.name for part in fused.model.topology.weighted][1:]
    data = fused.train_data.take(20)
    inputs, labels = fused.kind.encode(fused.experiment, data), torch.from_numpy(data.labels)
    for trainer in (sparse, fused):
        tet(trainer.model(inputs), labels).backward()
    for name in names:
        weight = sparse.model.get_submodule(name).synapse.weight
        dense = fused.model.get_submodule(name).synapse.weight
        places = weight.positions()
        assert torch.equal(fused.evolver.masks[name].flatten().nonzero().flatten(), places)
        assert torch.equal(weight.values, dense.flatten()[places])
        gradient = dense.grad.flatten()[places]
        # Sums of some hundred float32 numbers in another order, through up to five layers.
        close = {"rtol": 1e-3, "atol": 1e-4 * float(gradient.abs().max())}
        torch.testing.assert_close(weight.values.grad, gradient, **close)


@pytest.mark.slow
def test_layers_that_store_only_connections_are_exported_and_resumed(tmp_path: Path) -> None:
    states: list[modelfile.SavedModel] = []
    whole = stored("sparse")
    model = whole.run(save=states.append)
    again = stored("sparse")
    resumed = Trainer(again.experiment, load("digits", "train").take(200), states[0]).run()
    for name, entry in model.weights.items():
        assert np.array_equal(entry, resumed.weights[name])
    modelfile.write(model, tmp_path / "model.pt")
    assert "conv2.synapse.weight.values" in modelfile.read(tmp_path / "model.pt").weights
    export(tmp_path / "model.pt", tmp_path / "net.h5")
    backends = ("exact", "lava-models")
    found = verify(tmp_path / "model.pt", tmp_path / "net.h5", samples=4, backends=backends)
    assert found.differences == {"exact": 0, "lava-models": 0}
    assert found.integers.differences == ()
    assert found.spikes > 500
    dense = densified(model)
    assert dense.masks["shortcut3"].shape == (8, 4, 1, 1, 1)
    network = restore(dense)
    data = load("digits", "test").take(50)
    inputs = whole.kind.encode(whole.experiment, data)
    with torch.no_grad():
        assert torch.equal(network(inputs), restore(model)(inputs))


def test_a_damaged_stored_kernel_is_refused() -> None:
    trainer = stored("sparse")
    entries = as_arrays(trainer.model.state_dict())
    config = trainer.experiment.model
    assert len(read_layers(config, entries, {})) == 5
    entries["conv2.synapse.weight.pre"] = entries["conv2.synapse.weight.pre"] + 36
    key = "conv2.synapse.weight"
    with refused(FileError, "damaged", key=key, layer="conv2") as caught:
        read_layers(config, entries, {})
    assert "0..35" in str(caught.value)


def without(entries: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "key", "part"),
    [
        (lambda e: without(e, "input_shape"), None, "convolutional network"),
        (lambda e: e | {"input_shape": np.array([1, 8])}, None, "convolutional network"),
        (lambda e: e | {"input_shape": np.array([1, 9, 9])}, ..., "9 x 9"),
        (
            lambda e: without(e, "conv2.norm.running_var"),
            "conv2.norm.running_var",
            "layers = '4C3-AP2-8C3'",
        ),
        (
            lambda e: e | {"conv1.norm.bias": np.zeros(5, np.float32)},
            "conv1.norm.bias",
            "float32 of shape (5,)",
        ),
        (
            lambda e: e | {"conv1.synapse.weight": np.zeros((4, 1, 3, 3), np.float32)},
            "conv1.synapse.weight",
            "float32 of shape (4, 1, 3, 3)",
        ),
    ],
)
def test_entries_that_do_not_fit_are_refused(saved: Path, change: Any, key: Any, part: str) -> None:
    model = modelfile.read(saved / "model.pt")
    config = from_mapping(EXPERIMENT).model
    fields = {} if key is ... else {"key": key}  # ...: whatever key `describe` names
    with refused(FileError, "mismatch", **fields) as caught:
        read_layers(config, change(dict(model.weights)), model.masks)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("conv2.norm.running_var", np.nan, "16 numbers"),
        ("conv1.norm.bias", 5000.0, "no threshold"),
        ("conv1.synapse.weight", np.inf, "36 weights"),
    ],
)
def test_layers_without_integers_are_not_exported(
    saved: Path, key: str, value: float, part: str
) -> None:
    model = modelfile.read(saved / "model.pt")
    entries = {**model.weights, key: np.full_like(model.weights[key], value)}
    layers = read_layers(from_mapping(EXPERIMENT).model, entries, model.masks)
    with pytest.raises(LimitError) as caught:
        lower(layers, steps=3)
    assert key.split(".")[0] in str(caught.value)
    assert part in str(caught.value)


def test_a_layer_without_integers_is_named(saved: Path) -> None:
    """Training and evaluation apply the range rule too."""
    model: Any = restore(modelfile.read(saved / "model.pt"))
    with torch.no_grad():
        model.conv1.norm.bias.fill_(5000.0)
    with refused(LimitError, "limit", layer="conv1"):
        model.fold_layer(model.conv1.layer)
