"""A network before it has weights: names, sources and shapes of its layers, from one string."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.errors import ConfigError
from esl_lava.topology import (
    INPUT,
    MAX_LAYERS,
    MAX_WIDTH,
    LayerSpec,
    describe,
    narrow,
    widest,
)

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
    ("notation", "said"),
    [
        ("", "'' is no layer; a layer is written 800 (neurons of a fully connected layer)"),
        ("8--5", "'' is no layer"),
        ("-8", "'' is no layer"),
        ("8 - 5", "'8 ' is no layer"),
        ("64C3-AP2", "'64C3' is no layer"),
        ("8-AP2", "'AP2' is no layer"),
        ("8.0", "'8.0' is no layer"),
        ("\u0668", "is no layer"),  # eight, but of other digits
        ("8\n", "is no layer"),
        ("0", "'0' is not within 1 to 1048576"),
        ("5-1048577", "'1048577' is not within 1 to 1048576"),
        ("000000000", "is not within 1 to"),
        ("9" * 9000, "is not within 1 to"),
        ("x" * 9000, "is no layer"),
        ("-".join("1" * 65), "more than 64 layers"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_layer_is_one_sentence(notation: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(notation, (4,), 2)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)


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


@given(widths, st.integers(0, MAX_WIDTH))
def test_the_widest_of_narrower_layers_is_the_width(hidden: list[int], width: int) -> None:
    notation = written(hidden)
    assert widest(notation) == max(hidden)
    assert narrow(notation, max(hidden)) == notation
    width = min(width, max(hidden))
    narrower = [int(text) for text in narrow(notation, width).split("-")]
    assert max(narrower) == max(1, width)
    assert all(1 <= few <= many for few, many in zip(narrower, hidden))


def test_a_description_needs_no_arrays() -> None:
    code = "import sys, esl_lava.topology; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic"} & set(done.stdout.split())
