import warnings

import torch
from torch import nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity.evolver import MaskEvolver
from tests.faults import refused

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lava.lib.dl import slayer


def neuron() -> dict[str, float]:
    return {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}


class Net(nn.Module):
    def __init__(self, **synapse):
        super().__init__()
        cuba = slayer.block.cuba
        self.hidden1 = cuba.Dense(neuron(), 20, 16, delay_shift=False, **synapse)
        self.hidden2 = cuba.Dense(neuron(), 16, 12, delay_shift=False)
        self.readout = cuba.Affine(neuron(), 12, 5)

    def forward(self, x):
        return self.readout(self.hidden2(self.hidden1(x)))


def test_slayer_network_trains_sparse():
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for block in (model.hidden1, model.hidden2):
            block.synapse.weight.mul_(3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    evolver = MaskEvolver(
        model, optimizer, density=0.3, keep_dense=["readout"], t_iter=2, t_end=20, alpha=0.5
    )
    assert list(evolver.connections()) == ["hidden1", "hidden2", "readout"]
    start = evolver.connections()
    assert start["hidden1"] + start["hidden2"] == 154  # 0.3 of 512, rounded
    assert start["readout"] == 60
    assert evolver.masks["hidden1"].shape == (16, 20, 1, 1, 1)

    x = (torch.rand(8, 20, 10) < 0.4).float()
    target = torch.randint(5, (8,))
    first = {name: mask.clone() for name, mask in evolver.masks.items()}
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).mean(-1), target).backward()
        assert model.hidden1.synapse.weight.grad.any()
        optimizer.step()
        evolver.step()
        for name, mask in evolver.masks.items():
            assert not getattr(model, name).synapse.weight.detach()[~mask].any()
        assert evolver.connections() == start
    assert all(not torch.equal(first[name], mask) for name, mask in evolver.masks.items())
    assert model.readout.synapse.weight.all()


def test_weight_norm_is_refused():
    model = Net(weight_norm=True)
    with refused(ConfigError, "unsupported", layer="hidden1"):
        MaskEvolver(model, torch.optim.Adam(model.parameters()), density=0.3, t_end=10)
