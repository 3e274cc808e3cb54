"""Description of a network without weights: names, sources and shapes, from one string."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.errors import ConfigError
from esl_lava.topology import (
    INPUT,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_WIDTH,
    NAMED,
    LayerSpec,
    check_notation,
    describe,
    narrow,
    scale_widths,
    widest,
)
from tests.faults import refused

widths = st.lists(st.integers(1, MAX_WIDTH), min_size=1, max_size=MAX_LAYERS)


def written(widths: list[int]) -> str:
    return "-".join(map(str, widths))


def test_the_papers_network() -> None:
    topology = describe("800", (784,), 10)
    assert topology.layers == (
        LayerSpec("hidden1", "dense", INPUT, (784,), (800,), (800, 784)),
        LayerSpec("readout", "dense", "hidden1", (800,), (10,), (10, 800)),
    )
    assert [layer.readout for layer in topology.layers] == [False, True]
    assert [layer.neurons for layer in topology.layers] == [800, 10]
    assert [layer.positions for layer in topology.layers] == [627_200, 8_000]
    assert topology.positions == 635_200
    assert topology.weighted == topology.layers


def test_two_hidden_layers_on_images() -> None:
    topology = describe("24-12", (1, 8, 8), 10)
    assert topology.input_shape == (1, 8, 8)
    assert topology.names == ("hidden1", "hidden2", "readout")
    assert topology.hidden_names == ("hidden1", "hidden2")
    assert [layer.source for layer in topology.layers] == [INPUT, "hidden1", "hidden2"]
    assert [layer.weight_shape for layer in topology.layers] == [(24, 64), (12, 24), (10, 12)]
    assert topology.positions == 24 * 64 + 12 * 24 + 10 * 12


@pytest.mark.slow
@given(widths, st.integers(1, 1000), st.integers(1, 1000))
def test_a_layer_takes_what_the_one_before_gives(
    hidden: list[int], inputs: int, classes: int
) -> None:
    topology = describe(written(hidden), (inputs,), classes)
    assert topology.names == (*(f"hidden{i + 1}" for i in range(len(hidden))), "readout")
    assert [layer.neurons for layer in topology.layers] == [*hidden, classes]
    assert topology.layers[0].input_shape == (inputs,)
    for before, layer in itertools.pairwise(topology.layers):
        assert layer.source == before.name
        assert layer.input_shape == before.output_shape
    sizes = [inputs, *hidden, classes]
    assert topology.positions == sum(a * b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("notation", "token"),
    [
        ("", ""),
        ("8--5", ""),
        ("-8", ""),
        ("8 - 5", "8 "),
        ("64C3-AP2", "64C3"),
        ("8-AP2", "AP2"),
        ("8.0", "8.0"),
        ("\u0668", "\u0668"),  # an Arabic digit eight
        ("8\n", "8\n"),
        ("x" * 9000, "x" * 9000),
    ],
    ids=lambda text: text[:12],
)
def test_a_token_that_is_no_layer_is_refused(notation: str, token: str) -> None:
    with refused(ConfigError, "unknown", value=token) as caught:
        describe(notation, (4,), 2)
    assert "800 (neurons of a fully connected layer)" in str(caught.value)
    assert len(str(caught.value)) < 200  # the token is shortened
    what = "a layer that only another model.kind has" if token in ("64C3", "AP2") else "no layer"
    assert f" is {what};" in str(caught.value)


@pytest.mark.parametrize(
    ("notation", "token"),
    [
        ("0", "0"),
        ("5-1048577", "1048577"),
        ("000000000", "000000000"),
        ("9" * 9000, "9" * 9000),
    ],
    ids=lambda text: text[:12],
)
def test_a_width_out_of_range_is_refused(notation: str, token: str) -> None:
    with refused(ConfigError, "range", value=token, limit=MAX_WIDTH) as caught:
        describe(notation, (4,), 2)
    assert len(str(caught.value)) < 150


def test_too_many_layers_are_refused() -> None:
    with refused(ConfigError, "range", value=65, limit=MAX_LAYERS):
        describe("-".join("1" * 65), (4,), 2)


@pytest.mark.slow
@given(st.text("0123456789-CAPx ") | st.text())
def test_any_text_is_layers_or_refused(notation: str) -> None:
    try:
        names = describe(notation, (3,), 2).names
    except ConfigError:
        return
    assert len(names) == notation.count("-") + 2


@pytest.mark.parametrize(
    ("notation", "width", "expected"),
    [("800", 7, "7"), ("24-12", 12, "12-6"), ("9-30-3", 10, "3-10-1"), ("24-12", 0, "1-1")],
)
def test_layers_become_narrower_by_one_factor(notation: str, width: int, expected: str) -> None:
    assert narrow(notation, width) == expected


@pytest.mark.slow
@given(widths, st.integers(0, MAX_WIDTH))
def test_the_widest_of_narrower_layers_is_the_width(hidden: list[int], width: int) -> None:
    notation = written(hidden)
    assert widest(notation) == max(hidden)
    assert narrow(notation, max(hidden)) == notation
    width = min(width, max(hidden))
    narrower = [int(text) for text in narrow(notation, width).split("-")]
    assert max(narrower) == max(1, width)
    assert all(1 <= few <= many for few, many in zip(narrower, hidden))


CONVOLUTIONAL = ("dense", "conv", "residual", "pool", "global_pool")


def test_residual_blocks_add_what_came_before_them() -> None:
    topology = describe("16C3-R16-R32S2-AP2-R32-GAP-12", (3, 16, 16), 10, CONVOLUTIONAL)
    layers = {layer.name: layer for layer in topology.layers}
    assert topology.names == (*(f"conv{i}" for i in range(1, 8)), "hidden1", "readout")
    assert [layer.output_shape for layer in topology.layers] == [
        *[(16, 16, 16)] * 3,
        *[(32, 8, 8)] * 2,
        *[(32, 4, 4)] * 2,
        (12,),
        (10,),
    ]
    assert [layer.identity for layer in topology.layers if layer.identity] == ["conv1"]
    assert layers["conv3"].identity == "conv1"
    assert layers["conv5"].shortcut == LayerSpec(
        "shortcut5", "conv", "conv3", (16, 16, 16), (32, 8, 8), (32, 16, 1, 1), 2
    )
    # A pool makes sums of spikes, which need weights even if the maps have the same shape.
    assert layers["conv7"].shortcut == LayerSpec(
        "shortcut7", "conv", "conv5", (32, 4, 4), (32, 4, 4), (32, 32, 1, 1), 1, 0, 2
    )
    assert layers["hidden1"].pool == 4
    names = [layer.name for layer in topology.weighted]
    assert names.index("shortcut5") == names.index("conv5") + 1
    assert topology.positions == sum(layer.positions for layer in topology.weighted)
    first = describe("R3", (3, 8, 8), 10, CONVOLUTIONAL).layers[1]
    assert first.identity == ""  # pixels are not spikes
    assert first.shortcut is not None


@pytest.mark.parametrize(
    ("notation", "code", "value", "limit", "words"),
    [
        ("16C3-AP2-R16", "conflict", "R16", None, "AP2 on maps of 9 x 9"),
        ("R16S4", "range", 4, 3, "R16S4"),
        ("8-R16", "conflict", "R16", None, "8 single neurons"),
        ("R0", "range", "R0", MAX_WIDTH, "'R0'"),
        ("AP2-GAP", "missing", "AP2-GAP", None, "'AP2-GAP'"),
    ],
)
def test_blocks_that_do_not_fit(
    notation: str, code: str, value: object, limit: object, words: str
) -> None:
    with refused(ConfigError, code, value=value, limit=limit) as caught:
        check_notation(notation, CONVOLUTIONAL)
        describe(notation, (3, 9, 9), 10, CONVOLUTIONAL)
    assert words in str(caught.value)


def test_networks_of_the_literature() -> None:
    """Compare with the weights that TET's code counts, and with the neurons at full width."""
    vgg = describe(NAMED["vggsnn"], (2, 48, 48), 10, CONVOLUTIONAL)
    assert vgg.positions == 9_217_152 + 46_080
    assert sum(layer.neurons for layer in vgg.layers) == 921_610
    strided = describe(NAMED["vggsnn_strided"], (2, 48, 48), 10, CONVOLUTIONAL)
    assert strided.positions == vgg.positions
    assert strided.layers[-1].input_shape == (512, 3, 3)
    resnet = describe(NAMED["resnet19"], (3, 32, 32), 10, CONVOLUTIONAL)
    weight_layers = [layer for layer in resnet.weighted if not layer.name.startswith("shortcut")]
    assert len(weight_layers) == 19
    assert resnet.layers[-2].pool == 8
    assert sum(bool(layer.shortcut) for layer in resnet.layers) == 3


