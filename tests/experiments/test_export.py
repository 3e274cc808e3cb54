import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava import modelfile, netfile
from esl_lava.arrays import Array
from esl_lava.config import from_toml, override, to_toml
from esl_lava.data.config import Data
from esl_lava.data.datasets import load
from esl_lava.errors import DataError, FileError, LimitError
from esl_lava.experiments import export as experiments
from esl_lava.experiments.export import export, lower_model
from esl_lava.modelfile import SavedModel
from tests.faults import check, refused
from tests.graphs import a_layer, a_network, matrix
from tests.test_house import modules_after

LAYERS = ("hidden1", "hidden2", "readout")


@pytest.fixture(scope="module")
def saved(tiny: Any) -> SavedModel:
    return modelfile.read(tiny.model)


def model_with(saved: SavedModel, path: Path, steps: int = 4, **weights: Array | float) -> Path:
    """Write a model.pt with other weights in the named layers; the connections stay."""
    changed = dict(saved.weights)
    for name, value in weights.items():
        key = f"{name}.synapse.weight"
        changed[key] = np.full_like(saved.weights[key], value)
        if name in saved.masks:
            changed[key][~saved.masks[name]] = 0
    config = to_toml(override(from_toml(saved.config), {"encoding.steps": steps}))
    modelfile.write(dataclasses.replace(saved, config=config, weights=changed), path)
    return path


def test_the_file_holds_the_network_of_the_model(
    tiny: Any, saved: SavedModel, tmp_path: Path
) -> None:
    exported = export(tiny.model, tmp_path / "net.h5")
    assert exported.path == tmp_path / "net.h5"
    assert exported.size == exported.path.stat().st_size
    assert netfile.digest(exported.network) == netfile.digest(netfile.read(exported.path))
    assert [layer.name for layer in exported.network.layers] == ["hidden1", "hidden2", "readout"]
    for layer in exported.network.layers:
        weight = saved.weights[f"{layer.name}.synapse.weight"][..., 0, 0, 0]
        # The rule of lava-dl: even integers, half to even, in -256..254.
        integers = 2 * np.clip(np.rint(weight * 32), -128, 127)
        assert np.array_equal(matrix(layer).dense(), integers)
        mask = saved.masks.get(layer.name, weight == weight).reshape(weight.shape)
        assert np.array_equal(matrix(layer).mask(), mask)
    assert exported.network.steps == 4
    assert dict(exported.network.provenance) == {
        "package_version": saved.package,
        "source_sha256": modelfile.digest(tiny.model),
        "config": saved.config,
        "train_data_sha256": load("digits", "train").digest,
        "test_data_sha256": load("digits", "test").digest,
    }


def test_a_model_without_digests_gives_a_file_without_digests(
    saved: SavedModel, tmp_path: Path
) -> None:
    modelfile.write(dataclasses.replace(saved, data={}), tmp_path / "model.pt")
    exported = export(tmp_path / "model.pt", tmp_path / "net.h5").network
    assert sorted(exported.provenance) == ["config", "package_version", "source_sha256"]


