import pytest
import torch

from esl_lava import modelfile
from esl_lava.config import from_toml
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models import build as build_module
from esl_lava.models.build import build, densified, restore
from esl_lava.models.config import NETWORKS
from esl_lava.models.mlp import BLOCKS
from esl_lava.models.single_spike import LAYERS
from esl_lava.topology import LAYER_KINDS
from esl_lava.training.kinds import KINDS

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


def saved(toml=TOML, masks=None, drop=(), **weights) -> SavedModel:
    whole = {key: value.clone() for key, value in network().state_dict().items()} | weights
    whole = {key: value for key, value in whole.items() if key not in drop}
    return SavedModel(config=from_toml(toml), weights=whole, masks=masks or {}, ever={})


def refusal(model: SavedModel) -> str:
    with pytest.raises(FileError) as caught:
        restore(model)
    return str(caught.value)


def test_build_follows_the_configuration():
    model = network()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert shapes == {
        "hidden1.synapse.weight": (4, 5, 1, 1, 1),
        "hidden2.synapse.weight": (3, 4, 1, 1, 1),
        "readout.synapse.weight": (2, 3, 1, 1, 1),
    }
    for block in model.hidden_blocks():
        assert block.neuron.current_decay.item() == 0.75 * 4096
        assert block.neuron.voltage_decay.item() == 0.25 * 4096
        assert block.neuron.threshold == 1.5


def test_build_passes_on_the_surrogate_gradient():
    model = network(inputs=1)
    with torch.no_grad():
        for name in ("hidden1", "hidden2", "readout"):
            model.get_submodule(name).synapse.weight.fill_(1.5)
    model(torch.ones(1, 1, 1)).sum().backward()
    # At the threshold the surrogate is 3 / (2 * 0.25) = 6: nothing fires, all learn.
    weights = [model.get_submodule(n).synapse.weight for n in ("hidden1", "hidden2")]
    # hidden2 receives no spike, so its v is 0; hidden1 is at its threshold.
    at_rest = 6 * torch.exp(torch.tensor(-1.5 / 0.25))
    expected = 2 * 1.5 * at_rest * 3 * 1.5 * 6
    # float32, and SLAYER's v is measured from threshold + 1/4096.
    assert weights[0].grad[0].item() == pytest.approx(expected.item(), rel=5e-3)
    assert not weights[1].grad.any()


def test_the_same_generator_state_gives_the_same_weights():
    same, again, other = network(0), network(0), network(1)
    key = "hidden1.synapse.weight"
    assert torch.equal(same.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(same.state_dict()[key], other.state_dict()[key])


def test_restored_models_compute_the_same(tmp_path):
    model = network()
    mask = torch.rand(4, 5, 1, 1, 1) < 0.5
    with torch.no_grad():
        model.hidden1.synapse.weight.mul_(4 * mask)
    before = SavedModel(
        config=CONFIG,
        weights=model.state_dict(),
        masks={"hidden1": mask},
        ever={"hidden1": mask},
    )
    modelfile.write(before, tmp_path / "model.pt")
    again = restore(modelfile.read(tmp_path / "model.pt"))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    spikes = (torch.rand(6, 5, 8) < 0.5).float()
    for before_, after in zip(model.layer_outputs(spikes), again.layer_outputs(spikes)):
        assert torch.equal(before_, after)


def test_restoring_leaves_the_random_generator_alone():
    model = saved()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    restore(model)
    assert torch.equal(torch.rand(3), expected)


def test_restoring_does_not_tie_the_model_to_the_file():
    model = saved()
    before = model.weights["hidden1.synapse.weight"].clone()
    network_ = restore(model)
    with torch.no_grad():
        network_.hidden1.synapse.weight.zero_()
    assert torch.equal(model.weights["hidden1.synapse.weight"], before)


@pytest.mark.parametrize("layers", ["4", "4-3-3", "4-2", "3-3"])
def test_weights_of_another_configuration(layers):
    message = refusal(saved(TOML.replace("4-3", layers)))
    assert f"layers = '{layers}'" in message


def test_a_configuration_far_larger_than_its_weights_allocates_nothing():
    """Built first and compared later, this would be 2**60 weights."""
    message = refusal(saved(TOML.replace("4-3", "-".join([str(1 << 20)] * 3))))
    assert "hidden1" in message
    assert "1048576" in message


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        ({"hidden1.synapse.weight": torch.zeros(4, 5)}, "not those of a multi-layer network"),
        ({"hidden1.synapse.weight": torch.zeros(4, 0, 1, 1, 1)}, "not those of a multi-layer"),
        ({"readout.synapse.weight": torch.zeros(2, 3)}, "not those of a multi-layer network"),
        ({"readout.synapse.weight": torch.zeros(2, 9, 1, 1, 1)}, "(2, 9, 1, 1, 1)"),
        ({"hidden2.synapse.weight": torch.zeros(3, 4, 1, 1, 2)}, "(3, 4, 1, 1, 2)"),
        ({"hidden2.synapse.weight": torch.zeros(3, 4, 1, 1, 1).double()}, "torch.float64"),
        ({"hidden2.synapse.weight": torch.zeros(3, 4, 1, 1, 1).bool()}, "torch.bool"),
        ({"hidden3.synapse.weight": torch.zeros(3, 4, 1, 1, 1)}, "about hidden3.synapse.weight"),
        ({"hidden1.neuron.current_decay": torch.zeros(1)}, "hidden1.neuron.current_decay is [0.0]"),
        ({"readout.neuron.voltage_decay": torch.zeros(1)}, "readout.neuron.voltage_decay is [0.0]"),
        ({"hidden1.neuron.current_decay": torch.zeros(2)}, "shape (2,)"),
    ],
)
def test_weights_that_do_not_fit(weights, part):
    assert part in refusal(saved(**weights))


