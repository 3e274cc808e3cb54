"""Compare Lava's own process models in this process with the simulator and by hand."""

import subprocess
import sys

import numpy as np
import pytest

from esl_lava.errors import BackendError
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Matrix,
)
from esl_lava.simulate import lava_models
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate import equality
from tests.simulate.networks import Case

FORGETFUL = Cuba(4096, 4096, 1)
"""A neuron that fires in a step if more than 1 arrives."""


def eye(n: int, weight: int = 2) -> Matrix:
    return Matrix.from_dense(weight * np.eye(n, dtype=int))


def impulse(steps: int, n: int = 1) -> np.ndarray:
    """Return one sample in which the first input is active in the first step."""
    inputs = np.zeros((1, steps, n), np.uint8)
    inputs[0, 0, 0] = 1
    return inputs


@pytest.mark.slow
def test_random_networks_equal_ours():
    totals = equality.check(40, equality.by_models, netx=False, seed=7)
    assert totals.cases >= 40
    assert totals.differences == 0, totals
    assert totals.silent < totals.layers / 2, totals


def test_a_difference_is_found_and_told():
    network = a_network((a_layer("only", eye(2), FORGETFUL),))
    inputs = np.ones((1, 3, 2), np.uint8)
    lava = lava_models.run(network, inputs, ("only",), ("only",))
    lava.u["only"][0, 1, 1] += 1
    totals = equality.Totals()
    equality.compare(Case(network, inputs), lava, totals)
    assert totals.differences == 2  # to the reference, and to the exact simulator
    assert totals.first.startswith(
        "u of only, sample 0, step 1, neuron 1: Lava 129, reference 128 in Case(only Matrix"
    )


def test_latencies_are_hidden():
    chain = [a_layer(f"layer{i}", eye(1), FORGETFUL) for i in range(3)]
    chain.append(a_layer("last", eye(1), FORGETFUL, skips=(Input(INPUT, eye(1, -2)),)))
    chain.append(a_layer("readout", eye(1), INTEGRATOR, skips=(Input("layer0", eye(1, 6)),)))
    network = a_network(tuple(chain))
    names = tuple(layer.name for layer in chain[:-1])
    result = lava_models.run(network, impulse(4), names, ("readout",))
    for name in names[:-1]:
        assert result.spikes[name][0, :, 0].tolist() == [1, 0, 0, 0]
    assert not result.spikes["last"].any()  # what skips cancels what passes through layers
    assert result.readout[0, :, 0].tolist() == [6 << 6] * 4
    np.testing.assert_array_equal(result.v["readout"], result.readout)
    assert result.u["readout"][0, :, 0].tolist() == [6 << 6, 0, 0, 0]


def test_samples_begin_from_rest_with_nothing_under_way():
    network = a_network(
        (
            a_layer(
                "only",
                eye(2),
                Cuba(0, 0, 5),
                bias=np.array([1, 0]),
                delays=np.array([0, 2]),
                recurrent=Matrix.from_dense([[0, 4], [4, 0]]),
            ),
        )
    )
    inputs = np.random.default_rng(0).integers(0, 2, (3, 6, 2)).astype(np.uint8)
    together = lava_models.run(network, inputs, ("only",), ("only",))
    for sample in range(3):
        alone = lava_models.run(network, inputs[sample : sample + 1], ("only",), ("only",))
        np.testing.assert_array_equal(alone.u["only"][0], together.u["only"][sample])
        np.testing.assert_array_equal(alone.spikes["only"][0], together.spikes["only"][sample])


@pytest.mark.parametrize("sparse", [False, True])
def test_one_delay_by_hand(sparse):
    layer = a_layer("only", Matrix.from_dense([[2], [2]]), FORGETFUL, delays=np.array([0, 3]))
    spikes = lava_models.run(a_network((layer,)), impulse(5), ("only",), sparse=sparse).spikes
    assert spikes["only"][0].T.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]