def test_widths_are_scaled_in_every_token() -> None:
    assert scale_widths("64C3-R128S2-AP2-GAP-100", 0.25) == "16C3-R32S2-AP2-GAP-25"
    assert scale_widths("2C3-800", 0.1) == "1C3-80"
    assert widest("64C3-R128S2-AP32-100") == 128
    assert narrow("64C3-R128S2-AP32-100", 32) == "16C3-R32S2-AP32-25"


@pytest.mark.slow
def test_a_description_needs_no_arrays() -> None:
    code = "import sys, esl_lava.topology; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic"} & set(done.stdout.split())


# --- convolutions --------------------------------------------------------------------------

MAPS = ("dense", "conv", "pool", "global_pool")


def test_a_network_of_convolutions() -> None:
    topology = describe("32C3-AP2-64C5S2-AP2-100", (3, 32, 32), 10, MAPS)
    assert topology.names == ("conv1", "conv2", "hidden1", "readout")
    assert [layer.source for layer in topology.layers] == [INPUT, "conv1", "conv2", "hidden1"]
    assert [layer.output_shape for layer in topology.layers] == [
        (32, 32, 32),
        (64, 8, 8),
        (100,),
        (10,),
    ]
    assert [layer.weight_shape for layer in topology.layers] == [
        (32, 3, 3, 3),
        (64, 32, 5, 5),
        (100, 64 * 4 * 4),
        (10, 100),
    ]
    assert [(layer.stride, layer.padding, layer.pool) for layer in topology.layers] == [
        (1, 1, 1),
        (2, 2, 2),
        (1, 0, 2),
        (1, 0, 1),
    ]


