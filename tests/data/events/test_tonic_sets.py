"""Small data sets in the layout of tonic's downloads, which tonic itself reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from esl_lava.data.catalogue import load, shape_and_classes
from esl_lava.data.config import Encoding
from esl_lava.data.events import prepare
from esl_lava.errors import DataError, FileError
from tests.faults import refused

ENCODING = Encoding(kind="frames", steps=2, bits=8)
TRAIN = "ibmGestureTrain"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "cache")


def gestures(root: Path, files: int = 110) -> Path:
    """Write recordings of x, y, polarity, milliseconds: gesture g of person p has 2 + g events."""
    folder = root / "DVSGesture"
    (folder / TRAIN).mkdir(parents=True)
    (folder / f"{TRAIN}.tar.gz").write_bytes(b"")
    for place in range(files):
        person, gesture = divmod(place, 11)
        where = folder / TRAIN / f"user{person:02}_led"
        where.mkdir(exist_ok=True)
        events = [(gesture, person, n % 2, n) for n in range(2 + gesture)]
        np.save(where / f"{gesture}.npy", np.array(events, np.float64))
    return folder


@pytest.mark.slow
def test_gestures_as_tonic_lists_them(tmp_path: Path) -> None:
    gestures(tmp_path)
    data = load("dvs_gesture", "train", ENCODING)
    assert (len(data), data.shape, data.classes) == (110, (2, 128, 128), 11)
    assert np.bincount(data.labels).tolist() == [10] * 11
    assert data.labels.tolist() != sorted(data.labels.tolist())
    counts = data.spikes(ENCODING).reshape(110, 2, 2, 128, 128).astype(np.int64)
    people = set()
    for label, count in zip(data.labels.tolist(), counts):
        # Every second event is ON, from the second event on.
        off, on = count.sum(axis=(0, 2, 3)).tolist()
        assert (off, on) == ((3 + label) // 2, (2 + label) // 2)
        _, _, row, column = np.argwhere(count).T
        assert set(column) == {label}
        people.add((label, int(row[0])))
    assert len(people) == 110
    assert shape_and_classes("dvs_gesture", ENCODING) == ((2, 128, 128), 11)


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    with refused(DataError, "not-found", key="ESL_LAVA_DATA", value=str(tmp_path)):
        load("dvs_gesture", "train", ENCODING)
    folder = gestures(tmp_path, 20)
    with refused(DataError, "not-found", file=folder) as caught:
        load("dvs_gesture", "train", ENCODING)
    assert "tonic.datasets.DVSGesture(save_to=FOLDER, train=True)" in str(caught.value)


@pytest.mark.slow
def test_damaged_gestures_are_named(tmp_path: Path) -> None:
    folder = gestures(tmp_path)
    file = folder / TRAIN / "user03_led" / "5.npy"
    whole = file.read_bytes()
    for content in (whole[:-8], b""):
        file.write_bytes(content)
        with refused(FileError, "damaged") as caught:
            load("dvs_gesture", "train", ENCODING)
        assert "dvs_gesture, item " in str(caught.value)
    for event, value in (((128, 0, 1, 9), (0, 128)), ((0, 0, 1, -9), 10_000)):
        np.save(file, np.array([(0, 0, 1, 0), (0, 0, 1, 1), event], np.float64))
        with refused(FileError, "damaged", value=value) as caught:
            load("dvs_gesture", "train", ENCODING)
        assert "event 3 " in str(caught.value)


def test_a_damaged_file_of_a_whole_set_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "SHD"
    folder.mkdir()
    (folder / "shd_train.h5.zip").write_bytes(b"")
    (folder / "shd_train.h5").write_bytes(b"no HDF5")
    with refused(FileError, "damaged", file=folder):
        load("shd", "train", ENCODING)


@pytest.mark.slow
def test_another_recording_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    folder = gestures(tmp_path)
    first = load("dvs_gesture", "train", ENCODING).digest
    assert load("dvs_gesture", "train", ENCODING).digest == first
    events = np.array([(5, 5, 1, 0), (5, 5, 1, 1), (5, 5, 1, 2)], np.float64)
    np.save(folder / TRAIN / "user03_led" / "5.npy", events)
    assert load("dvs_gesture", "train", ENCODING).digest != first


def test_heidelberg_digits_have_one_row_and_one_polarity(tmp_path: Path) -> None:
    folder = tmp_path / "SHD"
    folder.mkdir()
    (folder / "shd_test.h5.zip").write_bytes(b"")
    times = [np.array([0.0, 0.1, 0.5]), np.array([0.2, 0.4])]
    units = [np.array([0, 699, 350]), np.array([70, 70])]
    with h5py.File(folder / "shd_test.h5", "w") as file:
        for name, values, kind in (("times", times, "f2"), ("units", units, "u2")):
            stored = file.create_dataset(f"spikes/{name}", 2, h5py.vlen_dtype(np.dtype(kind)))
            for place, value in enumerate(values):
                stored[place] = value
        file["labels"] = np.array([19, 3], np.uint16)
        file["extra/keys"] = np.array([b"zero"])
        file["extra/speaker"] = np.array([1, 2])
    data = load("shd", "test", ENCODING)
    assert (data.shape, data.classes) == ((1, 1, 700), 20)
    found = {
        label: np.argwhere(frames).tolist()
        for label, frames in zip(data.labels.tolist(), data.spikes(ENCODING))
    }
    assert found == {19: [[0, 0], [0, 699], [1, 350]], 3: [[0, 70], [1, 70]]}
    one = data.picture(data.labels.tolist().index(19))  # all events are ON
    assert np.argwhere(one != 128).tolist() == [[0, 0], [0, 350], [0, 699]]
    assert set(one[one != 128].tolist()) == {255}
    narrow = ENCODING.model_copy(update={"side": 70})
    assert load("shd", "test", narrow).shape == (1, 1, 70)
    assert shape_and_classes("shd", narrow)[0] == (1, 1, 70)
