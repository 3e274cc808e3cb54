"""Tests that commands neither accept nor print NaN and infinity."""

import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from esl_lava.cli import options, output
from esl_lava.cli.app import app, reproduce
from esl_lava.config import documentation
from esl_lava.errors import DataError
from tests import faults
from tests.cli.refusals import refusals, refused
from tests.data.events.files import atis
from tests.folders import contents

Command = Callable[..., Any]

VALUES = ("nan", "inf", "-inf", "1e308", "-1")

LINES = {
    "demo": "demo -o new",
    "train": "train -o new --config run/config.toml",
    "run": "run run/net.h5 --samples 2",
    "verify": "verify run/model.pt run/net.h5 --samples 1 --backend exact",
    "energy": "energy run/net.h5 --samples 2 --device loihi1_sanafe --device v100_paper",
    "map": "map run/net.h5 --chip loihi1",
    "report": "report run -o new.html",
    "events": "events run/one.bs2",
    "baselines": "baselines -o new --config run/config.toml",
    "reproduce table1": "reproduce table1 -o new --preset digits-single-spike",
    "reproduce table2": "reproduce table2 -o new --parts nmnist",
    "reproduce fig2": "reproduce fig2 -o new --config run/config.toml",
    "reproduce fig3": "reproduce fig3 -o new --config run/config.toml",
    "reproduce fig4": "reproduce fig4 -o new --config run/config.toml",
}
"""Command that takes numbers -> a valid command line."""

TEXTS = [
    ("energy", "--constant", "sop={}"),
    ("run", "--input-shape", "1,{},8"),
    ("reproduce fig2", "--eps", "10,{}"),
    ("reproduce fig2", "--seeds", "1,{}"),
    ("reproduce table2", "--seeds", "{}"),
    ("reproduce fig3", "--densities", "0.2,{}"),
    ("reproduce fig3", "--seeds", "1,{}"),
    ("reproduce fig4", "--densities", "0.2,{}"),
    ("reproduce fig4", "--seeds", "{}"),
    ("baselines", "--seeds", "{}"),
    ("reproduce table1", "--seeds", "{}"),
    ("train", "--set", "sparsity.densities={{hidden1={},hidden2=0.5}}"),
]
"""Options whose texts contain numbers."""

ACCEPTED = {
    ("--jobs", "-1"),  # one process a core
    ("--eps", "10,1e308"),  # every connection
    *(
        ("--set", f"{key}=1e308")
        for key in (
            *("sparsity.eps", "training.gradient_norm"),
            *("model.tau_grad", "model.scale_grad", "model.weight_scale"),
        )
    ),
}
"""Extreme values that are valid."""


