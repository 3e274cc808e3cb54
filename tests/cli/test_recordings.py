"""Tests of the commands with recordings of event cameras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from esl_lava.data.events import nmnist, prepare
from tests.cli.refusals import refused
from tests.data.events.files import HEADER, aedat, atis
from tests.data.events.test_sets import archive

Command = Callable[..., Any]

EVENTS = [(1_000, 0, 1, 1)] * 90 + [(1_500, 4, 4, 0)] * 6 + [(3_000, 5, 5, 1)] * 4


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "one.bs2"
    path.write_bytes(atis(EVENTS))
    return path


def test_what_a_recording_holds(invoke: Command, recording: Path) -> None:
    values = invoke("events", recording, "--frames", 4, "--crop", 1, "--json").json
    assert values == {
        **{"events": 100, "first": 1000, "last": 3000, "seconds": 0.002},
        **{"events_per_second": 50_000.0, "on_share": 0.94, "sensor": [34, 34]},
        **{"active_pixels": 3, "hot_pixels": 0, "hottest": [], "frames": [4, 2, 32, 32]},
    }
    shown = invoke("events", recording).out
    for line in (("events", "100"), ("ON", "events", "94.00", "%"), ("frames", "16", "of", "34")):
        assert any(tuple(row.split())[: len(line)] == line for row in shown.splitlines()), line


def test_hot_pixels_are_named(invoke: Command, tmp_path: Path) -> None:
    """With one pixel of 1,000 events and 99 of one, the mean is 10.99 and the limit 109.9."""
    path = tmp_path / "hot.aedat"
    others = [(column << 1, 5) for column in range(99)]
    path.write_bytes(aedat([(7 << 8, 5)] * 1000 + others))
    values = invoke("events", path, "--frames", 1, "--json").json
    assert (values["hot_pixels"], values["hottest"]) == (1, [[120, 127, 1000]])
    assert values["events_per_second"] is None
    assert "row 120, column 127" in invoke("events", path, "--frames", 1).out


@pytest.mark.slow
def test_pictures(program: Command, recording: Path, tmp_path: Path) -> None:
    sheet, moving = tmp_path / "sheet.png", tmp_path / "moving.gif"
    given = ("esl", "events", recording, "--frames", 3, "--side", 17, "-o", sheet, "--gif", moving)
    assert program(*given).code == 0
    with Image.open(sheet) as picture:
        each = 17 * (256 // 17)
        assert picture.size == (2 * each + 4, 2 * each + 4)
        # Pixel 0, 0 of the first frame is ON. The place without a frame is white.
        assert picture.getpixel((3, 3)) == (255, 176, 80)
        assert picture.getpixel((each + 50, each + 50)) == (255, 255, 255)
        assert picture.getpixel((100, 100)) == (16, 20, 26)
    with Image.open(moving) as animation:
        animation.seek(2)
        with pytest.raises(EOFError):
            animation.seek(3)
    done = program(*given)
    refused(done, "exists", sheet, "--overwrite")
    first = sheet.read_bytes(), moving.read_bytes()
    assert program(*given, "--overwrite").code == 0
    assert (sheet.read_bytes(), moving.read_bytes()) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "arguments", "code", "parts"),
    [
        ("a.aedat", HEADER, (), "range", ["a.aedat"]),
        ("a.aedat", b"#!AER-DAT3.1\n", (), "damaged", ["a.aedat", "AEDAT 2.0"]),
        ("a.bin", atis(EVENTS)[:-1], (), "damaged", ["a.bin", "499"]),
        ("a.raw", b"", (), "unknown", ["a.raw", ".aedat", ".aedat4", ".bin"]),
        ("a.bin", atis(EVENTS), ("--split", "sum"), "unknown", ["--split", "sum", "time, number"]),
        ("a.bin", atis(EVENTS), ("--frames", "101"), "range", ["100", "101"]),
        ("a.bin", atis(EVENTS), ("--crop", "17"), "range", ["17"]),
        ("a.bin", atis(EVENTS), ("--side", "35"), "range", ["35", "34"]),
        ("a.bin", atis(EVENTS), ("-o", "{0}/x", "--gif", "{0}/x"), "conflict", ["/x"]),
    ],
)
def test_faults_are_a_sentence(
    invoke: Command,
    tmp_path: Path,
    name: str,
    content: bytes,
    arguments: tuple[str, ...],
    code: str,
    parts: list[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    given = [argument.format(tmp_path) for argument in arguments]
    done = invoke("events", tmp_path / name, *given)
    refused(done, code, *parts)


def _stripes(number: int) -> bytes:
    """Return events in consecutive rows; a larger number gives more rows."""
    return atis([(t, t % (number + 8), t * 7 % 34, t % 2) for t in range(900)])


def _small_set(folder: Path) -> None:
    numbers = range(1, 25)
    lines = "".join(f"{number}\t{number % 10}\n" for number in numbers)
    archive(
        folder,
        [
            ("train1K.txt", b"#\n" + lines.encode()),
            ("test100.txt", b"#\n" + lines.encode()),
            *((f"{number}.bs2", _stripes(number)) for number in numbers),
        ],
    )


@pytest.mark.slow
def test_table2_of_recordings(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "cache")
    _small_set(tmp_path)
    line = "reproduce table2 --parts nmnist --epochs 2 --jobs 1 --set model.layers=4C3-AP4-4C3"
    given = (*line.split(), "--set", "encoding.steps=2", "-o")
    done = invoke(*given, tmp_path / "runs")
    assert done.code == 0, done.err
    assert "Table 2, --scale small: exported integer networks" in done.out
    assert "N-MNIST" in done.out
    values = invoke(*given, tmp_path / "runs", "--json").json
    assert set(values) == {"trained", "published", "remarks"}
    dense, sparse = values["trained"]
    assert (dense["part"], dense["density"], sparse["density"]) == ("nmnist", 1.0, 0.1)
    assert (dense["epochs"], dense["steps"], dense["layers"]) == (2, 2, "4C3-AP4-4C3")
    assert dense["weights"] == 2 * 4 * 9 + 4 * 4 * 9 + 4 * 64 * 10
    assert sparse["weights"] == 2 * 4 * 9 + round(0.1 * 4 * 4 * 9) + 4 * 64 * 10
    differ = [a - b for a, b in zip(dense["accuracies"], sparse["accuracies"])]
    assert sparse["loss"] == pytest.approx(sum(differ) / 2, abs=1e-12)  # a mean of floats
    assert (tmp_path / "runs" / "table2.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_recordings_are_trained_on_and_verified(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event counts up to 3 are graded input, also on Lava."""
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "cache")
    _small_set(tmp_path)
    assert nmnist.SUBSET == "nmnist_small.tar.gz"
    settings = ("encoding.bits=2", "encoding.steps=3", "training.batch_size=2")
    given = [word for setting in settings for word in ("--set", setting)]
    given += ["--set", 'model.layers="4C3-AP2-4C3-AP2"']
    run = tmp_path / "run"
    preset = ("train", "--preset", "nmnist-small", "--epochs", 3)
    trained = invoke(*preset, *given, "-o", run, "--json")
    assert trained.code == 0, trained.err
    net = run / "net.h5"
    assert invoke("export", run / "model.pt", net).code == 0
    verified = invoke("verify", run / "model.pt", net, "--samples", 2, "--json").json
    assert verified["differences"] == 0
    assert verified["spikes_compared"] > 0
    ran = invoke("run", net, "--json").json
    assert (ran["samples"], ran["accuracy"]) == (24, trained.json["accuracy"])
    mapped = invoke("map", net, "--chip", "loihi1", "--json").json
    assert any("0 to 3" in remark for remark in mapped["remarks"])
    assert invoke("report", run).code == 0
