from dataclasses import replace

import numpy as np
import pytest

from esl_lava.counts import LayerCounts, LayerDetail
from esl_lava.devices import Device, load_device
from esl_lava.energy import add_details, as_ann, per_sample
from esl_lava.energy.lemaire import DENSE, SPARSE, LayerEnergy, Load, ann, loads, snn
from esl_lava.errors import ConfigError
from esl_lava.network import INTEGRATOR, Convolution, Cuba, Matrix, Network
from esl_lava.simulate import simulate
from tests.faults import refused
from tests.graphs import a_layer, a_network

PARTS = ("weights", "potential", "bias", "io", "operations", "addressing")


def full(name: str, inputs: int, neurons: int) -> Load:
    """Return a layer of 784-800-10. Every input and neuron fires once, T = 1, without leak."""
    size = inputs * neurons
    return Load(
        LayerCounts(name, neurons, size, size, size, size, size, size, neurons, neurons),
        LayerDetail(inputs, size, size, neurons, inputs, convolution=False, bias=True, leaky=False),
        samples=1,
        steps=1,
    )


def sparse(load: Load, nonzero: int) -> Load:
    """Return the layer with `nonzero` weights that are not 0, each crossed once."""
    layer, detail = replace(load.layer, sops=nonzero), replace(load.detail, nonzero=nonzero)
    return replace(load, layer=layer, detail=detail)


MLP = [full("hidden", 784, 800), full("readout", 800, 10)]


def nanojoules(layers: list[LayerEnergy]) -> dict[str, float]:
    return {part: 1e9 * sum(getattr(layer, part) for layer in layers) for part in PARTS}


def test_the_fnn_of_the_authors_settings() -> None:
    found = [ann(load, load_device("lemaire_int32")) for load in MLP]
    assert sum(layer.total for layer in found) * 1e9 == pytest.approx(147_757, rel=1e-5)
    expected = {"weights": 145_618, "operations": 2_033, "addressing": 64, "io": 32, "bias": 11}
    for part, value in nanojoules(found).items():
        assert value == pytest.approx(expected.get(part, 0), abs=0.6), part
    assert [layer.extrapolated for layer in found] == [True, False]  # 2.5 MB of weights


def test_the_snn_of_the_authors_settings() -> None:
    found = [snn(load, load_device("lemaire_int32"), DENSE) for load in MLP]
    assert sum(layer.total for layer in found) * 1e9 == pytest.approx(162_929, rel=1e-5)
    expected = {
        **{"weights": 145_618, "potential": 17_141, "operations": 64},
        **{"addressing": 64, "io": 31.6, "bias": 11},
    }
    for part, value in nanojoules(found).items():
        assert value == pytest.approx(expected[part], abs=0.6), part
    assert {layer.storage for layer in found} == {DENSE}


def test_sparsity_pays_in_reads_and_in_the_size_of_the_memory() -> None:
    dense = MLP[0]
    device = load_device("lemaire_int32")
    whole, stored = snn(dense, device, DENSE), snn(sparse(dense, 95_040), device, SPARSE)
    # A sixth of the reads, each from a sixth of the memory, with 10 bits of index.
    assert dense.index_bits == 10
    access = 13.2 + 1.09e-5 * 95_040 * 42
    assert stored.weights == pytest.approx(95_040 * access * 1e-12)
    assert access < 57 < 231 < 13.2 + 1.09e-5 * 627_200 * 32
    assert whole.weights / stored.weights > 25
    assert not stored.extrapolated
    # A spike reads and writes only the potentials it changes, besides one round a step.
    potential = 2 * (95_040 + 800) * (13.2 + 1.09e-5 * 800 * 32) * 1e-12
    assert stored.potential == pytest.approx(potential)


def test_the_cheaper_storage_is_taken() -> None:
    device = load_device("lemaire_int32")
    for nonzero, storage in ((95_040, SPARSE), (627_200, DENSE)):
        load = sparse(MLP[0], nonzero)
        found = snn(load, device)
        assert found.storage == storage
        assert found.total == min(snn(load, device, way).total for way in (DENSE, SPARSE))
    with refused(ConfigError, "unknown", key="storage", value="csr"):
        snn(MLP[0], device, "csr")


def test_a_leak_is_a_product_at_every_step_and_a_convolution_has_addresses() -> None:
    device = load_device("lemaire_int32")
    readout = replace(MLP[1], steps=4)
    still = snn(readout, device)
    leaky = snn(replace(readout, detail=replace(readout.detail, leaky=True)), device)
    assert leaky.operations - still.operations == pytest.approx(4 * 10 * 3.2e-12)
    kernel = replace(MLP[1].detail, convolution=True)
    slid = snn(replace(MLP[1], detail=kernel), device)
    extra = slid.addressing - snn(MLP[1], device).addressing
    assert extra == pytest.approx(2 * 800 * 3.2e-12)  # Eq. 16: 2 theta_in products


