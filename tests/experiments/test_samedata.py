import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esl_lava.data.datasets import Images
from esl_lava.errors import DataError
from esl_lava.experiments import samedata
from tests.faults import refused

ONE = Images("few", np.zeros((2, 4), np.uint8), np.array([0, 1]), 2, (2, 2), "test")
OTHER = replace(ONE, labels=np.array([1, 0]))


def test_equal_data_are_accepted() -> None:
    recorded = samedata.digests({"train": ONE, "test": OTHER})
    assert recorded == {"train": ONE.digest, "test": OTHER.digest}
    samedata.refuse_other_data(Path("checkpoint.pt"), recorded, recorded)
    samedata.refuse_other_data(Path("checkpoint.pt"), {}, recorded)


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_data_are_refused_by_split_and_digests(split: str) -> None:
    recorded = samedata.digests({"train": ONE, "test": ONE})
    current = {**recorded, split: OTHER.digest}
    path = Path("runs/a/checkpoint.pt")
    expected = {"key": split, "value": OTHER.digest, "limit": ONE.digest, "file": path}
    with refused(DataError, "mismatch", **expected) as caught:
        samedata.refuse_other_data(path, recorded, current)
    for digest in (ONE.digest, OTHER.digest):
        assert digest[:12] in str(caught.value)


def test_other_data_are_remarked(caplog: pytest.LogCaptureFixture) -> None:
    samedata.warn_of_other_data({}, ONE)
    samedata.warn_of_other_data({"train_data_sha256": OTHER.digest}, ONE)
    samedata.warn_of_other_data({"test_data_sha256": ONE.digest}, ONE)
    assert not caplog.records
    samedata.warn_of_other_data({"test_data_sha256": OTHER.digest}, ONE)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "few (test): not the data of this name in the training: SHA-256 is "
        f"{ONE.digest[:12]}..., was {OTHER.digest[:12]}..."
    )
