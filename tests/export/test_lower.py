"""Trained floats become SLAYER's integers and give the same spikes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.engines.slayer import slayer
from esl_lava.errors import FileError, LimitError
from esl_lava.export import lower
from esl_lava.export.lower import integer_decay, integer_threshold, integer_weights
from esl_lava.models.config import MultiSpike
from esl_lava.models.mlp import SpikingMLP
from esl_lava.models.restore import as_arrays
from esl_lava.models.stored import read_layers
from esl_lava.network import INTEGRATOR, Cuba, Network
from esl_lava.simulate import simulate
from esl_lava.topology import describe
from esl_lava.trained import (
    CubaNeuron,
    DenseWeights,
    NormalisedNeuron,
    NormalisedReadout,
    NormalisedWeights,
    OneSpikeNeuron,
    ReadoutNeuron,
    Sliding,
    SparseWeights,
    TrainedLayer,
)
from tests.faults import check, refused

CUBA, READOUT = CubaNeuron(1.0, 0.5, 1.0), ReadoutNeuron()


def neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.5):
    return slayer.neuron.cuba.Neuron(threshold, current_decay, voltage_decay)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_integer_weights_are_slayers(dtype):
    ties = torch.arange(-400, 401, dtype=dtype) / 64  # every odd one is a tie
    generator = torch.Generator().manual_seed(0)
    weights = torch.cat(
        [
            ties,
            torch.nextafter(ties, torch.tensor(9.0, dtype=dtype)),
            torch.nextafter(ties, torch.tensor(-9.0, dtype=dtype)),
            4 * torch.randn(5000, generator=generator, dtype=dtype),
            torch.tensor([-0.0, 1e-45, -1e-45, 1e30, -1e30, 3e38, -3e38], dtype=dtype),
        ]
    )
    ours = integer_weights(weights.numpy())
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, neuron().quantize_8bit(weights, descale=True).numpy())
    assert (ours.min(), ours.max()) == (-256, 254)
    assert not (ours % 2).any()


def by_torch(weights: np.ndarray) -> np.ndarray:
    """Compute the same rule with torch, in the precision of the weights."""
    halves = torch.round(torch.from_numpy(weights) * 32.0).clamp(-128, 127)
    return (2 * halves).numpy().astype(np.int32)


def finite(bits: list[int]) -> np.ndarray:
    """Return the floats of these 32 bits, without those that are not finite."""
    weights = np.array(bits, np.uint32).view(np.float32)
    return weights[np.isfinite(weights)]


@pytest.mark.slow
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200))
def test_numpy_rounds_as_torch_does_whatever_the_bits(bits):
    weights = finite(bits)
    np.testing.assert_array_equal(integer_weights(weights), by_torch(weights))


def test_numpy_rounds_as_torch_does_over_a_million_random_bits():
    rng = np.random.default_rng(0)
    anywhere = finite(rng.integers(0, 2**32, 500_000))
    # Most of these are far from 0 or close to 0. The other half lies where rounding differs.
    exponents = rng.integers(110, 131, 500_000) << 23
    near = finite(exponents | rng.integers(0, 1 << 23, 500_000) | rng.integers(0, 2, 500_000) << 31)
    for weights in (anywhere, near):
        np.testing.assert_array_equal(integer_weights(weights), by_torch(weights))
    assert len(np.unique(integer_weights(near))) == 256


def test_ties_go_to_the_even_half():
    ties = torch.tensor([1, 3, 5, -1, -3, 253, 255, -255, -257]) / 64
    assert integer_weights(ties.numpy()).tolist() == [0, 4, 4, 0, -4, 252, 254, -256, -256]


def test_decays_and_thresholds_are_slayers():
    decays = [0.0, 1.0, 0.5, 0.1, 1 / 3, 2.5 / 4096, 3.5 / 4096, *np.linspace(0, 1, 331)]
    for decay in map(float, decays):
        block = neuron(current_decay=decay, voltage_decay=1 - decay)
        stored = [p.item() / 4096 for p in (block.current_decay, block.voltage_decay)]
        assert integer_decay(stored[0]) == block.cx_current_decay
        assert integer_decay(stored[1]) == block.cx_voltage_decay
    for threshold in (1 / 64, 0.95, 1.0, 1.3, 63.99, 64.0, 100.5, 2047.984375):
        block = neuron(threshold)
        assert integer_threshold(block.threshold) == block.v_th_mant


@pytest.mark.parametrize("decays", [(1.0, 0.5), (0.1, 0.03), (0.0, 1.0), (1 / 3, 0.0)])
@pytest.mark.parametrize("threshold", [1 / 64, 0.95, 3.25])
def test_lowered_neurons_are_slayers_device_parameters(decays, threshold):
    # A user cannot configure a threshold of 0.95.
    fields = dict(zip(("current_decay", "voltage_decay"), decays))
    config = MultiSpike.model_construct(layers="4-3", threshold=threshold, **fields)
    model = SpikingMLP(config.describe((5,), 2), config)
    network = lower(read_layers(config, as_arrays(model.state_dict()), {}))
    for layer, block in zip(network.layers, (model.hidden1, model.hidden2)):
        expected = block.neuron.device_params
        assert layer.neuron.current_decay == expected["iDecay"]
        assert layer.neuron.voltage_decay == expected["vDecay"]
        assert layer.neuron.threshold == expected["vThMant"]
    assert network.layers[-1].neuron == INTEGRATOR
    assert [layer.name for layer in network.layers] == ["hidden1", "hidden2", "readout"]
    assert all(layer.bias is None for layer in network.layers)


def trained_layers(model: SpikingMLP, masks=None, **neuron) -> tuple[TrainedLayer, ...]:
    """Return the layers of a network with such neurons, from its state dict."""
    hidden = "-".join(str(layer.neurons) for layer in model.topology.layers if not layer.readout)
    config = MultiSpike(layers=hidden, **neuron)
    return read_layers(config, as_arrays(model.state_dict()), masks or {})


def scaled(model: SpikingMLP, gain: float) -> SpikingMLP:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    return model


def test_lowering_reads_only():
    torch.manual_seed(0)
    model = SpikingMLP(describe("4", (5,), 2), MultiSpike())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = lower(trained_layers(model), steps=7, provenance={"source": "test"})
    assert (network.steps, dict(network.provenance)) == (7, {"source": "test"})
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert lower(trained_layers(model)).steps is None


def test_masks_are_kept_even_where_a_weight_rounds_to_nothing():
    model = SpikingMLP(describe("2", (3,), 2), MultiSpike())
    hidden = model.hidden1.synapse.weight
    weight = torch.tensor([[1.0, 0.0, 0.004], [-0.0, -1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [False, True, False]])
    with torch.no_grad():
        hidden.copy_(weight.reshape(hidden.shape))
    network = lower(trained_layers(model, {"hidden1": mask.reshape(hidden.shape).numpy()}))
    connections, readout = (layer.inputs[0].connections for layer in network.layers)
    np.testing.assert_array_equal(connections.mask(), mask.numpy())
    assert connections.dense().tolist() == [[64, 0, 0], [0, -64, 0]]
    assert (connections.count, connections.synapses) == (4, 2)
    assert readout.count == readout.possible  # without a mask every connection exists
    by_number = lower(
        trained_layers(model, {"hidden1": mask.numpy().astype(np.uint8).reshape(hidden.shape)})
    )
    np.testing.assert_array_equal(by_number.layers[0].inputs[0].connections.mask(), mask.numpy())


def test_unusable_layers_are_all_named():
    rng = np.random.default_rng(0)
    layers = []
    for name, source in (("hidden1", "input"), ("hidden2", "hidden1"), ("readout", "hidden2")):
        values = rng.normal(size=(4, 4, 1, 1, 1)).astype(np.float32)
        mask = np.ones_like(values, bool)
        if name != "readout":
            mask.flat[:2] = False
            values[~mask] = 0
        layers.append(TrainedLayer(name, {source: DenseWeights(values, mask)}, CUBA))
    first, second, third = (weights for layer in layers for weights in layer.inputs.values())
    first.values.flat[1] = 1e-30  # pruned but not 0, although it rounds to 0
    second.values.flat[2:4] = np.nan, -np.inf
    third.values.flat[5] = np.inf
    with pytest.raises(LimitError) as caught:
        lower(layers)
    stray, *broken = caught.value.faults
    check(stray, "mismatch", value=1, layer="hidden1")
    for fault, (name, number) in zip(broken, (("hidden2", 2), ("readout", 1)), strict=True):
        check(fault, "not-finite", value=number, layer=name)


def test_a_mask_of_no_layer():
    model = SpikingMLP(describe("2", (2,), 2), MultiSpike())
    with pytest.raises(FileError, match="hidden_1"):
        trained_layers(model, {"hidden_1": np.ones((2, 2))})


def trained(name: str, source: str, weights: np.ndarray, neuron=CUBA) -> TrainedLayer:
    return TrainedLayer(name, {source: DenseWeights(weights)}, neuron)


def test_layers_are_lowered_by_hand():
    """Each type of neuron has its rule; dense and sparse weights give the same connections."""
    values = np.array([[0.5, 0.0, -1.0], [0.0, 0.25, 0.0]], np.float32)
    dense = DenseWeights(values, values != 0)
    sparse = SparseWeights(3, np.array([0, 2, 3]), np.int32([0, 2, 1]), np.float32([0.5, -1, 0.25]))
    for weights in (dense, sparse):
        layers = (
            TrainedLayer("a", {"input": weights}, CubaNeuron(0.25, 0.5, 1.5)),
            TrainedLayer("b", {"a": DenseWeights(np.float32([[1, -4], [3.96, 0.02]]))}, READOUT),
        )
        network = lower(layers, steps=3)
        first, last = network.layers
        assert first.inputs[0].connections.dense().tolist() == [[32, 0, -64], [0, 16, 0]]
        assert first.inputs[0].connections.count == 3
        assert first.neuron == Cuba(1024, 2048, 96)
        assert last.inputs[0].connections.dense().tolist() == [[64, -256], [254, 2]]
        assert last.neuron == INTEGRATOR
        # Neurons that fire once: the largest weight, -1, becomes -256, and the threshold
        # 256 / (1 - a), with a = 3/4.
        once = lower([TrainedLayer("a", {"input": weights}, OneSpikeNeuron(0.25))], steps=3)
        assert once.layers[0].neuron == Cuba(1024, 0, 1024, refractory=2)
        assert once.layers[0].inputs[0].connections.dense().tolist() == [[128, 0, -256], [0, 64, 0]]
        assert once.layers[0].inputs[0].connections.count == 3


def test_weights_of_more_axes_than_a_matrix_are_refused_by_name():
    """A kernel flattened to a matrix would be another function."""
    ones = np.ones((2, 3, 1, 1, 1), np.float32)
    flat = lower([trained("a", "input", ones)])
    assert flat.layers[0].inputs[0].connections.dense().shape == (2, 3)
    for shape in ((2, 3, 3, 3, 1), (2, 3, 1, 1, 2), (2, 1, 2), (6,), ()):
        layers = [trained("a", "input", ones), trained("conv", "a", np.ones(shape, np.float32))]
        with refused(LimitError, "shape", value=shape, layer="conv"):
            lower(layers)


def test_what_the_integer_network_cannot_express_is_refused_by_name():
    ones = np.ones((2, 2), np.float32)
    layers = [
        trained("a", "input", ones),
        trained("b", "input", ones),
        TrainedLayer("c", {"b": DenseWeights(ones), "d": DenseWeights(ones)}, CUBA),
        trained("d", "c", ones, neuron=None),
    ]
    with pytest.raises(LimitError) as caught:
        lower(layers)
    source, neuron = caught.value.faults
    check(source, "unknown", value="d", layer="c")
    check(neuron, "unsupported", value="NoneType", layer="d")
    with pytest.raises(ValueError, match="neurons that fire once need `steps`"):
        lower([trained("a", "input", ones, neuron=OneSpikeNeuron(0.5))])


def test_faults_of_normalised_layers():
    values = DenseWeights(np.ones((2, 4, 1, 1, 1), np.float32))
    neuron = NormalisedNeuron(0.5, np.array([0.0, np.nan]))

    def weights(gain=None):
        return NormalisedWeights("a", values, (2, 4, 1, 1, 1), Sliding((1, 2, 2)), gain)

    gain = np.array([1.0, np.inf])
    cases = (
        ({"input": weights()}, neuron, [("missing", "gain", None), ("not-finite", None, 1)]),
        ({"input": weights(gain)}, neuron, [("not-finite", None, 2)]),
        ({"input": values}, NormalisedReadout(), [("unsupported", None, None)]),
        (
            {"input": weights(), "b": weights()},
            NormalisedReadout(),
            [("unsupported", None, 2), ("unknown", None, "b")],
        ),
    )
    for inputs, kind, expected in cases:
        with pytest.raises(LimitError) as caught:
            lower([TrainedLayer("a", inputs, kind)], steps=2)
        faults = caught.value.faults
        for fault, (code, key, value) in zip(faults, expected, strict=True):
            check(fault, code, key=key, value=value, layer="a")
    # No threshold keeps such a bias within the range of the chip.
    huge = NormalisedNeuron(0.5, np.array([0.0, 1e9]))
    with refused(LimitError, "limit", layer="a"):
        lower([TrainedLayer("a", {"input": weights(np.ones(2))}, huge)], steps=2)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(2,\).*\(2, 3\)"):
        DenseWeights(np.ones((2, 3)), np.ones(2))


@pytest.mark.slow
def test_export_imports_no_torch():
    code = "import sys, esl_lava.export; print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["False"]


def assert_same_spikes(model: SpikingMLP, network: Network, inputs: np.ndarray) -> list[float]:
    """Compare the spikes of all layers; return each hidden layer's rate."""
    with torch.no_grad():
        outputs = model.layer_outputs(torch.from_numpy(inputs).float().permute(0, 2, 1))
    result = simulate(network, inputs, record="all")
    trained = [output.permute(0, 2, 1).numpy() for output in outputs]
    assert list(result.spikes) == list(model.topology.hidden_names)
    for spikes, expected in zip(result.spikes.values(), trained):
        np.testing.assert_array_equal(spikes, expected)
    # O(t) in weights; v in 1/64 integer weights, which are 1/64 weights.
    summed = np.cumsum(trained[-1].astype(np.float64), axis=1) * 64 * 64
    np.testing.assert_array_equal(result.readout, summed)
    return [float(spikes.mean()) for spikes in result.spikes.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "current_decay", "voltage_decay", "threshold", "gain"),
    [
        ((30,), 1.0, 0.5, 1.0, 6),
        ((30, 20, 25), 1.0, 0.5, 1.0, 6),
        ((30, 20), 0.25, 0.1, 1.0, 3),
        ((25, 15), 0.1, 0.0, 3.25, 4),
        ((25, 15), 0.0, 1.0, 0.5, 1),
        ((20, 15), 0.33, 0.77, 1 / 64, 2),
        ((30, 30), 0.0, 0.01, 65.0, 30),
    ],
)
def test_simulated_spikes_are_slayers(hidden, current_decay, voltage_decay, threshold, gain):
    rates = []
    neuron = {
        "current_decay": current_decay,
        "voltage_decay": voltage_decay,
        "threshold": threshold,
    }
    for seed in range(3):
        torch.manual_seed(seed)
        topology = describe("-".join(map(str, hidden)), (24,), 6)
        model = scaled(SpikingMLP(topology, MultiSpike(**neuron)), gain)
        rng = np.random.default_rng(seed)
        inputs = (rng.random((6, 12, 24)) < 0.4).astype(np.uint8)
        network = lower(trained_layers(model, **neuron), steps=12)
        rates.append(assert_same_spikes(model, network, inputs))
    assert (np.array(rates) > 0.02).all(), "silent layers prove nothing"


