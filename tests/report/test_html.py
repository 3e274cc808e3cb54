import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from esl_lava.devices import load_device
from esl_lava.energy import EnergyBreakdown
from esl_lava.network import Matrix
from esl_lava.report import canvas, html, pictures, scatter
from esl_lava.results.account import Comparison, Place, Sample, ShownLayer
from esl_lava.results.evaluation import Evaluation, Recording
from esl_lava.results.firing import layer_firing
from esl_lava.results.price import DeviceNumber, Price
from esl_lava.results.training import Epoch, LayerMoves, MaskUpdate
from esl_lava.simulate.result import NO_DECISION
from esl_lava.values import as_values

NASTY = '<script>alert("&")</script>'


def run(**changes: Any) -> dict[str, Any]:
    """Return a run as in `report.json`, with texts from files that must be escaped."""
    device = {
        "title": "a chip",
        "notes": [NASTY],
        "joules_per_sample": 1.23e-6,
        "joules_span": [1e-6, 2e-6],
        "joules_by_connections": 3e-7,
        "joules_as_ann": None,
        "charged": ["sop"],
        "remarks": [NASTY],
    }
    layer = {
        **{"name": NASTY, "neurons": 3, "weights": 6, "connections": 48, "possible": 12},
        **{"sops": 40, "spikes": 8},
    }
    core = {"name": NASTY, "cores": 1, "format": "dense", "binding": "synapse_words"}
    fits = {
        **{"fits": True, "cores": 1, "chips": 1, "packing": "nxtf", "step_nanoseconds": None},
        "layers": [{**core, "utilisation": {"synapse_words": [20, 100]}}],
        "remarks": [NASTY],
    }
    return {
        "label": NASTY,
        "title": NASTY,
        "accuracy": 0.95,
        "samples": 4,
        "dataset": "digits",
        "model": "multi_spike",
        "steps": 5,
        "density": 0.5,
        "sparse_density": None,
        "weights": 6,
        "connections": 48,
        "synapses": 40,
        "sops_per_sample": 10.0,
        "layers": [layer],
        "firing": [],
        "firing_remarks": [],
        "validation_accuracy": 0.9,
        "kept_epoch": 2,
        "history": [{}, {}],
        "updates": [{}],
        "connectivity": {"layer": NASTY, "fan_in": [1, 1.5, 2], "fan_out": [0, 1.0, 3]},
        "sample": {"label": 3, "decision": None},
        "samples_verified": 4,
        "spikes_compared": 8,
        "positions_compared": 60,
        "differences": 0,
        "verification": {
            "reference": "SLAYER",
            "differences_by_backend": {"exact": 0},
            "integers_compared": 90,
            "integers_that_differ": 0,
            "integer_differences": [],
            "first_difference": None,
            "firing_times": [],
        },
        "devices": {"chip": device},
        "disagreements": [{"chip": NASTY, "least": 1e-6, "most": 2e-6, "devices": ["chip"]}],
        "training": {"operations_ratio": 0.4, "event_ratio": 0.1, "bytes_ratio": 0.6},
        "table1": None,
        "core_maps": {
            "loihi1": fits,
            "loihi2": {"fits": False, "chip": "loihi2", "violations": [NASTY]},
        },
        "config_toml": f"seed = 1  # {NASTY}",
        "trained_by": "0.1.0",
        "digests": {"model.pt": "00ff"},
        **changes,
    }


CONSTANT = DeviceNumber("energy.sop", "23.6 pJ", "measured", "0.75 V", f"A paper {NASTY}")


def written(runs: Sequence[dict[str, Any]], pictured: Sequence[Mapping[str, Markup]]) -> str:
    """Return the page on runs, with a comparison if there are several."""
    comparison, compared = None, {}
    if len(runs) > 1:
        places = [Place("a", 1e-6 * n, r["accuracy"], n == 1) for n, r in enumerate(runs, 1)]
        comparison = Comparison(["digits"], {"chip": places})
        compared = html.draw_comparison([account()] * len(runs), comparison)
    versions = {"esl_lava": "0.1.0"}
    return html.page(runs, comparison, versions, [("chip", CONSTANT)], pictured, compared)


def sample(readout: bool = True) -> Sample:
    draw = np.random.default_rng(1)
    run = Recording(
        draw.integers(0, 2, (5, 4)).astype(np.uint8),
        {"hidden$1": draw.integers(0, 2, (5, 3)).astype(np.uint8)},
        draw.integers(0, 9000, (5, 10)).astype(np.int32) if readout else None,
        NO_DECISION,
    )
    return Sample(run, draw.integers(0, 256, (2, 2)).astype(np.uint8), 3)