def test_a_convolution_as_an_ann_by_hand() -> None:
    # 2 maps of 4 x 4, 3 kernels of 3 x 3 without padding: 3 maps of 2 x 2.
    connections = 12 * 18
    load = Load(
        LayerCounts("conv", 12, 54, 54, connections, connections, connections, 0, 12, 0),
        LayerDetail(32, 54, 54, 27, 0, convolution=True, bias=True, leaky=False),
        samples=1,
        steps=1,
    )
    found = ann(load, load_device("lemaire_int32"))

    def access(words: int) -> float:
        return (13.2 + 1.09e-5 * 32 * words) * 1e-12

    assert found.weights == pytest.approx(216 * access(54))  # Eq. 6.1
    assert found.io == pytest.approx(216 * access(32) + 12 * access(12))  # Eq. 3, 11
    assert found.bias == pytest.approx(12 * access(12))
    assert found.operations == pytest.approx((216 * 3.2 + 12 * 0.1) * 1e-12)  # Eq. 1.1
    assert found.addressing == pytest.approx((32 + 12 + 27) * 0.1e-12)


def test_variants_of_the_price_of_an_access() -> None:
    packed, piecewise = (load_device(f"lemaire_int32_{n}") for n in ("packed", "piecewise"))
    # Two values of 32 bits in a word of 64, 10 pJ each word.
    assert ann(MLP[1], packed).weights == pytest.approx(8000 / 2 * 10e-12)
    # 32,000 bytes lie between 8 KiB (10 pJ) and 32 KiB (20 pJ).
    price = 10 + 10 * (32_000 - 8_192) / (32_768 - 8_192)
    assert ann(MLP[1], piecewise).weights == pytest.approx(8000 * price * 1e-12)
    assert ann(MLP[0], piecewise).weights == pytest.approx(627_200 * 100e-12)


def network() -> Network:
    rng = np.random.default_rng(5)
    kernel = np.where(rng.random((4, 2, 3, 3)) < 0.4, 2 * rng.integers(1, 9, (4, 2, 3, 3)), 0)
    conv = Convolution(kernel, (2, 6, 6), padding=(1, 1))
    weights = np.where(rng.random((5, 144)) < 0.2, 2 * rng.integers(-9, 9, (5, 144)), 0)
    return a_network(
        (
            a_layer("conv", conv, Cuba(4096, 2048, 20), bias=np.ones(144, np.int32)),
            a_layer("readout", Matrix.from_dense(weights, weights != 0), INTEGRATOR),
        )
    )


def test_loads_are_those_of_a_run() -> None:
    net = network()
    inputs = (np.random.default_rng(6).random((4, 3, 2, 6, 6)) < 0.3).astype(np.uint8)
    counts = add_details(net, simulate(net, inputs).counts)
    conv, readout = loads(counts)
    assert conv.in_spikes == inputs.sum() / 4
    assert (conv.layer, conv.samples, conv.steps) == (counts.layers[0], 4, 3)
    found = conv.detail
    assert (found.targets, conv.layer.possible, found.bias, found.leaky) == (36, 72, True, True)
    # Weights are stored once, wherever their kernel slides.
    stored = np.count_nonzero(net.layers[0].inputs[0].connections.kernel)  # type: ignore[union-attr]
    assert found.nonzero == stored < 72 < counts.layers[0].synapses
    # Nine taps, less what padding meets.
    assert conv.layer.possible_connections == 4 * 2 * (3 * 6 - 2) ** 2
    found = readout.detail
    assert (found.bias, found.leaky, found.targets) == (False, False, 5)
    assert readout.in_spikes == counts.layers[0].spikes / 4
    device = load_device("lemaire_int8")
    energy = per_sample(counts, device)
    parts = [snn(load, device) for load in (conv, readout)]
    assert energy.total == pytest.approx(sum(part.total for part in parts))
    assert energy.used == ("add", "multiply", "memory")
    (remark,) = energy.remarks
    assert remark == f"storage of the weights: conv {parts[0].storage}, readout {parts[1].storage}"
    assert as_ann(counts, device) == sum(ann(load, device).total for load in (conv, readout))


def test_a_memory_beyond_what_is_known_is_remarked() -> None:
    content = load_device("lemaire_int32").model_dump(exclude_none=True)
    content["memory"]["known_to_bytes"] = 40
    small = Device.model_validate(content)
    net = network()
    counts = add_details(net, simulate(net, np.ones((1, 2, 72), np.uint8)).counts)
    assert "more than 40 bytes" in per_sample(counts, small).remarks[1]
    assert "conv, readout" in per_sample(counts, small).remarks[1]


def test_a_device_without_memory_is_refused() -> None:
    with refused(ConfigError, "unsupported", key="memory", value="rolls"):
        snn(MLP[0], load_device("rolls"))