def commands() -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield (words, function) of all commands."""
    for group, words in ((app, ""), (reproduce, "reproduce ")):
        for one in group.registered_commands:
            assert one.callback is not None
            yield words + (one.name or one.callback.__name__), one.callback


@dataclass(frozen=True)
class Number:
    """An option that takes numbers of a type, read by a parser or by typer itself."""

    command: str
    option: str
    kind: type
    parser: Any


def numbers() -> list[Number]:
    """Return every option of every command that takes a number."""
    found = []
    for command, function in commands():
        hints = get_type_hints(inspect.unwrap(function), include_extras=True)
        for name, hint in hints.items():
            if not hasattr(hint, "__metadata__"):  # a default of None makes it Optional
                hint = next((one for one in get_args(hint) if hasattr(one, "__metadata__")), hint)
            held, *extras = get_args(hint) or (hint,)
            kinds = {int, float} & {held, *get_args(held)}
            if kinds:
                (info,) = extras
                named = [word for word in info.param_decls or () if word.startswith("--")]
                option = named[0] if named else f"--{name.replace('_', '-')}"
                found.append(Number(command, option, kinds.pop(), info.parser))
    return found


CASES = [
    *((one.command, one.option, "{}") for one in numbers()),
    *TEXTS,
    *(
        ("train", "--set", f"{key}={{}}")
        for key, default, _ in documentation()
        if ("." in default and default.replace(".", "").isdigit()) or key == "sparsity.eps"
    ),
]


def test_every_number_of_a_command_is_in_the_table() -> None:
    assert {one.kind for one in numbers()} == {int, float}
    for one in numbers():
        assert (one.parser is options.parse_finite) == (one.kind is float), one
    assert {one.command for one in numbers()} | {name for name, *_ in TEXTS} == LINES.keys()
    assert {"--step-seconds", "--deadline", "--utilisation", "--density", "--samples"} <= {
        one.option for one in numbers()
    }
    assert sum(option == "--set" for _, option, _ in CASES) > 10


@pytest.fixture
def workplace(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.path, tmp_path / "run")
    (tmp_path / "run" / "one.bs2").write_bytes(atis([(time, 1, 1, 1) for time in range(9)]))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option", "text"), CASES)
def test_what_is_no_number_of_the_option_is_one_sentence(
    name: str, option: str, text: str, workplace: Path, invoke: Command
) -> None:
    before = contents(workplace)
    for number in VALUES:
        value = text.format(number)
        if (option, value) in ACCEPTED:
            continue
        done = invoke(*LINES[name].split(), option, value, "--json")
        assert len(refusals(done)) == 1 == done.err.count("\n"), (value, done)
    assert contents(workplace) == before


def finite(text: str) -> Any:
    """Parse JSON without NaN and infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "energy run/net.h5 --samples 2 --device loihi1_sanafe --step-seconds 1e9",
        "energy run/net.h5 --samples 2 --device loihi1_sanafe --constant sop=1e30",
        "energy run/net.h5 --samples 2 --device v100_paper --utilisation 1e-17",
        "train -o new --config run/config.toml --set sparsity.eps=1e308 --epochs 1",
        "train -o new --config run/config.toml --set training.gradient_norm=1e308 --epochs 1",
    ],
)
def test_the_largest_numbers_that_are_taken_give_finite_ones(
    line: str, workplace: Path, invoke: Command
) -> None:
    done = invoke(*line.split(), "--json")
    assert done.code == 0, done.err
    assert finite(done.out)
    if line.startswith("energy"):
        shown = invoke(*line.split())
        assert shown.code == 0
        assert not {"inf", "nan", "-inf"} & set(shown.out.lower().split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "parts"),
    [
        ("energy run/net.h5 --device v100_paper --utilisation 1e-320", "range", ["pJ"]),
        ("energy run/net.h5 --device rolls --step-seconds 1e308", "range", ["1e+308"]),
        ("energy run/net.h5 --constant sop=nan", "not-finite", ["--constant", "sop=nan"]),
        ("energy run/net.h5 --step-seconds nan", "not-finite", ["--step-seconds", "nan"]),
        ("run run/net.h5 --backend lava --deadline inf", "not-finite", ["--deadline", "inf"]),
        ("run run/net.h5 --backend lava --deadline -1", "range", ["-1.0"]),
        (
            "baselines -o new --config run/config.toml --density inf",
            *("not-finite", ["--density", "inf"]),
        ),
    ],
)
def test_the_sentence_names_the_number(
    line: str, code: str, parts: list[str], workplace: Path, invoke: Command
) -> None:
    refused(invoke(*line.split()), code, *parts)


def test_json_of_a_number_that_is_not_finite_is_refused_by_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {"devices": {"chip": {"joules": [1.0, float("nan")]}}}
    with faults.refused(DataError, "not-finite") as caught:
        output.answer(True, values)
    assert "devices.chip.joules.1" in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_command_of_a_number_that_is_not_finite_ends_with_one_sentence(
    workplace: Path, invoke: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esl_lava.experiments import price

    monkeypatch.setattr(price, "by_connections", lambda *_: float("inf"))
    done = invoke("energy", "run/net.h5", "--samples", 1, "--device", "rolls", "--json")
    refused(done, "not-finite", "devices.rolls.joules_by_connections", "inf")