def account(**changes: Any) -> Any:
    """Return the account that pictures are drawn from."""
    epochs = [Epoch(n, 1.0, 0.9, 0.5, {"hidden$1": 0.4, "readout": 1.0}, 0.5) for n in (1, 2)]
    held = {
        "history": epochs,
        "updates": [MaskUpdate(3, {"hidden$1": LayerMoves(2, 2, 5)})],
        "sample": sample(),
        "layer": ShownLayer("hidden1", 0, layer()),
        "kernels": {},
        "network": SimpleNamespace(density=0.5),
        "evaluation": SimpleNamespace(accuracy=0.95, firing=()),
    }
    return SimpleNamespace(**{**held, **changes})


@pytest.mark.slow
def test_kernels_are_drawn_in_place_of_a_matrix() -> None:
    shares = np.linspace(0, 1, 6).reshape(3, 2)
    wide = np.full((200, 300), 0.5)  # more rows and columns than are shown one by one
    kernels = {"conv1": shares, "conv2": wide, "shortcut2": shares, "conv3": shares}
    found = html.draw_run(account(kernels=kernels), "a")
    assert "matrix" not in found
    assert "conv2: 50.0%" in found["kernels"]
    assert "shortcut2: 50.0%" in found["kernels"]
    assert found["kernels"].count("<image") == 4
    assert "kernels" not in html.draw_run(account(), "a")


def layer() -> Matrix:
    weights = np.array([[5, 0, -3, 0], [0, 0, 0, 1], [2, 0, 0, 0]])
    return Matrix.from_dense(weights, weights != 0)


@functools.cache
def drawn(prefix: str) -> Mapping[str, Markup]:
    """Return the pictures of a run. They are cached because they take most of the time."""
    return html.draw_run(account(), prefix)


def page(*runs: dict[str, Any]) -> str:
    return written(runs, [drawn(f"r{n}") for n in range(1, len(runs) + 1)])


class Seen(HTMLParser):
    """Tags, ids and links of a page, whose elements must be nested correctly."""

    EMPTY = frozenset(("meta", "br", "wbr"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 3])
def test_the_page_is_whole_and_needs_nothing_from_elsewhere(runs: int) -> None:
    text = page(*[run(label=f"run {n}") for n in range(runs)])
    seen = Seen(text)
    assert len(seen.ids) == len(set(seen.ids))
    assert not {"script", "link", "iframe", "img"} & set(seen.tags)
    for link in seen.links:
        assert link.startswith("data:image/png;base64,") or link[1:] in seen.ids, link
    used = re.findall(r"url\(#([^)]*)\)", text)
    assert used
    assert set(used) <= set(seen.ids)
    assert "@import" not in text
    assert seen.tags.count("article") == runs
    assert ("side by side" in text) == (runs > 1)


@pytest.mark.slow
def test_weights_and_connections_stand_apart() -> None:
    words = " ".join(re.sub("<[^>]*>", " ", page(run())).split())
    assert "48 connections; 40 synapses; 6 weights" in words
    assert "3 6 50.00 % 48 10 2.0" in words  # density is of weights; figures per sample
    assert "50.00 % 6 48 10 0" in " ".join(re.sub("<[^>]*>", " ", page(run(), run())).split())


@pytest.mark.slow
def test_neurons_of_layers_are_said_and_drawn() -> None:
    firing = [
        layer_firing("conv1", np.array([0, 0, 3, 8]), 2, 4, maps=2),
        layer_firing("hidden1", np.array([1, 2]), 2, 4, refractory=4),
    ]
    values = [as_values(layer) for layer in firing]
    said = ["layer conv1: 50 % of its neurons never fire"]
    fired = {"conv1": np.array([0, 0, 3, 8]), "hidden1": np.array([1, 2])}
    seen = Evaluation("digits", "test", "exact", 0.9, 2, 1.0, result(fired), tuple(firing))
    made = html.draw_run(account(evaluation=seen), "r")
    assert ">conv1<" in made["rates"]
    text = written([run(firing=values, firing_remarks=said)], [made])
    assert '<td>conv1</td><td>4</td><td>2 (<span class="unbroken">50.00 %</span>)</td>' in text
    assert "<p>Layer conv1: 50 % of its neurons never fire.</p>" in text
    assert "<td>0.3438</td><td>1.0000</td><td>5.5</td>" in text
    (once,) = re.findall("<tr><td>hidden1</td>.*?</tr>", text, re.DOTALL)
    cells = re.findall("<td>(.*?)</td>", once)
    assert cells == ["hidden1", "2", "0", "", "-", "0.1875", "0.2500", "1.5"]
    assert "Firing rates of the neurons of each layer" in text
    # No picture if all neurons have the same rate, and no section if no layer fires.
    even = replace(seen, result=result({"conv1": np.ones(4), "hidden1": np.ones(2)}))
    assert "rates" not in html.draw_run(account(evaluation=even), "r")
    assert "<h3>Neurons</h3>" in text
    assert "<h3>Neurons</h3>" not in page(run())


