import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment
from esl_lava.data.datasets import load
from esl_lava.errors import DataError, FileError
from esl_lava.experiments.verify import verify
from esl_lava.models.reference import SpikeReference
from esl_lava.models.restore import restore
from esl_lava.network import INPUT, Input, Matrix, Network
from esl_lava.results.verification import Difference, State
from tests.faults import refused
from tests.graphs import a_layer, a_network, matrix, with_first, with_further
from tests.simulate import reference

SAMPLES = 30
LAYERS = {"hidden1": 24, "hidden2": 12, "readout": 10}


@pytest.fixture(scope="module")
def expected(tiny: Any, experiment: Experiment) -> dict[str, npt.NDArray[np.int64]]:
    """The layers of stock SLAYER on the first samples."""
    spikes = load("digits", "test").take(SAMPLES).spikes(experiment.encoding)
    network = netfile.read(tiny.net)
    slayer = restore(modelfile.read(tiny.model)).reference(spikes, network)
    assert isinstance(slayer, SpikeReference)
    return dict(slayer.layers)


def with_weights(network: Network, name: str, dense: npt.NDArray[np.int32]) -> Network:
    """Return the network with other weights in a layer; non-zero weights add connections."""
    layers = [
        with_first(layer, connections=Matrix.from_dense(dense, matrix(layer).mask() | (dense != 0)))
        if layer.name == name
        else layer
        for layer in network.layers
    ]
    return a_network(tuple(layers), network.steps, network.provenance)


def changed(tiny: Any, path: Path, name: str, post: int, pre: int, by: int) -> Path:
    """Write a net.h5 in which one weight of a layer differs."""
    network = netfile.read(tiny.net)
    layer = next(layer for layer in network.layers if layer.name == name)
    dense = matrix(layer).dense()
    dense[post, pre] += by
    netfile.write(with_weights(network, name, dense), path)
    return path


@pytest.mark.slow
def test_slayer_and_the_exact_simulator_agree(
    tiny: Any, expected: dict[str, npt.NDArray[np.int64]]
) -> None:
    result = verify(tiny.model, tiny.net, samples=SAMPLES, backends=("exact",))
    assert result.total == 0
    assert result.first is None
    assert result.differences == {"exact": 0}
    assert result.integers.differences == ()
    weights = sum(matrix(layer).count for layer in netfile.read(tiny.net).layers)
    assert result.integers.compared == weights + 5 * sum(LAYERS.values()) + len(LAYERS)
    assert (result.dataset, result.samples, result.backends) == ("digits", SAMPLES, ("exact",))
    assert result.positions == SAMPLES * 4 * sum(LAYERS.values())
    assert result.spikes == expected["hidden1"].sum() + expected["hidden2"].sum()
    for name in LAYERS:  # the layers are not silent
        assert 100 < np.count_nonzero(expected[name]) < expected[name].size


def test_slayer_layers_by_hand(expected: dict[str, npt.NDArray[np.int64]], tiny: Any) -> None:
    """v of the readout is the cumulative sum of integer weights over spikes, times 64."""
    assert {name: values.shape for name, values in expected.items()} == {
        name: (SAMPLES, 4, neurons) for name, neurons in LAYERS.items()
    }
    weights = matrix(netfile.read(tiny.net).layers[-1]).dense().astype(np.int64)
    sums = (expected["hidden2"] @ weights.T).cumsum(axis=1)
    assert np.array_equal(expected["readout"], sums * 64)


