import logging
from dataclasses import replace

import numpy as np
import pytest

from esl_lava.data.datasets import Images
from esl_lava.errors import DataError
from esl_lava.experiments import samedata

ONE = Images("few", np.zeros((2, 4), np.uint8), np.array([0, 1]), 2, (2, 2), "test")
OTHER = replace(ONE, labels=np.array([1, 0]))


def test_data_that_are_the_same_go_on() -> None:
    recorded = samedata.digests({"train": ONE, "test": OTHER})
    assert recorded == {"train": ONE.digest, "test": OTHER.digest}
    samedata.refuse_others("checkpoint.pt", recorded, recorded)
    samedata.refuse_others("checkpoint.pt", {}, recorded)


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_data_are_refused_by_split_and_digests(split: str) -> None:
    recorded = samedata.digests({"train": ONE, "test": ONE})
    found = {**recorded, split: OTHER.digest}
    with pytest.raises(DataError) as caught:
        samedata.refuse_others("runs/a/checkpoint.pt", recorded, found)
    assert str(caught.value) == (
        f"runs/a/checkpoint.pt: made with other data: its {split} split has SHA-256 "
        f"{ONE.digest[:12]}..., the one here {OTHER.digest[:12]}..."
    )


def test_other_data_are_remarked(caplog: pytest.LogCaptureFixture) -> None:
    samedata.remark_others({}, ONE)
    samedata.remark_others({"train_data_sha256": OTHER.digest}, ONE)
    samedata.remark_others({"test_data_sha256": ONE.digest}, ONE)
    assert not caplog.records
    samedata.remark_others({"test_data_sha256": OTHER.digest}, ONE)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "few (test): not the data that the training had by this name: SHA-256 "
        f"{ONE.digest[:12]}..., then {OTHER.digest[:12]}..."
    )
