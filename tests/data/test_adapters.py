import doctest
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
from tests.faults import refused

PIXELS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 3)] * 4))


class Listed(Dataset):
    """A data set of a list of items."""

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
    ("samples", "labels", "key", "code", "value"),
    [
        (PICTURES[0, 0], LABELS, "samples", "shape", (2,)),
        (PICTURES[:0], LABELS[:0], "samples", "shape", (0, 2, 2)),
        (PICTURES[:, :0], LABELS, "samples", "shape", (3, 0, 2)),
        (PICTURES * 0.5, LABELS, "samples", "type", "float64"),
        (PICTURES.astype(int), LABELS, "samples", "type", "int64"),
        (PICTURES > 0, LABELS, "samples", "type", "bool"),
        (np.full((3, 2, 2), np.nan), LABELS, "samples", "type", "float64"),
        (PICTURES.astype(object), LABELS, "samples", "type", "object"),
        (np.zeros((3, 1, 1, 2, 2)), LABELS, "samples", "type", "float64"),
        (np.full((3, 1, 1, 2, 2), -1), LABELS, "frames", "range", -1),
        (PICTURES, LABELS[:2], "labels", "shape", (2,)),
        (PICTURES, LABELS[:, None], "labels", "shape", (3, 1)),
        (PICTURES, LABELS * 1.0, "labels", "type", "float64"),
        (PICTURES, LABELS.astype(object), "labels", "type", "object"),
        (PICTURES, LABELS - 1, "labels", "range", -1),
        (PICTURES, np.array([0, 1 << 20, 2]), "labels", "range", 1 << 20),
        (PICTURES, np.array([0, 1, (1 << 64) - 1], "u8"), "labels", "range", (1 << 64) - 1),
    ],
)
def test_other_arrays_are_refused(
    samples: Any, labels: Any, key: str, code: str, value: object
) -> None:
    with refused(DataError, code, key=key, value=value) as caught:
        from_arrays(samples, labels)
    assert str(caught.value).startswith(f"own: {key if key == 'labels' else 'samples'}")


def test_labels_beyond_the_training_splits_are_refused() -> None:
    assert from_arrays(PICTURES, LABELS, classes=3).classes == 3
    with refused(DataError, "range", key="labels", value=2, limit=1) as caught:
        from_arrays(PICTURES, LABELS, classes=2)
    assert "label 2 of sample 2" in str(caught.value)


def test_pictures_are_held_in_memory_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "PICTURES_LIMIT", 11)
    with refused(DataError, "too-large", key="samples", value=12, limit=11):
        from_arrays(PICTURES, LABELS)
    with refused(DataError, "too-large", value=12, limit=11):
        from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))
    monkeypatch.setattr(adapters, "PICTURES_LIMIT", 12)
    assert len(from_arrays(PICTURES, LABELS)) == 3
    assert len(from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))) == 3
    monkeypatch.setattr(adapters, "MOST_SAMPLES", 2)
    with refused(DataError, "too-large", key="samples", value=3, limit=2):
        from_arrays(PICTURES, LABELS)
    with refused(DataError, "range", value=3, limit=2):
        from_torch(TensorDataset(torch.zeros(3, 2, 2), torch.arange(3)))


@pytest.mark.slow
@given(PIXELS, st.sampled_from([torch.uint8, torch.float32, torch.float64]))
def test_a_torch_data_set_of_pictures(pixels: Any, dtype: torch.dtype) -> None:
    """Floats in 0..1, as ToTensor makes them of pixels, become the same pixels again."""
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


MOST_LABEL = (1 << 20) - 1


@pytest.mark.parametrize(
    ("items", "key", "code", "expected"),
    [
        ([], None, "range", {"value": 0, "limit": 1 << 28}),
        ([ONE], "item 0", "type", {"value": "Tensor"}),
        ([(ONE, 0, 0)], "item 0", "type", {"value": "tuple"}),
        ([(ONE, 0), (ONE, 0.5)], "item 1", "type", {"value": "float"}),
        ([(ONE, "cat")], "item 0", "type", {"value": "str"}),
        ([(ONE, -1)], "item 0", "range", {"value": -1, "limit": MOST_LABEL}),
        ([(ONE, 1 << 70)], "item 0", "range", {"value": 1 << 70, "limit": MOST_LABEL}),
        ([([1, 2], 0)], "its sample", "type", {"value": "list"}),
        ([(Image.new("L", (2, 2)), 0)], "its sample", "type", {"value": "Image"}),
        ([(torch.zeros(()), 0)], "item 0", "shape", {"value": ()}),
        ([(torch.zeros(1, 1, 1, 1, 1), 0)], "item 0", "shape", {"value": (1, 1, 1, 1, 1)}),
        ([(ONE, 0), (ONE[:1], 0)], "item 1", "mismatch", {"value": (1, 2), "limit": (2, 2)}),
        ([(ONE + 1.5, 0)], "item 0", "range", {"value": 1.5, "limit": 1}),
        ([(ONE - 0.5, 0)], "item 0", "range", {"value": -0.5, "limit": 1}),
        ([(ONE * torch.nan, 0)], "item 0", "not-finite", {"limit": 1}),
        ([(ONE.int(), 0)], "item 0", "type", {"value": "int32"}),
        ([(ONE.bool(), 0)], "item 0", "type", {"value": "bool"}),
        ([(ONE[None, None] - 1, 0)], "item 0", "range", {"value": -1, "limit": 255}),
        ([(ONE[None, None] + 0.5, 0)], "item 0", "range", {"value": 0.5, "limit": 255}),
        ([(ONE[None, None] + 256, 0)], "item 0", "range", {"value": 256, "limit": 255}),
        ([(ONE[None, None] * torch.nan, 0)], "item 0", "not-finite", {"limit": 255}),
        ([(ONE[None, None] * 1j, 0)], "item 0", "type", {"value": "complex64"}),
        ([(torch.zeros(0, 2), 0)], "samples", "shape", {"value": (1, 0, 2)}),
    ],
)
def test_other_items_are_refused_by_their_place(
    items: list, key: str | None, code: str, expected: dict[str, object]
) -> None:
    with refused(DataError, code, key=key, **expected) as caught:
        from_torch(Listed(*items))
    assert str(caught.value).startswith("own: ")


def test_a_picture_of_pil_is_told_what_makes_a_tensor() -> None:
    with refused(DataError, "type", value="Image") as caught:
        from_torch(Listed((Image.new("L", (2, 2)), 0)))
    assert "item 0" in str(caught.value)
    assert "ToTensor" in str(caught.value)
