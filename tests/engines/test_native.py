"""Passes by torch's operations give the results of our kernels and of the range rule on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.engines.integers import integrate
from esl_lava.engines.native import DeviceRows, fire, normalise
from esl_lava.engines.normalised import make_neuron
from esl_lava.folding import HostRows


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), step=st.sampled_from([1, 2]))
@settings(max_examples=30, deadline=None)
def test_rows_of_a_tensor_are_those_of_an_array(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(5, 30)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0
    factors = rng.normal(0, 100, 5)
    host, device = HostRows.of(weights), DeviceRows(torch.from_numpy(weights))
    for ours, theirs in zip(host.measure(), device.measure()):
        # float64 sums of 30 terms, in another order.
        assert np.allclose(ours, theirs, rtol=1e-13, atol=0)
    integers = device.rounded(factors, step)
    assert np.array_equal(host.rounded(factors, step).values, integers.values.numpy().ravel())
    assert not (integers.values % step).any()
    for ours, theirs in zip(host.rounded(factors, step).measure(), integers.measure()):
        assert np.array_equal(ours, theirs)


def test_a_spike_resets_and_its_gradient_passes_over_resets() -> None:
    neuron = make_neuron(0.5, tau_grad=0.5, scale_grad=2.0)
    currents = torch.tensor([[1.5], [0.75], [0.75]], requires_grad=True)
    spikes = fire(currents, neuron)
    assert spikes.ravel().tolist() == [1, 0, 1]  # v = 1.5, then 0.75 from 0, then 1.125
    spikes.sum().backward()
    at = [2 * np.exp(-abs(v - 1) / 0.5) for v in (1.5, 0.75, 1.125)]
    expected = [at[0] + 0.5 * (at[1] + 0.5 * at[2]), at[1] + 0.5 * at[2], at[2]]
    assert currents.grad is not None
    assert currents.grad.ravel().tolist() == pytest.approx(expected, rel=1e-6)  # float32


def test_a_neuron_at_its_threshold_does_not_fire() -> None:
    assert fire(torch.ones(1, 1), make_neuron(0.5, 0.5, 1.0)).item() == 0


@pytest.mark.parametrize("shape", [(3, 4, 5, 6, 7), (2, 8, 3)])
def test_normalisation_is_torchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 2
    ours, theirs = (torch.nn.BatchNorm1d(shape[2], dtype=torch.float64) for _ in range(2))
    for norm in (ours, theirs):
        norm.weight.data = torch.linspace(-1, 1, shape[2], dtype=torch.float64)
        norm.bias.data = torch.linspace(0, 1, shape[2], dtype=torch.float64)
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    found = normalise(a, ours)
    expected = theirs(b.reshape(-1, shape[2], z[0, 0, 0].numel())).view(shape)
    slopes = torch.randn(shape, generator=generator, dtype=torch.float64)
    (found * slopes).sum().backward()
    (expected * slopes).sum().backward()
    # `normalise` rounds mean and variance to float32, because training computes in float32.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-6, atol=0)
    assert ours.num_batches_tracked == theirs.num_batches_tracked


@pytest.mark.parametrize("decay", [4096, 3072, 2048, 1000, 1])
@pytest.mark.parametrize("by_channel", [False, True])
def test_integers_integrate_as_the_chip_does(decay: int, by_channel: bool) -> None:
    rng = np.random.default_rng(decay)
    currents = rng.integers(-3000, 4000, (6, 2, 3, 5))
    thresholds = np.array([2500, 1, 4000])[:, None] if by_channel else np.array([[2500]])
    v = np.zeros(currents.shape[1:], np.int64)
    spikes = np.zeros(currents.shape, np.int64)
    for step, current in enumerate(currents):
        v = np.sign(v) * (np.abs(v) * (4096 - decay) >> 12) + current * 64
        spikes[step] = v > thresholds * 64
        v[spikes[step] == 1] = 0
    threshold = torch.from_numpy(thresholds.ravel()) if by_channel else 2500
    found = integrate(torch.from_numpy(currents).float(), threshold, decay)
    assert np.array_equal(found.numpy(), spikes)
    assert 0.05 < spikes.mean() < 0.95