def result(fired: dict[str, Any]) -> Any:
    return SimpleNamespace(fired=fired)


def test_text_from_files_is_escaped() -> None:
    text = page(run())
    assert "<script" not in text
    # The page of a single run does not show its label.
    assert text.count("&lt;script&gt;alert(&#34;&amp;&#34;)&lt;/script&gt;") >= 10
    assert "hidden$1" in text  # no mathematics


@pytest.mark.slow
def test_the_same_values_give_the_same_page() -> None:
    text = page(run(), run())
    drawn.cache_clear()
    assert page(run(), run()) == text


def test_pictures_take_the_colours_of_the_page() -> None:
    text = page(run())
    style, body = text.split("</style>", 1)
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", body)
    for name in set(re.findall(r"var\(--([a-z]+)\)", text)):
        assert style.count(f"--{name}: ") == 3, name  # light, dark, print


def test_what_failed_is_said() -> None:
    verification = {**run()["verification"], "first_difference": "exact: layer hidden1, neuron 3"}
    text = page(run(differences=2, verification=verification))
    assert "First difference: exact: layer hidden1, neuron 3" in text
    assert "does not fit" in text
    assert "decision of the network is\nnone" in text


@pytest.mark.slow
def test_footnotes_are_numbered_once() -> None:
    joules = EnergyBreakdown("chip", 1e-6, 0.0, 0.0, ("sop",))
    price = Price(load_device("rolls"), joules, None, None)
    runs = [account(prices={"a": price}), account(prices={"a": price, "b": price})]
    found = [(device, one.key) for device, one in html.footnotes(runs)]
    assert found == [("a", "energy.sop"), ("b", "energy.sop")]
    assert page(run(label="a"), run(label="b")).count('<li id="note1">') == 1


@pytest.mark.slow
def test_what_does_not_exist_is_not_drawn() -> None:
    bare = account(
        history=[replace(epoch, validation_accuracy=None) for epoch in account().history],
        updates=[],
        sample=replace(sample(readout=False), image=None),
        layer=ShownLayer("readout", 1, layer()),
    )
    made = html.draw_run(bare, "r")
    assert sorted(made) == ["matrix", "raster", "training"]
    assert "Top: loss of each epoch" in written([run(validation_accuracy=None, updates=[])], [made])


@pytest.mark.slow
def test_colours_are_drawn_as_they_are_and_no_fields_of_them() -> None:
    """Inputs of the three colour planes cannot be drawn as one image of receptive fields."""
    image = np.random.default_rng(1).integers(0, 256, (2, 2, 3)).astype(np.uint8)
    in_colour = account(sample=replace(sample(), image=image))
    assert {"matrix", "sample"} <= html.draw_run(in_colour, "r").keys()
    assert not html.draw_run(in_colour, "r").keys() & {"incoming", "fields"}
    assert html.draw_run(account(), "r").keys() >= {"incoming", "fields"}
    (drawn,) = pictures.draw_sample(image).axes[0].get_images()
    assert np.asarray(drawn.get_array()).tolist() == image.tolist()


def svg(picture: Figure) -> str:
    return canvas.svg(picture, "p")


def test_receptive_fields_show_every_connection() -> None:
    made = svg(pictures.draw_fields(layer(), (2, 2)))
    assert made.count("<image") == 3  # a neuron each
    assert svg(pictures.draw_incoming(layer(), (2, 2))).count("0 to 2") == 1
    assert svg(pictures.draw_matrix(layer())).count("<image") == 1


def test_the_pareto_front_is_marked() -> None:
    costs, accuracies = [1e-7, 1e-6, 2e-6], [0.9, 0.95, 0.8]
    front = [True, True, False]
    made = svg(scatter.draw_scatter(costs, accuracies, "joules", front=front, joined=True))
    marks = re.findall(r'<use [^>]*style="fill: var\(--(blue|orange)\)', made)
    assert marks == ["orange", "orange", "blue"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.25e-6, "1.25e-06"), (1e-4, "1e-04"), (2e-7, "2e-07"), (0.5, "0.5"), (12.0, "12"), (0, "0")],
)
def test_ticks_are_what_they_stand_for(value: float, text: str) -> None:
    assert scatter.tick(value) == text


@pytest.mark.slow
def test_a_raster_says_its_steps_and_what_the_network_decides() -> None:
    made = svg(pictures.draw_raster(sample()))
    assert ">decision: none (wrong)<" in made
    for step in range(1, 6):
        assert f">{step}</text>" in made
