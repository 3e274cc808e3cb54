import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava import netfile
from esl_lava.config import Experiment, to_toml
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images, load
from esl_lava.errors import BackendError, ConfigError, DataError
from esl_lava.experiments import evaluate as evaluations
from esl_lava.experiments.evaluate import (
    Probes,
    data_name,
    encoding_of,
    evaluate,
    load_samples,
    measure,
    read_inputs,
)
from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Matrix, Network
from esl_lava.simulate import Result, simulate
from tests.faults import refused
from tests.graphs import a_layer, a_network


def network(steps: int | None = None, **provenance: str) -> Network:
    """Return a network: hidden neurons copy inputs 0 and 1 of four; the readout sums them."""
    copies = np.array([[2, 0, 0, 0], [0, 2, 0, 0]])
    layers = (
        a_layer("hidden1", Matrix.from_dense(copies), Cuba(4096, 4096, 1)),
        a_layer("readout", Matrix.from_dense(np.array([[2, 0], [0, 2]])), INTEGRATOR),
    )
    return a_network(layers, steps, provenance)


def four_pixels() -> Images:
    images = np.array([[255, 0, 9, 9], [0, 255, 9, 9], [255, 255, 9, 9], [0, 255, 0, 0]], np.uint8)
    return Images("four", images, np.array([0, 1, 1, 0]), 2, (2, 2), "test")


def test_accuracy_and_counts_by_hand() -> None:
    evaluation = evaluate(network(), four_pixels(), Encoding(kind="constant", steps=3))
    # The third sample is a tie, which goes to class 0; the last sample is decided as class 1.
    assert evaluation.result.decisions.tolist() == [0, 1, 0, 1]
    assert evaluation.accuracy == 2 / 4
    assert (evaluation.dataset, evaluation.split, evaluation.backend, evaluation.samples) == (
        *("four", "test", "exact"),
        4,
    )
    # Five bright pixels fire in three steps each, into hidden1 and then into the readout.
    assert [layer.sops for layer in evaluation.result.counts.layers] == [15, 15]
    assert evaluation.seconds > 0
    assert not evaluation.result.spikes


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="loihi9"):
        evaluate(network(), four_pixels(), Encoding(steps=3), backend="loihi9")


def test_data_and_encoding_are_those_of_the_training(experiment: Experiment) -> None:
    trained = network(config=to_toml(experiment))
    assert data_name(trained, None) == "digits"
    assert data_name(trained, "mnist") == "mnist"
    assert encoding_of(trained) == experiment.encoding == Encoding(kind="rate", steps=4)
    assert encoding_of(trained, "latency") == Encoding(kind="latency", steps=4)
    assert encoding_of(trained, None, 9) == Encoding(kind="rate", steps=9)


def test_a_recorded_configuration_may_list_hidden_neurons() -> None:
    once = """
[encoding]
kind = "latency"
steps = 21
[model]
kind = "single_spike"
hidden = [24, 12]
current_decay = 0.12
voltage_decay = 0.0
threshold = 1.0
[sparsity]
density = 0.4
"""
    trained = network(config=once)
    assert data_name(trained, None) == "digits"
    assert encoding_of(trained) == Encoding(kind="latency", steps=21)
    assert encoding_of(trained, "two_times") == Encoding(kind="two_times", steps=21)


def test_a_file_without_provenance_needs_options() -> None:
    with refused(ConfigError, "missing", key="--data"):
        data_name(network(), None)
    assert data_name(network(), "digits") == "digits"
    for kind, steps, key in (
        (None, None, "--encoder"),
        ("rate", None, "--steps"),
        (None, 8, "--encoder"),
    ):
        with refused(ConfigError, "missing", key=key):
            encoding_of(network(), kind, steps)
    assert encoding_of(network(), "constant", 8) == Encoding(kind="constant", steps=8)


@pytest.mark.parametrize(
    ("kind", "steps", "key"),
    [
        ("morse", 4, "encoding.kind"),
        ("", 4, "encoding.kind"),
        ("rate", 0, "encoding.steps"),
        ("rate", -3, "encoding.steps"),
    ],
)
def test_an_impossible_encoding_is_refused(
    experiment: Experiment, kind: str, steps: int, key: str
) -> None:
    for net in (network(), network(config=to_toml(experiment))):
        with pytest.raises(ConfigError, match=re.escape(key)):
            encoding_of(net, kind, steps)