@pytest.mark.slow
def test_one_changed_readout_weight_is_found(
    tiny: Any, tmp_path: Path, expected: dict[str, npt.NDArray[np.int64]]
) -> None:
    busy = int(expected["hidden2"].sum(axis=(0, 1)).argmax())
    net = changed(tiny, tmp_path / "net.h5", "readout", post=7, pre=busy, by=2)
    result = verify(tiny.model, net, samples=SAMPLES, backends=("exact",))

    counted = expected["hidden2"][:, :, busy].cumsum(axis=1)  # spikes that crossed the weight
    sample, step = np.argwhere(counted)[0]
    assert result.first is not None
    v = expected["readout"][sample, :, 7]
    v_before = v[step - 1] if step else 0
    u = np.diff(v, prepend=0)
    u_before = u[step - 1] if step else 0
    assert dataclasses.asdict(result.first) == {
        "backend": "exact",
        "layer": "readout",
        "sample": sample,
        "step": step,
        "neuron": 7,
        "expected": expected["readout"][sample, step, 7],
        "found": v[step] + 2 * 64 * counted[sample, step],
        "expected_state": {"u_before": u_before, "v_before": v_before, "u": u[step], "v": v[step]},
        "found_state": {
            "u_before": u_before,
            "v_before": v_before,
            "u": u[step] + 2 * 64,
            "v": v[step] + 2 * 64,
        },
        "reference": "SLAYER",
    }
    assert result.differences["exact"] == np.count_nonzero(counted)
    assert result.total == np.count_nonzero(counted) + 1
    assert str(result.first) == (
        f"exact: layer readout, neuron 7, sample {sample}, step {step}: {result.first.found} "
        f"(u {u_before} -> {u[step] + 128}, v {v_before} -> {v[step] + 128}), but SLAYER has "
        f"{v[step]} (u {u_before} -> {u[step]}, v {v_before} -> {v[step]})"
    )


def test_slayers_states_are_those_of_the_integer_network(tiny: Any, experiment: Experiment) -> None:
    model = restore(modelfile.read(tiny.model))
    spikes = load("digits", "test").take(3).spikes(experiment.encoding)
    trace = reference.simulate(netfile.read(tiny.net), spikes)
    for name in LAYERS:
        u, v = model.states(spikes, name)
        assert u.any()
        assert np.array_equal(u, trace.u[name])
        assert np.array_equal(v, trace.v[name])


@pytest.mark.slow
def test_the_earliest_layer_is_named(tiny: Any, tmp_path: Path, experiment: Experiment) -> None:
    network = netfile.read(tiny.net)
    dense = matrix(network.layers[0]).dense()
    post, pre = np.argwhere(dense)[np.abs(dense[dense != 0]).argmax()]
    # Flip the sign of the strongest weight, in even integers of 8 bits.
    by = -2 * int(np.clip(dense[post, pre], -254, 254))
    net = changed(tiny, tmp_path / "net.h5", "hidden1", post, pre, by)
    result = verify(tiny.model, net, samples=357, backends=("exact",))
    assert isinstance(result.first, Difference)
    assert (result.first.layer, result.first.neuron) == ("hidden1", post)
    assert {result.first.expected, result.first.found} == {0, 1}
    spikes = load("digits", "test").take(357).spikes(experiment.encoding)
    sample, step = result.first.sample, result.first.step
    for path, state in ((tiny.net, result.first.expected_state), (net, result.first.found_state)):
        trace = reference.simulate(netfile.read(path), spikes[sample : sample + 1])
        u, v = (values["hidden1"][0, :, post] for values in (trace.u, trace.v))
        u_before, v_before = (u[step - 1], v[step - 1]) if step else (0, 0)
        assert state == State(u_before, v_before, u[step], v[step])


def test_connections_are_compared_too(tiny: Any, tmp_path: Path) -> None:
    network = netfile.read(tiny.net)
    first, *others = network.layers
    mask = matrix(first).mask()
    added = np.flatnonzero(~mask)[:3]
    mask.ravel()[added] = True  # three more connections of weight 0
    wider = a_layer(first.name, Matrix.from_dense(matrix(first).dense(), mask), first.neuron)
    netfile.write(
        a_network((wider, *others), network.steps, network.provenance), tmp_path / "net.h5"
    )
    result = verify(tiny.model, tmp_path / "net.h5", samples=3, backends=("exact",))
    assert result.differences == {"exact": 0}
    assert result.total == 3
    assert result.first is None
    assert result.sentences() == [
        f"layer hidden1: connection of neuron {added[0] // 64}, input {added[0] % 64} is present "
        "in the file, absent in the model (3 such differences)"
    ]


def first_layer(network: Network, **changes: Any) -> Network:
    """Return the network with a changed first layer."""
    first, *others = network.layers
    return dataclasses.replace(network, layers=(dataclasses.replace(first, **changes), *others))


def further_input(network: Network, layer_input: Input) -> Network:
    """Return the network with one more input of its first layer."""
    return first_layer(network, inputs=with_further(network.layers[0], layer_input).inputs)