@pytest.mark.parametrize(
    "key", ["hidden1.synapse.weight", "readout.synapse.weight", "hidden2.neuron.current_decay"]
)
def test_missing_weights(key):
    refusal(saved(drop=[key]))


def test_pruned_connections_weigh_nothing():
    weight = torch.ones(4, 5, 1, 1, 1)
    weight[0, 0] = 0
    mask = weight.bool()
    restore(saved(masks={"hidden1": mask}, **{"hidden1.synapse.weight": weight}))
    weight[0, 0] = 1e-30
    message = refusal(saved(masks={"hidden1": mask}, **{"hidden1.synapse.weight": weight}))
    assert "layer hidden1: a pruned connection has a weight" in message


@pytest.mark.parametrize(
    "masks",
    [
        {"hidden9": torch.ones(4, 5, 1, 1, 1).bool()},
        {"hidden1": torch.ones(4, 5).bool()},
        {"hidden1": torch.ones(4, 1, 1, 1, 1).bool()},
    ],
)
def test_masks_that_do_not_fit(masks):
    assert "does not fit its weights" in refusal(saved(masks=masks))


def stored(**changed) -> SavedModel:
    """`network` with sparse hidden layers: of 4 x 5 and 3 x 4 positions, two connections each."""
    torch.manual_seed(0)
    model = build(
        CONFIG.model, CONFIG.model.describe((5,), 2), sparse_layers=["hidden1", "hidden2"]
    )
    for name in ("hidden1", "hidden2"):
        model.get_submodule(name).synapse.weight.begin(torch.tensor([1, 7]))
    weights = {key: value.clone() for key, value in model.state_dict().items()} | changed
    ever = {"hidden1": torch.tensor([1, 7]), "hidden2": torch.tensor([1, 7])}
    return SavedModel(config=CONFIG, weights=weights, masks={}, ever=ever)


def test_sparse_layers_are_restored_and_made_dense():
    saved_model = stored()
    model = restore(saved_model)
    weight = model.hidden1.synapse.weight
    assert weight.positions().tolist() == [1, 7]
    dense = densified(saved_model)
    assert dense.masks["hidden1"].flatten().nonzero().flatten().tolist() == [1, 7]
    assert dense.ever["hidden2"].shape == (3, 4, 1, 1, 1)
    again = restore(dense).hidden1.synapse.weight.detach().flatten()
    assert torch.equal(again[[1, 7]], weight.values)
    assert again.count_nonzero() == 2


def test_sparse_layers_that_do_not_fit_are_refused(monkeypatch):
    key = "hidden1.synapse.weight"
    other = {"hidden2.synapse.weight.sides": torch.tensor([3, 5])}
    assert "hidden2 has shape (3, 5)" in refusal(stored(**other))
    beyond = torch.tensor([1, 5], dtype=torch.int32)
    assert "outside 0..4" in refusal(stored(**{f"{key}.pre": beyond}))
    assert "starts" in refusal(stored(**{f"{key}.starts": torch.tensor([0, 2, 1, 2, 2])}))
    monkeypatch.setattr("esl_lava.models.build.MAX_DENSE", 12)
    with pytest.raises(FileError, match="hidden1: 4 x 5 positions are more than the 12"):
        densified(stored())


def test_every_kind_stands_in_every_table():
    assert [*NETWORKS] == [*build_module._KINDS] == [*KINDS]
    for kind, section in NETWORKS.items():
        assert section.model_fields["kind"].default == kind
    assert [*LAYER_KINDS] == [*BLOCKS] == [*LAYERS]
