"""SLAYER computes the integer equations of `esl_lava.network`, which the chip computes."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.models.config import MultiSpike
from esl_lava.models.mlp import SpikingMLP, scale_initial_weights
from esl_lava.topology import describe


def quantised(weight: torch.Tensor) -> list[list[int]]:
    """Round weights to even integers in -256..254, ties to even, in units of 1/64."""
    halves = np.round(weight.detach().numpy().reshape(weight.shape[:2]) * np.float32(32))
    return (2 * np.clip(halves, -128, 127)).astype(int).tolist()


def trunc(x: int) -> int:
    return (abs(x) >> 12) * (1 if x >= 0 else -1)


def brute_force(weights, spikes, current_decay: int, voltage_decay: int, threshold: int):
    """Compute the spikes of one layer and one sample in plain Python integers, step by step."""
    steps = len(spikes[0])
    out = [[0] * steps for _ in weights]
    for neuron, row in enumerate(weights):
        u = v = 0
        for t in range(steps):
            a = sum(w for w, train in zip(row, spikes) if train[t])
            u = trunc(u * (4096 - current_decay)) + (a << 6)
            assert abs(u) < 1 << 23, "this test knows no overflow"
            v = trunc(v * (4096 - voltage_decay)) + u
            assert abs(v) < 1 << 23
            if v > threshold << 6:
                out[neuron][t] = 1
                v = 0
    return out


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    inputs=st.integers(1, 12),
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    classes=st.integers(1, 4),
    steps=st.integers(1, 12),
    current_decay=st.sampled_from([1.0, 0.0, 0.5, 0.3]) | st.floats(0, 1),
    voltage_decay=st.sampled_from([0.5, 0.0, 1.0, 0.1]) | st.floats(0, 1),
    threshold=st.sampled_from([64, 1, 100, 5000]) | st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_spikes_are_those_of_the_integer_equations(
    seed, inputs, hidden, classes, steps, current_decay, voltage_decay, threshold
):
    generator = torch.Generator().manual_seed(seed)
    model = SpikingMLP(
        describe("-".join(map(str, hidden)), (inputs,), classes),
        MultiSpike(
            current_decay=current_decay, voltage_decay=voltage_decay, threshold=threshold / 64
        ),
    )
    with torch.no_grad():
        for name in (*model.topology.hidden_names, "readout"):
            weight = model.get_submodule(name).synapse.weight
            # Some weights are beyond the range of 8 bits, on both sides.
            weight.copy_(torch.randn(weight.shape, generator=generator) * 1.5)
    spikes = (torch.rand((2, inputs, steps), generator=generator) < 0.5).float()
    outputs = [output.detach() for output in model.layer_outputs(spikes)]
    decays = round(current_decay * 4096), round(voltage_decay * 4096)
    for sample in range(2):
        arriving = spikes[sample].int().tolist()
        for name, output in zip(model.topology.hidden_names, outputs):
            weights = quantised(model.get_submodule(name).synapse.weight)
            arriving = brute_force(weights, arriving, *decays, threshold)
            assert output[sample].tolist() == arriving, name
        weighted = np.array(quantised(model.readout.synapse.weight)) @ np.array(arriving)
        assert (64 * outputs[-1][sample]).tolist() == weighted.tolist()


def test_the_brute_force_test_sees_spikes():
    """The networks of the comparison above fire."""
    torch.manual_seed(0)
    model = SpikingMLP(describe("8-8", (6,), 3), MultiSpike(threshold=1.0))
    scale_initial_weights(model, {"hidden1": 4.0, "hidden2": 4.0})
    first, second, _ = model.layer_outputs((torch.rand(4, 6, 10) < 0.5).float())
    assert 0.1 < first.mean() < 0.9
    assert 0.1 < second.mean() < 0.9


@pytest.mark.parametrize("hidden", [(5,), (5, 4), (2, 3, 4)])
def test_shapes(hidden):
    torch.manual_seed(0)
    model = SpikingMLP(describe("-".join(map(str, hidden)), (7,), 3), MultiSpike())
    spikes = (torch.rand(2, 7, 6) < 0.5).float()
    outputs = model.layer_outputs(spikes)
    assert [tuple(o.shape) for o in outputs] == [(2, n, 6) for n in (*hidden, 3)]
    assert torch.equal(model(spikes), outputs[-1])
    assert all(set(o.unique().tolist()) <= {0.0, 1.0} for o in outputs[:-1])


def test_no_layer_delays_its_spikes():
    """All T steps of a sample reach the readout, without a shift."""
    model = SpikingMLP(describe("1-1", (1,), 1), MultiSpike(voltage_decay=1.0))
    with torch.no_grad():
        for name in ("hidden1", "hidden2", "readout"):
            model.get_submodule(name).synapse.weight.fill_(2.0)
    spikes = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    for output in model.layer_outputs(spikes):
        assert (output > 0).tolist() == (spikes > 0).tolist()


def test_reaching_the_threshold_is_not_exceeding_it():
    """The chip fires when v > threshold; SLAYER's own comparison is >=."""
    for threshold in (1.0, 100.0):  # above 64, float32 loses SLAYER's epsilon
        model = SpikingMLP(describe("1", (32,), 1), MultiSpike(threshold=threshold))
        with torch.no_grad():
            model.hidden1.synapse.weight.fill_(threshold / 32)
        spikes = torch.ones(1, 32, 1)
        assert model.layer_outputs(spikes)[0].item() == 0
        with torch.no_grad():
            model.hidden1.synapse.weight[0, 0] += 1 / 32
        assert model.layer_outputs(spikes)[0].item() == 1