def test_the_same_model_gives_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    export(tiny.model, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == tiny.net.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.h5"]


def test_an_existing_file_is_replaced_only_on_request(tiny: Any, tmp_path: Path) -> None:
    net = tmp_path / "net.h5"
    net.write_bytes(b"something dear")
    with refused(FileError, "exists", file=net):
        export(tiny.model, net)
    assert net.read_bytes() == b"something dear"
    export(tiny.model, net, overwrite=True)
    assert net.read_bytes() == tiny.net.read_bytes()


def test_a_refused_model_keeps_the_old_file(saved: SavedModel, tmp_path: Path) -> None:
    model = model_with(saved, tmp_path / "model.pt", hidden1=0.0)
    net = tmp_path / "net.h5"
    net.write_bytes(b"something dear")
    with pytest.raises(LimitError):
        export(model, net, overwrite=True)
    assert net.read_bytes() == b"something dear"


def test_an_export_does_not_overwrite_its_model(tiny: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    shutil.copy(tiny.model, model)
    (tmp_path / "link.pt").symlink_to(model)
    for net in (model, tmp_path / "link.pt", tmp_path / "." / "model.pt"):
        with refused(FileError, "conflict", file=net):
            export(model, net, overwrite=True)
    assert model.read_bytes() == tiny.model.read_bytes()


def test_all_violations_are_reported(saved: SavedModel, tmp_path: Path) -> None:
    model = model_with(saved, tmp_path / "model.pt", hidden1=0.0, hidden2=0.01, readout=0.0)
    with pytest.raises(LimitError) as caught:
        export(model, tmp_path / "net.h5")
    for fault, name in zip(caught.value.faults, LAYERS, strict=True):
        assert name in fault.sentence
    assert not (tmp_path / "net.h5").exists()


def test_weights_that_are_not_finite_are_reported_for_all_layers(
    saved: SavedModel, tmp_path: Path
) -> None:
    model = model_with(saved, tmp_path / "model.pt", hidden1=np.nan, readout=np.inf)
    connections = int(saved.masks["hidden1"].sum())
    with pytest.raises(LimitError) as caught:
        export(model, tmp_path / "net.h5")
    first, second = caught.value.faults
    assert "layer hidden1" in first.sentence
    assert str(connections) in first.sentence
    assert "layer readout" in second.sentence
    assert "120" in second.sentence


# --- overflow of u and v: if weights cannot exclude it, data decide ---------------------


def alternating(saved: SavedModel, name: str, first: float, rest: float) -> Array:
    """Return weights `rest`, but `first` from input 0, because Lava needs weights of both signs."""
    weight = np.full_like(saved.weights[f"{name}.synapse.weight"], rest)
    weight[:, 0] = first
    return weight


def loud(saved: SavedModel, path: Path, hidden: float) -> Path:
    """Write a model whose readout overflows in 64 steps if the layers before it fire."""
    return model_with(
        saved,
        path,
        steps=64,
        hidden1=alternating(saved, "hidden1", -hidden / 64, hidden),
        hidden2=alternating(saved, "hidden2", -1 / 32, 3.0),
        readout=alternating(saved, "readout", -1 / 32, 254 / 64),
    )


@pytest.mark.slow
def test_weights_that_overflow_on_data_are_refused(saved: SavedModel, tmp_path: Path) -> None:
    model = loud(saved, tmp_path / "model.pt", hidden=2.0)
    with pytest.raises(LimitError) as caught:
        export(model, tmp_path / "net.h5")
    (fault,) = caught.value.faults
    check(fault, "limit", layer="readout", limit=0)
    assert isinstance(fault.value, int)
    assert fault.value > 0
    assert "u wrapped 0 times" in fault.sentence
    assert "1000 samples of digits" in fault.sentence
    assert not (tmp_path / "net.h5").exists()


@pytest.mark.slow
def test_an_overflow_that_data_do_not_show_is_a_warning(
    saved: SavedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loud(saved, tmp_path / "model.pt", hidden=-2.0)  # no neuron fires
    with caplog.at_level(logging.WARNING):
        export(model, tmp_path / "net.h5")
    assert [record.getMessage() for record in caplog.records] == [
        "layers readout: some input could overflow u or v, but none of 1000 training samples of "
        "digits did"
    ]


def test_without_data_the_warning_says_so(
    saved: SavedModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(data: Data, split: str, *_: object) -> None:
        raise DataError(f"{data.name} is not here", "not-found")

    monkeypatch.setattr(experiments, "load_configured", none)
    model = loud(saved, tmp_path / "model.pt", hidden=2.0)
    with caplog.at_level(logging.WARNING):
        export(model, tmp_path / "net.h5")
    (record,) = caplog.records
    assert record.getMessage().startswith("layers readout: some input could overflow u or v")
    assert record.getMessage().endswith("digits is not here")


def test_small_weights_need_no_data_and_no_warning(
    tiny: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(experiments, "load_configured")
    export(tiny.model, tmp_path / "net.h5")
    assert not caplog.records


# --- reading back ------------------------------------------------------------------------


def test_the_written_file_is_compared_with_its_masks(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = lower_model(tiny.model)
    first, *others = network.layers
    c = matrix(first)
    keep = (
        np.arange(c.count) != np.flatnonzero(c.weights == 0)[0]
    )  # one connection of weight 0 less
    post = c.rows()[keep]
    indptr = np.searchsorted(post, np.arange(c.n_post + 1))
    thinner = dataclasses.replace(
        c, indptr=indptr, indices=c.indices[keep], weights=c.weights[keep]
    )
    other = a_network(
        (a_layer(first.name, thinner, first.neuron), *others), network.steps, network.provenance
    )
    assert np.array_equal(matrix(other.layers[0]).dense(), c.dense())
    monkeypatch.setattr(netfile, "read", lambda path: other)
    with refused(FileError, "damaged", file=tmp_path / "net.h5"):
        export(tiny.model, tmp_path / "net.h5")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no zip", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(FileError, match=r"model\.pt"):
        export(tmp_path / "model.pt", tmp_path / "net.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


# --- without torch -----------------------------------------------------------------------


def stored_sparsely(saved: SavedModel) -> SavedModel:
    """Return the model in the form of the sparse engine."""
    weights, ever = dict(saved.weights), {}
    for name, mask in saved.masks.items():
        key = f"{name}.synapse.weight"
        allowed = mask.reshape(mask.shape[:2])
        post, pre = np.nonzero(allowed)
        weights |= {
            f"{key}.values": weights.pop(key)[mask],
            f"{key}.starts": np.searchsorted(post, np.arange(len(allowed) + 1)),
            f"{key}.pre": pre.astype(np.int32),
            f"{key}.sides": np.array(allowed.shape),
        }
        ever[name] = np.flatnonzero(allowed)
    return dataclasses.replace(saved, weights=weights, masks={}, ever=ever)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "sparse", "once"])
def test_export_needs_no_torch(kind: str, tiny: Any, tiny_once: Any, tmp_path: Path) -> None:
    """A new interpreter writes the same file without importing torch."""
    run = tiny_once if kind == "once" else tiny
    model = tmp_path / "model.pt"
    shutil.copy(run.model, model)
    if kind == "sparse":
        modelfile.write(stored_sparsely(modelfile.read(run.model)), model)
    assert "torch" not in modules_after("export", model, tmp_path / "net.h5")
    network, expected = netfile.read(tmp_path / "net.h5"), netfile.read(run.net)
    provenance = {
        **network.provenance,
        "source_sha256": expected.provenance["source_sha256"],
    }
    network = dataclasses.replace(network, provenance=provenance)
    assert netfile.digest(network) == netfile.digest(expected)


def test_a_damaged_model_is_refused_without_torch_too(saved: SavedModel, tmp_path: Path) -> None:
    sparse = stored_sparsely(saved)
    key = "hidden1.synapse.weight"
    wrong = {
        f"{key}.pre": sparse.weights[f"{key}.pre"] + 60,
        f"{key}.starts": sparse.weights[f"{key}.starts"][::-1],
        f"{key}.values": sparse.weights[f"{key}.values"].astype(np.float64),
        "hidden1.neuron.current_decay": np.array([1.0], np.float32),
    }
    for name, value in wrong.items():
        broken = dataclasses.replace(sparse, weights={**sparse.weights, name: value})
        modelfile.write(broken, tmp_path / "model.pt")
        with pytest.raises(FileError, match="hidden1"):
            lower_model(tmp_path / "model.pt")
