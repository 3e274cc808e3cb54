"""The public interface: its names, how it loads, and what its functions add to those behind."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import esl_lava
from esl_lava import api, errors, netfile
from esl_lava.errors import ConfigError, FileError
from tests.faults import refused

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "lava", "numpy", "matplotlib", "pydantic", "h5py", "numba"}


def test_the_package_has_the_names_of_the_api() -> None:
    assert set(esl_lava.__all__) == {*api.__all__, "errors", "__version__"}
    assert dir(esl_lava) == sorted(esl_lava.__all__)
    for name in api.__all__:
        assert getattr(esl_lava, name) is getattr(api, name)
    assert esl_lava.errors is errors
    assert esl_lava.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = esl_lava.nothing


def test_every_public_name_is_documented() -> None:
    for name in api.__all__:
        if name != "INPUT":
            assert inspect.getdoc(getattr(api, name)), name


def test_the_page_shows_every_public_name() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in esl_lava.__all__ if f"{name}" not in page] == []


def test_importing_the_package_is_light() -> None:
    code = "import sys, esl_lava; dir(esl_lava); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & HEAVY


@pytest.mark.slow
def test_running_a_network_imports_no_torch(tiny) -> None:
    code = (
        "import sys, esl_lava\n"
        f"network = esl_lava.read({str(tiny.net)!r})\n"
        "spikes = esl_lava.load_spikes(network, samples=3)\n"
        "result = esl_lava.run(network, spikes.inputs)\n"
        "esl_lava.price(network, result)\n"
        "esl_lava.map_network(network, 'loihi1')\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {"torch", "lava"}


def test_paths_may_be_texts_or_paths(tiny) -> None:
    one, other = api.read(tiny.net), api.read(str(tiny.net))
    assert netfile.digest(one) == netfile.digest(other)
    inputs, labels = api.load_spikes(tiny.net, samples=4)
    assert inputs.shape == (4, 4, 64)
    assert labels is not None
    assert len(labels) == 4
    result = api.run(one, inputs, record="all")
    assert np.array_equal(result.decisions, api.run(str(tiny.net), inputs).decisions)
    evaluation = api.evaluate(one, samples=4)
    assert np.array_equal(evaluation.result.decisions, result.decisions)
    assert evaluation.accuracy == float((result.decisions == labels).mean())


def test_a_file_is_not_replaced_unasked(tiny, tmp_path) -> None:
    network = api.lower(tiny.model)
    path = tmp_path / "net.h5"
    api.write(network, path)
    assert netfile.digest(api.read(path)) == netfile.digest(network)
    before = path.read_bytes()
    with refused(FileError, "exists", file=path):
        api.write(network, path)
    with refused(FileError, "exists", file=path):
        api.export_model(tiny.model, path)
    api.write(network, path, overwrite=True)
    assert path.read_bytes() == before


def test_an_experiment_is_a_preset_or_a_file(tmp_path) -> None:
    experiment = api.load_experiment("digits", {"sparsity.density": 0.25})
    assert experiment.sparsity.density == 0.25
    file = tmp_path / "mine.toml"
    file.write_text("seed = 9\n[sparsity]\ndensity = 0.5\n")
    assert api.load_experiment(file=file).seed == 9
    with refused(ConfigError, "missing", key="preset"):
        api.load_experiment()
    with refused(ConfigError, "conflict", key="preset"):
        api.load_experiment("digits", file=file)


@pytest.mark.slow
def test_own_samples_from_a_function(tmp_path) -> None:
    generator = np.random.default_rng(0)

    def load(split: str) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(40) % 2
        pictures = generator.integers(0, 100, (40, 1, 4, 4)) + 100 * labels[:, None, None, None]
        return pictures.astype(np.uint8), labels

    own = api.own_samples(load, "stripes")
    experiment = api.load_experiment(
        "digits",
        {
            "data.name": "own",
            "training.epochs": 1,
            "training.batch_size": 10,
            "model.layers": "8",
            "sparsity.t_iter": 1,
        },
    )
    shown: list[object] = []
    trained = api.train(experiment, tmp_path / "run", own=own, show=shown.append)
    assert shown
    assert trained.dataset == "stripes"
    api.export_model(trained.run.model, trained.run.net, own=own)
    assert api.evaluate(trained.run.net, own=own).accuracy == trained.accuracy


def test_functions_name_their_arguments_in_the_docstring() -> None:
    tree = ast.parse(Path(api.__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in api.__all__:
            text = ast.get_docstring(node) or ""
            assert "Raises:" in text, node.name