def test_simulated_spikes_of_a_masked_network_are_slayers():
    torch.manual_seed(1)
    model = scaled(SpikingMLP(describe("40-30", (24,), 6), MultiSpike()), 10)
    generator = torch.Generator().manual_seed(2)
    masks = {}
    with torch.no_grad():
        for name in model.topology.hidden_names:
            weight = model.get_submodule(name).synapse.weight
            masks[name] = torch.rand(weight.shape, generator=generator) < 0.2
            weight.mul_(masks[name])
    network = lower(trained_layers(model, as_arrays(masks)))
    assert network.layers[0].inputs[0].connections.count == int(masks["hidden1"].sum())
    inputs = (np.random.default_rng(0).random((8, 10, 24)) < 0.4).astype(np.uint8)
    assert min(assert_same_spikes(model, network, inputs)) > 0.02


# Above 64, SLAYER's default `threshold_eps` is lost in float32.
@pytest.mark.parametrize(("threshold", "weight"), [(1.0, 0.5), (1.0, 1.0), (100.0, 2.0)])
def test_a_potential_exactly_at_the_threshold_does_not_fire(threshold, weight):
    model = SpikingMLP(describe("1", (1,), 1), MultiSpike(voltage_decay=0.0, threshold=threshold))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.fill_(weight)
    steps = round(threshold / weight) + 1  # the last input but one reaches the threshold
    rate = assert_same_spikes(
        model,
        lower(trained_layers(model, voltage_decay=0.0, threshold=threshold)),
        np.ones((1, steps, 1), np.uint8),
    )
    assert rate == [pytest.approx(1 / steps)]
