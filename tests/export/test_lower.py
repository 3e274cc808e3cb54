"""Trained floats become SLAYER's own integers, and mean the same spikes."""

import numpy as np
import pytest
import torch

from esl_lava.engines.slayer import slayer
from esl_lava.errors import LimitError
from esl_lava.export import lower
from esl_lava.export.lower import integer_decay, integer_threshold, integer_weights
from esl_lava.models.mlp import SpikingMLP
from esl_lava.network import INTEGRATOR, Network
from esl_lava.simulate import simulate
from esl_lava.topology import describe


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
    ours = integer_weights(weights)
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, neuron().quantize_8bit(weights, descale=True).numpy())
    assert (ours.min(), ours.max()) == (-256, 254)
    assert not (ours % 2).any()


def test_ties_go_to_the_even_half():
    ties = torch.tensor([1, 3, 5, -1, -3, 253, 255, -255, -257]) / 64
    assert integer_weights(ties).tolist() == [0, 4, 4, 0, -4, 252, 254, -256, -256]


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
    model = SpikingMLP(
        describe("4-3", (5,), 2),
        current_decay=decays[0],
        voltage_decay=decays[1],
        threshold=threshold,
    )
    network = lower(model)
    for layer, block in zip(network.layers, model.hidden_blocks()):
        expected = block.neuron.device_params
        assert layer.neuron.current_decay == expected["iDecay"]
        assert layer.neuron.voltage_decay == expected["vDecay"]
        assert layer.neuron.threshold == expected["vThMant"]
    assert network.layers[-1].neuron == INTEGRATOR
    assert [layer.name for layer in network.layers] == ["hidden1", "hidden2", "readout"]
    assert all(layer.bias is None for layer in network.layers)


def scaled(model: SpikingMLP, gain: float) -> SpikingMLP:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    return model


def test_lowering_reads_only():
    torch.manual_seed(0)
    model = SpikingMLP(describe("4", (5,), 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = lower(model, steps=7, provenance={"source": "test"})
    assert (network.steps, dict(network.provenance)) == (7, {"source": "test"})
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert lower(model).steps is None


def test_masks_are_kept_even_where_a_weight_rounds_to_nothing():
    model = SpikingMLP(describe("2", (3,), 2))
    hidden = model.hidden1.synapse.weight
    weight = torch.tensor([[1.0, 0.0, 0.004], [-0.0, -1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [False, True, False]])
    with torch.no_grad():
        hidden.copy_(weight.reshape(hidden.shape))
    network = lower(model, {"hidden1": mask.reshape(hidden.shape)})
    connections, readout = (layer.connections for layer in network.layers)
    np.testing.assert_array_equal(connections.mask(), mask.numpy())
    assert connections.dense().tolist() == [[64, 0, 0], [0, -64, 0]]
    assert (connections.count, connections.synapses) == (4, 2)
    assert readout.count == readout.possible  # without a mask every connection exists
    by_number = lower(model, {"hidden1": mask.to(torch.uint8).reshape(hidden.shape)})
    np.testing.assert_array_equal(by_number.layers[0].connections.mask(), mask.numpy())


def test_unusable_layers_are_all_named():
    torch.manual_seed(0)
    model = SpikingMLP(describe("4-4", (4,), 3))
    masks = {}
    with torch.no_grad():
        for name in ("hidden1", "hidden2"):
            weight = model.get_submodule(name).synapse.weight
            masks[name] = torch.ones_like(weight).bool()
            masks[name].flatten()[:2] = False
            weight[~masks[name]] = 0
        model.hidden1.synapse.weight.flatten()[1] = 1e-30  # stray, though it rounds to 0
        model.hidden2.synapse.weight.flatten()[2] = float("nan")
        model.hidden2.synapse.weight.flatten()[3] = float("-inf")
        model.readout.synapse.weight.flatten()[5] = float("inf")
    with pytest.raises(LimitError) as caught:
        lower(model, masks)
    assert caught.value.violations == (
        "layer hidden1: 1 pruned connections have a weight other than 0",
        "layer hidden2: 2 weights are NaN or infinite",
        "layer readout: 1 weights are NaN or infinite",
    )


def test_a_mask_of_no_layer():
    model = SpikingMLP(describe("2", (2,), 2))
    with pytest.raises(ValueError, match="masks for hidden_1, but layers are hidden1, readout"):
        lower(model, {"hidden_1": torch.ones(2, 2)})


def assert_same_spikes(model: SpikingMLP, network: Network, inputs: np.ndarray) -> list[float]:
    """Compare all layers; returns each hidden layer's rate."""
    with torch.no_grad():
        outputs = model.layer_outputs(torch.from_numpy(inputs).float().permute(0, 2, 1))
    result = simulate(network, inputs, record="all")
    trained = [output.permute(0, 2, 1).numpy() for output in outputs]
    assert list(result.spikes) == list(model.hidden_names)
    for spikes, expected in zip(result.spikes.values(), trained):
        np.testing.assert_array_equal(spikes, expected)
    # O(t) in weights; v in 1/64 integer weights, which are 1/64 weights.
    summed = np.cumsum(trained[-1].astype(np.float64), axis=1) * 64 * 64
    np.testing.assert_array_equal(result.readout, summed)
    return [float(spikes.mean()) for spikes in result.spikes.values()]


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
    for seed in range(3):
        torch.manual_seed(seed)
        model = scaled(
            SpikingMLP(
                describe("-".join(map(str, hidden)), (24,), 6),
                current_decay=current_decay,
                voltage_decay=voltage_decay,
                threshold=threshold,
            ),
            gain,
        )
        rng = np.random.default_rng(seed)
        inputs = (rng.random((6, 12, 24)) < 0.4).astype(np.uint8)
        rates.append(assert_same_spikes(model, lower(model, steps=12), inputs))
    assert (np.array(rates) > 0.02).all(), "silent layers prove nothing"


def test_simulated_spikes_of_a_masked_network_are_slayers():
    torch.manual_seed(1)
    model = scaled(SpikingMLP(describe("40-30", (24,), 6)), 10)
    generator = torch.Generator().manual_seed(2)
    masks = {}
    with torch.no_grad():
        for name in model.hidden_names:
            weight = model.get_submodule(name).synapse.weight
            masks[name] = torch.rand(weight.shape, generator=generator) < 0.2
            weight.mul_(masks[name])
    network = lower(model, masks)
    assert network.layers[0].connections.count == int(masks["hidden1"].sum())
    inputs = (np.random.default_rng(0).random((8, 10, 24)) < 0.4).astype(np.uint8)
    assert min(assert_same_spikes(model, network, inputs)) > 0.02


# Above 64, SLAYER's default `threshold_eps` is lost in float32.
@pytest.mark.parametrize(("threshold", "weight"), [(1.0, 0.5), (1.0, 1.0), (100.0, 2.0)])
def test_a_potential_exactly_at_the_threshold_does_not_fire(threshold, weight):
    model = SpikingMLP(describe("1", (1,), 1), voltage_decay=0.0, threshold=threshold)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.fill_(weight)
    steps = round(threshold / weight) + 1  # the last input but one reaches the threshold
    rate = assert_same_spikes(model, lower(model), np.ones((1, steps, 1), np.uint8))
    assert rate == [pytest.approx(1 / steps)]