def test_counts_and_decisions():
    network = a_network((a_layer("only", Matrix.from_dense([[2, 0], [2, 2]]), FORGETFUL),))
    result = lava_models.run(network, np.array([[[0, 1], [1, 0], [0, 1]]], np.uint8))
    assert result.spikes == {}
    assert result.decisions.tolist() == [1]
    assert (result.counts.sops, result.counts.spikes) == (4, 4)


def weight(value: int, limit: int) -> dict[str, object]:
    """The fields of a weight that Lava would clip."""
    return {"code": "range", "key": "weight", "value": value, "limit": limit}


def wide(**parts) -> Convolution:
    return Convolution(np.full((1, 1, 1, 1), 3), (1, 300, 300), **parts)


@pytest.mark.parametrize(
    ("layer", "fields", "place"),
    [
        (a_layer("a", eye(2, 256), FORGETFUL), weight(256, 255), ""),
        (a_layer("a", eye(2, -257), FORGETFUL), weight(-257, -256), ""),
        (
            a_layer("a", eye(2), FORGETFUL, recurrent=eye(2, 300)),
            *(weight(300, 255), "recurrent input: "),
        ),
        (
            a_layer("a", eye(2), FORGETFUL, skips=(Input(INPUT, eye(2, 400)),)),
            *(weight(400, 255), "skip from input: "),
        ),
        (
            a_layer("a", eye(2), FORGETFUL, bias=np.array([0, 40000])),
            *({"code": "range", "key": "bias", "value": 40000, "limit": 32767}, ""),
        ),
        (
            a_layer("a", Injection((2,)), FORGETFUL, bias=np.array([0, 32767])),
            *({"code": "range", "key": "bias", "value": 32768, "limit": 32767}, ""),
        ),
        (
            a_layer("a", Injection((2,)), FORGETFUL, delays=np.array([0, 1])),
            *({"code": "unsupported"}, ""),
        ),
        (
            a_layer("a", wide(stride=(128, 1)), FORGETFUL),
            *({"code": "range", "key": "stride", "value": 128, "limit": 127}, ""),
        ),
        (
            a_layer(
                "a",
                Convolution(np.full((1, 1, 1, 1), 300), (1, 1, 2)),
                FORGETFUL,
                delays=np.array([0, 1]),
            ),
            *(weight(300, 255), ""),
        ),
    ],
)
def test_refused(layer, fields, place):
    network = a_network((layer,))
    inputs = np.ones((1, 2, network.inputs), np.uint8)
    with refused(BackendError, layer="a", **fields) as caught:
        lava_models.run(network, inputs)
    assert str(caught.value).startswith(f"layer a: {place}Lava")


def test_convolutions_keep_any_weight_and_wrap_sums():
    kernel = np.full((1, 1, 1, 1), 1 << 23)
    network = a_network((a_layer("only", Convolution(kernel, (1, 1, 1)), FORGETFUL),))
    result = lava_models.run(network, np.ones((1, 1, 1), np.uint8), (), ("only",))
    # -2**23 << 6 is -2**29; u wraps by 2**24 once only.
    assert result.u["only"].ravel().tolist() == [-(1 << 29) + (1 << 24)]


def test_sums_that_lavas_convolution_has_no_number_for_are_refused():
    conv = Convolution(np.array([[[[300, -1]]]]), (1, 1, 2))
    network = a_network((a_layer("only", conv, FORGETFUL),), input_range=(1 - (1 << 24), 0))
    inputs = np.zeros((1, 1, 2), np.int32)
    inputs[0, 0, 1] = 1 - (1 << 24)
    fields = {"value": 5049941715, "limit": 2147483647}
    with refused(BackendError, "range", layer="only", **fields):
        lava_models.run(network, inputs)
    assert lava_models.run(network, inputs // 4, (), ("only",)).u["only"].any()


IMPORTING = """
import multiprocessing
chosen = {before}
if chosen:
    multiprocessing.set_start_method(chosen)
from esl_lava.simulate import lava_models
lava_models._import_lava()
assert multiprocessing.get_start_method(allow_none=True) == chosen
import sys
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, "spawn"])
def test_importing_lava_leaves_multiprocessing_alone(before):
    subprocess.run([sys.executable, "-c", IMPORTING.format(before=repr(before))], check=True)
