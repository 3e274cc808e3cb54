import doctest
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from esl_lava.data import adapters
from esl_lava.data.adapters import from_arrays, from_torch
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.frames import Frames
from esl_lava.errors import DataError

PIXELS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 3)] * 4))


class Listed(Dataset):
    """A data set of given items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_the_example_runs() -> None:
    failed, tried = doctest.testmod(adapters)
    assert (failed, tried > 3) == (0, True)


@pytest.mark.parametrize("axes", [(6,), (2, 3), (1, 2, 3), (3, 1, 2)])
def test_arrays_of_pictures(axes: tuple[int, ...]) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, *axes)
    found = from_arrays(pixels, np.array([0, 2, 1, 2], ">u2"), name="four", split="train")
    assert isinstance(found, Images)
    assert (found.name, found.classes, found.split) == ("four", 3, "train")
    assert found.shape == (1, 1, *axes)[-3:]
    assert found.images.tolist() == pixels.reshape(4, 6).tolist()
    assert np.shares_memory(found.images, pixels)
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [0, 2, 1, 2])


@pytest.mark.parametrize("dtype", ["u1", "i2", "?"])
def test_arrays_of_frames(dtype: str) -> None:
    kept = (np.arange(24) % 2).astype(dtype).reshape(2, 3, 1, 2, 2)
    found = from_arrays(kept, np.array([0, 1]), classes=5)
    assert isinstance(found, Frames)
    assert (found.name, found.classes, found.steps, found.shape) == ("own", 5, 3, (1, 2, 2))
    assert found.spikes(Encoding(kind="frames", steps=3)).tolist() == kept.reshape(2, 3, 4).tolist()


PICTURES, LABELS = np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("samples", "labels", "sentence"),
    [
        (
            PICTURES[0, 0],
            LABELS,
            "own: samples need shape (samples, rows, columns) or (samples, ch",
        ),
        (PICTURES[:0], LABELS[:0], "own: samples of shape (0, 2, 2) hold nothing"),
        (PICTURES[:, :0], LABELS, "own: samples of shape (3, 0, 2) hold nothing"),
        (PICTURES * 0.5, LABELS, "own: samples of shape (3, 2, 2) are pictures, which need uint8"),
        (PICTURES.astype(int), LABELS, "own: samples of shape (3, 2, 2) are pictures, which need"),
        (PICTURES > 0, LABELS, "own: samples of shape (3, 2, 2) are pictures, which need uint8"),
        (np.full((3, 2, 2), np.nan), LABELS, "own: samples of shape (3, 2, 2) are pictures, which"),
        (PICTURES.astype(object), LABELS, "own: samples of shape (3, 2, 2) are pictures, which n"),
        (np.zeros((3, 1, 1, 2, 2)), LABELS, "own: samples have to be integers where they are fra"),
        (np.full((3, 1, 1, 2, 2), -1), LABELS, "own: samples has a value of -1 in its frames"),
        (PICTURES, LABELS[:2], "own: labels need shape (3,), one for each sample, not (2,)"),
        (PICTURES, LABELS[:, None], "own: labels need shape (3,), one for each sample, not (3, 1)"),
        (PICTURES, LABELS * 1.0, "own: labels have to be integers, not float64"),
        (PICTURES, LABELS.astype(object), "own: labels have to be integers, not object"),
        (PICTURES, LABELS - 1, "own: labels: label -1 of sample 0 is not in 0..1048575"),
        (PICTURES, np.array([0, 1 << 20, 2]), "own: labels: label 1048576 of sample 1 is not in"),
        (PICTURES, np.array([0, 1, (1 << 64) - 1], "u8"), "own: labels: label 1844674407370955161"),
    ],
)
def test_other_arrays_are_refused(samples: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        from_arrays(samples, labels)
    assert str(caught.value).startswith(sentence)


def test_labels_beyond_the_training_splits_are_refused() -> None:
    assert from_arrays(PICTURES, LABELS, classes=3).classes == 3
    with pytest.raises(DataError) as caught:
        from_arrays(PICTURES, LABELS, classes=2)
    assert str(caught.value) == (
        "own: labels: label 2 of sample 2 is not in 0..1, the classes of the training split"
    )


def test_pictures_are_held_in_memory_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "PICTURES_LIMIT", 11)
    with pytest.raises(DataError, match="own: samples have 12 bytes, the limit is 11"):
        from_arrays(PICTURES, LABELS)
    with pytest.raises(DataError, match=r"own: 3 items of shape \(2, 2\) have more bytes than"):
        from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))
    monkeypatch.setattr(adapters, "PICTURES_LIMIT", 12)
    assert len(from_arrays(PICTURES, LABELS)) == 3
    assert len(from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))) == 3
    monkeypatch.setattr(adapters, "MOST_SAMPLES", 2)
    with pytest.raises(DataError, match="own: samples are 3, the limit is 2"):
        from_arrays(PICTURES, LABELS)
    with pytest.raises(DataError, match="own: has 3 items; 1 to 2 can be taken"):
        from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))


@given(PIXELS, st.sampled_from([torch.uint8, torch.float32, torch.float64]))
def test_a_torch_data_set_of_pictures(pixels: Any, dtype: torch.dtype) -> None:
    """Floats of 0..1, as ToTensor makes them, are the pixels that they were made of."""
    tensor = torch.from_numpy(pixels.copy())
    tensor = tensor if dtype == torch.uint8 else tensor.to(dtype) / 255
    labels = torch.arange(len(pixels))
    found = from_torch(TensorDataset(tensor, labels), name="drawn", classes=9, split="test")
    assert isinstance(found, Images)
    assert (found.name, found.classes, found.split) == ("drawn", 9, "test")
    assert found.image_shape == pixels.shape[1:]
    assert found.images.tolist() == pixels.reshape(len(pixels), -1).tolist()
    assert found.labels.tolist() == labels.tolist()


def test_floats_are_rounded_to_the_nearest_pixel() -> None:
    found = from_torch(Listed((torch.tensor([0.0, 0.001, 0.002, 0.5, 1.0]), 0)))
    assert found.images.tolist() == [[0, 0, 1, 128, 255]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bool])
def test_a_torch_data_set_of_frames(dtype: torch.dtype) -> None:
    values = (torch.arange(24) % 2).to(dtype).reshape(2, 3, 1, 2, 2)
    found = from_torch(Listed((values[0], 0), [values[1], torch.tensor(1)]))
    assert isinstance(found, Frames)
    assert (found.steps, found.shape, found.classes, found.largest) == (3, (1, 2, 2), 2, 1)
    assert found.frames.tolist() == values.to(torch.int64).tolist()


ONE = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "own: has 0 items; 1 to 268435456 can be taken"),
        ([ONE], "own: item 0 is of type Tensor, not a pair (tensor, label)"),
        ([(ONE, 0, 0)], "own: item 0 is of type tuple, not a pair (tensor, label)"),
        ([(ONE, 0), (ONE, 0.5)], "own: item 1 has a label of type float, not an integer"),
        ([(ONE, "cat")], "own: item 0 has a label of type str, not an integer"),
        ([(ONE, -1)], "own: item 0 has label -1, which is not in 0..1048575"),
        ([(ONE, 1 << 70)], "own: item 0 has label 1180591620717411303424, which is not in 0..104"),
        ([([1, 2], 0)], "own: item 0: its sample is of type list, not a tensor or an array"),
        (
            [(Image.new("L", (2, 2)), 0)],
            "own: item 0: its sample is of type Image, not a tensor or an array; torchvision's "
            "ToTensor makes one of it",
        ),
        ([(torch.zeros(()), 0)], "own: item 0 has shape (), which is no picture and no frames"),
        ([(torch.zeros(1, 1, 1, 1, 1), 0)], "own: item 0 has shape (1, 1, 1, 1, 1), which is no"),
        ([(ONE, 0), (ONE[:1], 0)], "own: item 1 has shape (1, 2), item 0 has (2, 2)"),
        ([(ONE + 1.5, 0)], "own: item 0 has a pixel of 1.5; a picture of floats has 0..1"),
        ([(ONE - 0.5, 0)], "own: item 0 has a pixel of -0.5; a picture of floats has 0..1"),
        ([(ONE * torch.nan, 0)], "own: item 0 has a pixel of nan; a picture of floats has 0..1"),
        ([(ONE.int(), 0)], "own: item 0 is a picture of int32; uint8 or floats are needed"),
        ([(ONE.bool(), 0)], "own: item 0 is a picture of bool; uint8 or floats are needed"),
        ([(ONE[None, None] - 1, 0)], "own: item 0 has a value of -1.0 in its frames, which are w"),
        ([(ONE[None, None] + 0.5, 0)], "own: item 0 has a value of 0.5 in its frames, which are"),
        ([(ONE[None, None] + 256, 0)], "own: item 0 has a value of 256.0 in its frames, which ar"),
        ([(ONE[None, None] * torch.nan, 0)], "own: item 0 has a value of nan in its frames, whic"),
        ([(ONE[None, None] * 1j, 0)], "own: item 0 has frames of complex64; numbers are needed"),
        ([(torch.zeros(0, 2), 0)], "own: samples of shape (1, 0, 2) hold nothing"),
    ],
)
def test_other_items_are_refused_by_their_place(items: list, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}"):
        from_torch(Listed(*items))