def test_samples_do_not_see_each_other():
    torch.manual_seed(1)
    model = SpikingMLP(describe("8", (6,), 3), MultiSpike(voltage_decay=0.1))
    spikes = (torch.rand(5, 6, 10) < 0.5).float()
    together = model(spikes)
    assert torch.equal(model(spikes), together), "no state is left over"
    assert torch.equal(torch.cat([model(one[None]) for one in spikes]), together)


@pytest.mark.parametrize("weight", [-2.0, 0.0, 0.5, 0.96875, 1.0, 1.03125, 3.0])
@pytest.mark.parametrize(
    ("threshold", "tau", "scale"), [(1.0, 0.5, 1.0), (1.0, 1.0, 1.0), (2.5, 0.25, 3.0)]
)
def test_surrogate_gradient(weight, threshold, tau, scale):
    """With one neuron and one step, v is the weight and O is twice the spike."""
    model = SpikingMLP(
        describe("1", (1,), 1), MultiSpike(threshold=threshold, tau_grad=tau, scale_grad=scale)
    )
    with torch.no_grad():
        model.hidden1.synapse.weight.fill_(weight)
        model.readout.synapse.weight.fill_(2.0)
    output = model(torch.ones(1, 1, 1))
    assert output.item() == 2.0 * (weight > threshold)
    output.backward()
    expected = 2.0 * scale / (2 * tau) * math.exp(-abs(weight - threshold) / tau)
    # float32, and SLAYER's surrogate is centred at threshold + 1/4096.
    assert model.hidden1.synapse.weight.grad.item() == pytest.approx(expected, rel=2e-3)


def test_gradient_reaches_every_layer():
    torch.manual_seed(0)
    model = SpikingMLP(describe("8-7", (6,), 3), MultiSpike())
    scale_initial_weights(model, {"hidden1": 3.0, "hidden2": 3.0})
    model((torch.rand(4, 6, 5) < 0.5).float()).square().sum().backward()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [f"{name}.synapse.weight" for name in ("hidden1", "hidden2", "readout")]
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)


def test_scale_initial_weights():
    torch.manual_seed(0)
    model = SpikingMLP(describe("8-7", (6,), 3), MultiSpike())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scale_initial_weights(model, {"hidden1": 2.0})
    for key, value in model.state_dict().items():
        factor = 2.0 if key == "hidden1.synapse.weight" else 1.0
        assert torch.equal(value, factor * before[key]), key


@pytest.mark.slow
def test_importing_slayer_prints_nothing():
    process = subprocess.run(
        [sys.executable, "-c", "from esl_lava.engines.slayer import slayer; slayer.block.cuba"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