def one_weight(network: Network, layer: int, by: int) -> Network:
    """Return the network with one weight of a layer changed, the first possible one."""
    chosen = network.layers[layer]
    dense = matrix(chosen).dense()
    at = np.flatnonzero((dense != 0) & (np.abs(dense + by) < 250) & (dense + by != 0))[0]
    dense.ravel()[at] += by
    return with_weights(network, chosen.name, dense)


def swapped(network: Network) -> Network:
    """Return the network with the first two neurons of the first hidden layer exchanged.

    Its decisions are the same, but its integers are not those of the model.
    """
    first, second, *others = network.layers
    order = np.arange(first.neurons)
    order[:2] = 1, 0
    rows = Matrix.from_dense(matrix(first).dense()[order], matrix(first).mask()[order])
    columns = Matrix.from_dense(
        matrix(second).dense()[:, order],
        matrix(second).mask()[:, order],
    )
    first = with_first(first, connections=rows)
    second = with_first(second, connections=columns)
    return dataclasses.replace(network, layers=(first, second, *others))


def cut(network: Network) -> Network:
    """Return the network without its first connection with a weight other than 0."""
    dense, mask = (
        matrix(network.layers[0]).dense(),
        matrix(network.layers[0]).mask(),
    )
    at = np.flatnonzero(dense)[0]
    dense.ravel()[at], mask.ravel()[at] = 0, False
    first, *others = network.layers
    first = with_first(first, connections=Matrix.from_dense(dense, mask))
    return dataclasses.replace(network, layers=(first, *others))


def neuron(network: Network, **changes: Any) -> Network:
    return first_layer(network, neuron=dataclasses.replace(network.layers[0].neuron, **changes))


def recurrent(network: Network) -> Network:
    silent = np.zeros((network.layers[0].neurons,) * 2, int)
    own = Input(network.layers[0].name, Matrix.from_dense(silent, silent == 0))
    return further_input(network, own)


def at_last(values: int, network: Network) -> npt.NDArray[np.int64]:
    """Return (neurons,) zeros for the first layer, with a value for the last neuron."""
    one = np.zeros(network.layers[0].neurons, np.int64)
    one[-1] = values
    return one


def slower(network: Network) -> Network:
    config = network.provenance["config"].replace("steps = ", "steps = 1")
    return dataclasses.replace(network, provenance={**network.provenance, "config": config})


TAMPERED: dict[str, tuple[Callable[[Network], Network], str]] = {
    "weight": (lambda n: one_weight(n, 0, 2), "layer hidden1: weight of neuron "),
    "weight of the readout": (lambda n: one_weight(n, -1, 2), "layer readout: weight of neuron "),
    "sign": (
        lambda n: with_weights(n, "hidden1", -matrix(n.layers[0]).dense().clip(-254)),
        "layer hidden1: weight of neuron ",
    ),
    "threshold": (
        lambda n: neuron(n, threshold=n.layers[0].neuron.threshold + 1),
        "layer hidden1: threshold of neuron 0 is ",
    ),
    "one threshold": (
        lambda n: neuron(n, threshold=n.layers[0].parameter("threshold") + at_last(1, n)),
        "layer hidden1: threshold of neuron 23 is ",
    ),
    "bias": (lambda n: first_layer(n, bias=at_last(1, n)), "bias of neuron 23 is 1 in the file, 0"),
    "wide bias": (
        lambda n: first_layer(n, bias=at_last(1 << 20, n)),
        "bias of neuron 23 is 1048576",
    ),
    "current decay": (
        lambda n: neuron(n, current_decay=n.layers[0].neuron.current_decay - 1),
        "layer hidden1: current_decay of neuron 0 is ",
    ),
    "voltage decay": (
        lambda n: neuron(n, voltage_decay=n.layers[0].neuron.voltage_decay + 1),
        "layer hidden1: voltage_decay of neuron 0 is ",
    ),
    "delay": (
        lambda n: first_layer(n, inputs=with_first(n.layers[0], delays=at_last(1, n)).inputs),
        "delay of neuron 23 is 1 in the file, 0",
    ),
    "refractory": (
        lambda n: neuron(n, refractory=n.layers[0].neuron.refractory + 1),
        "layer hidden1: refractory period is ",
    ),
    "mask": (cut, "layer hidden1: connection of neuron "),
    "order": (swapped, "layer hidden1: connection of neuron "),
    "recurrence": (
        recurrent,
        "layer hidden1: shape of recurrent connections is 24 to 24 neurons in",
    ),
    "skip": (
        lambda n: further_input(n, Input(INPUT, matrix(n.layers[0]))),
        "layer hidden1: shape of connections of skip 0 from input is 64 to 24 neurons in",
    ),
    "steps": (lambda n: dataclasses.replace(n, steps=n.steps + 1), "network: number of steps is "),
    "graded input": (
        lambda n: dataclasses.replace(n, input_range=(-16, 15)),
        "network: range of inputs is -16..15 in the file, 0..1 in the model",
    ),
    "encoding": (slower, "network: encoding of samples is "),
}
"""Name of a change -> function that changes a network, and a part of the expected sentence."""


