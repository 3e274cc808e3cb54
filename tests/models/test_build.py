import pytest
import torch

from esl_lava.config import from_toml
from esl_lava.errors import ConfigError
from esl_lava.models import stored
from esl_lava.models.build import build
from esl_lava.models.config import NETWORKS
from esl_lava.models.mlp import BLOCKS
from esl_lava.models.one_spike import LAYERS
from esl_lava.topology import FULLY_CONNECTED, LAYER_KINDS
from esl_lava.training.kinds import KINDS
from tests.faults import refused

TOML = """
[sparsity]
density = 0.5
[model]
layers = "4-3"
current_decay = 0.75
voltage_decay = 0.25
threshold = 1.5
tau_grad = 0.25
scale_grad = 3.0
"""
CONFIG = from_toml(TOML)


def network(seed=0, inputs=5, classes=2):
    torch.manual_seed(seed)
    return build(CONFIG.model, CONFIG.model.describe((inputs,), classes))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_layer_too_large_to_be_dense_is_refused(kind):
    own = {"current_decay": 0.5} if kind == "single_spike" else {}
    config = NETWORKS[kind](kind=kind, layers="20000-20000", **own)
    described = config.describe((5,), 2)
    fields = {"key": "model.layers", "value": 400_000_000, "limit": 1 << 28, "layer": "hidden2"}
    with refused(ConfigError, "too-large", **fields) as caught:
        build(config, described)
    assert ('training.engine = "sparse"' in str(caught.value)) == (kind != "single_spike")


@pytest.mark.slow
def test_a_layer_that_stores_only_connections_may_be_larger():
    config = NETWORKS["multi_spike"](layers="20000-20000")
    model = build(config, config.describe((5,), 2), sparse_layers=["hidden2"])
    assert model.hidden2.synapse.weight.size == 20000 * 20000


def test_build_follows_the_configuration():
    model = network()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert shapes == {
        "hidden1.synapse.weight": (4, 5, 1, 1, 1),
        "hidden2.synapse.weight": (3, 4, 1, 1, 1),
        "readout.synapse.weight": (2, 3, 1, 1, 1),
    }
    for block in (model.hidden1, model.hidden2):
        assert block.neuron.current_decay.item() == 0.75 * 4096
        assert block.neuron.voltage_decay.item() == 0.25 * 4096
        assert block.neuron.threshold == 1.5


def test_build_passes_on_the_surrogate_gradient():
    model = network(inputs=1)
    with torch.no_grad():
        for name in ("hidden1", "hidden2", "readout"):
            model.get_submodule(name).synapse.weight.fill_(1.5)
    model(torch.ones(1, 1, 1)).sum().backward()
    # At the threshold the surrogate is 3 / (2 * 0.25) = 6: no neuron fires, all get a gradient.
    weights = [model.get_submodule(n).synapse.weight for n in ("hidden1", "hidden2")]
    # hidden2 receives no spike, so its v is 0; hidden1 is at its threshold.
    at_rest = 6 * torch.exp(torch.tensor(-1.5 / 0.25))
    expected = 2 * 1.5 * at_rest * 3 * 1.5 * 6
    # float32, and SLAYER's surrogate is centred at threshold + 1/4096.
    assert weights[0].grad[0].item() == pytest.approx(expected.item(), rel=5e-3)
    assert not weights[1].grad.any()


def test_the_same_generator_state_gives_the_same_weights():
    same, again, other = network(0), network(0), network(1)
    key = "hidden1.synapse.weight"
    assert torch.equal(same.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(same.state_dict()[key], other.state_dict()[key])


def test_every_kind_stands_in_every_table():
    assert [*NETWORKS] == [*stored.READERS] == [*KINDS]
    for kind, section in NETWORKS.items():
        assert section.model_fields["kind"].default == kind
        assert set(section.tokens) <= LAYER_KINDS.keys()
    assert [*FULLY_CONNECTED] == [*BLOCKS] == [*LAYERS]