def test_whole_maps_are_pooled_and_pools_multiply() -> None:
    (_, readout) = describe("8C3-GAP", (1, 12, 12), 5, MAPS).layers
    assert (readout.pool, readout.weight_shape) == (12, (5, 8))
    (_, readout) = describe("8C3-AP2-AP3", (1, 12, 12), 5, MAPS).layers
    assert (readout.pool, readout.weight_shape) == (6, (5, 8 * 2 * 2))


def test_a_pool_before_neurons_may_leave_out_rows() -> None:
    (_, readout) = describe("8C3-AP2", (1, 9, 8), 5, MAPS).layers
    assert (readout.pool, readout.weight_shape) == (2, (5, 8 * 4 * 4))


@pytest.mark.parametrize(
    ("notation", "shape", "code", "value", "limit", "words"),
    [
        ("8C3", (784,), "conflict", "8C3", None, "784 single neurons"),
        ("20-8C3", (1, 8, 8), "conflict", "8C3", None, "20 single neurons"),
        ("8C4", (1, 8, 8), "range", 4, MAX_KERNEL, "8C4"),
        ("8C33", (1, 8, 8), "range", 33, MAX_KERNEL, "8C33"),
        ("8C3S4", (1, 8, 8), "range", 4, 3, "8C3S4"),
        ("8C3-AP2-8C3-AP2-8C3", (2, 34, 34), "conflict", "8C3", None, "AP2 on maps of 17 x 17"),
        ("AP9", (1, 8, 8), "range", 9, 8, "AP9 on maps of 8 x 8"),
        ("AP1", (1, 8, 8), "range", 1, 8, "AP1 on maps of 8 x 8"),
        ("8C3-GAP", (1, 8, 9), "conflict", "GAP", None, "GAP on maps of 8 x 9"),
        ("8C3-8P2", (1, 8, 8), "unknown", "8P2", None, "'8P2'"),
        ("0C3", (1, 8, 8), "range", "0C3", MAX_WIDTH, "'0C3'"),
    ],
)
def test_a_token_that_does_not_fit_the_maps_is_refused(
    notation: str, shape: tuple[int, ...], code: str, value: object, limit: object, words: str
) -> None:
    with refused(ConfigError, code, value=value, limit=limit) as caught:
        describe(notation, shape, 10, MAPS)
    assert words in str(caught.value)


def test_a_pool_before_a_convolution_may_cover_all_rows() -> None:
    assert describe("8C3-AP2-8C3", (2, 34, 34), 10, MAPS).layers[1].input_shape == (8, 17, 17)


def test_a_network_of_matrices_has_no_convolutions() -> None:
    with refused(ConfigError, "unknown", value="8C3"):
        describe("8C3", (1, 8, 8), 10)


def test_pools_alone_are_no_network() -> None:
    with refused(ConfigError, "missing", value="AP2-GAP"):
        check_notation("AP2-GAP", MAPS)


@pytest.mark.slow
@given(st.integers(1, 30), st.sampled_from([1, 3, 5]), st.integers(1, 3), st.integers(5, 40))
def test_maps_have_the_size_that_torch_gives_them(
    channels: int, kernel: int, stride: int, side: int
) -> None:
    stride = min(stride, kernel)
    (layer, _) = describe(f"{channels}C{kernel}S{stride}", (2, side, side + 1), 3, MAPS).layers
    rows, columns = (len(range(0, length, stride)) for length in (side, side + 1))
    assert layer.output_shape == (channels, rows, columns)