@pytest.mark.slow
@pytest.mark.parametrize("once", [False, True], ids=["multi-spike", "single-spike"])
@pytest.mark.parametrize(("change", "sentence"), TAMPERED.values(), ids=TAMPERED)
def test_every_kind_of_wrong_integer_is_named(
    tiny: Any,
    tiny_once: Any,
    tmp_path: Path,
    change: Callable[[Network], Network],
    sentence: str,
    once: bool,
) -> None:
    """One sample is enough, because integers are compared, not only spikes."""
    run = tiny_once if once else tiny
    path = tmp_path / "net.h5"
    netfile.write(change(netfile.read(run.net)), path)  # the digest of the file is correct
    result = verify(run.model, path, samples=1, backends=("exact",))
    assert result.integers.total >= 1
    assert sentence in result.sentences()[0]


@pytest.mark.slow
def test_an_unchanged_file_passes_with_one_sample(tiny: Any, tiny_once: Any) -> None:
    for run in (tiny, tiny_once):
        result = verify(run.model, run.net, samples=1, backends=("exact",))
        assert (result.total, result.sentences()) == (0, [])


@pytest.mark.slow
def test_a_wrong_file_that_a_backend_cannot_run_is_reported(tiny: Any, tmp_path: Path) -> None:
    network = netfile.read(tiny.net)
    netfile.write(first_layer(network, bias=at_last(1 << 20, network)), tmp_path / "net.h5")
    result = verify(tiny.model, tmp_path / "net.h5", samples=1, backends=("exact", "lava-models"))
    assert "1048576" in result.not_run["lava-models"]
    assert result.sentences()[-1].startswith("lava-models: not run: layer hidden1: ")


def test_a_file_without_provenance_is_verified_on_the_data_of_the_model(
    tiny: Any, tmp_path: Path
) -> None:
    network = netfile.read(tiny.net)
    netfile.write(a_network(network.layers), tmp_path / "net.h5")
    result = verify(tiny.model, tmp_path / "net.h5", samples=3, backends=("exact",))
    assert (result.dataset, result.total) == ("digits", 0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["width", "name", "depth"])
def test_files_of_different_networks_are_refused(tiny: Any, tmp_path: Path, fault: str) -> None:
    network = netfile.read(tiny.net)
    hidden1, hidden2, readout = network.layers
    narrow = Matrix.from_dense(matrix(hidden1).dense()[:, :60])
    layers = {
        "width": (with_first(hidden1, connections=narrow), hidden2, readout),
        "name": (hidden1, dataclasses.replace(hidden2, name="other"), readout),
        "depth": (hidden1, dataclasses.replace(hidden2, name="readout")),
    }[fault]
    netfile.write(a_network(layers, network.steps, network.provenance), tmp_path / "net.h5")
    ours = "hidden1 64-24, hidden2 24-12, readout 12-10"
    with refused(FileError, "mismatch", file=tmp_path / "net.h5", limit=ours):
        verify(tiny.model, tmp_path / "net.h5", backends=("exact",))


def test_files_in_the_wrong_order_are_refused(tiny: Any) -> None:
    with pytest.raises(FileError, match=r"model\.pt"):
        verify(tiny.net, tiny.model)


@pytest.mark.parametrize("samples", [0, -1, 358])
def test_an_impossible_number_of_samples_is_refused(tiny: Any, samples: int) -> None:
    with pytest.raises(DataError, match=rf"{samples}\b"):
        verify(tiny.model, tiny.net, samples=samples, backends=("exact",))
