"""What is restored of a saved model, and what of a stranger's is refused, with torch or without."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from esl_lava import modelfile
from esl_lava.errors import FileError
from esl_lava.export import lower
from esl_lava.modelfile import SavedModel
from esl_lava.models.build import build
from esl_lava.models.restore import as_arrays, as_tensors, densified, restore
from esl_lava.models.stored import layers_of, load_model, trained_layers
from esl_lava.netfile import digest
from esl_lava.trained import DenseWeights, SparseWeights
from tests.models.test_build import CONFIG, TOML, network


def saved(toml=TOML, masks=None, drop=(), **weights) -> SavedModel:
    whole = as_arrays({**network().state_dict(), **weights})
    whole = {key: value.copy() for key, value in whole.items() if key not in drop}
    return SavedModel(config=toml, weights=whole, masks=as_arrays(masks or {}), ever={})


def refusal(model: SavedModel) -> str:
    """Both ways, to a network of torch and to layers without it, refuse it alike."""
    with pytest.raises(FileError) as caught:
        restore(model)
    with pytest.raises(FileError) as without_torch:
        trained_layers(model)
    assert str(caught.value) == str(without_torch.value)
    return str(caught.value)


def test_restored_models_compute_the_same(tmp_path):
    model = network()
    mask = torch.rand(4, 5, 1, 1, 1) < 0.5
    with torch.no_grad():
        model.hidden1.synapse.weight.mul_(4 * mask)
    before = SavedModel(
        config=TOML,
        weights=as_arrays(model.state_dict()),
        masks=as_arrays({"hidden1": mask}),
        ever=as_arrays({"hidden1": mask}),
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
    before = model.weights["hidden1.synapse.weight"].copy()
    network_ = restore(model)
    with torch.no_grad():
        network_.hidden1.synapse.weight.zero_()
    assert np.array_equal(model.weights["hidden1.synapse.weight"], before)


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
        ({"hidden2.synapse.weight": torch.zeros(3, 4, 1, 1, 1).double()}, "is float64 of shape"),
        ({"hidden2.synapse.weight": torch.zeros(3, 4, 1, 1, 1).bool()}, "is bool of shape"),
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
    ever = {"hidden1": torch.tensor([1, 7]), "hidden2": torch.tensor([1, 7])}
    if "ever" in changed:
        ever["hidden1"] = changed.pop("ever")
    weights = as_arrays({**model.state_dict(), **changed})
    return SavedModel(config=TOML, weights=weights, masks={}, ever=as_arrays(ever))


def test_sparse_layers_are_restored_and_made_dense():
    saved_model = stored()
    model = restore(saved_model)
    weight = model.hidden1.synapse.weight
    assert weight.positions().tolist() == [1, 7]
    dense = densified(saved_model)
    assert np.flatnonzero(dense.masks["hidden1"]).tolist() == [1, 7]
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
    monkeypatch.setattr("esl_lava.models.restore.MAX_DENSE", 12)
    with pytest.raises(FileError, match="hidden1: 4 x 5 positions are more than the 12"):
        densified(stored())


@pytest.mark.parametrize(
    ("ever", "reason"),
    [
        (torch.tensor([7, 1]), "do not ascend"),
        (torch.tensor([1, 20]), "do not ascend within 0..19"),
        (torch.zeros(2, dtype=torch.uint8), "neither a bitmap"),
        (torch.tensor([0, 0, 16], dtype=torch.uint8), "beyond the last of 20"),
        (torch.zeros(4, 5, dtype=torch.bool), "neither a bitmap"),
    ],
)
def test_records_that_do_not_fit_are_refused(ever, reason):
    for function in (restore, densified):
        with pytest.raises(FileError, match=f"part 'ever' of layer hidden1 .*{reason}"):
            function(stored(ever=ever))


@pytest.mark.parametrize(
    "sides", [[4, 0], [4.0, 5.0], [], [-4, 5], [4, 2**31], [1 << 40, 1 << 40]], ids=str
)
def test_sides_that_are_none_are_refused(sides):
    key = "hidden1.synapse.weight.sides"
    assert "not those of a multi-layer network" in refusal(stored(**{key: torch.tensor(sides)}))


ONCE = """
[encoding]
kind = "latency"
[sparsity]
density = 0.5
[model]
kind = "single_spike"
layers = "3"
current_decay = 0.1
voltage_decay = 0.0
"""


def test_layers_that_fire_once_are_never_stored_sparsely():
    weights = {"hidden1.weight.sides": np.array([3, 2]), "readout.weight": np.ones((2, 3), "f4")}
    assert "not those of a multi-layer" in refusal(SavedModel(ONCE, weights, {}, {}))


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("[sparsity]\ndensity = 7", "sparsity.density = 7"),
        ("[", "configuration is not valid"),
        ("#" * (1 << 21), "configuration is longer"),
    ],
)
def test_configurations_that_are_none(tmp_path, config, part):
    path = tmp_path / "model.pt"
    modelfile.write(SavedModel(config, {}, {}, {}), path)
    with pytest.raises(FileError) as caught:
        load_model(path)
    assert part in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_model_comes_with_its_experiment(tmp_path):
    modelfile.write(saved(), tmp_path / "model.pt")
    found, experiment = load_model(tmp_path / "model.pt")
    assert experiment == CONFIG
    assert found.weights.keys() == saved().weights.keys()


def test_the_file_and_the_network_have_the_same_layers():
    for model in (saved(masks={"hidden2": torch.ones(3, 4, 1, 1, 1)}), stored()):
        entries = as_arrays(restore(model).state_dict())
        from_file, from_torch = trained_layers(model), layers_of(CONFIG.model, entries, model.masks)
        for mine, theirs in zip(from_file, from_torch):
            assert (mine.name, mine.neuron) == (theirs.name, theirs.neuron)
            assert list(mine.inputs) == list(theirs.inputs)
        assert digest(lower(from_file)) == digest(lower(from_torch))
    assert [layer.name for layer in from_file] == ["hidden1", "hidden2", "readout"]
    assert [list(layer.inputs) for layer in from_file] == [["input"], ["hidden1"], ["hidden2"]]
    kinds = [type(weights) for layer in from_file for weights in layer.inputs.values()]
    assert kinds == [SparseWeights, SparseWeights, DenseWeights]


def test_layers_of_a_file_need_no_torch(tmp_path):
    for number, model in enumerate((saved(), stored())):
        modelfile.write(model, tmp_path / f"{number}.pt")
    code = (
        "import sys; from pathlib import Path; from esl_lava.models.stored import *\n"
        "for name in sys.argv[1:]: print(len(trained_layers(load_model(Path(name))[0])))\n"
        "print('torch' in sys.modules)"
    )
    names = [tmp_path / "0.pt", tmp_path / "1.pt"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "3", "False"]


def test_arrays_and_tensors_are_exchanged_all_the_way_down():
    values = {"a": [torch.ones(2), (1, None, {"b": torch.tensor(True)})], 3: "x"}
    arrays = as_arrays(values)
    assert isinstance(arrays["a"][0], np.ndarray)
    assert arrays["a"][1][2]["b"].dtype == np.bool_
    back = as_tensors(arrays)
    assert torch.equal(back["a"][0], torch.ones(2))
    assert back["a"][1][:2] == (1, None)
    assert back[3] == "x"
