import io

import numpy as np
import pytest
from rich.console import Console, RenderableType

from esl_lava.counts import Counts, LayerCounts
from esl_lava.devices import device_names, load_device
from esl_lava.energy import EnergyBreakdown
from esl_lava.energy.table1 import compute_table1
from esl_lava.report import hardware, paper, sweep_tables, tables
from esl_lava.results.firing import layer_firing
from esl_lava.results.price import Price
from esl_lava.results.sweep import RunState

COUNTS = Counts(
    samples=4,
    steps=8,
    input_spikes=1000,
    layers=(
        LayerCounts("conv1", 256, 144, 36, 36_864, 9_216, 8_960, 48_002, 8192, 2_222),
        LayerCounts("readout", 10, 2560, 2560, 2560, 2560, 2501, 9_999, 320, 0),
    ),
)


def text(table: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(table, crop=False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.mark.parametrize(
    ("value", "printed"),
    [(1.1342e-5, "1.13E-05"), (7.9502e-6, "7.95E-06"), (0.0, "0.00E+00"), (1.0, "1.00E+00")],
)
def test_joules_are_printed_as_in_the_paper(value: float, printed: str) -> None:
    assert tables.joules(value) == printed


def test_percent() -> None:
    assert tables.percent(0.95238) == "95.24 %"
    assert tables.percent(1.0) == "100.00 %"


def test_facts_have_name_and_value_under_the_title() -> None:
    title = "trained: " + "a/very/long/path/" * 8 + "model.pt"
    shown = text(tables.render_facts([("accuracy", "95.24 %"), ("samples", "357")], title), 60)
    first, *rest = shown.splitlines()
    assert first == title  # to be copied whole
    assert [cells(line) for line in rest if line.strip()] == [
        ["accuracy", "95.24 %"],
        ["samples", "357"],
    ]


def test_layer_counts_are_per_sample() -> None:
    lines = text(tables.render_counts(COUNTS)).splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert rows["layer"] == [
        *("neurons", "weights", "density", "connections", "synapses"),
        *("SOPs", "spikes", "updates"),
    ]
    assert rows["conv1"] == [
        *("256", "36", "25.00", "%", "9,216", "8,960"),
        *("12,000.5", "555.5", "2,048"),
    ]
    assert rows["readout"] == [
        *("10", "2,560", "100.00", "%", "2,560", "2,501"),
        *("2,499.8", "0.0", "80"),
    ]


FIRING = (
    layer_firing("conv1", np.array([0, 0, 4, 32]), 4, 8, maps=2),
    layer_firing("hidden1", np.array([1, 3]), 4, 8, refractory=8),
)


def test_layers_have_their_silent_and_saturated_neurons() -> None:
    lines = text(tables.render_firing(FIRING)).splitlines()
    shown = {cells(line)[0]: cells(line)[1:] for line in lines if cells(line)}
    assert shown["layer"] == [
        *("neurons", "silent", "silent maps", "saturated"),
        *("mean rate", "largest rate", "spikes"),
    ]
    assert shown["conv1"] == [
        *("4", "2 (50.00 %)", "1", "1 (25.00 %)", "0.2812", "1.0000", "9.0"),
    ]
    assert shown["hidden1"] == ["2", "0", "0.0625", "0.0938", "1.0"]  # no maps, fires once
    assert "silent maps" not in text(tables.render_firing(FIRING[1:]))


def test_layers_of_large_networks_fit_a_file() -> None:
    fired = np.zeros(65_536, np.int64)
    fired[0], fired[1:40_000] = 10_000 * 4, 10_000
    shown = text(tables.render_firing([layer_firing("shortcut12", fired, 10_000, 4, maps=64)]))
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 100
    (line,) = (line for line in shown.splitlines() if "shortcut12" in line)
    assert cells(line)[1:3] == ["65,536", "25,536 (38.96 %)"]  # not folded


def test_devices_show_both_conventions_and_what_is_charged() -> None:
    joules = EnergyBreakdown("loihi", 1.234e-8, 0.0, 0.0, ("sop", "spike"))
    price = Price(load_device("loihi1_sanafe"), joules, 5.678e-9, None)
    lines = [cells(line) for line in text(hardware.render_prices({"loihi": price})).splitlines()]
    assert ["device", "measured", "by connections", "charges in measured"] in lines
    assert ["loihi", "1.23E-08", "5.68E-09", "sop, spike"] in lines


def test_the_remark_on_table_1_shows_beside_its_network_and_devices_only() -> None:
    def shown(devices: tuple[str, ...], beside_table1: bool) -> bool:
        energy = EnergyBreakdown("any", 1e-8, 0.0, 0.0, ("sop",))
        prices = {name: Price(load_device(name), energy, None, None) for name in devices}
        words = text(hardware.render_prices(prices, beside_table1)).split()
        return "order of magnitude" in " ".join(words)

    both = ("truenorth_paper", "v100_paper")
    assert shown(both, beside_table1=True)
    assert not shown(both, beside_table1=False)
    assert not shown(both[:1], beside_table1=True)


def test_sources_name_every_constant() -> None:
    device = load_device("loihi1_sanafe")
    joules = EnergyBreakdown(device.name, 1e-8, 0.0, 0.0, ("sop",))
    shown = text(hardware.render_sources({device.name: Price(device, joules, None, None)}))
    for key, picojoules in (("sop", "33.600"), ("neuron_update", "72.800"), ("spike", "69.300")):
        line = next(line for line in shown.splitlines() if f" {key} " in line)
        assert cells(line)[:4] == ["loihi1_sanafe", key, picojoules, "fitted"]
    words = " ".join(" ".join(cells(line)[-1:]) for line in shown.splitlines())
    for constant in device.constants.values():
        assert constant.source in words


def test_table1_shows_our_digits_beside_the_papers_and_what_does_not_add_up() -> None:
    result = compute_table1()
    shown = text(paper.render_table1(result))
    rows = [cells(line) for line in shown.splitlines()]
    assert [
        *("SNNs", "635,200", "1.0000", "635K"),
        *("1.13E-05", "1.13E-05", "7.95E-06", "7.95E-06"),
    ] in rows
    assert [
        *("ESL-SNNs", "103,040", "0.1622", "103K"),
        *("1.84E-06", "1.84E-06", "1.29E-06", "1.29E-06"),
    ] in rows
    assert result.remarks
    for remark in result.remarks:
        assert f"- {remark}" in " ".join(shown.split("\n")).replace("  ", " ")


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_loses_no_digit(width: int) -> None:
    for table in (tables.render_counts(COUNTS), paper.render_table1(compute_table1())):
        assert "…" not in text(table, width)


def test_names_are_not_markup() -> None:
    assert "[bold]net[/x].h5 :heart:" in text(tables.render_facts([], "[bold]net[/x].h5 :heart:"))


STATES = [
    RunState("a", "done before", accuracy=0.5),
    RunState("b", "done", "there", began=100.0, ended=3761.4, epoch=9, epochs=9, accuracy=0.98765),
    RunState("c", "running", "here", began=900.0, epoch=3, epochs=9, loss=0.25),
    RunState("d", "running", "here", began=1005.0),  # of a clock that is ahead
    RunState("e", "running", "here", began=999.0, epoch=1, epochs=9),
    RunState("f", "failed", "here", began=1.0, ended=2.0, reason="it is so"),
    RunState("g", "waiting"),
    RunState("h", "waiting"),
]


def test_states_of_runs() -> None:
    title, _, _, _, *lines = text(sweep_tables.render_states(STATES, 1000.0, "x")).splitlines()
    assert title == "x: 3 running, 1 failed, 2 waiting, 1 done, 1 done before"
    assert [cells(line) for line in lines if line.strip()] == [
        ["a", "done before", "50.00 % on the test split"],
        ["b", "done", "98.77 % on the test split", "1:01:01", "there"],
        ["c", "running", "epoch 3/9, loss 0.2500", "0:01:40", "here"],
        ["d", "running", "0:00:00", "here"],
        ["e", "running", "epoch 1/9", "0:00:01", "here"],
        ["f", "failed", "it is so", "0:00:01", "here"],
        ["g", "waiting"],
        ["h", "waiting"],
    ]


@pytest.mark.parametrize(
    ("most", "shown"), [(1, "c"), (3, "cde"), (4, "cdef"), (5, "cdefg"), (7, "bcdefgh")]
)
def test_a_table_that_cannot_hold_all_runs_shows_those_at_work(most: int, shown: str) -> None:
    title, _, _, _, *lines = text(
        sweep_tables.render_states(STATES, 1000.0, most=most)
    ).splitlines()
    assert title.startswith("3 running")
    assert [line.split()[0] for line in lines if line.strip()] == [*shown, "and"]
    assert lines[-1] == f"and {8 - most} more"


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_of_devices_keep_every_column_and_every_name(width: int) -> None:
    devices = [load_device(name) for name in device_names()]
    shown = text(hardware.render_overview(devices), width)
    assert {device.name for device in devices} <= set(shown.split())
    assert {"charges", "kind", "fitted", "41.0256"} <= set(shown.split())
    shown = text(hardware.render_device(load_device("loihi1_sanafe")), width)
    assert {"energy.neuron_update_inactive", "kind", "source", "fitted"} <= set(shown.split())
