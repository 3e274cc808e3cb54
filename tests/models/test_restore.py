"""Saved models are restored, and malformed ones are refused, with and without torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from esl_lava import modelfile
from esl_lava.errors import Fault, FileError
from esl_lava.export import lower
from esl_lava.modelfile import SavedModel
from esl_lava.models.build import build
from esl_lava.models.restore import as_arrays, as_tensors, densified, restore
from esl_lava.models.stored import load_model, read_layers, trained_layers
from esl_lava.netfile import digest
from esl_lava.trained import DenseWeights, SparseWeights
from tests.faults import check, refused
from tests.models.test_build import CONFIG, TOML, network


def saved(toml=TOML, masks=None, drop=(), **weights) -> SavedModel:
    whole = as_arrays({**network().state_dict(), **weights})
    whole = {key: value.copy() for key, value in whole.items() if key not in drop}
    return SavedModel(config=toml, weights=whole, masks=as_arrays(masks or {}), ever={})


def refusal(model: SavedModel, code: str = "mismatch", **fields: object) -> Fault:
    """The fault for which restoring with torch and reading without torch both refuse a model."""
    with refused(FileError, code, **fields) as caught:
        restore(model)
    with pytest.raises(FileError) as without_torch:
        trained_layers(model)
    (fault,) = caught.value.faults
    assert (fault,) == without_torch.value.faults
    return fault


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


OTHER_NETWORK = {"key": None, "value": None, "layer": None}
"""Fields of the fault of weights that are not those of a network of layers."""


@pytest.mark.parametrize("layers", ["4", "4-3-3", "4-2", "3-3"])
def test_weights_of_another_configuration(layers):
    fault = refusal(saved(TOML.replace("4-3", layers)))
    assert f"layers = '{layers}'" in fault.sentence


def test_a_configuration_far_larger_than_its_weights_allocates_nothing():
    """Building the network before the comparison would need 2**60 weights."""
    needed = (1 << 20, 5, 1, 1, 1)
    toml = TOML.replace("4-3", "-".join([str(1 << 20)] * 3))
    refusal(saved(toml), value=(4, 5, 1, 1, 1), limit=needed, layer="hidden1")


@pytest.mark.parametrize(
    ("key", "tensor", "fields"),
    [
        ("hidden1.synapse.weight", torch.zeros(4, 5), OTHER_NETWORK),
        ("hidden1.synapse.weight", torch.zeros(4, 0, 1, 1, 1), OTHER_NETWORK),
        ("readout.synapse.weight", torch.zeros(2, 3), OTHER_NETWORK),
        ("readout.synapse.weight", torch.zeros(2, 9, 1, 1, 1), {"value": (2, 9, 1, 1, 1)}),
        ("hidden2.synapse.weight", torch.zeros(3, 4, 1, 1, 2), {"value": (3, 4, 1, 1, 2)}),
        (
            "hidden2.synapse.weight",
            torch.zeros(3, 4, 1, 1, 1).double(),
            {"key": "hidden2.synapse.weight", "value": "float64 of shape (3, 4, 1, 1, 1)"},
        ),
        (
            "hidden2.synapse.weight",
            torch.zeros(3, 4, 1, 1, 1).bool(),
            {"limit": "float32 of shape (3, 4, 1, 1, 1)"},
        ),
        (
            "hidden3.synapse.weight",
            torch.zeros(3, 4, 1, 1, 1),
            {"key": "hidden3.synapse.weight"},
        ),
        (
            "hidden1.neuron.current_decay",
            torch.zeros(1),
            {"key": "hidden1.neuron.current_decay", "value": 0.0, "limit": 0.75 * 4096},
        ),
        (
            "readout.neuron.voltage_decay",
            torch.zeros(1),
            {"key": "readout.neuron.voltage_decay", "value": 0.0, "limit": 0.25 * 4096},
        ),
        (
            "hidden1.neuron.current_decay",
            torch.zeros(2),
            {"value": "float32 of shape (2,)", "limit": "float32 of shape (1,)"},
        ),
    ],
)
def test_weights_that_do_not_fit(key, tensor, fields):
    refusal(saved(**{key: tensor}), **fields)


@pytest.mark.parametrize(
    "key", ["hidden1.synapse.weight", "readout.synapse.weight", "hidden2.neuron.current_decay"]
)
def test_missing_weights(key):
    refusal(saved(drop=[key]))


def test_pruned_connections_must_have_the_weight_0():
    weight = torch.ones(4, 5, 1, 1, 1)
    weight[0, 0] = 0
    mask = weight.bool()
    restore(saved(masks={"hidden1": mask}, **{"hidden1.synapse.weight": weight}))
    weight[0, 0] = 1e-30
    model = saved(masks={"hidden1": mask}, **{"hidden1.synapse.weight": weight})
    refusal(model, "damaged", value=float(np.float32(1e-30)), limit=0, layer="hidden1")


@pytest.mark.parametrize(
    "masks",
    [
        {"hidden9": torch.ones(4, 5, 1, 1, 1).bool()},
        {"hidden1": torch.ones(4, 5).bool()},
        {"hidden1": torch.ones(4, 1, 1, 1, 1).bool()},
    ],
)
def test_masks_that_do_not_fit(masks):
    ((name, mask),) = masks.items()
    refusal(saved(masks=masks), value=tuple(mask.shape), layer=name)


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
    refusal(stored(**other), value=(3, 5), limit=(3, 4), layer="hidden2")
    beyond = torch.tensor([1, 5], dtype=torch.int32)
    fields = {"key": key, "layer": "hidden1"}
    assert "0..4" in refusal(stored(**{f"{key}.pre": beyond}), "damaged", **fields).sentence
    starts = torch.tensor([0, 2, 1, 2, 2])
    assert "starts" in refusal(stored(**{f"{key}.starts": starts}), "damaged", **fields).sentence
    monkeypatch.setattr("esl_lava.models.restore.MAX_DENSE", 12)
    with refused(FileError, "too-large", value=20, limit=12, layer="hidden1"):
        densified(stored())


@pytest.mark.slow
@pytest.mark.parametrize(
    "ever",
    [
        torch.tensor([7, 1]),
        torch.tensor([1, 20]),
        torch.zeros(2, dtype=torch.uint8),
        torch.tensor([0, 0, 16], dtype=torch.uint8),
        torch.zeros(4, 5, dtype=torch.bool),
    ],
)
def test_records_that_do_not_fit_are_refused(ever):
    for function in (restore, densified):
        with refused(FileError, "damaged", key="ever", layer="hidden1"):
            function(stored(ever=ever))


@pytest.mark.parametrize(
    "sides", [[4, 0], [4.0, 5.0], [], [-4, 5], [4, 2**31], [1 << 40, 1 << 40]], ids=str
)
def test_invalid_sides_are_refused(sides):
    key = "hidden1.synapse.weight.sides"
    refusal(stored(**{key: torch.tensor(sides)}), **OTHER_NETWORK)


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
    refusal(SavedModel(ONCE, weights, {}, {}), **OTHER_NETWORK)


@pytest.mark.parametrize(
    ("config", "code", "fields"),
    [
        ("[sparsity]\ndensity = 7", "damaged", {"key": "sparsity.density", "value": 7}),
        ("[", "damaged", {"key": None}),
        ("#" * (1 << 21), "too-large", {"value": 1 << 21}),
    ],
)
def test_invalid_configurations_are_refused(tmp_path, config, code, fields):
    path = tmp_path / "model.pt"
    modelfile.write(SavedModel(config, {}, {}, {}), path)
    with pytest.raises(FileError) as caught:
        load_model(path)
    faults = caught.value.faults
    check(faults[-1], code, file=path, **fields)
    for fault in faults:
        check(fault, code, file=path)


def test_a_model_comes_with_its_experiment(tmp_path):
    modelfile.write(saved(), tmp_path / "model.pt")
    found, experiment = load_model(tmp_path / "model.pt")
    assert experiment == CONFIG
    assert found.weights.keys() == saved().weights.keys()


def test_the_file_and_the_network_have_the_same_layers():
    for model in (saved(masks={"hidden2": torch.ones(3, 4, 1, 1, 1)}), stored()):
        entries = as_arrays(restore(model).state_dict())
        from_file, from_torch = (
            trained_layers(model),
            read_layers(CONFIG.model, entries, model.masks),
        )
        for mine, theirs in zip(from_file, from_torch):
            assert (mine.name, mine.neuron) == (theirs.name, theirs.neuron)
            assert list(mine.inputs) == list(theirs.inputs)
        assert digest(lower(from_file)) == digest(lower(from_torch))
    assert [layer.name for layer in from_file] == ["hidden1", "hidden2", "readout"]
    assert [list(layer.inputs) for layer in from_file] == [["input"], ["hidden1"], ["hidden2"]]
    kinds = [type(weights) for layer in from_file for weights in layer.inputs.values()]
    assert kinds == [SparseWeights, SparseWeights, DenseWeights]


@pytest.mark.slow
def test_layers_of_a_file_need_no_torch(tmp_path):
    for number, model in enumerate((saved(), stored())):
        modelfile.write(model, tmp_path / f"{number}.pt")
    code = (
        "import sys; from pathlib import Path; from esl_lava.models.stored import *\n"
        "for name in sys.argv[1:]: print(len(trained_layers(load_model(Path(name))[0])))\n"
        "print('torch' in sys.modules)"
    )
    names = [tmp_path / "0.pt", tmp_path / "1.pt"]
    process = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["3", "3", "False"]


def test_arrays_and_tensors_are_exchanged_all_the_way_down():
    values = {"a": [torch.ones(2), (1, None, {"b": torch.tensor(True)})], 3: "x"}
    arrays = as_arrays(values)
    assert isinstance(arrays["a"][0], np.ndarray)
    assert arrays["a"][1][2]["b"].dtype == np.bool_
    back = as_tensors(arrays)
    assert torch.equal(back["a"][0], torch.ones(2))
    assert back["a"][1][:2] == (1, None)
    assert back[3] == "x"