def test_the_first_samples_of_the_split_are_used() -> None:
    wide = a_network((a_layer("only", Matrix.from_dense(np.ones((2, 64), int)), INTEGRATOR),))
    some = load_samples(wide, "digits", "test", 7)
    digits = load("digits", "test").take(7)
    encoding = Encoding(kind="direct", steps=1, bits=8)
    assert np.array_equal(some.spikes(encoding), digits.spikes(encoding))
    assert len(load_samples(wide, "digits", "test", None)) == 357
    for number in (0, -1, 358):
        with pytest.raises(DataError, match=f"cannot take {number} samples"):
            load_samples(wide, "digits", "test", number)


def test_images_of_another_shape_are_refused() -> None:
    """The number of pixels alone does not decide."""
    for shape, fits in (((1, 8, 8), True), ((4, 4, 4), False), ((64, 1, 1), False)):
        kernel = np.full((2, shape[0], 1, 1), 2)
        maps = a_network((a_layer("maps", Convolution(kernel, shape), INTEGRATOR),))
        if fits:
            assert len(load_samples(maps, "digits", "test", None)) == 357
            continue
        with refused(DataError, "mismatch", value=(1, 8, 8), limit=shape):
            load_samples(maps, "digits", "test", None)


def test_more_classes_than_those_of_the_network_are_refused() -> None:
    data = replace(four_pixels(), classes=3)
    with refused(DataError, "mismatch", value=3, limit=2):
        evaluate(network(), data, Encoding(kind="constant", steps=3))


def test_a_default_may_exceed_the_number_of_samples() -> None:
    wide = a_network((a_layer("only", Matrix.from_dense(np.ones((2, 64), int)), INTEGRATOR),))
    assert len(load_samples(wide, "digits", "test", None, 100)) == 100
    assert len(load_samples(wide, "digits", "test", None, 1000)) == 357
    with pytest.raises(DataError, match="cannot take 358 samples"):
        load_samples(wide, "digits", "test", 358, 1000)


def test_data_of_another_size_are_refused() -> None:
    with refused(DataError, "mismatch", value=64, limit=4):
        load_samples(network(), "digits", "test", None)


# --- what a run records ------------------------------------------------------------------


BRIGHT = Encoding(kind="constant", steps=3)


def test_nothing_is_recorded_without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    records = []

    def spy(*args: Any, record: Any, **options: Any) -> Result:
        records.append(record)
        arguments: Any = {**options, "record": record}
        return simulate(*args, **arguments)

    monkeypatch.setattr(evaluations, "simulate", spy)
    evaluation = evaluate(network(), four_pixels(), BRIGHT)
    assert (evaluation.activity, evaluation.sops, evaluation.first) == (None, None, None)
    assert records == [None]
    evaluate(network(), four_pixels(), BRIGHT, probes=Probes(activity=3, first=True))
    assert records == [None, "all", None]


def test_recordings_by_hand() -> None:
    probes = Probes(activity=3, sops=True, first=True)
    evaluation = evaluate(network(), four_pixels(), BRIGHT, probes=probes)
    # A bright pixel 0 or 1 causes two operations in each of three steps.
    assert evaluation.sops is not None
    assert evaluation.sops.tolist() == [6, 6, 12, 6]
    assert evaluation.activity is not None
    assert evaluation.activity.counts.samples == 3
    assert evaluation.activity.counts.sops == 24
    assert evaluation.activity.spikes[INPUT].tolist() == [[6, 6, 0, 0]]
    assert evaluation.activity.spikes["hidden1"].tolist() == [[6, 6]]
    assert [detail.active_updates for detail in evaluation.activity.counts.details] == [12, 12]
    first = evaluation.first
    assert first is not None
    assert first.inputs.tolist() == [[1, 0, 0, 0]] * 3
    assert first.spikes["hidden1"].tolist() == [[1, 0]] * 3
    assert first.readout is not None
    assert first.readout.tolist() == [[128, 0], [256, 0], [384, 0]]
    assert first.decision == 0


