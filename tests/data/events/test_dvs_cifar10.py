import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava.data.catalogue import load
from esl_lava.data.config import Encoding
from esl_lava.data.events import dvs_cifar10, prepare
from esl_lava.errors import DataError
from tests.data.events.files import aedat
from tests.faults import refused

ENCODING = Encoding(kind="frames", steps=1, side=32, bits=8)


def row_of(label: int, number: int) -> tuple[int, int]:
    """Return row and column of the only event of a recording."""
    return number // 128 + 8 * label, number % 128


def file_of(opener: Any) -> Path:
    return opener.args[0]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all 10,000 recordings, each of one event."""
    root = tmp_path_factory.mktemp("data") / "dvs_cifar10"
    for label, name in enumerate(dvs_cifar10.CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(1000):
            row, column = row_of(label, number)
            address = (127 - row) << 8 | (127 - column) << 1
            file = root / name / f"cifar10_{name}_{number}.aedat"
            file.write_bytes(aedat([(address, 5)]))
    return root.parent


@pytest.fixture(autouse=True)
def _own_folders(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(recordings))
    monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "cache")


@pytest.mark.slow
def test_the_split_is_as_its_rule_says() -> None:
    for name, numbers in dvs_cifar10.test_numbers().items():
        digests = {n: hashlib.sha256(f"{name}/{n}".encode()).hexdigest() for n in range(1000)}
        assert numbers == set(sorted(digests, key=digests.__getitem__)[:100])
    assert tuple(dvs_cifar10.test_numbers()) == dvs_cifar10.CLASSES


def test_another_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvs_cifar10, "SPLIT_SHA256", "0" * 64)
    with refused(DataError, "damaged", file=str(dvs_cifar10._SPLIT)):
        dvs_cifar10.find_fixed("test")


@pytest.mark.slow
def test_recordings_are_of_their_class_and_half() -> None:
    """Each of the 10,000 recordings is in one split; the splits are shuffled."""
    tested = dvs_cifar10.test_numbers()
    for find, is_tested in (
        (dvs_cifar10.find_fixed, lambda name, number: number in tested[name]),
        (dvs_cifar10.find_tet, lambda name, number: number >= 900),
    ):
        names: set[str] = set()
        for split, each in (("train", 900), ("test", 100)):
            found = find(split)
            assert np.bincount(found.labels).tolist() == [each] * 10
            assert len(set(found.labels[:40].tolist())) > 5
            for opener, label in zip(found.openers, found.labels.tolist()):
                file = file_of(opener)
                name, number = dvs_cifar10.CLASSES[label], int(file.stem.split("_")[2])
                assert (file.parent.name, file.stem) == (name, f"cifar10_{name}_{number}")
                assert is_tested(name, number) == (split == "test")
                names.add(file.name)
        assert len(names) == 10_000


@pytest.mark.slow
def test_frames_are_those_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("dvs_cifar10_tet", "test", ENCODING)
    assert (len(data), data.shape, data.name) == (1000, (2, 32, 32), "dvs_cifar10_tet")
    found = dvs_cifar10.find_tet("test")
    spikes = data.spikes(ENCODING).reshape(-1, 2, 32, 32)
    for place in (0, 500, 999):
        number = int(file_of(found.openers[place]).stem.split("_")[2])
        row, column = row_of(int(found.labels[place]), number)
        assert np.argwhere(spikes[place]).tolist() == [[1, row // 4, column // 4]]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    with refused(DataError, "not-found", key="ESL_LAVA_DATA", value=str(tmp_path)):
        load("dvs_cifar10", "train", ENCODING)
    folder = tmp_path / "CIFAR10DVS" / "airplane"
    folder.mkdir(parents=True)
    (folder / "cifar10_airplane_7.aedat4").write_bytes(b"")
    (folder / "cifar10_bird_8.aedat4").write_bytes(b"")
    with refused(DataError, "not-found", value=1, limit=1000, file=folder):
        load("dvs_cifar10", "train", ENCODING)