@pytest.mark.slow
@given(
    activity=st.integers(0, 5), sops=st.booleans(), first=st.booleans(), limit=st.integers(1, 200)
)
def test_probes_and_portions_change_nothing(
    activity: int, sops: bool, first: bool, limit: int
) -> None:
    plain = evaluate(network(), four_pixels(), BRIGHT)
    everything = Probes(activity=activity, sops=True, first=True)
    whole = evaluate(network(), four_pixels(), BRIGHT, probes=everything)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluations, "ENCODED_BYTES", limit)
        probes = Probes(activity=activity, sops=sops, first=first)
        evaluation = evaluate(network(), four_pixels(), BRIGHT, probes=probes)
    assert evaluation.accuracy == plain.accuracy
    assert evaluation.result.counts == plain.result.counts
    assert evaluation.result.decisions.tolist() == plain.result.decisions.tolist()
    assert evaluation.firing == plain.firing
    assert {name: fired.tolist() for name, fired in evaluation.result.fired.items()} == {
        name: fired.tolist() for name, fired in plain.result.fired.items()
    }
    assert not evaluation.result.spikes
    assert (evaluation.activity is None) == (activity == 0)
    if evaluation.activity is not None:
        some = four_pixels().take(min(activity, 4))
        expected = measure(network(), some, BRIGHT)
        assert evaluation.activity.counts == expected.counts
        for name, spikes in expected.spikes.items():
            np.testing.assert_array_equal(evaluation.activity.spikes[name], spikes)
    if sops:
        assert evaluation.sops is not None
        assert whole.sops is not None
        assert evaluation.sops.tolist() == whole.sops.tolist()
        assert evaluation.sops.sum() == evaluation.result.counts.sops
    assert (evaluation.first is None) == (not first)


@pytest.mark.parametrize("most", [0, 2])
def test_portions_of_graded_input_fit_too(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Direct coding stores one step; a simulator needs four bytes for each step and input."""
    graded = replace(network(), input_range=(-16, 15))
    encoding, probes = Encoding(kind="direct", steps=3), Probes(activity=most, first=True)
    whole = evaluate(graded, four_pixels(), encoding, probes=probes)
    portions = []

    def spy(network: Network, inputs: Any, *args: Any, **options: Any) -> Result:
        portions.append(inputs)
        return simulate(network, inputs, *args, **options)

    monkeypatch.setattr(evaluations, "simulate", spy)
    monkeypatch.setattr(evaluations, "ENCODED_BYTES", 2 * 3 * 4 * 4)
    evaluation = evaluate(graded, four_pixels(), encoding, probes=probes)
    assert max(inputs.nbytes for inputs in portions) == 2 * 3 * 4 * 4
    assert np.array_equal(np.concatenate(portions), four_pixels().spikes(encoding))
    assert evaluation.result.counts == whole.result.counts
    assert evaluation.result.decisions.tolist() == whole.result.decisions.tolist()
    assert evaluation.first is not None
    assert evaluation.first.inputs.tolist() == [[15, -16, -15, -15]] * 3


def test_a_network_of_fewer_classes_can_be_measured() -> None:
    data = replace(four_pixels(), classes=3)
    assert measure(network(), data, BRIGHT).counts.samples == 4


# --- inputs that a user names -------------------------------------------------------------


def test_inputs_are_read_by_name(tiny: Any, tmp_path: Path) -> None:
    trained, data, encoding = read_inputs(tiny.net, samples=12)
    assert (data.name, data.split, len(data)) == ("digits", "test", 12)
    assert encoding == Encoding(kind="rate", steps=4)
    assert len(read_inputs(tiny.net, most=20)[1]) == 20
    path = tmp_path / "spikes.npy"
    labels = tmp_path / "labels.npy"
    np.save(path, data.spikes(encoding))
    assert data.labels is not None
    np.save(labels, data.labels)
    network, file, none = read_inputs(tiny.net, str(path), labels=labels)
    assert none is None
    evaluation = evaluate(network, file, none)
    expected = evaluate(trained, data, encoding)
    assert (evaluation.dataset, evaluation.split) == ("spikes.npy", None)
    assert evaluation.accuracy == expected.accuracy
    assert evaluation.result.counts == expected.result.counts
    network, file, none = read_inputs(tiny.net, str(path), samples=5)
    evaluation = evaluate(network, file, none)
    assert (evaluation.samples, evaluation.accuracy) == (5, None)
    with refused(ConfigError, "conflict", key="--encoder", value="rate"):
        read_inputs(tiny.net, str(path), encoder="rate")
    with pytest.raises(DataError, match="cannot take 13 samples of"):
        read_inputs(tiny.net, str(path), samples=13)


def test_a_foreign_network_needs_an_encoding(tmp_path: Path) -> None:
    wide = a_network((a_layer("only", Matrix.from_dense(np.ones((10, 64), int)), INTEGRATOR),))
    netfile.write(wide, tmp_path / "net.h5")
    with refused(ConfigError, "missing", key="--encoder"):
        read_inputs(tmp_path / "net.h5", "digits")
    _, _, encoding = read_inputs(tmp_path / "net.h5", "digits", encoder="latency", steps=6)
    assert encoding == Encoding(kind="latency", steps=6)
